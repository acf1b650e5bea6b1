//! The vocabulary of Evenkeel: ids, keys, attribute values, items, numbers, time and limits.
//!
//! Every other crate speaks in these types, so they are defined once, below everything, and do no
//! IO. What is persisted or sent is an encoding defined here ([`key`], [`number`], [`item`]) and is
//! frozen by golden-bytes tests: changing one is a format change and needs a new version.
//!
//! This crate knows nothing of logs, replication, sockets or JSON.

pub mod catalogue;
pub mod hex;
pub mod ids;
pub mod item;
pub mod key;
pub mod limits;
pub mod number;
pub mod time;
pub mod value;

pub use ids::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Slot, TableId};
pub use item::{ItemError, ItemView, StoredHeader, encode_item, stamp_item};
pub use key::{KeyAttribute, KeySchema, KeyType, KeyValue};
pub use number::{Number, NumberError};
pub use time::{HybridClock, LogTime, Timestamp};
pub use value::{ArchivedAttribute, ArchivedAttributeValue, Attribute, AttributeValue, Attributes};
