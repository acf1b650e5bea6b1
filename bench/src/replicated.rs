//! `evenkeel bench replicated`: what three copies cost, beside what others take for theirs, and how long writes
//! pause when a node is gone.
//!
//! Two clusters of separate processes on this machine: one node, which keeps one copy, and three nodes, which keep
//! three. Beside them etcd, Redis and PostgreSQL, as far as they can be run. All phases are measured in turn, round
//! after round. Then, again and again, the node that leads a partition is killed, or told to stop, while writes to
//! that partition go on: the gap is the longest time without a successful one.

mod exchange;
mod peers;

use crate::arguments::ReplicatedArguments;
use crate::error::BenchError;
use crate::items::{self, Template, Versions};
use crate::load::{self, Lasting};
use crate::local::{LocalCluster, LocalConfig};
use crate::native::{self, Operation};
use crate::quick::{check_span, temporary_directory};
use crate::report::{Aim, Row, median};
use crate::tally::Measured;
use evenkeel_client::{Client, ClientConfig, Error, PartitionDescription};
use exchange::{Load, System};
use peers::Peers;
use std::cell::{Cell, RefCell};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const PHASE: &str = "replicated";
/// Writes in flight while a node goes.
const WRITERS: usize = 8;
/// How long writes go on before a node goes, and after.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(5);
/// How long a cluster may take until all copies are there and up to date.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// A copy that is this many slots behind while writes go on is up to date.
const LAG_MAX: u64 = 200;
/// The zone whose replicas answer reads of any moment; the first node, which leads most, is in another.
const ZONE: &str = "b";

const KILL_GAP_MS_MAX: f64 = 2500.0;
const STOP_GAP_MS_MAX: f64 = 50.0;

struct Phase {
    name: &'static str,
    in_flight: u32,
    work: Work,
}

/// What is done in a phase, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Own { copies: u16, operation: Operation },
    Other(System),
}

const ONE_PUT: Work = Work::Own { copies: 1, operation: Operation::Put };
const THREE_PUT: Work = Work::Own { copies: 3, operation: Operation::Put };
const THREE_GET: Work = Work::Own { copies: 3, operation: Operation::Get };
const THREE_GET_ANY: Work = Work::Own { copies: 3, operation: Operation::GetAny };
const ETCD: Work = Work::Other(System::Etcd);
const REDIS: Work = Work::Other(System::Redis);
const POSTGRESQL: Work = Work::Other(System::Postgresql);

const fn phase(name: &'static str, in_flight: u32, work: Work) -> Phase {
    Phase { name, in_flight, work }
}

/// What is compared stands side by side, so that a machine that slows down slows all of it down.
const PHASES: [Phase; 19] = [
    phase("one copy: put, 1 KiB", 1, ONE_PUT),
    phase("three copies: put, 1 KiB", 1, THREE_PUT),
    phase("etcd: put, 1 KiB", 1, ETCD),
    phase("Redis: put, 1 KiB", 1, REDIS),
    phase("PostgreSQL: put, 1 KiB", 1, POSTGRESQL),
    phase("one copy: put, 1 KiB", 32, ONE_PUT),
    phase("three copies: put, 1 KiB", 32, THREE_PUT),
    phase("etcd: put, 1 KiB", 32, ETCD),
    phase("Redis: put, 1 KiB", 32, REDIS),
    phase("PostgreSQL: put, 1 KiB", 32, POSTGRESQL),
    phase("one copy: put, 1 KiB", 256, ONE_PUT),
    phase("three copies: put, 1 KiB", 256, THREE_PUT),
    phase("etcd: put, 1 KiB", 256, ETCD),
    phase("Redis: put, 1 KiB", 256, REDIS),
    phase("PostgreSQL: put, 1 KiB", 256, POSTGRESQL),
    phase("three copies: get", 1, THREE_GET),
    phase("three copies: get", 32, THREE_GET),
    phase("three copies: get of any moment", 1, THREE_GET_ANY),
    phase("three copies: get of any moment", 32, THREE_GET_ANY),
];

/// A figure of puts with three copies by that of other puts.
struct Ratio {
    name: &'static str,
    in_flight: u32,
    other: Work,
    figure: fn(&Measured) -> f64,
    /// Which side of the bound is aimed at, and the bound.
    aim: fn(String, f64, f64) -> Aim,
    bound: f64,
}

