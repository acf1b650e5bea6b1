//! The engine as a partition uses it: appends, reads, budgets, refusals, restarts.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::*;
use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, ShardId, Slot, Timestamp};
use evenkeel_storage::{
    CheckpointError, EngineConfig, FileId, OpenError, Operation, PartitionError, Position, RangeQuery,
    ReadError, Refused, Runtime, WalFailed,
    limits::TABLE_ITEM_OVERHEAD_BYTES,
    memory::{MemoryDisk, TestRuntime},
    wal::frame,
};
use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

fn started(disk: &MemoryDisk) -> (TestRuntime, TestEngine) {
    let runtime = TestRuntime::new(1);
    let (engine, _) = open(&runtime, disk, config()).unwrap();
    runtime.block_on(disk, engine.create_partition(P1, G1, b"meta")).unwrap();
    (runtime, engine)
}

/// Appends, and counts its resolution.
fn append_counted(runtime: &TestRuntime, engine: &TestEngine, slot: u64, bytes: usize, done: &Rc<Cell<u32>>) {
    let durable = engine.append_next(P1, put(slot, &format!("k{slot}"), &vec![7; bytes])).unwrap();
    let done = Rc::clone(done);
    runtime.spawn(async move {
        durable.await.unwrap();
        done.set(done.get() + 1);
    });
}

#[test]
fn what_is_applied_is_read_and_survives_a_restart() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    runtime.block_on(&disk, engine.append_next(P1, put(1, "a", b"1")).unwrap()).unwrap();
    runtime.block_on(&disk, engine.append_next(P1, put(2, "b", b"2")).unwrap()).unwrap();
    runtime.block_on(&disk, engine.append_next(P1, delete(3, "a")).unwrap()).unwrap();
    assert_eq!(items(&runtime, &disk, &engine, P1), [], "nothing is applied yet");
    engine.apply_to(P1, Slot(2));
    assert_eq!(runtime.block_on(&disk, engine.get(P1, b"a")).unwrap().as_deref(), Some(&b"1"[..]));
    engine.apply_to(P1, Slot(3));
    assert_eq!(runtime.block_on(&disk, engine.get(P1, b"a")).unwrap(), None);
    let expected = vec![(b"b".to_vec(), b"2".to_vec())];
    assert_eq!(items(&runtime, &disk, &engine, P1), expected);
    runtime.block_on(&disk, engine.close()).unwrap();

    let disk = disk.cut_power(|_, _, _| false);
    let runtime = TestRuntime::new(2);
    let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
    let [partition] = &recovery.partitions[..] else { panic!("{:?}", recovery.partitions) };
    assert_eq!((partition.id, partition.generation, &partition.meta[..]), (P1, G1, &b"meta"[..]));
    assert_eq!((partition.last_slot, partition.last_timestamp), (Slot(3), Timestamp(1003)));
    assert_eq!(partition.applied, Position::default(), "the log does not say that any of it is chosen");
    assert_eq!((recovery.entries, recovery.cut), (3, None));
    assert_eq!(items(&runtime, &disk, &engine, P1), []);
    engine.apply_to(P1, Slot(3));
    assert_eq!(items(&runtime, &disk, &engine, P1), expected);
    runtime.block_on(&disk, engine.append_next(P1, put(4, "c", b"3")).unwrap()).unwrap();
}

