//! What members of a group say about a log, without the entries and members that go with it.

use super::peer::Anchor;
use evenkeel_model::{Ballot, Generation, Slot};
use rkyv::{Archive, Serialize};

/// What consensus says; `evenkeel_paxos::Message` tells what each means. A configuration stands in
/// [`Agreement::members`](super::peer::Agreement::members).
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consensus {
    /// Phase 1a.
    Prepare {
        /// The candidate's.
        ballot: Ballot,
        /// The life of the partition.
        generation: Generation,
        /// Up to where the candidate knows the log to be chosen.
        chosen: Anchor,
    },
    /// Phase 1b.
    Promise {
        /// The candidate's.
        ballot: Ballot,
        /// Up to where the sender knows the log to be chosen.
        chosen: Anchor,
        /// Where the entries begin.
        after: Anchor,
    },
    /// Phase 2a.
    Accept {
        /// The leader's.
        ballot: Ballot,
        /// The life of the partition.
        generation: Generation,
        /// The entry before the first one carried.
        after: Anchor,
        /// Up to where the leader knows its log to be chosen.
        chosen: Slot,
    },
    /// Phase 2b.
    Accepted {
        /// The leader's.
        ballot: Ballot,
        /// Up to here.
        upto: Slot,
        /// The stretch of support by which the sender is bound; 0 for none.
        epoch: u64,
    },
    /// An accept could not be joined to the sender's log.
    Behind {
        /// The leader's.
        ballot: Ballot,
        /// Up to where the sender knows the log to be chosen.
        chosen: Slot,
    },
    /// A ballot is refused.
    Nack {
        /// Which.
        ballot: Ballot,
        /// What the sender has promised.
        promised: Ballot,
    },
    /// The log is chosen up to here.
    Commit {
        /// The last chosen entry.
        chosen: Anchor,
    },
    /// Whether the leader is reached.
    Probe {
        /// The leader's.
        ballot: Ballot,
    },
    /// The answer.
    ProbeReply {
        /// As asked.
        ballot: Ballot,
        /// The leader reached; the least ballot if there is none.
        leader: Ballot,
    },
    /// A leader has stopped.
    Relinquish {
        /// Its ballot.
        ballot: Ballot,
        /// Which member should lead now.
        to: Option<u32>,
    },
    /// Asks for a part of the log.
    Fetch {
        /// The candidate's.
        ballot: Ballot,
        /// What it has.
        after: Anchor,
        /// The last slot it wants.
        upto: Slot,
    },
    /// The part of the log.
    Entries {
        /// The candidate's.
        ballot: Ballot,
        /// As asked.
        after: Anchor,
    },
    /// The receiver's log is to begin here.
    Begin {
        /// The leader's or the candidate's.
        ballot: Ballot,
        /// A chosen entry.
        base: Anchor,
    },
}
