//! Two sockets of one core talk to each other, in batches.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_driver::{CoreConfig, Placement, ReceiveBatch, Transmit, UdpSocket, run_core};
use std::{net::SocketAddr, rc::Rc};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Receives `wanted` datagrams, each split from its run.
async fn receive(socket: &UdpSocket, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut batch = ReceiveBatch::new();
    let mut datagrams = Vec::new();
    while datagrams.len() < wanted {
        if !socket.try_receive(&mut batch).unwrap() {
            socket.readable().await;
            continue;
        }
        for received in batch.iter() {
            datagrams.extend(
                received.bytes.chunks(received.stride).map(|datagram| (received.remote, datagram.to_vec())),
            );
        }
    }
    datagrams
}

#[test]
fn datagrams_sent_as_one_batch_come_back_one_by_one() {
    let config = CoreConfig { name: "udp".to_owned(), placement: Placement::Unbound };
    let core = run_core(config, |core| async move {
        let here = core.bind_udp(loopback()).unwrap();
        let there = Rc::new(core.bind_udp(loopback()).unwrap());
        let (here_address, there_address) = (here.local_addr().unwrap(), there.local_addr().unwrap());
        let echo = async {
            for (remote, datagram) in receive(&there, 24).await {
                assert_eq!(remote, here_address);
                let reply = Transmit {
                    destination: remote,
                    ecn: None,
                    contents: &datagram,
                    segment_size: None,
                    src_ip: None,
                };
                assert!(there.try_send(&reply));
            }
        };
        let ask = async {
            let mut contents = Vec::new();
            for number in 0..24u8 {
                contents.extend_from_slice(&[number; 1200]);
            }
            let segments = here.segments_max().min(8);
            for chunk in contents.chunks(segments * 1200) {
                let batch = Transmit {
                    destination: there_address,
                    ecn: None,
                    contents: chunk,
                    segment_size: Some(1200),
                    src_ip: None,
                };
                assert!(here.try_send(&batch));
            }
            let mut answers = receive(&here, 24).await;
            answers.sort_by(|a, b| a.1.cmp(&b.1));
            for (number, (remote, datagram)) in answers.iter().enumerate() {
                assert_eq!((*remote, datagram.as_slice()), (there_address, [number as u8; 1200].as_slice()));
            }
        };
        echo.await_with(ask).await;
    });
    core.unwrap().join().unwrap();
}

/// Both futures to their ends, in one task.
trait AwaitWith: Future<Output = ()> + Sized {
    async fn await_with(self, other: impl Future<Output = ()>) {
        let (mut first, mut second) = (std::pin::pin!(self), std::pin::pin!(other));
        let (mut first_done, mut second_done) = (false, false);
        std::future::poll_fn(move |context| {
            first_done = first_done || first.as_mut().poll(context).is_ready();
            second_done = second_done || second.as_mut().poll(context).is_ready();
            if first_done && second_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

impl<F: Future<Output = ()>> AwaitWith for F {}