#[test]
fn a_range_is_read_in_both_directions_and_in_pages() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    for slot in 1..=9 {
        drop(engine.append_next(P1, put(slot, &format!("k{slot}"), b"12345678")).unwrap());
    }
    engine.apply_to(P1, Slot(9));
    let keys = |lower: &str, upper: Option<&str>, reverse, items_max, bytes_max| {
        let upper = upper.map(|upper| upper.as_bytes().to_vec());
        let query = RangeQuery { lower: lower.as_bytes().to_vec(), upper, reverse, items_max, bytes_max };
        let page = runtime.block_on(&disk, engine.range(P1, query)).unwrap();
        let keys: Vec<String> =
            page.items.iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect();
        (keys.join(" "), page.more)
    };
    assert_eq!(keys("k3", Some("k6"), false, 100, 1000), ("k3 k4 k5".into(), false));
    assert_eq!(keys("k3", Some("k6"), true, 100, 1000), ("k5 k4 k3".into(), false));
    assert_eq!(keys("k3", None, false, 2, 1000), ("k3 k4".into(), true));
    assert_eq!(keys("", Some("k3"), true, 1, 1000), ("k2".into(), true));
    assert_eq!(
        keys("", None, false, 100, 11),
        ("k1 k2".into(), true),
        "the item that reaches the limit is in"
    );
    assert_eq!(keys("k8", None, false, 2, 20), ("k8 k9".into(), false), "nothing follows the last item");
    assert_eq!(keys("k6", Some("k3"), false, 100, 1000), (String::new(), false));
    let query = RangeQuery { lower: vec![], upper: None, reverse: false, items_max: 1, bytes_max: 1 };
    assert_eq!(runtime.block_on(&disk, engine.range(P2, query)), Err(ReadError::Unknown { id: P2 }));
}

#[test]
fn all_that_is_appended_in_one_turn_shares_a_frame() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    disk.set_automatic(false);
    runtime.block_on(&disk, engine.create_partition(P2, G1, b"")).unwrap();
    let done = Rc::new(Cell::new(0));
    let before = engine.statistics();
    for slot in 1..=20 {
        append_counted(&runtime, &engine, slot, 100, &done);
    }
    assert_eq!(disk.in_flight().len(), 0, "nothing leaves before the turn ends");
    runtime.run_ready();
    let after = engine.statistics();
    assert_eq!((after.frames - before.frames, after.records - before.records), (1, 20));
    assert_eq!(disk.in_flight().len(), 1);
    disk.complete_oldest();
    runtime.run_ready();
    assert_eq!(done.get(), 20);
}

#[test]
fn two_frames_are_in_flight_and_acknowledged_in_order() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    disk.set_automatic(false);
    let done = Rc::new(Cell::new(0));
    for slot in 1..=3 {
        append_counted(&runtime, &engine, slot, 100, &done);
        runtime.run_ready();
    }
    let flying = disk.in_flight();
    assert_eq!(flying.len(), 2, "the third waits");
    disk.complete(flying[1]);
    runtime.run_ready();
    assert_eq!(done.get(), 0, "frame N+1 is durable before N");
    assert_eq!(disk.in_flight().len(), 1, "nothing leaves before N is durable");
    disk.complete(flying[0]);
    runtime.run_ready();
    assert_eq!(done.get(), 2);
    assert_eq!(disk.in_flight().len(), 1);
    disk.complete_oldest();
    runtime.run_ready();
    assert_eq!(done.get(), 3);
    assert_eq!(engine.statistics().writes_in_flight, 0);
}

#[test]
fn a_log_set_to_one_write_in_flight_keeps_to_it() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let mut config = config();
    config.wal.writes_in_flight_max = 1;
    let (engine, _) = open(&runtime, &disk, config).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"")).unwrap();
    disk.set_automatic(false);
    let done = Rc::new(Cell::new(0));
    for slot in 1..=3 {
        append_counted(&runtime, &engine, slot, 100, &done);
        runtime.run_ready();
        assert_eq!(disk.in_flight().len(), 1);
    }
    disk.complete_oldest();
    runtime.run_ready();
    assert_eq!((done.get(), disk.in_flight().len()), (1, 1));
    disk.complete_oldest();
    runtime.run_ready();
    assert_eq!(done.get(), 3, "the second frame took both");
}

