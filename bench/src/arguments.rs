//! What `evenkeel bench` is told. No logic, so that help text and defaults are read in one place.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `evenkeel bench`.
#[derive(Args, Debug)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

/// The benches there are.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Durable put and get of a cluster of three nodes in this process, next to the floors of this
    /// machine's disk and network stack.
    Quick(QuickArguments),
    /// GetItem over HTTP by itself, and while another connection sends the largest scans and batches.
    Front(FrontArguments),
    /// Put and get with one copy and with three, and how long writes pause when a leader is gone.
    Replicated(ReplicatedArguments),
}

/// Arguments of `evenkeel bench replicated`.
#[derive(Args, Clone, Debug)]
pub struct ReplicatedArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How long each phase of a round lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// How often all phases are measured in turn; medians of the rounds are shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 3)]
    pub(crate) rounds: u32,
    /// How often a leader is killed, and how often one is told to stop.
    #[arg(long, value_name = "TIMES", default_value_t = 5)]
    pub(crate) failovers: u32,
}

/// Arguments of `evenkeel bench front`.
#[derive(Args, Clone, Debug)]
pub struct FrontArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How long each phase of a round lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// How often all phases are measured in turn; medians of the rounds are shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 3)]
    pub(crate) rounds: u32,
}

/// Arguments of `evenkeel bench quick`.
#[derive(Args, Clone, Debug)]
pub struct QuickArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How long each phase of a round lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// How often all phases are measured in turn; medians of the rounds are shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Check the bench itself: one short round in which every operation must succeed and every answer
    /// be right. No time is asserted.
    #[arg(long)]
    pub(crate) check: bool,
}
