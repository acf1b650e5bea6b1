//! `evenkeel-sim`: runs seeds of the simulator from the command line.
//!
//! Exit status: 0 no seed failed, 1 a promise was broken (printed last) or, in a range, a required event
//! never happened, 2 called wrongly.

use clap::Parser;
use evenkeel_sim::replicas::Replicas;
use evenkeel_sim::sweep::sweep;
use std::num::NonZero;
use std::ops::Range;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

/// Runs a whole cluster in one thread, from one seed.
#[derive(Parser)]
#[command(name = "evenkeel-sim", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Print what happens, step by step
    #[arg(long)]
    trace: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Run one seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run the seeds from A, up to but not including B
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
}

fn main() -> ExitCode {
    let Arguments { which, trace } = Arguments::parse();
    let start = Instant::now();
    let is_good = match (which.seed, which.seeds) {
        (Some(seed), _) => {
            let sweep = sweep::<Replicas>(seed..seed.saturating_add(1), 1, trace);
            print!("{}", sweep.summary(start.elapsed()));
            sweep.failure.is_none()
        }
        (None, seeds) => {
            // Interleaved traces are of no use to anybody.
            let threads = if trace { 1 } else { available_parallelism().map_or(1, NonZero::get) };
            let sweep = sweep::<Replicas>(seeds.expect("one of the two is there"), threads, trace);
            print!("{}", sweep.summary(start.elapsed()));
            sweep.is_good()
        }
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let seeds = number(start)?..number(end)?;
    if seeds.is_empty() {
        return Err("the range is empty".to_owned());
    }
    Ok(seeds)
}
