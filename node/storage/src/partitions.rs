//! All partitions of a shard: their sums, and how the log's records make them again at start.
//!
//! Only what the log says is chosen is applied while it is read; the rest waits for who knows. An entry
//! that takes a slot anew drops what stood there and behind. It knows nothing of frames, files or tasks.

use crate::{
    engine::{Entry, Operation, RecoveredPartition},
    error::{Refused, Shared},
    limits::KEPT_PART,
    pace::hurried,
    partition::{Partition, cost},
    space::{Catalogue, CataloguedPartition},
    wal::{
        record::{RecordHeader, RecordKind, RecordView, read_payload, stored_checksum},
        recovery::{RecordPlace, Replay, ReplayFault},
    },
};
use evenkeel_model::{Generation, PartitionId, Slot};
use std::{cell::Cell, collections::HashMap, rc::Rc};

/// All partitions of a shard.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// Boxed, so that the room that the map has to spare is small.
    map: HashMap<PartitionId, Box<Partition>>,
    /// How many there have been.
    lives: u64,
    bytes: u64,
    pending_bytes: u64,
    bytes_max: u64,
    /// The merge that makes room, if one is under way.
    merging: Option<Rc<Progress>>,
    notes_ns: u64,
    /// Partitions that the log does not have all of: their end must follow.
    orphans: HashMap<PartitionId, Orphan>,
    /// Dropped, and still in the catalogue.
    pub(crate) gone: Vec<Gone>,
    pub(crate) entries_replayed: u64,
}

/// How far a merge has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of all tables when it began.
    from_bytes: Cell<u64>,
    /// What it has merged, and what it is to merge, in items of its table.
    merged: Cell<u64>,
    items: u64,
}

impl Progress {
    /// A merge of so many items.
    pub(crate) fn of(items: u64) -> Rc<Progress> {
        Rc::new(Progress { items, ..Progress::default() })
    }

    /// One more item is merged.
    pub(crate) fn pass(&self) {
        self.merged.set(self.merged.get() + 1);
    }

    /// How far tables may fill at the moment, of a budget of which they may fill `most` in the end: a quarter of what
    /// was left at the beginning at once, and the rest as the merge goes on.
    fn room(&self, budget: u64, most: u64) -> u64 {
        let from = self.from_bytes.get().min(most);
        let (items, merged) = (self.items.max(1), self.merged.get().min(self.items));
        let now = from + (most - from) * (items + 3 * merged) / (4 * items);
        now.max(hurried(budget)).min(most)
    }
}

/// A partition that was dropped and has pages. Until a flip without it is durable the log must be able to say
/// that it is gone.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) checkpoint: CataloguedPartition,
    /// Where its end is written.
    pub(crate) dropped_at: RecordPlace,
    /// The segments with the oldest of its records, its end's among them.
    pub(crate) segments: Vec<u32>,
    /// A batch that waits for a flip has given its pages up.
    pub(crate) is_released: bool,
}

