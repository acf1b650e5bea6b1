//! A log as consensus writes it: entries that take slots anew, promises, what is chosen, snapshots.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::*;
use evenkeel_model::{Ballot, Slot};
use evenkeel_storage::{
    Entry, Operation, Position, RecoveredPartition,
    memory::{MemoryDisk, Random, TestRuntime, seeds},
};
use std::{collections::BTreeMap, rc::Rc, time::Duration};

fn ballot(round: u64) -> Ballot {
    Ballot { round, replica: 1 }
}

fn started() -> (TestRuntime, MemoryDisk, TestEngine) {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let (engine, _) = open(&runtime, &disk, config()).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"meta")).unwrap();
    (runtime, disk, engine)
}

fn accepted(round: u64, chosen: u64, entry: Entry) -> Entry {
    Entry { ballot: ballot(round), chosen: Slot(chosen), ..entry }
}

/// Appends behind the entry before the slot.
fn accept(engine: &TestEngine, entry: Entry) {
    let before = engine.position(P1, Slot(entry.slot.0 - 1)).unwrap();
    let checksum = entry.checksum(P1, G1, before.checksum);
    drop(engine.append(P1, entry, checksum).unwrap());
}

fn restarted(
    runtime: &TestRuntime,
    disk: &MemoryDisk,
    engine: TestEngine,
) -> (TestRuntime, MemoryDisk, TestEngine, RecoveredPartition) {
    runtime.block_on(disk, engine.close()).unwrap();
    drop(engine);
    let (runtime, disk) = (TestRuntime::new(2), disk.cut_power(|_, _, _| false));
    let (engine, mut recovery) = open(&runtime, &disk, config()).unwrap();
    (runtime, disk, engine, recovery.partitions.remove(0))
}

fn keys(runtime: &TestRuntime, disk: &MemoryDisk, engine: &TestEngine) -> Vec<String> {
    let text = |(key, image): (Vec<u8>, Vec<u8>)| {
        format!("{}={}", String::from_utf8(key).unwrap(), String::from_utf8(image).unwrap())
    };
    items(runtime, disk, engine, P1).into_iter().map(text).collect()
}

#[test]
fn an_entry_that_takes_a_slot_anew_drops_what_stood_there_and_behind() {
    let (runtime, disk, engine) = started();
    for slot in 1..=4 {
        accept(&engine, accepted(1, 0, put(slot, &format!("k{slot}"), b"old")));
    }
    accept(&engine, accepted(2, 1, put(3, "k3", b"new")));
    assert_eq!(engine.end(P1).slot, Slot(3));
    let newest = |key: &[u8]| runtime.block_on(&disk, engine.newest(P1, key)).unwrap();
    assert_eq!(newest(b"k3").image.as_deref(), Some(&b"new"[..]));
    assert_eq!(newest(b"k4").image, None, "what was dropped is not pending any more");
    let bytes = engine.statistics().table_bytes;
    let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
    assert_eq!((found.last_slot, found.applied.slot, found.promised), (Slot(3), Slot(1), ballot(2)));
    let pending: Vec<(u64, u64)> =
        found.pending.iter().map(|(entry, _)| (entry.slot.0, entry.ballot.round)).collect();
    assert_eq!(pending, [(2, 2), (3, 2)], "whoever accepts an entry accepts all before it");
    assert_eq!(keys(&runtime, &disk, &engine), ["k1=old"], "only what is known to be chosen is applied");
    assert_eq!(engine.statistics().table_bytes, bytes);
    engine.apply_to(P1, Slot(3));
    assert_eq!(keys(&runtime, &disk, &engine), ["k1=old", "k2=old", "k3=new"]);
    assert_eq!(engine.statistics().pending_bytes, 0);
}

