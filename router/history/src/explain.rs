//! Why a history of one key is not linearizable, for a person to read.
//!
//! Two views. The *longest prefix*: up to which answer an order still existed, and one such order. The
//! *core*: few operations that contradict each other whatever the others did. An operation that only
//! observes is left out of the core if the rest is a contradiction without it. A write is left out
//! only if the rest is a contradiction even when the write may take effect at any time or never, and
//! if nothing in the core speaks of its value: a read alone, without the write that it saw, contradicts
//! nothing but the reader's patience. What began after the last answer that counts was too late to
//! explain it, and is left out too.

use crate::checker::Limits;
use crate::event::{Consistency, Image, Request};
use crate::history::Operation;
use crate::model::{Answer, Claim, INITIAL};
use crate::search::{Budget, Found, Span, search};
use std::fmt;

/// Operations of an order that are shown, counted from its end.
const ORDER_SHOWN_MAX: usize = 12;

/// An operation in an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The operation.
    pub operation: Operation,
    /// What is there after it.
    pub after: Image,
}

/// A proof that the operations on one key have no order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The key.
    pub key: String,
    /// How many operations on it took part.
    pub operations: usize,
    /// An order of the longest prefix that has one; empty if it was not found within the limits.
    pub prefix: Vec<Placed>,
    /// The operation whose answer has no place in any order.
    pub culprit: Operation,
    /// Operations that contradict each other, by beginning.
    pub core: Vec<Operation>,
}

/// Explains why `spans`, of which there is no order, have none. `operations` are the same ones.
pub(crate) fn explain(operations: &[&Operation], spans: &[Span], limits: Limits) -> Explanation {
    let mut budget = Budget { steps: limits.steps_per_key };
    let ends = by_end(spans);
    let failing = shortest_failing(spans, &ends, &mut budget);
    let culprit = ends[failing - 1];
    let order = match search(&cut(spans, &ends, failing - 1), &mut budget) {
        Found::Order(order) => order,
        Found::Nothing | Found::OutOfSteps => Vec::new(),
    };
    let until = spans[culprit].ended.unwrap_or(u64::MAX);
    let core = Core::of(cut(spans, &ends, failing), until).reduce(&mut budget);
    let mut core: Vec<_> = core.into_iter().map(|index| operations[index].clone()).collect();
    core.sort_by_key(|operation| operation.invoked);
    Explanation {
        key: operations[culprit].key.to_string(),
        operations: operations.len(),
        prefix: placed(operations, spans, &ends[..failing - 1], &order),
        culprit: operations[culprit].clone(),
        core,
    }
}

/// The operations that ended, by when they did.
fn by_end(spans: &[Span]) -> Vec<usize> {
    let mut ends: Vec<_> = (0..spans.len()).filter(|&index| spans[index].ended.is_some()).collect();
    ends.sort_by_key(|&index| (spans[index].ended, spans[index].invoked));
    ends
}

/// The history as it was known after the first `count` ends.
fn cut(spans: &[Span], ends: &[usize], count: usize) -> Vec<Span> {
    let mut prefix = spans.to_vec();
    for &index in &ends[count..] {
        prefix[index] = Span { claim: spans[index].claim.forgotten(), ended: None, ..spans[index] };
    }
    prefix
}

/// The least number of ends after which there is no order. Every longer prefix has none either; what
/// cannot be decided counts as explained.
fn shortest_failing(spans: &[Span], ends: &[usize], budget: &mut Budget) -> usize {
    let (mut explained, mut failing) = (0, ends.len());
    while failing - explained > 1 {
        let middle = usize::midpoint(explained, failing);
        if search(&cut(spans, ends, middle), budget) == Found::Nothing {
            failing = middle;
        } else {
            explained = middle;
        }
    }
    failing
}

fn placed(operations: &[&Operation], spans: &[Span], ended: &[usize], order: &[usize]) -> Vec<Placed> {
    let mut image = INITIAL;
    let place = |&index: &usize| {
        let claim = spans[index].claim;
        let claim = if ended.contains(&index) { claim } else { claim.forgotten() };
        image = claim.apply(image).expect("the order was found by the same rules");
        Placed { operation: operations[index].clone(), after: image }
    };
    order.iter().map(place).collect()
}

/// An operation that plays no part: a read of unknown outcome.
const NOTHING: Claim =
    Claim { request: Request::Get { consistency: Consistency::Strong }, answer: Answer::None };

/// A history that has no order, and what is left to show of it.
struct Core {
    spans: Vec<Span>,
    shown: Vec<bool>,
}

