//! The endpoint of a core: one socket, all connections, the server's and the client's role.

use crate::{
    connection::{Connection, ConnectionId, ConnectionState, Lane, Phase},
    limits::EndpointLimits,
    shared::{Counters, EndpointStatistics, Work},
    tls::Roles,
    transport::{self, CloseCode},
    turn::Turner,
};
use evenkeel_driver::{Core, UdpSocket};
use evenkeel_wire::frame::Frame;
use quinn_proto::ConnectionHandle;
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

/// What happens to a core's connections. Called from the endpoint's task, one call at a time; a call
/// must not wait, but may send, open, hold and close as it likes.
pub trait Handler {
    /// A whole frame whose checksum was right. Its body is a view of what was received: hold it no
    /// longer than the request takes, it may keep a whole batch of datagrams in memory.
    fn frame(&self, lane: &Lane, frame: Frame);

    /// A whole frame that came in a datagram; as [`Handler::frame`].
    fn datagram(&self, connection: &Connection, frame: Frame) {
        let _ = (connection, frame);
    }

    /// A connection is established, whoever opened it.
    fn opened(&self, connection: &Connection);

    /// A lane ended before its connection: the peer wants no more answers on it.
    fn lane_closed(&self, lane: &Lane) {
        let _ = lane;
    }

    /// A connection that was [`opened`](Handler::opened) has ended; called once, after its last frame.
    fn closed(&self, connection: ConnectionId);
}

/// How to bind an endpoint.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Where to listen; port 0 for any.
    pub addr: SocketAddr,
    /// Identity towards those who connect; nothing to accept no one.
    pub server_tls: Option<Arc<rustls::ServerConfig>>,
    /// Identity towards those connected to.
    pub client_tls: Arc<rustls::ClientConfig>,
    /// A secret that stays the same when the process is restarted, so that peers learn of the restart
    /// at once; nothing for a random one.
    pub reset_key: Option<[u8; 32]>,
    /// How long after the last datagram the endpoint polls before it sleeps: saves the cost of waking
    /// up while requests keep coming, and takes the core's idle time for it. Zero never polls.
    pub spin: Duration,
    /// Limits.
    pub limits: EndpointLimits,
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be used.
    #[error("cannot listen on UDP {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS configuration lacks what every QUIC connection begins with.
    #[error("the TLS configuration offers no TLS_AES_128_GCM_SHA256, which QUIC requires")]
    CipherSuite,
}

