//! One run: a cluster, its clients, its faults, the healing, the verdict.

use super::availability::Availability;
use super::faults::{Kind, Mark, Schedule, Tormentor};
use super::judge::{self, Violation};
use super::machines::{MACHINES, Machines};
use super::workload::{self, Native, OverHttp, Ranges, Record, Success, TABLE, Way};
use super::{ChaosError, Clock, network};
use crate::{Random, native};
use evenkeel_bench::pace;
use evenkeel_bench::plot::{self, Series, Span, Timeline};
use evenkeel_client::{Client, CreateTable, Error, PartitionDescription};
use evenkeel_history::{Consistency, Outcome, Request};
use evenkeel_model::catalogue::TableStatus;
use evenkeel_model::{KeyAttribute, KeySchema, KeyType};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

/// Native clients of each partition, and clients over HTTP.
const NATIVES: usize = 2;
const OVER_HTTP: usize = 2;
/// How long the cluster may take to become whole when everything is healed.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Who writes and reads when all is over.
const LAST_CLIENT: u64 = 1_000_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary under test.
    pub evenkeel: PathBuf,
    /// Where the faults come from.
    pub seed: u64,
    /// How long faults go on.
    pub lasts: Duration,
    /// Where the timeline goes, and what a failed run leaves.
    pub out: PathBuf,
    /// Whether the namespaces are there from an earlier run.
    pub is_further: bool,
}

/// Runs it, and prints what happened.
///
/// # Errors
/// See [`ChaosError`]; data, logs and history of a failed run stay.
pub fn run(options: &Options) -> Result<(), ChaosError> {
    if !options.is_further {
        network::make(MACHINES)?;
    }
    let data = tempfile::Builder::new().prefix("evenkeel-chaos-").tempdir_in(&options.out);
    let data = data.map_err(|error| ChaosError::NotRun(format!("{}: {error}", options.out.display())))?;
    println!("seed={} for {} s in {}", options.seed, options.lasts.as_secs(), data.path().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ChaosError::NotRun(error.to_string()))?;
    let result = LocalSet::new().block_on(&runtime, run_in(options, data.path()));
    if result.is_err() {
        println!("data and logs of the nodes stay in {}", data.keep().display());
    }
    result
}

async fn run_in(options: &Options, data: &Path) -> Result<(), ChaosError> {
    let cluster = u128::from(options.seed) << 64 | 1;
    let machines = Machines::start(&options.evenkeel, data, cluster)?;
    println!("{}", machines.slow_disk());
    let config = native::config(&machines.client_file());
    let natives = workload::natives(&config).await?;
    let ranges = make_table(&natives[0]).await?;
    let clock = Clock::start();
    let record = Record::new(ranges, clock);
    let clients = start_clients(&record, &natives, options.seed).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let schedule = Schedule::new(options.seed, options.lasts);
    let torment = {
        let stop = Arc::clone(&stop);
        let mut tormentor = Tormentor::new(machines, schedule, clock);
        thread::spawn(move || {
            let result = tormentor.run(&stop);
            (tormentor, result)
        })
    };
    while clock.now() < options.lasts && !torment.is_finished() {
        sleep(LOOK_PAUSE).await;
    }
    stop.store(true, Ordering::Relaxed);
    while !torment.is_finished() {
        sleep(LOOK_PAUSE).await;
    }
    let (tormentor, result) = torment.join().expect("the tormentor does not panic");
    let Tormentor { mut machines, marks, .. } = tormentor;
    result?;
    let healed = clock.now();
    println!("{:>8.2} s  everything is healed", healed.as_secs_f64());
    let recovered = recover(&record, &natives, &mut machines, clients, clock).await;
    for client in &natives {
        client.close().await;
    }
    let stopped = machines.stop();
    let report = Report { options, record: &record, marks: &marks, ended: &machines.ended };
    let judged = report.print(healed);
    recovered?;
    stopped?;
    judged
}

