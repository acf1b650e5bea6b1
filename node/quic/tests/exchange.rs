//! Endpoints of one core talk to each other over loopback.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::Bytes;
use common::{Authority, Recorder, on_a_core, sealed, serve};
use evenkeel_model::NodeId;
use evenkeel_quic::{
    CloseCode, ConnectError, Connection, Endpoint, Lane, Role, SERVER_NAME, limits, node_name,
};
use evenkeel_wire::frame::HEADER_BYTES;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

async fn connect(from: &Endpoint, to: &Endpoint) -> Connection {
    from.connect(to.local_addr(), SERVER_NAME).await.unwrap()
}

fn body(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + seed) as u8).collect()
}

#[test]
fn frames_of_any_size_come_back_on_their_lane_in_order() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, echoing) = (Recorder::silent(), Recorder::echoing());
        let client = serve(&core, authority.issue(&["router.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &echoing);
        let connection = connect(&client, &server).await;
        let sizes = [0, 1, 47, 48, 1000, 1152, 1153, 20_000, 70_000, 1 << 20, 4 << 20, 3];
        let lanes: Vec<Lane> = (0..5).map(|_| connection.open_lane().unwrap()).collect();
        for (id, bytes) in sizes.into_iter().enumerate() {
            for (number, lane) in lanes.iter().enumerate() {
                lane.send(sealed(&body(bytes, number), id as u64)).unwrap();
            }
        }
        let answers = asking.frames(sizes.len() * lanes.len()).await;
        for (number, lane) in lanes.iter().enumerate() {
            let mine = answers.iter().filter(|(of, _)| of.id() == lane.id()).map(|(_, frame)| frame);
            let mut expected = sizes.into_iter().enumerate();
            for frame in mine {
                let (id, bytes) = expected.next().unwrap();
                assert_eq!(frame.header.request_id, id as u64);
                assert!(frame.body == body(bytes, number), "frame {id} of lane {number}");
            }
            assert_eq!(expected.next(), None);
        }
        let (there, back) = (server.statistics(), client.statistics());
        assert_eq!((there.frames_received, back.frames_received), (60, 60));
        assert_eq!((there.frames_malformed, there.connections_opened), (0, 1));
    });
}

#[test]
fn sixty_four_requests_in_flight_are_all_answered_once() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, echoing) = (Recorder::silent(), Recorder::echoing());
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &echoing);
        let lane = connect(&client, &server).await.open_lane().unwrap();
        let mut next = 0;
        let mut answered = 0;
        for _ in 0..64 {
            lane.send(sealed(&body(128, 1), next)).unwrap();
            next += 1;
        }
        while answered < 5_000 {
            for (_, frame) in asking.frames(1).await {
                assert_eq!(frame.header.request_id, answered);
                answered += 1;
                lane.send(sealed(&body(128, 1), next)).unwrap();
                next += 1;
            }
        }
        // Many frames travelled in each datagram, and many datagrams in each turn.
        let statistics = server.statistics();
        assert!(statistics.datagrams_received < statistics.frames_received, "{statistics:?}");
    });
}

#[test]
fn a_corrupt_frame_closes_the_connection_with_a_reason_and_once() {
    type Flip = fn(&mut Vec<u8>);
    let flips: [(&str, Flip); 4] = [
        ("magic", |frame| frame[0] ^= 1),
        ("version", |frame| frame[4] ^= 0x10),
        ("exceeds", |frame| frame[24..28].copy_from_slice(&u32::MAX.to_le_bytes())),
        ("checksum", |frame| *frame.last_mut().unwrap() ^= 0x80),
    ];
    for (expected, flip) in flips {
        on_a_core(move |core| async move {
            let authority = Authority::new();
            let (asking, echoing) = (Recorder::silent(), Recorder::echoing());
            let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
            let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &echoing);
            let connection = connect(&client, &server).await;
            let lane = connection.open_lane().unwrap();
            lane.send(sealed(b"good", 1)).unwrap();
            asking.frames(1).await;
            let mut corrupt = sealed(&body(500, 1), 2).to_vec();
            flip(&mut corrupt);
            lane.send(Bytes::from(corrupt)).unwrap();
            lane.send(sealed(b"good again", 3)).unwrap();
            for side in [&asking, &echoing] {
                side.until(|log| (!log.closed.is_empty()).then_some(())).await;
            }
            let reason = connection.lost().unwrap();
            assert!(reason.contains(expected), "{reason}");
            assert!(lane.send(sealed(b"late", 4)).is_err() && connection.open_lane().is_err());
            server.shutdown().await;
            client.shutdown().await;
            for side in [&asking, &echoing] {
                let closed = side.until(|log| Some(log.closed.len())).await;
                assert_eq!(closed, 1);
            }
            assert_eq!(server.statistics().frames_malformed, 1);
            assert_eq!(echoing.until(|log| Some(log.frames.len())).await, 1, "nothing behind it is read");
        });
    }
}

