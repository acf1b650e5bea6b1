//! The write-ahead log of one shard.
use crate::limits::{
    FRAME_BYTES, FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, SEGMENT_BYTES_MIN, WRITES_IN_FLIGHT_MAX,
};
use std::time::Duration;

/// How the log is set up. [`WalConfig::new`] fills in what production uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Size of a segment file, a multiple of 4096.
    pub segment_bytes: u64,
    /// Memory of an ordinary frame, a multiple of 4096.
    pub frame_bytes: usize,
    /// Largest frame, which holds a single record.
    pub frame_bytes_max: usize,
    /// Frames written at the same time, 1 or 2.
    pub writes_in_flight_max: usize,
    /// Full frames that may wait; beyond them appends are refused as busy.
    pub frames_queued_max: usize,
    /// Budget of all segments together.
    pub wal_bytes_max: u64,
    /// An idle log covers its last frame with an empty one after this time.
    pub idle_frame_after: Duration,
    /// And then writes one each such period.
    pub idle_frame_every: Duration,
}

impl WalConfig {
    /// What production uses, for the given size of a segment and of the whole log.
    pub fn new(segment_bytes: u64, wal_bytes_max: u64) -> Self {
        assert!(segment_bytes >= SEGMENT_BYTES_MIN, "a segment must hold the largest item");
        WalConfig {
            segment_bytes,
            frame_bytes: FRAME_BYTES,
            frame_bytes_max: FRAME_BYTES_MAX,
            writes_in_flight_max: WRITES_IN_FLIGHT_MAX,
            frames_queued_max: FRAMES_QUEUED_MAX,
            wal_bytes_max,
            idle_frame_after: Duration::from_millis(10),
            idle_frame_every: Duration::from_secs(1),
        }
    }
}

/// Bytes of a frame that holds one entry with one put of `key_bytes` and `image_bytes`.
pub const fn entry_frame_bytes(key_bytes: usize, image_bytes: usize) -> usize {
    (128 + 64 + (8 + 8 + key_bytes + image_bytes).next_multiple_of(16)).next_multiple_of(4096)
}
