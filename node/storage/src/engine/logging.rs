//! How the owner of a partition's log writes it and has it applied.
//!
//! Records are taken in the order of the calls. An entry is let in by [`Engine::admits`], before anything
//! is promised about it; what consensus has decided to write after that is written, unless the log is
//! full to its last block or has stopped.

use super::{Engine, Entry, Position, control_record};
use crate::{
    disk::Disk,
    error::Refused,
    limits::MOVED_BYTES_MAX,
    mistakes,
    partition::Partition,
    runtime::Runtime,
    wal::{
        Durable,
        log::{Class, Log},
        record::{RecordHeader, RecordKind, payload_bytes, record_bytes, write_payload},
        recovery::RecordPlace,
    },
};
use evenkeel_model::{Ballot, Generation, PartitionId, Slot, Timestamp};
use std::ops::ControlFlow;

/// Why a record about a partition may be written: nobody else knows that it is here.
const HERE: &str = "only a partition that is here is written to";

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Whether these entries can be taken, one behind the other.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was done.
    pub fn admits<'a>(
        &self,
        id: PartitionId,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<(), Refused> {
        let partitions = self.inner.partitions.borrow();
        let log = self.inner.log.borrow();
        partitions.get(id).map_or(Ok(()), |partition| self.check_unsealed(partition))?;
        let mut together = 0;
        for entry in entries {
            partitions.check_room(id, &entry.operations).map_err(|refused| self.refuse(refused))?;
            let bytes = record_bytes(payload_bytes(&entry.operations, &entry.note));
            if log.ring.is_nearly_full() {
                let share = partitions.check_log_share(id, bytes as u64, log.config().wal_bytes_max);
                share.map_err(|refused| self.refuse(refused))?;
            }
            log.admit(Class::Entry, bytes).map_err(|refused| self.refuse(refused))?;
            together += bytes;
        }
        log.admit_together(together).map_err(|refused| self.refuse(refused))
    }

    /// Puts `entry` into the frame being built; the future resolves when it is durable. Its slot follows the
    /// partition's last one, or is taken anew: then what stood there and behind is dropped. `checksum` is
    /// [`Entry::checksum`] behind the entry before.
    ///
    /// # Errors
    /// Only if the log is full to the last block, or the partition is being made by a split; see
    /// [`Engine::admits`].
    ///
    /// # Panics
    /// If the partition is not here, the slot leaves a hole, or what stands there is applied.
    pub fn append(&self, id: PartitionId, entry: Entry, checksum: u128) -> Result<Durable, Refused> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Ok(log.commits.refused(reason));
        }
        let partition = partitions.get(id).expect(HERE);
        self.check_unsealed(partition)?;
        let slots = partition.applied.slot.next()..=partition.end.slot.next();
        assert!(slots.contains(&entry.slot), "slots of partition {id} have no holes, and applied ones stay");
        let header = entry.header(id, partition.generation);
        let bytes = payload_bytes(&entry.operations, &entry.note);
        let (frame, segment) = write(&mut log, &header, checksum, bytes, |payload| {
            write_payload(payload, &entry.operations, &entry.note)
        })
        .map_err(|refused| self.refuse(refused))?;
        let slot = entry.slot;
        partitions.counted(id, |partition| {
            pin(&mut log, partition, segment, slot);
            partition.append(entry, checksum, RecordPlace { segment, frame });
        });
        let errs = self.inner.runtime.errs(mistakes::ACKNOWLEDGED_UNFLUSHED);
        Ok(log.commits.wait(if errs { 0 } else { frame }))
    }

    /// Writes down that nothing below `ballot` is accepted from here on.
    ///
    /// # Errors
    /// As [`Engine::append`].
    pub fn promise(&self, id: PartitionId, ballot: Ballot) -> Result<Durable, Refused> {
        self.control(id, RecordKind::Promise, ballot, Position::default(), Slot(0))
    }

    /// Writes down that everything up to `upto` is accepted under `ballot`, and chosen up to `chosen`.
    ///
    /// # Errors
    /// As [`Engine::append`].
    pub fn accepted(
        &self,
        id: PartitionId,
        ballot: Ballot,
        upto: Position,
        chosen: Slot,
    ) -> Result<Durable, Refused> {
        self.control(id, RecordKind::Accepted, ballot, upto, chosen)
    }

    fn control(
        &self,
        id: PartitionId,
        kind: RecordKind,
        ballot: Ballot,
        at: Position,
        chosen: Slot,
    ) -> Result<Durable, Refused> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Ok(log.commits.refused(reason));
        }
        let partition = partitions.get_mut(id).expect(HERE);
        self.check_unsealed(partition)?;
        let header =
            RecordHeader { ballot, chosen, ..control_record(id, partition.generation, kind, at.slot) };
        let (frame, segment) =
            write(&mut log, &header, at.checksum, 0, |_| ()).map_err(|full| self.refuse(full))?;
        pin(&mut log, partition, segment, Slot(0));
        partition.note_promise(ballot);
        partition.accept(ballot, at.slot);
        Ok(log.commits.wait(frame))
    }

    /// The log begins anew behind `base`, without content, and of what it holds only what continues `base` stays:
    /// so a log without a tree goes on. `state` is handed back by recovery, and `timestamp` is the greatest up
    /// to there. Content comes by [`Prepared::install`](super::Prepared::install).
    ///
    /// # Errors
    /// As [`Engine::append`].
    pub fn begin(
        &self,
        id: PartitionId,
        base: Position,
        timestamp: Timestamp,
        state: &[u8],
    ) -> Result<Durable, Refused> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let mut log = self.inner.log.borrow_mut();
        if let Some(reason) = log.stopped() {
            return Ok(log.commits.refused(reason));
        }
        let partition = partitions.get(id).expect(HERE);
        self.check_unsealed(partition)?;
        assert!(base.slot >= partition.applied.slot, "a log never begins before what is applied");
        let kind = RecordKind::Begin;
        let header = RecordHeader { timestamp, ..control_record(id, partition.generation, kind, base.slot) };
        let (frame, segment) = write(&mut log, &header, base.checksum, state.len(), |payload| {
            payload.copy_from_slice(state);
        })
        .map_err(|refused| self.refuse(refused))?;
        partitions.counted(id, |partition| {
            pin(&mut log, partition, segment, base.slot);
            partition.begin(base, timestamp, frame, None);
        });
        let durable = log.commits.wait(frame);
        drop((partitions, log));
        self.wake_upkeep();
        Ok(durable)
    }

    /// What is durable already: for who has nothing to write.
    pub fn nothing_to_write(&self) -> Durable {
        let log = self.inner.log.borrow();
        match log.stopped() {
            Some(reason) => log.commits.refused(reason),
            None => log.commits.wait(0),
        }
    }

    /// A partition that a split, a load or an install has made takes records when that is durable.
    fn check_unsealed(&self, partition: &Partition) -> Result<(), Refused> {
        if partition.sealed_by.is_some() { Err(self.refuse(Refused::Busy)) } else { Ok(()) }
    }

    /// Moves appended entries up to `slot` into the in-memory table, and shows each to `visit` before, up to one at
    /// which it wants to stop: that one is applied too. Those applied already, and a partition dropped meanwhile,
    /// are passed over. `visit` must not call the engine.
    pub fn apply(&self, id: PartitionId, slot: Slot, visit: impl FnMut(&Entry) -> ControlFlow<()>) {
        self.inner.partitions.borrow_mut().counted(id, |partition| partition.apply(slot, visit));
        self.wake_upkeep();
    }

    /// How many bytes of applied entries a partition keeps in memory, for others to catch up by.
    pub fn keep(&self, id: PartitionId, bytes_max: u64) {
        if let Some(partition) = self.inner.partitions.borrow_mut().get_mut(id) {
            partition.keep(bytes_max);
        }
    }

    /// Gives back memory that a partition does not need while nobody writes to it.
    pub fn rest(&self, id: PartitionId) {
        if let Some(partition) = self.inner.partitions.borrow_mut().get_mut(id) {
            partition.rest();
        }
    }

    /// The last entry of a partition's log; its beginning if the partition is not here.
    pub fn end(&self, id: PartitionId) -> Position {
        self.inner.partitions.borrow().get(id).map_or(Position::default(), |partition| partition.end)
    }

    /// The greatest timestamp in a partition's log; 0 if it is not here.
    pub fn last_timestamp(&self, id: PartitionId) -> Timestamp {
        let partitions = self.inner.partitions.borrow();
        partitions.get(id).map_or(Timestamp(0), |partition| partition.last_timestamp)
    }

    /// The life of a partition that is here.
    pub fn generation(&self, id: PartitionId) -> Option<Generation> {
        self.inner.partitions.borrow().get(id).map(|partition| partition.generation)
    }

    /// An entry that is still in memory, and its chained checksum: all that are not applied are.
    pub fn entry(&self, id: PartitionId, slot: Slot) -> Option<(Entry, u128)> {
        let partitions = self.inner.partitions.borrow();
        partitions.get(id)?.entry(slot).map(|(entry, checksum)| (entry.clone(), checksum))
    }

    /// The place of an entry that is still in memory, or of the one before the first such.
    pub fn position(&self, id: PartitionId, slot: Slot) -> Option<Position> {
        self.inner.partitions.borrow().get(id)?.position(slot)
    }
}