async fn make_table(client: &Client) -> Result<Ranges, ChaosError> {
    let fault = |error: Error| ChaosError::NotRun(format!("the table cannot be made: {error}"));
    let partition = KeyAttribute { name: workload::KEY.to_owned(), key_type: KeyType::S };
    let schema = KeySchema { partition, sort: None };
    client.create_table(CreateTable::new(TABLE, schema)).await.map_err(fault)?;
    let clock = Clock::start();
    loop {
        let is_active = client.describe_table(TABLE).await.map_err(fault)?.status == TableStatus::Active;
        let ranges = Ranges::of(&client.partitions().await.map_err(fault)?);
        if is_active && ranges.count() > 0 {
            return Ok(ranges);
        }
        if clock.now() > WHOLE_WITHIN {
            return Err(ChaosError::NotRun(format!("the table is not active after {WHOLE_WITHIN:?}")));
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn start_clients(
    record: &Rc<Record>,
    natives: &[Client],
    seed: u64,
) -> Result<Vec<tokio::task::JoinHandle<()>>, ChaosError> {
    let mut random = Random::from_seed(!seed);
    let mut clients = Vec::new();
    for partition in 0..record.ranges.count() {
        for at in 0..NATIVES + OVER_HTTP {
            let (number, random) = (clients.len() as u64, Random::from_seed(random.draw()));
            let record = Rc::clone(record);
            let client = match at < NATIVES {
                true => {
                    let client = natives[number as usize % natives.len()].clone();
                    let way = native_way(client).await?;
                    spawn_local(workload::run_client(record, number, partition, random, way))
                }
                false => spawn_local(workload::run_client(record, number, partition, random, http_way())),
            };
            clients.push(client);
        }
    }
    Ok(clients)
}

async fn native_way(client: Client) -> Result<Native, ChaosError> {
    let table = client.table(TABLE).await;
    let table = table.map_err(|error| ChaosError::NotRun(format!("the table is not found: {error}")))?;
    Ok(Native { client, table })
}

fn http_way() -> OverHttp {
    OverHttp { address: Machines::http_address(), connection: None }
}

/// Waits until every partition takes writes by every way, every key can be read, and no copy lags.
async fn recover(
    record: &Record,
    natives: &[Client],
    machines: &mut Machines,
    clients: Vec<tokio::task::JoinHandle<()>>,
    clock: Clock,
) -> Result<(), ChaosError> {
    record.stop();
    for client in clients {
        client.await.expect("clients do not panic");
    }
    let began = clock.now();
    let mut native = native_way(natives[0].clone()).await?;
    let mut http = http_way();
    for partition in 0..record.ranges.count() {
        let names = (0..).map(|number| format!("end-{number}"));
        let own = names.into_iter().find(|name| record.ranges.of_key(name) == partition);
        let key = own.expect("every partition owns some name");
        for by_http in [false, true] {
            let request = Request::Put { value: record.fresh() };
            let what = format!("partition {partition} takes no write");
            match by_http {
                false => insist(record, &key, request, &mut native, began, clock, &what, machines).await?,
                true => insist(record, &key, request, &mut http, began, clock, &what, machines).await?,
            }
        }
    }
    println!("{:>8.2} s  every partition takes writes", clock.now().as_secs_f64());
    let keys = record.history.borrow().keys();
    for key in &keys {
        let request = Request::Get { consistency: Consistency::Strong };
        let what = format!("key {key:?} cannot be read");
        insist(record, key, request, &mut native, clock.now(), clock, &what, machines).await?;
    }
    println!("{:>8.2} s  {} keys are read", clock.now().as_secs_f64(), keys.len());
    until_level(&natives[0], machines, clock).await
}

/// Does an operation, again and again, until it succeeds.
#[expect(clippy::too_many_arguments, reason = "the parts of a run, in one private function")]
async fn insist(
    record: &Record,
    key: &str,
    request: Request,
    way: &mut impl Way,
    since: Duration,
    clock: Clock,
    what: &str,
    machines: &mut Machines,
) -> Result<(), ChaosError> {
    loop {
        match record.run(LAST_CLIENT, key, request, way).await {
            Outcome::Ok { .. } => return Ok(()),
            outcome => {
                machines.look(|_| false)?;
                if clock.now().saturating_sub(since) > WHOLE_WITHIN {
                    let what = format!("{what}: {outcome}");
                    return Err(ChaosError::NoRecovery { what, after: WHOLE_WITHIN });
                }
            }
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Waits until every partition has a leader and three copies at the same slot.
async fn until_level(client: &Client, machines: &mut Machines, clock: Clock) -> Result<(), ChaosError> {
    let began = clock.now();
    loop {
        let partitions = client.partitions().await;
        let uneven: Vec<String> = match &partitions {
            Ok(partitions) => partitions.iter().filter_map(unevenness).collect(),
            Err(error) => vec![format!("the catalogue cannot be read: {error}")],
        };
        if uneven.is_empty() {
            println!("{:>8.2} s  no copy lags", clock.now().as_secs_f64());
            return Ok(());
        }
        if clock.now().saturating_sub(began) > WHOLE_WITHIN {
            return Err(ChaosError::NoRecovery { what: uneven.join("; "), after: WHOLE_WITHIN });
        }
        machines.look(|_| false)?;
        sleep(LOOK_PAUSE).await;
    }
}

/// What is not level about a partition.
fn unevenness(partition: &PartitionDescription) -> Option<String> {
    let id = partition.partition;
    let copy = |replica: &evenkeel_client::ReplicaDescription| match &replica.state {
        Err(reason) => Some(format!("the copy on node {} is away: {reason}", replica.node)),
        Ok(report) => {
            let lag = partition.lag(report);
            (lag > 0).then(|| format!("the copy on node {} lags by {lag}", replica.node))
        }
    };
    let leads = |replica: &evenkeel_client::ReplicaDescription| {
        replica.state.as_ref().is_ok_and(|report| report.leased)
    };
    let mut found: Vec<String> = partition.replicas.iter().filter_map(copy).collect();
    if partition.replicas.len() != 3 {
        found.push(format!("there are {} copies", partition.replicas.len()));
    }
    if !partition.replicas.iter().any(leads) {
        found.push("nobody leads".to_owned());
    }
    (!found.is_empty()).then(|| format!("partition {id}: {}", found.join(", ")))
}

/// What is said when all is over.
struct Report<'a> {
    options: &'a Options,
    record: &'a Record,
    marks: &'a [Mark],
    ended: &'a [String],
}

impl Report<'_> {
    /// Draws the writes of the run, with the faults behind them.
    fn draw(
        &self,
        successes: &[Success],
        availability: &Availability,
        run: Duration,
    ) -> Result<(), ChaosError> {
        let successes: Vec<pace::Success> =
            successes.iter().map(|success| pace::Success { at: success.at, took: success.took }).collect();
        let steps = pace::steps(&successes, Duration::from_secs(1), run);
        let series = |name: &str, points| [Series { name: name.to_owned(), points }];
        let (rates, slowest) = (series("writes", steps.rates), series("slowest", steps.slowest));
        let gap = availability.of_one.lasted.as_secs_f64();
        let title =
            format!("seed {}: successful writes; longest gap of one partition {gap:.2} s", self.options.seed);
        let span = |mark: &Mark| Span {
            from_seconds: mark.began.as_secs_f64(),
            until_seconds: mark.ended.as_secs_f64(),
            label: mark.kind.name().to_owned(),
        };
        let spans: Vec<Span> = self.marks.iter().map(span).collect();
        let panels = [
            Timeline { title: &title, unit: "writes a second", series: &rates, marks: &[] },
            Timeline { title: "slowest write of each second", unit: "ms", series: &slowest, marks: &[] },
        ];
        let file = self.options.out.join(format!("timeline-{}.svg", self.options.seed));
        let drawn = plot::timelines(&file, &panels, &spans);
        drawn.map_err(|error| ChaosError::NotRun(error.to_string()))?;
        println!("the timeline: {}", file.display());
        Ok(())
    }

    fn print(&self, run: Duration) -> Result<(), ChaosError> {
        let mut successes = self.record.successes.borrow().clone();
        successes.sort_by_key(|success| success.at);
        let availability = Availability::of(&successes, self.marks, self.record.ranges.count(), run);
        print!("{availability}");
        self.draw(&successes, &availability, run)?;
        let history = self.record.history.borrow();
        let failures = self.record.failures.borrow().len();
        println!(
            "{} operations on {} keys, {failures} of them refused or of unknown outcome",
            history.operations().len(),
            history.keys().len()
        );
        let mut count = 0;
        for text in self.record.wrong.borrow().iter() {
            println!("VIOLATION: an answer that no fault explains: {text}");
            count += 1;
        }
        for text in self.ended {
            println!("VIOLATION: ended by itself: {text}");
            count += 1;
        }
        let violations = judge::judge(&history);
        count += violations.len();
        for Violation { what, key } in &violations {
            println!("VIOLATION: seed {}: {what}", self.options.seed);
            judge::operations_of(&history, key).iter().for_each(|line| println!("    {line}"));
        }
        if !violations.is_empty() {
            let file = self.options.out.join(format!("history-{}.jsonl", self.options.seed));
            match judge::save(&history, &file) {
                Ok(()) => println!("the whole history: {}", file.display()),
                Err(error) => println!("the history cannot be kept in {}: {error}", file.display()),
            }
        }
        let missing: Vec<&str> = availability.missing().into_iter().map(Kind::name).collect();
        if !missing.is_empty() {
            println!(
                "VIOLATION: faults that never happened, so that nothing is known of them: {}",
                missing.join(", ")
            );
            count += 1;
        }
        if count > 0 {
            return Err(ChaosError::Violations { count });
        }
        println!("violations: none");
        Ok(())
    }
}
