//! `evenkeel bench replicated`: what three copies cost, and how long writes pause when a node is gone.
//!
//! Two clusters of separate processes on this machine: one node, which keeps one copy, and three nodes, which keep
//! three. All phases are measured in turn, round after round. Then, again and again, the node that leads a
//! partition is killed, or told to stop, while writes to that partition go on: the gap is the longest time
//! without a successful one.

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
use std::cell::{Cell, RefCell};
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

/// Aims of ratios and gaps.
const PUT_RATIO_MAX: f64 = 2.0;
const KILL_GAP_MS_MAX: f64 = 2500.0;
const STOP_GAP_MS_MAX: f64 = 50.0;

struct Phase {
    name: &'static str,
    in_flight: u32,
    copies: u16,
    operation: Operation,
}

const fn phase(name: &'static str, in_flight: u32, copies: u16, operation: Operation) -> Phase {
    Phase { name, in_flight, copies, operation }
}

/// What is compared stands side by side, so that a machine that slows down slows both down.
const PHASES: [Phase; 10] = [
    phase("one copy: put, 1 KiB", 1, 1, Operation::Put),
    phase("three copies: put, 1 KiB", 1, 3, Operation::Put),
    phase("one copy: put, 1 KiB", 32, 1, Operation::Put),
    phase("three copies: put, 1 KiB", 32, 3, Operation::Put),
    phase("one copy: put, 1 KiB", 256, 1, Operation::Put),
    phase("three copies: put, 1 KiB", 256, 3, Operation::Put),
    phase("three copies: get", 1, 3, Operation::Get),
    phase("three copies: get", 32, 3, Operation::Get),
    phase("three copies: get of any moment", 1, 3, Operation::GetAny),
    phase("three copies: get of any moment", 32, 3, Operation::GetAny),
];
const ONE_PUT: usize = 0;
const THREE_PUT: usize = 1;

/// Systems that are worth comparing with, and that nothing here starts yet.
const OTHERS: [&str; 3] = ["etcd", "redis-server", "postgres"];

/// Runs it and prints the report.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: &ReplicatedArguments) -> Result<(), BenchError> {
    check_span(arguments.seconds, arguments.rounds)?;
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    let one = cluster(&directory.path().join("one"), 1)?;
    let three = match cluster(&directory.path().join("three"), 3) {
        Ok(three) => three,
        Err(error) => {
            one.stop()?;
            return Err(error);
        }
    };
    let measured = measure(&one, &three, arguments);
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

/// What a run has measured.
struct Figures {
    rows: Vec<Row>,
    /// Put at 1 in flight, three copies to one: median of the rounds' ratios.
    put_ratio: f64,
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
    arguments: &ReplicatedArguments,
) -> Result<Figures, BenchError> {
    let versions = [Arc::new(Versions::new()), Arc::new(Versions::new())];
    let configs = [native::config(&one.client_file())?, native::config(&three.client_file())?];
    for (config, versions) in configs.iter().zip(&versions) {
        native::prepare(config, versions)?;
    }
    let lasting = Lasting::Time(Duration::from_secs_f64(arguments.seconds));
    let mut measured: Vec<Vec<Measured>> = PHASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..arguments.rounds {
        for (phase, rounds) in PHASES.iter().zip(&mut measured) {
            let at = usize::from(phase.copies > 1);
            let zone = (phase.operation == Operation::GetAny).then(|| ZONE.to_owned());
            let config = ClientConfig { zone, ..configs[at].clone() };
            let round = native::measure(&config, phase.operation, phase.in_flight, lasting, &versions[at])?;
            if let Some(reason) = round.faults().into_iter().next() {
                return Err(BenchError::Phase { phase: phase.name, reason });
            }
            rounds.push(round);
        }
    }
    let mut gaps = Gaps::default();
    for _ in 0..arguments.failovers {
        gaps.kill.push(gap(&configs[1], three, "KILL")?);
        gaps.stop.push(gap(&configs[1], three, "TERM")?);
    }
    let rows = PHASES.iter().zip(&measured);
    let rows = rows.map(|(phase, rounds)| Row::new(phase.name, phase.in_flight, rounds)).collect();
    let pairs = measured[THREE_PUT].iter().zip(&measured[ONE_PUT]);
    let put_ratio = median(pairs.map(|(three, one)| three.p50_us / one.p50_us).collect());
    Ok(Figures { rows, put_ratio: put_ratio.expect("there is a round at least"), gaps })
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
    let read = std::fs::read_to_string(pid_file);
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

fn print(Figures { rows, put_ratio, gaps }: &Figures) {
    println!("{:<34} {:>9} {:>9} {:>9} {:>10}", "", "in flight", "p50 us", "p99 us", "per second");
    for row in rows {
        let Row { name, in_flight, p50_us, p99_us, per_second, .. } = row;
        println!("{name:<34} {in_flight:>9} {p50_us:>9.0} {p99_us:>9.0} {per_second:>10.0}");
    }
    let worst = |gaps: &[f64]| gaps.iter().copied().fold(0.0, f64::max);
    for (name, gaps) in [("SIGKILL", &gaps.kill), ("an orderly stop", &gaps.stop)] {
        let all: Vec<String> = gaps.iter().map(|gap| format!("{gap:.0}")).collect();
        let summary =
            median(gaps.clone()).map(|median| format!("median {median:.0}, worst {:.0}", worst(gaps)));
        let summary = summary.unwrap_or_else(|| "NOT RUN, no failovers were asked for".to_owned());
        println!("gap after {name} of a leader, ms: {summary} ({})", all.join(" "));
    }
    let aim = |name: &str, measured: f64, aim: f64| Aim {
        name: name.to_owned(),
        measured,
        aim,
        met: measured <= aim,
    };
    let mut aims = vec![aim("put at 1 in flight, three copies to one", *put_ratio, PUT_RATIO_MAX)];
    if !gaps.kill.is_empty() {
        aims.push(aim("longest gap after SIGKILL, ms", worst(&gaps.kill), KILL_GAP_MS_MAX));
        aims.push(aim("longest gap after an orderly stop, ms", worst(&gaps.stop), STOP_GAP_MS_MAX));
    }
    for Aim { name, measured, aim, met } in aims {
        println!("{name}: {measured:.2}, aim {aim:.2}: {}", if met { "met" } else { "missed" });
    }
    for other in OTHERS {
        println!("beside it, {other}: NOT RUN, nothing here starts it yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_from_the_moment_and_to_the_end() {
        let went = Instant::now();
        let at = |ms: u64| went + Duration::from_millis(ms);
        assert_eq!(longest(&[at(10), at(1210), at(1220), at(4900)], went), 3680.0);
        assert_eq!(longest(&[at(4000)], went), 4000.0);
        assert_eq!(longest(&[], went), AFTER.as_secs_f64() * 1000.0);
    }

    #[test]
    fn ratios_are_of_the_rows_they_name() {
        let at = |place: usize| (PHASES[place].name, PHASES[place].in_flight);
        assert_eq!(at(ONE_PUT), ("one copy: put, 1 KiB", 1));
        assert_eq!(at(THREE_PUT), ("three copies: put, 1 KiB", 1));
    }
}
