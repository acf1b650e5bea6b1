//! Limits of the links between cores, with their units.

use evenkeel_wire::BODY_BYTES_MAX;
use evenkeel_wire::message::peer::CHUNK_BYTES;
use std::time::Duration;

/// Large messages of one link that are being sent in parts at the same time.
pub const CHUNKED_MESSAGES_MAX: usize = 8;
/// Bytes of parts that the receiver has not said it has taken: who comes behind them waits for so many.
pub const CHUNKS_UNDER_WAY_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of large messages, and of those behind them, that wait for one link; beyond it they are dropped.
pub const QUEUE_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
/// Bytes that wait on a lane of a link, beyond which messages are dropped.
pub const LANE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause before a link that could not be made is tried again; it doubles with each failure.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(20);
/// Longest such pause; half of it is jitter.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How long making a link may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a core waits to be joined before it joins the other one itself.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// Silence after which a link is closed and made anew; support comes several times a second.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Priority of the lane for copies of content; that of other lanes is 0.
pub const BULK_PRIORITY: i32 = -1;

// Whoever should join has tried more than once by then.
const _: () = assert!(JOIN_PATIENCE.as_millis() > CONNECT_TIMEOUT.as_millis());
const _: () = assert!(CHUNKS_UNDER_WAY_BYTES_MAX as usize >= 4 * CHUNK_BYTES);
