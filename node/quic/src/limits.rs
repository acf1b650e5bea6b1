//! Every limit of an endpoint, with its unit, and the relations between them.

/// Connections of one endpoint, incoming and outgoing.
pub const CONNECTIONS_MAX: usize = 1024;
/// Lanes that a peer may open on one connection.
pub const LANES_MAX: u32 = 64;
/// Bytes waiting on one lane beyond which nothing more is read from it. A frame more may be waiting.
pub const LANE_OUTGOING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames taken from one lane before other lanes get their turn.
pub const LANE_FRAMES_PER_TURN: usize = 64;
/// Bytes taken from a lane at once. Mostly a datagram's; quinn-proto joins what had to wait.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// What a lane's peer may send ahead of what was read.
pub const LANE_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What a connection's peer may send ahead of what was read, over all lanes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// What a connection keeps for sending again, until the peer has acknowledged it.
pub const CONNECTION_UNACKNOWLEDGED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of datagrams that wait to be sent, or to be read; beyond it the oldest are lost.
pub const DATAGRAMS_WAITING_BYTES_MAX: usize = 64 * 1024;
/// First congestion window: what is sent to a fresh peer before it has answered anything.
pub const INITIAL_WINDOW_BYTES: u64 = 128 * 1024;

/// Silence after which a connection is given up.
pub const IDLE_TIMEOUT_MS: u32 = 30_000;
/// How often the connecting side breaks the silence.
pub const KEEP_ALIVE_MS: u32 = 5_000;
/// Round trip assumed before one was measured. Machines of one region are far closer.
pub const INITIAL_ROUND_TRIP_MS: u64 = 50;

/// Largest datagram sent if the path carries it; found out by probing. A path with jumbo frames (or
/// loopback) takes 17 % less CPU per small request than with 1452 bytes, and carries large frames at
/// twice the speed; on any other path the probes are lost once.
pub const DATAGRAM_BYTES_MAX: u16 = 8952;
/// Bytes handed to the kernel by one system call, at most.
pub const TRANSMIT_BYTES_MAX: usize = 60 * 1024;
/// Transmissions of one connection before other connections get their turn.
pub const TRANSMITS_PER_TURN: usize = 16;
/// Rounds over connections with work to do before the socket is looked at again.
pub const ROUNDS_PER_TURN: usize = 4;

const _: () = assert!(CONNECTION_WINDOW_BYTES >= LANE_WINDOW_BYTES);
// A lane stops being read long before its outgoing frames could fill a connection's memory.
const _: () = assert!(LANE_OUTGOING_BYTES_MAX as u64 <= CONNECTION_UNACKNOWLEDGED_BYTES_MAX);
// Several keep-alives may be lost before a living peer is given up.
const _: () = assert!(KEEP_ALIVE_MS * 3 < IDLE_TIMEOUT_MS);
// RFC 9000, section 18.2: every endpoint takes datagrams of 1200 bytes.
const _: () = assert!(DATAGRAM_BYTES_MAX >= 1200);
const _: () = assert!(DATAGRAM_BYTES_MAX as usize * 2 <= TRANSMIT_BYTES_MAX);
const _: () = assert!(TRANSMIT_BYTES_MAX <= u16::MAX as usize);

/// The limits that differ between endpoints.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLimits {
    /// Connections, incoming and outgoing.
    pub connections_max: usize,
    /// See [`LANE_OUTGOING_BYTES_MAX`].
    pub lane_outgoing_bytes_max: usize,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        EndpointLimits { connections_max: CONNECTIONS_MAX, lane_outgoing_bytes_max: LANE_OUTGOING_BYTES_MAX }
    }
}
