//! What cores say to each other about their groups, as typed values.
//!
//! How they become bytes and get there is an [`Outbox`]'s affair. They may be lost, repeated and
//! reordered; what they carry is checked where it arrives.

use crate::place::{Membership, Place};
use evenkeel_model::{Generation, PartitionId, Slot, Timestamp};
use evenkeel_paxos::{Anchor, Entry as Vote, MemberId, Message, Support};
use evenkeel_storage::{Entry, Operation};
use std::rc::Rc;

/// The way out of a core.
pub trait Outbox {
    /// Sends a message to another core, some time later. It must not call back before it returns.
    fn send(&self, to: Place, message: CoreMessage);
}

/// A message from one core to another.
#[derive(Clone, Debug)]
pub enum CoreMessage {
    /// Support, once a period, and what rides on it: what groups led by the sender have chosen.
    Support {
        /// The support.
        support: Support,
        /// For members on the receiving core.
        chosen: Vec<GroupMessage>,
    },
    /// About one group.
    Group(GroupMessage),
}

/// A message from one member of a group to another.
#[derive(Clone, Debug)]
pub struct GroupMessage {
    /// The partition.
    pub partition: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// Who sends.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// What.
    pub body: Body,
}

/// What one member of a group says to another.
#[derive(Clone, Debug)]
pub enum Body {
    /// Consensus.
    Consensus {
        /// The message.
        message: Message,
        /// The entries that a promise speaks of, without payload.
        votes: Vec<Vote>,
        /// The entries to be appended, which follow the message's anchor.
        entries: Vec<Entry>,
        /// The chained checksum of the last of them.
        end: u128,
        /// Where the members live that the message names in a configuration.
        members: Option<Membership>,
    },
    /// The next piece of a snapshot is wanted.
    PieceWanted {
        /// Of which snapshot; of a new one if nothing.
        base: Option<Slot>,
        /// The number of the piece, from 0.
        number: u64,
        /// The last key of the piece before.
        after: Option<Rc<[u8]>>,
    },
    /// A piece of a snapshot.
    Piece(Piece),
}

/// A piece of a snapshot.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The last entry in the snapshot.
    pub base: Anchor,
    /// The number of the piece, from 0.
    pub number: u64,
    /// Items, as puts, in key order.
    pub items: Vec<Operation>,
    /// With the last piece, what else the partition knows as of the base.
    pub last: Option<SnapshotEnd>,
}

/// What ends a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotEnd {
    /// The greatest timestamp of an entry up to the base.
    pub timestamp: Timestamp,
    /// Members and outcomes, as they are written down.
    pub state: Rc<[u8]>,
}
