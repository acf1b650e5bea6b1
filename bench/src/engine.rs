//! `evenkeel bench engine`: the storage engine of one shard beside other engines, and the floors beneath them all.
//!
//! ```text
//! load ── for each round: puts, gets, scan ── merges ── overwrites ── (killed) ── restart
//! ```
//!
//! All engines do a step one after the other before the next step begins, each in a process of its own
//! ([`steps`]), so that a machine whose speed drifts drifts under all of them. Where the kernel lets this process
//! make control groups, the page cache of the other engines is bounded by one.

mod children;
mod figures;
mod floors;
mod own;
mod steps;

use crate::arguments::{EngineArguments, StepArguments};
use crate::error::BenchError;
use crate::plot::{self, Series, Timeline};
use crate::quick::{check_span, temporary_directory};
use children::{Child, Settings};
pub(crate) use children::{Child as EngineChild, Settings as EngineSettings};
use figures::Report;
use floors::Floors;
use std::path::Path;
pub(crate) use steps::{Data, Outcome, Step};

/// This store's engine among the engines.
pub(crate) const OWN: &str = "evenkeel";
/// All that can be compared.
pub(crate) const ENGINES: [&str; 5] = [OWN, "rocksdb", "lmdb", "redb", "fjall"];
const MANY: u64 = 32;
/// Data is this many times the memory.
const DATA_TO_MEMORY: u64 = 4;
/// Cold gets are one for so many items: hardly a page is read twice.
const ITEMS_PER_COLD_GET: u64 = 32;
/// And before them one for so many, to have in memory what leads to the items.
const ITEMS_PER_WARMING_GET: u64 = 256;
/// Warm gets are of one item for so many bytes of memory: all pages they are on fit into half of any cache.
const MEMORY_PER_WARM_ITEM: u64 = 64 << 10;
const WARM_GETS_MAX: u64 = 1 << 32;

/// Sizes of the quick form.
const QUICK_MEMORY_MIB: u64 = 16;
const QUICK_SECONDS: f64 = 0.5;
const QUICK_OVERWRITE_SECONDS: f64 = 3.0;

/// Everything measured of one engine.
#[derive(Debug, Default, serde::Serialize)]
struct Measured {
    load: Outcome,
    rounds: Vec<Round>,
    merge: Outcome,
    overwrite: Outcome,
    restart: Outcome,
}

/// The short steps, once.
#[derive(Debug, Default, serde::Serialize)]
struct Round {
    put: Outcome,
    puts: Outcome,
    cold_get: Outcome,
    cold_gets: Outcome,
    warm_get: Outcome,
    scan: Outcome,
}

/// Performs one step in this process and prints the outcome.
///
/// # Errors
/// See [`BenchError`].
pub(crate) fn step(arguments: &StepArguments) -> Result<(), BenchError> {
    let fault = BenchError::in_phase("step");
    let request: steps::Request = serde_json::from_str(&arguments.request).map_err(fault)?;
    steps::enter_group(&request).map_err(BenchError::in_phase("control group"))?;
    let outcome = own::perform(request)?;
    println!("{}", serde_json::to_string(&outcome).map_err(BenchError::in_phase("step"))?);
    Ok(())
}

/// Runs it and prints the report.
///
/// # Errors
/// See [`BenchError`].
pub(crate) fn run(arguments: &EngineArguments) -> Result<(), BenchError> {
    let plan = Plan::new(arguments)?;
    let directory = temporary_directory(arguments.data.as_deref())?;
    println!("measuring in {}", directory.path().display());
    let (mut children, missing) =
        children::start(&plan.engines, &arguments.peers, directory.path(), plan.settings)?;
    let mut floors = Floors::new(directory.path().join("floors"), plan.settings)?;
    let measured = measure(&plan, &mut children, &mut floors)?;
    let report = Report::new(&plan, &children, &floors, &measured);
    print!("{report}");
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&report).map_err(BenchError::in_phase("report"))?;
        std::fs::write(file, json).map_err(|source| BenchError::File { path: file.clone(), source })?;
    }
    if let Some(file) = &arguments.plot {
        draw(file, &report, &children, &measured)?;
    }
    let faults = report.faults(arguments.check);
    if !faults.is_empty() {
        return Err(BenchError::Check { faults });
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(BenchError::PeersMissing { engines: missing, file: arguments.peers.clone() }),
    }
}

/// What is run.
struct Plan {
    engines: Vec<String>,
    settings: Settings,
    seconds: f64,
    rounds: u32,
    overwrite_seconds: f64,
}

