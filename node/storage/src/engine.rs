//! The engine of one shard: the seam that partitions write and read through.
use crate::{
    disk::{Disk, FileId},
    error::{OpenError, PartitionError, ReadError, Refused, TooManyFrozen, WalFailed},
    runtime::Runtime,
    table::Pinned,
    wal::WalConfig,
};
use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp};
use std::{future::Future, rc::Rc};

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
    /// What happens to recovered entries.
    pub recovered: RecoveredEntries,
}

/// What happens to the entries found in the log at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveredEntries {
    /// Apply them while reading: right for partitions with a single copy, whose durable entries are
    /// chosen. Memory is then bounded by the live items, not by the length of the log.
    Apply,
    /// Keep them until [`Engine::apply`]: only the replica knows which of them were chosen.
    Hold,
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

/// A partition as the log describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// Which partition.
    pub id: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// What [`Engine::create_partition`] was given.
    pub meta: Vec<u8>,
    /// The last slot in the log.
    pub last_slot: Slot,
    /// The timestamp of that slot.
    pub last_timestamp: Timestamp,
}

/// One entry of a partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot after the partition's last one.
    pub slot: Slot,
    /// The ballot it was accepted under.
    pub ballot: Ballot,
    /// When it was made.
    pub timestamp: Timestamp,
    /// What it changes, in order.
    pub operations: Vec<Operation>,
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
    /// The page ends with the item that brings keys and images to this many bytes or more.
    pub bytes_max: usize,
}

/// A page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys and images, in the order asked for.
    pub items: Vec<(Rc<[u8]>, Rc<[u8]>)>,
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
}

/// The engine of one shard. A clone is another handle of the same engine; when the last one is
/// dropped, what was appended is still written, and then the log's task ends.
pub struct Engine<D: Disk, R: Runtime> {
    parts: Rc<(D, R)>,
}

impl<D: Disk, R: Runtime> Clone for Engine<D, R> {
    fn clone(&self) -> Self {
        Engine { parts: Rc::clone(&self.parts) }
    }
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Reads the log, opens a new segment behind it and starts to write.
    pub async fn open(_disk: D, _runtime: R, _config: EngineConfig) -> Result<(Self, Recovery), OpenError> {
        unimplemented!()
    }

    /// Creates a partition. It can be appended to at once; it is durable when the future resolves.
    pub fn create_partition(
        &self,
        _id: PartitionId,
        _generation: Generation,
        _meta: &[u8],
    ) -> impl Future<Output = Result<(), PartitionError>> + use<D, R> {
        async { unimplemented!() }
    }

    /// Drops a partition and its items at once; durable when the future resolves.
    pub fn drop_partition(
        &self,
        _id: PartitionId,
        _generation: Generation,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<D, R> {
        async { unimplemented!() }
    }

    /// Puts `entry` into the frame being built; the future resolves when it is durable. The partition
    /// must exist and the slot follow its last one.
    pub fn append(&self, _id: PartitionId, _entry: Entry) -> Result<Durable, Refused> {
        unimplemented!()
    }

    /// Moves appended entries up to `slot` into the in-memory table; those applied already are passed over.
    pub fn apply(&self, _id: PartitionId, _slot: Slot) {
        unimplemented!()
    }

    /// The applied image of a key.
    pub async fn get(&self, _id: PartitionId, _key: &[u8]) -> Result<Option<Rc<[u8]>>, ReadError> {
        unimplemented!()
    }

    /// A page of the applied items of a range.
    pub async fn range(&self, _id: PartitionId, _query: RangeQuery) -> Result<Page, ReadError> {
        unimplemented!()
    }

    /// Ends the active generation of a table at its applied slot, which must be `slot`.
    pub fn freeze(&self, _id: PartitionId, _slot: Slot) -> Result<Pinned, TooManyFrozen> {
        unimplemented!()
    }

    /// The applied state as it is now, whatever is applied later.
    pub fn pin(&self, _id: PartitionId) -> Result<Pinned, TooManyFrozen> {
        unimplemented!()
    }

    /// The log need not keep the entries of a partition up to `slot` any longer.
    pub fn trim(&self, _id: PartitionId, _slot: Slot) {
        unimplemented!()
    }

    /// Counters.
    pub fn statistics(&self) -> EngineStatistics {
        unimplemented!()
    }

    /// Writes what was appended, then stops the log; later appends fail.
    pub async fn close(&self) -> Result<(), WalFailed> {
        unimplemented!()
    }
}

/// Resolves when an entry is durable, or the log has stopped.
#[derive(Debug)]
#[must_use = "an entry is acknowledged only when this has resolved"]
pub struct Durable {}

impl Future for Durable {
    type Output = Result<(), WalFailed>;

    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        unimplemented!()
    }
}
