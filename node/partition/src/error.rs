//! What can go wrong with a partition, and whose fault it was.

use crate::place::Membership;
use evenkeel_expression::UpdateError;
use evenkeel_model::catalogue::RowError;
use evenkeel_model::{Generation, ItemError, PartitionId};
use evenkeel_paxos::MemberId;
use evenkeel_storage as storage;
use std::fmt;

/// Where to ask instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Who leads, if this member knows.
    pub leader: Option<MemberId>,
    /// The members.
    pub members: Membership,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.leader {
            Some(leader) => write!(f, "ask member {leader}, which leads"),
            None => write!(f, "ask the other members, or again"),
        }
    }
}

/// Why a shard can go on no more: whoever runs it ends it and starts it anew, from what is durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Stopped {
    /// The log has stopped.
    #[error(transparent)]
    Log(#[from] storage::WalFailed),
    /// The page file has stopped.
    #[error(transparent)]
    Pages(#[from] storage::space::SpaceError),
    /// What consensus has decided to write down could not be.
    #[error(
        "partition {partition} cannot write down what its group has decided: {refused}; make room and start again"
    )]
    Refused {
        /// The partition.
        partition: PartitionId,
        /// Why.
        refused: storage::Refused,
    },
}

/// Why a write was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The key is not one that this partition owns: the asker's map is old.
    #[error("the key is not in the range of partition {0}; look the partition up again")]
    NotOwned(PartitionId),
    /// This member does not lead; nothing was done.
    #[error("this replica does not lead: {0}")]
    NotLeader(Box<Redirect>),
    /// Leadership was lost while the write was under way: it may be chosen or not. Ask again, with the same
    /// token.
    #[error("whether the write was made is not known; repeat it")]
    Unknown,
    /// The token is below the session's lowest unanswered sequence: this is a late duplicate of a write
    /// whose answer has arrived.
    #[error("the write is a duplicate of one that was answered")]
    Stale,
    /// The key is empty or over the limit.
    #[error("a key of {0} bytes is not between 1 and {max} bytes", max = evenkeel_model::limits::ENCODED_KEY_BYTES_MAX)]
    KeyBytes(usize),
    /// The item is malformed or over the limit.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The update cannot be made; nothing was written.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// Nothing was done; the same write may succeed later.
    #[error(transparent)]
    Refused(#[from] storage::Refused),
    /// The log has stopped: whether the write is durable is unknown.
    #[error(transparent)]
    Log(#[from] storage::WalFailed),
    /// The image to be replaced could not be read; nothing was done.
    #[error(transparent)]
    Read(#[from] storage::ReadError),
}

impl WriteError {
    /// A read that a write rests on was not answered.
    pub(crate) fn from_read(error: ReadError) -> WriteError {
        match error {
            ReadError::NotOwned(id) => WriteError::NotOwned(id),
            ReadError::NotLeader(redirect) => WriteError::NotLeader(redirect),
            ReadError::Item(error) => WriteError::Item(error),
            ReadError::Engine(error) => WriteError::Read(error),
        }
    }
}

impl From<Redirect> for WriteError {
    fn from(redirect: Redirect) -> Self {
        WriteError::NotLeader(Box::new(redirect))
    }
}

impl From<Redirect> for ReadError {
    fn from(redirect: Redirect) -> Self {
        ReadError::NotLeader(Box::new(redirect))
    }
}

/// Why a read was not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The key or range is not one that this partition owns: the asker's map is old.
    #[error("the key is not in the range of partition {0}; look the partition up again")]
    NotOwned(PartitionId),
    /// This member does not lead, or is not sure that it does, or has no items.
    #[error("this replica cannot answer: {0}")]
    NotLeader(Box<Redirect>),
    /// A stored item is malformed.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The engine could not read.
    #[error(transparent)]
    Engine(#[from] storage::ReadError),
}

/// Why a partition was not created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// The row does not describe the partition.
    #[error("the row of partition {partition} is malformed: {reason}")]
    Row {
        /// The partition.
        partition: PartitionId,
        /// What is wrong with the row.
        reason: String,
    },
    /// A later life of the partition is here already.
    #[error("partition {partition} is here as generation {here}; generation {asked} is over")]
    Generation {
        /// The partition.
        partition: PartitionId,
        /// The generation that is here.
        here: Generation,
        /// The generation that was asked for.
        asked: Generation,
    },
    /// The engine did not take it.
    #[error(transparent)]
    Engine(#[from] storage::PartitionError),
}

/// Why a shard's partitions could not be taken up after recovery.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// A partition's own description is not readable although its checksum was right.
    #[error("partition {partition} is recorded with a malformed row: {reason}")]
    Row {
        /// The partition.
        partition: PartitionId,
        /// What is wrong with the row.
        reason: String,
    },
}

impl From<(PartitionId, RowFault)> for CreateError {
    fn from((partition, fault): (PartitionId, RowFault)) -> Self {
        CreateError::Row { partition, reason: fault.0 }
    }
}

impl From<(PartitionId, RowFault)> for OpenError {
    fn from((partition, fault): (PartitionId, RowFault)) -> Self {
        OpenError::Row { partition, reason: fault.0 }
    }
}

/// What is wrong with a partition's row, in words.
pub struct RowFault(pub String);

impl From<ItemError> for RowFault {
    fn from(error: ItemError) -> Self {
        RowFault(error.to_string())
    }
}

impl From<RowError> for RowFault {
    fn from(error: RowError) -> Self {
        RowFault(error.to_string())
    }
}
