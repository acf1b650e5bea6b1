//! What the engine knows of one partition: where its log ends, entries not applied, its table.
//!
//! Bytes are counted as they will be once everything appended is applied, so that the budget of the
//! tables cannot be overrun by what is under way: an entry is charged when it is appended, by the
//! newest image of its key, applied or not.
//!
//! Entries that are not applied may be dropped again, from some slot on, by an entry that takes that slot
//! anew. What is applied stays. It knows nothing of frames, files or tasks, nor of why that is so.

use crate::{
    engine::{Counts, Entry, Newest, Operation, Position, RecoveredPartition},
    limits::TABLE_ITEM_OVERHEAD_BYTES,
    table::Table,
    wal::record::{RecordHeader, payload_bytes},
};
use evenkeel_model::{Ballot, Generation, PartitionId, Slot, Timestamp, item::stored_item_bytes};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry as MapEntry},
    rc::Rc,
};

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) generation: Generation,
    meta: Vec<u8>,
    /// The greatest ballot promised, when the log was read.
    promised: Ballot,
    /// The last entry appended, and the chained checksum that the next one continues.
    pub(crate) end: Position,
    pub(crate) last_timestamp: Timestamp,
    /// The last entry applied.
    pub(crate) applied: Position,
    /// The entries up to `end`: those that are not applied, and before them some that are.
    tail: VecDeque<Held>,
    /// The entry before the first one in `tail`.
    tail_after: Position,
    /// Bytes of the applied entries in `tail`, and how many may be.
    kept_bytes: u64,
    kept_bytes_max: u64,
    /// What the keys of pending entries will be, and how many of these entries name them.
    pending_keys: HashMap<Rc<[u8]>, PendingKey>,
    pub(crate) pending_bytes: u64,
    /// Bytes of what the table holds.
    table_bytes: u64,
    /// Bytes once everything pending is applied.
    pub(crate) bytes: u64,
    pub(crate) table: Table,
    /// What the table holds now.
    pub(crate) counts: Counts,
    /// Pieces of a snapshot that is being taken in: the next one's number, and their items.
    staged: Option<(u64, Vec<Operation>)>,
    /// What recovery found for the owner to take.
    found: Recovering,
    /// The segment of the record that created it, needed until it is dropped.
    pub(crate) created_in: u32,
    /// Which segments its records are in, oldest first, each with the last slot there.
    segments: VecDeque<(u32, Slot)>,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    checksum: u128,
}

#[derive(Clone, Debug)]
struct PendingKey {
    image: Option<Rc<[u8]>>,
    /// The newest entry that names it.
    slot: Slot,
    entries: u32,
}

/// What only the owner understands, gathered while the log is read.
#[derive(Debug, Default)]
struct Recovering {
    begun: Option<Vec<u8>>,
    state: Option<Vec<u8>>,
    noted: VecDeque<Entry>,
}

impl Partition {
    pub(crate) fn new(generation: Generation, meta: Vec<u8>, created_in: u32) -> Self {
        Partition {
            generation,
            meta,
            promised: Ballot::default(),
            end: Position::default(),
            last_timestamp: Timestamp(0),
            applied: Position::default(),
            tail: VecDeque::new(),
            tail_after: Position::default(),
            kept_bytes: 0,
            kept_bytes_max: 0,
            pending_keys: HashMap::new(),
            pending_bytes: 0,
            table_bytes: 0,
            bytes: 0,
            table: Table::default(),
            counts: Counts::default(),
            staged: None,
            found: Recovering::default(),
            created_in,
            segments: VecDeque::new(),
        }
    }

    /// The oldest segment with a record that is not trimmed.
    pub(crate) fn oldest_records_in(&self) -> Option<u32> {
        self.segments.front().map(|&(segment, _)| segment)
    }

    /// Forgets which segments hold the entries up to `slot`.
    pub(crate) fn trim(&mut self, slot: Slot) {
        while self.segments.front().is_some_and(|&(_, last)| last <= slot) {
            self.segments.pop_front();
        }
    }

