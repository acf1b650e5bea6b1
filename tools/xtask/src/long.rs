//! `cargo xtask long PART`: the checks that take minutes or hours, or need more than a toolchain.
//!
//! A part that cannot run says NOT RUN and exits 1: a green run always means that tests ran.

use std::ops::Range;

use crate::failure::Failure;
use crate::run::{Call, Closing, TestCounts};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub struct Arguments {
    /// Which checks to run
    #[arg(value_enum)]
    part: Part,
    /// Seeds of the random parts: from A, up to but not including B
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// How long the parts that run by time go on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// SIGKILL while writing, twenty times in a row, on a real cluster
    Crash,
    /// The storage engine on the faulty disk, over many seeds
    Engine,
    /// The deterministic cluster simulator, 20,000 seeds
    Sim,
    /// Search over the consensus core
    Search,
    /// Power cuts replayed from recorded block writes
    Powercut,
    /// Killed, stopped and cut-off processes, each on a machine of its own (a network namespace)
    Chaos,
    /// Real clients of the HTTP API, installed into a temporary directory
    Clients,
    /// Random requests compared with an emulator that is checked against the real service
    Oracle,
    /// Fuzzing of every parser
    Fuzz,
}

/// Runs one part and prints how many tests ran.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Failure> {
    let binary = workspace.metadata()?.target_directory.join("release/evenkeel");
    let mut counts = TestCounts::default();
    let mut outcome = Ok(());
    for call in calls(arguments, binary.as_str()) {
        let closing = if call.words[0] == "bash" { Closing::Plain } else { Closing::Cargo };
        let (more, result) = call.run_counted(&workspace.root, closing);
        counts.passed += more.passed;
        counts.failed += more.failed;
        outcome = result;
        if outcome.is_err() {
            break;
        }
    }
    println!("long {}: {counts}", name(arguments.part));
    outcome?;
    match counts {
        TestCounts { passed: 0, failed: 0 } => {
            Err(Failure::not_run(format!("long {}", name(arguments.part)), "it ran no test"))
        }
        TestCounts { failed: 0, .. } => Ok(()),
        TestCounts { failed, .. } => {
            Err(Failure::Violations { check: "long", count: failed.try_into().unwrap_or(usize::MAX) })
        }
    }
}

/// What a part runs, in order. Parts on real processes test `binary`, the release build.
fn calls(arguments: &Arguments, binary: &str) -> Vec<Call> {
    let release = Call::new("cargo build --release");
    match arguments.part {
        Part::Crash => {
            let line = "cargo test --release -p evenkeel-cluster-tests --test crash -- --nocapture";
            let call = Call::new(line).with("EVENKEEL_LONG", 1).with("EVENKEEL_BINARY", binary);
            vec![release, arguments.configure(call)]
        }
        Part::Engine => {
            let line = "cargo test --release -p evenkeel-storage --features fault-disk -- --nocapture";
            vec![arguments.configure(Call::new(line).with("EVENKEEL_LONG", 1))]
        }
        Part::Search => {
            let line = "cargo test --release -p evenkeel-paxos --test search -- --nocapture";
            let search = arguments.configure(Call::new(line).with("EVENKEEL_LONG", 1));
            vec![search, Call::new("bash node/paxos/spec/check.sh")]
        }
        Part::Clients => {
            let call = Call::new("bash tests/cluster/clients/run.sh").with("EVENKEEL_BINARY", binary);
            vec![release, arguments.configure(call)]
        }
        Part::Oracle => {
            let call = Call::new("bash tests/cluster/oracle/run.sh").with("EVENKEEL_BINARY", binary);
            vec![release, arguments.configure(call)]
        }
        Part::Fuzz => vec![arguments.configure(Call::new("bash tests/fuzz/run.sh"))],
        Part::Sim => {
            let line = "cargo test --release -p evenkeel-sim --test seeds -- --nocapture";
            vec![arguments.configure(Call::new(line).with("EVENKEEL_LONG", 1))]
        }
        Part::Chaos => {
            let both = Call::new("cargo build --release -p evenkeel -p evenkeel-cluster-tests");
            let call = Call::new("bash tests/cluster/chaos/run.sh").with("EVENKEEL_BINARY", binary);
            let line = "cargo test --release -p evenkeel-cluster-tests --test failover -- --nocapture";
            let import = Call::new(line).with("EVENKEEL_LONG", 1).with("EVENKEEL_BINARY", binary);
            vec![both, import, arguments.configure(call)]
        }
        Part::Powercut => {
            let call = Call::new("bash tests/cluster/powercut/run.sh").with("EVENKEEL_BINARY", binary);
            vec![release, arguments.configure(call)]
        }
    }
}

impl Arguments {
    /// Hands the options to the tests, which read them from the environment.
    fn configure(&self, call: Call) -> Call {
        let call = match &self.seeds {
            Some(seeds) => call.with("EVENKEEL_SEEDS", format!("{}..{}", seeds.start, seeds.end)),
            None => call,
        };
        match self.minutes {
            Some(minutes) => call.with("EVENKEEL_MINUTES", minutes),
            None => call,
        }
    }
}

fn name(part: Part) -> String {
    format!("{part:?}").to_lowercase()
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
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Line::try_parse_from(["long"].into_iter().chain(line.split_whitespace())).map(|line| line.arguments)
    }

    #[test]
    fn options_reach_the_tests_through_the_environment() {
        let lines = |line: &str| -> Vec<String> {
            calls(&parse(line).unwrap(), "evenkeel").iter().map(Call::line).collect()
        };
        assert_eq!(
            lines("engine --seeds 3..9"),
            [
                "EVENKEEL_LONG=1 EVENKEEL_SEEDS=3..9 cargo test --release -p evenkeel-storage --features fault-disk -- --nocapture"
            ]
        );
        assert_eq!(
            lines("crash --minutes 2")[1],
            "EVENKEEL_LONG=1 EVENKEEL_BINARY=evenkeel EVENKEEL_MINUTES=2 cargo test --release -p evenkeel-cluster-tests --test crash -- --nocapture"
        );
        assert_eq!(
            lines("search --seeds 0..7"),
            [
                "EVENKEEL_LONG=1 EVENKEEL_SEEDS=0..7 cargo test --release -p evenkeel-paxos --test search -- --nocapture",
                "bash node/paxos/spec/check.sh"
            ]
        );
        assert_eq!(
            lines("clients"),
            ["cargo build --release", "EVENKEEL_BINARY=evenkeel bash tests/cluster/clients/run.sh"]
        );
        assert_eq!(
            lines("chaos --minutes 30 --seeds 4..5")[2],
            "EVENKEEL_BINARY=evenkeel EVENKEEL_SEEDS=4..5 EVENKEEL_MINUTES=30 bash tests/cluster/chaos/run.sh"
        );
        assert_eq!(
            lines("powercut --seeds 4..6")[1],
            "EVENKEEL_BINARY=evenkeel EVENKEEL_SEEDS=4..6 bash tests/cluster/powercut/run.sh"
        );
        assert_eq!(lines("fuzz --minutes 9"), ["EVENKEEL_MINUTES=9 bash tests/fuzz/run.sh"]);
        assert_eq!(
            lines("oracle --seeds 0..9")[1],
            "EVENKEEL_BINARY=evenkeel EVENKEEL_SEEDS=0..9 bash tests/cluster/oracle/run.sh"
        );
    }

    #[test]
    fn what_is_no_part_or_no_range_is_refused() {
        for line in
            ["", "everything", "sim --seeds 3", "sim --seeds 9..3", "sim --seeds a..b", "sim --minutes 0"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
