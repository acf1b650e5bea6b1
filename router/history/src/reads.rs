//! Reads that may be old: what they must not see all the same.
//!
//! Both checks are sound, not complete: what they report is wrong, whatever order the writes had; they look
//! for no order, so they decide any history in time that is nearly linear.

use crate::event::{Consistency, Image, Outcome, Request};
use crate::history::{History, Operation};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A read that saw what nobody can have written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unchosen {
    /// The read.
    pub read: Operation,
    /// What it saw.
    pub seen: i64,
}

/// A read of a session that saw an older state than one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WentBack {
    /// The read before.
    pub earlier: Operation,
    /// The read that is older.
    pub later: Operation,
}

impl fmt::Display for Unchosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { id, client, key, request, .. } = &self.read;
        let seen = self.seen;
        write!(f, "key {key:?}: operation {id} of client {client}, {request}, saw {seen}, which nobody wrote")
    }
}

impl fmt::Display for WentBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WentBack { earlier, later } = self;
        let (key, client) = (&later.key, later.client);
        let images = seen(earlier).zip(seen(later));
        let (first, second) = images.expect("both reads saw something");
        let (first_id, second_id) = (earlier.id, later.id);
        write!(
            f,
            "key {key:?}: client {client} saw {first} in operation {first_id} and older, {second}, in operation {second_id}"
        )
    }
}

/// Reads of any consistency that saw a number which no operation wrote that had begun and may have taken
/// effect.
///
/// Where increments without a known result are among the writes, a number counts as written if some
/// of them can have added up to it.
pub fn unchosen(history: &History) -> Vec<Unchosen> {
    let of_key = |key: &std::rc::Rc<str>| {
        let mut events: Vec<_> = history.of_key(key).collect();
        // Writes by beginning, reads by end: a read sees what began before it was over.
        events.sort_by_key(|operation| match operation.request.writes() {
            true => (operation.invoked, false),
            false => (operation.ended().unwrap_or(u64::MAX), true),
        });
        let mut written = Written::default();
        let wrong = |operation: &&Operation| {
            if operation.request.writes() {
                written.add(operation);
                return None;
            }
            let Some(Image::Value(seen)) = seen(operation) else { return None };
            (!written.may_be(seen)).then(|| Unchosen { read: (*operation).clone(), seen })
        };
        events.iter().filter_map(wrong).collect::<Vec<_>>()
    };
    history.keys().iter().flat_map(of_key).collect()
}

/// Numbers that may have been chosen.
#[derive(Default)]
struct Written {
    exactly: BTreeSet<i64>,
    /// Whether the result of an increment is not known.
    open: bool,
    /// What all increments together add at most, downwards.
    down: i128,
    /// And upwards.
    up: i128,
}

impl Written {
    fn add(&mut self, write: &Operation) {
        if !write.may_have_written() {
            return;
        }
        match (write.request, write.outcome()) {
            (Request::Put { value } | Request::PutIf { value, .. }, _) => {
                self.exactly.insert(value);
            }
            (Request::Increment { by }, outcome) => {
                self.down += i128::from(by.min(0));
                self.up += i128::from(by.max(0));
                match outcome {
                    Outcome::Ok { returned: Some(Image::Value(after)) } => {
                        self.exactly.insert(after);
                    }
                    _ => self.open = true,
                }
            }
            (Request::Delete | Request::Get { .. }, _) => {}
        }
    }

    fn may_be(&self, value: i64) -> bool {
        let sum = self.down..=self.up;
        let reaches = |base: i64| sum.contains(&(i128::from(value) - i128::from(base)));
        self.exactly.contains(&value)
            || self.open && (reaches(0) || self.exactly.iter().any(|&base| reaches(base)))
    }
}

/// Session reads that saw a state which is certainly older than one that their client saw before:
/// every write that can have made it was over before any began that can have made the other.
pub fn went_back(history: &History) -> Vec<WentBack> {
    let mut found = Vec::new();
    for key in history.keys() {
        let operations: Vec<_> = history.of_key(&key).collect();
        let ages = Ages::of(&operations);
        let mut sessions: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
        for operation in operations.into_iter().filter(|operation| promised(operation)) {
            sessions.entry(operation.client).or_default().push(operation);
        }
        found.extend(sessions.into_values().flat_map(|reads| backward(&reads, &ages)));
    }
    found
}

/// Whether a read counts in its session, and saw something.
fn promised(operation: &Operation) -> bool {
    let eventual = operation.request == Request::Get { consistency: Consistency::Eventual };
    !eventual && seen(operation).is_some()
}

fn backward(reads: &[&Operation], ages: &Ages) -> Vec<WentBack> {
    let session = |read: &&&Operation| read.request == Request::Get { consistency: Consistency::Session };
    let mut found = Vec::new();
    for later in reads.iter().filter(session) {
        let older = |earlier: &&&Operation| {
            let images = seen(earlier).zip(seen(later));
            earlier.precedes(later)
                && images.is_some_and(|(first, second)| ages.certainly_older(second, first))
        };
        if let Some(earlier) = reads.iter().find(older) {
            found.push(WentBack { earlier: (*earlier).clone(), later: (*later).clone() });
        }
    }
    found
}

/// When the images of a key can have been made: from the first beginning to the last end of a write
/// that makes them.
struct Ages {
    made: BTreeMap<Image, (u64, u64)>,
    /// Increments whose results are not known make any number.
    any: Option<(u64, u64)>,
}

impl Ages {
    fn of(operations: &[&Operation]) -> Ages {
        // A key is absent before all time.
        let mut ages = Ages { made: BTreeMap::from([(Image::Absent, (0, 0))]), any: None };
        for write in operations.iter().filter(|operation| operation.may_have_written()) {
            let span = (write.invoked, write.ended().unwrap_or(u64::MAX));
            match (write.request, write.outcome()) {
                (Request::Put { value } | Request::PutIf { value, .. }, _) => {
                    ages.add(Image::Value(value), span);
                }
                (Request::Delete, _) => ages.add(Image::Absent, span),
                (Request::Increment { .. }, Outcome::Ok { returned: Some(after) }) => ages.add(after, span),
                (Request::Increment { .. }, _) => ages.any = Some(joined(ages.any, span)),
                (Request::Get { .. }, _) => {}
            }
        }
        ages
    }

    fn add(&mut self, image: Image, span: (u64, u64)) {
        let joined = joined(self.made.get(&image).copied(), span);
        self.made.insert(image, joined);
    }

    fn certainly_older(&self, image: Image, than: Image) -> bool {
        let span = |image: Image| {
            let made = self.made.get(&image).copied();
            let any = self.any.filter(|_| image != Image::Absent);
            made.map(|made| joined(any, made)).or(any)
        };
        match (span(image), span(than)) {
            (Some((_, last_end)), Some((first_begin, _))) => image != than && last_end < first_begin,
            _ => false,
        }
    }
}

fn joined(one: Option<(u64, u64)>, (begin, end): (u64, u64)) -> (u64, u64) {
    one.map_or((begin, end), |(first, last)| (first.min(begin), last.max(end)))
}

fn seen(operation: &Operation) -> Option<Image> {
    match (operation.request, operation.outcome()) {
        (Request::Get { .. }, Outcome::Ok { returned }) => returned,
        _ => None,
    }
}
