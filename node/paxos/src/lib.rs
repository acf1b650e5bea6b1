//! Multi-Paxos for one partition's group of replicas, as a state machine without IO.
//!
//! A [`Replica`] takes messages, completed log writes, proposals and the passing of time, and fills an
//! [`Output`] with messages to send, records to write and what was chosen. It holds no clock, no
//! randomness, no payloads and no addresses: entries are known by their chained checksums, members by
//! numbers that are never used twice. The model search in `tests/` explores these very structs.
//!
//! [`Supports`] is the other state machine: one for each core, shared by all its groups, it exchanges
//! support with other cores at a constant rate, and leases rest on it.

mod acceptor;
mod campaign;
mod catch_up;
mod configuration;
mod election;
mod entry;
mod leader;
mod lease;
mod log;
mod membership;
mod message;
mod output;
mod recovery;
mod replica;
mod settings;
mod support;

pub use configuration::{Configuration, MEMBERS_MAX, Member, MemberId, MemberKind};
pub use entry::{Anchor, Entry, EntryKind};
pub use message::Message;
pub use output::{Action, Output, Record, Span, Token};
pub use recovery::Durable;
pub use replica::{Input, Refused, Replica, Standing};
#[cfg(feature = "traps")]
pub use settings::Trap;
pub use settings::{Facts, Grant, ROUND_MAX, Settings, Time};
pub use support::{Answer, Support, SupportSettings, Supports};
