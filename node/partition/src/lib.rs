//! One member of each partition's group: the only place where consensus meets storage.
//!
//! A [`Shard`] is the core's share: the members that live on one engine, support between cores, time. A
//! [`Partition`] is one member: on the leader it takes writes and strongly consistent reads of its own
//! range of keys. What is true of it:
//!
//! - A write is checked, given the next slot and a greater timestamp than any before, and proposed: it
//!   goes to the log and to the other members at the same moment. When it is chosen, it is applied to the
//!   table and answered. Slots have no holes.
//! - A condition is held against the newest proposed image under the latch of its key. An answer that
//!   reveals what a write under way has made, an old image or a failed condition, waits until that is chosen.
//! - A write with a token that is repeated is applied once and gives the first outcome.
//! - A strongly consistent read is answered under the lease, asked again after the data is read; an
//!   eventually consistent one from what is applied, on any member with items.
//! - Who does not lead says who does, and who the members are.
//!
//! A group with one member elects itself at once, and what is durable there is chosen. This crate does no
//! IO of its own and knows nothing of sockets or of how messages become bytes; time and randomness come
//! from the `Runtime`, messages leave by an [`Outbox`].

mod bytes;
mod copy;
mod error;
mod group;
mod hub;
mod journal;
mod latch;
mod mark;
mod message;
pub mod mistakes;
mod partition;
mod place;
mod sessions;
mod shard;
mod snapshot;

pub use error::{CreateError, OpenError, ReadError, Redirect, Stopped, WriteError};
pub use hub::CoreConfig;
pub use message::{Body, CoreMessage, GroupMessage, Outbox, Piece, SnapshotEnd};
pub use partition::{Change, Counts, Outcome, Page, Partition, RangeRequest, State, Terms, Written};
pub use place::{Membership, Place, Seat};
pub use sessions::{OUTCOMES_KEPT_NS, RequestToken};
pub use shard::Shard;