#[test]
fn promises_and_acceptances_come_back_as_they_were_written() {
    let (runtime, disk, engine) = started();
    for slot in 1..=3 {
        accept(&engine, accepted(1, 0, put(slot, "k", b"v")));
    }
    drop(engine.promise(P1, ballot(5)).unwrap());
    let upto = engine.position(P1, Slot(2)).unwrap();
    drop(engine.accepted(P1, ballot(4), upto, Slot(1)).unwrap());
    let (_, _, engine, found) = restarted(&runtime, &disk, engine);
    assert_eq!((found.promised, found.applied.slot), (ballot(5), Slot(1)));
    let rounds: Vec<u64> = found.pending.iter().map(|(entry, _)| entry.ballot.round).collect();
    assert_eq!(rounds, [4, 1]);
    assert_eq!(engine.end(P1), engine.position(P1, Slot(3)).unwrap());
}

#[test]
fn notes_come_back_for_a_while_and_the_last_lasting_one_for_ever() {
    let (runtime, disk, engine) = started();
    for slot in 1..=5u64 {
        let mut entry = put(slot, "k", b"v");
        entry.timestamp.0 = 600 * slot;
        entry.note = format!("note {slot}").into_bytes();
        entry.lasting = slot == 2;
        entry.chosen = Slot(slot - 1);
        accept(&engine, entry);
    }
    let (.., found) = restarted(&runtime, &disk, engine);
    assert_eq!(found.state.as_deref(), Some(&b"note 2"[..]));
    let noted: Vec<u64> = found.noted.iter().map(|entry| entry.slot.0).collect();
    assert_eq!(noted, [3, 4], "a thousand nanoseconds before the last applied one");
    assert_eq!(found.pending[0].0.note, b"note 5");
}

#[test]
fn a_snapshot_is_there_as_a_whole_or_not_at_all() {
    let piece = |keys: &[&str]| -> Vec<Operation> {
        let put = |key: &&str| Operation::Put { key: Rc::from(key.as_bytes()), image: Rc::from(*b"s") };
        keys.iter().map(put).collect()
    };
    for steps in 0..=4 {
        let (runtime, disk, engine) = started();
        accept(&engine, accepted(1, 0, put(1, "k1", b"old")));
        accept(&engine, accepted(1, 1, put(2, "k2", b"old")));
        engine.apply_to(P1, Slot(1));
        let base = Position { slot: Slot(9), checksum: 99 };
        let stage = |number, keys| drop(engine.stage(P1, base.slot, number, piece(keys)).unwrap());
        (steps >= 1).then(|| stage(0, &["given up"]));
        (steps >= 2).then(|| stage(0, &["a", "b"]));
        (steps >= 3).then(|| stage(1, &["c"]));
        if steps == 4 {
            drop(engine.begin(P1, base, evenkeel_model::Timestamp(7), b"state").unwrap());
            assert_eq!(keys(&runtime, &disk, &engine), ["a=s", "b=s", "c=s"]);
            accept(&engine, accepted(2, 9, put(10, "d", b"t")));
        }
        let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
        if steps < 4 {
            assert_eq!((found.applied.slot, found.last_slot, found.begun), (Slot(1), Slot(2), None));
            assert_eq!(keys(&runtime, &disk, &engine), ["k1=old"], "after {steps} steps");
            continue;
        }
        assert_eq!((found.applied, found.last_slot), (base, Slot(10)));
        assert_eq!(found.begun.as_deref(), Some(&b"state"[..]));
        engine.apply_to(P1, Slot(10));
        assert_eq!(keys(&runtime, &disk, &engine), ["a=s", "b=s", "c=s", "d=t"]);
    }
}

#[test]
fn what_continues_a_snapshot_stays_and_what_contradicts_it_goes() {
    for (same, last) in [(true, 4), (false, 2)] {
        let (runtime, disk, engine) = started();
        for slot in 1..=4 {
            accept(&engine, accepted(1, 0, put(slot, "k", b"v")));
        }
        let mut base = engine.position(P1, Slot(2)).unwrap();
        base.checksum ^= u128::from(!same);
        drop(engine.begin(P1, base, evenkeel_model::Timestamp(7), b"").unwrap());
        assert_eq!((engine.end(P1).slot, engine.position(P1, Slot(2))), (Slot(last), Some(base)));
        let (.., found) = restarted(&runtime, &disk, engine);
        assert_eq!((found.last_slot, found.applied), (Slot(last), base));
    }
}

