//! Limits of a node's service, with their units.

use evenkeel_model::limits::{ENCODED_KEY_BYTES_MAX, STORED_ITEM_BYTES_MAX};
use evenkeel_storage::limits::PAGE_MEMORY_BYTES_MAX;
use evenkeel_wire::BODY_BYTES_MAX;
use std::time::Duration;

/// Requests of one connection that may be under way; beyond it they are refused as overloaded.
pub const REQUESTS_IN_FLIGHT_MAX: u32 = 4096;
/// Most items of one page of a range.
pub const PAGE_ITEMS_MAX: usize = 64 * 1024;
/// Longest patience of a watcher; it asks again.
pub const WATCH_PATIENCE_MAX: Duration = Duration::from_secs(30);
/// How long a request waits for a partition's group to have a leader; longer than an election takes.
pub const LEADER_PATIENCE_MAX: Duration = Duration::from_secs(3);
/// How long a call to another shard may take before it is tried again.
pub const PEER_CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two tries of the control plane at the same step.
pub const CONTROL_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a node says again that it is there, when nobody took note.
pub const REGISTER_PAUSE: Duration = Duration::from_millis(200);
/// How long a shard that stops waits for others to take over what it leads.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
/// Most partitions a table is created with.
pub const PARTITIONS_AT_CREATION_MAX: usize = 64;

const _: () = assert!(
    PAGE_MEMORY_BYTES_MAX + STORED_ITEM_BYTES_MAX + ENCODED_KEY_BYTES_MAX + 16 * PAGE_ITEMS_MAX
        < BODY_BYTES_MAX,
    "a page fits in a frame"
);
