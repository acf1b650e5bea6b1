//! Every limit of the client, with its unit, and the relations between them.

use evenkeel_model::limits::{PAGE_BYTES_MAX, STORED_ITEM_BYTES_MAX};
use evenkeel_wire::BODY_BYTES_MAX;
use std::time::Duration;

/// How long an operation may take, retries included, unless the configuration says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Requests of one connection under way; further ones wait.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// Bodies above this go by the bulk lane, so that small requests do not wait behind them.
pub const SMALL_BODY_BYTES_MAX: usize = 16 * 1024;
/// Pieces of a stream taken from the connection at once.
pub const CHUNKS_PER_READ: usize = 32;

/// How long the handshake with one node may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a call waits for a connection that is being made before it goes to another replica.
pub const CONNECT_PATIENCE: Duration = Duration::from_millis(400);
/// How long a replica that did not answer is asked last.
pub const SUSPICION: Duration = Duration::from_secs(1);
/// How often it is looked whether a node that owes answers shows signs of life.
pub const WATCH_TICK: Duration = Duration::from_millis(200);
/// So many looks without any, and its connection is given up.
pub const SILENT_TICKS_MAX: u32 = 5;
/// Silence after which a connection is given up that nobody waits on.
pub const IDLE_TIMEOUT_MS: u32 = 10_000;
/// How often the client breaks the silence.
pub const KEEP_ALIVE: Duration = Duration::from_millis(2_500);
/// Round trip assumed before one was measured; a cluster's clients are near it.
pub const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(50);
/// First congestion window: what is sent to a node before it has answered anything.
pub const INITIAL_WINDOW_BYTES: u64 = 128 * 1024;
/// What a node may send ahead on one lane.
pub const LANE_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What a node may send ahead on one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// What a connection keeps for sending again; a lane that has filled it makes its writers wait.
pub const CONNECTION_UNACKNOWLEDGED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Largest datagram that nodes may send, found out by their probing; as large as they do.
pub const DATAGRAM_RECEIVED_BYTES_MAX: u16 = 8952;
/// Largest datagram sent, found out by probing. quinn hands ten datagrams to the kernel at once, and what
/// exceeds the payload of one UDP packet in sum is dropped without a word.
pub const DATAGRAM_SENT_BYTES_MAX: u16 = 6500;

/// Least time between the beginnings of two readings of the catalogue by one client.
pub const CATALOGUE_READ_INTERVAL: Duration = Duration::from_millis(20);
/// How long a reading of the catalogue may take.
pub const CATALOGUE_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a reading is begun again because the catalogue changed under it.
pub const CATALOGUE_READ_ATTEMPTS_MAX: u32 = 8;
/// Time given to a watcher of the catalogue, who is answered after half of it at the latest.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause after the catalogue could not be read or watched; half of it is jitter.
pub const CATALOGUE_PAUSE_MAX: Duration = Duration::from_millis(1_000);
/// Pause after the first failure; it doubles with each further one.
pub const CATALOGUE_PAUSE_FIRST: Duration = Duration::from_millis(20);

/// Most items of one page of Query and Scan asked for if no limit is given.
pub const PAGE_ITEMS_MAX: u32 = u32::MAX;
/// Most data of one page, by DynamoDB's item sizes.
pub const RANGE_BYTES_MAX: u32 = PAGE_BYTES_MAX as u32;

const _: () = assert!(PAGE_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(STORED_ITEM_BYTES_MAX + 64 * 1024 <= BODY_BYTES_MAX, "every item fits in a frame");
// Two keep-alives may be lost before a living node is given up.
const _: () = assert!(KEEP_ALIVE.as_millis() * 3 < IDLE_TIMEOUT_MS as u128);
const _: () = assert!(CONNECT_PATIENCE.as_millis() < CONNECT_TIMEOUT.as_millis());
const _: () = assert!(LANE_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
// RFC 9000, section 18.2: every endpoint takes datagrams of 1200 bytes.
const _: () = assert!(DATAGRAM_RECEIVED_BYTES_MAX >= 1200 && DATAGRAM_SENT_BYTES_MAX >= 1200);
const _: () = assert!(10 * DATAGRAM_SENT_BYTES_MAX as usize <= 65_507);
