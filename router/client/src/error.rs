//! What can go wrong with an operation, and whose fault it was.

use crate::page::StoredItem;
use evenkeel_caller::GiveUp;
use evenkeel_wire::RefusalCode;
use std::fmt;

/// Why an operation did not succeed. Unless a variant says otherwise, nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The application named a table that does not exist.
    #[error("there is no table {table}")]
    TableNotFound {
        /// The table.
        table: String,
    },
    /// The application wants to create a table that exists.
    #[error("a table of this name exists: {message}")]
    TableExists {
        /// What the cluster says.
        message: String,
    },
    /// The table is being created or deleted, or is not ready for other reasons; try later.
    #[error("the table is not ready: {message}")]
    TableInUse {
        /// What the cluster says.
        message: String,
    },
    /// The application wants to delete a table that is protected.
    #[error("the table is protected from being deleted: {message}")]
    Protected {
        /// What the cluster says.
        message: String,
    },
    /// There is a user of this name.
    #[error("{message}")]
    UserExists {
        /// What the cluster says.
        message: String,
    },
    /// There is no user of this name.
    #[error("{message}")]
    UserNotFound {
        /// What the cluster says.
        message: String,
    },
    /// The application's request is malformed or over a limit.
    #[error("invalid request: {message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The condition of a write does not hold; nothing was written.
    #[error("the condition does not hold")]
    ConditionFailed {
        /// The item that is there, if it was asked for and there is one.
        old: Option<StoredItem>,
    },
    /// The client's certificate does not allow the request.
    #[error("not allowed: {message}")]
    Forbidden {
        /// What the cluster says.
        message: String,
    },
    /// The node belongs to another cluster or speaks another protocol version.
    #[error("client and cluster do not fit together: {message}")]
    Mismatch {
        /// What the node says.
        message: String,
    },
    /// The cluster is too busy or full, and retries did not help; nothing was done.
    #[error("the cluster is overloaded: {message}")]
    Overloaded {
        /// What the node said last.
        message: String,
    },
    /// The data is on a page of the disk that is damaged; nothing was done.
    #[error("a copy of the data is damaged: {message}")]
    Damaged {
        /// What the node found, and where.
        message: String,
    },
    /// The time for the operation was up; nothing was done.
    #[error("no answer in time: {message}")]
    Expired {
        /// What was waited for.
        message: String,
    },
    /// The write may have happened or not: the answer was lost. The application knows whether it may be
    /// repeated.
    #[error("the write may have happened or not: {message}")]
    OutcomeUnknown {
        /// What happened instead of an answer.
        message: String,
    },
    /// The node that owns the data cannot be reached; nothing was done.
    #[error("the cluster cannot be reached: {message}")]
    Unavailable {
        /// The last failure.
        message: String,
    },
    /// None of the seeds answered as a node of the cluster.
    #[error("no seed can be used: {}", Listed(.seeds))]
    Seeds {
        /// What happened with each.
        seeds: Vec<SeedFailure>,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// A fault of Evenkeel: an answer that makes no sense.
    #[error("internal fault: {message}")]
    Internal {
        /// What was found.
        message: String,
    },
}

/// What happened with one seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {reason}")]
pub struct SeedFailure {
    /// The seed.
    pub address: String,
    /// Why it cannot be used.
    pub reason: String,
}

struct Listed<'a>(&'a [SeedFailure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none is configured");
        }
        for (at, failure) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
        }
        Ok(())
    }
}

impl Error {
    /// Whether the same operation may be tried again without the risk of doing it twice, and may succeed.
    pub fn is_retry_safe(&self) -> bool {
        matches!(
            self,
            Error::Overloaded { .. }
                | Error::Expired { .. }
                | Error::Unavailable { .. }
                | Error::TableInUse { .. }
                | Error::Seeds { .. }
        )
    }

    pub(crate) fn internal(message: impl fmt::Display) -> Error {
        Error::Internal { message: message.to_string() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid { message: message.into() }
    }

    /// The error of a refusal that settles the call.
    pub(crate) fn refused(code: Option<RefusalCode>, message: String) -> Error {
        use RefusalCode as Code;
        match code {
            Some(Code::TableExists) => Error::TableExists { message },
            Some(Code::TableNotFound) => Error::TableNotFound { table: message },
            Some(Code::TableInUse) => Error::TableInUse { message },
            Some(Code::UserExists) => Error::UserExists { message },
            Some(Code::UserNotFound) => Error::UserNotFound { message },
            Some(Code::Protected) => Error::Protected { message },
            Some(Code::Invalid) => Error::Invalid { message },
            Some(Code::Forbidden) => Error::Forbidden { message },
            Some(Code::Mismatch) => Error::Mismatch { message },
            Some(Code::Expired) => Error::Expired { message },
            Some(Code::Overloaded | Code::TableFull | Code::LogFull) => Error::Overloaded { message },
            Some(Code::Failed | Code::WrongPartition) => Error::Unavailable { message },
            Some(Code::Damaged) => Error::Damaged { message },
            Some(Code::Unknown) => Error::OutcomeUnknown { message },
            Some(Code::Unsupported) | None => Error::Internal { message },
        }
    }

    /// The error of a call that was given up; `code` and `message` are of its last attempt.
    pub(crate) fn gave_up(reason: GiveUp, code: Option<RefusalCode>, message: String) -> Error {
        match reason {
            GiveUp::Refused | GiveUp::Busy => Error::refused(code, message),
            GiveUp::Unavailable => Error::Unavailable { message },
            GiveUp::Expired => Error::Expired { message },
            GiveUp::OutcomeUnknown => Error::OutcomeUnknown { message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_seeds_are_named_with_their_failures() {
        let failure = |address: &str| SeedFailure { address: address.into(), reason: "refused".into() };
        let error = Error::Seeds { seeds: vec![failure("a:1"), failure("b:2")] };
        assert_eq!(error.to_string(), "no seed can be used: a:1: refused; b:2: refused");
        assert_eq!(Error::Seeds { seeds: vec![] }.to_string(), "no seed can be used: none is configured");
    }

    #[test]
    fn a_write_of_unknown_outcome_is_not_safe_to_repeat() {
        let message = String::new;
        let unknown = Error::gave_up(GiveUp::OutcomeUnknown, Some(RefusalCode::Failed), message());
        assert!(!unknown.is_retry_safe());
        assert!(Error::gave_up(GiveUp::Busy, Some(RefusalCode::TableFull), message()).is_retry_safe());
        assert!(!Error::gave_up(GiveUp::Refused, Some(RefusalCode::Invalid), message()).is_retry_safe());
    }
}
