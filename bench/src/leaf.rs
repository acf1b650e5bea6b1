//! `evenkeel bench leaf`: how large leaves should be.
//!
//! For each size of items, trees with leaves of each size hold the same data within the same memory. What they cost is
//! measured in turn, round after round: gets of items whose pages are not in memory, scans, what overwrites write,
//! and space.

use crate::arguments::LeafArguments;
use crate::engine::{Data, EngineChild, EngineSettings, Outcome, Step};
use crate::error::BenchError;
use crate::quick::{check_span, temporary_directory};
use crate::report::{figure, median};
use std::path::Path;

const LEAVES_KIB: [usize; 3] = [4, 8, 16];
const VALUES_BYTES: [usize; 3] = [100, 1024, 10 * 1024];
const DATA_TO_MEMORY: u64 = 4;
const WRITERS: u64 = 32;
/// Cold gets are one for so many bytes: hardly a page is read twice.
const BYTES_PER_GET: u64 = 32 << 10;

/// Everything measured of one size of leaves with one size of items.
#[derive(serde::Serialize)]
struct Row {
    value_bytes: usize,
    leaf_kib: usize,
    load: Outcome,
    gets: Vec<Outcome>,
    scans: Vec<Outcome>,
    overwrite: Outcome,
}

/// Runs it and prints a table.
///
/// # Errors
/// See [`BenchError`].
pub(crate) fn run(arguments: &LeafArguments) -> Result<(), BenchError> {
    check_span(arguments.seconds, arguments.rounds)?;
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    print_head();
    let mut rows = Vec::new();
    for value_bytes in VALUES_BYTES {
        let measured = measure(arguments, value_bytes, directory.path())?;
        measured.iter().for_each(Row::print);
        rows.extend(measured);
    }
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&rows).map_err(BenchError::in_phase("report"))?;
        std::fs::write(file, json).map_err(|source| BenchError::File { path: file.clone(), source })?;
    }
    let faults: Vec<String> = rows.iter().flat_map(Row::faults).collect();
    if faults.is_empty() { Ok(()) } else { Err(BenchError::Check { faults }) }
}

/// All sizes of leaves with one size of items.
fn measure(arguments: &LeafArguments, value_bytes: usize, directory: &Path) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    let mut children = Vec::new();
    for leaf_kib in LEAVES_KIB {
        let memory_bytes = arguments.memory_mib << 20;
        let settings = EngineSettings::new(memory_bytes, DATA_TO_MEMORY, value_bytes, leaf_kib << 10)?;
        let mut child = EngineChild::own(directory.join(format!("{value_bytes}-{leaf_kib}")), settings)?;
        let load = child.perform(Step::Load)?;
        rows.push(Row {
            value_bytes,
            leaf_kib,
            load,
            gets: Vec::new(),
            scans: Vec::new(),
            overwrite: Outcome::default(),
        });
        children.push((child, settings.data));
    }
    for _ in 0..arguments.rounds {
        for (row, (child, data)) in rows.iter_mut().zip(&mut children) {
            row.gets.push(child.perform(get(*data, arguments.seconds))?);
            row.scans.push(child.perform(Step::Scan)?);
        }
    }
    let overwrite = Step::Put { writers: WRITERS, seconds: arguments.overwrite_seconds };
    for (row, (child, _)) in rows.iter_mut().zip(&mut children) {
        row.overwrite = child.perform(overwrite.clone())?;
    }
    Ok(rows)
}

fn get(data: Data, seconds: f64) -> Step {
    let gets_max = data.items * data.value_bytes as u64 / BYTES_PER_GET;
    Step::Get { readers: 1, seconds, gets_max, among: data.items, warm: gets_max / 4 }
}

fn print_head() {
    let head = ["get p50", "get p99", "reads", "scan", "overwrites", "p99.9", "written", "in use"];
    let units = ["us", "us", "a get", "MB/s", "a second", "us", "a byte", "a byte"];
    for line in [head, units] {
        print!("{:>8} {:>6}", "", "");
        line.iter().for_each(|name| print!(" {name:>10}"));
        println!();
    }
}

impl Row {
    fn print(&self) {
        let of = |take: fn(&Outcome) -> Option<f64>| median(self.gets.iter().filter_map(take).collect());
        let scan = |scan: &Outcome| (scan.scanned * self.value_bytes as u64) as f64 / 1e6 / scan.seconds;
        let puts = self.overwrite.puts.as_ref();
        let written =
            |count: u64| self.overwrite.io.write_bytes as f64 / (count * self.value_bytes as u64) as f64;
        let loaded = |items: u64| {
            self.load.used_bytes.map(|used| used as f64 / (items * self.value_bytes as u64) as f64)
        };
        let figures = [
            of(|get| Some(get.gets.as_ref()?.p50_us)),
            of(|get| Some(get.gets.as_ref()?.p99_us)),
            of(|get| Some(get.page_reads? as f64 / get.gets.as_ref()?.count as f64)),
            median(self.scans.iter().map(scan).collect()),
            puts.map(|puts| puts.per_second),
            puts.map(|puts| puts.p999_us),
            puts.map(|puts| written(puts.count)),
            self.scans.first().and_then(|scan| loaded(scan.scanned)),
        ];
        print!("{:>6} B {:>2} KiB", self.value_bytes, self.leaf_kib);
        figures.iter().for_each(|value| print!(" {:>10}", value.map_or("-".to_owned(), figure)));
        println!();
    }

    fn faults(&self) -> Vec<String> {
        let outcomes = [&self.load, &self.overwrite].into_iter().chain(&self.gets).chain(&self.scans);
        let fault = |outcome: &Outcome| {
            let first = outcome.first_fault.as_ref()?;
            Some(format!(
                "{} B, {} KiB: {} faults, first: {first}",
                self.value_bytes, self.leaf_kib, outcome.wrong
            ))
        };
        outcomes.filter_map(fault).collect()
    }
}
