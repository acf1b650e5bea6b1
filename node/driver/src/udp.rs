//! UDP with the kernel's batching: GRO in, GSO out, readiness through the core's ring.
//!
//! System calls are quinn-udp's. A socket never blocks: receiving drains it until the kernel says
//! there is nothing more, and only then is its readiness asked for, once ([`Readiness`]).

use crate::{
    limits::{RECEIVE_BATCH, RECEIVE_BYTES, SOCKET_BUFFER_BYTES},
    ring::{Operation, Ring},
    system,
};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// What one call received. The default has no memory to receive into and holds nothing.
#[derive(Debug, Default)]
pub struct ReceiveBatch {
    memory: Vec<u8>,
    meta: [RecvMeta; RECEIVE_BATCH],
    filled: usize,
}

impl ReceiveBatch {
    /// A batch to receive into.
    pub fn new() -> Self {
        ReceiveBatch {
            memory: vec![0; RECEIVE_BATCH * RECEIVE_BYTES],
            meta: [RecvMeta::default(); RECEIVE_BATCH],
            filled: 0,
        }
    }

    /// What was received, in order.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        let memory = self.memory.chunks_exact(RECEIVE_BYTES);
        memory.zip(&self.meta).take(self.filled).map(|(memory, meta)| Received {
            remote: meta.addr,
            local_ip: meta.dst_ip,
            ecn: meta.ecn,
            bytes: &memory[..meta.len],
            stride: meta.stride.max(1),
        })
    }
}

/// One datagram, or several of one sender that the kernel joined.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The sender.
    pub remote: SocketAddr,
    /// The local address it was sent to.
    pub local_ip: Option<IpAddr>,
    /// The congestion mark.
    pub ecn: Option<EcnCodepoint>,
    /// The datagrams one behind the other.
    pub bytes: &'a [u8],
    /// Bytes of each but the last.
    pub stride: usize,
}

/// A UDP socket of one core.
#[derive(Debug)]
pub struct UdpSocket {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    ring: Rc<Ring>,
}

impl UdpSocket {
    pub(crate) fn bind(ring: Rc<Ring>, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // The kernel grants what its limits allow; less than asked for is no error.
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        system::force_socket_buffers(&socket, SOCKET_BUFFER_BYTES);
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        Ok(UdpSocket { socket, state, ring })
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Most datagrams that one [`try_send`](Self::try_send) may carry.
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Whether the network may cut datagrams in pieces, so that their size proves nothing.
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Receives what is there; false if nothing is.
    ///
    /// # Panics
    /// If the batch has no memory.
    ///
    /// # Errors
    /// What the system said, other than that there is nothing.
    pub fn try_receive(&self, batch: &mut ReceiveBatch) -> io::Result<bool> {
        batch.filled = 0;
        let mut chunks = batch.memory.chunks_exact_mut(RECEIVE_BYTES);
        let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("memory for each of the batch")));
        match self.state.recv((&self.socket).into(), &mut slices, &mut batch.meta) {
            Ok(filled) => batch.filled = filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // An earlier datagram was refused by its receiver: news of the past.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Sends at once; false if the socket's buffer is full. Whatever else goes wrong with a datagram is
    /// taken for a loss on the way.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> bool {
        self.state.send((&self.socket).into(), transmit).is_ok()
    }

    /// Resolves when there may be something to receive.
    pub async fn readable(&self) {
        self.ring.poll(&self.socket, libc::POLLIN).await;
    }

    /// Resolves when there may be room to send.
    pub async fn writable(&self) {
        self.ring.poll(&self.socket, libc::POLLOUT).await;
    }
}

/// Readiness to receive, asked for once and remembered over many waits.
///
/// A loop that is woken for other reasons than its socket need not try the socket: while the question
/// is still open, there is nothing to receive.
#[derive(Debug, Default)]
pub struct Readiness {
    waiting: Option<Operation>,
}

impl Readiness {
    /// Whether it is worth trying to receive.
    pub fn is_ready(&mut self) -> bool {
        if self.waiting.as_ref().is_some_and(Operation::is_done) {
            self.waiting = None;
        }
        self.waiting.is_none()
    }

    /// Ready when there may be something to receive. To be called after the socket was drained.
    pub fn poll_ready(&mut self, socket: &UdpSocket, context: &mut Context<'_>) -> Poll<()> {
        let waiting = self.waiting.get_or_insert_with(|| socket.ring.poll(&socket.socket, libc::POLLIN));
        std::task::ready!(Pin::new(waiting).poll(context));
        self.waiting = None;
        Poll::Ready(())
    }
}