/// Why a connection could not be established.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address or name cannot be connected to.
    #[error("cannot connect to {address}: {reason}")]
    Invalid {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer refused, did not answer, or is not who it should be.
    #[error("connection to {address} failed: {reason}")]
    Lost {
        /// The address.
        address: SocketAddr,
        /// How it ended.
        reason: String,
    },
    /// This endpoint has as many connections as it may.
    #[error("too many connections, at most {max} are allowed")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// This endpoint shuts down.
    #[error("the endpoint shuts down")]
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointPhase {
    Open,
    Closing,
    Closed,
}

pub struct EndpointState {
    pub core: Core,
    pub socket: UdpSocket,
    pub proto: RefCell<quinn_proto::Endpoint>,
    /// By the index that quinn-proto gives them.
    pub connections: RefCell<Vec<Option<Rc<ConnectionState>>>>,
    pub connection_count: Cell<usize>,
    pub work: Rc<Work>,
    pub phase: Cell<EndpointPhase>,
    pub limits: EndpointLimits,
    pub spin: Duration,
    local: SocketAddr,
    client: quinn_proto::ClientConfig,
    next_id: Cell<u64>,
    running: Cell<bool>,
    /// Who waits for a handshake to end, or for the endpoint to.
    waiting: RefCell<Vec<Waker>>,
}

impl EndpointState {
    /// Takes up a connection that quinn-proto has made.
    pub fn add(
        &self,
        handle: ConnectionHandle,
        quic: quinn_proto::Connection,
        outgoing: bool,
    ) -> Rc<ConnectionState> {
        let id = ConnectionId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        let connection = Rc::new(ConnectionState {
            id,
            handle,
            remote: quic.remote_address(),
            outgoing,
            quic: RefCell::new(quic),
            phase: Cell::new(Phase::Handshake),
            roles: Cell::new(Roles::default()),
            node: Cell::new(None),
            datagrams: RefCell::default(),
            lanes: RefCell::default(),
            readable: RefCell::default(),
            writable: RefCell::default(),
            close: RefCell::default(),
            lost: RefCell::default(),
            deadline: Cell::new(None),
            queued: Cell::new(false),
            work: Rc::clone(&self.work),
            lane_outgoing_bytes_max: self.limits.lane_outgoing_bytes_max,
        });
        let mut connections = self.connections.borrow_mut();
        if connections.len() <= handle.0 {
            connections.resize(handle.0 + 1, None);
        }
        connections[handle.0] = Some(Rc::clone(&connection));
        self.connection_count.set(self.connection_count.get() + 1);
        self.work.add(&connection);
        connection
    }

    /// Forgets a connection that quinn-proto is done with.
    pub fn remove(&self, handle: ConnectionHandle) {
        let removed = self.connections.borrow_mut()[handle.0].take();
        if removed.is_some() {
            self.connection_count.set(self.connection_count.get() - 1);
        }
    }

    /// Wakes those who wait for a handshake or for the end, to look again.
    pub fn notify(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// The endpoint of a core.
#[derive(Clone)]
pub struct Endpoint {
    state: Rc<EndpointState>,
}

impl Endpoint {
    /// Binds the socket. Nothing is received before [`run`](Endpoint::run).
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(core: &Core, config: EndpointConfig) -> Result<Endpoint, BindError> {
        let address = config.addr;
        let failed = |source| BindError::Address { address, source };
        let server = config.server_tls.map(transport::server).transpose()?;
        let client = transport::client(config.client_tls)?;
        let socket = core.bind_udp(address).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let endpoint = transport::endpoint(config.reset_key.as_ref());
        let proto = quinn_proto::Endpoint::new(endpoint, server, !socket.may_fragment(), None);
        let state = EndpointState {
            core: core.clone(),
            socket,
            proto: RefCell::new(proto),
            connections: RefCell::default(),
            connection_count: Cell::new(0),
            work: Rc::default(),
            phase: Cell::new(EndpointPhase::Open),
            limits: config.limits,
            spin: config.spin,
            local,
            client,
            next_id: Cell::new(1),
            running: Cell::new(false),
            waiting: RefCell::default(),
        };
        Ok(Endpoint { state: Rc::new(state) })
    }

    /// The address the endpoint is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.state.local
    }

    /// What the endpoint has done so far.
    pub fn statistics(&self) -> EndpointStatistics {
        let counters: &Counters = &self.state.work.counters;
        counters.snapshot()
    }

    /// Connections there are, in any state.
    pub fn connections(&self) -> usize {
        self.state.connection_count.get()
    }

    /// Serves the socket until [`shutdown`](Endpoint::shutdown). To be spawned on the core.
    ///
    /// # Panics
    /// If the endpoint is already running.
    pub fn run(&self, handler: impl Handler + 'static) -> impl Future<Output = ()> + 'static {
        assert!(!self.state.running.replace(true), "an endpoint runs once");
        Turner::new(Rc::clone(&self.state), handler).run()
    }

    /// Opens a connection and waits until it is established. Dropping the future gives it up.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, address: SocketAddr, server_name: &str) -> Result<Connection, ConnectError> {
        let state = &self.state;
        if state.phase.get() != EndpointPhase::Open {
            return Err(ConnectError::Shutdown);
        }
        let max = state.limits.connections_max;
        if state.connection_count.get() >= max {
            return Err(ConnectError::TooMany { max });
        }
        let begun = {
            let (now, client) = (state.core.now(), state.client.clone());
            state.proto.borrow_mut().connect(now, client, address, server_name)
        };
        let (handle, quic) =
            begun.map_err(|error| ConnectError::Invalid { address, reason: error.to_string() })?;
        let connection = state.add(handle, quic, true);
        let attempt = Attempt(Connection { state: connection });
        poll_fn(|context| match attempt.0.state.phase.get() {
            Phase::Handshake if state.phase.get() == EndpointPhase::Closed => {
                Poll::Ready(Err(ConnectError::Shutdown))
            }
            Phase::Handshake => {
                state.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
            Phase::Open => Poll::Ready(Ok(attempt.0.clone())),
            Phase::Lost => {
                let reason = attempt.0.lost().unwrap_or_default();
                Poll::Ready(Err(ConnectError::Lost { address, reason }))
            }
        })
        .await
    }

    /// Accepts nothing more, closes every connection, sends what there is to send, and resolves when
    /// [`run`](Endpoint::run) has ended.
    pub async fn shutdown(&self) {
        let state = &self.state;
        if state.phase.get() == EndpointPhase::Open {
            state.phase.set(EndpointPhase::Closing);
            state.work.wake();
        }
        if !state.running.get() {
            state.phase.set(EndpointPhase::Closed);
        }
        poll_fn(|context| {
            if state.phase.get() == EndpointPhase::Closed {
                return Poll::Ready(());
            }
            state.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Endpoint");
        debug.field("local", &self.state.local).field("phase", &self.state.phase.get());
        debug.field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// A connection being established; gives it up if nobody waits any more.
struct Attempt(Connection);

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.0.state.phase.get() == Phase::Handshake {
            self.0.close(CloseCode::Unwanted, "the connection is not wanted any more");
        }
    }
}
