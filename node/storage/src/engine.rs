//! The engine of one shard: the seam that partitions write and read through.
//!
//! Appending is synchronous up to the record being in the frame that is built, so the order of calls
//! is the order of the log; only waiting for the device is asynchronous. Reads see what was applied.
//! A refusal changes nothing. An append to a partition that is not there, or not in order, is a fault
//! of this program and stops it.
//!
//! It knows nothing of what an image means, nor of why a slot may be applied.

mod logging;
mod types;

pub use types::{
    Counts, Cut, EngineConfig, EngineStatistics, Entry, KeyAndImage, Newest, Operation, Page, Position,
    RangeQuery, RecoveredPartition, Recovery,
};

use crate::{
    disk::{Disk, FileId},
    error::{OpenError, PartitionError, ReadError, Refused, TooManyFrozen, WalFailed},
    limits::{META_BYTES_MAX, PAGE_MEMORY_BYTES_MAX},
    partition::Partition,
    partitions::Partitions,
    runtime::Runtime,
    table::Pinned,
    wal::{
        Durable,
        log::{Class, Identity, Log},
        record::{RecordHeader, RecordKind},
        recovery::{Found, recover},
        segment::SegmentRing,
        writer,
    },
};
use evenkeel_model::{Ballot, Generation, PartitionId, Slot, Timestamp, item::stored_item_bytes};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
};

/// The engine of one shard. A clone is another handle of the same engine; when the last one is
/// dropped, what was appended is still written, and then the log's task ends.
pub struct Engine<D: Disk, R: Runtime> {
    inner: Rc<Inner<D>>,
    runtime: std::marker::PhantomData<R>,
}

struct Inner<D: Disk> {
    log: Rc<RefCell<Log<D>>>,
    partitions: RefCell<Partitions>,
    refusals: RefCell<Refusals>,
}

#[derive(Clone, Copy, Default)]
struct Refusals {
    table_full: u64,
    log_full: u64,
    busy: u64,
}

impl<D: Disk> Drop for Inner<D> {
    fn drop(&mut self) {
        self.log.borrow_mut().close();
    }
}

