//! What a replica's log says when it is read back.
//!
//! The shell folds the group's records, in the order they were written, into a [`Durable`]; a crash may
//! have cut them anywhere, between the entries of one record too. Nothing else is consulted: the promise,
//! the votes and the members come out of the one log.

use crate::configuration::Configuration;
use crate::entry::{Anchor, Entry, EntryKind};
use crate::log::Log;
use crate::output::Record;
use evenkeel_model::{Ballot, Slot};

/// The state that a log describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Durable {
    pub(crate) promised: Ballot,
    base: Anchor,
    configuration: Configuration,
    chosen: Slot,
    entries: Vec<Entry>,
}

impl Durable {
    /// The empty log of a group whose first members these are.
    pub fn new(founders: Configuration) -> Durable {
        Durable::begin(Anchor::default(), founders)
    }

    /// A log that begins behind a chosen entry: what a checkpoint says, before the records behind it.
    pub fn begin(base: Anchor, configuration: Configuration) -> Durable {
        Durable { promised: Ballot::default(), base, configuration, chosen: base.slot, entries: Vec::new() }
    }

    /// Where the log begins, and the members as of there.
    pub fn base(&self) -> (Anchor, Configuration) {
        (self.base, self.configuration)
    }

    /// The greatest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// Up to where the log itself says that it is chosen.
    pub fn chosen(&self) -> Slot {
        self.chosen
    }

    /// The entries behind the base.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of a slot as an anchor, from the base on.
    pub fn anchor(&self, slot: Slot) -> Option<Anchor> {
        if slot == self.base.slot {
            return Some(self.base);
        }
        let at = usize::try_from(slot.0.checked_sub(self.base.slot.0 + 1)?).ok()?;
        self.entries.get(at).map(|entry| Anchor { slot, checksum: entry.checksum })
    }

    /// Adds the next record. `entries` may be fewer than were written: the log was cut there.
    pub fn apply(&mut self, record: &Record, entries: &[Entry]) {
        match *record {
            Record::Promise { ballot } => self.promised = self.promised.max(ballot),
            Record::Accept { ballot, after, chosen } => {
                self.promised = self.promised.max(ballot);
                self.accept(ballot, after, chosen, entries);
            }
            Record::Begin { base, configuration } if base.slot >= self.base.slot => {
                let kept = if self.anchor(base.slot) == Some(base) { self.behind(base.slot) } else { &[] };
                let (promised, entries) = (self.promised, kept.to_vec());
                let chosen = self.chosen.max(base.slot);
                *self = Durable { promised, base, configuration, chosen, entries };
            }
            Record::Begin { .. } => {}
        }
    }

    /// A record that was written before a checkpoint may tell of slots that the checkpoint covers, and
    /// contradict it: then nothing in it was chosen, and it is left out.
    fn accept(&mut self, ballot: Ballot, after: Anchor, chosen: Slot, entries: &[Entry]) {
        let covered = usize::try_from(self.base.slot.0.saturating_sub(after.slot.0)).unwrap_or(usize::MAX);
        let joint = match covered.checked_sub(1) {
            None => after,
            Some(last) if entries.get(last).is_some_and(|e| e.checksum == self.base.checksum) => self.base,
            Some(_) => return,
        };
        if self.anchor(joint.slot) != Some(joint) {
            return;
        }
        let entries = &entries[covered..];
        let keep = usize::try_from(joint.slot.0 - self.base.slot.0).unwrap_or(usize::MAX);
        self.entries[..keep].iter_mut().for_each(|entry| entry.ballot = entry.ballot.max(ballot));
        if !entries.is_empty() {
            self.entries.truncate(keep);
            self.entries.extend_from_slice(entries);
        }
        let last = Slot(joint.slot.0 + entries.len() as u64);
        self.chosen = self.chosen.max(chosen.min(last));
    }

    /// Drops the log up to a chosen slot: it is in a checkpoint. Returns what the log begins with now.
    ///
    /// # Panics
    /// If the slot is not known to be chosen.
    pub fn trim(&mut self, slot: Slot) -> (Anchor, Configuration) {
        assert!(slot <= self.chosen, "only what is chosen goes into a checkpoint");
        let base = self.anchor(slot).expect("what is chosen behind the base is in the log");
        let rest = self.behind(slot).to_vec();
        let trimmed = &self.entries[..self.entries.len() - rest.len()];
        let mut swaps = trimmed.iter().filter_map(|entry| match entry.kind {
            EntryKind::Swap(configuration) => Some(configuration),
            EntryKind::Command | EntryKind::Noop => None,
        });
        self.configuration = swaps.next_back().unwrap_or(self.configuration);
        (self.base, self.entries) = (base, rest);
        (self.base, self.configuration)
    }

    /// The entries behind a slot that is not before the base.
    pub fn behind(&self, slot: Slot) -> &[Entry] {
        let skip = usize::try_from(slot.0 - self.base.slot.0).unwrap_or(usize::MAX);
        &self.entries[skip.min(self.entries.len())..]
    }

    pub(crate) fn log(&self) -> Log {
        let mut log = Log::new(self.base, self.configuration);
        self.entries.iter().for_each(|entry| log.append(*entry));
        log.choose(self.chosen.min(log.end().slot));
        log
    }

    /// What a mistake does: the promise was stored apart and its last change was lost.
    #[cfg(feature = "traps")]
    pub fn lose_promise(&mut self, older: Ballot) {
        self.promised = older;
    }
}
