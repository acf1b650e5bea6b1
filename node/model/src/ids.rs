//! Identities. Each is a type of its own, so that two integers cannot be swapped.

use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<&rkyv::Archived<$name>> for $name {
            fn from(archived: &rkyv::Archived<$name>) -> Self {
                $name(archived.0.into())
            }
        }
    };
}

identity!(
    /// A table, for the life of the cluster; a table created again under its old name gets a new id.
    TableId(u64)
);
identity!(
    /// A partition of a table. Partition 0 is the catalogue of the cluster.
    PartitionId(u64)
);
identity!(
    /// Counts the lives of a partition id: it rises whenever the range or the owner changes, and a
    /// request that names an older one is answered with a redirect.
    Generation(u32)
);
identity!(
    /// A node of the cluster; never reused for another machine or an emptied disk.
    NodeId(u32)
);
identity!(
    /// A shard of a node: the owner of a log and of partitions. Their number is fixed when a node is
    /// formatted; a thread runs one or more.
    ShardId(u16)
);
identity!(
    /// A position in one partition's log. Slots start at 1 and have no holes; 0 means "nothing yet".
    Slot(u64)
);

impl PartitionId {
    /// The partition that holds the catalogue of the cluster.
    pub const CATALOGUE: PartitionId = PartitionId(0);
}

impl TableId {
    /// The catalogue's own table.
    pub const CATALOGUE: TableId = TableId(0);
}

impl Slot {
    /// The slot that follows this one.
    pub fn next(self) -> Slot {
        Slot(self.0.checked_add(1).expect("2^64 slots outlast any partition"))
    }
}

/// A Paxos ballot: a round and the replica that leads it, ordered in that sequence.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct Ballot {
    /// Rises with each attempt to lead.
    pub round: u64,
    /// The replica that leads the round; breaks ties.
    pub replica: u32,
}

impl From<&ArchivedBallot> for Ballot {
    fn from(archived: &ArchivedBallot) -> Self {
        Ballot { round: archived.round.into(), replica: archived.replica.into() }
    }
}

/// A cluster, drawn at random when it is formatted; data and messages of another cluster are refused.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(ClusterId)
    }
}
