//! All partitions of a shard: their sums, and how the log's records make them again at start.
//!
//! Only what the log says is chosen is applied while it is read; the rest waits for who knows. An entry
//! that takes a slot anew drops what stood there and behind. It knows nothing of frames, files or tasks.

use crate::{
    engine::{Entry, Operation, RecoveredPartition},
    partition::{Partition, cost},
    wal::{
        record::{RecordHeader, RecordKind, RecordView, read_payload, stored_checksum},
        recovery::{Replay, ReplayFault},
    },
};
use evenkeel_model::{Generation, PartitionId, Slot};
use std::collections::HashMap;

/// All partitions of a shard.
#[derive(Debug)]
pub(crate) struct Partitions {
    map: HashMap<PartitionId, Partition>,
    bytes: u64,
    pending_bytes: u64,
    bytes_max: u64,
    notes_ns: u64,
    /// Partitions whose creation is no longer in the log: their end must follow.
    orphans: HashMap<PartitionId, Generation>,
    pub(crate) entries_replayed: u64,
}

impl Partitions {
    pub(crate) fn new(bytes_max: u64, notes_ns: u64) -> Self {
        Partitions {
            map: HashMap::new(),
            bytes: 0,
            pending_bytes: 0,
            bytes_max,
            notes_ns,
            orphans: HashMap::new(),
            entries_replayed: 0,
        }
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.map.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.map.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.map.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes of all items once everything appended is applied.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget of [`bytes`](Self::bytes).
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Whether the budget has room for what `operations` add. What only removes always fits.
    pub(crate) fn has_room(&self, id: PartitionId, operations: &[Operation]) -> bool {
        // Far from the budget it does not matter what is replaced.
        let most: u64 = operations.iter().map(cost).sum();
        if self.bytes.saturating_add(most) <= self.bytes_max {
            return true;
        }
        let growth = self.map.get(&id).map_or(0, |partition| partition.growth(operations));
        growth == 0 || self.bytes.saturating_add(growth) <= self.bytes_max
    }

    pub(crate) fn insert(&mut self, id: PartitionId, partition: Partition) {
        let before = self.map.insert(id, partition);
        assert!(before.is_none(), "a partition is created once");
    }

    pub(crate) fn remove(&mut self, id: PartitionId) -> Option<Partition> {
        let gone = self.map.remove(&id)?;
        self.bytes -= gone.bytes;
        self.pending_bytes -= gone.pending_bytes;
        Some(gone)
    }

    /// Changes a partition that is there, and the sums over all by as much.
    pub(crate) fn counted<T>(
        &mut self,
        id: PartitionId,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Option<T> {
        let partition = self.map.get_mut(&id)?;
        let (bytes, pending_bytes) = (partition.bytes, partition.pending_bytes);
        let result = change(partition);
        self.bytes = self.bytes - bytes + partition.bytes;
        self.pending_bytes = self.pending_bytes - pending_bytes + partition.pending_bytes;
        Some(result)
    }

    /// What recovery found, by rising id, unless the log lacks the creation of a partition it holds.
    pub(crate) fn recovered(&mut self) -> Result<Vec<RecoveredPartition>, PartitionId> {
        if let Some(&id) = self.orphans.keys().min() {
            return Err(id);
        }
        let mut list: Vec<_> = self.map.iter_mut().map(|(&id, partition)| partition.recovered(id)).collect();
        list.sort_by_key(|partition| partition.id);
        Ok(list)
    }

    fn replay_created(&mut self, segment: u32, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let RecordHeader { partition: id, generation, .. } = record.header;
        if self.map.contains_key(&id) || self.orphans.contains_key(&id) {
            let expected = format!("partition {id} dropped before it is created again");
            return Err(ReplayFault::Corrupt { expected, found: format!("generation {generation} created") });
        }
        self.insert(id, Partition::new(generation, record.payload.to_vec(), segment));
        Ok(())
    }

    fn replay_dropped(&mut self, record: &RecordView<'_>) {
        let id = record.header.partition;
        self.orphans.remove(&id);
        self.remove(id);
    }

    /// A record about a partition's log.
    fn replay_logged(&mut self, segment: u32, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let RecordHeader { partition: id, generation, .. } = record.header;
        let notes_ns = self.notes_ns;
        if !self.map.contains_key(&id) {
            self.orphans.insert(id, generation);
            return Ok(());
        }
        self.counted(id, |partition| {
            if partition.generation != generation {
                return Err(ReplayFault::Corrupt {
                    expected: format!("generation {} of partition {id}", partition.generation),
                    found: format!("generation {generation}"),
                });
            }
            replay(partition, segment, record, notes_ns)
        })
        .expect("it is there, by the lines above")
    }
}

impl Replay for Partitions {
    fn record(&mut self, segment: u32, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        match record.header.kind {
            RecordKind::Created => self.replay_created(segment, record),
            RecordKind::Dropped => {
                self.replay_dropped(record);
                Ok(())
            }
            RecordKind::Entry => {
                self.entries_replayed += 1;
                self.replay_logged(segment, record)
            }
            RecordKind::Promise | RecordKind::Accepted | RecordKind::Piece | RecordKind::Begin => {
                self.replay_logged(segment, record)
            }
        }
    }
}

fn replay(
    partition: &mut Partition,
    segment: u32,
    record: &RecordView<'_>,
    notes_ns: u64,
) -> Result<(), ReplayFault> {
    let header = &record.header;
    match header.kind {
        RecordKind::Entry => {
            replay_entry(partition, record)?;
            partition.note_segment(segment, header.slot);
            partition.replay_chosen(header.chosen, notes_ns);
        }
        RecordKind::Accepted => {
            let position = partition.position(header.slot);
            let same = position.is_none_or(|position| position.checksum == record.checksum);
            if header.slot > partition.end.slot || !same {
                return Err(out_of_place(partition, header));
            }
            partition.replay_accepted(header.ballot, header.slot);
            partition.replay_chosen(header.chosen, notes_ns);
        }
        RecordKind::Promise => partition.replay_accepted(header.ballot, Slot(0)),
        RecordKind::Piece => {
            let (items, _) = read_payload(record.payload)?;
            partition.note_segment(segment, header.slot);
            partition.stage(header.ballot.round, items);
        }
        RecordKind::Begin => {
            if header.slot < partition.applied.slot {
                return Err(out_of_place(partition, header));
            }
            partition.note_segment(segment, header.slot);
            partition.replay_begin(header, record.checksum, record.payload);
        }
        RecordKind::Created | RecordKind::Dropped => {}
    }
    Ok(())
}

fn replay_entry(partition: &mut Partition, record: &RecordView<'_>) -> Result<(), ReplayFault> {
    let header = &record.header;
    let RecordHeader { slot, ballot, timestamp, lasting, .. } = *header;
    let before = slot.0.checked_sub(1).map(Slot).filter(|&before| before >= partition.applied.slot);
    let Some(before) = before.and_then(|before| partition.position(before)) else {
        return Err(out_of_place(partition, header));
    };
    let found = stored_checksum(header, before.checksum, record.payload);
    if found != record.checksum {
        return Err(ReplayFault::Corrupt {
            expected: format!("entry checksum {:032x}", record.checksum),
            found: format!("{found:032x} at slot {slot} of partition {}", header.partition),
        });
    }
    let (operations, note) = read_payload(record.payload)?;
    let note = note.to_vec();
    partition.replay_accepted(ballot, before.slot);
    partition.append(
        Entry { slot, ballot, timestamp, operations, note, lasting, chosen: Slot(0) },
        record.checksum,
    );
    Ok(())
}

fn out_of_place(partition: &Partition, header: &RecordHeader) -> ReplayFault {
    ReplayFault::Corrupt {
        expected: format!(
            "a slot of partition {} generation {} from {} to {}",
            header.partition,
            partition.generation,
            partition.applied.slot.next(),
            partition.end.slot.next(),
        ),
        found: format!("{:?} of slot {}", header.kind, header.slot),
    }
}
