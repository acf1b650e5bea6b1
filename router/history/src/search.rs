//! The search for an order: Wing and Gong's, with the list of Lowe and the memo of Porcupine.
//!
//! Depth first, the next operation of the order is any that began before the first end among those left
//! (what ended earlier would have to come earlier). A list of beginnings and ends, from which an operation
//! is lifted and into which it is put back in constant time, makes these the ones before the first end.
//! A node of the search (which operations are done, and what is there now) is visited once; the memo holds
//! whole nodes, not their hashes, so two nodes are never taken for one.
//!
//! An operation that only observes, may come next and is right now is taken at once, and nothing in its
//! place: in any order that goes on from here it could as well come first.
//!
//! Operations that must be in the order are *required*. Those of unknown outcome are *optional*: they never
//! end, and may be left out. They would double the search each, if two rules did not keep orders apart
//! from which an equivalent one can be made:
//! - Of equal optional operations the one that began first is taken first.
//! - An optional operation is not followed by one that makes it useless, or that might as well come before
//!   it ([`Search::redundant`]). Moving optional operations back and dropping them as long as it can be
//!   done ends, so every order has an equivalent one that the search does not skip. As the rule
//!   depends on the operation taken last, that is part of a node, if it was optional.

use crate::event::Image;
use crate::model::{Claim, INITIAL};
use std::collections::HashSet;

/// An operation of one key, as the search sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub claim: Claim,
    pub invoked: u64,
    /// When it ended; an operation that did not is optional.
    pub ended: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Indexes of the operations in an order that explains them; optional ones may be missing.
    Order(Vec<usize>),
    /// There is no such order.
    Nothing,
    /// The steps were used up before it was known.
    OutOfSteps,
}

/// Steps that searches may still take. A step tries one operation at one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub steps: u64,
}

/// Looks for an order of `spans`, from the initial image.
pub(crate) fn search(spans: &[Span], budget: &mut Budget) -> Found {
    let mut search = Search::new(spans);
    let mut cursor = search.first();
    while search.left > 0 {
        let Some(candidate) = search.candidate(cursor) else {
            let Some(frame) = search.stack.pop() else { return Found::Nothing };
            cursor = search.undo(frame);
            continue;
        };
        if budget.steps == 0 {
            return Found::OutOfSteps;
        }
        budget.steps -= 1;
        let only = matches!(cursor, Cursor::Only(_));
        cursor = match search.take(candidate, only) {
            true => search.first(),
            false if only => Cursor::None,
            false => search.after(candidate),
        };
    }
    let operation = |frame: &Frame| search.operation(frame.taken);
    Found::Order(search.stack.iter().map(operation).collect())
}

/// The list's head; the nodes 2r + 1 and 2r + 2 are the beginning and the end of required operation r.
const HEAD: usize = 0;

/// An operation at a place where the search can go on from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// The number of a required operation.
    Required(usize),
    /// The number of an optional operation.
    Optional(usize),
}

/// Where to look for the next candidate.
#[derive(Clone, Copy, Debug)]
enum Cursor {
    /// This required operation, and no other.
    Only(usize),
    Node(usize),
    Optional(usize),
    None,
}

/// One operation of the order so far.
#[derive(Clone, Copy, Debug)]
struct Frame {
    taken: Taken,
    /// Whether nothing else need be tried in its place.
    only: bool,
    before: Image,
}

struct Search<'a> {
    spans: &'a [Span],
    /// Required operations by beginning, as indexes of spans.
    required: Vec<usize>,
    /// Optional operations by beginning, as indexes of spans.
    optional: Vec<usize>,
    /// For each optional operation an equal one that began no later.
    twins: Vec<Option<usize>>,
    next: Vec<usize>,
    previous: Vec<usize>,
    required_done: Bits,
    optional_done: Bits,
    /// Required operations that are not done.
    left: usize,
    image: Image,
    stack: Vec<Frame>,
    memo: HashSet<Box<[u64]>>,
    /// The node at hand, as the memo holds it.
    node: Vec<u64>,
}

