//! `evenkeel bench quick`: what a durable put and a get cost, next to what they rest on.
//!
//! All phases are measured in turn, round after round, so that a machine whose speed drifts drifts
//! under all of them alike. The cluster is started once and idles while the floors are measured.

use crate::arguments::QuickArguments;
use crate::echo::Echo;
use crate::error::BenchError;
use crate::items::Versions;
use crate::load::Lasting;
use crate::local::{LocalCluster, LocalConfig};
use crate::native::Operation;
use crate::report::{Places, Report, Row, aims};
use crate::tally::Measured;
use crate::{floor, http, native};
use evenkeel_client::ClientConfig;
use evenkeel_driver::SyncStrategy;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Length of a phase of the check.
const CHECK_SECONDS: f64 = 0.2;
const SECONDS_MAX: f64 = 3600.0;
const MANY: u32 = 64;

#[derive(Clone, Copy, Debug)]
enum Work {
    Floor { frame_bytes: usize },
    Echo,
    Native(Operation),
    Http(Operation),
}

struct Phase {
    name: &'static str,
    in_flight: u32,
    work: Work,
}

const fn phase(name: &'static str, in_flight: u32, work: Work) -> Phase {
    Phase { name, in_flight, work }
}

const PHASES: [Phase; 12] = [
    phase("log floor, 4 KiB frames", 1, Work::Floor { frame_bytes: 4 << 10 }),
    phase("log floor, 64 KiB frames", 1, Work::Floor { frame_bytes: 64 << 10 }),
    phase("echo, 128 B -> 1 KiB", 1, Work::Echo),
    phase("echo, 128 B -> 1 KiB", MANY, Work::Echo),
    phase("native put, 1 KiB", 1, Work::Native(Operation::Put)),
    phase("native put, 1 KiB", MANY, Work::Native(Operation::Put)),
    phase("native get, 1 KiB", 1, Work::Native(Operation::Get)),
    phase("native get, 1 KiB", MANY, Work::Native(Operation::Get)),
    phase("HTTP PutItem, 1 KiB", 1, Work::Http(Operation::Put)),
    phase("HTTP PutItem, 1 KiB", MANY, Work::Http(Operation::Put)),
    phase("HTTP GetItem, 1 KiB", 1, Work::Http(Operation::Get)),
    phase("HTTP GetItem, 1 KiB", MANY, Work::Http(Operation::Get)),
];
const PLACES: Places = Places { floor_small: 0, floor_large: 1, echo: 2, put: 4, puts: 5, http_gets: 11 };

/// Runs it and prints the report.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: &QuickArguments) -> Result<(), BenchError> {
    let (seconds, rounds) = match arguments.check {
        true => (CHECK_SECONDS, 1),
        false => (arguments.seconds, arguments.rounds),
    };
    check_span(seconds, rounds)?;
    let directory = temporary_directory(arguments.data.as_deref())?;
    let lasts = Duration::from_secs_f64(seconds);
    if !arguments.json {
        println!("measuring in {}", directory.path().display());
    }
    let (measured, strategy) = measure(directory.path(), lasts, rounds)?;
    let rows: Vec<Row> = PHASES
        .iter()
        .zip(&measured)
        .map(|(phase, measured)| Row::new(phase.name, phase.in_flight, measured))
        .collect();
    let report = Report {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        sync_strategy: format!("{strategy:?}"),
        rounds,
        seconds,
        aims: aims(&rows, PLACES),
        rows,
    };
    match arguments.json {
        true => {
            println!("{}", serde_json::to_string_pretty(&report).map_err(BenchError::in_phase("report"))?)
        }
        false => print!("{report}"),
    }
    if arguments.check { check(&measured, arguments.json) } else { Ok(()) }
}

/// Refuses times and counts that measure nothing.
pub(crate) fn check_span(seconds: f64, rounds: u32) -> Result<(), BenchError> {
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        let reason = format!("{seconds} is not between 0 and {SECONDS_MAX}");
        return Err(BenchError::Argument { flag: "--seconds", reason });
    }
    if rounds == 0 {
        return Err(BenchError::Argument { flag: "--rounds", reason: "at least one is needed".to_owned() });
    }
    Ok(())
}

