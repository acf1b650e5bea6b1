//! Programs that travel to the owner of an item and are run there: conditions and updates.
//!
//! A router parses DynamoDB's expressions, with their placeholders resolved, into [`Condition`] and
//! [`Update`]; both are archived by rkyv, sent as bytes, checked where they arrive
//! ([`ConditionView::check`], [`UpdateView::check`]) and run under the latch of the key.
//!
//! - A condition runs on the stored item in place, without decoding it.
//! - Programs from outside are checked before they run: nothing in them can panic, loop or overflow the
//!   stack, and a run takes time in proportion to the program and the item.
//! - An update reads everything it needs from the item as it was, then writes.
//!
//! The texts of [`UpdateError`] are DynamoDB's own. This crate knows neither the expression language nor
//! where items are.

mod apply;
mod codec;
mod condition;
mod path;
mod update;
mod value;

pub use apply::UpdateError;
pub use codec::{ConditionView, ProgramError, UpdateView};
pub use condition::{Comparator, Condition, Logic, OPERATORS_MAX, Operand, Test};
pub use path::{Path, Step};
pub use update::{Action, SetOperand, Update};