impl<'a> Search<'a> {
    fn new(spans: &'a [Span]) -> Search<'a> {
        let by_beginning = |wanted: fn(&Span) -> bool| {
            let mut indexes: Vec<_> = (0..spans.len()).filter(|&index| wanted(&spans[index])).collect();
            indexes.sort_by_key(|&index| spans[index].invoked);
            indexes
        };
        let required = by_beginning(|span| span.ended.is_some());
        // What is unknown and changes nothing is no part of any order.
        let optional = by_beginning(|span| span.ended.is_none() && !span.claim.only_observes());
        let (next, previous) = links(spans, &required);
        Search {
            twins: twins(spans, &optional),
            required_done: Bits::new(required.len()),
            optional_done: Bits::new(optional.len()),
            left: required.len(),
            spans,
            required,
            optional,
            next,
            previous,
            image: INITIAL,
            stack: Vec::new(),
            memo: HashSet::new(),
            node: Vec::new(),
        }
    }

    fn operation(&self, taken: Taken) -> usize {
        match taken {
            Taken::Required(number) => self.required[number],
            Taken::Optional(number) => self.optional[number],
        }
    }

    fn claim(&self, taken: Taken) -> &'a Claim {
        &self.spans[self.operation(taken)].claim
    }

    /// Where to begin at a new node: with an operation that only observes and is right now, if there is one.
    fn first(&self) -> Cursor {
        let mut node = self.next[HEAD];
        while self.left > 0 && is_beginning(node) {
            let claim = self.claim(Taken::Required(number(node)));
            if claim.only_observes() && claim.apply(self.image).is_some() {
                return Cursor::Only(number(node));
            }
            node = self.next[node];
        }
        Cursor::Node(self.next[HEAD])
    }

    fn after(&self, taken: Taken) -> Cursor {
        match taken {
            Taken::Required(number) => Cursor::Node(self.next[beginning(number)]),
            Taken::Optional(number) => Cursor::Optional(number + 1),
        }
    }

    /// The next operation from `cursor` on that nothing left ended before.
    fn candidate(&self, cursor: Cursor) -> Option<Taken> {
        let from = match cursor {
            Cursor::None => return None,
            Cursor::Only(number) => return Some(Taken::Required(number)),
            Cursor::Node(node) if is_beginning(node) => return Some(Taken::Required(number(node))),
            Cursor::Node(_) => 0,
            Cursor::Optional(from) => from,
        };
        let first_end = self.first_end();
        let open = |number: &usize| {
            let twin_waits = self.twins[*number].is_some_and(|twin| !self.optional_done.has(twin));
            !self.optional_done.has(*number) && !twin_waits
        };
        let begun = |number: &usize| self.spans[self.optional[*number]].invoked <= first_end;
        (from..self.optional.len()).take_while(begun).find(open).map(Taken::Optional)
    }

    /// When the first of the required operations that are left ended.
    fn first_end(&self) -> u64 {
        let mut node = self.next[HEAD];
        while is_beginning(node) {
            node = self.next[node];
        }
        self.spans[self.required[number(node)]].ended.expect("required operations have ended")
    }

    /// Goes on with `taken`, if it is possible at this node and leads to one that was not visited.
    fn take(&mut self, taken: Taken, only: bool) -> bool {
        let Some(after) = self.claim(taken).apply(self.image) else { return false };
        if self.stack.last().is_some_and(|last| self.redundant(*last, taken, after)) {
            return false;
        }
        self.set(taken, true);
        let frame = Frame { taken, only, before: std::mem::replace(&mut self.image, after) };
        self.describe(frame);
        if self.memo.contains(self.node.as_slice()) {
            self.image = frame.before;
            self.set(taken, false);
            return false;
        }
        self.memo.insert(self.node.as_slice().into());
        if let Taken::Required(number) = taken {
            self.lift(number);
        }
        self.stack.push(frame);
        true
    }

    fn undo(&mut self, frame: Frame) -> Cursor {
        if let Taken::Required(number) = frame.taken {
            self.put_back(number);
        }
        self.set(frame.taken, false);
        self.image = frame.before;
        if frame.only { Cursor::None } else { self.after(frame.taken) }
    }