#[test]
fn each_side_sees_the_roles_of_the_other() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, serving) = (Recorder::silent(), Recorder::silent());
        let names = ["admin.evenkeel", "router.evenkeel"];
        let client = serve(&core, authority.issue(&names).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let connection = connect(&client, &server).await;
        assert_eq!(connection.roles(), [Role::Node].into_iter().collect());
        assert!(connection.is_outgoing() && connection.is_open());
        let accepted = serving.until(|log| log.opened.pop()).await;
        assert_eq!(accepted.roles(), [Role::Admin, Role::Router].into_iter().collect());
        assert!(!accepted.roles().contains(Role::Node) && !accepted.is_outgoing());
        assert_eq!(accepted.remote_address(), client.local_addr());
    });
}

#[test]
fn a_node_proves_which_one_it_is_and_no_other_passes_for_it() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let serving = Recorder::silent();
        let names = |node: u32| [SERVER_NAME.to_owned(), node_name(NodeId(node))];
        let identity = |node| authority.issue(&names(node).each_ref().map(String::as_str));
        let first = serve(&core, identity(1).config(), &Recorder::silent());
        let second = serve(&core, identity(2).config(), &serving);
        let to_second = second.local_addr();
        let connection = first.connect(to_second, &node_name(NodeId(2))).await.unwrap();
        assert_eq!(connection.node(), Some(NodeId(2)));
        assert_eq!(serving.until(|log| log.opened.pop()).await.node(), Some(NodeId(1)));
        let refused = first.connect(to_second, &node_name(NodeId(3))).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Lost { .. }), "{refused}");
    });
}

#[test]
fn datagrams_arrive_by_themselves_and_too_large_ones_never() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, serving) = (Recorder::silent(), Recorder::silent());
        let client = serve(&core, authority.issue(&["node.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let connection = connect(&client, &server).await;
        let most = connection.datagram_bytes_max().unwrap();
        assert!(most > 1000, "{most}");
        for bytes in [0, 1, 500, limits::DATAGRAM_BYTES_MAX as usize, 1 << 20, 900] {
            connection.send_datagram(sealed(&body(bytes, 1), bytes as u64)).unwrap();
        }
        // Noise is dropped, and the connection lives on.
        connection.send_datagram(Bytes::from_static(&[7; 100])).unwrap();
        connection.send_datagram(sealed(b"last", 7)).unwrap();
        let bodies = serving
            .until(|log| {
                log.datagrams
                    .iter()
                    .any(|frame| frame.header.request_id == 7)
                    .then(|| log.datagrams.iter().map(|frame| frame.body.len()).collect::<Vec<_>>())
            })
            .await;
        assert_eq!(bodies, [0, 1, 500, 900, 4]);
        // They go both ways.
        let accepted = serving.until(|log| log.opened.pop()).await;
        accepted.send_datagram(sealed(b"back", 1)).unwrap();
        assert_eq!(&asking.until(|log| log.datagrams.pop()).await.body[..], b"back");
    });
}

#[test]
fn a_lane_of_greater_priority_does_not_wait_for_others() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let serving = Recorder::silent();
        let client = serve(&core, authority.issue(&["node.evenkeel"]).config(), &Recorder::silent());
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let connection = connect(&client, &server).await;
        let (bulk, urgent) = (connection.open_lane().unwrap(), connection.open_lane().unwrap());
        bulk.set_priority(-1);
        for id in 0..4 {
            bulk.send(sealed(&body(1 << 20, 0), id)).unwrap();
        }
        urgent.send(sealed(b"urgent", 99)).unwrap();
        let order: Vec<u64> =
            serving.frames(5).await.iter().map(|(_, frame)| frame.header.request_id).collect();
        assert_eq!(order, [99, 0, 1, 2, 3]);
    });
}

