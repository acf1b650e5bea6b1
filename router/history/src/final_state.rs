//! What must be there when all is over.
//!
//! [`lost_writes`] is the plain form of "no acknowledged write is lost": it needs no search, so it decides
//! where a search would not, and it holds even for a store that is not linearizable. [`with_final_reads`]
//! is the exact form: the final state is one more read of each key, and the history must be
//! linearizable with it.

use crate::event::{Consistency, Image, Outcome, Request};
use crate::history::{History, Operation};
use std::collections::BTreeMap;
use std::fmt;

/// What is there at the end, by key. A key that is not named holds nothing.
pub type FinalState = BTreeMap<String, Image>;

/// The client whose reads stand for the final state.
pub const FINAL_CLIENT: u64 = u64::MAX;

/// An acknowledged write that the final state knows nothing of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostWrite {
    /// One of the last acknowledged writes of the key.
    pub write: Operation,
    /// What is there.
    pub found: Image,
}

impl fmt::Display for LostWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { id, client, key, request, .. } = &self.write;
        let found = self.found;
        write!(
            f,
            "key {key:?}: operation {id} of client {client}, {request}, was acknowledged, and the end is {found}"
        )
    }
}

/// One acknowledged write of each key whose final image none of the writes can have left there that
/// were not followed by an acknowledged one.
pub fn lost_writes(history: &History, state: &FinalState) -> Vec<LostWrite> {
    let lost = |key: &std::rc::Rc<str>| {
        let found = state.get(&**key).copied().unwrap_or(Image::Absent);
        let writes: Vec<_> = history.of_key(key).filter(|write| write.may_have_written()).collect();
        let acknowledged = writes.iter().filter(|write| write.has_written());
        let last = *acknowledged.max_by_key(|write| write.invoked)?;
        // What ended before the last one began was overwritten, or added to, by it.
        let mut can_be_last = writes.iter().filter(|write| !write.precedes(last));
        let explained = can_be_last.any(|write| can_leave(write, found));
        (!explained).then(|| LostWrite { write: last.clone(), found })
    };
    history.keys().iter().filter_map(lost).collect()
}

/// Whether `image` can be there right after `write`.
fn can_leave(write: &Operation, image: Image) -> bool {
    match (write.request, write.outcome()) {
        (Request::Put { value } | Request::PutIf { value, .. }, _) => image == Image::Value(value),
        (Request::Delete, _) => image == Image::Absent,
        (Request::Increment { .. }, Outcome::Ok { returned: Some(after) }) => image == after,
        (Request::Increment { .. }, _) => image != Image::Absent,
        (Request::Get { .. }, _) => false,
    }
}

/// What the last strong read of each key saw: the final state of a history that ends with such reads.
pub fn last_reads(history: &History) -> FinalState {
    let mut state = FinalState::new();
    for operation in history.operations() {
        let strong = operation.request == Request::Get { consistency: Consistency::Strong };
        if let (true, Outcome::Ok { returned: Some(image) }) = (strong, operation.outcome()) {
            state.insert(operation.key.to_string(), image);
        }
    }
    state.retain(|_, image| *image != Image::Absent);
    state
}

/// The history with a read of each key behind everything, which sees the final state.
pub fn with_final_reads(history: &History, state: &FinalState) -> History {
    let mut whole = history.clone();
    let time = history.end().saturating_add(1);
    let mut keys: Vec<String> = history.keys().iter().map(|key| key.to_string()).collect();
    keys.extend(state.keys().filter(|key| history.of_key(key).next().is_none()).cloned());
    for key in keys {
        let returned = Some(state.get(&key).copied().unwrap_or(Image::Absent));
        let get = Request::Get { consistency: Consistency::Strong };
        let id = whole.invoke(time, FINAL_CLIENT, &key, get);
        let response = whole.respond(time, id, Outcome::Ok { returned });
        response.expect("the read began just now, and ends as a read can");
    }
    whole
}