    /// Takes note of a record that speaks of a slot.
    pub(crate) fn note_segment(&mut self, segment: u32, slot: Slot) {
        match self.segments.back_mut() {
            Some((last, upto)) if *last == segment => *upto = slot.max(*upto),
            _ => self.segments.push_back((segment, slot)),
        }
    }

    /// At most how many bytes `operations` add; none if they only remove or shrink.
    pub(crate) fn growth(&self, operations: &[Operation]) -> u64 {
        let each = |operation: &Operation| match operation {
            Operation::Put { key, image } => item_bytes(key, image).saturating_sub(self.newest_bytes(key)),
            Operation::Delete { .. } => 0,
        };
        operations.iter().map(each).sum()
    }

    /// What `key` costs once everything pending is applied.
    fn newest_bytes(&self, key: &[u8]) -> u64 {
        let image = match self.pending_keys.get(key) {
            Some(pending) => pending.image.as_ref(),
            None => self.table.get(key),
        };
        image.map_or(0, |image| item_bytes(key, image))
    }

    /// The newest image of a key, applied or not.
    pub(crate) fn newest(&self, key: &[u8]) -> Newest {
        match self.pending_keys.get(key) {
            Some(pending) => Newest { image: pending.image.clone(), pending: Some(pending.slot) },
            None => Newest { image: self.table.get(key).cloned(), pending: None },
        }
    }

    /// The place of an entry that is still in memory, or of the one before the first such.
    pub(crate) fn position(&self, slot: Slot) -> Option<Position> {
        if slot == self.tail_after.slot {
            return Some(self.tail_after);
        }
        self.held(slot).map(|held| Position { slot, checksum: held.checksum })
    }

    fn held(&self, slot: Slot) -> Option<&Held> {
        let at = slot.0.checked_sub(self.tail_after.slot.0 + 1)?;
        self.tail.get(usize::try_from(at).ok()?)
    }

    /// An entry that is still in memory, and its chained checksum.
    pub(crate) fn entry(&self, slot: Slot) -> Option<(&Entry, u128)> {
        self.held(slot).map(|held| (&held.entry, held.checksum))
    }

    /// Keeps this many bytes of applied entries.
    pub(crate) fn keep(&mut self, bytes_max: u64) {
        self.kept_bytes_max = bytes_max;
        self.shed();
    }

    /// Takes note of an entry in the log, in the place of whatever stood there and behind.
    pub(crate) fn append(&mut self, entry: Entry, checksum: u128) {
        if entry.slot <= self.end.slot {
            self.truncate(Slot(entry.slot.0 - 1));
        }
        self.end = Position { slot: entry.slot, checksum };
        self.last_timestamp = self.last_timestamp.max(entry.timestamp);
        self.charge(&entry);
        self.tail.push_back(Held { entry, checksum });
    }

    /// Counts an entry as pending.
    fn charge(&mut self, entry: &Entry) {
        for operation in &entry.operations {
            let (key, image) = parts(operation);
            let bytes = image.map_or(0, |image| item_bytes(key, image));
            let newest = PendingKey { image: image.cloned(), slot: entry.slot, entries: 1 };
            let before = match self.pending_keys.entry(Rc::clone(key)) {
                MapEntry::Occupied(mut known) => {
                    let entries = known.get().entries + 1;
                    let before = known.insert(PendingKey { entries, ..newest });
                    before.image.map_or(0, |image| item_bytes(key, &image))
                }
                MapEntry::Vacant(unknown) => {
                    unknown.insert(newest);
                    self.table.get(key).map_or(0, |image| item_bytes(key, image))
                }
            };
            self.bytes = self.bytes - before + bytes;
        }
        self.pending_bytes += entry_bytes(entry);
    }

