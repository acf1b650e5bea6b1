//! What the engine knows of one partition: where its log ends, entries not applied, its table.
//!
//! Bytes are counted as they will be once everything appended is applied, so that the budget of the
//! tables cannot be overrun by what is under way: an entry is charged when it is appended, less what it
//! replaces that is not frozen.
//!
//! Entries that are not applied may be dropped again, from some slot on, by an entry that takes that slot
//! anew. What is applied stays. It knows nothing of frames, files or tasks, nor of why that is so.

use crate::{
    engine::{Counts, Entry, Frozen, Mark, Newest, Operation, Position, RecoveredPartition},
    space::{CataloguedPartition, LogPosition, RootReference},
    table::{Table, held_bytes},
    wal::{
        record::{RecordHeader, RecordKind, RecordView, payload_bytes, stored_checksum},
        recovery::RecordPlace,
    },
};
use evenkeel_model::{Ballot, Generation, LogTime, PartitionId, Slot, Timestamp};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry as MapEntry},
    ops::ControlFlow,
    rc::Rc,
};

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) generation: Generation,
    /// Which of the partitions that this process has had it is: one that was dropped may come back in the same
    /// generation, and what was begun for it before is of no use.
    pub(crate) life: u64,
    meta: Vec<u8>,
    /// The greatest ballot promised, when the log was read.
    promised: Ballot,
    /// The last entry appended, and the chained checksum that the next one continues.
    pub(crate) end: Position,
    pub(crate) last_timestamp: Timestamp,
    /// The last entry applied.
    pub(crate) applied: Position,
    /// The frame that its record is in; that of the creation while nothing is applied.
    pub(crate) applied_frame: u64,
    /// The last frame with entries that were written once more: their first records count until it is durable.
    pub(crate) moved_frame: u64,
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
    /// Bytes of the entries appended since the last checkpoint that is durable.
    pub(crate) logged_bytes: u64,
    /// What the table takes more, or less, once everything pending is applied.
    pending_growth: i64,
    pub(crate) table: Table,
    /// The tree below the table; none while it is empty.
    pub(crate) tree: Option<RootReference>,
    /// Rises when the content is replaced as a whole: a merge that began before is of no use.
    pub(crate) content: u64,
    /// What the last merge has made of it: what flips write down.
    pub(crate) checkpoint: Option<CataloguedPartition>,
    /// A merge is under way.
    pub(crate) is_merging: bool,
    /// What the next one ends with, if its owner has said where it must.
    pub(crate) marked: Option<Frozen>,
    /// The last mark at which one has ended, of the present content.
    pub(crate) last_mark: Option<Mark>,
    /// The last flip has written it down.
    pub(crate) is_catalogued: bool,
    /// It takes no records before a flip has written it down, in the place of this partition or for itself.
    pub(crate) sealed_by: Option<PartitionId>,
    /// A merge has met a page that cannot be read: no other is begun before this time.
    pub(crate) stuck_until_ns: u64,
    /// What recovery found for the owner to take.
    found: Recovering,
    /// The segment of the record that created it, needed until a flip has written it down.
    pub(crate) created_in: Option<u32>,
    /// Which segments its records are in, oldest first, each with the last slot of entries there.
    segments: VecDeque<(u32, Slot)>,
    /// While the log is read: it has come to what the checkpoint does not hold.
    is_past_checkpoint: bool,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    checksum: u128,
    /// Where its record is: the frame, and the segment at the earliest.
    at: RecordPlace,
}

#[derive(Clone, Debug)]
struct PendingKey {
    image: Option<Rc<[u8]>>,
    /// The newest entry that names it.
    slot: Slot,
    entries: u32,
    /// What the image will take in the table, and what it will give back there.
    cost: u64,
    replaces: u64,
}

impl PendingKey {
    fn growth(&self) -> i64 {
        self.cost.cast_signed() - self.replaces.cast_signed()
    }
}

