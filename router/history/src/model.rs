//! The store that a linearizable one is held against: one key of a plain map.

use crate::event::{Image, Outcome, Request};
use crate::history::Operation;

/// A key before anything was written to it.
pub(crate) const INITIAL: Image = Image::Absent;

/// What a client says of an operation: what it asked, and what it was told. Nothing is claimed of the
/// answer of an operation whose outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub request: Request,
    pub answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Nothing is known of it.
    None,
    Ok(Option<Image>),
    ConditionFailed(Option<Image>),
}

impl Claim {
    /// What is claimed of an operation; nothing if it is known to have had no part in the history.
    pub fn of(operation: &Operation) -> Option<Claim> {
        let answer = match operation.outcome() {
            Outcome::Ok { returned } => Answer::Ok(returned),
            Outcome::ConditionFailed { found } => Answer::ConditionFailed(found),
            Outcome::Unknown => Answer::None,
            Outcome::Failed => return None,
        };
        Some(Claim { request: operation.request, answer })
    }

    /// The same operation, of whose end nothing is known.
    pub fn forgotten(self) -> Claim {
        Claim { request: self.request, answer: Answer::None }
    }

    /// Whether it cannot have changed anything.
    pub fn only_observes(&self) -> bool {
        !self.request.writes() || matches!(self.answer, Answer::ConditionFailed(_))
    }

    /// What is there after the operation, if it can happen as claimed when `before` is there.
    pub fn apply(&self, before: Image) -> Option<Image> {
        if let Answer::ConditionFailed(found) = self.answer {
            let fails = matches!(self.request, Request::PutIf { expected, .. } if expected != before);
            return (fails && agrees(found, before)).then_some(before);
        }
        let returned = match self.answer {
            Answer::Ok(returned) => returned,
            Answer::None | Answer::ConditionFailed(_) => None,
        };
        match self.request {
            Request::Get { .. } => agrees(returned, before).then_some(before),
            Request::Put { value } => agrees(returned, before).then_some(Image::Value(value)),
            Request::Delete => agrees(returned, before).then_some(Image::Absent),
            Request::PutIf { expected, value } => {
                (expected == before && agrees(returned, before)).then_some(Image::Value(value))
            }
            Request::Increment { by } => {
                let after = incremented(before, by);
                agrees(returned, after).then_some(after)
            }
        }
    }
}

/// A number that is not there counts as 0; overflow wraps, as no workload means it.
pub(crate) fn incremented(before: Image, by: i64) -> Image {
    match before {
        Image::Absent => Image::Value(by),
        Image::Value(value) => Image::Value(value.wrapping_add(by)),
    }
}

fn agrees(claimed: Option<Image>, real: Image) -> bool {
    claimed.is_none_or(|claimed| claimed == real)
}
