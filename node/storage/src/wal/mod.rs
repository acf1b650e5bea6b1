//! The write-ahead log of one shard: durable, shared by all its partitions, in recycled segments.
//!
//! [`record`] and [`frame`] are the format; `segment` is the ring of files; `log` and `writer` write;
//! `commit` releases those who wait; `recovery` reads all of it back through `reader`.
//!
//! It knows partitions only as numbers in records, and nothing of what their entries mean.

pub(crate) mod commit;
pub mod frame;
pub(crate) mod log;
pub(crate) mod reader;
pub mod record;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod writer;

pub use commit::Durable;

use crate::{
    disk::BLOCK_BYTES,
    error::OpenError,
    limits::{FRAME_BYTES, FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, SEGMENT_BYTES_MIN, WRITES_IN_FLIGHT_MAX},
};
use frame::FRAME_HEADER_BYTES;
use record::{OPERATION_HEADER_BYTES, OPERATIONS_HEADER_BYTES, record_bytes};
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

    /// Room in the last segment that entries leave, so that partitions can still be dropped.
    pub(crate) fn reserve_bytes(&self) -> usize {
        let eighth = usize::try_from(self.segment_bytes / 8).unwrap_or(usize::MAX);
        eighth.clamp(5 * BLOCK_BYTES, 64 * BLOCK_BYTES).next_multiple_of(BLOCK_BYTES)
    }

    /// Segments that fit into the budget.
    pub(crate) fn files_max(&self) -> usize {
        usize::try_from(self.wal_bytes_max / self.segment_bytes).unwrap_or(usize::MAX)
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let block = BLOCK_BYTES as u64;
        let whole = |bytes: u64| bytes != 0 && bytes.is_multiple_of(block);
        let (frame_bytes, frame_bytes_max) = (self.frame_bytes as u64, self.frame_bytes_max as u64);
        for (holds, reason) in [
            (
                whole(self.segment_bytes) && whole(frame_bytes) && whole(frame_bytes_max),
                "sizes are multiples of 4096",
            ),
            (self.segment_bytes <= u64::from(u32::MAX), "a segment is smaller than 4 GiB"),
            (frame_bytes <= frame_bytes_max, "the largest frame is not smaller than an ordinary one"),
            (self.frame_bytes_max <= FRAME_BYTES_MAX, "a frame is at most as large as readers accept"),
            (
                frame_bytes_max + 2 * block <= self.segment_bytes,
                "a segment takes its largest frame and two empty ones",
            ),
            (
                (1..=WRITES_IN_FLIGHT_MAX).contains(&self.writes_in_flight_max),
                "one or two writes are in flight",
            ),
            (self.files_max() >= 2, "the log's budget is at least two segments"),
            (
                !self.idle_frame_after.is_zero() && !self.idle_frame_every.is_zero(),
                "idle frames are some time apart",
            ),
        ] {
            if !holds {
                return Err(OpenError::Config { reason });
            }
        }
        Ok(())
    }
}

/// Bytes of a frame that holds one entry with one put of `key_bytes` and `image_bytes`.
pub const fn entry_frame_bytes(key_bytes: usize, image_bytes: usize) -> usize {
    let payload_bytes = OPERATIONS_HEADER_BYTES + OPERATION_HEADER_BYTES + key_bytes + image_bytes;
    (FRAME_HEADER_BYTES + record_bytes(payload_bytes)).next_multiple_of(BLOCK_BYTES)
}
