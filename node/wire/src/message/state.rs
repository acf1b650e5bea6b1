//! Questions about a shard and its members of groups, and the answer that leads to another member.

use super::peer::Members;
use evenkeel_model::{Ballot, Generation, PartitionId, Slot};
use rkyv::{Archive, Serialize};

/// Asks nothing: a node that lives acknowledges it, and that is all that is wanted.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
pub struct Ping {}

/// The answer to a request that only another member of the partition's group can carry out; nothing was
/// done.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The member that leads, if this one knows.
    pub leader: Option<u32>,
    /// The members.
    pub members: Members,
}

/// Asks how much a partition holds.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct PartitionStatistics {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
}

/// The answer to [`PartitionStatistics`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct PartitionCounts {
    /// Items.
    pub items: u64,
    /// Their size by DynamoDB's rules, in bytes.
    pub bytes: u64,
}

/// Asks a shard what its member of a partition's group is, and how far it is.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct PartitionState {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
}

/// The answer to [`PartitionState`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct ReplicaState {
    /// The member's number.
    pub member: u32,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it is sure to, so that it answers reads.
    pub leased: bool,
    /// Whether a chosen swap has removed it.
    pub removed: bool,
    /// The greatest ballot it has promised.
    pub ballot: Ballot,
    /// The last slot that is applied.
    pub applied: Slot,
    /// The last slot of its log.
    pub end: Slot,
    /// The greatest timestamp in its log, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// The last mark at which a merge has ended, since the start of its node; 0 for none.
    pub marked: Slot,
    /// The sum of the items' hashes there, modulo 2^128.
    pub content_hash: u128,
    /// Its items.
    pub items: u64,
    /// Their size by DynamoDB's rules, in bytes.
    pub bytes: u64,
    /// Who leads and who the members are, as far as it knows.
    pub redirect: Redirect,
}