    /// Drops the entries behind `slot`; none of them is applied.
    fn truncate(&mut self, slot: Slot) {
        assert!(slot >= self.applied.slot, "what is applied is never dropped");
        let keep = slot.0 - self.tail_after.slot.0;
        self.tail.truncate(usize::try_from(keep).expect("the tail is in memory"));
        self.end = self.position(slot).expect("the entry before is in memory");
        self.charge_again();
    }

    /// Counts what is pending anew.
    fn charge_again(&mut self) {
        self.pending_keys.clear();
        self.pending_bytes = 0;
        self.bytes = self.table_bytes;
        let (tail, applied) = (std::mem::take(&mut self.tail), self.applied.slot);
        tail.iter().filter(|held| held.entry.slot > applied).for_each(|held| self.charge(&held.entry));
        self.tail = tail;
    }

    /// Moves the pending entries up to `slot` into the table, and shows each to `visit` before.
    pub(crate) fn apply(&mut self, slot: Slot, mut visit: impl FnMut(&Entry)) {
        assert!(slot <= self.end.slot, "only what was appended is applied");
        while self.applied.slot < slot {
            let next = self.applied.slot.next();
            if self.kept_bytes_max == 0 && self.tail_after == self.applied {
                let held = self.tail.pop_front().expect("what is pending is in memory");
                visit(&held.entry);
                self.pending_bytes -= entry_bytes(&held.entry);
                self.applied = Position { slot: next, checksum: held.checksum };
                self.tail_after = self.applied;
                held.entry.operations.into_iter().for_each(|operation| self.settle(operation));
            } else {
                let at = usize::try_from(next.0 - self.tail_after.slot.0 - 1).expect("it is in memory");
                let held = &self.tail[at];
                visit(&held.entry);
                let (bytes, operations) = (entry_bytes(&held.entry), held.entry.operations.clone());
                self.applied = Position { slot: next, checksum: held.checksum };
                self.pending_bytes -= bytes;
                self.kept_bytes += bytes;
                operations.into_iter().for_each(|operation| self.settle(operation));
            }
        }
        self.shed();
    }

    /// Drops applied entries that need not be kept.
    fn shed(&mut self) {
        while self.kept_bytes > self.kept_bytes_max && self.tail_after.slot < self.applied.slot {
            let held = self.tail.pop_front().expect("applied entries are counted while they are kept");
            self.kept_bytes -= entry_bytes(&held.entry);
            self.tail_after = Position { slot: held.entry.slot, checksum: held.checksum };
        }
    }

    /// Applies an operation that was pending.
    fn settle(&mut self, operation: Operation) {
        let (key, _) = parts(&operation);
        if let MapEntry::Occupied(mut known) = self.pending_keys.entry(Rc::clone(key)) {
            known.get_mut().entries -= 1;
            if known.get().entries == 0 {
                known.remove();
            }
        }
        self.change(operation);
    }

    /// Applies one change to the table.
    fn change(&mut self, operation: Operation) {
        let (key, image) = parts(&operation);
        let key = Rc::clone(key);
        if let Some(image) = image {
            self.counts.items += 1;
            self.counts.bytes += stored_item_bytes(image);
            self.table_bytes += item_bytes(&key, image);
        }
        let replaced = match operation {
            Operation::Put { key, image } => self.table.put(key, image),
            Operation::Delete { key } => self.table.delete(key),
        };
        if let Some(image) = &replaced {
            self.counts.items -= 1;
            self.counts.bytes -= stored_item_bytes(image);
            self.table_bytes -= item_bytes(&key, image);
        }
    }

    /// Takes a piece of a snapshot; number 0 begins a new one. A piece out of order spoils what is staged.
    pub(crate) fn stage(&mut self, number: u64, items: Vec<Operation>) {
        match &mut self.staged {
            _ if number == 0 => self.staged = Some((1, items)),
            Some((next, staged)) if *next == number => {
                *next += 1;
                staged.extend(items);
            }
            _ => self.staged = None,
        }
    }

