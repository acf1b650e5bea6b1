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
    /// Put and get with one copy and with three, beside etcd, Redis and PostgreSQL, and how long writes pause when
    /// a leader is gone.
    Replicated(ReplicatedArguments),
    /// One failover as clients see it, and a picture of it.
    Failover(FailoverArguments),
    /// What groups cost that nobody writes to: processor time, memory, messages.
    Idle(IdleArguments),
    /// The storage engine of one shard, beside RocksDB, LMDB, redb and fjall and the floors of this machine's disk.
    Engine(EngineArguments),
    /// What leaves of 4, 8 and 16 KiB cost with small, usual and large items.
    Leaf(LeafArguments),
    /// One step of a bench, in a process of its own.
    #[command(hide = true)]
    Step(StepArguments),
}

/// Arguments of `evenkeel bench step`.
#[derive(Args, Clone, Debug)]
pub struct StepArguments {
    /// What to do, as the bench writes it.
    pub(crate) request: String,
}

/// Arguments of `evenkeel bench engine`.
#[derive(Args, Clone, Debug)]
pub struct EngineArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Which engines, of evenkeel, rocksdb, lmdb, redb and fjall [default: all; with --quick evenkeel].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) engines: Option<Vec<String>>,
    /// The program of the other engines: `cargo build --release --manifest-path bench/peers/Cargo.toml`.
    #[arg(long, value_name = "FILE", default_value = "bench/peers/target/release/evenkeel-bench-peers")]
    pub(crate) peers: PathBuf,
    /// Memory of each engine, half of it for caches where that can be chosen; the data are four times as much.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) memory_mib: u64,
    /// Size of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub(crate) value_bytes: usize,
    /// Size of the leaves of our trees.
    #[arg(long, value_name = "BYTES", default_value_t = evenkeel_storage::Limits::default().leaf_bytes)]
    pub(crate) leaf_bytes: usize,
    /// How long each step of a round lasts at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// How often all steps are measured in turn; medians of the rounds are shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 3)]
    pub(crate) rounds: u32,
    /// How long items are overwritten.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    pub(crate) overwrite_seconds: f64,
    /// Write all figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the figures as an SVG file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// A small run of seconds: 16 MiB of memory, one round.
    #[arg(long, conflicts_with_all = ["memory_mib", "seconds", "rounds", "overwrite_seconds"])]
    pub(crate) quick: bool,
    /// Check the bench itself: every row must have been measured and be possible. No time is asserted.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Arguments of `evenkeel bench leaf`.
#[derive(Args, Clone, Debug)]
pub struct LeafArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Memory of the engine, half of it for pages; the data are four times as much.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    pub(crate) memory_mib: u64,
    /// How long the gets of a round last at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// How often gets and scans are measured in turn; medians of the rounds are shown.
    #[arg(long, value_name = "ROUNDS", default_value_t = 3)]
    pub(crate) rounds: u32,
    /// How long items are overwritten.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub(crate) overwrite_seconds: f64,
    /// Write all figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
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
    /// The program that runs etcd, Redis and PostgreSQL:
    /// `cargo build --release --manifest-path bench/replicated-peers/Cargo.toml`.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "bench/replicated-peers/target/release/evenkeel-bench-replicated-peers"
    )]
    pub(crate) peers: PathBuf,
}

/// Arguments of `evenkeel bench idle`.
#[derive(Args, Clone, Debug)]
pub struct IdleArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How many groups are made; each has a member on each of three nodes of one core.
    #[arg(long, value_name = "GROUPS", default_value_t = 10_000)]
    pub(crate) groups: u32,
    /// How long the nodes are watched, without the groups and with them.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) seconds: f64,
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

/// Arguments of `evenkeel bench failover`.
#[derive(Args, Clone, Debug)]
pub struct FailoverArguments {
    /// Directory under which a temporary one is made; it must be on a file system with direct IO
    /// [default: the system's temporary directory, or the current one if that is in memory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the picture goes (SVG); without it there is none.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// How the leader goes.
    #[arg(long, value_enum, default_value_t = Signal::Kill)]
    pub(crate) signal: Signal,
}

/// What is sent to a process that goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Signal {
    /// SIGKILL.
    Kill,
    /// SIGTERM, upon which a node stops in order.
    Term,
}

impl Signal {
    /// As the program `kill` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Kill => "KILL",
            Signal::Term => "TERM",
        }
    }

    /// What it means.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Signal::Kill => "SIGKILL",
            Signal::Term => "orderly stop",
        }
    }
}