#[test]
fn beyond_the_queue_appends_are_refused_as_busy_and_change_nothing() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    disk.set_automatic(false);
    let done = Rc::new(Cell::new(0));
    let mut slot = 1;
    let refused = loop {
        match engine.append_next(P1, put(slot, "k", &[1; 6000])) {
            Ok(durable) => {
                let done = Rc::clone(&done);
                runtime.spawn(async move {
                    durable.await.unwrap();
                    done.set(done.get() + 1);
                });
                runtime.run_ready();
                slot += 1;
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Busy);
    assert_eq!(slot - 1, 2 + 1 + 4, "two in flight, one being built, four queued");
    assert_eq!(engine.append_next(P1, put(slot, "k", &[1; 6000])).unwrap_err(), Refused::Busy);
    assert_eq!(engine.statistics().refused_busy, 2);
    disk.complete_oldest();
    runtime.run_ready();
    append_counted(&runtime, &engine, slot, 6000, &done);
    while disk.complete_oldest() {
        runtime.run_ready();
    }
    assert_eq!(u64::from(done.get()), slot);
}

#[test]
fn a_failed_write_stops_the_log_for_all_that_wait_and_all_that_come() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    disk.set_automatic(false);
    let waiting: Vec<_> =
        (1..=3).map(|slot| engine.append_next(P1, put(slot, "k", &[1; 6000])).unwrap()).collect();
    runtime.run_ready();
    disk.break_down();
    for durable in waiting {
        assert!(matches!(runtime.block_on(&disk, durable), Err(WalFailed::Disk(_))));
    }
    let later = engine.append_next(P1, put(99, "k", b"")).unwrap();
    assert!(matches!(runtime.block_on(&disk, later), Err(WalFailed::Disk(_))));
    let create = engine.create_partition(P2, G1, b"");
    assert!(matches!(runtime.block_on(&disk, create), Err(PartitionError::Log(WalFailed::Disk(_)))));
    assert!(matches!(runtime.block_on(&disk, engine.close()), Err(WalFailed::Disk(_))));
}

#[test]
fn after_close_and_after_the_last_handle_nothing_more_is_written_and_nothing_is_lost() {
    for close in [true, false] {
        let disk = MemoryDisk::automatic();
        let (runtime, engine) = started(&disk);
        let durable = engine.append_next(P1, put(1, "k", b"v")).unwrap();
        if close {
            runtime.block_on(&disk, engine.close()).unwrap();
            let later = engine.append_next(P1, put(2, "k", b"w")).unwrap();
            assert_eq!(runtime.block_on(&disk, later), Err(WalFailed::Closed));
        }
        drop(engine);
        runtime.block_on(&disk, durable).unwrap();
        runtime.pass(&disk, Duration::from_secs(5));
        assert!(!runtime.next_timer(), "the log's task has ended");
        let disk = disk.cut_power(|_, _, _| false);
        let (_, recovery) = open(&TestRuntime::new(2), &disk, config()).unwrap();
        assert_eq!(recovery.entries, 1);
    }
}

#[test]
fn an_idle_log_covers_its_last_frame_and_then_takes_no_more_room() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    runtime.block_on(&disk, engine.append_next(P1, put(1, "k", b"v")).unwrap()).unwrap();
    let before = engine.statistics();
    runtime.pass(&disk, Duration::from_millis(9));
    assert_eq!(engine.statistics().frames, before.frames);
    runtime.pass(&disk, Duration::from_millis(2));
    assert_eq!(engine.statistics().frames_empty, before.frames_empty + 1);
    let writes = disk.history().len();
    runtime.pass(&disk, Duration::from_secs(1000));
    let after = engine.statistics();
    assert_eq!(after.frames, before.frames + 1, "the empty frame is written again in its place");
    let seconds = disk.history().len() - writes;
    assert!((998..=1001).contains(&seconds), "one a second, not {seconds}");
    runtime.block_on(&disk, engine.append_next(P1, put(2, "k", b"w")).unwrap()).unwrap();
    runtime.pass(&disk, Duration::from_millis(12));
    assert_eq!(engine.statistics().frames, before.frames + 3);
    let (_, recovery) = open(&TestRuntime::new(2), &disk.cut_power(|_, _, _| false), config()).unwrap();
    assert_eq!((recovery.entries, recovery.cut), (2, None));
}

