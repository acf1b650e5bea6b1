//! All figures of a run, a row each and a column an engine; ratios beside their aims; what cannot be right.

use super::children::{Child, Settings};
use super::floors::Floors;
use super::steps::{KEY_BYTES, Latencies, Outcome};
use super::{MANY, Measured, OWN, Plan, Round};
use crate::plot::Bars;
use crate::report::{Aim, figure, median};
use serde::Serialize;
use std::fmt;

const FLOOR: &str = "floor";
const MIB: f64 = 1024.0 * 1024.0;

/// A durable put of our engine may take this many times a bare append.
const PUT_TO_FLOOR_MAX: f64 = 1.15;
/// Puts of many writers a second, as a multiple of RocksDB's and of every other engine's.
const PUTS_TO_ROCKSDB_MIN: f64 = 2.0;
const PUTS_TO_OTHERS_MIN: f64 = 1.0;
/// A cold get may take this many times a raw read.
const COLD_GET_TO_READ_MAX: f64 = 1.3;
const WARM_GET_US_MAX: f64 = 2.0;
/// The tail while merges run, as a multiple of the tail without.
const MERGE_TO_IDLE_MAX: f64 = 1.5;
/// The process's memory, as a multiple of what the engine is given.
const MEMORY_TO_BUDGET_MAX: f64 = 1.1;

/// One figure of all engines.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    unit: &'static str,
    /// In the order of the columns.
    values: Vec<Option<f64>>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    processors: usize,
    kernel: String,
    settings: Settings,
    seconds: f64,
    rounds: u32,
    overwrite_seconds: f64,
    sync_strategy: &'a str,
    /// The floor, then the engines.
    columns: Vec<&'a str>,
    rows: Vec<Row>,
    aims: Vec<Aim>,
    notes: Vec<String>,
    measured: Vec<(&'a str, &'a Measured)>,
}

/// How a figure is taken from what was measured of an engine.
type Take = fn(&Measured, &Settings) -> Option<f64>;

/// How a figure is taken from the floors.
type TakeFloor = fn(&Floors) -> Option<f64>;

fn rounds(measured: &Measured, take: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
    median(measured.rounds.iter().filter_map(take).collect())
}

fn puts(outcome: &Outcome, take: fn(&Latencies) -> f64) -> Option<f64> {
    outcome.puts.as_ref().map(take)
}

fn gets(outcome: &Outcome, take: fn(&Latencies) -> f64) -> Option<f64> {
    outcome.gets.as_ref().map(take)
}

fn none(_: &Floors) -> Option<f64> {
    None
}

/// The bytes that an engine was given, by so many puts or items.
fn user_bytes(items: u64, settings: &Settings) -> f64 {
    (items * (KEY_BYTES + settings.data.value_bytes) as u64) as f64
}

fn per_get(round: &Round, bytes_or_reads: f64) -> Option<f64> {
    gets(&round.cold_get, |gets| gets.count as f64).map(|count| bytes_or_reads / count)
}

