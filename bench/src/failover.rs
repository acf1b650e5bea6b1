//! `evenkeel bench failover`: one failover, as clients see it, with a picture.
//!
//! Three nodes and a router, each a process, and writers that write to one partition. The node that leads it is
//! killed (SIGKILL) or told to stop; the cluster starts it again a second later, as a service manager would. The
//! gap is the longest time without a successful write.

use crate::arguments::{FailoverArguments, Signal};
use crate::error::BenchError;
use crate::items::{self, Template, Versions};
use crate::load;
use crate::local::{LocalCluster, LocalConfig};
use crate::native;
use crate::pace::{self, Gap, Success};
use crate::plot::{self, Mark, Series, Span, Timeline};
use crate::quick::temporary_directory;
use crate::replicated::{Leads, send, until_whole};
use evenkeel_client::{Client, ClientConfig, Error};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const PHASE: &str = "failover";
const WRITERS: usize = 8;
/// How long writes go on before the node goes, and after.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(7);
/// Writes are counted in turns of this length.
const TURN: Duration = Duration::from_millis(100);

/// Runs it, prints the gap, and draws the picture if a file for it is named.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: &FailoverArguments) -> Result<(), BenchError> {
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    let config = LocalConfig { processes: true, ..LocalConfig::measured(directory.path().to_owned()) };
    let cluster = LocalCluster::start(config)?;
    let seen = look(&cluster, arguments.signal);
    // What went wrong first is told, not what that led to.
    let stopped = cluster.stop();
    let successes = seen?;
    stopped?;
    let Gap { from, lasted } = pace::longest_gap(successes.iter().map(|success| success.at), BEFORE + AFTER);
    println!(
        "{} writes; {} of the leader after {:.1} s; the longest gap: {:.0} ms, from {:.2} s on",
        successes.len(),
        arguments.signal.words(),
        BEFORE.as_secs_f64(),
        lasted.as_secs_f64() * 1000.0,
        from.as_secs_f64()
    );
    match &arguments.plot {
        Some(file) => draw(file, arguments.signal, &successes, Gap { from, lasted }),
        None => Ok(()),
    }
}

/// Has the leader of a partition go while writes to that go on; yields the successful ones, by time.
fn look(cluster: &LocalCluster, signal: Signal) -> Result<Vec<Success>, BenchError> {
    let config = native::config(&cluster.client_file())?;
    native::prepare(&config, &Arc::new(Versions::new()))?;
    load::runtime()
        .map_err(BenchError::in_phase(PHASE))?
        .block_on(LocalSet::new().run_until(write_and_look(config, cluster, signal)))
}

async fn write_and_look(
    config: ClientConfig,
    cluster: &LocalCluster,
    signal: Signal,
) -> Result<Vec<Success>, BenchError> {
    let fault = |error: Error| BenchError::Phase { phase: PHASE, reason: error.to_string() };
    let client = Client::connect(config).await.map_err(fault)?;
    let partition = until_whole(&client).await?;
    let leader = partition.replicas.iter().find(|replica| replica.state.is_ok_and_leads());
    let node = leader.expect("looked at by until_whole").node;
    let table = client.table(items::TABLE).await.map_err(fault)?;
    let is_owned =
        |key: &Vec<u8>| *key >= partition.lower && partition.upper.as_ref().is_none_or(|upper| key < upper);
    let numbers: Rc<[u32]> =
        (0..items::ITEMS).filter(|&number| is_owned(&items::encoded_key(number))).collect();
    let (successes, over) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, table, numbers) = (client.clone(), table.clone(), numbers.clone());
            let (successes, over) = (successes.clone(), over.clone());
            tokio::task::spawn_local(async move {
                let mut item = Template::encoded_item();
                for number in numbers.iter().cycle().skip(writer * 100) {
                    if over.get() {
                        return;
                    }
                    let (key, sent) = (items::encoded_key(*number), Instant::now());
                    if client.put_encoded(&table, &key, item.fill(*number, 0), false).await.is_ok() {
                        let success = Success { at: began.elapsed(), took: sent.elapsed() };
                        successes.borrow_mut().push(success);
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(BEFORE).await;
    let sent = send(signal.name(), &cluster.pid_file(node.0));
    tokio::time::sleep(AFTER).await;
    over.set(true);
    for writer in writers {
        writer.await.map_err(BenchError::in_phase(PHASE))?;
    }
    sent?;
    client.close().await;
    Ok(successes.take())
}

fn draw(file: &Path, signal: Signal, successes: &[Success], gap: Gap) -> Result<(), BenchError> {
    let steps = pace::steps(successes, TURN, BEFORE + AFTER);
    let series = |name: &str, points| [Series { name: name.to_owned(), points }];
    let (rates, slowest) = (series("writes", steps.rates), series("slowest", steps.slowest));
    let marks =
        [Mark { at_seconds: BEFORE.as_secs_f64(), label: format!("{} of the leader", signal.words()) }];
    let spans = [Span {
        from_seconds: gap.from.as_secs_f64(),
        until_seconds: (gap.from + gap.lasted).as_secs_f64(),
        label: format!("no write succeeded for {:.0} ms", gap.lasted.as_secs_f64() * 1000.0),
    }];
    let title = "writes to one partition of three copies, counted every 100 ms";
    let panels = [
        Timeline { title, unit: "writes a second", series: &rates, marks: &marks },
        Timeline { title: "the slowest of them", unit: "ms", series: &slowest, marks: &[] },
    ];
    plot::timelines(file, &panels, &spans)?;
    println!("the picture: {}", file.display());
    Ok(())
}
