//! Tests of what all engines are given and of what is made of their answers.

use super::steps::{self, Data, Outcome, Picker, Request, Step, Tally};
use super::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn request(items: u64) -> Request {
    Request {
        engine: OWN.to_owned(),
        directory: PathBuf::from("nowhere"),
        step: Step::Scan,
        data: Data { items, value_bytes: 100 },
        memory_bytes: 1 << 20,
        leaf_bytes: 4096,
        epoch: 3,
        group: None,
    }
}

fn arguments() -> EngineArguments {
    EngineArguments {
        data: None,
        engines: None,
        peers: PathBuf::from("not-built"),
        memory_mib: 16,
        value_bytes: 1024,
        leaf_bytes: 8192,
        seconds: 1.0,
        rounds: 1,
        overwrite_seconds: 1.0,
        json: None,
        plot: None,
        quick: false,
        check: false,
    }
}

#[test]
fn a_value_is_known_as_that_of_its_item_in_any_version() {
    let value = steps::value(7, 9, 101);
    assert_eq!(value.len(), 101);
    assert!(steps::is_value_of(&value, 7) && !steps::is_value_of(&value, 8));
    assert!(!steps::is_value_of(&value[..steps::VALUE_BYTES_MIN - 1], 7));
    let mut other = value.clone();
    other[33] ^= 1;
    assert!(!steps::is_value_of(&other, 7));
    let mut outcome = Outcome::default();
    outcome.found(7, 9, Some(&value), 101);
    assert_eq!(outcome.wrong, 0);
    outcome.found(7, 8, Some(&value), 101);
    outcome.found(7, 9, None, 101);
    outcome.found(7, 9, Some(&other), 101);
    outcome.scanned(&steps::key(7), &value);
    outcome.scanned(&steps::key(8), &value);
    assert_eq!((outcome.wrong, outcome.scanned), (4, 2), "{:?}", outcome.first_fault);
}

#[test]
fn writers_share_no_item_and_their_newest_writes_are_witnesses() {
    let request = request(64);
    let (start, mut newest, mut tallies) = (Instant::now(), HashMap::new(), Vec::new());
    for writer in 0..4 {
        let mut picker = Picker::new(&request, writer, 4);
        let mut tally = Tally::new();
        for _ in 0..5_000 {
            let pick = picker.pick();
            assert!(pick.number < 64 && pick.number % 4 == writer);
            assert!(pick.version > 3 << 40);
            newest.insert(pick.number, pick.version);
            tally.put(start, start, pick);
        }
        tallies.push(tally);
    }
    let mut outcome = Outcome::default();
    outcome.take(tallies, Duration::from_secs(2));
    let puts = outcome.puts.as_ref().unwrap();
    assert_eq!((puts.count, puts.per_second), (20_000, 10_000.0));
    assert_eq!(outcome.timeline.iter().sum::<u64>(), 20_000);
    assert_eq!(outcome.witnesses.len(), 64, "each item once");
    assert!(outcome.witnesses.iter().all(|(number, version)| newest[number] == *version));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let flag = |arguments: EngineArguments| match Plan::new(&arguments) {
        Err(BenchError::Argument { flag, .. }) => flag,
        Err(other) => panic!("{other}"),
        Ok(_) => "taken",
    };
    assert_eq!(flag(arguments()), "taken");
    assert_eq!(flag(EngineArguments { engines: Some(vec!["leveldb".into()]), ..arguments() }), "--engines");
    assert_eq!(flag(EngineArguments { memory_mib: 1, ..arguments() }), "--memory-mib");
    assert_eq!(flag(EngineArguments { value_bytes: 8, ..arguments() }), "--value-bytes");
    assert_eq!(flag(EngineArguments { leaf_bytes: 5000, ..arguments() }), "--leaf-bytes");
    assert_eq!(flag(EngineArguments { rounds: 0, ..arguments() }), "--rounds");
    let quick = Plan::new(&EngineArguments { quick: true, ..arguments() }).unwrap();
    assert_eq!(quick.engines, [OWN]);
}

#[test]
fn engines_without_a_program_are_named_and_the_others_run() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(&arguments()).unwrap();
    let peers = directory.path().join("peers");
    let (children, missing) =
        children::start(&plan.engines, &peers, directory.path(), plan.settings).unwrap();
    assert_eq!(children.iter().map(|child| child.engine.as_str()).collect::<Vec<_>>(), [OWN]);
    assert_eq!(missing, ENGINES[1..]);
    let said = BenchError::PeersMissing { engines: missing, file: peers }.to_string();
    assert!(said.starts_with("NOT RUN: rocksdb, lmdb") && said.contains("cargo build --release"), "{said}");
}

#[test]
fn rows_that_were_not_measured_are_faults_of_a_check() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(&EngineArguments { engines: Some(vec![OWN.to_owned()]), ..arguments() }).unwrap();
    let (children, _) =
        children::start(&plan.engines, &arguments().peers, directory.path(), plan.settings).unwrap();
    let settings = Settings::new(8 << 20, 1, 1024, 4096).unwrap();
    let floors = Floors::new(directory.path().join("floors"), settings).unwrap();
    let mut measured = Measured::default();
    measured.overwrite.witnesses.push((1, 1));
    let measured = [measured];
    let report = Report::new(&plan, &children, &floors, &measured);
    assert_eq!(report.faults(false), Vec::<String>::new());
    let faults = report.faults(true);
    assert!(faults.len() > 20, "{faults:?}");
    assert!(faults.contains(&"cold get: p50: no floor".to_owned()), "{faults:?}");
}