#[test]
fn applied_entries_are_kept_for_others_up_to_a_size() {
    let (.., engine) = started();
    engine.keep(P1, 3 * 200);
    for slot in 1..=10 {
        accept(&engine, accepted(1, slot - 1, put(slot, "k", &[7; 100])));
        engine.apply_to(P1, Slot(slot));
    }
    assert!(engine.entry(P1, Slot(3)).is_none());
    let (entry, checksum) = engine.entry(P1, Slot(9)).unwrap();
    assert_eq!(checksum, entry.checksum(P1, G1, engine.position(P1, Slot(8)).unwrap().checksum));
    engine.keep(P1, 0);
    assert!(engine.entry(P1, Slot(10)).is_none());
    assert_eq!(engine.position(P1, Slot(10)), Some(engine.end(P1)));
}

/// The log in memory: what stands in each slot, and up to where it is chosen.
#[derive(Clone, Default)]
struct Model {
    log: Vec<(String, String, u64)>,
    chosen: usize,
    promised: u64,
}

impl Model {
    fn items(&self, upto: usize) -> Vec<String> {
        let content: BTreeMap<_, _> =
            self.log[..upto].iter().map(|(key, image, _)| (key.clone(), image.clone())).collect();
        content.iter().map(|(key, image)| format!("{key}={image}")).collect()
    }
}

#[test]
fn random_logs_of_many_ballots_survive_restarts() {
    for seed in seeds(300) {
        println!("seed={seed}");
        let mut random = Random::new(seed);
        let (mut runtime, mut disk, mut engine) = started();
        let mut model = Model::default();
        for step in 0..120u64 {
            match random.below(12) {
                0 => {
                    model.promised += random.below(3);
                    drop(engine.promise(P1, ballot(model.promised)).unwrap());
                }
                1..=3 => {
                    model.chosen += random.below((model.log.len() - model.chosen) as u64 + 1) as usize;
                    engine.apply_to(P1, Slot(model.chosen as u64));
                }
                4 => runtime.pass(&disk, Duration::from_millis(random.below(20))),
                5 if random.once_in(3) => {
                    let found;
                    (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
                    assert_eq!(found.last_slot.0 as usize, model.log.len(), "seed={seed} step={step}");
                    assert_eq!(found.promised.round, model.promised, "seed={seed} step={step}");
                    assert!(found.applied.slot.0 as usize <= model.chosen);
                    let rounds: Vec<u64> =
                        found.pending.iter().map(|(entry, _)| entry.ballot.round).collect();
                    let expected: Vec<u64> =
                        model.log[found.applied.slot.0 as usize..].iter().map(|entry| entry.2).collect();
                    assert_eq!(rounds, expected, "seed={seed} step={step}");
                    engine.apply_to(P1, Slot(model.chosen as u64));
                }
                _ => {
                    let from = if random.once_in(4) { model.chosen } else { model.log.len() };
                    let at = from + random.below((model.log.len() - from) as u64 + 1) as usize;
                    let (key, image) = (format!("k{}", random.below(6)), format!("{step}"));
                    let entry = put(at as u64 + 1, &key, image.as_bytes());
                    accept(&engine, accepted(model.promised, model.chosen as u64, entry));
                    model.log.truncate(at);
                    let round = model.promised;
                    model.log.iter_mut().skip(model.chosen).for_each(|entry| entry.2 = entry.2.max(round));
                    model.log.push((key, image, round));
                }
            }
            let found = keys(&runtime, &disk, &engine);
            assert_eq!(found, model.items(model.chosen), "seed={seed} step={step}");
        }
    }
}

#[test]
fn a_checkpoint_knows_the_ballot_that_was_promised_by_accepting_an_entry() {
    let (runtime, disk, engine) = started();
    runtime.block_on(&disk, engine.create_partition(P2, G1, b"meta")).unwrap();
    accept(&engine, accepted(2, 0, put(1, "k1", b"one")));
    engine.apply_to(P1, Slot(1));
    // The log goes on until it need not hold the entry any more.
    for slot in 1..=20 {
        drop(engine.append_next(P2, put(slot, "filler", &[7; 4096])).unwrap());
        runtime.pass(&disk, Duration::from_millis(1));
    }
    engine.apply_to(P2, Slot(20));
    for id in [P1, P2] {
        runtime.block_on(&disk, engine.checkpoint(id, b"state")).unwrap();
    }
    runtime.block_on(&disk, engine.flip()).unwrap();
    runtime.pass(&disk, Duration::from_millis(50));
    assert!(engine.statistics().segments_live < 3, "{:?}", engine.statistics());
    let (_, _, _, found) = restarted(&runtime, &disk, engine);
    assert_eq!((found.applied.slot, found.promised), (Slot(1), ballot(2)));
}

/// The log holds the former life of a partition, its end, and the beginning of the present one.
fn come_back(applied: u64, more: u64) -> (TestRuntime, MemoryDisk, TestEngine) {
    let (runtime, disk, engine) = started();
    // Keeps the log from its beginning on.
    runtime.block_on(&disk, engine.create_partition(P2, G1, b"other")).unwrap();
    for slot in 1..=4 {
        accept(&engine, accepted(1, slot - 1, put(slot, &format!("former{slot}"), b"v")));
    }
    runtime.block_on(&disk, engine.drop_partition(P1, G1)).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"meta")).unwrap();
    for slot in 1..=applied {
        accept(&engine, accepted(2, slot - 1, put(slot, &format!("k{slot}"), b"v")));
    }
    engine.apply_to(P1, Slot(applied));
    runtime.block_on(&disk, engine.checkpoint(P1, b"")).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    for slot in applied + 1..=applied + more {
        accept(&engine, accepted(2, slot, put(slot, &format!("k{slot}"), b"v")));
    }
    (runtime, disk, engine)
}