#[test]
fn nothing_is_written_beside_the_empty_frame_that_is_written_again() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    runtime.pass(&disk, Duration::from_millis(50));
    disk.set_automatic(false);
    while disk.in_flight().is_empty() {
        assert!(runtime.next_timer());
        runtime.run_ready();
    }
    let history = disk.history();
    let [before, again] = &history[history.len() - 2..] else { panic!("two writes") };
    assert_eq!((before.offset, &before.bytes), (again.offset, &again.bytes));
    let done = Rc::new(Cell::new(0));
    append_counted(&runtime, &engine, 1, 10, &done);
    runtime.run_ready();
    assert_eq!(disk.in_flight().len(), 1, "the entry waits");
    disk.complete_oldest();
    runtime.run_ready();
    assert_eq!((disk.in_flight().len(), done.get()), (1, 0));
    disk.complete_oldest();
    runtime.run_ready();
    assert_eq!(done.get(), 1);
}

#[test]
fn what_follows_the_records_of_a_frame_is_zero_though_memory_is_used_again() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    for slot in 1..=12 {
        let bytes = if slot % 2 == 0 { 7000 } else { 5 };
        runtime.block_on(&disk, engine.append_next(P1, put(slot, "k", &vec![0xEE; bytes])).unwrap()).unwrap();
    }
    for append in disk.history() {
        let (header, _) = frame::open(&append.bytes).unwrap();
        let used = frame::FRAME_HEADER_BYTES + header.records_bytes as usize;
        assert!(append.bytes[used..].iter().all(|byte| *byte == 0), "frame {}", header.sequence);
    }
}

#[test]
fn an_entry_larger_than_a_frame_goes_in_one_of_its_own() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    let big = vec![9; 19 * 1024];
    for slot in 1..=6 {
        let image = if slot % 2 == 0 { &big[..] } else { b"small" };
        drop(engine.append_next(P1, put(slot, &format!("k{slot}"), image)).unwrap());
    }
    let refused = engine.append_next(P1, put(7, "k", &[0; 21 * 1024])).unwrap_err();
    assert!(matches!(refused, Refused::TooLarge { max: 20_480, .. }));
    runtime.block_on(&disk, engine.append_next(P1, put(7, "k7", b"last")).unwrap()).unwrap();
    let (runtime, disk) = (TestRuntime::new(2), disk.cut_power(|_, _, _| false));
    let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
    assert_eq!(recovery.entries, 7);
    engine.apply_to(P1, Slot(7));
    assert_eq!(items(&runtime, &disk, &engine, P1)[3].1, big);
}

#[test]
fn the_table_budget_counts_what_is_under_way_and_admits_what_frees() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    // Three items of 32 bytes for the key, 896 for the image and 76 for their place.
    let max = 3 * 1004;
    let (engine, _) = open(&runtime, &disk, EngineConfig { table_bytes_max: max, ..config() }).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"")).unwrap();
    let mut slot = 0;
    let mut append = |key: &str, image: Option<usize>| {
        let image = image.map(|bytes| vec![1; bytes]);
        let entry = match &image {
            Some(image) => put(slot + 1, key, image),
            None => delete(slot + 1, key),
        };
        let result = engine.append_next(P1, entry).map(drop);
        slot += u64::from(result.is_ok());
        result
    };
    let full = |used| Err(Refused::TableFull { used, max });
    for key in ["a", "b", "c"] {
        assert_eq!(append(key, Some(871)), Ok(()));
    }
    assert_eq!(append("d", Some(0)), full(max), "nothing is applied, all of it counts");
    assert_eq!(append("a", Some(880)), Ok(()), "a replacement that takes as much memory adds nothing");
    assert_eq!(append("a", Some(881)), full(max), "a larger one does");
    assert_eq!(append("a", Some(240)), Ok(()));
    assert_eq!(append("d", Some(496)), Ok(()));
    assert_eq!(append("a", Some(241)), full(max - 20));
    engine.apply_to(P1, Slot(5));
    assert_eq!(append("a", Some(241)), full(max - 20));
    assert_eq!(append("b", None), Ok(()), "deletes are always admitted");
    assert_eq!(append("nowhere", None), Ok(()));
    assert_eq!(append("a", Some(1008)), Ok(()));
    let left = max - 20 - 1004 - 256 + 1024;
    assert_eq!(append("b", Some(200)), full(left));
    engine.apply_to(P1, Slot(slot));
    assert_eq!(engine.statistics().table_bytes, left);
    assert_eq!(engine.statistics().pending_bytes, 0);
    assert_eq!(engine.statistics().refused_table_full, 5);
    runtime.block_on(&disk, engine.drop_partition(P1, G1)).unwrap();
    assert_eq!(engine.statistics().table_bytes, 0);
    let statistics = {
        let disk = disk.cut_power(|_, _, _| false);
        let (engine, _) = open(&TestRuntime::new(2), &disk, config()).unwrap();
        engine.statistics()
    };
    assert_eq!((statistics.table_bytes, statistics.partitions), (0, 0));
}