/// On a file system that direct IO works on: the system's, unless that is in memory.
pub(crate) fn temporary_directory(parent: Option<&Path>) -> Result<TempDir, BenchError> {
    let parent = match parent {
        Some(parent) => parent.to_owned(),
        None => Some(std::env::temp_dir())
            .filter(|system| !evenkeel_node::is_memory_backed(system))
            .unwrap_or_else(|| PathBuf::from(".")),
    };
    let made = std::fs::create_dir_all(&parent)
        .and_then(|()| tempfile::Builder::new().prefix("evenkeel-bench-").tempdir_in(&parent));
    made.map_err(|source| BenchError::Directory { path: parent, source })
}

/// All rounds of each phase, in the order of [`PHASES`].
fn measure(
    directory: &Path,
    lasts: Duration,
    rounds: u32,
) -> Result<(Vec<Vec<Measured>>, SyncStrategy), BenchError> {
    let cluster = LocalCluster::start(LocalConfig::measured(directory.join("cluster")))?;
    let measured = measure_with(&cluster, directory, lasts, rounds);
    // What went wrong first is told, not what that led to.
    let stopped = cluster.stop();
    let measured = measured?;
    stopped?;
    Ok(measured)
}

fn measure_with(
    cluster: &LocalCluster,
    directory: &Path,
    lasts: Duration,
    rounds: u32,
) -> Result<(Vec<Vec<Measured>>, SyncStrategy), BenchError> {
    let versions = Arc::new(Versions::new());
    let client = native::config(&cluster.client_file())?;
    native::prepare(&client, &versions)?;
    let echo = Echo::start(&directory.join("echo"))?;
    let mut bench = Bench {
        floor: directory.join("floor"),
        strategy: None,
        echo,
        client,
        http: cluster.endpoint(),
        versions,
        lasts,
    };
    let mut measured: Vec<Vec<Measured>> = PHASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (phase, rounds) in PHASES.iter().zip(&mut measured) {
            rounds.push(bench.measure(phase)?);
        }
    }
    bench.echo.stop()?;
    // The first round has written the floor.
    Ok((measured, bench.strategy.unwrap_or(SyncStrategy::Linked)))
}

/// What the phases are measured on.
struct Bench {
    floor: PathBuf,
    /// What the self-test of the first phase chose.
    strategy: Option<SyncStrategy>,
    echo: Echo,
    client: ClientConfig,
    http: SocketAddr,
    versions: Arc<Versions>,
    lasts: Duration,
}

impl Bench {
    fn measure(&mut self, phase: &Phase) -> Result<Measured, BenchError> {
        let (lasts, in_flight, versions) = (Lasting::Time(self.lasts), phase.in_flight, &self.versions);
        match phase.work {
            Work::Floor { frame_bytes } => {
                let measured = floor::measure(self.floor.clone(), frame_bytes, self.lasts, self.strategy);
                measured.map(|(measured, strategy)| {
                    self.strategy = Some(strategy);
                    measured
                })
            }
            Work::Echo => self.echo.measure(u64::from(in_flight), self.lasts),
            Work::Native(operation) => native::measure(&self.client, operation, in_flight, lasts, versions),
            Work::Http(operation) => http::measure(self.http, operation, in_flight, lasts, versions),
        }
    }
}

/// Holds every phase to its own counts. Of times only their order is looked at.
fn check(measured: &[Vec<Measured>], is_quiet: bool) -> Result<(), BenchError> {
    let mut faults = Vec::new();
    let mut operations = 0;
    for (phase, rounds) in PHASES.iter().zip(measured) {
        if rounds.is_empty() {
            faults.push(format!("{} at {}: not measured", phase.name, phase.in_flight));
        }
        for round in rounds {
            operations += round.successes;
            let named = |fault| format!("{} at {}: {fault}", phase.name, phase.in_flight);
            faults.extend(round.faults().into_iter().map(named));
        }
    }
    if !faults.is_empty() {
        return Err(BenchError::Check { faults });
    }
    if !is_quiet {
        println!("check: {} phases, {operations} operations, all answered rightly", PHASES.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_are_about_the_rows_they_name() {
        let at = |place: usize| (PHASES[place].name, PHASES[place].in_flight);
        assert_eq!(at(PLACES.floor_small), ("log floor, 4 KiB frames", 1));
        assert_eq!(at(PLACES.floor_large), ("log floor, 64 KiB frames", 1));
        assert_eq!(at(PLACES.echo), ("echo, 128 B -> 1 KiB", 1));
        assert_eq!(at(PLACES.put), ("native put, 1 KiB", 1));
        assert_eq!(at(PLACES.puts), ("native put, 1 KiB", 64));
        assert_eq!(at(PLACES.http_gets), ("HTTP GetItem, 1 KiB", 64));
    }
}