/// What only the owner understands, gathered while the log is read.
#[derive(Debug, Default)]
struct Recovering {
    begun: Option<Vec<u8>>,
    state: Option<Vec<u8>>,
    /// With when each was made, by the log's time.
    noted: VecDeque<(u64, Entry)>,
    time: LogTime,
}

impl Partition {
    pub(crate) fn new(generation: Generation, meta: Vec<u8>, created_at: Option<RecordPlace>) -> Self {
        Partition {
            generation,
            life: 0,
            meta,
            promised: Ballot::default(),
            end: Position::default(),
            last_timestamp: Timestamp(0),
            applied: Position::default(),
            applied_frame: created_at.map_or(0, |at| at.frame),
            moved_frame: 0,
            tail: VecDeque::new(),
            tail_after: Position::default(),
            kept_bytes: 0,
            kept_bytes_max: 0,
            pending_keys: HashMap::new(),
            pending_bytes: 0,
            logged_bytes: 0,
            pending_growth: 0,
            table: Table::default(),
            tree: None,
            content: 0,
            checkpoint: None,
            is_merging: false,
            marked: None,
            last_mark: None,
            stuck_until_ns: 0,
            is_catalogued: false,
            sealed_by: None,
            found: Recovering::default(),
            created_in: created_at.map(|at| at.segment),
            segments: VecDeque::new(),
            is_past_checkpoint: true,
        }
    }

    /// The partition as a flip has written it down; `state` is what its owner knew.
    pub(crate) fn from_checkpoint(checkpoint: CataloguedPartition, state: Option<Vec<u8>>) -> Self {
        let base = Position { slot: checkpoint.applied, checksum: checkpoint.checksum };
        let mut table = Table::default();
        table.put_over_tree();
        Partition {
            promised: checkpoint.promised,
            end: base,
            last_timestamp: checkpoint.timestamp,
            applied: base,
            applied_frame: checkpoint.log.frame,
            tail_after: base,
            table,
            tree: checkpoint.root,
            found: Recovering { begun: state, ..Recovering::default() },
            is_past_checkpoint: false,
            is_catalogued: true,
            ..Partition::new(checkpoint.generation, checkpoint.meta.to_vec(), None)
        }
        .with(checkpoint)
    }

    fn with(mut self, checkpoint: CataloguedPartition) -> Self {
        self.checkpoint = Some(checkpoint);
        self
    }

    /// The description that it was created with.
    pub(crate) fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// The greatest ballot in its log.
    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    /// Takes note of a promise that is written down.
    pub(crate) fn note_promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    /// Bytes of its table once everything pending is applied.
    pub(crate) fn bytes(&self) -> u64 {
        self.table.bytes().saturating_add_signed(self.pending_growth)
    }

    /// What it holds: an estimate while the table may hide or repeat what the tree has.
    pub(crate) fn counts(&self) -> Counts {
        let tree = |root: RootReference| Counts { items: root.item_count, bytes: root.item_bytes };
        self.table.counts_over(self.tree.map_or(Counts::default(), tree))
    }

    /// The oldest segment with a record that is needed.
    pub(crate) fn oldest_records_in(&self) -> Option<u32> {
        self.segments.front().map(|&(segment, _)| segment)
    }

    /// The oldest segment that the log keeps for it.
    pub(crate) fn oldest_segment(&self) -> Option<u32> {
        self.oldest_records_in().into_iter().chain(self.created_in).min()
    }

    /// The oldest segment that is still needed once all applied entries are in the tree; `current` is the
    /// one that the next record will be in, at the earliest.
    pub(crate) fn needed_behind_applied(&self, current: u32) -> u32 {
        self.pending().next().map_or(current, |(_, _, at)| at.segment.min(current))
    }

    /// What a flip writes down of it with a tree of what is applied, but for that tree and what its owner knows;
    /// `current` as above.
    pub(crate) fn row(&self, id: PartitionId, current: u32) -> CataloguedPartition {
        CataloguedPartition {
            id,
            generation: self.generation,
            meta: self.meta().into(),
            state: None,
            applied: self.applied.slot,
            promised: self.promised(),
            timestamp: self.last_timestamp,
            checksum: self.applied.checksum,
            log: LogPosition { segment: self.needed_behind_applied(current), frame: self.useful_frame() },
            root: None,
        }
    }

