//! Refusals: the answer to any request that was not carried out, saying whose fault it was.

use crate::message::{Kind, Message};
use rkyv::{Archive, Serialize};

/// Why a request was refused. Unless a code says otherwise, nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    /// The partition is not here, or no longer under this generation or with this key: look it up again.
    WrongPartition = 1,
    /// Too much is under way; retry a little later.
    Overloaded = 2,
    /// The memory for tables is used up; retry later, deletes are still taken.
    TableFull = 3,
    /// The space for the log is used up; retry later.
    LogFull = 4,
    /// The request is malformed or over a limit; retrying is useless.
    Invalid = 5,
    /// The kind of message is not known here.
    Unsupported = 6,
    /// The sender's certificate does not carry the role that this request needs.
    Forbidden = 7,
    /// The time given had run out before the request was looked at.
    Expired = 8,
    /// The log has failed: whether the write is durable is unknown, and this core takes no more.
    Failed = 9,
    /// A table of this name exists.
    TableExists = 10,
    /// There is no table of this name.
    TableNotFound = 11,
    /// The table is being created or deleted, or is protected against it.
    TableInUse = 12,
    /// The sender belongs to another cluster or speaks no common protocol version.
    Mismatch = 13,
    /// Deletion protection is on for this table.
    Protected = 14,
    /// A user of this name exists.
    UserExists = 15,
    /// There is no user of this name.
    UserNotFound = 16,
    /// Leadership was lost under the write: it may be made or not. Repeating it under its token is safe.
    Unknown = 17,
    /// What was asked for is on a page of the disk that is damaged; nothing was done. Other data is answered.
    Damaged = 18,
}

impl RefusalCode {
    const ALL: [RefusalCode; 18] = [
        RefusalCode::WrongPartition,
        RefusalCode::Overloaded,
        RefusalCode::TableFull,
        RefusalCode::LogFull,
        RefusalCode::Invalid,
        RefusalCode::Unsupported,
        RefusalCode::Forbidden,
        RefusalCode::Expired,
        RefusalCode::Failed,
        RefusalCode::TableExists,
        RefusalCode::TableNotFound,
        RefusalCode::TableInUse,
        RefusalCode::Mismatch,
        RefusalCode::Protected,
        RefusalCode::UserExists,
        RefusalCode::UserNotFound,
        RefusalCode::Unknown,
        RefusalCode::Damaged,
    ];

    /// The code of this number, if this program knows it.
    pub fn from_number(number: u16) -> Option<RefusalCode> {
        RefusalCode::ALL.into_iter().find(|code| *code as u16 == number)
    }

    /// Whether the same request may succeed a little later, and certainly did nothing this time.
    pub fn is_retryable(self) -> bool {
        use RefusalCode as Code;
        matches!(self, Code::WrongPartition | Code::Overloaded | Code::TableFull | Code::LogFull)
    }
}

/// The answer that refuses. Its bytes are the same in every protocol version: it ends greetings.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Refusal {
    /// A [`RefusalCode`] as a number, so that later versions may add codes.
    pub code: u16,
    /// For a person: what was wrong, where, and what to do.
    pub message: String,
}

impl Message for Refusal {
    const KIND: Kind = Kind::Refusal;
}

impl Refusal {
    /// A refusal of this code.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal { code: code as u16, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in RefusalCode::ALL {
            assert_eq!(RefusalCode::from_number(code as u16), Some(code));
        }
        assert_eq!(RefusalCode::from_number(0), None);
    }
}