#[test]
fn recovery_counts_table_bytes_as_they_were() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    for slot in 1..=50 {
        let key = format!("k{}", slot % 7);
        let entry = if slot % 5 == 0 { delete(slot, &key) } else { put(slot, &key, &vec![1; slot as usize]) };
        runtime.block_on(&disk, engine.append_next(P1, entry).unwrap()).unwrap();
    }
    let bytes = engine.statistics().table_bytes;
    engine.apply_to(P1, Slot(50));
    assert_eq!(engine.statistics().table_bytes, bytes);
    let disk = disk.cut_power(|_, _, _| false);
    let (engine, _) = open(&TestRuntime::new(2), &disk, config()).unwrap();
    assert_eq!(engine.statistics().table_bytes, bytes);
    engine.apply_to(P1, Slot(50));
    assert_eq!(engine.statistics().table_bytes, bytes);
}

#[test]
fn a_full_log_refuses_until_a_partition_is_dropped_and_then_goes_round() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let mut config = config();
    config.wal.wal_bytes_max = 4 * 32 * 1024;
    let (engine, _) = open(&runtime, &disk, config.clone()).unwrap();
    for round in 1..=20u32 {
        runtime.block_on(&disk, engine.create_partition(P1, Generation(round), b"m")).unwrap();
        let mut slot = 0;
        let refused = loop {
            match engine.append_next(P1, put(slot + 1, "k", &[1; 3000])) {
                Ok(durable) => runtime.block_on(&disk, durable).unwrap(),
                Err(refused) => break refused,
            }
            slot += 1;
        };
        assert!(matches!(refused, Refused::LogFull { max: 131_072, .. }), "{refused:?}");
        assert!((16..40).contains(&slot), "{slot} entries in round {round}");
        assert!(engine.append_next(P1, put(slot + 1, "k", &[1; 3000])).is_err(), "still full");
        runtime.block_on(&disk, engine.drop_partition(P1, Generation(round))).unwrap();
        runtime.pass(&disk, Duration::from_millis(30));
    }
    let segments = disk.file_ids().into_iter().filter(|file| matches!(file, FileId::Segment(_)));
    assert_eq!(segments.count(), 4, "files are recycled, not added");
    assert_eq!(engine.statistics().refused_log_full, 40);
    runtime.stop();
    let disk = disk.cut_power(|_, _, _| false);
    let (_, recovery) = open(&TestRuntime::new(2), &disk, config).unwrap();
    assert_eq!((recovery.partitions.len(), recovery.cut), (0, None));
}

#[test]
fn a_log_full_to_its_last_record_goes_round_once_a_flip_lets_it() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let mut config = config();
    config.wal.wal_bytes_max = 4 * 32 * 1024;
    let (engine, _) = open(&runtime, &disk, config).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, Generation(1), b"m")).unwrap();
    let mut slot = 0;
    while let Ok(durable) = engine.append_next(P1, put(slot + 1, "k", &[1; 3000])) {
        runtime.block_on(&disk, durable).unwrap();
        slot += 1;
    }
    // What is not an entry takes the rest.
    let mut round = 1;
    while let Ok(durable) = engine.promise(P1, Ballot { round, replica: 1 }) {
        runtime.block_on(&disk, durable).unwrap();
        round += 1;
    }
    // The idle log covers its last frame.
    runtime.pass(&disk, Duration::from_millis(30));
    engine.apply_to(P1, Slot(slot));
    runtime.block_on(&disk, engine.checkpoint(P1, &[])).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    runtime.pass(&disk, Duration::from_millis(30));
    runtime.block_on(&disk, engine.append_next(P1, put(slot + 1, "k", &[1; 3000])).unwrap()).unwrap();
}