impl Core {
    /// Everything is shown but what cannot play a part: reads of unknown outcome, and what began after the
    /// last end that counts.
    fn of(spans: Vec<Span>, until: u64) -> Core {
        let plays =
            |span: &Span| span.invoked <= until && (span.ended.is_some() || !span.claim.only_observes());
        let late = |span: Span| match span.invoked <= until {
            true => span,
            false => Span { claim: NOTHING, ..span },
        };
        let shown = spans.iter().map(plays).collect();
        Core { spans: spans.into_iter().map(late).collect(), shown }
    }

    /// Hides as much as it can, many at once first; returns what is left.
    fn reduce(mut self, budget: &mut Budget) -> Vec<usize> {
        let mut chunk = self.spans.len().div_ceil(2);
        loop {
            let mut progress = false;
            let shown = self.indexes();
            for indexes in shown.chunks(chunk) {
                progress |= self.try_hide(indexes, budget);
            }
            if chunk > 1 {
                chunk = chunk.div_ceil(2);
            } else if !progress || budget.steps == 0 {
                return self.indexes();
            }
        }
    }

    fn indexes(&self) -> Vec<usize> {
        (0..self.spans.len()).filter(|&index| self.shown[index]).collect()
    }

    /// Hides `indexes`, but for writes that what remains speaks of, if the rest still has no order.
    fn try_hide(&mut self, indexes: &[usize], budget: &mut Budget) -> bool {
        let mut shown = self.shown.clone();
        for &index in indexes {
            shown[index] = false;
        }
        let mentioned = |index: &usize| {
            let claim = &self.spans[*index].claim;
            let others = (0..shown.len()).filter(|other| shown[*other]);
            written(claim).is_some_and(|value| others.into_iter().any(|other| self.speaks_of(other, value)))
        };
        let spared: Vec<usize> = indexes.iter().copied().filter(mentioned).collect();
        for &index in &spared {
            shown[index] = true;
        }
        if spared.len() == indexes.len() || search(&self.weakened(&shown), budget) != Found::Nothing {
            return false;
        }
        self.shown = shown;
        true
    }

    fn speaks_of(&self, index: usize, value: i64) -> bool {
        observed(&self.spans[index].claim).contains(&Some(Image::Value(value)))
    }

    /// The history in which what is not shown is gone, or may have happened at any time or never.
    fn weakened(&self, shown: &[bool]) -> Vec<Span> {
        let weaken = |(span, shown): (&Span, &bool)| match shown {
            true => Some(*span),
            false if span.claim.only_observes() => None,
            false => Some(Span { claim: span.claim.forgotten(), invoked: 0, ended: None }),
        };
        self.spans.iter().zip(shown).filter_map(weaken).collect()
    }
}

/// The number a write puts there, if it says so itself.
fn written(claim: &Claim) -> Option<i64> {
    match claim.request {
        Request::Put { value } | Request::PutIf { value, .. } if !claim.only_observes() => Some(value),
        _ => None,
    }
}

/// What an operation claims to have found.
fn observed(claim: &Claim) -> [Option<Image>; 2] {
    let expected = match claim.request {
        Request::PutIf { expected, .. } => Some(expected),
        _ => None,
    };
    let found = match claim.answer {
        Answer::Ok(image) | Answer::ConditionFailed(image) => image,
        Answer::None => None,
    };
    let before = match (claim.request, found) {
        (Request::Increment { by }, Some(Image::Value(after))) => Some(Image::Value(after.wrapping_sub(by))),
        _ => found,
    };
    [expected, before]
}

struct Line<'a>(&'a Operation);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.0;
        let end = operation.ended().map_or_else(|| "…".to_owned(), |end| end.to_string());
        let time = format!("[{}, {end}]", operation.invoked);
        let Operation { id, client, request, .. } = operation;
        write!(f, "    {time:<22} client {client:<3} operation {id:<6} {request}: {}", operation.outcome())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "key {:?}: no order of its {} operations explains all answers",
            self.key, self.operations
        )?;
        let hidden = self.prefix.len().saturating_sub(ORDER_SHOWN_MAX);
        writeln!(f, "an order of the longest prefix that has one:")?;
        if hidden > 0 {
            writeln!(f, "    … {hidden} before")?;
        }
        for Placed { operation, after } in &self.prefix[hidden..] {
            writeln!(f, "{} → {after}", Line(operation))?;
        }
        writeln!(f, "no order has a place for:\n{}", Line(&self.culprit))?;
        let others = self.operations - self.core.len();
        writeln!(f, "these contradict each other, whatever the {others} others did:")?;
        for operation in &self.core {
            writeln!(f, "{}", Line(operation))?;
        }
        Ok(())
    }
}
