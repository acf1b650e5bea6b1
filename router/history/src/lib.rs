//! What clients of a store saw, written down, and whether a correct store could have shown it to them.
//!
//! - [`event`] is the vocabulary: requests on one key each, and how they ended. [`History`] holds a whole
//!   run; [`lines`] reads and writes it as JSON Lines, so that a run of real processes is checked as a
//!   simulated one is.
//! - [`check`] decides linearizability, key by key: is there one order of the operations, consistent with
//!   real time, in which a plain map would have given the same answers? The answer is yes, no with an
//!   [`Explanation`], or undecided when the steps it was allowed are used up; it is never wrong.
//! - [`final_state`] and [`reads`] check what linearizability does not speak of: what is there when all is
//!   over, and reads that are allowed to be old.
//!
//! It knows nothing of how a store works, of sockets or of clocks: times are numbers that whoever recorded
//! the history made up, and only their order counts.

mod checker;
pub mod event;
mod explain;
pub mod final_state;
mod history;
pub mod lines;
mod model;
pub mod reads;
mod search;

pub use checker::{Limits, Verdict, check};
pub use event::{Consistency, Event, Image, Outcome, Request};
pub use explain::{Explanation, Placed};
pub use history::{EventFault, History, Operation};
