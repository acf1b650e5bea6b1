//! What the cores of nodes say to each other about the groups they share, as it stands on the wire.
//!
//! These are no requests and get no answers, save [`Join`]: each may be lost, repeated and overtaken, and
//! consensus lives with that. A message larger than [`CHUNK_BYTES`] goes in [`Chunk`]s, so that it holds up
//! nobody else's. The types mirror those of consensus and are not the same: what a node keeps in memory may
//! change, these bytes only with the protocol version.

use super::NodeAddress;
pub use super::consensus::{ArchivedConsensus, Consensus};
use evenkeel_model::{Ballot, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp};
use rkyv::with::{InlineAsBox, Map};
use rkyv::{Archive, Serialize};

/// Bodies above this go in chunks of this size.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Who opens a link between two cores, behind [`Hello`](super::Hello).
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Join {
    /// The node that the sender is, and where it listens.
    pub node: NodeAddress,
    /// The sender's shard.
    pub shard: ShardId,
    /// The node that the sender wants.
    pub wanted_node: NodeId,
    /// The shard that the sender wants.
    pub wanted_shard: ShardId,
    /// The lowest version of log entries that the sender can take.
    pub log_version_min: u16,
    /// The version of the log entries that the sender writes.
    pub log_version: u16,
}

/// The answer to [`Join`]: the link carries messages from now on, in both directions.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Joined {
    /// The node that answers, and where it listens.
    pub node: NodeAddress,
    /// The version of the log entries that it writes.
    pub log_version: u16,
}

/// Support between two cores, once a period; in a datagram.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct CoreSupport {
    /// The life of the sending core.
    pub incarnation: u32,
    /// When this was sent, on the sender's clock, if it wishes for support.
    pub wish_ns: Option<u64>,
    /// The answer to the newest wish that arrived.
    pub answer: Option<SupportAnswer>,
    /// What groups led by the sender have chosen lately.
    pub chosen: Vec<GroupChosen>,
}

/// Support that the sender gives to the receiver.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportAnswer {
    /// The life of the receiver in which it asked.
    pub incarnation: u32,
    /// When it asked, on its own clock.
    pub asked_ns: u64,
    /// The stretch of uninterrupted support.
    pub epoch: u64,
}

/// What one group has chosen.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupChosen {
    /// The group, its life, and from whom to whom.
    pub group: GroupHead,
    /// The last chosen entry.
    pub chosen: Anchor,
}

/// Between which members of which group a message goes.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHead {
    /// The partition.
    pub partition: PartitionId,
    /// Its life.
    pub generation: Generation,
    /// The member that sends.
    pub from: u32,
    /// The member it is for.
    pub to: u32,
}

/// A message from one member of a group to another.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Between whom.
    pub head: GroupHead,
    /// What.
    pub body: GroupBody<'a>,
}

/// What one member says to another.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum GroupBody<'a> {
    /// Consensus.
    Consensus(Agreement<'a>),
    /// The next piece of a snapshot is wanted.
    PieceWanted(PieceWanted<'a>),
    /// A piece of a snapshot.
    Piece(Piece<'a>),
}

/// A message of consensus and what goes with it.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Agreement<'a> {
    /// The message.
    pub message: Consensus,
    /// The entries that a promise speaks of, without payload.
    pub votes: Vec<Vote>,
    /// The entries to be appended.
    pub entries: Vec<Entry<'a>>,
    /// What they change, one entry's operations behind the other's.
    pub operations: Vec<Operation<'a>>,
    /// The chained checksum of the last entry.
    pub end: u128,
    /// The members that the message names, where it names any.
    pub members: Option<Members>,
}

/// A place in a log.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// The slot.
    pub slot: Slot,
    /// The chained checksum of the entry in it.
    pub checksum: u128,
}

/// An entry that was accepted, without its payload.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The newest ballot it was accepted under.
    pub ballot: Ballot,
    /// Its chained checksum.
    pub checksum: u128,
    /// What it is to consensus.
    pub kind: VoteKind,
}

/// What an entry is to consensus.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum VoteKind {
    /// A write.
    Command,
    /// Nothing.
    Noop,
    /// From the next slot on these are the members. Their places are not said.
    Swap(Members),
}

/// The members of a group between two swaps.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Counts the swaps since the group began.
    pub version: u32,
    /// The greatest member number ever used.
    pub id_max: u32,
    /// The members, in their order.
    pub seats: Vec<Seat>,
}

/// A member and where it lives.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its number.
    pub member: u32,
    /// What it keeps.
    pub keeps: Keeps,
    /// Its node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
}

/// What a member keeps.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Log and tree.
    Tree,
    /// The recent log only.
    Log,
}

/// An entry of a partition's log, its operations aside.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its slot.
    pub slot: Slot,
    /// The ballot it was accepted under.
    pub ballot: Ballot,
    /// When it was made.
    pub timestamp: Timestamp,
    /// Up to where the log was known to be chosen.
    pub chosen: Slot,
    /// How many operations it has.
    pub operations: u32,
    /// Whether the note is the state from here on.
    pub lasting: bool,
    /// What it carries beside its operations.
    #[rkyv(with = InlineAsBox)]
    pub note: &'a [u8],
}

/// A change of one item.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The encoded key.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    /// The stored item; nothing if it is deleted.
    #[rkyv(with = Map<InlineAsBox>)]
    pub image: Option<&'a [u8]>,
}

/// Asks for a piece of a snapshot.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct PieceWanted<'a> {
    /// Of which snapshot; of a new one if nothing.
    pub base: Option<Slot>,
    /// The number of the piece, from 0.
    pub number: u64,
    /// The last key of the piece before.
    #[rkyv(with = Map<InlineAsBox>)]
    pub after: Option<&'a [u8]>,
}

/// A piece of a snapshot.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The last entry in the snapshot.
    pub base: Anchor,
    /// The number of the piece, from 0.
    pub number: u64,
    /// Items, as puts, in key order.
    pub items: Vec<Operation<'a>>,
    /// With the last piece, what else the partition knows as of the base.
    pub last: Option<PieceEnd<'a>>,
}

/// What ends a snapshot.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct PieceEnd<'a> {
    /// The greatest timestamp of an entry up to the base.
    pub timestamp: Timestamp,
    /// Members and outcomes, as they are written down.
    #[rkyv(with = InlineAsBox)]
    pub state: &'a [u8],
}

/// A part of the body of a [`Group`] message; the parts of one come in order.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Which message, by a number that the sender gives once a link.
    pub message: u64,
    /// Bytes of the whole body.
    pub body_bytes: u32,
    /// Where this part begins.
    pub offset: u32,
    /// The part.
    #[rkyv(with = InlineAsBox)]
    pub part: &'a [u8],
}

/// Tells the sender of chunks how many bytes of them have been taken since the link began.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunksTaken {
    /// That many.
    pub bytes: u64,
}

const _: () = assert!(CHUNK_BYTES * 2 < crate::BODY_BYTES_MAX);