    /// Whether `taken`, which makes `after`, need not be looked at behind the optional operation `last`:
    /// it would have made the same without it, or the two could change places. Two optional operations are
    /// kept in the order of their numbers.
    fn redundant(&self, last: Frame, taken: Taken, after: Image) -> bool {
        let Taken::Optional(last_number) = last.taken else { return false };
        let Some(alone) = self.claim(taken).apply(last.before) else { return false };
        let may_swap = match taken {
            Taken::Required(_) => true,
            Taken::Optional(number) => number < last_number,
        };
        alone == after || may_swap && self.claim(last.taken).apply(alone) == Some(after)
    }

    fn set(&mut self, taken: Taken, done: bool) {
        match taken {
            Taken::Required(number) => self.required_done.set(number, done),
            Taken::Optional(number) => self.optional_done.set(number, done),
        }
        if matches!(taken, Taken::Required(_)) {
            self.left = if done { self.left - 1 } else { self.left + 1 };
        }
    }

    /// Writes the node that `last` led to into `self.node`: a part of fixed length, then what differs from
    /// "everything up to here is done, nothing behind".
    fn describe(&mut self, last: Frame) {
        self.node.clear();
        let (last_number, last_before) = match last.taken {
            Taken::Required(_) => (u64::MAX, INITIAL),
            Taken::Optional(number) => (number as u64, last.before),
        };
        let window = self.required_done.window();
        self.node.extend([window.start as u64, last_number]);
        self.node.extend(words(self.image));
        self.node.extend(words(last_before));
        self.node.extend(&self.optional_done.words);
        self.node.extend(&self.required_done.words[window]);
    }

    fn lift(&mut self, number: usize) {
        for node in [beginning(number), end(number)] {
            let (before, behind) = (self.previous[node], self.next[node]);
            self.next[before] = behind;
            if let Some(link) = self.previous.get_mut(behind) {
                *link = before;
            }
        }
    }

    /// Undoes [`lift`](Self::lift); only right in the reverse order of lifting.
    fn put_back(&mut self, number: usize) {
        for node in [end(number), beginning(number)] {
            let (before, behind) = (self.previous[node], self.next[node]);
            self.next[before] = node;
            if let Some(link) = self.previous.get_mut(behind) {
                *link = node;
            }
        }
    }
}

fn beginning(number: usize) -> usize {
    2 * number + 1
}

fn end(number: usize) -> usize {
    2 * number + 2
}

fn is_beginning(node: usize) -> bool {
    node % 2 == 1
}

fn number(node: usize) -> usize {
    (node - 1) / 2
}

/// The list of beginnings and ends by time, at the same time beginnings first. The last node's next is
/// behind all nodes.
fn links(spans: &[Span], required: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let nodes = 2 * required.len() + 1;
    let mut order: Vec<usize> = (1..nodes).collect();
    order.sort_by_key(|&node| {
        let span = &spans[required[number(node)]];
        if is_beginning(node) { (span.invoked, false) } else { (span.ended.unwrap_or(u64::MAX), true) }
    });
    let (mut next, mut previous) = (vec![nodes; nodes], vec![HEAD; nodes]);
    let mut last = HEAD;
    for node in order {
        next[last] = node;
        previous[node] = last;
        last = node;
    }
    (next, previous)
}

fn twins(spans: &[Span], optional: &[usize]) -> Vec<Option<usize>> {
    let mut newest = std::collections::HashMap::new();
    let twin = |(number, &index): (usize, &usize)| newest.insert(spans[index].claim.request, number);
    optional.iter().enumerate().map(twin).collect()
}

fn words(image: Image) -> [u64; 2] {
    match image {
        Image::Absent => [0, 0],
        Image::Value(value) => [1, value.cast_unsigned()],
    }
}

/// A set of small numbers.
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn new(count: usize) -> Bits {
        Bits { words: vec![0; count.div_ceil(64)] }
    }

    fn has(&self, number: usize) -> bool {
        self.words[number / 64] >> (number % 64) & 1 == 1
    }

    fn set(&mut self, number: usize, on: bool) {
        let bit = 1 << (number % 64);
        if on { self.words[number / 64] |= bit } else { self.words[number / 64] &= !bit }
    }

    /// The words between those that are full and those that are empty.
    fn window(&self) -> std::ops::Range<usize> {
        let start = self.words.iter().take_while(|&&word| word == u64::MAX).count();
        let empty = self.words.iter().rev().take_while(|&&word| word == 0).count();
        start..(self.words.len() - empty).max(start)
    }
}
