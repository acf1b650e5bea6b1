//! One copy of a partition: the only place where the order of writes meets their storage.
//!
//! A [`Shard`] is the set of partitions that share one core's engine; a [`Partition`] takes writes and
//! reads of its own range of keys. What is true of it:
//!
//! - A write is checked, given the next slot and a greater timestamp than any before, appended to the
//!   log and, when that is durable, applied to the table and answered. Slots have no holes.
//! - An answer that carries the image a write replaced means the newest proposed one, and is given only
//!   when the write itself is durable, so it never reveals what may still be lost.
//! - A condition is held against the newest proposed image under the latch of its key; that it failed is
//!   told only when that image is durable.
//! - A read sees what has been applied: everything acknowledged, nothing that is not durable.
//!
//! There is one copy of each partition so far, so what is durable here is chosen. This crate does no IO
//! of its own and knows nothing of sockets, messages' bytes, or where other partitions are.

mod bytes;
mod error;
mod group;
mod hub;
mod journal;
mod latch;
mod message;
mod partition;
mod place;
mod sessions;
mod shard;
mod snapshot;

pub use error::{CreateError, OpenError, ReadError, Redirect, WriteError};
pub use hub::CoreConfig;
pub use message::{Body, CoreMessage, GroupMessage, Outbox, Piece, SnapshotEnd};
pub use partition::{Change, Counts, Outcome, Page, Partition, RangeRequest, Terms, Written};
pub use place::{Membership, Place, Seat};
pub use sessions::{OUTCOMES_KEPT_NS, RequestToken};
pub use shard::Shard;
