//! What can go wrong in the engine, and whose fault it was.
//!
//! A refusal is the engine protecting itself: nothing was done, and the same call may be repeated. A
//! failed log is the device's fault and final. Corruption is a value that reaches the operator.

use crate::disk::{DiskError, FileId};
use crate::tree::TreeError;
use evenkeel_model::{ClusterId, Generation, NodeId, PartitionId, ShardId};
use std::{fmt, time::Duration};

/// Nothing was done. All but [`TooLarge`](Refused::TooLarge) pass: try again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The memory budget of the in-memory tables is used up; deletes are still admitted.
    #[error("the in-memory tables are full: {used} of {max} bytes are in use")]
    TableFull {
        /// Bytes in use once everything appended is applied.
        used: u64,
        /// The budget.
        max: u64,
    },
    /// Little is left of what all partitions share, and this one takes more than its part of it: others come first.
    #[error(
        "the {of} are nearly full, and this partition takes {used} bytes, which is more than its share of {share}"
    )]
    AboveShare {
        /// What is nearly full.
        of: Shared,
        /// Bytes that the partition takes of it.
        used: u64,
        /// What is kept for each partition.
        share: u64,
    },
    /// The log holds as many segments as it may, and none of them can be released.
    #[error("the log is full: {used} of {max} bytes are in use")]
    LogFull {
        /// Bytes of the segments in use.
        used: u64,
        /// The budget.
        max: u64,
    },
    /// More is waiting to be written than the queue holds.
    #[error("the log is busy")]
    Busy,
    /// The entry does not fit into one frame, now or ever.
    #[error("an entry of {bytes} bytes does not fit into a frame of at most {max}")]
    TooLarge {
        /// Size of the entry in the log.
        bytes: u64,
        /// Largest entry the log takes.
        max: u64,
    },
}

/// What the partitions of a shard share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// Memory of tables.
    Tables,
    /// Space for the log.
    Log,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shared::Tables => "in-memory tables",
            Shared::Log => "segments of the log",
        })
    }
}

impl Refused {
    /// When to try again: about how long it takes until there may be room. None if that is useless.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            // A few frames leave.
            Refused::Busy => Some(Duration::from_millis(5)),
            // A merge goes on, and room comes with it.
            Refused::AboveShare { .. } | Refused::TableFull { .. } => Some(Duration::from_millis(20)),
            // A merge ends, and a flip with it.
            Refused::LogFull { .. } => Some(Duration::from_millis(250)),
            Refused::TooLarge { .. } => None,
        }
    }
}

/// The log stopped for good: a write or flush failed, and what the device holds is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalFailed {
    /// The device refused or failed a write.
    #[error("the log has stopped: {0}")]
    Disk(#[from] DiskError),
    /// The engine was closed before the entry was durable.
    #[error("the log has stopped: it was closed")]
    Closed,
}

/// A partition could not be created or dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// It is there already, in this or another generation.
    #[error("partition {id} exists already, in generation {generation}")]
    Exists {
        /// The partition.
        id: PartitionId,
        /// The generation that is there.
        generation: Generation,
    },
    /// It is not there, or not in this generation.
    #[error("partition {id} does not exist in generation {generation}")]
    Unknown {
        /// The partition.
        id: PartitionId,
        /// The generation asked for.
        generation: Generation,
    },
    /// The log does not take more now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The log has stopped.
    #[error(transparent)]
    Log(#[from] WalFailed),
}

/// A read could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The partition is not on this shard.
    #[error("partition {id} is not on this shard")]
    Unknown {
        /// The partition.
        id: PartitionId,
    },
    /// A page of its tree cannot be read, or is not what it should be.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A table has as many frozen generations as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} frozen generations of the table are still in use")]
pub struct TooManyFrozen {
    /// The limit.
    pub max: usize,
}

/// The engine did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The device failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The configuration contradicts itself or the files.
    #[error("the configuration of the log cannot work: {reason}")]
    Config {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The files are of another cluster.
    #[error("{file} belongs to cluster {found}, not to {expected}")]
    WrongCluster {
        /// Where it was found.
        file: FileId,
        /// The cluster of this node.
        expected: ClusterId,
        /// The cluster that wrote the file.
        found: ClusterId,
    },
    /// The files are of another node.
    #[error("{file} belongs to node {found}, not to {expected}")]
    WrongNode {
        /// Where it was found.
        file: FileId,
        /// This node.
        expected: NodeId,
        /// The node that wrote the file.
        found: NodeId,
    },
    /// The files are of another shard.
    #[error("{file} belongs to shard {found}, not to {expected}")]
    WrongShard {
        /// Where it was found.
        file: FileId,
        /// This shard.
        expected: ShardId,
        /// The shard that wrote the file, as stored.
        found: u32,
    },
    /// A whole frame or record is in a format this program does not know.
    #[error("{file} at offset {offset}: {what} {found} is unknown to this version")]
    Unsupported {
        /// The file.
        file: FileId,
        /// Offset of the frame in the file.
        offset: u64,
        /// Which field: `format version`, `key id`, `record kind`, ...
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// What was acknowledged is damaged or gone. The engine does not open, and nothing was changed.
    #[error("{file} at offset {offset} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// The file.
        file: FileId,
        /// Offset of the damage in the file.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there, and how it is known that something else should be.
        found: String,
    },
}
