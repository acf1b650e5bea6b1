//! Counters of one worker: plain cells on the request path, copied once a second to metrics handles.

use crate::access::{Access, Verdict};
use evenkeel_dynamodb::Operation;
use metrics::{Counter, Label, counter};
use std::cell::Cell;
use std::time::Duration;

/// Upper bounds of the latency buckets, in microseconds; the last bucket has none.
const BUCKETS_US: [u64; 14] =
    [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400];
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];
const OPERATIONS: usize = Operation::ALL.len();

/// One worker's counters.
#[derive(Default)]
pub struct Counts {
    answered: [[Cell<u64>; CLASSES.len()]; OPERATIONS],
    unknown: Cell<u64>,
    latency: [Cell<u64>; BUCKETS_US.len() + 1],
    latency_sum_us: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

fn add(cell: &Cell<u64>, amount: u64) {
    cell.set(cell.get() + amount);
}

impl Counts {
    /// A request was answered.
    pub fn answered(&self, operation: Option<Operation>, status: u16, took: Duration, bytes: (usize, usize)) {
        match operation {
            Some(operation) => add(&self.answered[operation as usize][class(status)], 1),
            None => add(&self.unknown, 1),
        }
        let took_us = took.as_micros() as u64;
        let bucket = BUCKETS_US.iter().position(|bound| took_us <= *bound).unwrap_or(BUCKETS_US.len());
        add(&self.latency[bucket], 1);
        add(&self.latency_sum_us, took_us);
        add(&self.bytes_in, bytes.0 as u64);
        add(&self.bytes_out, bytes.1 as u64);
    }
}

fn class(status: u16) -> usize {
    match status {
        0..400 => 0,
        400..500 => 1,
        _ => 2,
    }
}

/// Handles of one worker's metrics, taken once.
pub struct Reporter {
    answered: Vec<[Counter; CLASSES.len()]>,
    unknown: Counter,
    latency: Vec<Counter>,
    latency_sum_us: Counter,
    latency_count: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    signatures: [Counter; Verdict::ALL.len()],
}

impl Reporter {
    /// Takes the handles for a worker.
    pub fn new(worker: usize) -> Reporter {
        let own = vec![Label::new("worker", worker.to_string())];
        let with = |name: &'static str, value: String| {
            let mut labels = own.clone();
            labels.push(Label::new(name, value));
            labels
        };
        let of_operation = |operation: &Operation| {
            CLASSES.map(|class| {
                let mut labels = with("operation", operation.name().to_owned());
                labels.push(Label::new("class", class));
                counter!("evenkeel_router_requests_total", labels)
            })
        };
        let bounds = BUCKETS_US.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        Reporter {
            answered: Operation::ALL.iter().map(of_operation).collect(),
            unknown: counter!("evenkeel_router_requests_unknown_total", own.clone()),
            latency: bounds
                .map(|bound| counter!("evenkeel_router_request_microseconds_bucket", with("le", bound)))
                .collect(),
            latency_sum_us: counter!("evenkeel_router_request_microseconds_sum", own.clone()),
            latency_count: counter!("evenkeel_router_request_microseconds_count", own.clone()),
            bytes_in: counter!("evenkeel_router_received_bytes_total", own.clone()),
            bytes_out: counter!("evenkeel_router_sent_bytes_total", own.clone()),
            signatures: Verdict::ALL.map(|verdict| {
                counter!("evenkeel_router_signatures_total", with("verdict", verdict.name().to_owned()))
            }),
        }
    }

    /// Copies the counters as they are now.
    pub fn report(&self, counts: &Counts, access: &Access) {
        for (handles, cells) in self.answered.iter().zip(&counts.answered) {
            for (handle, cell) in handles.iter().zip(cells) {
                handle.absolute(cell.get());
            }
        }
        self.unknown.absolute(counts.unknown.get());
        let mut below = 0;
        for (handle, cell) in self.latency.iter().zip(&counts.latency) {
            below += cell.get();
            handle.absolute(below);
        }
        self.latency_count.absolute(below);
        self.latency_sum_us.absolute(counts.latency_sum_us.get());
        self.bytes_in.absolute(counts.bytes_in.get());
        self.bytes_out.absolute(counts.bytes_out.get());
        for (handle, (_, count)) in self.signatures.iter().zip(access.verdicts()) {
            handle.absolute(count);
        }
    }
}
