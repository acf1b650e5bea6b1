//! `evenkeel-sim`: runs seeds of the simulator from the command line.
//!
//! Exit status: 0 no seed failed, 1 a promise was broken (printed last) or, in a range, a required event
//! never happened, 2 called wrongly.

use clap::Parser;
use evenkeel_sim::minimise::minimise;
use evenkeel_sim::mutation::TABLE;
use evenkeel_sim::replicas::Replicas;
use evenkeel_sim::sweep::sweep;
use evenkeel_sim::{Plan, run};
use evenkeel_storage::Mistake;
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
    /// Print what happens, step by step; of a seed that fails, in the smallest run that fails like it
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "mistakes"])]
    trace: bool,
    /// Have the cluster make a known mistake, by its number in the list of `--mistakes`
    #[arg(long, value_name = "N", value_parser = parse_mistake, conflicts_with = "mistakes")]
    mistake: Option<&'static [Mistake]>,
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
    /// List the known mistakes
    #[arg(long)]
    mistakes: bool,
}

fn main() -> ExitCode {
    let Arguments { which, trace, mistake } = Arguments::parse();
    let plan = Plan { mistakes: mistake.unwrap_or_default(), ..Plan::default() };
    let is_good = match which {
        Which { seed: Some(seed), .. } if trace => run_traced(&Plan { seed, ..plan }),
        Which { seed: Some(seed), .. } => {
            let start = Instant::now();
            let sweep = sweep::<Replicas>(seed..seed.saturating_add(1), 1, &plan);
            print!("{}", sweep.summary(start.elapsed(), false));
            sweep.failure.is_none()
        }
        Which { seeds: Some(seeds), .. } => {
            let threads = available_parallelism().map_or(1, NonZero::get);
            let start = Instant::now();
            let sweep = sweep::<Replicas>(seeds, threads, &plan);
            print!("{}", sweep.summary(start.elapsed(), true));
            sweep.is_good()
        }
        Which { .. } => {
            for (number, row) in TABLE.iter().enumerate() {
                let trap = if row.trap > 0 { format!("trap {:>2}", row.trap) } else { String::new() };
                println!("{number:>3}  {trap:7}  {}", row.mistake[0].0);
            }
            true
        }
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a seed step by step; if it fails, the smallest run that does so too.
fn run_traced(plan: &Plan) -> bool {
    let Some((least, _)) = minimise::<Replicas>(plan) else {
        let again = run::<Replicas>(&Plan { tracing: true, ..plan.clone() });
        return again.is_ok();
    };
    let again = run::<Replicas>(&Plan { tracing: true, ..least.clone() });
    println!(
        "smallest run found: faults to {:?} but for {:?}, calm network {}, clients at most {:?}",
        least.faults_max, least.spared, least.calm_network, least.clients_max
    );
    match again {
        Ok(_) => println!("seed={}: it did not fail again", plan.seed),
        Err(failure) => println!("{failure}"),
    }
    false
}

fn parse_mistake(text: &str) -> Result<&'static [Mistake], String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    let row = TABLE.get(number).ok_or(format!("there are {} mistakes, counted from 0", TABLE.len()))?;
    Ok(&row.mistake)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_understood(line: &str) -> bool {
        Arguments::try_parse_from(["evenkeel-sim"].into_iter().chain(line.split_whitespace())).is_ok()
    }

    #[test]
    fn one_thing_is_asked_for_at_a_time() {
        for line in ["--seed 7", "--seed 7 --trace --mistake 18", "--seeds 3..9 --mistake 0", "--mistakes"] {
            assert!(is_understood(line), "{line}");
        }
        for line in [
            "",
            "--trace",
            "--seed 7 --seeds 3..9",
            "--seeds 3..9 --trace",
            "--mistakes --trace",
            "--mistakes --mistake 0",
            "--seeds 9..3",
            "--seeds 4..4",
            "--seeds 4",
            "--seed -1",
            "--seed 7 --mistake 19",
        ] {
            assert!(!is_understood(line), "{line}");
        }
    }
}
