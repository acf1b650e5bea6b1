//! What the engine knows of each partition: its place in the log, entries not applied, its table.
//!
//! Bytes are counted as they will be once everything appended is applied, so that the budget of the
//! tables cannot be overrun by what is under way: an entry is charged when it is appended, by the
//! newest image of its key, applied or not.
//!
//! It knows nothing of frames, files or tasks.

use crate::{
    engine::{Counts, Entry, Operation, RecoveredEntries, RecoveredPartition},
    limits::TABLE_ITEM_OVERHEAD_BYTES,
    table::Table,
    wal::{
        record::{RecordHeader, RecordKind, RecordView, entry_checksum, read_operations},
        recovery::{Replay, ReplayFault},
    },
};
use evenkeel_model::{Generation, PartitionId, Slot, Timestamp, item::stored_item_bytes};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry as MapEntry},
    rc::Rc,
};

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) generation: Generation,
    meta: Vec<u8>,
    /// The last slot appended.
    pub(crate) last_slot: Slot,
    pub(crate) last_timestamp: Timestamp,
    /// Checksum of the last record, which the next one chains to.
    pub(crate) chain: u128,
    pub(crate) applied: Slot,
    pending: VecDeque<Entry>,
    /// What the keys of pending entries will cost, and how many of these entries name them.
    pending_keys: HashMap<Rc<[u8]>, PendingKey>,
    pending_bytes: u64,
    /// Bytes once everything pending is applied.
    bytes: u64,
    pub(crate) table: Table,
    /// What the table holds now.
    pub(crate) counts: Counts,
    /// The segment of the record that created it, needed until it is dropped.
    pub(crate) created_in: u32,
    /// Which segments its entries are in, oldest first, each with the last slot there.
    segments: VecDeque<(u32, Slot)>,
}

#[derive(Clone, Copy, Debug)]
struct PendingKey {
    /// 0 once deleted.
    bytes: u64,
    entries: u32,
}

impl Partition {
    pub(crate) fn new(generation: Generation, meta: Vec<u8>, chain: u128, created_in: u32) -> Self {
        Partition {
            generation,
            meta,
            last_slot: Slot(0),
            last_timestamp: Timestamp(0),
            chain,
            applied: Slot(0),
            pending: VecDeque::new(),
            pending_keys: HashMap::new(),
            pending_bytes: 0,
            bytes: 0,
            table: Table::default(),
            counts: Counts::default(),
            created_in,
            segments: VecDeque::new(),
        }
    }

    /// The oldest segment with an entry that is not trimmed.
    pub(crate) fn oldest_entries_in(&self) -> Option<u32> {
        self.segments.front().map(|&(segment, _)| segment)
    }

    /// Forgets which segments hold the entries up to `slot`.
    pub(crate) fn trim(&mut self, slot: Slot) {
        while self.segments.front().is_some_and(|&(_, last)| last <= slot) {
            self.segments.pop_front();
        }
    }

    /// At most how many bytes `operations` add; none if they only remove or shrink.
    fn growth(&self, operations: &[Operation]) -> u64 {
        let each = |operation: &Operation| match operation {
            Operation::Put { key, image } => item_bytes(key, image).saturating_sub(self.newest_bytes(key)),
            Operation::Delete { .. } => 0,
        };
        operations.iter().map(each).sum()
    }

    /// What `key` costs once everything pending is applied.
    fn newest_bytes(&self, key: &[u8]) -> u64 {
        match self.pending_keys.get(key) {
            Some(pending) => pending.bytes,
            None => self.table.get(key).map_or(0, |image| item_bytes(key, image)),
        }
    }

    /// Takes note of an entry in the log; its chain checksum is `checksum`, its record in `segment`.
    fn note(&mut self, header: &RecordHeader, checksum: u128, segment: u32) {
        self.last_slot = header.slot;
        self.last_timestamp = header.timestamp;
        self.chain = checksum;
        match self.segments.back_mut() {
            Some((last, slot)) if *last == segment => *slot = header.slot,
            _ => self.segments.push_back((segment, header.slot)),
        }
    }

