//! Marks: entries of a partition's log that say where a merge must end.
//!
//! A mark changes nothing. Every member that holds content freezes what it has when it applies the mark, and ends its
//! next merge there ([`Engine::mark`]): members compare what their trees then hold at the same slot. Who leads makes
//! one an interval after the last one, if anything was written since; the first ones of a core's partitions are
//! spread over an interval, and so their merges are.
//!
//! The note of a mark is the four bytes `mark`. The engine knows when a merge has ended at one; nothing here does.
//!
//! [`Engine::mark`]: evenkeel_storage::Engine::mark

use crate::group::Group;
use crate::mistakes;
use crate::partition::Partition;
use evenkeel_model::{PartitionId, Slot};
use evenkeel_paxos::{MemberKind, Time};
use evenkeel_storage::{Disk, Entry, Runtime};

const NOTE: [u8; 4] = *b"mark";

/// How often in an interval a core looks which of its partitions are to be marked.
pub(crate) const LOOKS_PER_INTERVAL: u64 = 64;

/// When a partition's log is to be marked next.
pub(crate) struct Marks {
    due: Time,
    /// Something was written since the last mark.
    is_changed: bool,
}

impl Marks {
    /// Marks of a partition that is taken up now, of which its log may hold something that is not marked.
    pub fn begin(id: PartitionId, now: Time, interval_ns: u64, is_changed: bool) -> Marks {
        let spread = id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) % interval_ns.max(1);
        Marks { due: now.after(spread), is_changed }
    }

    /// An entry is applied.
    pub fn pass(&mut self, entry: &Entry) {
        self.is_changed |= !entry.operations.is_empty();
    }

    /// A mark is applied.
    fn reached(&mut self, next: Time) {
        *self = Marks { due: next, is_changed: false };
    }
}

/// Whether an entry is a mark.
pub(crate) fn is_mark(entry: &Entry) -> bool {
    !entry.lasting && entry.note == NOTE
}

impl<D: Disk, R: Runtime> Partition<D, R> {
    /// Marks the log, if this member leads and that is due.
    pub(crate) fn mark_if_due(&self, now: Time) {
        let mut group = self.group.borrow_mut();
        let due = now >= group.marks.due && group.marks.is_changed;
        if !due || !group.leads() || group.is_paused() || self.is_closed() || self.halted.get() {
            return;
        }
        let mark = |slot, timestamp| Entry { slot, timestamp, note: NOTE.to_vec(), ..Entry::default() };
        // One that is refused is due at the next look.
        if self.propose_next(&mut group, mark).is_ok() {
            group.marks.due = now.after(self.hub.config.mark_interval_ns);
        }
    }

    /// All up to a mark is applied, and what is chosen reaches to `chosen`.
    pub(crate) fn reach_mark(&self, group: &mut Group, mark: Slot, chosen: Slot) {
        group.marks.reached(self.hub.now().after(self.hub.config.mark_interval_ns));
        if group.replica.member().kind == MemberKind::Log {
            return;
        }
        // Members are known as of what is chosen: a swap behind the mark is no part of the state there.
        let mut behind = (mark.0 + 1..=chosen.0).map(Slot);
        if behind.any(|slot| self.engine.entry(self.row().id, slot).is_some_and(|(entry, _)| entry.lasting)) {
            self.engine.pass_mark();
            return;
        }
        let state = group.state(!self.errs(mistakes::TOKENS_LOST_IN_CHECKPOINT));
        // The engine counts those that it has to pass over.
        drop(self.engine.mark(self.row().id, &state));
    }
}