/// Writes the entries that are not applied once more, if they are few and not in the newest segment: a partition
/// that nobody writes to must not keep the log from going round. Nothing may take the place of the first
/// records before `moved_frame` is durable.
pub(super) fn move_pending<D: Disk>(log: &mut Log<D>, id: PartitionId, partition: &mut Partition) {
    let current = log.ring.current();
    let is_old = partition.pending().next().is_some_and(|(_, _, at)| at.segment < current);
    if !is_old || !can_move(partition) {
        return;
    }
    let pending: Vec<_> = partition.pending().map(|(entry, checksum, _)| (entry.clone(), checksum)).collect();
    let mut places = Vec::with_capacity(pending.len());
    for (entry, checksum) in &pending {
        let header = RecordHeader { again: true, ..entry.header(id, partition.generation) };
        let bytes = payload_bytes(&entry.operations, &entry.note);
        let written = write(log, &header, *checksum, bytes, |payload| {
            write_payload(payload, &entry.operations, &entry.note)
        });
        // Without room for all of them the first records stay the ones that count.
        let Ok((frame, segment)) = written else { return };
        pin(log, partition, segment, entry.slot);
        places.push((entry.slot, RecordPlace { segment, frame }));
    }
    places.into_iter().for_each(|(slot, at)| partition.moved(slot, at));
}

/// Whether what is not applied is little enough to be written once more.
pub(super) fn can_move(partition: &Partition) -> bool {
    partition.pending_bytes <= MOVED_BYTES_MAX
}

/// Puts a record into the frame being built; yields the frame and the segment it will be in at the
/// earliest.
fn write<D: Disk>(
    log: &mut Log<D>,
    header: &RecordHeader,
    checksum: u128,
    payload_bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Result<(u64, u32), Refused> {
    let segment = log.ring.current();
    let frame = log.append(Class::Control, header, checksum, payload_bytes, fill)?;
    Ok((frame, segment))
}

/// Keeps the segment of a record that a partition needs.
fn pin<D: Disk>(log: &mut Log<D>, partition: &mut Partition, segment: u32, slot: Slot) {
    if partition.oldest_records_in().is_none() {
        log.ring.pin(segment);
    }
    partition.note_segment(segment, slot);
}
