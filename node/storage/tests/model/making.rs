//! What a flip makes durable, beside the log: to its end, or up to a crash, which leaves nothing or all of it.

use crate::{
    facts::Fact,
    weather::is_excused,
    world::{End, World, broken},
};
use evenkeel_storage::{CheckpointError, LoadError, Runtime, SplitError};
use std::time::Duration;

/// Longer than the log takes to write what it was given.
const WRITTEN_WITHIN: Duration = Duration::from_millis(40);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    Done,
    Cut,
    Refused,
}

/// Why it was not made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("it is made, which is not durable yet: {0}")]
    NotDurable(CheckpointError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the log does not take it now")]
    Busy,
    #[error("{0}")]
    Other(String),
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotDurable { reason, .. } => Failure::NotDurable(reason),
            LoadError::Checkpoint(error) => Failure::Checkpoint(error),
            error => Failure::Other(error.to_string()),
        }
    }
}

impl From<SplitError> for Failure {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::NotDurable { reason, .. } => Failure::NotDurable(reason),
            SplitError::Checkpoint(error) => Failure::Checkpoint(error),
            SplitError::Refused(_) => Failure::Busy,
            error => Failure::Other(error.to_string()),
        }
    }
}

impl World {
    /// Has something made, which is `fact` if it is any news.
    pub fn make(
        &mut self,
        fact: Option<Fact>,
        making: impl Future<Output = Result<(), Failure>> + 'static,
    ) -> Result<Made, End> {
        if self.random.once_in(3) {
            self.runtime.spawn(async move { drop(making.await) });
            self.cut(fact)?;
            return Ok(Made::Cut);
        }
        match self.runtime.block_on(&self.disk, making) {
            Ok(()) => {
                if let Some(fact) = fact {
                    self.learned(fact, std::future::ready(Ok::<(), Failure>(())));
                }
                Ok(Made::Done)
            }
            Err(Failure::NotDurable(reason)) if is_excused(self.weather, &reason) => {
                self.cut(fact)?;
                Ok(Made::Cut)
            }
            Err(Failure::Busy) => Ok(Made::Refused),
            Err(Failure::Checkpoint(error)) if self.may_fail(&error) => Ok(Made::Refused),
            Err(error) => Err(broken(error)),
        }
    }

    /// A crash, some way into it.
    fn cut(&mut self, fact: Option<Fact>) -> Result<(), End> {
        for _ in 0..self.random.below(24) {
            self.runtime.run_ready();
            self.disk.complete_oldest();
        }
        if let Some(fact) = fact {
            self.learned(fact, std::future::pending::<Result<(), Failure>>());
        }
        self.crash()
    }

    /// Whether a merge may fail like this: for the weather, or because another is under way.
    pub fn may_fail(&self, error: &CheckpointError) -> bool {
        let is_busy = matches!(error, CheckpointError::UnderWay { .. } | CheckpointError::Pinned(_));
        is_busy || is_excused(self.weather, error)
    }

    /// Has everything written that was appended: what writes nothing into the log comes behind it. Yields whether it
    /// could be done.
    pub fn write_everything(&mut self) -> bool {
        self.runtime.pass(&self.disk, WRITTEN_WITHIN);
        *self.acknowledged.borrow() == self.facts.len() && !self.is_stopped()
    }

    /// A few items, each of one byte over and over.
    pub fn some_items(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let item = |world: &mut World| {
            let key = format!("k{}", world.random.below(40)).into_bytes();
            let bytes = if world.random.once_in(15) { 9000 } else { world.random.below(600) };
            (key, vec![world.random.bits() as u8; bytes as usize])
        };
        (0..self.random.below(40)).map(|_| item(self)).collect()
    }
}