#[test]
fn a_partition_that_comes_back_in_its_generation_has_nothing_of_its_former_life() {
    for (applied, more) in [(0, 0), (0, 2), (1, 0), (2, 2), (6, 0), (6, 1)] {
        let (runtime, disk, engine) = come_back(applied, more);
        let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
        let end = applied + more;
        assert_eq!(found.last_slot, Slot(end), "{applied} and {more}");
        engine.apply_to(P1, Slot(end));
        let expected: Vec<String> = (1..=end).map(|slot| format!("k{slot}=v")).collect();
        assert_eq!(keys(&runtime, &disk, &engine), expected, "{applied} and {more}");
        runtime.block_on(&disk, engine.drop_partition(P1, G1)).unwrap();
        let (.., found) = restarted(&runtime, &disk, engine);
        assert_eq!(found.id, P2, "its end counts");
    }
}

#[test]
fn what_the_former_life_staged_is_no_part_of_a_snapshot_without_pieces() {
    let (runtime, disk, engine) = started();
    runtime.block_on(&disk, engine.create_partition(P2, G1, b"other")).unwrap();
    let stale = Operation::Put { key: Rc::from(*b"stale"), image: Rc::from(*b"v") };
    drop(engine.stage(P1, Slot(9), 0, vec![stale]).unwrap());
    // Neither the end nor the beginning stands in a frame of its own.
    drop(engine.drop_partition(P1, G1));
    drop(engine.create_partition(P1, G1, b"meta"));
    runtime.block_on(&disk, engine.checkpoint(P1, b"")).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    let base = Position { slot: Slot(9), checksum: 99 };
    drop(engine.begin(P1, base, evenkeel_model::Timestamp(9), b"state").unwrap());
    let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
    assert_eq!((found.last_slot, found.begun.as_deref()), (Slot(9), Some(&b"state"[..])));
    assert_eq!(keys(&runtime, &disk, &engine), [""; 0]);
}
