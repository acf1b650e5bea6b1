//! The storage engine of one shard: a durable, ordered log of entries of many partitions, and their
//! items in tables and trees, async over two small traits.
//!
//! - [`disk`] and [`runtime`] are the only ways out: this crate does no IO, reads no clock and draws
//!   no random number of its own.
//! - [`wal`] makes entries durable and finds them again; tables keep what was applied lately in memory.
//! - [`space`] is where pages live, and [`tree`] is what they make: the rest of the items.
//! - [`engine`] is the seam that all of these serve.
//!
//! It knows nothing of replication, of tables as users see them, of sockets or of the kernel.

mod bytes;
pub mod disk;
pub mod engine;
pub mod error;
mod heads;
pub mod limits;
#[cfg(feature = "fault-disk")]
pub mod memory;
pub mod mistakes;
mod pace;
mod partition;
mod partitions;
pub mod runtime;
pub mod space;
mod table;
pub mod tree;
pub mod wal;

pub use disk::{BLOCK_BYTES, Disk, DiskError, FileId, SystemError};
pub use engine::{
    CheckpointError, Child, Counts, Cut, Engine, EngineConfig, EngineStatistics, Entry, Installed,
    KeyAndImage, LoadError, Mark, MergeCounts, NewPartition, Newest, Operation, Page, PageSettings, Pinned,
    Position, Prepared, RangeQuery, RecoveredPartition, Recovery, ScrubCounts, ScrubFault, SplitError,
};
pub use error::{OpenError, PartitionError, ReadError, Refused, Shared, TooManyFrozen, WalFailed};
pub use runtime::{Mistake, Runtime};
pub use tree::{Limits, TreeError};
pub use wal::frame::FRAME_VERSION as LOG_VERSION;
pub use wal::{Durable, WalConfig};
