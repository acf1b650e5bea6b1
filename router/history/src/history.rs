//! A history: the operations of all clients of a run, with when each began and ended.
//!
//! Every history is well formed: an operation begins once, ends at most once, after it began, for the
//! client that asked, and as such an operation can. What is not is refused when it is added.

use crate::event::{Event, Outcome, Request};
use std::collections::HashMap;
use std::rc::Rc;

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Its name in the history.
    pub id: u64,
    /// Who asked.
    pub client: u64,
    /// For which key.
    pub key: Rc<str>,
    /// For what.
    pub request: Request,
    /// When.
    pub invoked: u64,
    /// When it ended and how, if that was recorded.
    pub response: Option<(u64, Outcome)>,
}

impl Operation {
    /// How it ended; unknown if that was not recorded.
    pub fn outcome(&self) -> Outcome {
        self.response.map_or(Outcome::Unknown, |(_, outcome)| outcome)
    }

    /// When it was over, if its client learned of an end: an operation whose outcome is unknown may take
    /// effect at any later time.
    pub fn ended(&self) -> Option<u64> {
        self.response.and_then(|(time, outcome)| (outcome != Outcome::Unknown).then_some(time))
    }

    /// Whether it was over before `other` began.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.ended().is_some_and(|ended| ended < other.invoked)
    }

    /// Whether it is a write that took effect or may have.
    pub fn may_have_written(&self) -> bool {
        self.request.writes() && matches!(self.outcome(), Outcome::Ok { .. } | Outcome::Unknown)
    }

    /// Whether it is a write that took effect for certain.
    pub fn has_written(&self) -> bool {
        self.request.writes() && matches!(self.outcome(), Outcome::Ok { .. })
    }
}

/// All operations of a run, in the order they were recorded.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<Operation>,
    by_id: HashMap<u64, usize>,
    keys: HashMap<Rc<str>, Vec<usize>>,
}

/// Why an event does not fit into a history.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EventFault {
    /// The id is taken.
    #[error("operation {id} began before")]
    BeganBefore {
        /// The operation.
        id: u64,
    },
    /// Nothing with this id has begun.
    #[error("operation {id} ends and never began")]
    NeverBegan {
        /// The operation.
        id: u64,
    },
    /// It has ended before.
    #[error("operation {id} ended before")]
    EndedBefore {
        /// The operation.
        id: u64,
    },
    /// The answer went to a client that did not ask.
    #[error("operation {id} of client {asked} is answered to client {answered}")]
    OtherClient {
        /// The operation.
        id: u64,
        /// Who asked.
        asked: u64,
        /// Who got the answer.
        answered: u64,
    },
    /// The answer is older than the question.
    #[error("operation {id} began at {invoked} and ended earlier, at {responded}")]
    TimeGoesBack {
        /// The operation.
        id: u64,
        /// When it began.
        invoked: u64,
        /// When it ended.
        responded: u64,
    },
    /// Such an operation cannot end so.
    #[error("operation {id}, {request}, cannot end as: {outcome}")]
    WrongOutcome {
        /// The operation.
        id: u64,
        /// What was asked.
        request: Request,
        /// How it is said to have ended.
        outcome: Outcome,
    },
}

impl History {
    /// A history without operations.
    pub fn new() -> History {
        History::default()
    }

    /// Records that a client asks; returns the name of the operation.
    pub fn invoke(&mut self, time: u64, client: u64, key: &str, request: Request) -> u64 {
        let mut id = self.operations.len() as u64;
        while self.by_id.contains_key(&id) {
            id += 1;
        }
        self.begin(time, client, id, key, request);
        id
    }

    /// Records how an operation ended.
    ///
    /// # Errors
    /// If it never began, has ended, ends before it began, or cannot end so.
    pub fn respond(&mut self, time: u64, id: u64, outcome: Outcome) -> Result<(), EventFault> {
        let &index = self.by_id.get(&id).ok_or(EventFault::NeverBegan { id })?;
        let operation = &mut self.operations[index];
        let (invoked, request) = (operation.invoked, operation.request);
        if operation.response.is_some() {
            return Err(EventFault::EndedBefore { id });
        }
        if time < invoked {
            return Err(EventFault::TimeGoesBack { id, invoked, responded: time });
        }
        if !request.can_end_as(&outcome) {
            return Err(EventFault::WrongOutcome { id, request, outcome });
        }
        operation.response = Some((time, outcome));
        Ok(())
    }

    /// Adds an event of a recorded history.
    ///
    /// # Errors
    /// If it does not fit to what was added before.
    pub fn push(&mut self, event: Event) -> Result<(), EventFault> {
        match event {
            Event::Invoke { time, client, id, key, request } => {
                if self.by_id.contains_key(&id) {
                    return Err(EventFault::BeganBefore { id });
                }
                self.begin(time, client, id, &key, request);
                Ok(())
            }
            Event::Respond { time, client, id, outcome } => {
                let asked = self.by_id.get(&id).map(|&index| self.operations[index].client);
                match asked {
                    Some(asked) if asked != client => {
                        Err(EventFault::OtherClient { id, asked, answered: client })
                    }
                    _ => self.respond(time, id, outcome),
                }
            }
        }
    }

    /// The operations, in the order they were recorded.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The keys, sorted.
    pub fn keys(&self) -> Vec<Rc<str>> {
        let mut keys: Vec<_> = self.keys.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// The operations on one key, in the order they were recorded.
    pub fn of_key(&self, key: &str) -> impl Iterator<Item = &Operation> {
        self.keys.get(key).into_iter().flatten().map(|&index| &self.operations[index])
    }

    /// All events by time; at the same time beginnings come first.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::with_capacity(2 * self.operations.len());
        for operation in &self.operations {
            let &Operation { id, client, request, invoked: time, .. } = operation;
            let key = operation.key.to_string();
            events.push((time, false, Event::Invoke { time, client, id, key, request }));
            if let Some((time, outcome)) = operation.response {
                events.push((time, true, Event::Respond { time, client, id, outcome }));
            }
        }
        events.sort_by_key(|(time, ends, _)| (*time, *ends));
        events.into_iter().map(|(_, _, event)| event).collect()
    }

    /// The latest time in the history.
    pub fn end(&self) -> u64 {
        let last = |operation: &Operation| operation.response.map_or(operation.invoked, |(time, _)| time);
        self.operations.iter().map(last).max().unwrap_or(0)
    }

    fn begin(&mut self, time: u64, client: u64, id: u64, key: &str, request: Request) {
        let index = self.operations.len();
        let key = match self.keys.get_key_value(key) {
            Some((key, _)) => Rc::clone(key),
            None => Rc::from(key),
        };
        self.keys.entry(Rc::clone(&key)).or_default().push(index);
        self.by_id.insert(id, index);
        self.operations.push(Operation { id, client, key, request, invoked: time, response: None });
    }
}
