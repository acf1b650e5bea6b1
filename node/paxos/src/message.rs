//! What members of a group say to each other.
//!
//! Messages are plain values; the entries of those that carry any stand beside them, in the
//! [`Output`](crate::Output) they leave through or the input they come in by. The shell adds payloads,
//! checks checksums, and says who sent a message.

use crate::configuration::{Configuration, MemberId};
use crate::entry::Anchor;
use evenkeel_model::{Ballot, Generation, Slot};

/// A message. A link loses, repeats and reorders them as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Phase 1a: promise to accept nothing below `ballot`, and tell me what you have accepted.
    Prepare {
        /// The candidate's.
        ballot: Ballot,
        /// The life of the partition.
        generation: Generation,
        /// Up to where the candidate knows the log to be chosen.
        chosen: Anchor,
    },
    /// Phase 1b. Carries the entries accepted behind `after`.
    Promise {
        /// The candidate's.
        ballot: Ballot,
        /// Up to where the sender knows the log to be chosen.
        chosen: Anchor,
        /// The members as of `chosen`.
        configuration: Configuration,
        /// Where the entries begin.
        after: Anchor,
    },
    /// Phase 2a. Carries the entries behind `after`; none is a question whether all is well.
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
    /// Phase 2b: the sender's durable log equals the leader's up to a slot.
    Accepted {
        /// The leader's.
        ballot: Ballot,
        /// Up to here.
        upto: Slot,
        /// The stretch of support under which the sender has bound itself; 0 for none.
        epoch: u64,
    },
    /// An accept could not be joined to the sender's log; begin behind `chosen`.
    Behind {
        /// The leader's.
        ballot: Ballot,
        /// Up to where the sender knows the log to be chosen.
        chosen: Slot,
    },
    /// `ballot` is refused.
    Nack {
        /// What was refused.
        ballot: Ballot,
        /// What the sender has promised.
        promised: Ballot,
    },
    /// The log is chosen up to here. True for ever, whoever says it; may wait for other traffic.
    Commit {
        /// The last chosen entry the sender knows.
        chosen: Anchor,
    },
    /// I have lost the leader of `ballot`: do you reach it?
    Probe {
        /// The last leader's.
        ballot: Ballot,
    },
    /// The answer.
    ProbeReply {
        /// As asked.
        ballot: Ballot,
        /// The leader that the sender reaches; the least ballot if there is none.
        leader: Ballot,
    },
    /// The leader of `ballot` has stopped: whoever is bound to it is free.
    Relinquish {
        /// The leader's.
        ballot: Ballot,
        /// Who should lead now.
        to: Option<MemberId>,
    },
    /// A candidate that has won asks for the part of the log it must adopt.
    Fetch {
        /// The candidate's.
        ballot: Ballot,
        /// What it has.
        after: Anchor,
        /// The last slot it wants.
        upto: Slot,
    },
    /// What was asked for, or the beginning of it. Carries the entries behind `after`.
    Entries {
        /// The candidate's.
        ballot: Ballot,
        /// As asked.
        after: Anchor,
    },
    /// The sender's log begins behind `base`, and you have less: begin there. A log replica does so at
    /// once, a storage replica needs the snapshot.
    Begin {
        /// The leader's or the candidate's.
        ballot: Ballot,
        /// A chosen entry.
        base: Anchor,
        /// The members as of it.
        configuration: Configuration,
    },
}
