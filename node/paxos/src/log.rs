//! The part of a group's log that consensus keeps in memory: what is not known to be chosen.
//!
//! Everything up to the *chosen* anchor is for ever; of it only the last checksum and the members are
//! kept. An idle group, all chosen, keeps no entry at all. Older entries are the shell's to read.
//!
//! Nothing is ever proposed past a swap before it is chosen, so an entry behind a swap proves that the
//! swap was chosen: a swap that is kept here is the last entry.

use crate::configuration::Configuration;
use crate::entry::{Anchor, Entry, EntryKind};
use evenkeel_model::{Ballot, Slot};
use std::collections::VecDeque;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    chosen: Anchor,
    configuration: Configuration,
    entries: VecDeque<Entry>,
}

impl Log {
    pub fn new(chosen: Anchor, configuration: Configuration) -> Log {
        Log { chosen, configuration, entries: VecDeque::new() }
    }

    /// The last entry known to be chosen.
    pub fn chosen(&self) -> Anchor {
        self.chosen
    }

    /// The members as of the last chosen entry.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The members that a swap at the end of the log would make.
    pub fn pending(&self) -> Option<&Configuration> {
        match &self.entries.back()?.kind {
            EntryKind::Swap(configuration) => Some(configuration),
            EntryKind::Command | EntryKind::Noop => None,
        }
    }

    /// The last entry.
    pub fn end(&self) -> Anchor {
        match self.entries.back() {
            Some(entry) => Anchor { slot: self.end_slot(), checksum: entry.checksum },
            None => self.chosen,
        }
    }

    fn end_slot(&self) -> Slot {
        Slot(self.chosen.slot.0 + self.entries.len() as u64)
    }

    /// The entry of a slot that is not known to be chosen.
    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        let at = slot.0.checked_sub(self.chosen.slot.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The anchor at a slot, from the last chosen one on.
    pub fn anchor(&self, slot: Slot) -> Option<Anchor> {
        if slot == self.chosen.slot {
            return Some(self.chosen);
        }
        self.get(slot).map(|entry| Anchor { slot, checksum: entry.checksum })
    }

    /// Whether the log has exactly this entry, as far as it can tell from memory.
    pub fn holds(&self, anchor: Anchor) -> bool {
        self.anchor(anchor.slot) == Some(anchor)
    }

    /// At most `most` entries behind a slot that is not before the chosen one.
    pub fn behind(&self, slot: Slot, most: usize) -> impl Iterator<Item = Entry> + '_ {
        let skip = slot.0.checked_sub(self.chosen.slot.0).expect("older entries are not in memory");
        self.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(most).copied()
    }

    /// How many entries are not known to be chosen.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Appends an entry. If it stands behind a swap, that swap is chosen.
    pub fn append(&mut self, entry: Entry) {
        if self.pending().is_some() {
            self.choose(self.end_slot());
        }
        self.entries.push_back(entry);
    }

    /// Drops everything behind `slot`.
    pub fn truncate(&mut self, slot: Slot) {
        let keep = slot.0.checked_sub(self.chosen.slot.0).expect("what is chosen is never dropped");
        self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Everything up to `slot` is accepted under `ballot` now. Ballots never rise from one slot to the
    /// next, because whoever accepts an entry accepts all before it: the walk back ends early.
    pub fn reaccept(&mut self, slot: Slot, ballot: Ballot) {
        let count = usize::try_from(slot.0.saturating_sub(self.chosen.slot.0)).unwrap_or(usize::MAX);
        let skip = self.entries.len().saturating_sub(count);
        for entry in self.entries.iter_mut().rev().skip(skip).take_while(|entry| entry.ballot < ballot) {
            entry.ballot = ballot;
        }
    }

    /// Everything up to `slot` is chosen. Returns whether that is news.
    ///
    /// # Panics
    /// If the log does not reach that far.
    pub fn choose(&mut self, slot: Slot) -> bool {
        let before = self.chosen.slot;
        while self.chosen.slot < slot {
            let entry = self.entries.pop_front().expect("only what is in the log is chosen");
            self.chosen = Anchor { slot: self.chosen.slot.next(), checksum: entry.checksum };
            if let EntryKind::Swap(configuration) = entry.kind {
                self.configuration = configuration;
            }
        }
        self.chosen.slot > before
    }

    /// Begins anew behind a chosen entry; what chains to it stays.
    pub fn begin(&mut self, base: Anchor, configuration: Configuration) {
        if self.holds(base) {
            self.choose(base.slot);
        } else {
            self.entries.clear();
        }
        self.chosen = base;
        self.configuration = configuration;
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Gives back memory that an idle log does not need.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// What a mistake does: keeps entries that do not chain to what was installed.
    #[cfg(feature = "traps")]
    pub fn begin_keeping_the_tail(&mut self, base: Anchor, configuration: Configuration) {
        let drop = base.slot.0.saturating_sub(self.chosen.slot.0);
        self.entries.drain(..self.entries.len().min(usize::try_from(drop).unwrap_or(usize::MAX)));
        self.chosen = base;
        self.configuration = configuration;
    }

    /// What a mistake does: gives an entry another identity.
    #[cfg(feature = "traps")]
    pub fn reseal(&mut self, ballot: Ballot) {
        for entry in &mut self.entries {
            entry.checksum ^= u128::from(ballot.round) << 64 | u128::from(ballot.replica);
        }
    }
}