impl<D: Disk, R: Runtime> Clone for Engine<D, R> {
    fn clone(&self) -> Self {
        Engine { inner: Rc::clone(&self.inner), runtime: self.runtime }
    }
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Reads the log, opens a new segment behind it and starts to write. Damage to anything that was
    /// acknowledged is an error; nothing on the disk is changed then.
    pub async fn open(disk: D, runtime: R, config: EngineConfig) -> Result<(Self, Recovery), OpenError> {
        config.wal.check()?;
        let EngineConfig { cluster, node, shard, wal, table_bytes_max, notes_ns } = config;
        let identity = Identity { cluster, node, shard, run: runtime.random() };
        let mut partitions = Partitions::new(table_bytes_max, notes_ns);
        let found = recover(&disk, identity, wal.segment_bytes, &mut partitions).await?;
        let recovery = describe(&found, &mut partitions)?;
        let mut ring = ring_after(&found, &partitions, &wal);
        if let Some(file) = ring.wanted() {
            disk.create(file, wal.segment_bytes).await?;
            ring.prepared(file);
        }
        let log = Log::new(disk.clone(), wal, identity, ring, found.last, found.previous);
        let started = log.commits.wait(found.last + 1);
        let log = Rc::new(RefCell::new(log));
        runtime.spawn(writer::run(disk, runtime.clone(), Rc::clone(&log)));
        let inner = Inner { log, partitions: RefCell::new(partitions), refusals: RefCell::default() };
        let engine = Engine { inner: Rc::new(inner), runtime: std::marker::PhantomData };
        match started.await {
            Ok(()) => Ok((engine, recovery)),
            Err(WalFailed::Disk(error)) => Err(error.into()),
            Err(WalFailed::Closed) => {
                Err(OpenError::Config { reason: "the executor ended while the log was opened" })
            }
        }
    }

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
        partitions.insert(id, Partition::new(generation, meta.to_vec(), segment));
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
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Ok(log.commits.refused(reason));
        }
        let header = control_record(id, generation, RecordKind::Dropped, partition.end.slot);
        let frame = log
            .append(Class::Control, &header, partition.end.checksum, 0, |_| ())
            .map_err(|refused| self.refuse(refused))?;
        for segment in [Some(partition.created_in), partition.oldest_records_in()].into_iter().flatten() {
            log.unpin_when_durable(frame, segment);
        }
        partitions.remove(id);
        Ok(log.commits.wait(frame))
    }

    fn refuse(&self, refused: Refused) -> Refused {
        let mut refusals = self.inner.refusals.borrow_mut();
        match refused {
            Refused::TableFull { .. } => refusals.table_full += 1,
            Refused::LogFull { .. } => refusals.log_full += 1,
            Refused::Busy => refusals.busy += 1,
            Refused::TooLarge { .. } => {}
        }
        refused
    }

    /// The newest image of a key, applied or not.
    pub async fn newest(&self, id: PartitionId, key: &[u8]) -> Result<Newest, ReadError> {
        let partitions = self.inner.partitions.borrow();
        Ok(partitions.get(id).ok_or(ReadError::Unknown { id })?.newest(key))
    }

    /// The applied image of a key.
    pub async fn get(&self, id: PartitionId, key: &[u8]) -> Result<Option<Rc<[u8]>>, ReadError> {
        let partitions = self.inner.partitions.borrow();
        let partition = partitions.get(id).ok_or(ReadError::Unknown { id })?;
        Ok(partition.table.get(key).cloned())
    }

    /// A page of the applied items of a range.
    pub async fn range(&self, id: PartitionId, query: RangeQuery) -> Result<Page, ReadError> {
        let partitions = self.inner.partitions.borrow();
        let partition = partitions.get(id).ok_or(ReadError::Unknown { id })?;
        let mut range = partition.table.range(&query.lower, query.upper.as_deref(), query.reverse);
        let mut page = Page { items: Vec::new(), more: false };
        let (mut item_bytes, mut memory_bytes) = (0, 0);
        for (key, image) in range.by_ref() {
            let full = item_bytes >= query.bytes_max as u64 || memory_bytes >= PAGE_MEMORY_BYTES_MAX;
            if full || page.items.len() >= query.items_max {
                page.more = true;
                break;
            }
            item_bytes += stored_item_bytes(image);
            memory_bytes += key.len() + image.len();
            page.items.push((Rc::clone(key), Rc::clone(image)));
        }
        Ok(page)
    }

    /// Ends the active generation of a table at its applied slot, which must be `slot`. The result is
    /// what a merge reads; the generation stays apart until it is dropped.
    pub fn freeze(&self, id: PartitionId, slot: Slot) -> Result<Pinned, TooManyFrozen> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let partition = partitions.get_mut(id).expect("only a partition that is here is frozen");
        assert_eq!(slot, partition.applied.slot, "a table is frozen at what it has applied");
        partition.table.pin(slot)
    }

    /// The applied state as it is now, whatever is applied later.
    pub fn pin(&self, id: PartitionId) -> Result<Pinned, TooManyFrozen> {
        let applied = self.inner.partitions.borrow().get(id).map(|partition| partition.applied.slot);
        self.freeze(id, applied.expect("only a partition that is here is pinned"))
    }

    /// The log need not keep the entries of a partition up to `slot` any longer.
    pub fn trim(&self, id: PartitionId, slot: Slot) {
        let mut partitions = self.inner.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(id) else { return };
        let before = partition.oldest_records_in();
        partition.trim(slot);
        let mut log = self.inner.log.borrow_mut();
        if let Some(segment) = partition.oldest_records_in() {
            log.ring.pin(segment);
        }
        if let Some(segment) = before {
            log.ring.unpin(segment);
        }
    }

    /// What a partition holds; nothing if it is not here.
    pub fn counts(&self, id: PartitionId) -> Counts {
        self.inner.partitions.borrow().get(id).map_or(Counts::default(), |partition| partition.counts)
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
            ..log.statistics()
        }
    }

    /// Writes what was appended, then stops the log; later appends fail.
    pub async fn close(&self) -> Result<(), WalFailed> {
        self.inner.log.borrow_mut().close();
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
        ballot: Ballot::default(),
        slot,
        chosen: Slot(0),
        timestamp: Timestamp(0),
    }
}

fn describe(found: &Found, partitions: &mut Partitions) -> Result<Recovery, OpenError> {
    let list = partitions.recovered().map_err(|orphan| OpenError::Corrupt {
        file: found.live.first().map_or(FileId::Segment(0), |segment| segment.file),
        offset: 0,
        expected: format!("the creation of partition {orphan}, or its end"),
        found: "only entries of it".into(),
    })?;
    Ok(Recovery {
        partitions: list,
        frames: found.frames,
        entries: partitions.entries_replayed,
        bytes: found.bytes,
        cut: found.cut.clone(),
        life: found.segment_next,
    })
}

/// The segments as recovery found them, with what is needed pinned.
fn ring_after(found: &Found, partitions: &Partitions, wal: &crate::wal::WalConfig) -> SegmentRing {
    // A start always gets a segment of its own, even on a full log: without it nothing could be dropped.
    let files = found.live.len() + found.leaving.len() + found.free.len();
    let extra = usize::from(found.free.is_empty());
    let files_max = wal.files_max().max(files + extra);
    let mut ring = SegmentRing::new(wal.segment_bytes, files_max, found.file_next, found.segment_next);
    found.live.iter().for_each(|&segment| ring.add_live(segment));
    found.free.iter().for_each(|&file| ring.add_free(file));
    found.leaving.iter().for_each(|&file| ring.add_leaving(found.last + 1, file));
    for partition in partitions.iter() {
        ring.pin(partition.created_in);
        if let Some(segment) = partition.oldest_records_in() {
            ring.pin(segment);
        }
    }
    ring
}
