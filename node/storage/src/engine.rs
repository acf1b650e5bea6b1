//! The engine of one shard: the seam that partitions write and read through.
//!
//! Appending is synchronous up to the record being in the frame that is built, so the order of calls
//! is the order of the log; only waiting for the device is asynchronous. Reads see what was applied.
//! A refusal changes nothing. An append to a partition that is not there, or not in order, is a fault
//! of this program and stops it.
//!
//! It knows nothing of what an image means, nor of why a slot may be applied.

mod checkpoint;
mod freeze;
pub mod inspect;
mod install;
mod load;
mod logging;
mod open;
mod reading;
mod scrub;
mod split;
mod types;

pub use checkpoint::{CheckpointError, MergeCounts};
pub(crate) use freeze::Frozen;
pub use freeze::Mark;
pub use install::{Installed, Prepared};
pub use load::{Content, LoadError, NewPartition};
pub use reading::Pinned;
pub use scrub::{ScrubCounts, ScrubFault};
pub use split::{Child, SplitError};
pub use types::{
    Counts, Cut, EngineConfig, EngineStatistics, Entry, KeyAndImage, Newest, Operation, Page, PageSettings,
    Position, RangeQuery, RecoveredPartition, Recovery,
};

use crate::{
    disk::Disk,
    error::{PartitionError, Refused, WalFailed},
    limits::META_BYTES_MAX,
    partition::Partition,
    partitions::Partitions,
    runtime::Runtime,
    space::Pages,
    tree::Limits,
    wal::{
        Durable,
        log::{Class, Log},
        record::{RecordHeader, RecordKind},
        recovery::RecordPlace,
    },
};
use checkpoint::Upkeep;
use evenkeel_model::{Ballot, Generation, PartitionId, Slot, Timestamp};
use scrub::Scrubbed;
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
};

/// The engine of one shard. A clone is another handle of the same engine; when the last one is
/// dropped, what was appended is still written, and then the log's task ends.
pub struct Engine<D: Disk, R: Runtime> {
    inner: Rc<Inner<D, R>>,
}

struct Inner<D: Disk, R: Runtime> {
    runtime: R,
    log: Rc<RefCell<Log<D>>>,
    partitions: RefCell<Partitions>,
    pages: Pages<D, R>,
    limits: Limits,
    upkeep: Upkeep<D, R>,
    refusals: RefCell<Refusals>,
    scrubbed: RefCell<Scrubbed>,
}

#[derive(Clone, Copy, Default)]
struct Refusals {
    table_full: u64,
    log_full: u64,
    busy: u64,
    above_share: u64,
}

impl<D: Disk, R: Runtime> Drop for Inner<D, R> {
    fn drop(&mut self) {
        self.log.borrow_mut().close();
    }
}

impl<D: Disk, R: Runtime> Clone for Engine<D, R> {
    fn clone(&self) -> Self {
        Engine { inner: Rc::clone(&self.inner) }
    }
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Creates a partition. It can be appended to at once; it is durable when the future resolves.
    pub fn create_partition(
        &self,
        id: PartitionId,
        generation: Generation,
        meta: &[u8],
    ) -> impl Future<Output = Result<(), PartitionError>> + use<D, R> {
        let submitted = self.submit_create(id, generation, meta);
        async move { Ok(submitted?.await?) }
    }

