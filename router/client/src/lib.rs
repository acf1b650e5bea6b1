//! The client library: an application's way to a cluster, by QUIC straight to the core that owns the key.
//!
//! [`Client`] finds the cluster by any node's address, keeps the map of tables and partitions current,
//! and speaks to each shard over one connection. It has two levels: typed operations on
//! [`Attributes`](evenkeel_model::Attributes) ([`Client::get`], [`Client::put`], [`Client::query`], …)
//! and, under them, operations on encoded keys and items ([`Client::get_encoded`], …) for programs that
//! encode themselves.
//!
//! **Dropping a future** abandons the answer, nothing else: a request that was sent is carried out, so a
//! write whose future was dropped may or may not happen.
//!
//! **Runtime.** A client's connections run on the tokio runtime on which [`Client::connect`] was called.
//! It may be used from others, at the price of a hop between threads.
//!
//! This crate knows nothing of HTTP, of logs and of replication.

mod call;
mod catalogue;
mod client;
mod config;
mod connection;
mod encoded;
mod error;
mod lane;
pub mod limits;
mod links;
mod page;
mod partitions;
mod pending;
mod seeds;
mod statistics;
mod tables;
pub mod tls;
mod tokens;
mod typed;
mod users;

pub use client::Client;
pub use config::ClientConfig;
pub use encoded::{Change, Consistency, RangeRequest, Terms, Written};
pub use error::{Error, SeedFailure};
pub use evenkeel_caller::{BudgetPolicy, RetryPolicy};
pub use evenkeel_wire::message::WriteToken;
pub use page::{ItemPage, StoredItem};
pub use partitions::{PartitionDescription, ReplicaDescription, ReplicaReport};
pub use statistics::ClientStatistics;
pub use tables::{CreateTable, TableChange};
pub use typed::{PageKey, Query, ResultPage, SortCondition};
pub use users::{KnownKey, NewAccessKey, UserAction};
