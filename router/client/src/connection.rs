//! A connection to one shard of a node: two lanes, and the requests under way on them.

use crate::lane::{Lane, run_reader};
use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_UNACKNOWLEDGED_BYTES_MAX, CONNECTION_WINDOW_BYTES, DATAGRAM_SENT_BYTES_MAX,
    IDLE_TIMEOUT_MS, INITIAL_ROUND_TRIP, INITIAL_WINDOW_BYTES, KEEP_ALIVE, LANE_WINDOW_BYTES,
    REQUESTS_IN_FLIGHT_MAX, SILENT_TICKS_MAX, SMALL_BODY_BYTES_MAX, WATCH_TICK,
};
use crate::pending::{Lost, Pending, lock};
use crate::statistics::Counters;
use crate::tls::SERVER_NAME;
use bytes::Bytes;
use evenkeel_model::{ClusterId, NodeId, ShardId};
use evenkeel_wire::message::{ArchivedWelcome, Hello, NodeAddress, Ping, Welcome};
use evenkeel_wire::{
    Frame, HEADER_BYTES, Kind, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Refusal, decode, encode,
};
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Codes with which the client closes connections, the same as the nodes'.
const CLOSE_UNWANTED: VarInt = VarInt::from_u32(2);
const CLOSE_MALFORMED: VarInt = VarInt::from_u32(1);

/// Which lane a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneChoice {
    /// The small lane, unless the body is large.
    BySize,
    /// The bulk lane: the answer is expected to be large.
    Bulk,
}

/// What the tasks of a connection share with its users.
pub(crate) struct Shared {
    pub(crate) quic: quinn::Connection,
    pub(crate) pending: Pending,
    pub(crate) counters: Arc<Counters>,
}

impl Shared {
    /// The connection is of no more use.
    pub(crate) fn lose(&self, reason: &(impl Display + ?Sized)) {
        if self.pending.lose(&reason.to_string()) {
            self.counters.connections_lost.add(1);
        }
        self.quic.close(CLOSE_UNWANTED, b"");
    }

    /// What the node sent is no frame.
    pub(crate) fn malformed(&self, error: &evenkeel_wire::FrameError) {
        self.counters.malformed_frames.add(1);
        self.quic.close(CLOSE_MALFORMED, error.to_string().as_bytes());
        self.lose(error);
    }
}

/// What a node said of itself and its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) shard: ShardId,
    pub(crate) nodes: Vec<NodeAddress>,
    pub(crate) catalogue: Vec<(NodeId, ShardId)>,
}

impl From<&ArchivedWelcome> for Greeting {
    fn from(welcome: &ArchivedWelcome) -> Greeting {
        let nodes = welcome.nodes.iter().map(|node| NodeAddress {
            id: (&node.id).into(),
            zone: node.zone.as_str().to_owned(),
            host: node.host.as_str().to_owned(),
            port_base: node.port_base.into(),
            shards: node.shards.into(),
        });
        Greeting {
            cluster: ClusterId(welcome.cluster.0.into()),
            node: (&welcome.node).into(),
            shard: (&welcome.shard).into(),
            nodes: nodes.collect(),
            catalogue: welcome.catalogue.iter().map(|at| ((&at.node).into(), (&at.shard).into())).collect(),
        }
    }
}

/// A greeted connection. Dropping it closes it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    small: Arc<Lane>,
    bulk: Arc<Lane>,
    in_flight: Semaphore,
    greeting: Greeting,
}

/// Why a connection could not be made, for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectFailure(pub(crate) Arc<str>);

impl ConnectFailure {
    fn new(reason: impl Display) -> ConnectFailure {
        ConnectFailure(reason.to_string().into())
    }
}

/// Makes connections.
pub(crate) struct Dialer {
    endpoint: Endpoint,
    config: ClientConfig,
    cluster: Option<ClusterId>,
    incarnation: u64,
    counters: Arc<Counters>,
    started: Instant,
    /// What nodes have said of where they all are.
    nodes: Mutex<Vec<NodeAddress>>,
}

impl Dialer {
    pub(crate) fn new(
        endpoint: Endpoint,
        config: ClientConfig,
        cluster: Option<ClusterId>,
        incarnation: u64,
        counters: Arc<Counters>,
    ) -> Dialer {
        let (started, nodes) = (Instant::now(), Mutex::default());
        Dialer { endpoint, config, cluster, incarnation, counters, started, nodes }
    }

    /// Microseconds since the client began.
    pub(crate) fn clock_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The nodes that have been heard of.
    pub(crate) fn nodes(&self) -> Vec<NodeAddress> {
        lock(&self.nodes).clone()
    }

