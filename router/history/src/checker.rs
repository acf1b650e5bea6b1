//! Linearizability of a whole history, key by key: operations on different keys do not constrain each
//! other, so each key is searched alone.

use crate::event::{Consistency, Request};
use crate::explain::{Explanation, explain};
use crate::history::{History, Operation};
use crate::model::Claim;
use crate::search::{Budget, Found, Span, search};
use std::rc::Rc;

/// How long a check may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Steps of the search for one key, and again for its explanation. A million take about a tenth of a
    /// second.
    pub steps_per_key: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps_per_key: 20_000_000 }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Each key has an order that explains every answer.
    Linearizable {
        /// How many keys were checked.
        keys: usize,
        /// How many operations took part.
        operations: usize,
    },
    /// A key has none; the first such key.
    Violation(Box<Explanation>),
    /// The steps did not suffice for these keys, and no other is wrong.
    Undecided {
        /// The keys.
        keys: Vec<Rc<str>>,
    },
}

impl Verdict {
    /// Whether every key is known to be right.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Verdict::Linearizable { .. })
    }
}

/// Checks the writes and the strong reads of a history. Session and eventual reads promise less and are
/// left to [`crate::reads`].
pub fn check(history: &History, limits: Limits) -> Verdict {
    let (mut operations, mut undecided) = (0, Vec::new());
    let keys = history.keys();
    for key in &keys {
        let (parts, spans) = parts(history.of_key(key));
        operations += spans.len();
        match search(&spans, &mut Budget { steps: limits.steps_per_key }) {
            Found::Order(_) => {}
            Found::Nothing => return Verdict::Violation(Box::new(explain(&parts, &spans, limits))),
            Found::OutOfSteps => undecided.push(Rc::clone(key)),
        }
    }
    if undecided.is_empty() {
        Verdict::Linearizable { keys: keys.len(), operations }
    } else {
        Verdict::Undecided { keys: undecided }
    }
}

/// The operations that linearizability speaks of, and what each claims.
fn parts<'a>(operations: impl Iterator<Item = &'a Operation>) -> (Vec<&'a Operation>, Vec<Span>) {
    let strong = |operation: &&Operation| match operation.request {
        Request::Get { consistency } => consistency == Consistency::Strong,
        _ => true,
    };
    let span = |operation: &'a Operation| {
        let claim = Claim::of(operation)?;
        Some((operation, Span { claim, invoked: operation.invoked, ended: operation.ended() }))
    };
    operations.filter(strong).filter_map(span).unzip()
}