/// Whether a checkpoint or a flip is due.
fn is_due(engine: &TestEngine) -> bool {
    let mut due = pin!(engine.checkpoints_due());
    due.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn no_checkpoint_is_due_that_could_let_nothing_go() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let mut config = config();
    config.wal.wal_bytes_max = 4 * 32 * 1024;
    let (engine, _) = open(&runtime, &disk, config).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"m")).unwrap();
    runtime.block_on(&disk, engine.checkpoint(P1, &[])).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    let mut slot = 1;
    while let Ok(durable) = engine.append_next(P1, put(slot, "k", &[1; 3000])) {
        runtime.block_on(&disk, durable).unwrap();
        slot += 1;
    }
    assert!(slot > 16, "the log is more than half full of {slot} entries");
    assert!(!is_due(&engine), "none of them is applied, and they are too many to be written once more");
    engine.apply_to(P1, Slot(slot - 1));
    assert!(is_due(&engine), "a tree can hold them");
}

/// A partition that goes and comes back in the same generation, as a member does that is swapped out and in.
fn comes_back(runtime: &TestRuntime, disk: &MemoryDisk, engine: &TestEngine) {
    runtime.block_on(disk, engine.drop_partition(P1, G1)).unwrap();
    runtime.block_on(disk, engine.create_partition(P1, G1, b"again")).unwrap();
}

#[test]
fn a_merge_of_a_partition_that_went_and_came_back_is_of_no_use() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    runtime.block_on(&disk, engine.append_next(P1, put(1, "k", b"old")).unwrap()).unwrap();
    engine.apply_to(P1, Slot(1));
    let merge = engine.checkpoint(P1, &[]);
    comes_back(&runtime, &disk, &engine);
    assert_eq!(runtime.block_on(&disk, merge), Err(CheckpointError::Gone { id: P1 }));
    assert!(items(&runtime, &disk, &engine, P1).is_empty());
}

#[test]
fn a_flip_of_what_a_partition_was_lets_nothing_go_of_what_it_is() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let mut config = config();
    config.wal.wal_bytes_max = 4 * 32 * 1024;
    let (engine, _) = open(&runtime, &disk, config.clone()).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"first")).unwrap();
    runtime.block_on(&disk, engine.create_partition(P2, G1, b"other")).unwrap();
    runtime.block_on(&disk, engine.append_next(P1, put(1, "k", b"old")).unwrap()).unwrap();
    engine.apply_to(P1, Slot(1));
    runtime.block_on(&disk, engine.checkpoint(P1, &[])).unwrap();
    // What is merged waits for the flip, which comes later.
    comes_back(&runtime, &disk, &engine);
    runtime.block_on(&disk, engine.flip()).unwrap();
    // The creation is in the log alone: the log goes no further round than to it.
    for slot in 1..=60 {
        let Ok(durable) = engine.append_next(P2, put(slot, "k", &[2; 3000])) else { break };
        runtime.block_on(&disk, durable).unwrap();
        engine.apply_to(P2, Slot(slot));
        runtime.block_on(&disk, engine.checkpoint(P2, &[])).unwrap();
        runtime.block_on(&disk, engine.flip()).unwrap();
    }
    runtime.stop();
    let disk = disk.cut_power(|_, _, _| false);
    let (_, recovery) = open(&TestRuntime::new(2), &disk, config).unwrap();
    let found: Vec<_> = recovery.partitions.iter().map(|one| (one.id, &one.meta[..])).collect();
    assert_eq!(found, [(P1, &b"again"[..]), (P2, &b"other"[..])]);
}

