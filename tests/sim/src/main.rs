//! `evenkeel-sim`: runs seeds of the simulator from the command line.
//!
//! Exit status: 0 no seed failed, 1 a promise was broken (printed last) or a required event never
//! happened, 2 called wrongly, 3 nothing was run.

use clap::Parser;
use std::ops::Range;
use std::process::ExitCode;

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
    let arguments = Arguments::parse();
    let one = arguments.which.seed.map(|seed| seed..seed.saturating_add(1));
    let seeds = arguments.which.seeds.or(one).unwrap_or_default();
    let start = std::time::Instant::now();
    let sweep = evenkeel_sim::sweep::sweep::<evenkeel_sim::replicas::Replicas>(seeds, 2, arguments.trace);
    print!("{}", sweep.summary(start.elapsed()));
    if sweep.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