    /// Takes note of what a node says of where all nodes are: the newest word holds.
    fn learn(&self, said: &[NodeAddress]) {
        let mut nodes = lock(&self.nodes);
        for node in said {
            match nodes.iter_mut().find(|known| known.id == node.id) {
                Some(known) => known.clone_from(node),
                None => nodes.push(node.clone()),
            }
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects to `host:port` and greets the node there; a name's addresses are tried in turn.
    pub(crate) async fn dial(&self, address: &str) -> Result<Connection, ConnectFailure> {
        let result = self.dial_any(address).await;
        match &result {
            Ok(connection) => {
                self.learn(&connection.greeting().nodes);
                self.counters.connections.add(1);
            }
            Err(_) => self.counters.connections_failed.add(1),
        }
        result
    }

    async fn dial_any(&self, address: &str) -> Result<Connection, ConnectFailure> {
        let failed = |error| ConnectFailure::new(format_args!("the name cannot be resolved: {error}"));
        let mut last = ConnectFailure::new("the name has no address");
        for resolved in tokio::net::lookup_host(address).await.map_err(failed)? {
            match timeout(CONNECT_TIMEOUT, self.dial_one(resolved)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(failure)) => last = failure,
                Err(_) => {
                    last =
                        ConnectFailure::new(format_args!("{resolved} did not answer in {CONNECT_TIMEOUT:?}"));
                }
            }
        }
        Err(last)
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<Connection, ConnectFailure> {
        let connecting = self.endpoint.connect_with(self.config.clone(), address, SERVER_NAME);
        let quic = connecting.map_err(ConnectFailure::new)?.await.map_err(ConnectFailure::new)?;
        let shared = Arc::new(Shared { quic, pending: Pending::default(), counters: self.counters.clone() });
        let small = open_lane(&shared).await?;
        let bulk = open_lane(&shared).await?;
        let greeting = match self.greet(&shared, &small).await {
            Ok(greeting) => greeting,
            Err(failure) => {
                shared.lose(&failure);
                return Err(failure);
            }
        };
        tokio::spawn(watch(shared.clone(), small.clone()));
        let in_flight = Semaphore::new(REQUESTS_IN_FLIGHT_MAX);
        Ok(Connection { shared, small, bulk, in_flight, greeting })
    }

    async fn greet(&self, shared: &Shared, lane: &Lane) -> Result<Greeting, ConnectFailure> {
        let hello = Hello {
            cluster: self.cluster,
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            incarnation: self.incarnation,
        };
        let waiter = shared.pending.wait().map_err(ConnectFailure::new)?;
        let timeout_us = u64::try_from(CONNECT_TIMEOUT.as_micros()).expect("seconds fit");
        lane.send(encode(&hello, waiter.id(), timeout_us)).map_err(ConnectFailure::new)?;
        let answer = waiter.await.map_err(ConnectFailure::new)?;
        if answer.header.kind == Kind::Refusal as u16 {
            let refusal = decode::<Refusal>(&answer).map_err(ConnectFailure::new)?;
            return Err(ConnectFailure::new(format_args!("the node refused: {}", refusal.message)));
        }
        let welcome = decode::<Welcome>(&answer).map_err(ConnectFailure::new)?;
        let version = u16::from(welcome.version);
        if !evenkeel_wire::frame::versions().contains(&version) {
            let text = format_args!("the node settled on protocol version {version}, which was not offered");
            return Err(ConnectFailure::new(text));
        }
        let greeting = Greeting::from(welcome);
        match self.cluster {
            Some(wanted) if wanted != greeting.cluster => {
                let found = greeting.cluster;
                Err(ConnectFailure::new(format_args!("the node belongs to cluster {found}, not {wanted}")))
            }
            _ => Ok(greeting),
        }
    }
}

async fn open_lane(shared: &Arc<Shared>) -> Result<Arc<Lane>, ConnectFailure> {
    let (send, receive) = shared.quic.open_bi().await.map_err(ConnectFailure::new)?;
    let lane = Arc::new(Lane::new(send));
    tokio::spawn(run_reader(receive, shared.clone()));
    tokio::spawn(lane.clone().run_writer(shared.clone()));
    Ok(lane)
}

/// Gives the connection up when the node owes answers and shows no sign of life; ends with the connection.
async fn watch(shared: Arc<Shared>, lane: Arc<Lane>) {
    let (mut heard, mut silent) = (0, 0);
    loop {
        tokio::select! {
            () = sleep(WATCH_TICK) => {}
            _ = shared.quic.closed() => return,
        }
        let received = shared.quic.stats().udp_rx.datagrams;
        if received != heard || !shared.pending.is_waiting() {
            (heard, silent) = (received, 0);
            continue;
        }
        silent += 1;
        if silent >= SILENT_TICKS_MAX {
            return shared.lose("the node shows no sign of life");
        }
        // A node that lives acknowledges this, however long its answers take.
        if let Err(error) = lane.send(encode(&Ping {}, 0, 0)) {
            return shared.lose(&error);
        }
    }
}

impl Connection {
    pub(crate) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.shared.pending.is_lost()
    }

    /// Sends the frame that `encode` makes for a request id, and waits for its answer. `sent` becomes true
    /// before the first byte can reach the node. Dropping the future abandons the answer.
    pub(crate) async fn request(
        &self,
        choice: LaneChoice,
        encode: impl FnOnce(u64) -> Bytes,
        sent: &mut bool,
    ) -> Result<Frame, Lost> {
        let _permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
        let waiter = self.shared.pending.wait()?;
        let frame = encode(waiter.id());
        let is_bulk = choice == LaneChoice::Bulk || frame.len() > HEADER_BYTES + SMALL_BODY_BYTES_MAX;
        let lane = if is_bulk { &self.bulk } else { &self.small };
        lane.ready().await;
        *sent = true;
        if let Err(error) = lane.send(frame) {
            self.shared.lose(&error);
        }
        waiter.await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The tasks hold the streams; they end when the connection is closed.
        self.shared.quic.close(CLOSE_UNWANTED, b"");
    }
}

/// How quinn is set up for connections to nodes.
pub(crate) fn quic_config(tls: Arc<rustls::ClientConfig>) -> Result<ClientConfig, &'static str> {
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|_| "the TLS configuration lacks the cipher suite that QUIC needs")?;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_SENT_BYTES_MAX);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_UNACKNOWLEDGED_BYTES_MAX)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(cubic));
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