    fn add_pending(&mut self, entry: Entry) {
        for operation in &entry.operations {
            let (key, bytes) = cost(operation);
            let before = match self.pending_keys.entry(Rc::clone(key)) {
                MapEntry::Occupied(mut known) => {
                    known.get_mut().entries += 1;
                    std::mem::replace(&mut known.get_mut().bytes, bytes)
                }
                MapEntry::Vacant(unknown) => {
                    unknown.insert(PendingKey { bytes, entries: 1 });
                    self.table.get(key).map_or(0, |image| item_bytes(key, image))
                }
            };
            self.bytes = self.bytes - before + bytes;
        }
        self.pending_bytes += entry_bytes(&entry);
        self.pending.push_back(entry);
    }

    fn apply(&mut self, slot: Slot) {
        assert!(slot <= self.last_slot, "only what was appended is applied");
        while self.pending.front().is_some_and(|entry| entry.slot <= slot) {
            let entry = self.pending.pop_front().expect("there is one");
            self.pending_bytes -= entry_bytes(&entry);
            self.applied = entry.slot;
            for operation in entry.operations {
                if let MapEntry::Occupied(mut known) = self.pending_keys.entry(Rc::clone(cost(&operation).0))
                {
                    known.get_mut().entries -= 1;
                    if known.get().entries == 0 {
                        known.remove();
                    }
                }
                self.change(operation);
            }
        }
    }

    /// Applies an entry that was never pending.
    fn apply_at_once(&mut self, slot: Slot, operations: Vec<Operation>) {
        self.applied = slot;
        for operation in operations {
            let key = Rc::clone(cost(&operation).0);
            self.bytes += cost(&operation).1;
            if let Some(replaced) = self.change(operation) {
                self.bytes -= item_bytes(&key, &replaced);
            }
        }
    }

    /// Applies one change; returns the image it replaced.
    fn change(&mut self, operation: Operation) -> Option<Rc<[u8]>> {
        let replaced = match operation {
            Operation::Put { key, image } => {
                self.counts.items += 1;
                self.counts.bytes += stored_item_bytes(&image);
                self.table.put(key, image)
            }
            Operation::Delete { key } => self.table.delete(key),
        };
        if let Some(image) = &replaced {
            self.counts.items -= 1;
            self.counts.bytes -= stored_item_bytes(image);
        }
        replaced
    }
}

/// The key of an operation, and what the item costs after it.
fn cost(operation: &Operation) -> (&Rc<[u8]>, u64) {
    match operation {
        Operation::Put { key, image } => (key, item_bytes(key, image)),
        Operation::Delete { key } => (key, 0),
    }
}

fn item_bytes(key: &[u8], image: &[u8]) -> u64 {
    (key.len() + image.len()) as u64 + TABLE_ITEM_OVERHEAD_BYTES
}

fn entry_bytes(entry: &Entry) -> u64 {
    crate::wal::record::operations_bytes(&entry.operations) as u64
}

/// All partitions of a shard.
#[derive(Debug)]
pub(crate) struct Partitions {
    map: HashMap<PartitionId, Partition>,
    bytes: u64,
    pending_bytes: u64,
    bytes_max: u64,
    recovered: RecoveredEntries,
    /// Partitions whose creation is no longer in the log: their end must follow.
    orphans: HashMap<PartitionId, Generation>,
    pub(crate) entries_replayed: u64,
}