/// What of a partition is missing. Its creation may be in a segment that has gone; and content may have been put in its
/// place that the log knows nothing of: without that, what was written behind does not follow from what is before.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) id: PartitionId,
    /// The first record that does not follow.
    pub(crate) at: RecordPlace,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Partitions {
    pub(crate) fn new(bytes_max: u64, notes_ns: u64) -> Self {
        Partitions {
            map: HashMap::new(),
            lives: 0,
            bytes: 0,
            pending_bytes: 0,
            bytes_max,
            merging: None,
            notes_ns,
            orphans: HashMap::new(),
            gone: Vec::new(),
            entries_replayed: 0,
        }
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.map.get(&id).map(|partition| &**partition)
    }

    pub(crate) fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.map.get_mut(&id).map(|partition| &mut **partition)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.map.values().map(|partition| &**partition)
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

    /// A merge begins that will make room.
    pub(crate) fn begin_progress(&mut self, progress: &Rc<Progress>) {
        progress.from_bytes.set(self.bytes);
        self.merging = Some(Rc::clone(progress));
    }

    /// It is over.
    pub(crate) fn end_progress(&mut self, progress: &Rc<Progress>) {
        self.merging.take_if(|merging| Rc::ptr_eq(merging, progress));
    }

    /// Whether the budget has room for what `operations` add. What only removes always fits. When little is left,
    /// it is left to those that take no more than their share: they find room whatever the others do. While a merge
    /// is under way the others get what else is left as it goes on, and not all at its beginning: they would wait for
    /// its end then.
    pub(crate) fn check_room(&self, id: PartitionId, operations: &[Operation]) -> Result<(), Refused> {
        let most: u64 = operations.iter().map(cost).sum();
        let kept = self.kept(self.bytes_max);
        let for_all = self.bytes_max - kept;
        let for_all = self.merging.as_ref().map_or(for_all, |merging| merging.room(self.bytes_max, for_all));
        // Far from the budget it does not matter what is replaced.
        if self.bytes.saturating_add(most) <= for_all {
            return Ok(());
        }
        let Some(partition) = self.map.get(&id) else { return Ok(()) };
        let growth = partition.growth(operations);
        let bytes = self.bytes.saturating_add(growth);
        if growth == 0 || bytes <= for_all {
            return Ok(());
        }
        let (used, share) = (partition.bytes() + growth, self.share(self.bytes_max));
        if kept > 0 && used > share {
            return Err(Refused::AboveShare { of: Shared::Tables, used, share });
        }
        if bytes > if kept > 0 { self.bytes_max } else { for_all } {
            return Err(Refused::TableFull { used: self.bytes, max: self.bytes_max });
        }
        Ok(())
    }

    /// The same of the log, which is so full that the last of it is kept.
    pub(crate) fn check_log_share(&self, id: PartitionId, bytes: u64, log_max: u64) -> Result<(), Refused> {
        let (kept, share) = (self.kept(log_max), self.share(log_max));
        let used = self.map.get(&id).map_or(0, |partition| partition.logged_bytes + bytes);
        if kept > 0 && used > share {
            return Err(Refused::AboveShare { of: Shared::Log, used, share });
        }
        Ok(())
    }

    /// What is kept of a budget for partitions that take no more than their share; nothing if there is only one.
    fn kept(&self, budget: u64) -> u64 {
        if self.map.len() > 1 { budget / KEPT_PART } else { 0 }
    }

    /// What each partition finds room for, whatever the others take.
    fn share(&self, budget: u64) -> u64 {
        budget / KEPT_PART / self.map.len().max(1) as u64
    }

    pub(crate) fn insert(&mut self, id: PartitionId, mut partition: Partition) {
        self.lives += 1;
        partition.life = self.lives;
        let before = self.map.insert(id, Box::new(partition));
        assert!(before.is_none(), "a partition is created once");
    }

    /// Takes a partition out whose end is written at `dropped_at`. Yields the segments that nothing of it needs
    /// any more once that is durable; if a flip has to come first, they are kept with it in `gone`.
    pub(crate) fn remove(&mut self, id: PartitionId, dropped_at: RecordPlace) -> Vec<u32> {
        let Some(partition) = self.map.remove(&id) else { return Vec::new() };
        self.bytes -= partition.bytes();
        self.pending_bytes -= partition.pending_bytes;
        let segments = [partition.created_in, partition.oldest_records_in()].into_iter().flatten();
        let mut segments: Vec<u32> = segments.collect();
        let Some(checkpoint) = partition.checkpoint else { return segments };
        segments.push(dropped_at.segment);
        self.gone.push(Gone { checkpoint, dropped_at, segments, is_released: false });
        Vec::new()
    }

    /// Puts what a split has made of a partition in its place. The pages of the old one are given up, or theirs.
    pub(crate) fn split(
        &mut self,
        id: PartitionId,
        written_at: RecordPlace,
        rows: impl IntoIterator<Item = CataloguedPartition>,
    ) {
        self.remove(id, written_at);
        self.gone.last_mut().expect("it is in the catalogue").is_released = true;
        rows.into_iter().for_each(|row| self.insert_sealed(row, id));
    }

    /// Takes in a partition that the next flip is to make, in the place of `by` or for itself.
    pub(crate) fn insert_sealed(&mut self, row: CataloguedPartition, by: PartitionId) {
        let (id, mut partition) = (row.id, Partition::from_checkpoint(row, None));
        (partition.is_catalogued, partition.sealed_by) = (false, Some(by));
        self.insert(id, partition);
    }

    /// Content takes the place of a partition's own, for the next flip to write down: what was begun for it before is
    /// of no use. Yields its life from now on.
    pub(crate) fn renew(&mut self, id: PartitionId, change: impl FnOnce(&mut Partition)) -> u64 {
        self.lives += 1;
        let life = self.lives;
        self.counted(id, |partition| {
            (partition.life, partition.is_merging) = (life, true);
            (partition.is_catalogued, partition.sealed_by) = (false, Some(id));
            change(partition);
        });
        life
    }

    /// Whether a flip is yet to write a partition of this life down.
    pub(crate) fn is_sealed(&self, id: PartitionId, life: u64) -> bool {
        self.get(id).is_some_and(|partition| partition.life == life && partition.sealed_by.is_some())
    }

    /// Whether a split of this partition is not durable yet.
    pub(crate) fn is_being_split(&self, id: PartitionId) -> bool {
        self.map.values().any(|partition| partition.sealed_by == Some(id))
    }

    /// A flip has written the partitions of these lives, which are in order, down.
    pub(crate) fn set_catalogued(&mut self, lives: &[u64]) {
        for partition in
            self.map.values_mut().filter(|partition| lives.binary_search(&partition.life).is_ok())
        {
            (partition.is_catalogued, partition.sealed_by) = (true, None);
        }
    }

    /// All partitions as the last merges have left them, with the last frame that speaks of what they hold; which
    /// lives these are; and the dropped ones that it is without. The pages of all dropped ones have been given up.
    pub(crate) fn catalogue(&mut self) -> (Catalogue, u64, Vec<u64>, Vec<Gone>) {
        assert!(self.next_unreleased().is_none(), "the pages of dropped partitions are given up first");
        let merged = || self.map.values().filter(|partition| partition.checkpoint.is_some());
        let mut lives: Vec<u64> = merged().map(|partition| partition.life).collect();
        lives.sort_unstable();
        let mut partitions: Vec<_> = merged().filter_map(|partition| partition.checkpoint.clone()).collect();
        partitions.sort_by_key(|checkpoint| checkpoint.id);
        let gone = std::mem::take(&mut self.gone);
        let applied = partitions.iter().map(|checkpoint| checkpoint.log.frame);
        let frame = applied.chain(gone.iter().map(|gone| gone.dropped_at.frame)).max();
        (Catalogue { log_frame: 0, partitions }, frame.unwrap_or(0), lives, gone)
    }

    /// A dropped partition whose pages are still to be given up.
    pub(crate) fn next_unreleased(&self) -> Option<CataloguedPartition> {
        self.gone.iter().find(|gone| !gone.is_released).map(|gone| gone.checkpoint.clone())
    }

    /// Its pages have been given up.
    pub(crate) fn set_released(&mut self, checkpoint: &CataloguedPartition) {
        let same = |gone: &&mut Gone| gone.checkpoint == *checkpoint;
        self.gone.iter_mut().find(same).expect("it waits for this").is_released = true;
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.map.iter().map(|(&id, partition)| (id, &**partition))
    }

    /// Changes a partition that is there, and the sums over all by as much.
    pub(crate) fn counted<T>(
        &mut self,
        id: PartitionId,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Option<T> {
        let partition = self.map.get_mut(&id)?;
        let (bytes, pending_bytes) = (partition.bytes(), partition.pending_bytes);
        let result = change(partition);
        self.bytes = self.bytes - bytes + partition.bytes();
        self.pending_bytes = self.pending_bytes - pending_bytes + partition.pending_bytes;
        Some(result)
    }

    /// What recovery found, by rising id, unless the log lacks something of a partition that has not ended.
    pub(crate) fn recovered(&mut self) -> Result<Vec<RecoveredPartition>, &Orphan> {
        if !self.orphans.is_empty() {
            return Err(self.orphans.values().min_by_key(|orphan| orphan.id).expect("there is one"));
        }
        let mut list: Vec<_> = self.map.iter_mut().map(|(&id, partition)| partition.recovered(id)).collect();
        list.sort_by_key(|partition| partition.id);
        Ok(list)
    }

    fn replay_created(&mut self, at: RecordPlace, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let RecordHeader { partition: id, generation, .. } = record.header;
        if self.is_of_the_past(id, generation) {
            self.map.get_mut(&id).into_iter().for_each(|partition| partition.pass_creation(at));
            return Ok(());
        }
        if self.map.contains_key(&id) || self.orphans.contains_key(&id) {
            let expected = format!("partition {id} dropped before it is created again");
            return Err(ReplayFault::Corrupt { expected, found: format!("generation {generation} created") });
        }
        self.insert(id, Partition::new(generation, record.payload.to_vec(), Some(at)));
        Ok(())
    }

    /// Whether the catalogue holds this life of a partition, or a later one: then it knows of its creation.
    fn is_of_the_past(&self, id: PartitionId, generation: Generation) -> bool {
        let checkpoint = self.map.get(&id).and_then(|partition| partition.checkpoint.as_ref());
        checkpoint.is_some_and(|checkpoint| generation <= checkpoint.generation)
    }

    fn replay_dropped(&mut self, at: RecordPlace, record: &RecordView<'_>) {
        let RecordHeader { partition: id, generation, .. } = record.header;
        self.orphans.remove(&id);
        match self.map.get_mut(&id) {
            // It has come back since, in the same generation.
            Some(present) if present.is_younger_than(at) => {}
            Some(present) if present.generation == generation => drop(self.remove(id, at)),
            _ => {}
        }
    }

    /// A partition was split, if the catalogue is without it.
    fn replay_split(&mut self, at: RecordPlace, record: &RecordView<'_>) {
        let RecordHeader { partition: id, generation, .. } = record.header;
        self.orphans.remove(&id);
        let is_past = |one: &Partition| one.generation == generation && one.checkpoint.is_none();
        if self.get(id).is_some_and(is_past) {
            self.remove(id, at);
        }
    }

    /// A record about a partition's log.
    fn replay_logged(&mut self, at: RecordPlace, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        let RecordHeader { partition: id, generation, .. } = record.header;
        let notes_ns = self.notes_ns;
        let Some(present) = self.map.get(&id).map(|partition| partition.generation) else {
            self.orphans.entry(id).or_insert_with(|| Orphan {
                id,
                at,
                expected: format!("the creation of partition {id}, or its end"),
                found: "only records about it".to_owned(),
            });
            return Ok(());
        };
        if generation < present && self.is_of_the_past(id, generation) {
            return Ok(());
        }
        if present != generation {
            return Err(ReplayFault::Corrupt {
                expected: format!("generation {present} of partition {id}"),
                found: format!("generation {generation}"),
            });
        }
        let replayed = self.counted(id, |partition| replay(partition, at, record, notes_ns));
        let is_catalogued = self.get(id).is_some_and(|partition| partition.checkpoint.is_some());
        match replayed.expect("it is there, by the lines above") {
            Err(ReplayFault::Corrupt { expected, found }) if !is_catalogued => {
                self.remove(id, at);
                self.orphans.insert(id, Orphan { id, at, expected, found });
                Ok(())
            }
            other => other,
        }
    }
}

impl Replay for Partitions {
    fn record(&mut self, at: RecordPlace, record: &RecordView<'_>) -> Result<(), ReplayFault> {
        match record.header.kind {
            RecordKind::Created => self.replay_created(at, record),
            RecordKind::Dropped => {
                self.replay_dropped(at, record);
                Ok(())
            }
            RecordKind::Split => {
                self.replay_split(at, record);
                Ok(())
            }
            RecordKind::Entry => {
                self.entries_replayed += 1;
                self.replay_logged(at, record)
            }
            RecordKind::Promise | RecordKind::Accepted | RecordKind::Begin => self.replay_logged(at, record),
        }
    }
}

fn replay(
    partition: &mut Partition,
    at: RecordPlace,
    record: &RecordView<'_>,
    notes_ns: u64,
) -> Result<(), ReplayFault> {
    let header = &record.header;
    if !partition.passes_checkpoint(at, record) {
        partition.note_promise(header.ballot);
        return Ok(());
    }
    let of_a_slot = matches!(header.kind, RecordKind::Entry | RecordKind::Begin);
    partition.note_segment(at.segment, if of_a_slot { header.slot } else { Slot(0) });
    match header.kind {
        RecordKind::Entry => {
            replay_entry(partition, at, record)?;
            partition.replay_chosen(header.chosen, notes_ns);
        }
        RecordKind::Accepted => {
            let position = partition.position(header.slot);
            let same = position.is_none_or(|position| position.checksum == record.checksum);
            if header.slot > partition.end.slot || !same {
                return Err(out_of_place(partition, header));
            }
            partition.accept(header.ballot, header.slot);
            partition.replay_chosen(header.chosen, notes_ns);
        }
        RecordKind::Promise => partition.note_promise(header.ballot),
        RecordKind::Begin => {
            if header.slot < partition.applied.slot {
                return Err(out_of_place(partition, header));
            }
            partition.replay_begin(header, record.checksum, record.payload, at.frame);
        }
        RecordKind::Created | RecordKind::Dropped | RecordKind::Split => {}
    }
    Ok(())
}

fn replay_entry(
    partition: &mut Partition,
    at: RecordPlace,
    record: &RecordView<'_>,
) -> Result<(), ReplayFault> {
    let header = &record.header;
    let RecordHeader { slot, ballot, timestamp, lasting, .. } = *header;
    if header.again && slot <= partition.applied.slot {
        // The log has said meanwhile that it is chosen.
        return Ok(());
    }
    let known = partition.position(slot).filter(|_| header.again);
    if known.is_some_and(|known| known.checksum == record.checksum) {
        partition.accept(ballot, slot);
        partition.moved(slot, at);
        return Ok(());
    }
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
    partition.accept(ballot, before.slot);
    partition.append(
        Entry { slot, ballot, timestamp, operations, note, lasting, chosen: Slot(0) },
        record.checksum,
        at,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_as_a_merge_goes_on_and_never_more_than_there_is() {
        let progress = Progress::of(100);
        progress.from_bytes.set(800);
        let mut rooms = Vec::new();
        for _ in 0..=100 {
            rooms.push(progress.room(1000, 900));
            progress.pass();
        }
        assert_eq!((rooms[0], rooms[50], rooms[100]), (825, 862, 900));
        assert!(rooms.is_sorted());
        assert_eq!(progress.room(1000, 900), 900, "what is passed again makes no more room");
        assert_eq!(progress.room(1000, 700), 700, "less is left than there was");
        let empty = Progress::of(0);
        assert_eq!(empty.room(1000, 900), 750, "merges do not hurry below, and nobody is refused");
    }

    #[test]
    fn a_merge_that_is_over_holds_nobody_back_and_another_does() {
        let mut partitions = Partitions::new(1000, 0);
        let (one, other) = (Progress::of(10), Progress::of(10));
        partitions.begin_progress(&one);
        partitions.begin_progress(&other);
        partitions.end_progress(&one);
        assert!(partitions.merging.is_some());
        partitions.end_progress(&other);
        assert!(partitions.merging.is_none());
    }
}
