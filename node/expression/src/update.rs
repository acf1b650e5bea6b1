//! Updates: what is written where, and the operands that it is made from.
//!
//! Operands are a list in which each refers only to earlier ones, and each is referred to at most once:
//! trees, kept flat, so that a program from outside can neither loop nor grow when it runs.

use crate::path::{ArchivedPath, Path};
use evenkeel_model::AttributeValue;
use rkyv::{Archive, Serialize};

/// A value that is to be set.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub enum SetOperand {
    /// What the item holds at a path; an error if there is nothing.
    Path(Path),
    /// A constant.
    Value(AttributeValue),
    /// What the item holds at a path, or else the operand of this number.
    IfNotExists(Path, u16),
    /// The elements of two lists.
    ListAppend(u16, u16),
    /// The sum of two numbers.
    Plus(u16, u16),
    /// The difference of two numbers.
    Minus(u16, u16),
}

/// One change of an item.
#[derive(Archive, Serialize, Clone, Debug, PartialEq)]
pub enum Action {
    /// The operand of this number is put at the path.
    Set(Path, u16),
    /// What is at the path is taken away.
    Remove(Path),
    /// A number is added to the one at the path, or members to the set.
    Add(Path, AttributeValue),
    /// Members are taken out of the set at the path.
    Delete(Path, AttributeValue),
}

/// A change of an item.
#[derive(Archive, Serialize, Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// What values are made from; each refers to earlier ones only.
    pub operands: Vec<SetOperand>,
    /// What is changed; no path is the beginning of another.
    pub actions: Vec<Action>,
}

impl Action {
    /// What is written.
    pub fn path(&self) -> &Path {
        match self {
            Action::Set(path, _) | Action::Remove(path) | Action::Add(path, _) | Action::Delete(path, _) => {
                path
            }
        }
    }
}

impl Update {
    /// Appends an operand and yields its number.
    pub fn operand(&mut self, operand: SetOperand) -> u16 {
        self.operands.push(operand);
        u16::try_from(self.operands.len() - 1).expect("an expression of 4 KB has fewer operands")
    }

    /// The paths that are written.
    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        self.actions.iter().map(Action::path)
    }
}

impl ArchivedAction {
    pub(crate) fn path(&self) -> &ArchivedPath {
        match self {
            ArchivedAction::Set(path, _)
            | ArchivedAction::Remove(path)
            | ArchivedAction::Add(path, _)
            | ArchivedAction::Delete(path, _) => path,
        }
    }
}

impl ArchivedUpdate {
    /// Whether it can be run.
    pub(crate) fn is_valid(&self) -> bool {
        let mut taken = vec![false; self.operands.len()];
        // Takes an operand that stands before `end` and was not taken yet.
        let mut take = |number: u16, end: usize| {
            let number = usize::from(number);
            number < end && !std::mem::replace(&mut taken[number], true)
        };
        let operands = self.operands.iter().enumerate().all(|(at, operand)| match operand {
            ArchivedSetOperand::Path(path) => path.is_valid(),
            ArchivedSetOperand::Value(value) => value.checked_size_bytes().is_some(),
            ArchivedSetOperand::IfNotExists(path, other) => path.is_valid() && take((*other).into(), at),
            ArchivedSetOperand::ListAppend(a, b)
            | ArchivedSetOperand::Plus(a, b)
            | ArchivedSetOperand::Minus(a, b) => take((*a).into(), at) && take((*b).into(), at),
        });
        let end = self.operands.len();
        operands
            && self.actions.iter().all(|action| {
                action.path().is_valid()
                    && match action {
                        ArchivedAction::Set(_, operand) => take((*operand).into(), end),
                        ArchivedAction::Remove(_) => true,
                        ArchivedAction::Add(_, value) | ArchivedAction::Delete(_, value) => {
                            value.checked_size_bytes().is_some()
                        }
                    }
            })
    }
}
