//! The deterministic cluster simulator: a whole cluster, its disks, its links, its clocks and its clients in
//! one thread, from one seed. The same seed runs the same way again.
//!
//! - [`cluster`] is the seam: what is simulated is anything that implements [`cluster::Core`], a core of a
//!   node that takes messages and calls as typed values and lives on a disk and a runtime in memory.
//! - [`world`] holds true time and the queue of what happens next; [`machine`], [`network`], [`clock`]
//!   and [`faults`] are what can go wrong in it, each kind only in some seeds ([`swarm`]).
//! - [`control`] replaces nodes; [`watch`] holds members to what they have said.
//! - [`client`] asks, waits, retries and records what it saw; [`mod@run`] puts a seed together: faults
//!   while clients work, then healing and a time by which everything must work again, then the
//!   checkers of `evenkeel-history`. [`sweep`] runs many, [`mod@minimise`] makes a failing one small, and
//!   [`mutation`] holds the mistakes that must be found.
//!
//! It knows nothing of how a cluster keeps its promises, and nothing in it reads a clock or draws a
//! random number that does not come from the seed.

pub mod client;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod faults;
pub mod machine;
pub mod minimise;
pub mod mutation;
pub mod network;
pub mod replicas;
pub mod run;
pub mod seen;
pub mod swarm;
pub mod sweep;
pub mod watch;
pub mod world;

pub use cluster::{Answer, Call, Core, Order, Outbox, Place, Seat, Shape, Start};
pub use run::{Failure, Plan, Report, Violation, run};
