//! Limits of the log and the tables, with their units; their relations are proved at compile time.

use crate::{disk::BLOCK_BYTES, wal};
use evenkeel_model::limits::{ENCODED_KEY_BYTES_MAX, STORED_ITEM_BYTES_MAX};
use std::time::Duration;

/// Memory of one ordinary frame: what one device write carries at most, except for a single record
/// that is larger.
pub const FRAME_BYTES: usize = 256 * 1024;
/// Largest frame, which holds a single record.
pub const FRAME_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Smallest segment that production may be configured with.
pub const SEGMENT_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Most frames written at the same time. Two hide the device's latency; recovery reasons about them.
pub const WRITES_IN_FLIGHT_MAX: usize = 2;
/// Full frames that may wait for their turn to be written.
pub const FRAMES_QUEUED_MAX: usize = 16;
/// Largest description of a partition.
pub const META_BYTES_MAX: usize = 64 * 1024;
/// Entries of a partition that are not applied and are written once more, so that old segments can go.
pub const MOVED_BYTES_MAX: u64 = 64 * 1024;
/// Frozen generations of one table that may wait for a merge.
pub const FROZEN_GENERATIONS_MAX: usize = 4;
/// What an item costs in a table beside the memory of its key and image: a slot of a tree node that is two thirds
/// full, and its part of the nodes above.
pub const TABLE_ITEM_OVERHEAD_BYTES: u64 = 76;
/// What each of key and image takes beside its bytes: two reference counts.
pub const SHARED_OVERHEAD_BYTES: usize = 16;
/// Keys and images of one page of a range, whatever their items' own sizes say: with one item more it
/// still fits into a message.
pub const PAGE_MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of pages that are written before a flush: the log shares the device.
pub const BURST_BYTES: usize = 256 * 1024;
/// How long a new page file is at most: a shard without trees makes no use of more.
pub const FIRST_PAGE_FILE_BYTES: u64 = 512 * 1024;
/// Blocks of one piece of a catalogue.
pub const CATALOGUE_PIECE_BLOCKS_MAX: u32 = 256;
/// One part in so many of the budgets for tables and log is kept for partitions that take no more than their share.
pub const KEPT_PART: u64 = 8;
/// How long no merge of a partition is begun after one that met a page which cannot be read.
pub const STUCK_AGAIN_NS: u64 = 10 * 1_000_000_000;
/// How often it is looked whether a merge is over that an install waits for.
pub const MERGE_LOOKED_AFTER: Duration = Duration::from_millis(5);
/// A scrub begins its rounds at most this often.
pub const SCRUB_ROUND_NS: u64 = 3600 * 1_000_000_000;
/// About how long a scrub keeps pages that merges give up.
pub const SCRUB_STRETCH_NS: u64 = 1_000_000_000;
/// Memory that a scrub reads a segment with.
pub const SCRUB_READ_BYTES: usize = 64 * 1024;
/// Memory that recovery reads a segment with.
pub const RECOVERY_READ_BYTES: usize = 1024 * 1024;

const _: () = assert!(FRAME_BYTES.is_multiple_of(BLOCK_BYTES) && FRAME_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(BURST_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(RECOVERY_READ_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(
    wal::entry_frame_bytes(ENCODED_KEY_BYTES_MAX, STORED_ITEM_BYTES_MAX) <= FRAME_BYTES_MAX,
    "every item the model allows fits into a frame"
);
const _: () = assert!(
    FRAME_BYTES_MAX as u64 + 2 * BLOCK_BYTES as u64 <= SEGMENT_BYTES_MIN,
    "a segment takes the first frame of a run, a frame at its limit, and the empty frame that covers it"
);
const _: () =
    assert!(META_BYTES_MAX + 2 * BLOCK_BYTES <= FRAME_BYTES, "a description fits into an ordinary frame");
const _: () = assert!(ENCODED_KEY_BYTES_MAX <= u16::MAX as usize, "a key's length is stored in 16 bits");
