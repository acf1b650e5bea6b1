//! The benchmark library, run as `evenkeel bench …`, and the cluster on one machine that it measures.
//!
//! [`local`] is also what `evenkeel dev` runs: it is here because this is the lowest layer that sees
//! both nodes and routers.
//!
//! A bench drives the public surface only: the native client, HTTP, the engine of a shard, and, for the floors
//! beneath them, a core's disk and endpoint. It knows nothing of how they work inside.

mod arguments;
pub mod certificates;
mod echo;
mod engine;
mod error;
mod failover;
mod floor;
mod front;
mod http;
mod idle;
mod items;
mod leaf;
mod load;
pub mod local;
mod machine;
mod native;
pub mod pace;
mod plain;
pub mod plot;
mod quick;
mod replicated;
mod report;
mod tally;

pub use arguments::{
    BenchArguments, BenchCommand, EngineArguments, FailoverArguments, FrontArguments, IdleArguments,
    LeafArguments, QuickArguments, ReplicatedArguments, Signal, StepArguments,
};
pub use error::BenchError;

/// Runs the bench that was asked for; prints what it measured on standard output.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: BenchArguments) -> Result<(), BenchError> {
    match arguments.command {
        BenchCommand::Quick(arguments) => quick::run(&arguments),
        BenchCommand::Front(arguments) => front::run(&arguments),
        BenchCommand::Replicated(arguments) => replicated::run(&arguments),
        BenchCommand::Failover(arguments) => failover::run(&arguments),
        BenchCommand::Idle(arguments) => idle::run(&arguments),
        BenchCommand::Engine(arguments) => engine::run(&arguments),
        BenchCommand::Leaf(arguments) => leaf::run(&arguments),
        BenchCommand::Step(arguments) => engine::step(&arguments),
    }
}