const RATIOS: [Ratio; 4] = [
    Ratio {
        name: "put p50 at 1 in flight, three copies to one, at most",
        in_flight: 1,
        other: ONE_PUT,
        figure: |measured| measured.p50_us,
        aim: Aim::at_most,
        bound: 2.0,
    },
    Ratio {
        name: "put p50 at 1 in flight, ours to etcd's, at most",
        in_flight: 1,
        other: ETCD,
        figure: |measured| measured.p50_us,
        aim: Aim::at_most,
        bound: 0.5,
    },
    Ratio {
        name: "puts per second at 32 in flight, ours to etcd's, at least",
        in_flight: 32,
        other: ETCD,
        figure: |measured| measured.per_second,
        aim: Aim::at_least,
        bound: 6.0,
    },
    Ratio {
        name: "put p99 at 32 in flight, ours to etcd's, at most",
        in_flight: 32,
        other: ETCD,
        figure: |measured| measured.p99_us,
        aim: Aim::at_most,
        bound: 1.0,
    },
];

impl Ratio {
    /// The median of the rounds' ratios; nothing if the other puts were not measured.
    fn of(&self, measured: &[Vec<Measured>]) -> Option<f64> {
        let rounds = |work| measured[place(work, self.in_flight)].iter().map(self.figure);
        median(rounds(THREE_PUT).zip(rounds(self.other)).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// Where among the phases this is done.
fn place(work: Work, in_flight: u32) -> usize {
    let found = PHASES.iter().position(|phase| phase.work == work && phase.in_flight == in_flight);
    found.expect("ratios are of phases there are")
}

/// Runs it and prints the report.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: &ReplicatedArguments) -> Result<(), BenchError> {
    check_span(arguments.seconds, arguments.rounds)?;
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    let_others_through(directory.path())?;
    let one = cluster(&directory.path().join("one"), 1)?;
    let three = match cluster(&directory.path().join("three"), 3) {
        Ok(three) => three,
        Err(error) => {
            one.stop()?;
            return Err(error);
        }
    };
    let measured = measure(&one, &three, directory.path(), arguments);
    // What went wrong first is told, not what that led to.
    let (stopped_one, stopped_three) = (one.stop(), three.stop());
    let figures = measured?;
    stopped_one?;
    stopped_three?;
    print(&figures);
    Ok(())
}

fn cluster(data: &Path, nodes: u16) -> Result<LocalCluster, BenchError> {
    let config = LocalConfig::measured(data.to_owned());
    Ok(LocalCluster::start(LocalConfig { nodes: Some(nodes), processes: true, ..config })?)
}

/// Has other users reach what is theirs in a directory: PostgreSQL does not run as root.
fn let_others_through(directory: &Path) -> Result<(), BenchError> {
    let set = fs::set_permissions(directory, Permissions::from_mode(0o711));
    set.map_err(|source| BenchError::Directory { path: directory.to_owned(), source })
}

/// What a run has measured.
struct Figures {
    /// All rounds of each phase, in the order of [`PHASES`].
    measured: Vec<Vec<Measured>>,
    /// How each of the other systems was set up, or why it was not run.
    others: Vec<(System, Result<String, String>)>,
    gaps: Gaps,
}

/// Gaps of both kinds, in milliseconds.
#[derive(Default)]
struct Gaps {
    kill: Vec<f64>,
    stop: Vec<f64>,
}

fn measure(
    one: &LocalCluster,
    three: &LocalCluster,
    directory: &Path,
    arguments: &ReplicatedArguments,
) -> Result<Figures, BenchError> {
    let clusters = [Cluster::prepare(one)?, Cluster::prepare(three)?];
    let mut peers = Peers::start(&arguments.peers, directory);
    let seconds = arguments.seconds;
    let mut measured: Vec<Vec<Measured>> = PHASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..arguments.rounds {
        for (phase, rounds) in PHASES.iter().zip(&mut measured) {
            match phase.work {
                Work::Own { copies, operation } => {
                    let cluster = &clusters[usize::from(copies > 1)];
                    rounds.push(cluster.measure(phase, operation, Duration::from_secs_f64(seconds))?);
                }
                Work::Other(system) => {
                    rounds.extend(peers.measure(system, Load { in_flight: phase.in_flight, seconds }));
                }
            }
        }
    }
    let others = peers.stop();
    for (system, _) in others.iter().filter(|(_, about)| about.is_err()) {
        // It may have failed after some rounds; those are not shown beside whole ones.
        let of_it = PHASES.iter().zip(&mut measured).filter(|(phase, _)| phase.work == Work::Other(*system));
        of_it.for_each(|(_, rounds)| rounds.clear());
    }
    let mut gaps = Gaps::default();
    for _ in 0..arguments.failovers {
        gaps.kill.push(gap(&clusters[1].config, three, "KILL")?);
        gaps.stop.push(gap(&clusters[1].config, three, "TERM")?);
    }
    Ok(Figures { measured, others, gaps })
}

/// One of ours, with all items put.
struct Cluster {
    config: ClientConfig,
    versions: Arc<Versions>,
}

impl Cluster {
    fn prepare(cluster: &LocalCluster) -> Result<Cluster, BenchError> {
        let config = native::config(&cluster.client_file())?;
        let versions = Arc::new(Versions::new());
        native::prepare(&config, &versions)?;
        Ok(Cluster { config, versions })
    }

    fn measure(&self, phase: &Phase, operation: Operation, lasts: Duration) -> Result<Measured, BenchError> {
        let zone = (operation == Operation::GetAny).then(|| ZONE.to_owned());
        let config = ClientConfig { zone, ..self.config.clone() };
        let lasting = Lasting::Time(lasts);
        let round = native::measure(&config, operation, phase.in_flight, lasting, &self.versions)?;
        match round.faults().into_iter().next() {
            None => Ok(round),
            Some(reason) => Err(BenchError::Phase { phase: phase.name, reason }),
        }
    }
}

/// Has a leader go while writes to its partition go on; yields the longest time without a success, in
/// milliseconds.
fn gap(config: &ClientConfig, cluster: &LocalCluster, signal: &str) -> Result<f64, BenchError> {
    load::runtime().map_err(BenchError::in_phase(PHASE))?.block_on(LocalSet::new().run_until(async {
        let fault = |error: Error| BenchError::Phase { phase: PHASE, reason: error.to_string() };
        let client = Client::connect(config.clone()).await.map_err(fault)?;
        let partition = until_whole(&client).await?;
        let leader = partition.replicas.iter().find(|replica| replica.state.is_ok_and_leads());
        let node = leader.expect("looked at by until_whole").node;
        let table = client.table(items::TABLE).await.map_err(fault)?;
        let is_owned = |key: &Vec<u8>| {
            *key >= partition.lower && partition.upper.as_ref().is_none_or(|upper| key < upper)
        };
        let numbers: Vec<u32> =
            (0..items::ITEMS).filter(|&number| is_owned(&items::encoded_key(number))).collect();
        let successes = Rc::new(RefCell::new(Vec::new()));
        let over = Rc::new(Cell::new(false));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (client, table, numbers) = (client.clone(), table.clone(), numbers.clone());
            let (successes, over) = (successes.clone(), over.clone());
            writers.push(tokio::task::spawn_local(async move {
                let mut item = Template::encoded_item();
                for number in numbers.iter().cycle().skip(writer * 100) {
                    if over.get() {
                        return;
                    }
                    let (key, stored) = (items::encoded_key(*number), item.fill(*number, 0));
                    if client.put_encoded(&table, &key, stored, false).await.is_ok() {
                        successes.borrow_mut().push(Instant::now());
                    }
                }
            }));
        }
        tokio::time::sleep(BEFORE).await;
        let went = Instant::now();
        let sent = send(signal, &cluster.pid_file(node.0));
        tokio::time::sleep(AFTER).await;
        over.set(true);
        for writer in writers {
            writer.await.map_err(BenchError::in_phase(PHASE))?;
        }
        sent?;
        until_whole(&client).await?;
        client.close().await;
        Ok(longest(&successes.borrow(), went))
    }))
}

/// What a replica says of itself, shortened.
pub(crate) trait Leads {
    fn is_ok_and_leads(&self) -> bool;
}

impl Leads for Result<evenkeel_client::ReplicaReport, String> {
    fn is_ok_and_leads(&self) -> bool {
        self.as_ref().is_ok_and(|report| report.leads)
    }
}

/// The longest time without a success, from the last one before a moment on.
fn longest(successes: &[Instant], went: Instant) -> f64 {
    let mut after: Vec<Instant> = successes.iter().copied().filter(|at| *at > went).collect();
    after.sort();
    let mut last = went;
    let mut longest = Duration::ZERO;
    for at in after.into_iter().chain([went + AFTER]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = at;
    }
    longest.as_secs_f64() * 1000.0
}

pub(crate) fn send(signal: &str, pid_file: &Path) -> Result<(), BenchError> {
    let read = fs::read_to_string(pid_file);
    let pid = read.map_err(|source| BenchError::File { path: pid_file.to_owned(), source })?;
    let sent = Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status();
    let sent = sent.map_err(BenchError::in_phase(PHASE))?;
    if sent.success() {
        return Ok(());
    }
    Err(BenchError::Phase { phase: PHASE, reason: format!("kill -{signal} {}: {sent}", pid.trim()) })
}

/// Waits until every partition has a leader and three copies that are up to date; yields the first one of the
/// table.
pub(crate) async fn until_whole(client: &Client) -> Result<PartitionDescription, BenchError> {
    let began = Instant::now();
    loop {
        let partitions = client.partitions().await.unwrap_or_default();
        let is_whole = |partition: &PartitionDescription| {
            let says = |lag: u64| lag <= LAG_MAX;
            partition.replicas.iter().any(|replica| replica.state.is_ok_and_leads())
                && partition
                    .replicas
                    .iter()
                    .all(|replica| replica.state.as_ref().is_ok_and(|report| says(partition.lag(report))))
        };
        if partitions.len() > 1 && partitions.iter().all(is_whole) {
            let of_table = partitions.into_iter().find(|partition| partition.table == items::TABLE);
            return of_table
                .ok_or(BenchError::Phase { phase: PHASE, reason: "the table is gone".to_owned() });
        }
        if began.elapsed() > WHOLE_WITHIN {
            let reason = format!("not all copies are up to date after {WHOLE_WITHIN:?}");
            return Err(BenchError::Phase { phase: PHASE, reason });
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn print(Figures { measured, others, gaps }: &Figures) {
    println!("{:<34} {:>9} {:>9} {:>9} {:>10}", "", "in flight", "p50 us", "p99 us", "per second");
    for (phase, rounds) in PHASES.iter().zip(measured) {
        let Row { name, in_flight, p50_us, p99_us, per_second, .. } =
            Row::new(phase.name, phase.in_flight, rounds);
        match rounds.is_empty() {
            true => println!("{name:<34} {in_flight:>9} {:>9}", "NOT RUN"),
            false => println!("{name:<34} {in_flight:>9} {p50_us:>9.0} {p99_us:>9.0} {per_second:>10.0}"),
        }
    }
    for (system, about) in others {
        match about {
            Ok(about) => println!("beside it, {about}"),
            Err(reason) => println!("beside it, {system}: NOT RUN, {reason}"),
        }
    }
    print_gaps(gaps);
    for ratio in RATIOS {
        match ratio.of(measured) {
            Some(found) => println!("{}", (ratio.aim)(ratio.name.to_owned(), found, ratio.bound)),
            None => println!("{}: {:.2}, NOT RUN", ratio.name, ratio.bound),
        }
    }
}

fn print_gaps(gaps: &Gaps) {
    let kinds = [("SIGKILL", &gaps.kill, KILL_GAP_MS_MAX), ("an orderly stop", &gaps.stop, STOP_GAP_MS_MAX)];
    for (name, gaps, bound) in kinds {
        let Some(median) = median(gaps.clone()) else {
            println!("gap after {name} of a leader: NOT RUN, no failovers were asked for");
            continue;
        };
        let all: Vec<String> = gaps.iter().map(|gap| format!("{gap:.0}")).collect();
        println!("gap after {name} of a leader, ms: median {median:.0} ({})", all.join(" "));
        let worst = gaps.iter().copied().fold(0.0, f64::max);
        println!("{}", Aim::at_most(format!("longest gap after {name}, ms, at most"), worst, bound));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;

    #[test]
    fn the_longest_gap_counts_from_the_moment_and_to_the_end() {
        let went = Instant::now();
        let at = |ms: u64| went + Duration::from_millis(ms);
        assert_eq!(longest(&[at(10), at(1210), at(1220), at(4900)], went), 3680.0);
        assert_eq!(longest(&[at(4000)], went), 4000.0);
        assert_eq!(longest(&[], went), AFTER.as_secs_f64() * 1000.0);
    }

    #[test]
    fn every_ratio_is_of_phases_there_are_and_its_name_tells_them() {
        for ratio in &RATIOS {
            for work in [THREE_PUT, ratio.other] {
                let phase = &PHASES[place(work, ratio.in_flight)];
                assert!(phase.name.ends_with("put, 1 KiB"), "{}", phase.name);
            }
            assert!(ratio.name.contains(&format!("at {} in flight", ratio.in_flight)), "{}", ratio.name);
            let is_met = |measured| (ratio.aim)(ratio.name.to_owned(), measured, ratio.bound).met;
            assert_eq!(is_met(ratio.bound + 1.0), ratio.name.ends_with("at least"));
            assert_eq!(is_met(ratio.bound - 0.1), ratio.name.ends_with("at most"));
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios_or_nothing() {
        let round = |p50_us: f64| Measured { p50_us, ..Tally::new().measure(Duration::from_secs(1), None) };
        let mut measured: Vec<Vec<Measured>> = PHASES.iter().map(|_| Vec::new()).collect();
        measured[place(THREE_PUT, 1)] = [10.0, 90.0, 20.0].map(round).into();
        assert_eq!(RATIOS[1].of(&measured), None);
        measured[place(ETCD, 1)] = [20.0, 100.0, 100.0].map(round).into();
        assert_eq!(RATIOS[1].of(&measured), Some(0.5));
    }
}