    /// Begins anew behind a chosen entry: the content is what was staged, and of the log only what
    /// continues that entry stays.
    pub(crate) fn begin(&mut self, base: Position, timestamp: Timestamp) {
        let continues = self.position(base.slot) == Some(base);
        if continues {
            let drop = usize::try_from(base.slot.0 - self.tail_after.slot.0).expect("it is in memory");
            self.tail.drain(..drop);
        } else {
            self.tail.clear();
            self.end = base;
        }
        (self.applied, self.tail_after, self.kept_bytes) = (base, base, 0);
        self.last_timestamp = self.last_timestamp.max(timestamp);
        (self.table, self.counts, self.table_bytes) = (Table::default(), Counts::default(), 0);
        let (_, items) = self.staged.take().unwrap_or_default();
        items.into_iter().for_each(|operation| self.change(operation));
        self.charge_again();
    }

    /// Everything up to `slot` is accepted under `ballot`, says the log. Ballots never rise from one slot
    /// to the next: the walk back ends early.
    pub(crate) fn replay_accepted(&mut self, ballot: Ballot, slot: Slot) {
        self.promised = self.promised.max(ballot);
        let upto = self.tail.iter_mut().rev().skip_while(|held| held.entry.slot > slot);
        for held in upto.take_while(|held| held.entry.ballot < ballot) {
            held.entry.ballot = ballot;
        }
    }

    /// The log says that it is chosen up to `slot`. What an owner has to remember of the entries is kept for
    /// it, the notes for `notes_ns` of the entries' time.
    pub(crate) fn replay_chosen(&mut self, slot: Slot, notes_ns: u64) {
        let mut found = std::mem::take(&mut self.found);
        self.apply(slot.min(self.end.slot).max(self.applied.slot), |entry| {
            if entry.lasting {
                found.state = Some(entry.note.clone());
            } else if !entry.note.is_empty() {
                found.noted.push_back(entry.clone());
            }
            let old = |noted: &Entry| noted.timestamp.0.saturating_add(notes_ns) < entry.timestamp.0;
            while found.noted.front().is_some_and(old) {
                found.noted.pop_front();
            }
        });
        self.found = found;
    }

    /// The log begins anew, with what its owner wrote down for that.
    pub(crate) fn replay_begin(&mut self, header: &RecordHeader, checksum: u128, state: &[u8]) {
        self.begin(Position { slot: header.slot, checksum }, header.timestamp);
        self.found = Recovering { begun: Some(state.to_vec()), ..Recovering::default() };
    }

    /// What the log says of it.
    pub(crate) fn recovered(&mut self, id: PartitionId) -> RecoveredPartition {
        let found = std::mem::take(&mut self.found);
        self.staged = None;
        let pending = self.tail.iter().filter(|held| held.entry.slot > self.applied.slot);
        RecoveredPartition {
            id,
            generation: self.generation,
            meta: self.meta.clone(),
            last_slot: self.end.slot,
            last_timestamp: self.last_timestamp,
            promised: self.promised,
            applied: self.applied,
            begun: found.begun,
            state: found.state,
            noted: found.noted.into(),
            pending: pending.map(|held| (held.entry.clone(), held.checksum)).collect(),
        }
    }
}

/// The key of an operation, and its image after it.
pub(crate) fn parts(operation: &Operation) -> (&Rc<[u8]>, Option<&Rc<[u8]>>) {
    match operation {
        Operation::Put { key, image } => (key, Some(image)),
        Operation::Delete { key } => (key, None),
    }
}

/// What an item costs after an operation.
pub(crate) fn cost(operation: &Operation) -> u64 {
    let (key, image) = parts(operation);
    image.map_or(0, |image| item_bytes(key, image))
}

fn item_bytes(key: &[u8], image: &[u8]) -> u64 {
    (key.len() + image.len()) as u64 + TABLE_ITEM_OVERHEAD_BYTES
}

fn entry_bytes(entry: &Entry) -> u64 {
    payload_bytes(&entry.operations, &entry.note) as u64
}
