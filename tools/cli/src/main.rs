//! The `evenkeel` binary: one file a subcommand, and nothing here but the table of them.
//!
//! Exit status: 0 done, 1 failed (the reason is on standard error), 2 called wrongly. Logs go to
//! standard error, at the level that `EVENKEEL_LOG` says (`warn` by default; `info`, `debug`, or a
//! filter such as `evenkeel_node=debug`); what a program reads goes to standard output.

mod client_config;
mod demo;
mod dev;
mod dynamodb_http;
mod import;
mod inspect;
mod node;
mod output;
mod partition;
mod router;
mod signals;
mod telemetry;
mod user;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Cores allocate and free by themselves: glibc's arenas cost more (decision 0005).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The DynamoDB architecture as software anyone can run.
#[derive(Parser)]
#[command(name = "evenkeel", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a real cluster on this machine: three storage nodes and a router.
    Dev(dev::DevArguments),
    /// Run one storage node.
    Node(node::NodeArguments),
    /// Run one router: the DynamoDB HTTP API in front of a cluster.
    Router(router::RouterArguments),
    /// Make, list and delete users of the DynamoDB API and their access keys.
    User(user::UserArguments),
    /// Show where the copies of partitions are, who leads, and how far each copy is.
    Partition(partition::PartitionArguments),
    /// Look at the files of nodes that do not run, and check that they are whole.
    Inspect(inspect::InspectArguments),
    /// Load JSON lines into a table.
    Import(import::ImportArguments),
    /// Measure this machine and a cluster on it.
    Bench(evenkeel_bench::BenchArguments),
}

fn main() -> ExitCode {
    telemetry::log_to_standard_error();
    let result: Result<(), Box<dyn std::error::Error>> = match Arguments::parse().command {
        Command::Dev(arguments) => dev::run(&arguments).map_err(Into::into),
        Command::Node(arguments) => node::run(&arguments).map_err(Into::into),
        Command::Router(arguments) => router::run(&arguments).map_err(Into::into),
        Command::User(arguments) => user::run(&arguments).map_err(Into::into),
        Command::Partition(arguments) => partition::run(&arguments).map_err(Into::into),
        Command::Inspect(arguments) => inspect::run(&arguments).map_err(Into::into),
        Command::Import(arguments) => import::run(arguments).map_err(Into::into),
        Command::Bench(arguments) => evenkeel_bench::run(arguments).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel: {error}");
            ExitCode::FAILURE
        }
    }
}