#[test]
fn a_peer_of_another_authority_is_refused_by_either_side() {
    on_a_core(|core| async move {
        let (authority, other) = (Authority::new(), Authority::new());
        let serving = Recorder::silent();
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        // A client that does not trust the server gives up in the handshake.
        let stranger = serve(&core, other.issue(&["client.evenkeel"]).config(), &Recorder::silent());
        let refused = stranger.connect(server.local_addr(), SERVER_NAME).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Lost { .. }), "{refused}");
        // A client that the server does not trust learns of it just after its own side of the handshake.
        let asking = Recorder::silent();
        let identity = other.issue(&["client.evenkeel"]).trusting(&authority);
        let impostor = serve(&core, identity.config(), &asking);
        if impostor.connect(server.local_addr(), SERVER_NAME).await.is_ok() {
            asking.until(|log| (!log.closed.is_empty()).then_some(())).await;
        }
        assert_eq!(serving.until(|log| Some(log.opened.len())).await, 0);
        assert_eq!(server.statistics().connections_opened, 0);
    });
}

#[test]
fn a_node_without_the_name_and_a_peer_of_another_protocol_are_refused() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &Recorder::silent());
        let nameless = serve(&core, authority.issue(&["router.evenkeel"]).config(), &Recorder::silent());
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &Recorder::silent());
        let refused = client.connect(nameless.local_addr(), SERVER_NAME).await.unwrap_err();
        assert!(refused.to_string().contains("failed"), "{refused}");
        let mut config = authority.issue(&["client.evenkeel"]).config();
        let mut tls = (*config.client_tls).clone();
        tls.alpn_protocols = vec![b"evenkeel/0".to_vec()];
        config.client_tls = tls.into();
        let old = serve(&core, config, &Recorder::silent());
        let refused = old.connect(server.local_addr(), SERVER_NAME).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Lost { .. }), "{refused}");
    });
}

#[test]
fn a_lane_with_too_much_to_send_is_not_read() {
    on_a_core(|core| async move {
        const ANSWER_BYTES: usize = 256 * 1024;
        const REQUESTS: usize = 400;
        let authority = Authority::new();
        let asking = Recorder::silent();
        let waiting_max = Rc::new(Cell::new(0));
        let answering = Recorder::answering({
            let waiting_max = Rc::clone(&waiting_max);
            move |lane, frame| {
                lane.send(sealed(&body(ANSWER_BYTES, 1), frame.header.request_id)).unwrap();
                waiting_max.set(waiting_max.get().max(lane.outgoing_bytes()));
            }
        });
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &answering);
        let lane = connect(&client, &server).await.open_lane().unwrap();
        // Large requests, so that a batch of datagrams holds few of them.
        for id in 0..REQUESTS {
            lane.send(sealed(&body(20_000, 2), id as u64)).unwrap();
        }
        for answer in 0..REQUESTS {
            let (_, frame) = asking.frames(1).await.pop().unwrap();
            assert_eq!((frame.header.request_id, frame.body.len()), (answer as u64, ANSWER_BYTES));
        }
        let frames_per_turn = limits::LANE_FRAMES_PER_TURN + limits::CHUNK_BYTES_MAX / 20_000;
        let per_turn = frames_per_turn * (ANSWER_BYTES + HEADER_BYTES);
        let bound = limits::LANE_OUTGOING_BYTES_MAX + per_turn;
        assert!(waiting_max.get() <= bound, "{} bytes were waiting", waiting_max.get());
    });
}

#[test]
fn a_held_lane_delivers_nothing_until_it_is_resumed() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, serving) = (Recorder::silent(), Recorder::answering(|lane, _| lane.hold()));
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let connection = connect(&client, &server).await;
        let (held, other) = (connection.open_lane().unwrap(), connection.open_lane().unwrap());
        held.send(sealed(b"first", 1)).unwrap();
        let (lane, _) = serving.frames(1).await.pop().unwrap();
        held.send(sealed(b"second", 2)).unwrap();
        other.send(sealed(b"third", 3)).unwrap();
        let (_, frame) = serving.frames(1).await.pop().unwrap();
        assert_eq!(frame.header.request_id, 3, "another lane goes on");
        lane.resume();
        let (_, frame) = serving.frames(1).await.pop().unwrap();
        assert_eq!(frame.header.request_id, 2);
    });
}

#[test]
fn answers_of_other_tasks_leave_together() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, serving) = (Recorder::silent(), Recorder::silent());
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let lane = connect(&client, &server).await.open_lane().unwrap();
        for id in 0..32 {
            lane.send(sealed(&body(100, 1), id)).unwrap();
        }
        let requests = serving.frames(32).await;
        core.yield_now().await;
        let before = server.statistics();
        for (lane, frame) in requests {
            core.spawn(async move { lane.send(sealed(&frame.body, frame.header.request_id)).unwrap() });
        }
        asking.frames(32).await;
        let sent = server.statistics().datagrams_sent - before.datagrams_sent;
        assert!(sent <= 8, "32 answers of 148 bytes took {sent} datagrams");
    });
}

