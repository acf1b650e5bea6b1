//! `cargo xtask long chaos` runs this, by way of `tests/cluster/chaos/run.sh`, which makes the namespaces it needs.

use clap::Parser;
use evenkeel_cluster_tests::Random;
use evenkeel_cluster_tests::chaos::{ChaosError, Options, run};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Real processes on machines of their own, while everything that can goes wrong.
#[derive(Parser)]
struct Arguments {
    /// The binary under test
    #[arg(long, value_name = "FILE")]
    evenkeel: PathBuf,
    /// Seeds of the faults: from A, up to but not including B; by default one that is drawn
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// How long faults go on in each run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Where timelines go, and what failed runs leave; on a file system with direct IO
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { evenkeel, seeds, minutes, out } = Arguments::parse();
    let seeds = seeds.unwrap_or_else(|| {
        let seed = Random::from_environment().draw() >> 32;
        seed..seed + 1
    });
    let (mut passed, mut failed) = (0, 0);
    for seed in seeds {
        let lasts = Duration::from_secs(60 * minutes);
        let is_further = passed + failed > 0;
        match run(&Options { evenkeel: evenkeel.clone(), seed, lasts, out: out.clone(), is_further }) {
            Ok(()) => passed += 1,
            Err(error @ (ChaosError::NotRun(_) | ChaosError::System { .. })) => {
                println!("{error}");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                println!(
                    "seed {seed}: {error}; again: cargo xtask long chaos --minutes {minutes} --seeds {seed}..{}",
                    seed + 1
                );
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
