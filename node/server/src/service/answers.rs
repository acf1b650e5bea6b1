//! What a request is answered with that was not carried out: a refusal, or the way to another member.

use crate::control::ControlError;
use crate::links;
use bytes::Bytes;
use evenkeel_expression::ProgramError;
use evenkeel_partition::{CreateError, Outcome, ReadError, WriteError};
use evenkeel_storage::{PartitionError, Refused, Shared};
use evenkeel_wire::message::{ConditionFailed, Redirect, Written};
use evenkeel_wire::{DecodeError, FrameHeader, Message, Refusal, RefusalCode, encode};

/// Why a request was not carried out.
pub enum Unanswered {
    /// It is refused.
    Refusal(Refusal),
    /// Another member can do it.
    Elsewhere(Box<evenkeel_partition::Redirect>),
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Unanswered {
        Unanswered::Refusal(refusal)
    }
}

impl Unanswered {
    /// A refusal of this code.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Unanswered {
        Unanswered::Refusal(Refusal::new(code, message))
    }

    /// The frame that says so.
    pub fn reply(&self, header: &FrameHeader) -> Bytes {
        match self {
            Unanswered::Refusal(refusal) => reply(header, refusal),
            Unanswered::Elsewhere(redirect) => reply(header, &redirect_of(redirect)),
        }
    }
}

/// The frame of an answer.
pub fn reply<M: Message>(header: &FrameHeader, message: &M) -> Bytes {
    encode(message, header.request_id, 0)
}

/// A redirect as it stands on the wire.
pub fn redirect_of(redirect: &evenkeel_partition::Redirect) -> Redirect {
    Redirect { leader: redirect.leader.map(|leader| leader.0), members: links::membership(&redirect.members) }
}

/// The answer to a write.
pub fn write_reply(header: &FrameHeader, outcome: &Outcome) -> Bytes {
    match outcome {
        Outcome::Written(done) => {
            let written = Written { slot: done.slot, old: done.old.as_deref(), new: done.new.as_deref() };
            reply(header, &written)
        }
        Outcome::ConditionFailed { old } => reply(header, &ConditionFailed { old: old.as_deref() }),
    }
}

/// The sender's program is malformed.
pub fn bad_program(error: ProgramError) -> Unanswered {
    Unanswered::new(RefusalCode::Invalid, error.to_string())
}

/// The sender's message is malformed.
pub fn malformed(error: DecodeError) -> Unanswered {
    Unanswered::new(RefusalCode::Invalid, error.to_string())
}

/// A refusal of the engine, which says when to try again.
fn refusal_of(refused: &Refused) -> Refusal {
    let message = match refused.retry_after() {
        Some(after) => format!("{refused}; try again after {} ms", after.as_millis()),
        None => refused.to_string(),
    };
    Refusal::new(refused_code(refused), message)
}

fn refused_code(refused: &Refused) -> RefusalCode {
    match refused {
        Refused::TableFull { .. } | Refused::AboveShare { of: Shared::Tables, .. } => RefusalCode::TableFull,
        Refused::LogFull { .. } | Refused::AboveShare { of: Shared::Log, .. } => RefusalCode::LogFull,
        Refused::Busy => RefusalCode::Overloaded,
        Refused::TooLarge { .. } => RefusalCode::Invalid,
    }
}

impl From<ReadError> for Unanswered {
    fn from(error: ReadError) -> Unanswered {
        let code = match error {
            ReadError::NotLeader(redirect) => return Unanswered::Elsewhere(redirect),
            ReadError::NotOwned(_) | ReadError::Engine(evenkeel_storage::ReadError::Unknown { .. }) => {
                RefusalCode::WrongPartition
            }
            ReadError::Item(_) => RefusalCode::Failed,
            ReadError::Engine(evenkeel_storage::ReadError::Tree(_)) => RefusalCode::Damaged,
        };
        Unanswered::new(code, error.to_string())
    }
}

impl From<WriteError> for Unanswered {
    fn from(error: WriteError) -> Unanswered {
        let code = match &error {
            WriteError::NotLeader(redirect) => return Unanswered::Elsewhere(redirect.clone()),
            WriteError::NotOwned(_) | WriteError::Read(evenkeel_storage::ReadError::Unknown { .. }) => {
                RefusalCode::WrongPartition
            }
            WriteError::KeyBytes(_) | WriteError::Item(_) | WriteError::Update(_) | WriteError::Stale => {
                RefusalCode::Invalid
            }
            WriteError::Refused(refused) => return refusal_of(refused).into(),
            WriteError::Unknown => RefusalCode::Unknown,
            WriteError::Log(_) => RefusalCode::Failed,
            WriteError::Read(evenkeel_storage::ReadError::Tree(_)) => RefusalCode::Damaged,
        };
        Unanswered::new(code, error.to_string())
    }
}

impl From<CreateError> for Unanswered {
    fn from(error: CreateError) -> Unanswered {
        let code = match &error {
            CreateError::Row { .. } | CreateError::Generation { .. } => RefusalCode::Invalid,
            CreateError::Engine(PartitionError::Refused(refused)) => refused_code(refused),
            CreateError::Engine(PartitionError::Log(_)) => RefusalCode::Failed,
            CreateError::Engine(PartitionError::Exists { .. } | PartitionError::Unknown { .. }) => {
                RefusalCode::WrongPartition
            }
        };
        Unanswered::new(code, error.to_string())
    }
}

impl From<ControlError> for Unanswered {
    fn from(error: ControlError) -> Unanswered {
        let code = match &error {
            ControlError::Invalid(_) => RefusalCode::Invalid,
            ControlError::Exists(_) => RefusalCode::TableExists,
            ControlError::NotFound(_) => RefusalCode::TableNotFound,
            ControlError::InUse { .. } => RefusalCode::TableInUse,
            ControlError::Protected(_) => RefusalCode::Protected,
            ControlError::UserExists(_) => RefusalCode::UserExists,
            ControlError::UserNotFound(_) => RefusalCode::UserNotFound,
            ControlError::OtherDisk(_) => RefusalCode::Forbidden,
            ControlError::Write(error) => return error.clone().into(),
            ControlError::Read(error) => return error.clone().into(),
            ControlError::Malformed { .. } => RefusalCode::Failed,
        };
        Unanswered::new(code, error.to_string())
    }
}