const ROWS: [(&str, &str, Take, TakeFloor); 29] = [
    (
        "durable put, 1 writer: p50",
        "us",
        |m, _| rounds(m, |round| puts(&round.put, |puts| puts.p50_us)),
        |floors| median(floors.appends.iter().map(|append| append.p50_us).collect()),
    ),
    (
        "durable put, 1 writer: p99",
        "us",
        |m, _| rounds(m, |round| puts(&round.put, |puts| puts.p99_us)),
        |floors| median(floors.appends.iter().map(|append| append.p99_us).collect()),
    ),
    (
        "durable put, 1 writer: p99.9",
        "us",
        |m, _| rounds(m, |round| puts(&round.put, |puts| puts.p999_us)),
        none,
    ),
    (
        "durable puts, 32 writers",
        "a second",
        |m, _| rounds(m, |round| puts(&round.puts, |puts| puts.per_second)),
        none,
    ),
    (
        "durable puts, 32 writers: p99",
        "us",
        |m, _| rounds(m, |round| puts(&round.puts, |puts| puts.p99_us)),
        none,
    ),
    (
        "cold get: p50",
        "us",
        |m, _| rounds(m, |round| gets(&round.cold_get, |gets| gets.p50_us)),
        |floors| median(floors.reads.iter().map(|reads| reads.p50_us).collect()),
    ),
    (
        "cold get: p99",
        "us",
        |m, _| rounds(m, |round| gets(&round.cold_get, |gets| gets.p99_us)),
        |floors| median(floors.reads.iter().map(|reads| reads.p99_us).collect()),
    ),
    (
        "cold get: pages read",
        "a get",
        |m, _| rounds(m, |round| per_get(round, round.cold_get.page_reads? as f64)),
        none,
    ),
    (
        "cold get: bytes read",
        "KiB a get",
        |m, _| rounds(m, |round| per_get(round, round.cold_get.io.read_bytes as f64 / 1024.0)),
        none,
    ),
    (
        "cold gets, 32 readers",
        "a second",
        |m, _| rounds(m, |round| gets(&round.cold_gets, |gets| gets.per_second)),
        |floors| median(floors.many_reads.iter().map(|reads| reads.per_second).collect()),
    ),
    ("warm get: p50", "us", |m, _| rounds(m, |round| gets(&round.warm_get, |gets| gets.p50_us)), none),
    ("warm get: p99", "us", |m, _| rounds(m, |round| gets(&round.warm_get, |gets| gets.p99_us)), none),
    (
        "scan",
        "MB/s",
        |m, settings| {
            rounds(m, |round| Some(user_bytes(round.scan.scanned, settings) / 1e6 / round.scan.seconds))
        },
        none,
    ),
    ("overwrites, 32 writers", "a second", |m, _| puts(&m.overwrite, |puts| puts.per_second), none),
    ("overwrites: p50", "us", |m, _| puts(&m.overwrite, |puts| puts.p50_us), none),
    ("overwrites: p99.9", "us", |m, _| puts(&m.overwrite, |puts| puts.p999_us), none),
    ("overwrites: longest", "us", |m, _| puts(&m.overwrite, |puts| puts.max_us), none),
    (
        "overwrites: slowest second",
        "puts",
        |m, _| {
            let whole = m.overwrite.timeline.split_last().map(|(_, whole)| whole)?;
            whole.iter().min().map(|puts| *puts as f64)
        },
        none,
    ),
    (
        "overwrites: refused",
        "times",
        |m, _| m.overwrite.puts.as_ref().map(|_| m.overwrite.refused as f64),
        none,
    ),
    (
        "overwrites: bytes written",
        "a byte",
        |m, settings| {
            let count = m.overwrite.puts.as_ref()?.count;
            Some(m.overwrite.io.write_bytes as f64 / user_bytes(count, settings))
        },
        none,
    ),
    (
        "overwrites: by the engine's count",
        "a byte",
        |m, settings| {
            let count = m.overwrite.puts.as_ref()?.count;
            Some(m.overwrite.engine_written? as f64 / user_bytes(count, settings))
        },
        none,
    ),
    (
        "on disk after load",
        "a byte",
        |m, settings| Some(m.load.disk_bytes as f64 / user_bytes(settings.data.items, settings)),
        none,
    ),
    (
        "on disk after load, pages in use",
        "a byte",
        |m, settings| Some(m.load.used_bytes? as f64 / user_bytes(settings.data.items, settings)),
        none,
    ),
    (
        "on disk after overwrites",
        "a byte",
        |m, settings| Some(m.overwrite.disk_bytes as f64 / user_bytes(settings.data.items, settings)),
        none,
    ),
    ("restart after a kill", "ms", |m, _| Some(m.restart.open_ms), none),
    ("memory, greatest", "MiB", |m, _| Some(m.overwrite.memory_max_bytes as f64 / MIB), none),
    ("load", "s", |m, _| Some(m.load.seconds), none),
    (
        "put beside merges, p99.9 to idle",
        "times",
        |m, _| Some(m.merge.merging.as_ref()?.0.p999_us / m.merge.puts.as_ref()?.p999_us),
        none,
    ),
    (
        "get beside merges, p99.9 to idle",
        "times",
        |m, _| Some(m.merge.merging.as_ref()?.1.p999_us / m.merge.gets.as_ref()?.p999_us),
        none,
    ),
];

