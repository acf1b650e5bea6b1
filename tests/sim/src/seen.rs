//! What happened in a run, counted by name: a search that never cuts a tail proves nothing about tails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// What a range of seeds must have seen, or it counts as failed: the rare paths that it is there for.
pub const REQUIRED: [&str; 10] = [
    "cut tail",
    "segment wrap",
    "swap",
    "snapshot install",
    "relinquish",
    "marks compared",
    "lease lapse",
    "blocked probe",
    "corruption found",
    "replaced node",
];

/// How often each event happened.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// How often an event happened.
    pub fn of(&self, event: &str) -> u64 {
        self.0.get(event).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Counts) {
        for (event, count) in &other.0 {
            *self.0.entry(event).or_default() += count;
        }
    }

    /// Required events that never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|event| self.of(event) == 0).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (event, count) in &self.0 {
            writeln!(f, "  {count:>9}  {event}")?;
        }
        Ok(())
    }
}

/// The counts of the run that is under way. A clone is the same one.
#[derive(Clone, Default, Debug)]
pub struct Seen {
    counts: Rc<RefCell<Counts>>,
}

impl Seen {
    /// Counts one.
    pub fn note(&self, event: &'static str) {
        *self.counts.borrow_mut().0.entry(event).or_default() += 1;
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }
}
