//! The vocabulary of a history: what was asked, and how it ended.
//!
//! A key holds nothing or one number. A put writes a number, which a workload makes unique so that a read
//! says which put it saw; an increment adds to the number, and makes it from 0 if there is none. This is
//! as much of an item as consistency needs.
//!
//! The serde form of these types is the format of a history file ([`crate::lines`]): a change of a name
//! here is a change of that format.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is stored under a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// Nothing. Every key begins like this.
    Absent,
    /// A number.
    Value(i64),
}

/// What a read is promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// It sees everything acknowledged before it began: it is part of the linearizable history.
    Strong,
    /// It sees some chosen state, and never an older one than an earlier read of its client did.
    Session,
    /// It sees some chosen state.
    Eventual,
}

/// An operation on one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Reads.
    Get {
        /// How much is promised.
        consistency: Consistency,
    },
    /// Writes, whatever is there.
    Put {
        /// What to write.
        value: i64,
    },
    /// Removes, whatever is there.
    Delete,
    /// Writes if what is there is as expected.
    PutIf {
        /// What must be there.
        expected: Image,
        /// What to write.
        value: i64,
    },
    /// Adds to the number.
    Increment {
        /// How much.
        by: i64,
    },
}

/// How an operation ended, as its client knows it. An operation that nobody heard of again has none,
/// which means the same as [`Unknown`](Outcome::Unknown).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It took effect, once, between its invocation and its response.
    Ok {
        /// What a read saw; what a put or a delete replaced and what an increment made, if the client asked.
        returned: Option<Image>,
    },
    /// The condition did not hold at some moment between invocation and response; nothing was written.
    ConditionFailed {
        /// What was there instead, if the client asked.
        found: Option<Image>,
    },
    /// It was refused. It never took effect and never will.
    Failed,
    /// It may have taken effect, may still do so at any later time, once, or never.
    Unknown,
}

/// One line of a history: an operation begins, or is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A client sends a request.
    Invoke {
        /// When. Of two events at the same time neither is before the other.
        time: u64,
        /// Who.
        client: u64,
        /// Names the operation in the history.
        id: u64,
        /// The key.
        key: String,
        /// What is asked.
        request: Request,
    },
    /// The client has its answer, or has given up waiting.
    Respond {
        /// When; not before the invocation.
        time: u64,
        /// Who; the client that asked.
        client: u64,
        /// The operation.
        id: u64,
        /// How it ended.
        outcome: Outcome,
    },
}

impl Request {
    /// Whether it can change what is stored.
    pub fn writes(&self) -> bool {
        !matches!(self, Request::Get { .. })
    }

    /// Whether an operation of this kind can be answered like this, rightly or wrongly.
    pub fn can_end_as(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (_, Outcome::Failed | Outcome::Unknown) => true,
            (Request::Get { .. }, Outcome::Ok { returned }) => returned.is_some(),
            (_, Outcome::Ok { .. }) | (Request::PutIf { .. }, Outcome::ConditionFailed { .. }) => true,
            (_, Outcome::ConditionFailed { .. }) => false,
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Absent => f.write_str("absent"),
            Image::Value(value) => write!(f, "{value}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Get { consistency: Consistency::Strong } => f.write_str("get"),
            Request::Get { consistency: Consistency::Session } => f.write_str("get in session"),
            Request::Get { consistency: Consistency::Eventual } => f.write_str("get eventually"),
            Request::Put { value } => write!(f, "put {value}"),
            Request::Delete => f.write_str("delete"),
            Request::PutIf { expected, value } => write!(f, "put {value} if {expected}"),
            Request::Increment { by } => write!(f, "increment by {by}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok { returned: None } => f.write_str("ok"),
            Outcome::Ok { returned: Some(image) } => write!(f, "ok, {image}"),
            Outcome::ConditionFailed { found: None } => f.write_str("condition failed"),
            Outcome::ConditionFailed { found: Some(image) } => write!(f, "condition failed, {image}"),
            Outcome::Failed => f.write_str("failed"),
            Outcome::Unknown => f.write_str("unknown"),
        }
    }
}