impl<'a> Report<'a> {
    pub(super) fn new(
        plan: &Plan,
        children: &'a [Child],
        floors: &'a Floors,
        measured: &'a [Measured],
    ) -> Report<'a> {
        let engines = children.iter().map(|child| child.engine.as_str());
        let row = |(name, unit, take, take_floor): &(&'static str, &'static str, Take, TakeFloor)| Row {
            name,
            unit,
            values: std::iter::once(take_floor(floors))
                .chain(measured.iter().map(|measured| take(measured, &plan.settings)))
                .collect(),
        };
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut report = Report {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            settings: plan.settings,
            seconds: plan.seconds,
            rounds: plan.rounds,
            overwrite_seconds: plan.overwrite_seconds,
            sync_strategy: &floors.strategy,
            columns: std::iter::once(FLOOR).chain(engines.clone()).collect(),
            rows: ROWS.iter().map(row).collect(),
            aims: Vec::new(),
            notes: notes(children, measured),
            measured: engines.zip(measured).collect(),
        };
        report.aims = report.aims();
        report
    }

    pub(super) fn title(&self) -> String {
        let Settings { memory_bytes, data, leaf_bytes } = self.settings;
        format!(
            "{} items of {} B, {} MiB of memory, leaves of {} KiB, {} processors, Linux {}",
            data.items,
            data.value_bytes,
            memory_bytes >> 20,
            leaf_bytes >> 10,
            self.processors,
            self.kernel
        )
    }

    /// A group of bars for each row that compares something.
    pub(super) fn bars(&self) -> Vec<Bars> {
        let known = |row: &Row| -> Vec<(String, f64)> {
            let values = self.columns.iter().zip(&row.values);
            values.filter_map(|(column, value)| Some(((*column).to_owned(), (*value)?))).collect()
        };
        let bars = |row: &Row| Bars { title: format!("{}, {}", row.name, row.unit), values: known(row) };
        self.rows.iter().map(bars).filter(|bars| bars.values.len() > 1).collect()
    }

    fn value(&self, name: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|known| *known == column)?;
        let row = self.rows.iter().find(|row| row.name == name).expect("rows are asked for by their names");
        row.values[at]
    }

    /// What was aimed at, as far as it was measured.
    fn aims(&self) -> Vec<Aim> {
        let own = |name: &str| self.value(name, OWN);
        let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
        let mut aims = Vec::new();
        let mut at_most = |name: &str, measured: Option<f64>, aim: f64| {
            let aim =
                measured.map(|measured| Aim { name: name.to_owned(), measured, aim, met: measured <= aim });
            aims.extend(aim);
        };
        let put = "durable put, 1 writer: p50";
        at_most(
            "durable put p50 / append, at most",
            ratio(own(put), self.value(put, FLOOR)),
            PUT_TO_FLOOR_MAX,
        );
        let get = "cold get: p50";
        at_most(
            "cold get p50 / raw read, at most",
            ratio(own(get), self.value(get, FLOOR)),
            COLD_GET_TO_READ_MAX,
        );
        at_most("warm get p50, us, at most", own("warm get: p50"), WARM_GET_US_MAX);
        let (put, get) = ("put beside merges, p99.9 to idle", "get beside merges, p99.9 to idle");
        at_most("put p99.9 beside merges / idle, at most", own(put), MERGE_TO_IDLE_MAX);
        at_most("get p99.9 beside merges / idle, at most", own(get), MERGE_TO_IDLE_MAX);
        let budget = self.settings.memory_bytes as f64 / MIB;
        let memory = own("memory, greatest").map(|memory| memory / budget);
        at_most("memory / budget, at most", memory, MEMORY_TO_BUDGET_MAX);
        let puts = "durable puts, 32 writers";
        for engine in self.columns.iter().filter(|column| ![FLOOR, OWN].contains(column)) {
            let least = if *engine == "rocksdb" { PUTS_TO_ROCKSDB_MIN } else { PUTS_TO_OTHERS_MIN };
            let Some(measured) = ratio(own(puts), self.value(puts, engine)) else { continue };
            let name = format!("puts of {MANY} writers / {engine}'s, at least");
            aims.push(Aim { name, measured, aim: least, met: measured >= least });
        }
        aims
    }

    /// What makes the figures untrustworthy; with `sane` also figures that cannot be.
    pub(super) fn faults(&self, sane: bool) -> Vec<String> {
        let mut faults = Vec::new();
        for (engine, measured) in &self.measured {
            for (step, outcome) in measured.outcomes() {
                if outcome.wrong > 0 {
                    let first = outcome.first_fault.as_deref().unwrap_or_default();
                    faults.push(format!(
                        "{engine}, {step}: {} wrong answers or errors, first: {first}",
                        outcome.wrong
                    ));
                }
            }
            for round in &measured.rounds {
                if round.scan.scanned != self.settings.data.items {
                    faults.push(format!("{engine}: a scan has found {} items", round.scan.scanned));
                }
            }
            if measured.overwrite.witnesses.is_empty() {
                faults.push(format!("{engine}: no overwrite to look for after the restart"));
            }
        }
        if sane {
            self.insane(&mut faults);
        }
        faults
    }

    /// Rows of our engine that were not measured, or cannot be.
    fn insane(&self, faults: &mut Vec<String>) {
        for row in &self.rows {
            let value = self.value(row.name, OWN);
            let bounds = match row.name {
                "overwrites: refused" | "overwrites: slowest second" => 0.0..=f64::MAX,
                // A few are answered from memory; with all inner pages in memory none takes more than one read.
                "cold get: pages read" => 0.5..=1.1,
                // What is written is written to the log at least.
                "overwrites: bytes written" | "overwrites: by the engine's count" => 1.0..=f64::MAX,
                "on disk after load" | "on disk after load, pages in use" => 1.0..=f64::MAX,
                _ => f64::MIN_POSITIVE..=f64::MAX,
            };
            if !value.is_some_and(|value| bounds.contains(&value)) {
                faults.push(format!("{}: {value:?}", row.name));
            }
        }
        for name in ["durable put, 1 writer: p50", "cold get: p50", "cold gets, 32 readers"] {
            if self.value(name, FLOOR).is_none_or(|value| value <= 0.0) {
                faults.push(format!("{name}: no floor"));
            }
        }
    }
}

