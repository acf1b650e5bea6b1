//! `evenkeel bench front`: whether large requests delay small ones of other connections.
//!
//! GetItem on a few connections is measured by itself and while another connection sends, a few times a
//! second, what is largest: Scans of whole pages, or batches of 25 items near the limit of a request. On
//! a machine with few processors they also share those; that is in the figures too.

use crate::arguments::FrontArguments;
use crate::error::BenchError;
use crate::items::{self, Versions};
use crate::load::Lasting;
use crate::local::{LocalCluster, LocalConfig};
use crate::native::Operation;
use crate::quick::{check_span, temporary_directory};
use crate::tally::Measured;
use crate::{http, native};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PHASE: &str = "front";
/// Connections that get items, so that every worker of the router has some.
const CONNECTIONS: u32 = 8;
/// Items of the batches, each of this many numbers.
const BATCH_ITEMS: u32 = 25;
const BATCH_ITEM_NUMBERS: u32 = 35_000;

/// What another connection does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Scans,
    Batches,
}

const PHASES: [(&str, Beside); 3] = [
    ("GetItem by itself", Beside::Nothing),
    ("GetItem beside Scans of 1 MB, 10/s", Beside::Scans),
    ("GetItem beside batches of 16 MB, 1/s", Beside::Batches),
];

/// Runs it and prints the report.
///
/// # Errors
/// See [`BenchError`].
pub fn run(arguments: &FrontArguments) -> Result<(), BenchError> {
    check_span(arguments.seconds, arguments.rounds)?;
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    let cluster = LocalCluster::start(LocalConfig::measured(directory.path().join("cluster")))?;
    let measured = measure(&cluster, arguments);
    let stopped = cluster.stop();
    let measured = measured?;
    stopped?;
    println!("{:<38} {:>9} {:>9} {:>9} {:>9}", "", "p50 us", "p99 us", "max us", "large");
    for ((name, _), rounds) in PHASES.iter().zip(&measured) {
        let median = |figure: fn(&Round) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let (p50, p99) = (median(|round| round.gets.p50_us), median(|round| round.gets.p99_us));
        let (max, large) = (median(|round| round.gets.max_us), median(|round| f64::from(round.large)));
        println!("{name:<38} {p50:>9.0} {p99:>9.0} {max:>9.0} {large:>9.0}");
    }
    Ok(())
}

/// One phase of one round.
struct Round {
    gets: Measured,
    /// Large requests answered meanwhile.
    large: u32,
}

fn measure(cluster: &LocalCluster, arguments: &FrontArguments) -> Result<Vec<Vec<Round>>, BenchError> {
    let versions = Arc::new(Versions::new());
    native::prepare(&native::config(&cluster.client_file())?, &versions)?;
    let lasting = Lasting::Time(Duration::from_secs_f64(arguments.seconds));
    let mut measured: Vec<Vec<Round>> = PHASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..arguments.rounds {
        for ((_, beside), rounds) in PHASES.iter().zip(&mut measured) {
            let over = AtomicBool::new(false);
            let round = std::thread::scope(|scope| {
                let large = scope.spawn(|| keep_busy(cluster.endpoint(), *beside, &over));
                let gets = http::measure(cluster.endpoint(), Operation::Get, CONNECTIONS, lasting, &versions);
                over.store(true, Ordering::Relaxed);
                let large = large.join().expect("sending requests does not panic")?;
                Ok::<Round, BenchError>(Round { gets: gets?, large })
            })?;
            if let Some(reason) = round.gets.faults().into_iter().next() {
                return Err(BenchError::Phase { phase: PHASE, reason });
            }
            rounds.push(round);
        }
    }
    Ok(measured)
}

/// Sends large requests until it is over; yields how many were answered.
fn keep_busy(address: SocketAddr, beside: Beside, over: &AtomicBool) -> Result<u32, BenchError> {
    let (target, body, every) = match beside {
        Beside::Nothing => return Ok(0),
        Beside::Scans => {
            ("Scan", format!("{{\"TableName\":\"{}\"}}", items::TABLE), Duration::from_millis(100))
        }
        Beside::Batches => ("BatchWriteItem", batch(), Duration::from_secs(1)),
    };
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nx-amz-target: DynamoDB_20120810.{target}\r\n\
         content-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body.as_bytes()].concat();
    let mut stream = TcpStream::connect(address).map_err(BenchError::in_phase(PHASE))?;
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        let next = Instant::now() + every;
        stream.write_all(&request).map_err(BenchError::in_phase(PHASE))?;
        read_answer(&mut stream).map_err(BenchError::in_phase(PHASE))?;
        answered += 1;
        while Instant::now() < next && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(answered)
}

/// A BatchWriteItem of items that take long to read and to write: many small numbers.
fn batch() -> String {
    let numbers: Vec<String> =
        (0..BATCH_ITEM_NUMBERS).map(|number| format!("{{\"N\":\"{number}\"}}")).collect();
    let list = numbers.join(",");
    let item = |at: u32| {
        format!(
            "{{\"PutRequest\":{{\"Item\":{{\"pk\":{{\"S\":\"large-{at}\"}},\"l\":{{\"L\":[{list}]}}}}}}}}"
        )
    };
    let items: Vec<String> = (0..BATCH_ITEMS).map(item).collect();
    format!("{{\"RequestItems\":{{\"{}\":[{}]}}}}", items::TABLE, items.join(","))
}

fn read_answer(stream: &mut TcpStream) -> Result<(), String> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let read = stream.read(&mut chunk).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection was closed".to_owned());
        }
        bytes.extend_from_slice(&chunk[..read]);
        match http::answer_bytes(&bytes).map_err(|error| error.to_string())? {
            Some((true, all)) if bytes.len() >= all => return Ok(()),
            Some((false, all)) if bytes.len() >= all => {
                return Err(String::from_utf8_lossy(&bytes).into_owned());
            }
            _ => {}
        }
    }
}
