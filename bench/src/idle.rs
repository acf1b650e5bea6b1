//! `evenkeel bench idle`: what groups cost that nobody writes to.
//!
//! Three nodes of one core, each a process. They are watched while they have next to no groups, then tables are
//! made until there are enough, and they are watched again: the difference is what the groups cost. An idle
//! group is to have no timer and no message of its own; what it has is memory.
//!
//! Datagrams and bytes are those of the whole loopback device, so nothing else should use it meanwhile.

use crate::arguments::IdleArguments;
use crate::error::BenchError;
use crate::items;
use crate::load;
use crate::local::{LocalCluster, LocalConfig};
use crate::machine;
use crate::native;
use crate::quick::{check_span, temporary_directory};
use crate::report::Aim;
use evenkeel_client::{Client, CreateTable};
use evenkeel_model::catalogue::TableStatus;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const PHASE: &str = "idle";
const NODES: u16 = 3;
/// Tables that are made at the same time.
const MADE_TOGETHER: u32 = 16;
/// How long the cluster is left alone before it is watched.
const CALM: Duration = Duration::from_secs(10);
/// What the kernel counts processor time in, on every architecture that it shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;
const ACTIVE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Aims for 10,000 groups, in percent of a core and MiB; other numbers of groups scale them.
const AIMED_AT_GROUPS: f64 = 10_000.0;
const CORE_PERCENT_MAX: f64 = 1.0;
const MEMORY_MIB_MAX: f64 = 10.0;

/// What is watched, as counters, or as what they rose by in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Watched {
    /// Processor time of a node, in seconds; the mean over the nodes.
    processor_s: f64,
    /// Memory of a node that is not pages of files, in MiB; never a rate.
    memory_mib: f64,
    /// Datagrams sent on this machine.
    datagrams: f64,
    /// Bytes sent over loopback.
    bytes: f64,
}

/// Runs it and prints the report.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: &IdleArguments) -> Result<(), BenchError> {
    check_span(arguments.seconds, 1)?;
    if arguments.groups == 0 {
        let reason = "at least one is needed".to_owned();
        return Err(BenchError::Argument { flag: "--groups", reason });
    }
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    let config = LocalConfig::measured(directory.path().to_owned());
    let cluster = LocalCluster::start(LocalConfig { nodes: Some(NODES), processes: true, ..config })?;
    let seen = measure(&cluster, arguments);
    // What went wrong first is told, not what that led to.
    let stopped = cluster.stop();
    let (groups, before, after) = seen?;
    stopped?;
    print(groups, before, after);
    Ok(())
}

/// Yields how many groups there are more, and what was seen without and with them.
fn measure(cluster: &LocalCluster, arguments: &IdleArguments) -> Result<(u32, Watched, Watched), BenchError> {
    let config = native::config(&cluster.client_file())?;
    let pids: Vec<PathBuf> = (1..=NODES).map(|node| cluster.pid_file(u32::from(node))).collect();
    load::runtime().map_err(BenchError::in_phase(PHASE))?.block_on(LocalSet::new().run_until(async {
        let client = Client::connect(config).await.map_err(BenchError::in_phase(PHASE))?;
        // The first table tells how many partitions one has.
        make(&client, 0, 1).await?;
        let partitions = client.partitions().await.map_err(BenchError::in_phase(PHASE))?;
        let of_table = partitions.iter().filter(|partition| partition.table == name(0)).count();
        let each = u32::try_from(of_table).expect("a table has few partitions").max(1);
        let before = watch(&pids, arguments.seconds).await?;
        let tables = arguments.groups.div_ceil(each);
        let began = Instant::now();
        make(&client, 1, tables).await?;
        println!("{} groups made in {:.1} s", tables * each, began.elapsed().as_secs_f64());
        client.close().await;
        Ok((tables * each, before, watch(&pids, arguments.seconds).await?))
    }))
}

fn name(number: u32) -> String {
    format!("idle-{number}")
}

/// Makes tables and waits until they are active, several at a time.
async fn make(client: &Client, first: u32, count: u32) -> Result<(), BenchError> {
    let next = Rc::new(Cell::new(first));
    let makers: Vec<_> = (0..MADE_TOGETHER.min(count))
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::task::spawn_local(async move {
                while next.get() < first + count {
                    let number = next.replace(next.get() + 1);
                    make_one(&client, number).await?;
                }
                Ok::<(), BenchError>(())
            })
        })
        .collect();
    for maker in makers {
        maker.await.map_err(BenchError::in_phase(PHASE))??;
    }
    Ok(())
}