impl Measured {
    fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Outcome)> {
        let once = [
            ("load", &self.load),
            ("merge", &self.merge),
            ("overwrite", &self.overwrite),
            ("restart", &self.restart),
        ];
        once.into_iter().chain(self.rounds.iter().flat_map(Round::outcomes))
    }
}

impl Round {
    fn outcomes(&self) -> [(&'static str, &Outcome); 6] {
        [
            ("put", &self.put),
            ("puts", &self.puts),
            ("cold get", &self.cold_get),
            ("cold gets", &self.cold_gets),
            ("warm get", &self.warm_get),
            ("scan", &self.scan),
        ]
    }
}

/// How each engine was run.
fn notes(children: &[Child], measured: &[Measured]) -> Vec<String> {
    let note = |(child, measured): (&Child, &Measured)| {
        let said = measured.load.notes.join("; ");
        match (child.engine == OWN, child.is_bounded()) {
            (true, _) => {
                format!("{OWN}: half tables, half page cache, but for 16 MiB for all else; direct IO")
            }
            (_, true) => {
                format!("{}: {said}; a control group holds it to twice its memory and 64 MiB", child.engine)
            }
            (_, false) => {
                format!("{}: {said}; page cache NOT bounded: no control group to be had", child.engine)
            }
        }
    };
    let mut notes: Vec<String> = children.iter().zip(measured).map(note).collect();
    notes.push("before each step the cached pages of the others' files were dropped".to_owned());
    notes
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        writeln!(
            f,
            "{} rounds of {} s a step, {} s of overwrites, log made durable by {}",
            self.rounds, self.seconds, self.overwrite_seconds, self.sync_strategy
        )?;
        write!(f, "{:<36} {:>9}", "", "")?;
        self.columns.iter().try_for_each(|column| write!(f, " {column:>9}"))?;
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:<36} {:>9}", row.name, row.unit)?;
            for value in &row.values {
                write!(f, " {:>9}", value.map_or("-".to_owned(), figure))?;
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        for aim in &self.aims {
            let verdict = if aim.met { "met" } else { "missed" };
            writeln!(f, "{} {}: measured {} ({verdict})", aim.name, figure(aim.aim), figure(aim.measured))?;
        }
        Ok(())
    }
}
