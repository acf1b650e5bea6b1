//! Programs as bytes: archived by whoever sends them, checked by whoever runs them.

use crate::condition::{ArchivedCondition, Condition};
use crate::update::{ArchivedUpdate, Update};
use evenkeel_model::ItemView;
use evenkeel_model::limits::NESTING_LEVELS_MAX;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Portable, Serialize};

/// How deep the archive of a program nests: a value in a list of operands of a list of tests.
const ARCHIVE_DEPTH_MAX: usize = 2 * NESTING_LEVELS_MAX + 12;
/// Most bytes of a program: an expression and the values it may carry, with room for their archive.
const PROGRAM_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why bytes are not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// More than any expression needs.
    #[error("a program of {0} bytes exceeds {PROGRAM_BYTES_MAX} bytes")]
    TooLarge(usize),
    /// The archive is malformed.
    #[error("malformed program: {0}")]
    Malformed(String),
    /// The archive holds what cannot be run.
    #[error("invalid program: a path, value or reference in it is not allowed")]
    Invalid,
}

fn encode(
    program: &impl for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, rancor::Panic>>,
) -> Vec<u8> {
    let result: Result<Vec<u8>, rancor::Panic> = rkyv::api::high::to_bytes_in(program, Vec::new());
    match result {
        Ok(bytes) => bytes,
    }
}

fn access<T>(bytes: &[u8]) -> Result<&T, ProgramError>
where
    T: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    if bytes.len() > PROGRAM_BYTES_MAX {
        return Err(ProgramError::TooLarge(bytes.len()));
    }
    let depth = std::num::NonZeroUsize::new(ARCHIVE_DEPTH_MAX);
    let mut validator =
        Validator::new(ArchiveValidator::with_max_depth(bytes, depth), SharedValidator::new());
    rkyv::api::access_with_context::<T, _, rancor::Error>(bytes, &mut validator)
        .map_err(|error| ProgramError::Malformed(error.to_string()))
}

impl Condition {
    /// The condition as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

impl Update {
    /// The update as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// A condition, checked, run in place.
#[derive(Clone, Copy)]
pub struct ConditionView<'a>(&'a ArchivedCondition);

impl<'a> ConditionView<'a> {
    /// Checks bytes from outside.
    ///
    /// # Errors
    /// Anything that is not a condition which can be run.
    pub fn check(bytes: &'a [u8]) -> Result<ConditionView<'a>, ProgramError> {
        let condition: &ArchivedCondition = access(bytes)?;
        if condition.is_valid() { Ok(ConditionView(condition)) } else { Err(ProgramError::Invalid) }
    }

    /// Whether the condition holds for an item, or for no item.
    pub fn holds(&self, item: Option<&ItemView<'_>>) -> bool {
        self.0.holds(item)
    }
}

/// An update, checked.
#[derive(Clone, Copy)]
pub struct UpdateView<'a>(pub(crate) &'a ArchivedUpdate);

impl<'a> UpdateView<'a> {
    /// Checks bytes from outside.
    ///
    /// # Errors
    /// Anything that is not an update which can be run.
    pub fn check(bytes: &'a [u8]) -> Result<UpdateView<'a>, ProgramError> {
        let update: &ArchivedUpdate = access(bytes)?;
        if update.is_valid() { Ok(UpdateView(update)) } else { Err(ProgramError::Invalid) }
    }
}