#[test]
fn a_device_without_room_for_segments_refuses_and_goes_on_when_there_is_room() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    runtime.pass(&disk, Duration::from_millis(1));
    disk.set_full(true);
    let mut slot = 0;
    let refused = loop {
        match engine.append_next(P1, put(slot + 1, "k", &[1; 3000])) {
            Ok(durable) => runtime.block_on(&disk, durable).unwrap(),
            Err(refused) => break refused,
        }
        slot += 1;
    };
    assert!(matches!(refused, Refused::LogFull { .. }), "{refused:?}");
    disk.set_full(false);
    runtime.pass(&disk, Duration::from_millis(1100));
    runtime.block_on(&disk, engine.append_next(P1, put(slot + 1, "k", &[1; 3000])).unwrap()).unwrap();
}

#[test]
fn partitions_are_created_once_and_dropped_in_their_generation() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    let wait = |future| runtime.block_on(&disk, future);
    let again = engine.create_partition(P1, Generation(2), b"");
    assert_eq!(runtime.block_on(&disk, again), Err(PartitionError::Exists { id: P1, generation: G1 }));
    let wrong = engine.drop_partition(P1, Generation(2));
    assert_eq!(
        runtime.block_on(&disk, wrong),
        Err(PartitionError::Unknown { id: P1, generation: Generation(2) })
    );
    drop(engine.append_next(P1, put(1, "k", b"old")).unwrap());
    engine.apply_to(P1, Slot(1));
    drop(engine.drop_partition(P1, G1));
    drop(engine.create_partition(P1, Generation(2), b"two"));
    wait(engine.append_next(P1, put(1, "new", b"new")).unwrap()).unwrap();
    engine.apply_to(P1, Slot(1));
    assert_eq!(items(&runtime, &disk, &engine, P1), [(b"new".to_vec(), b"new".to_vec())]);
    let (runtime, disk) = (TestRuntime::new(2), disk.cut_power(|_, _, _| false));
    let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
    assert_eq!(recovery.partitions[0].generation, Generation(2));
    assert_eq!(recovery.partitions[0].meta, b"two");
    engine.apply_to(P1, Slot(1));
    assert_eq!(items(&runtime, &disk, &engine, P1), [(b"new".to_vec(), b"new".to_vec())]);
}

#[test]
fn files_of_another_cluster_node_or_shard_are_refused_by_name() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    runtime.block_on(&disk, engine.close()).unwrap();
    let file = FileId::Pages;
    let opened = |config: EngineConfig| open(&TestRuntime::new(2), &disk, config).err();
    assert_eq!(
        opened(EngineConfig { cluster: ClusterId(9), ..config() }),
        Some(OpenError::WrongCluster { file, expected: ClusterId(9), found: ClusterId(0xC1) })
    );
    assert_eq!(
        opened(EngineConfig { node: NodeId(9), ..config() }),
        Some(OpenError::WrongNode { file, expected: NodeId(9), found: NodeId(3) })
    );
    assert_eq!(
        opened(EngineConfig { shard: ShardId(9), ..config() }),
        Some(OpenError::WrongShard { file, expected: ShardId(9), found: 1 })
    );
    let mut other = config();
    other.wal.segment_bytes *= 2;
    assert!(matches!(opened(other), Some(OpenError::Config { .. })));
    let mut other = config();
    other.wal.writes_in_flight_max = 3;
    assert!(matches!(opened(other), Some(OpenError::Config { .. })));
    assert_eq!(opened(config()), None);
}

/// The keys of a pinned state from `lower` on, through pages of a few hundred bytes.
fn pinned_keys(runtime: &TestRuntime, disk: &MemoryDisk, pinned: &TestPinned, lower: &[u8]) -> Vec<Vec<u8>> {
    let (mut keys, mut lower) = (Vec::new(), lower.to_vec());
    loop {
        let page = runtime.block_on(disk, pinned.items_from(&lower, 300)).unwrap();
        keys.extend(page.items.iter().map(|(key, _)| key.to_vec()));
        if !page.more {
            return keys;
        }
        lower = keys.last().expect("more items follow some").clone();
        lower.push(0);
    }
}

