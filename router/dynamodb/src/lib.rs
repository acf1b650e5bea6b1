//! DynamoDB's JSON on one side, the model's types on the other: decoding, validation, texts, encoding.
//!
//! - [`Operation`] is what the target header names; each has a request type in [`request`], decoded
//!   from the body in one pass and checked before anything is done.
//! - [`key`] resolves a request against a table's key schema into encoded keys and ranges.
//! - [`reply`] writes answers straight from stored items, without decoding them.
//! - [`ApiError`] is every error a caller sees; texts that clients match on are DynamoDB's own.
//!
//! What is modelled by DynamoDB and not there yet is refused by name; what is not modelled is ignored,
//! as the service does. This crate knows no socket, and not where a table's items are.

mod attribute;
mod constraint;
mod decode;
mod error;
pub mod expression;
pub mod key;
mod legacy;
mod operation;
pub mod reply;
pub mod request;

pub use decode::decode;
pub use error::{ApiError, ErrorKind};
pub use evenkeel_expression::Condition;
pub use operation::Operation;