impl Partitions {
    pub(crate) fn new(bytes_max: u64, recovered: RecoveredEntries) -> Self {
        Partitions {
            map: HashMap::new(),
            bytes: 0,
            pending_bytes: 0,
            bytes_max,
            recovered,
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
        let most: u64 = operations.iter().map(|operation| cost(operation).1).sum();
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

    /// Takes note of an entry that was put into the log.
    pub(crate) fn appended(&mut self, header: &RecordHeader, checksum: u128, segment: u32, entry: Entry) {
        self.counted(header.partition, |partition| {
            partition.note(header, checksum, segment);
            partition.add_pending(entry);
        });
    }

    pub(crate) fn apply(&mut self, id: PartitionId, slot: Slot) {
        if self.map.contains_key(&id) {
            self.counted(id, |partition| partition.apply(slot));
        }
    }

    /// Changes a partition, and the sums over all by as much.
    fn counted<T>(&mut self, id: PartitionId, change: impl FnOnce(&mut Partition) -> T) -> T {
        let partition = self.map.get_mut(&id).expect("the caller knows it is there");
        let (bytes, pending_bytes) = (partition.bytes, partition.pending_bytes);
        let result = change(partition);
        self.bytes = self.bytes - bytes + partition.bytes;
        self.pending_bytes = self.pending_bytes - pending_bytes + partition.pending_bytes;
        result
    }

    /// What recovery found, by rising id, unless the log lacks the creation of a partition it holds.
    pub(crate) fn recovered(&self) -> Result<Vec<RecoveredPartition>, PartitionId> {
        if let Some(&id) = self.orphans.keys().min() {
            return Err(id);
        }
        let each = |(&id, partition): (&PartitionId, &Partition)| RecoveredPartition {
            id,
            generation: partition.generation,
            meta: partition.meta.clone(),
            last_slot: partition.last_slot,
            last_timestamp: partition.last_timestamp,
        };
        let mut list: Vec<_> = self.map.iter().map(each).collect();
        list.sort_by_key(|partition| partition.id);
        Ok(list)
    }

    fn replay_created(&mut self, segment: u32, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let RecordHeader { partition: id, generation, .. } = record.header;
        check_chain(record, 0)?;
        if self.map.contains_key(&id) || self.orphans.contains_key(&id) {
            let expected = format!("partition {id} dropped before it is created again");
            return Err(ReplayFault::Corrupt { expected, found: format!("generation {generation} created") });
        }
        self.insert(id, Partition::new(generation, record.payload.to_vec(), record.checksum, segment));
        Ok(())
    }

    fn replay_dropped(&mut self, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let id = record.header.partition;
        self.orphans.remove(&id);
        if let Some(partition) = self.map.get(&id) {
            check_chain(record, partition.chain)?;
        }
        self.remove(id);
        Ok(())
    }

    fn replay_entry(&mut self, segment: u32, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let header = record.header;
        self.entries_replayed += 1;
        let Some(partition) = self.map.get(&header.partition) else {
            self.orphans.insert(header.partition, header.generation);
            return Ok(());
        };
        let expected = (partition.generation, partition.last_slot.next());
        if (header.generation, header.slot) != expected {
            return Err(ReplayFault::Corrupt {
                expected: format!(
                    "slot {} of partition {} generation {}",
                    expected.1, header.partition, expected.0
                ),
                found: format!("slot {} of generation {}", header.slot, header.generation),
            });
        }
        check_chain(record, partition.chain)?;
        let operations = read_operations(record.payload)?;
        let apply = self.recovered == RecoveredEntries::Apply;
        self.counted(header.partition, |partition| {
            partition.note(&header, record.checksum, segment);
            if apply {
                partition.apply_at_once(header.slot, operations);
            } else {
                let RecordHeader { slot, ballot, timestamp, .. } = header;
                partition.add_pending(Entry { slot, ballot, timestamp, operations });
            }
        });
        Ok(())
    }
}

impl Replay for Partitions {
    fn record(&mut self, segment: u32, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        match record.header.kind {
            RecordKind::Created => self.replay_created(segment, record),
            RecordKind::Dropped => self.replay_dropped(record),
            RecordKind::Entry => self.replay_entry(segment, record),
        }
    }
}

/// Checks that a record follows the partition's previous one.
fn check_chain(record: &RecordView<'_>, previous: u128) -> Result<(), ReplayFault> {
    let found = entry_checksum(&record.header, previous, record.payload);
    if found == record.checksum {
        return Ok(());
    }
    Err(ReplayFault::Corrupt {
        expected: format!("entry checksum {:032x}", record.checksum),
        found: format!(
            "{found:032x} at slot {} of partition {}",
            record.header.slot, record.header.partition
        ),
    })
}