    /// The entries that are not applied, with their checksums and places.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&Entry, u128, RecordPlace)> {
        let first = self.applied.slot.0 - self.tail_after.slot.0;
        let first = usize::try_from(first).expect("the tail is in memory");
        self.tail.range(first..).map(|held| (&held.entry, held.checksum, held.at))
    }

    /// An entry that is not applied has another record, further on in the log.
    pub(crate) fn moved(&mut self, slot: Slot, at: RecordPlace) {
        let index = usize::try_from(slot.0 - self.tail_after.slot.0 - 1).expect("the tail is in memory");
        self.tail[index].at = at;
        self.moved_frame = at.frame;
    }

    /// Forgets the segments before `segment`.
    pub(crate) fn trim(&mut self, segment: u32) {
        while self.segments.front().is_some_and(|&(oldest, _)| oldest < segment) {
            self.segments.pop_front();
        }
    }

    /// Takes note of a record of it; `slot` is that of an entry, or 0.
    pub(crate) fn note_segment(&mut self, segment: u32, slot: Slot) {
        match self.segments.back_mut() {
            Some((last, upto)) if *last == segment => *upto = slot.max(*upto),
            _ => self.segments.push_back((segment, slot)),
        }
    }

    /// At most how many bytes `operations` add; none if they only remove or shrink.
    pub(crate) fn growth(&self, operations: &[Operation]) -> u64 {
        let each = |operation: &Operation| match operation {
            Operation::Put { key, image } => {
                let pending = self.pending_keys.get(key).map(|pending| pending.cost);
                let before = pending.unwrap_or_else(|| self.table.replaceable_bytes(key));
                held_bytes(key, Some(image)).saturating_sub(before)
            }
            Operation::Delete { .. } => 0,
        };
        operations.iter().map(each).sum()
    }

    /// The newest image of a key, applied or not, as far as it is in memory; what the tree has of the key,
    /// if neither entries nor table speak of it.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<Newest> {
        match self.pending_keys.get(key) {
            Some(pending) => Some(Newest { image: pending.image.clone(), pending: Some(pending.slot) }),
            None => self.table.get(key).map(|held| Newest { image: held.clone(), pending: None }),
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

    /// Gives back memory that is not needed while nothing happens.
    pub(crate) fn rest(&mut self) {
        self.tail.shrink_to_fit();
        self.pending_keys.shrink_to_fit();
        self.segments.shrink_to_fit();
    }

    /// Takes note of an entry in the log, in the place of whatever stood there and behind.
    pub(crate) fn append(&mut self, entry: Entry, checksum: u128, at: RecordPlace) {
        if entry.slot <= self.end.slot {
            self.truncate(Slot(entry.slot.0 - 1));
        }
        self.end = Position { slot: entry.slot, checksum };
        // Who accepts an entry promises its ballot: a checkpoint must know it when the record is gone.
        self.note_promise(entry.ballot);
        self.last_timestamp = self.last_timestamp.max(entry.timestamp);
        self.logged_bytes += entry_bytes(&entry);
        self.charge(&entry);
        self.tail.push_back(Held { entry, checksum, at });
    }

    /// Counts an entry as pending.
    fn charge(&mut self, entry: &Entry) {
        for operation in &entry.operations {
            let (key, image) = parts(operation);
            let keeps = image.is_some() || self.table.keeps_marks();
            let cost = if keeps { held_bytes(key, image.map(|image| &image[..])) } else { 0 };
            let newest =
                PendingKey { image: image.cloned(), slot: entry.slot, entries: 1, cost, replaces: 0 };
            let (newest, before) = match self.pending_keys.get(key) {
                Some(known) => {
                    let entries = known.entries + 1;
                    (PendingKey { entries, replaces: known.replaces, ..newest }, known.growth())
                }
                None => (PendingKey { replaces: self.table.replaceable_bytes(key), ..newest }, 0),
            };
            self.pending_growth += newest.growth() - before;
            self.pending_keys.insert(Rc::clone(key), newest);
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
        (self.pending_bytes, self.pending_growth) = (0, 0);
        let (tail, applied) = (std::mem::take(&mut self.tail), self.applied.slot);
        tail.iter().filter(|held| held.entry.slot > applied).for_each(|held| self.charge(&held.entry));
        self.tail = tail;
    }

    /// Moves the pending entries up to `slot` into the table, and shows each to `visit` before, up to one at which
    /// it wants to stop.
    pub(crate) fn apply(&mut self, slot: Slot, mut visit: impl FnMut(&Entry) -> ControlFlow<()>) {
        assert!(slot <= self.end.slot, "only what was appended is applied");
        let mut flow = ControlFlow::Continue(());
        while self.applied.slot < slot && flow.is_continue() {
            let next = self.applied.slot.next();
            if self.kept_bytes_max == 0 && self.tail_after == self.applied {
                let held = self.tail.pop_front().expect("what is pending is in memory");
                flow = visit(&held.entry);
                self.pending_bytes -= entry_bytes(&held.entry);
                self.applied = Position { slot: next, checksum: held.checksum };
                (self.tail_after, self.applied_frame) = (self.applied, held.at.frame);
                held.entry.operations.into_iter().for_each(|operation| self.settle(operation));
            } else {
                let at = usize::try_from(next.0 - self.tail_after.slot.0 - 1).expect("it is in memory");
                let held = &self.tail[at];
                flow = visit(&held.entry);
                let (bytes, operations) = (entry_bytes(&held.entry), held.entry.operations.clone());
                self.applied = Position { slot: next, checksum: held.checksum };
                self.applied_frame = held.at.frame;
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
        let key = Rc::clone(parts(&operation).0);
        self.change(operation);
        let MapEntry::Occupied(mut known) = self.pending_keys.entry(key) else { return };
        self.pending_growth -= known.get().growth();
        if known.get().entries == 1 {
            known.remove();
            return;
        }
        known.get_mut().entries -= 1;
        known.get_mut().replaces = self.table.replaceable_bytes(known.key());
        self.pending_growth += known.get().growth();
    }

    /// Applies one change to the table.
    fn change(&mut self, operation: Operation) {
        match operation {
            Operation::Put { key, image } => self.table.change(key, Some(image)),
            Operation::Delete { key } => self.table.change(key, None),
        }
    }

    /// Begins anew behind a chosen entry: the content is that tree, and of the log only what continues that
    /// entry stays. No record before `frame` is of any other use.
    pub(crate) fn begin(
        &mut self,
        base: Position,
        timestamp: Timestamp,
        frame: u64,
        tree: Option<RootReference>,
    ) {
        let continues = self.position(base.slot) == Some(base);
        // What continues an entry stands behind that entry's own record.
        self.applied_frame = match self.held(base.slot).filter(|_| continues) {
            Some(held) => held.at.frame,
            None if continues => self.applied_frame,
            None => frame,
        };
        if continues {
            let drop = usize::try_from(base.slot.0 - self.tail_after.slot.0).expect("it is in memory");
            self.tail.drain(..drop);
        } else {
            self.tail.clear();
            self.end = base;
        }
        (self.applied, self.tail_after, self.kept_bytes) = (base, base, 0);
        self.last_timestamp = self.last_timestamp.max(timestamp);
        (self.table, self.tree) = (Table::default(), tree);
        if tree.is_some() {
            self.table.put_over_tree();
        }
        self.content += 1;
        (self.marked, self.last_mark) = (None, None);
        self.charge_again();
    }

    /// The frame from which on the log is read for what the tree does not hold.
    pub(crate) fn useful_frame(&self) -> u64 {
        self.pending().next().map_or(self.applied_frame, |(_, _, at)| at.frame)
    }

    /// Whether a record of the log is of any use: one in the checkpoint, one that was overwritten by what is in
    /// it, and one that was written once more further on is not.
    pub(crate) fn passes_checkpoint(&mut self, at: RecordPlace, record: &RecordView<'_>) -> bool {
        let RecordHeader { kind, slot, .. } = record.header;
        let Some(checkpoint) = &self.checkpoint else { return true };
        if kind == RecordKind::Begin && slot <= checkpoint.applied {
            return false;
        }
        if self.is_past_checkpoint || at.frame > checkpoint.log.frame {
            self.is_past_checkpoint = true;
            return true;
        }
        if at.frame < checkpoint.log.frame {
            return false;
        }
        let is_applied = (Position { slot, checksum: record.checksum }) == self.applied;
        let is_next = kind == RecordKind::Entry
            && slot == self.applied.slot.next()
            && stored_checksum(&record.header, self.applied.checksum, record.payload) == record.checksum;
        self.is_past_checkpoint = is_applied || is_next;
        is_next
    }

    /// Whether a record that begins or ends a life of the partition is of one before this: each end begins a frame,
    /// so that none of a life stands in the frame of its checkpoint.
    pub(crate) fn is_younger_than(&self, at: RecordPlace) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| at.frame <= checkpoint.log.frame)
    }

    /// The log has come to the creation, of which the checkpoint knows.
    pub(crate) fn pass_creation(&mut self, at: RecordPlace) {
        let is_empty = self.applied.slot == Slot(0);
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| checkpoint.log.frame);
        self.is_past_checkpoint |= is_empty && checkpoint == Some(at.frame);
    }

    /// Everything up to `slot` is accepted under `ballot`. Ballots never rise from one slot to the next: the
    /// walk back ends early.
    pub(crate) fn accept(&mut self, ballot: Ballot, slot: Slot) {
        self.promised = self.promised.max(ballot);
        if slot <= self.applied.slot {
            return;
        }
        let upto = self.tail.iter_mut().rev().skip_while(|held| held.entry.slot > slot);
        for held in upto.take_while(|held| held.entry.ballot < ballot) {
            held.entry.ballot = ballot;
        }
    }

    /// The log says that it is chosen up to `slot`. What an owner has to remember of the entries is kept for
    /// it, the notes for `notes_ns` of the log's time.
    pub(crate) fn replay_chosen(&mut self, slot: Slot, notes_ns: u64) {
        let mut found = std::mem::take(&mut self.found);
        self.apply(slot.min(self.end.slot).max(self.applied.slot), |entry| {
            let now_ns = found.time.advance(entry.timestamp);
            if entry.lasting {
                found.state = Some(entry.note.clone());
            } else if !entry.note.is_empty() {
                found.noted.push_back((now_ns, entry.clone()));
            }
            let old = |noted: &(u64, Entry)| noted.0.saturating_add(notes_ns) < now_ns;
            while found.noted.front().is_some_and(old) {
                found.noted.pop_front();
            }
            ControlFlow::Continue(())
        });
        self.found = found;
    }

    /// The log begins anew, with what its owner wrote down for that.
    pub(crate) fn replay_begin(&mut self, header: &RecordHeader, checksum: u128, state: &[u8], frame: u64) {
        self.begin(Position { slot: header.slot, checksum }, header.timestamp, frame, None);
        self.found = Recovering { begun: Some(state.to_vec()), ..Recovering::default() };
    }

    /// What the log says of it.
    pub(crate) fn recovered(&mut self, id: PartitionId) -> RecoveredPartition {
        let found = std::mem::take(&mut self.found);
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
            noted: found.noted.into_iter().map(|(_, entry)| entry).collect(),
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

/// What the table takes at most for an operation.
pub(crate) fn cost(operation: &Operation) -> u64 {
    let (key, image) = parts(operation);
    held_bytes(key, image.map(|image| &image[..]))
}

fn entry_bytes(entry: &Entry) -> u64 {
    payload_bytes(&entry.operations, &entry.note) as u64
}
