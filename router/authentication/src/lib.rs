//! Who a request is from: AWS Signature Version 4, verified, and the access keys that it rests on.
//!
//! - [`request`] reads what a request says of its signature, in a header or in its query, and holds it
//!   against a [`key::DayKey`]; `canonical` is the form of the request that was signed.
//! - [`sign()`] is the client's side, for tools and tests.
//! - [`access_key`] makes access keys and temporary ones; [`seal`] keeps their secrets encrypted under a
//!   key file, so that whoever reads the catalogue learns nothing.
//!
//! No library did this within the limits of the server's dependency tree; `docs/decisions/0002` has the
//! numbers. All cryptography is ring's.
//!
//! It knows no socket, no catalogue and no clock, and not what a user may do: only who signed.
//!
//! Source: "Create a signed AWS API request", AWS IAM user guide.

pub mod access_key;
mod canonical;
pub mod error;
pub mod key;
pub mod request;
pub mod seal;
mod sign;
mod timestamp;

pub use access_key::{AccessKey, Session};
pub use error::AuthenticationError;
pub use key::{DayKey, DayKeys};
pub use request::{BodyHash, SignedRequest, claimed_region};
pub use seal::{KeyFileError, SealError, SealingKey};
pub use sign::sign;