    fn submit_create(
        &self,
        id: PartitionId,
        generation: Generation,
        meta: &[u8],
    ) -> Result<Durable, PartitionError> {
        assert!(meta.len() <= META_BYTES_MAX, "a partition's description is small");
        let mut partitions = self.inner.partitions.borrow_mut();
        if let Some(present) = partitions.get(id) {
            return Err(PartitionError::Exists { id, generation: present.generation });
        }
        if partitions.is_being_split(id) {
            return Err(self.refuse(Refused::Busy).into());
        }
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Ok(log.commits.refused(reason));
        }
        let header = control_record(id, generation, RecordKind::Created, Slot(0));
        let segment = log.ring.current();
        let frame = log
            .append(Class::Control, &header, 0, meta.len(), |payload| payload.copy_from_slice(meta))
            .map_err(|refused| self.refuse(refused))?;
        log.ring.pin(segment);
        let at = RecordPlace { segment, frame };
        partitions.insert(id, Partition::new(generation, meta.to_vec(), Some(at)));
        Ok(log.commits.wait(frame))
    }

    /// Drops a partition and its items at once; durable when the future resolves. From then on its
    /// records keep no segment of the log.
    pub fn drop_partition(
        &self,
        id: PartitionId,
        generation: Generation,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<D, R> {
        let submitted = self.submit_drop(id, generation);
        async move { Ok(submitted?.await?) }
    }

    fn submit_drop(&self, id: PartitionId, generation: Generation) -> Result<Durable, PartitionError> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let Some(partition) = partitions.get(id).filter(|present| present.generation == generation) else {
            return Err(PartitionError::Unknown { id, generation });
        };
        if partition.sealed_by.is_some() {
            return Err(self.refuse(Refused::Busy).into());
        }
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Ok(log.commits.refused(reason));
        }
        let header = control_record(id, generation, RecordKind::Dropped, partition.end.slot);
        log.end_frame();
        let segment = log.ring.current();
        let frame = log
            .append(Class::Control, &header, partition.end.checksum, 0, |_| ())
            .map_err(|refused| self.refuse(refused))?;
        log.ring.pin(segment);
        let released = partitions.remove(id, RecordPlace { segment, frame });
        // A partition with pages keeps the segment of its end until a flip is durable.
        let end_of_drop = (!released.is_empty()).then_some(segment);
        released.into_iter().chain(end_of_drop).for_each(|segment| log.unpin_when_durable(frame, segment));
        let durable = log.commits.wait(frame);
        drop((log, partitions));
        self.wake_upkeep();
        Ok(durable)
    }

    fn refuse(&self, refused: Refused) -> Refused {
        let mut refusals = self.inner.refusals.borrow_mut();
        match refused {
            Refused::TableFull { .. } => refusals.table_full += 1,
            Refused::LogFull { .. } => refusals.log_full += 1,
            Refused::Busy => refusals.busy += 1,
            Refused::AboveShare { .. } => refusals.above_share += 1,
            Refused::TooLarge { .. } => {}
        }
        refused
    }

    /// What a partition holds; nothing if it is not here.
    pub fn counts(&self, id: PartitionId) -> Counts {
        self.inner.partitions.borrow().get(id).map_or(Counts::default(), Partition::counts)
    }

    /// How the page file is used, what was written to it and what its cache did.
    pub fn pages(&self) -> &Pages<D, R> {
        &self.inner.pages
    }

    /// Why the log has stopped, if it has.
    pub fn log_failure(&self) -> Option<WalFailed> {
        self.inner.log.borrow().stopped()
    }

    /// Counters.
    pub fn statistics(&self) -> EngineStatistics {
        let log = self.inner.log.borrow();
        let partitions = self.inner.partitions.borrow();
        let refusals = *self.inner.refusals.borrow();
        EngineStatistics {
            table_bytes: partitions.bytes(),
            table_items: partitions.iter().map(|partition| partition.table.len() as u64).sum(),
            pending_bytes: partitions.pending_bytes(),
            table_bytes_max: partitions.bytes_max(),
            partitions: partitions.len() as u64,
            refused_table_full: refusals.table_full,
            refused_log_full: refusals.log_full,
            refused_busy: refusals.busy,
            refused_above_share: refusals.above_share,
            ..log.statistics()
        }
    }

    /// Writes what was appended, then stops the log; later appends fail.
    pub async fn close(&self) -> Result<(), WalFailed> {
        self.stop_checkpoints();
        self.stop_scrub();
        self.inner.log.borrow_mut().close();
        self.inner.pages.close().await;
        poll_fn(|context| self.inner.log.borrow_mut().poll_finished(context)).await;
        let failed = self.inner.log.borrow().commits.failed();
        match failed {
            Some(WalFailed::Disk(error)) => Err(WalFailed::Disk(error)),
            Some(WalFailed::Closed) | None => Ok(()),
        }
    }
}

fn control_record(
    partition: PartitionId,
    generation: Generation,
    kind: RecordKind,
    slot: Slot,
) -> RecordHeader {
    RecordHeader {
        partition,
        generation,
        kind,
        lasting: false,
        again: false,
        ballot: Ballot::default(),
        slot,
        chosen: Slot(0),
        timestamp: Timestamp(0),
    }
}
