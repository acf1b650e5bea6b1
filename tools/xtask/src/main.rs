//! `cargo xtask`: the checks of this repository, the same for a person and for CI.
//!
//! One file a subcommand. It depends on no crate of the workspace, so it builds when they do not.

mod ci;
mod deny;
mod failure;
mod layers;
mod long;
mod run;
mod source;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::workspace::Workspace;

/// Checks of the Evenkeel repository
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct CommandLine {
    /// The checkout to look at [default: the one around the current directory]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check of a change, stop at the first failure
    Ci(ci::Arguments),
    /// Check the dependency rules of ARCHITECTURE.md
    Layers,
    /// Check licences, banned crates, sources and reasons against deny.toml
    Deny,
    /// Check module docs, lengths, leftovers
    Tidy,
    /// Run a part of the long checks
    Long(long::Arguments),
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match run(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // After the step's own output, also when both go to one file.
            println!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: CommandLine) -> Result<(), Failure> {
    let workspace = Workspace::open(line.root)?;
    match &line.command {
        Command::Ci(arguments) => ci::run(&workspace, arguments),
        Command::Layers => layers::run(&workspace),
        Command::Deny => deny::run(&workspace),
        Command::Tidy => tidy::run(&workspace),
        Command::Long(arguments) => long::run(&workspace, arguments),
    }
}
