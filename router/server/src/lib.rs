//! The router: a stateless front that speaks DynamoDB's HTTP API and asks the cores that own the data.
//!
//! Each worker is a thread with a runtime, a listening socket and a native client of its own; workers
//! share nothing. A request is read once, decoded once, answered with one buffered write, and never
//! logged; in `access` its signature is held against the access keys of the catalogue.
//!
//! It knows nothing of how items are stored, replicated or ordered.

mod access;
pub mod admin;
mod answer;
mod beside;
pub mod config;
mod counts;
mod front;
mod identity;
mod operations;
mod process;
mod worker;

pub use config::{ConfigError, RouterConfig};
pub use process::{MetricsRenderer, RouterHandle, StartError, start};