#[test]
fn a_pinned_state_outlives_changes_checkpoints_and_its_partition() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    let append = |slot: u64| {
        let durable = engine.append_next(P1, put(slot, &format!("k{slot:02}"), &[1; 2000])).unwrap();
        runtime.block_on(&disk, durable).unwrap();
    };
    (1..=20).for_each(append);
    engine.apply_to(P1, Slot(20));
    let early = engine.pin(P1).unwrap();
    runtime.block_on(&disk, engine.checkpoint(P1, b"")).unwrap();
    (21..=30).for_each(append);
    engine.apply_to(P1, Slot(30));
    let late = engine.pin(P1).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    runtime.block_on(&disk, engine.checkpoint(P1, b"")).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    runtime.block_on(&disk, engine.drop_partition(P1, G1)).unwrap();
    runtime.block_on(&disk, engine.flip()).unwrap();
    runtime.pass(&disk, Duration::from_millis(20));
    assert_eq!(engine.statistics().segments_live, 1);
    assert_eq!((pinned_keys(&runtime, &disk, &early, b"").len(), early.slot()), (20, Slot(20)));
    assert_eq!((pinned_keys(&runtime, &disk, &late, b"k05").len(), late.slot()), (26, Slot(30)));
    let free = || engine.pages().used().free_blocks;
    let before = free();
    drop((early, late));
    runtime.block_on(&disk, engine.flip()).unwrap();
    assert!(free() > before, "their pages are free");
}

#[test]
fn a_checkpoint_lets_the_log_go_round_and_is_found_again() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    let mut model = std::collections::BTreeMap::new();
    for slot in 1..=400u64 {
        let key = format!("k{:03}", slot * 7 % 150);
        let entry =
            if slot % 5 == 0 { delete(slot, &key) } else { put(slot, &key, &slot.to_le_bytes().repeat(100)) };
        match slot % 5 == 0 {
            true => drop(model.remove(key.as_bytes())),
            false => drop(model.insert(key.into_bytes(), slot.to_le_bytes().repeat(100))),
        }
        runtime.block_on(&disk, engine.append_next(P1, entry).unwrap()).unwrap();
        engine.apply_to(P1, Slot(slot));
        if slot % 90 == 0 {
            runtime.block_on(&disk, engine.checkpoint(P1, format!("state {slot}").as_bytes())).unwrap();
            runtime.block_on(&disk, engine.flip()).unwrap();
        }
    }
    let model: Items = model.into_iter().collect();
    assert_eq!(items(&runtime, &disk, &engine, P1), model);
    runtime.pass(&disk, Duration::from_millis(20));
    assert!(engine.statistics().segments_live <= 7, "{}", engine.statistics().segments_live);
    let disk = disk.cut_power(|_, _, _| false);
    let runtime = TestRuntime::new(2);
    let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
    let found = &recovery.partitions[0];
    assert_eq!((found.last_slot, found.begun.as_deref()), (Slot(400), Some(&b"state 360"[..])));
    assert_eq!(found.applied.slot, Slot(360));
    engine.apply_to(P1, Slot(400));
    assert_eq!(items(&runtime, &disk, &engine, P1), model);
}

#[test]
fn operations_of_one_entry_are_applied_in_order() {
    let disk = MemoryDisk::automatic();
    let (runtime, engine) = started(&disk);
    let key: Rc<[u8]> = Rc::from(*b"k");
    let put = |image: &[u8]| Operation::Put { key: Rc::clone(&key), image: Rc::from(image) };
    let operations = vec![put(b"1"), Operation::Delete { key: Rc::clone(&key) }, put(b"22")];
    runtime.block_on(&disk, engine.append_next(P1, entry(1, operations)).unwrap()).unwrap();
    engine.apply_to(P1, Slot(1));
    assert_eq!(items(&runtime, &disk, &engine, P1), [(b"k".to_vec(), b"22".to_vec())]);
    assert_eq!(engine.statistics().table_bytes, 32 + 32 + TABLE_ITEM_OVERHEAD_BYTES);
}
