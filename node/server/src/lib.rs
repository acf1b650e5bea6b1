//! The storage node: a process that owns shards, answers for their partitions over QUIC, and, where it
//! holds partition 0, runs the control plane beside it.
//!
//! - [`config`] says what a node is told; everything in it is checked before anything is started.
//! - A shard (`shard.rs`) is one core's thread: disk, engine, partitions, endpoint.
//! - `service.rs` turns checked frames into calls of partitions and their results into answers.
//! - `control.rs` creates and deletes tables, by writing the catalogue and telling shards.
//! - `links` carries what groups say to each other; `peers.rs` calls other shards; `nodes.rs` knows where they are.
//!
//! What is true: a shard listens only when its log has been read and its partitions are open; one
//! whose log has failed stops the whole node, because a wrong node stops rather than answers.
//!
//! This crate knows nothing of HTTP, of DynamoDB's JSON, or of how a client finds a partition.

pub mod config;
mod control;
mod drop_guard;
mod identity;
mod limits;
mod links;
mod nodes;
mod peers;
mod placement;
mod process;
mod registration;
mod report;
mod requests;
mod service;
mod shard;
mod store;
mod tables;
mod users;

pub use config::{ConfigError, NodeConfig};
pub use evenkeel_driver::is_memory_backed;
pub use process::{NodeError, NodeHandle, start};