async fn make_one(client: &Client, number: u32) -> Result<(), BenchError> {
    let table = CreateTable::new(name(number), items::schema());
    client.create_table(table).await.map_err(BenchError::in_phase(PHASE))?;
    let began = Instant::now();
    loop {
        let row = client.describe_table(&name(number)).await.map_err(BenchError::in_phase(PHASE))?;
        if row.status == TableStatus::Active {
            return Ok(());
        }
        if began.elapsed() > ACTIVE_WITHIN {
            let reason = format!("table {} is not active after {ACTIVE_WITHIN:?}", name(number));
            return Err(BenchError::Phase { phase: PHASE, reason });
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Watches the cluster for a while: what its counters rise by in a second.
async fn watch(pids: &[PathBuf], seconds: f64) -> Result<Watched, BenchError> {
    tokio::time::sleep(CALM).await;
    let (began, before) = (Instant::now(), look(pids)?);
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (lasted, after) = (began.elapsed().as_secs_f64(), look(pids)?);
    Ok(Watched {
        processor_s: (after.processor_s - before.processor_s) / lasted,
        memory_mib: after.memory_mib,
        datagrams: (after.datagrams - before.datagrams) / lasted,
        bytes: (after.bytes - before.bytes) / lasted,
    })
}

fn look(pids: &[PathBuf]) -> Result<Watched, BenchError> {
    let (mut processor_s, mut memory_mib) = (0.0, 0.0);
    for pid_file in pids {
        let process = Path::new("/proc").join(read(pid_file)?.trim());
        let ticks = machine::process_ticks(&read(&process.join("stat"))?).ok_or_else(unknown)?;
        processor_s += ticks as f64 / TICKS_PER_SECOND;
        memory_mib += anonymous_mib(&read(&process.join("status"))?).ok_or_else(unknown)?;
    }
    let nodes = pids.len() as f64;
    Ok(Watched {
        processor_s: processor_s / nodes,
        memory_mib: memory_mib / nodes,
        datagrams: datagrams(&read(Path::new("/proc/net/snmp"))?).ok_or_else(unknown)?,
        bytes: loopback_bytes(&read(Path::new("/proc/net/dev"))?).ok_or_else(unknown)?,
    })
}

fn read(path: &Path) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(|source| BenchError::File { path: path.to_owned(), source })
}

fn unknown() -> BenchError {
    BenchError::Phase { phase: PHASE, reason: "this kernel's counters are of another form".to_owned() }
}

/// Memory of a process that is not pages of files, from its `status`.
fn anonymous_mib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

/// Datagrams sent, from `snmp`: a line of names, then one of figures.
fn datagrams(snmp: &str) -> Option<f64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, figures) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "OutDatagrams")?;
    figures.split_whitespace().nth(at)?.parse().ok()
}

/// Bytes received over loopback, which are those sent, from `dev`.
fn loopback_bytes(dev: &str) -> Option<f64> {
    let line = dev.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn print(groups: u32, before: Watched, after: Watched) {
    println!("{:<34} {:>12} {:>12} {:>12} {:>12}", "", "% of a core", "memory MiB", "messages/s", "KiB/s");
    for (name, seen) in [("a node, next to no groups", before), ("a node, with the groups", after)] {
        let (percent, nodes) = (100.0 * seen.processor_s, f64::from(NODES));
        let (messages, kib) = (seen.datagrams / nodes, seen.bytes / nodes / 1024.0);
        println!("{name:<34} {percent:>12.2} {:>12.1} {messages:>12.1} {kib:>12.1}", seen.memory_mib);
    }
    let scale = f64::from(groups) / AIMED_AT_GROUPS;
    let cost = |name: &str, measured: f64, aim: f64| {
        Aim::at_most(format!("{groups} idle groups, {name} of a node, at most"), measured, aim * scale)
    };
    let percent = 100.0 * (after.processor_s - before.processor_s);
    let mib = after.memory_mib - before.memory_mib;
    for aim in [cost("% of a core", percent, CORE_PERCENT_MAX), cost("MiB", mib, MEMORY_MIB_MAX)] {
        println!("{aim}");
    }
    println!("a group: {:.0} bytes of memory", 1024.0 * 1024.0 * mib / f64::from(groups));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_where_the_kernel_shows_them() {
        assert_eq!(anonymous_mib("VmRSS:\t 9 kB\nRssAnon:\t    2048 kB\nRssFile: 1 kB\n"), Some(2.0));
        assert_eq!(anonymous_mib("VmRSS:\t 9 kB\n"), None);
        let snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams OutDatagrams\nUdp: 5 7\n";
        assert_eq!(datagrams(snmp), Some(7.0));
        let dev = "Inter-| Receive\n face |bytes packets\n  eth0: 1 2\n    lo: 4096 9 0\n";
        assert_eq!(loopback_bytes(dev), Some(4096.0));
    }

    #[test]
    fn this_kernel_shows_its_counters() {
        let own = tempfile::NamedTempFile::new().unwrap();
        fs::write(own.path(), std::process::id().to_string()).unwrap();
        let seen = look(&[own.path().to_owned()]).unwrap();
        assert!(seen.memory_mib > 0.0, "{seen:?}");
    }
}
