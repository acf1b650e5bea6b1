//! What consensus knows of a log entry: its ballot, its identity, and whether it changes the members.
//!
//! The identity is a checksum over the entry and the checksum before it, never over the ballot: equal
//! checksums at a slot mean equal logs up to that slot, whoever accepted them under which ballot.

use crate::configuration::Configuration;
use evenkeel_model::{Ballot, Slot};

/// A place in a log and the checksum of the entry there, which vouches for everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// The slot; 0 is the beginning of every log.
    pub slot: Slot,
    /// The chained checksum of the entry in it; 0 at the beginning.
    pub checksum: u128,
}

/// An entry, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The newest ballot it was accepted under.
    pub ballot: Ballot,
    /// Over the entry and the checksum of the one before it.
    pub checksum: u128,
    /// What it is to consensus.
    pub kind: EntryKind,
}

/// What an entry is to consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A write of the partition.
    Command,
    /// Nothing; a new leader chooses one to learn that everything before it is chosen.
    Noop,
    /// From the next slot on these are the members.
    Swap(Configuration),
}
