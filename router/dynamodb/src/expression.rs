//! DynamoDB's expression language, parsed into the programs of `node/expression`.
//!
//! Each parameter has its parser; all share the tokens, the paths, the placeholders of the request and
//! the texts. Nothing here recurses deeper than the limit on operators.

mod condition;
mod key_condition;
mod lexer;
mod parser;
mod placeholders;
#[cfg(test)]
mod printed;
mod projection;
mod reserved;
#[cfg(test)]
mod tests;
mod update;

pub use condition::{bounds_out_of_order, parse_condition};
pub use key_condition::{KeyComparison, KeyCondition, parse_key_condition};
pub use placeholders::Placeholders;
pub use projection::{Part, Projection, parse_projection};
pub use update::parse_update;
