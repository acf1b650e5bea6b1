//! What goes into the engine and comes out of it.

use crate::{
    disk::FileId,
    limits::FIRST_PAGE_FILE_BYTES,
    space::PagesConfig,
    tree::Limits,
    wal::{
        WalConfig,
        record::{RecordHeader, RecordKind, entry_checksum},
    },
};
use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp};
use std::rc::Rc;

/// How a shard's engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The cluster; files of another one are refused.
    pub cluster: ClusterId,
    /// The node; files of another one are refused.
    pub node: NodeId,
    /// The shard; files of another one are refused.
    pub shard: ShardId,
    /// The log.
    pub wal: WalConfig,
    /// Memory budget of all in-memory tables together.
    pub table_bytes_max: u64,
    /// The page file and its cache.
    pub pages: PageSettings,
    /// For how long, in the entries' own time, recovery keeps applied entries with a note for their owner.
    pub notes_ns: u64,
}

/// How the trees of a shard are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSettings {
    /// The page file grows by this much, a multiple of 4096 above 256 KiB.
    pub step_bytes: u64,
    /// And to at most this.
    pub bytes_max: u64,
    /// Memory of the page cache.
    pub cache_bytes: u64,
    /// How large pages are.
    pub limits: Limits,
}

impl EngineConfig {
    pub(crate) fn pages(&self) -> PagesConfig {
        let PageSettings { step_bytes, bytes_max, cache_bytes, .. } = self.pages;
        let EngineConfig { cluster, node, shard, .. } = *self;
        let first_bytes = step_bytes.min(FIRST_PAGE_FILE_BYTES);
        PagesConfig { cluster, node, shard, first_bytes, step_bytes, bytes_max, cache_bytes }
    }
}

/// What was found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The partitions, by rising id.
    pub partitions: Vec<RecoveredPartition>,
    /// Frames read.
    pub frames: u64,
    /// Entries read, those of dropped partitions included.
    pub entries: u64,
    /// Bytes of log read.
    pub bytes: u64,
    /// The unacknowledged tail that was cut, if there was one.
    pub cut: Option<Cut>,
    /// Which start of the log this is: greater than at all starts before.
    pub life: u32,
}

/// A tail of the log that was being written when the process or machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the first broken frame stands.
    pub file: FileId,
    /// Its offset in the file.
    pub offset: u64,
    /// Its sequence; the next run writes this sequence again.
    pub frame_sequence: u64,
    /// Whole frames behind it, which were not acknowledged either.
    pub frames_whole: u64,
}

/// A place in a partition's log: a slot and the chained checksum of the entry there, which vouches for
/// everything before it. Slot 0 is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The slot.
    pub slot: Slot,
    /// The entry's checksum; 0 at the beginning.
    pub checksum: u128,
}

/// A partition as the log describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// Which partition.
    pub id: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// What [`Engine::create_partition`](crate::Engine::create_partition) was given.
    pub meta: Vec<u8>,
    /// The last slot in the log.
    pub last_slot: Slot,
    /// The greatest timestamp in the log.
    pub last_timestamp: Timestamp,
    /// The greatest ballot in it.
    pub promised: Ballot,
    /// Up to where the log says that it is chosen; that is applied.
    pub applied: Position,
    /// What the last snapshot that was taken in came with, if there was one.
    pub begun: Option<Vec<u8>>,
    /// The newest lasting note that was applied since, if there was one.
    pub state: Option<Vec<u8>>,
    /// Applied entries since with other notes, those of the last while.
    pub noted: Vec<Entry>,
    /// Entries that are not known to be chosen, with their checksums.
    pub pending: Vec<(Entry, u128)>,
}

/// One entry of a partition's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its slot.
    pub slot: Slot,
    /// The ballot it was accepted under.
    pub ballot: Ballot,
    /// When it was made.
    pub timestamp: Timestamp,
    /// What it changes, in order.
    pub operations: Vec<Operation>,
    /// What its owner wants to find again, beside what it changes.
    pub note: Vec<u8>,
    /// Whether the note is the owner's state from here on, until the next such one.
    pub lasting: bool,
    /// Up to where the log was known to be chosen when this was written; no part of the entry's identity.
    pub chosen: Slot,
}

