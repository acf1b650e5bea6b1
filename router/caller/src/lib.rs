//! What decides about an outgoing request: where it goes, and what follows when it fails.
//!
//! [`RouteMap`] finds the partition of a key; [`Call`] turns the outcome of each attempt into a
//! decision; [`RetryBudget`] keeps all calls of a client together from multiplying load when the
//! cluster is in trouble.
//!
//! Nothing here does IO, reads a clock or draws a random number: time and randomness are arguments,
//! so the same decisions can be taken in a simulation.

mod budget;
mod call;
mod map;
mod replicas;

pub use budget::{BudgetPolicy, RetryBudget};
pub use call::{Call, Decision, Effect, GiveUp, Outcome, RetryPolicy};
pub use map::{Catalogue, Route, RouteMap, TableFault, TableRoutes};
pub use replicas::{Place, Replicas};