#[test]
fn a_shutdown_tells_the_peers_and_takes_nothing_more() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, serving) = (Recorder::silent(), Recorder::echoing());
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let connection = connect(&client, &server).await;
        let lane = connection.open_lane().unwrap();
        lane.send(sealed(b"hello", 1)).unwrap();
        asking.frames(1).await;
        server.shutdown().await;
        assert_eq!(serving.until(|log| Some(log.closed.len())).await, 1);
        asking.until(|log| (log.closed == [connection.id()]).then_some(())).await;
        assert!(connection.lost().unwrap().contains("shuts down"), "{:?}", connection.lost());
        assert_eq!(
            server.connect(client.local_addr(), SERVER_NAME).await.unwrap_err(),
            ConnectError::Shutdown
        );
        client.shutdown().await;
        client.shutdown().await;
    });
}

#[test]
fn a_closed_connection_reports_the_reason_given_and_leaves_others_alone() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (asking, serving) = (Recorder::silent(), Recorder::echoing());
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let server = serve(&core, authority.issue(&["node.evenkeel"]).config(), &serving);
        let (first, second) = (connect(&client, &server).await, connect(&client, &server).await);
        let accepted = serving.until(|log| (log.opened.len() == 2).then(|| log.opened.remove(0))).await;
        accepted.close(CloseCode::Refused, "wrong cluster");
        asking.until(|log| (log.closed == [first.id()]).then_some(())).await;
        assert!(first.lost().unwrap().contains("wrong cluster"));
        second.open_lane().unwrap().send(sealed(b"still here", 1)).unwrap();
        assert_eq!(&asking.frames(1).await[0].1.body[..], b"still here");
    });
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let mut config = authority.issue(&["node.evenkeel"]).config();
        config.limits.connections_max = 2;
        let server = serve(&core, config, &Recorder::silent());
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &Recorder::silent());
        connect(&client, &server).await;
        connect(&client, &server).await;
        let refused = client.connect(server.local_addr(), SERVER_NAME).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Lost { .. }), "{refused}");
        assert_eq!(server.statistics().connections_refused, 1);
        let refused = server.connect(client.local_addr(), SERVER_NAME).await.unwrap_err();
        assert_eq!(refused, ConnectError::TooMany { max: 2 });
    });
}

/// Ends `future` when it is told to, as a crash would.
#[derive(Clone, Default)]
struct Crash {
    now: Rc<Cell<bool>>,
    waker: Rc<RefCell<Option<Waker>>>,
}

impl Crash {
    async fn end(self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        poll_fn(|context| {
            *self.waker.borrow_mut() = Some(context.waker().clone());
            if self.now.get() { Poll::Ready(()) } else { future.as_mut().poll(context) }
        })
        .await;
    }

    fn crash(&self) {
        self.now.set(true);
        self.waker.take().unwrap().wake();
    }
}

#[test]
fn a_peer_learns_of_a_restart_as_soon_as_it_sends() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let asking = Recorder::silent();
        let client = serve(&core, authority.issue(&["client.evenkeel"]).config(), &asking);
        let mut config = authority.issue(&["node.evenkeel"]).config();
        config.reset_key = Some([7; 32]);
        let before = Endpoint::bind(&core, config.clone()).unwrap();
        config.addr = before.local_addr();
        let crash = Crash::default();
        core.spawn(crash.clone().end(before.run(Recorder::silent())));
        let connection = connect(&client, &before).await;
        let lane = connection.open_lane().unwrap();
        lane.send(sealed(b"hello", 1)).unwrap();
        crash.crash();
        before.shutdown().await;
        drop(before);
        let after = loop {
            match Endpoint::bind(&core, config.clone()) {
                Ok(endpoint) => break endpoint,
                Err(_) => core.yield_now().await,
            }
        };
        core.spawn(after.run(Recorder::echoing()));
        // A reset must be shorter than what it answers, so short datagrams may go unanswered.
        let _ = lane.send(sealed(&body(1000, 1), 2));
        asking.until(|log| (log.closed == [connection.id()]).then_some(())).await;
        assert_eq!(connection.lost().unwrap(), "reset by peer");
        connect(&client, &after).await;
    });
}
