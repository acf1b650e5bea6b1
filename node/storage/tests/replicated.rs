//! A log as consensus writes it: entries that take slots anew, promises, what is chosen, snapshots.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::*;
use evenkeel_model::{Ballot, Slot, Timestamp};
use evenkeel_storage::{
    CheckpointError, Entry, Position, Prepared, RecoveredPartition, Refused,
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

/// Content of these keys, in pages, with what its owner will know.
fn prepared(
    runtime: &TestRuntime,
    disk: &MemoryDisk,
    engine: &TestEngine,
    keys: &[&str],
) -> Prepared<MemoryDisk, TestRuntime> {
    let mut items = keys.iter().map(|key| (Rc::from(key.as_bytes()), Rc::from(*b"s")));
    runtime.block_on(disk, async {
        let content = engine.load_content(P1, async || items.next()).await.unwrap();
        engine.prepare(P1, content, b"state").await.unwrap()
    })
}

#[test]
fn a_snapshot_is_there_as_a_whole_or_not_at_all() {
    for steps in 0..=3 {
        let (runtime, disk, engine) = started();
        accept(&engine, accepted(1, 0, put(1, "k1", b"old")));
        accept(&engine, accepted(1, 1, put(2, "k2", b"old")));
        engine.apply_to(P1, Slot(1));
        let base = Position { slot: Slot(9), checksum: 99 };
        if steps >= 1 {
            drop(prepared(&runtime, &disk, &engine, &["given up"]));
        }
        let ready = (steps >= 2).then(|| prepared(&runtime, &disk, &engine, &["a", "b", "c"]));
        let installed = ready.filter(|_| steps == 3).map(|ready| ready.install(base, Timestamp(7)).unwrap());
        if let Some(installed) = installed {
            assert_eq!(keys(&runtime, &disk, &engine), ["a=s", "b=s", "c=s"]);
            let refused = engine.promise(P1, ballot(3)).err();
            assert_eq!(refused, Some(Refused::Busy), "before it is durable nothing is written behind it");
            runtime.block_on(&disk, installed.until_durable()).unwrap();
            accept(&engine, accepted(2, 9, put(10, "d", b"t")));
        }
        let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
        if steps < 3 {
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
    for (has_content, same, last) in [(true, true, 4), (true, false, 2), (false, true, 4), (false, false, 2)]
    {
        let (runtime, disk, engine) = started();
        for slot in 1..=4 {
            accept(&engine, accepted(1, 0, put(slot, "k", b"v")));
        }
        let mut base = engine.position(P1, Slot(2)).unwrap();
        base.checksum ^= u128::from(!same);
        if has_content {
            let installed = prepared(&runtime, &disk, &engine, &["s"]).install(base, Timestamp(7)).unwrap();
            runtime.block_on(&disk, installed.until_durable()).unwrap();
        } else {
            drop(engine.begin(P1, base, Timestamp(7), b"state").unwrap());
        }
        assert_eq!((engine.end(P1).slot, engine.position(P1, Slot(2))), (Slot(last), Some(base)));
        let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
        assert_eq!((found.last_slot, found.applied), (Slot(last), base));
        assert_eq!(found.begun.as_deref(), Some(&b"state"[..]));
        engine.apply_to(P1, Slot(last));
        let mut expected = vec!["k=v"; usize::from(same)];
        expected.extend(has_content.then_some("s=s"));
        assert_eq!(keys(&runtime, &disk, &engine), expected);
    }
}

#[test]
fn an_install_waits_for_a_merge_and_lets_none_begin_before_its_owner_knows() {
    let (runtime, disk, engine) = started();
    accept(&engine, accepted(1, 0, put(1, "k1", b"old")));
    engine.apply_to(P1, Slot(1));
    let merge = engine.checkpoint(P1, b"old");
    let mut items = [(Rc::from(*b"a"), Rc::from(*b"s"))].into_iter();
    let content = runtime.block_on(&disk, engine.load_content(P1, async || items.next())).unwrap();
    let mut preparing = Box::pin(engine.prepare(P1, content, b"state"));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(preparing.as_mut().poll(context).is_pending());
    runtime.block_on(&disk, merge).unwrap();
    let ready = runtime.block_on(&disk, preparing).unwrap();
    let base = Position { slot: Slot(9), checksum: 99 };
    let installed = ready.install(base, Timestamp(7)).unwrap();
    // A flip that began before writes down what was there before.
    runtime.block_on(&disk, installed.until_durable()).unwrap();
    let refused = runtime.block_on(&disk, engine.checkpoint(P1, b"old"));
    assert_eq!(refused, Err(CheckpointError::UnderWay { id: P1 }));
    drop(installed);
    runtime.block_on(&disk, engine.checkpoint(P1, b"new")).unwrap();
    let (.., found) = restarted(&runtime, &disk, engine);
    assert_eq!((found.applied, found.begun.as_deref()), (base, Some(&b"state"[..])));
}

#[test]
fn a_flip_that_began_before_an_install_does_not_make_it_durable() {
    let (runtime, disk, engine) = started();
    accept(&engine, accepted(1, 0, put(1, "k1", b"old")));
    engine.apply_to(P1, Slot(1));
    runtime.block_on(&disk, engine.checkpoint(P1, b"old")).unwrap();
    let ready = prepared(&runtime, &disk, &engine, &["a"]);
    let flip = engine.flip();
    let mut flip = Box::pin(flip);
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(flip.as_mut().poll(context).is_pending());
    runtime.run_ready();
    let installed = ready.install(Position { slot: Slot(9), checksum: 99 }, Timestamp(7)).unwrap();
    runtime.block_on(&disk, flip).unwrap();
    assert_eq!(engine.promise(P1, ballot(3)).err(), Some(Refused::Busy), "that flip was of before");
    runtime.block_on(&disk, installed.until_durable()).unwrap();
    assert!(engine.promise(P1, ballot(3)).is_ok());
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
fn what_was_written_behind_installed_content_goes_with_its_partition() {
    let (runtime, disk, engine) = started();
    // Keeps the log from its beginning on.
    runtime.block_on(&disk, engine.create_partition(P2, G1, b"other")).unwrap();
    accept(&engine, accepted(1, 0, put(1, "k1", b"old")));
    let base = Position { slot: Slot(9), checksum: 99 };
    let installed = prepared(&runtime, &disk, &engine, &["a"]).install(base, Timestamp(7)).unwrap();
    runtime.block_on(&disk, installed.until_durable()).unwrap();
    drop(installed);
    accept(&engine, accepted(2, 9, put(10, "d", b"t")));
    runtime.block_on(&disk, engine.drop_partition(P1, G1)).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    let (.., found) = restarted(&runtime, &disk, engine);
    assert_eq!(found.id, P2, "its end explains the hole in its log");
}

#[test]
fn a_merge_ends_at_the_mark_with_what_its_owner_knew_there() {
    let (runtime, disk, engine) = started();
    for slot in 1..=5 {
        accept(&engine, accepted(1, slot - 1, put(slot, &format!("k{slot}"), b"v")));
    }
    engine.apply_to(P1, Slot(1));
    let before = engine.checkpoint(P1, b"at 1");
    engine.apply_to(P1, Slot(3));
    engine.mark(P1, b"at 3").unwrap();
    assert!(
        matches!(engine.mark(P1, b"again"), Err(CheckpointError::UnderWay { .. })),
        "it is not merged yet"
    );
    engine.apply_to(P1, Slot(4));
    runtime.block_on(&disk, before).unwrap();
    assert_eq!(engine.last_mark(P1), None);
    assert_eq!(runtime.block_on(&disk, engine.checkpoints_due()), Some(vec![P1]));
    runtime.block_on(&disk, engine.checkpoint(P1, b"at 4")).unwrap();
    let at_mark = engine.last_mark(P1).unwrap();
    assert_eq!(at_mark.slot, Slot(3));
    runtime.block_on(&disk, engine.flip()).unwrap();
    let counts = engine.merge_counts();
    assert_eq!((counts.merges, counts.marks, counts.marks_passed), (2, 1, 1));

    let (runtime, disk, engine, found) = restarted(&runtime, &disk, engine);
    assert_eq!(found.begun.as_deref(), Some(&b"at 3"[..]));
    assert_eq!((found.applied.slot, found.last_slot), (Slot(4), Slot(5)));
    assert_eq!(engine.last_mark(P1), None, "which slots were marked is not written down");
    engine.apply_to(P1, Slot(5));
    assert_eq!(keys(&runtime, &disk, &engine), ["k1=v", "k2=v", "k3=v", "k4=v", "k5=v"]);

    // Another shape of the tree, made at other times, has the same hash at the same slot.
    let (runtime, disk, engine) = started();
    for slot in 1..=3 {
        accept(&engine, accepted(1, slot - 1, put(slot, &format!("k{slot}"), b"v")));
        engine.apply_to(P1, Slot(slot));
        if slot == 3 {
            engine.mark(P1, b"at 3").unwrap();
        }
        runtime.block_on(&disk, engine.checkpoint(P1, b"")).unwrap();
    }
    assert_eq!(engine.last_mark(P1), Some(at_mark));
}

#[test]
fn content_that_takes_the_place_of_a_partitions_own_leaves_no_mark_behind() {
    let (runtime, disk, engine) = started();
    for slot in 1..=2 {
        accept(&engine, accepted(1, slot - 1, put(slot, "k", b"v")));
    }
    engine.apply_to(P1, Slot(2));
    engine.mark(P1, b"at 2").unwrap();
    let content = runtime.block_on(&disk, engine.load_content(P1, async || None)).unwrap();
    let prepared = runtime.block_on(&disk, engine.prepare(P1, content, b"at 9")).unwrap();
    let installed = prepared.install(Position { slot: Slot(9), checksum: 7 }, Timestamp(9)).unwrap();
    runtime.block_on(&disk, installed.until_durable()).unwrap();
    drop(installed);
    runtime.block_on(&disk, engine.checkpoint(P1, b"later")).unwrap();
    assert_eq!((engine.last_mark(P1), engine.merge_counts().marks), (None, 0));
}