impl Plan {
    fn new(arguments: &EngineArguments) -> Result<Plan, BenchError> {
        let quick = arguments.quick;
        let engines = match &arguments.engines {
            Some(engines) => engines.clone(),
            None if quick => vec![OWN.to_owned()],
            None => ENGINES.map(str::to_owned).to_vec(),
        };
        if let Some(other) = engines.iter().find(|engine| !ENGINES.contains(&engine.as_str())) {
            let reason = format!("there is no engine {other}; there are {}", ENGINES.join(", "));
            return Err(BenchError::Argument { flag: "--engines", reason });
        }
        let (memory_mib, seconds, rounds, overwrite_seconds) = match quick {
            true => (QUICK_MEMORY_MIB, QUICK_SECONDS, 1, QUICK_OVERWRITE_SECONDS),
            false => (arguments.memory_mib, arguments.seconds, arguments.rounds, arguments.overwrite_seconds),
        };
        check_span(seconds, rounds)?;
        check_span(overwrite_seconds, 1)?;
        let settings =
            Settings::new(memory_mib << 20, DATA_TO_MEMORY, arguments.value_bytes, arguments.leaf_bytes)?;
        Ok(Plan { engines, settings, seconds, rounds, overwrite_seconds })
    }

    fn items(&self) -> u64 {
        self.settings.data.items
    }

    fn put(&self, writers: u64) -> Step {
        Step::Put { writers, seconds: self.seconds }
    }

    fn cold_get(&self, readers: u64) -> Step {
        let (gets_max, warm) = (self.items() / ITEMS_PER_COLD_GET, self.items() / ITEMS_PER_WARMING_GET);
        Step::Get { readers, seconds: self.seconds, gets_max, among: self.items(), warm }
    }

    fn warm_get(&self) -> Step {
        let among = (self.settings.memory_bytes / MEMORY_PER_WARM_ITEM).min(self.items());
        Step::Get { readers: 1, seconds: self.seconds, gets_max: WARM_GETS_MAX, among, warm: among }
    }
}

fn measure(plan: &Plan, children: &mut [Child], floors: &mut Floors) -> Result<Vec<Measured>, BenchError> {
    let mut measured: Vec<Measured> = children.iter().map(|_| Measured::default()).collect();
    let mut all = |name: &str, step: &dyn Fn(&Measured) -> Step, note: &dyn Fn(&mut Measured, Outcome)| {
        eprintln!("{name}");
        for (child, measured) in children.iter_mut().zip(&mut measured) {
            let outcome = child.perform(step(measured))?;
            note(measured, outcome);
        }
        Ok::<(), BenchError>(())
    };
    all("load", &|_| Step::Load, &|measured, outcome| measured.load = outcome)?;
    for _ in 0..plan.rounds {
        eprintln!("floors");
        floors.measure(plan.seconds, plan.items() / ITEMS_PER_COLD_GET)?;
        all("put", &|_| plan.put(1), &|measured, put| {
            measured.rounds.push(Round { put, ..Round::default() })
        })?;
        let mut next = |name: &str, step: Step, note: &dyn Fn(&mut Round, Outcome)| {
            all(name, &|_| step.clone(), &|measured, outcome| {
                note(measured.rounds.last_mut().expect("the round has begun"), outcome);
            })
        };
        next("puts", plan.put(MANY), &|round, outcome| round.puts = outcome)?;
        next("cold get", plan.cold_get(1), &|round, outcome| round.cold_get = outcome)?;
        next("cold gets", plan.cold_get(MANY), &|round, outcome| round.cold_gets = outcome)?;
        next("warm get", plan.warm_get(), &|round, outcome| round.warm_get = outcome)?;
        next("scan", Step::Scan, &|round, outcome| round.scan = outcome)?;
    }
    all("merge", &|_| Step::Merge { seconds: plan.seconds }, &|measured, outcome| measured.merge = outcome)?;
    let overwrite = Step::Put { writers: MANY, seconds: plan.overwrite_seconds };
    all("overwrite", &|_| overwrite.clone(), &|measured, outcome| measured.overwrite = outcome)?;
    let restart = |measured: &Measured| Step::Restart { expected: measured.overwrite.witnesses.clone() };
    all("restart", &restart, &|measured, outcome| measured.restart = outcome)?;
    Ok(measured)
}

/// Draws all figures, and how many overwrites there were in each second.
fn draw(file: &Path, report: &Report, children: &[Child], measured: &[Measured]) -> Result<(), BenchError> {
    let series: Vec<Series> = children
        .iter()
        .zip(measured)
        .map(|(child, measured)| {
            // The last second is not a whole one.
            let seconds = measured.overwrite.timeline.split_last().map_or(&[][..], |(_, whole)| whole);
            let points = seconds.iter().enumerate().map(|(second, puts)| (second as f64, *puts as f64));
            Series { name: child.engine.clone(), points: points.collect() }
        })
        .collect();
    let title = "uniform overwrites, 32 writers, each durable";
    let timeline = Timeline { title, unit: "puts a second", series: &series, marks: &[] };
    plot::bars(file, &report.title(), &report.bars(), Some(&timeline))
}

#[cfg(test)]
mod tests;
