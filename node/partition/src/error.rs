//! What can go wrong with a partition, and whose fault it was.

use evenkeel_expression::UpdateError;
use evenkeel_model::catalogue::RowError;
use evenkeel_model::{Generation, ItemError, PartitionId};
use evenkeel_storage as storage;

/// Why a write was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The key is not one that this partition owns: the asker's map is old.
    #[error("the key is not in the range of partition {0}; look the partition up again")]
    NotOwned(PartitionId),
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

/// Why a read was not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The key or range is not one that this partition owns: the asker's map is old.
    #[error("the key is not in the range of partition {0}; look the partition up again")]
    NotOwned(PartitionId),
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