impl Entry {
    /// The chained checksum of the entry behind one with the checksum `previous`: its identity, which
    /// neither ballot nor `chosen` change.
    pub fn checksum(&self, partition: PartitionId, generation: Generation, previous: u128) -> u128 {
        entry_checksum(&self.header(partition, generation), previous, &self.operations, &self.note)
    }

    pub(crate) fn header(&self, partition: PartitionId, generation: Generation) -> RecordHeader {
        RecordHeader {
            partition,
            generation,
            kind: RecordKind::Entry,
            lasting: self.lasting,
            again: false,
            ballot: self.ballot,
            slot: self.slot,
            chosen: self.chosen,
            timestamp: self.timestamp,
        }
    }
}

/// The newest image of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// The image, if there is one.
    pub image: Option<Rc<[u8]>>,
    /// The entry that made it so, if that is not applied yet.
    pub pending: Option<Slot>,
}

/// A change of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The item is now `image`.
    Put {
        /// The encoded key.
        key: Rc<[u8]>,
        /// The stored item.
        image: Rc<[u8]>,
    },
    /// The item is gone.
    Delete {
        /// The encoded key.
        key: Rc<[u8]>,
    },
}

/// A range of keys to read, one page at a time.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// First key, inclusive.
    pub lower: Vec<u8>,
    /// End, exclusive; none is the end of the partition.
    pub upper: Option<Vec<u8>>,
    /// From the end to the beginning.
    pub reverse: bool,
    /// Most items of a page.
    pub items_max: usize,
    /// The page ends with the item that brings the sizes, as stored items name them in their headers, to
    /// this many bytes or more; or with the one that reaches `PAGE_MEMORY_BYTES_MAX` in memory.
    pub bytes_max: usize,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items.
    pub items: u64,
    /// Their sizes, as stored items name them in their headers.
    pub bytes: u64,
}

/// The key and the image of an item, shared with the table.
pub type KeyAndImage = (Rc<[u8]>, Rc<[u8]>);

/// A page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys and images, in the order asked for.
    pub items: Vec<KeyAndImage>,
    /// The range holds more items behind the last one of this page.
    pub more: bool,
}

/// Counters of an engine, all since its start unless they name a present state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatistics {
    /// Frames submitted.
    pub frames: u64,
    /// Of these, without records.
    pub frames_empty: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes submitted, padding included.
    pub frame_bytes: u64,
    /// Highest frame sequence known durable.
    pub frame_durable: u64,
    /// Frames behind the last one that a later frame says was durable: damage to these cannot be told from their
    /// never having been acknowledged. None once an idle log has covered them.
    pub frames_uncovered: u64,
    /// Frames being written now.
    pub writes_in_flight: u64,
    /// Frames waiting or being built now.
    pub frames_queued: u64,
    /// Bytes of the segments in use now.
    pub wal_bytes: u64,
    /// The log's budget.
    pub wal_bytes_max: u64,
    /// Segments in use now.
    pub segments_live: u64,
    /// Segments ready to be used now.
    pub segments_free: u64,
    /// Segments written over since the start.
    pub segments_recycled: u64,
    /// Bytes of all items once everything appended is applied.
    pub table_bytes: u64,
    /// Items in the tables now, deletions that hide older items included.
    pub table_items: u64,
    /// Bytes of entries appended and not yet applied.
    pub pending_bytes: u64,
    /// The tables' budget.
    pub table_bytes_max: u64,
    /// Partitions here now.
    pub partitions: u64,
    /// Appends refused because the tables were full.
    pub refused_table_full: u64,
    /// Appends refused because the log was full.
    pub refused_log_full: u64,
    /// Appends refused because the queue was full.
    pub refused_busy: u64,
    /// Appends refused because little was left and their partition took more than its share.
    pub refused_above_share: u64,
}
