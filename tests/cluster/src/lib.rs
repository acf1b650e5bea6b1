//! Helpers of the tests on a real cluster: the `evenkeel` binary in a process of its own, spoken to over
//! its sockets.
//!
//! Nothing of the cluster is linked into these tests but the native client, and what makes certificates; what a
//! process can be asked, told or sent from outside is all that they know. Each helper panics with what it saw, for
//! it is the test that fails; [`chaos`] is a program of its own and has errors.

pub mod binary;
pub mod chaos;
pub mod data;
pub mod dev;
pub mod http;
pub mod native;

pub use data::Random;
pub use dev::{Dev, Exit, data_directory};
pub use http::{Answer, Http};
