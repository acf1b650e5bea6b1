//! Each fault, alone, does what it says and nothing else, and is counted.

use super::{CERTAIN_PPM, DamageKind, FaultCounts, Faults, MemoryDisk, Random, SECTOR_BYTES, TestRuntime};
use crate::disk::{BLOCK_BYTES, Disk, FileId};
use std::io::ErrorKind;

const FILE: FileId = FileId::Pages;
const BLOCKS: u64 = 16;

fn made(faults: Faults) -> (TestRuntime, MemoryDisk) {
    let (runtime, disk) =
        (TestRuntime::new(1), MemoryDisk::faulty(Faults { seed: faults.seed, ..Faults::default() }));
    runtime.block_on(&disk, disk.create(FILE, BLOCKS * BLOCK_BYTES as u64)).unwrap();
    disk.set_faults(faults);
    (runtime, disk)
}

fn at(block: u64) -> u64 {
    block * BLOCK_BYTES as u64
}

async fn write(disk: &MemoryDisk, block: u64, byte: u8) -> Result<(), ErrorKind> {
    let mut buffer = disk.buffer(BLOCK_BYTES);
    buffer.fill(byte);
    disk.write(FILE, at(block), buffer).await.map(drop).map_err(|error| error.source.kind)
}

async fn read(disk: &MemoryDisk, block: u64) -> Result<Vec<u8>, ErrorKind> {
    let read = disk.read(FILE, at(block), disk.buffer(BLOCK_BYTES)).await;
    read.map(|buffer| buffer.to_vec()).map_err(|error| error.source.kind)
}

/// The byte a block is filled with, if it is.
fn byte_of(disk: &MemoryDisk, block: u64) -> Option<u8> {
    let content = &disk.content(FILE)[at(block) as usize..at(block + 1) as usize];
    content.iter().all(|byte| *byte == content[0]).then_some(content[0])
}

#[test]
fn a_write_survives_a_power_off_once_a_sync_that_began_after_it_has_resolved() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let (runtime, disk) = made(Faults { seed, ..Faults::default() });
        runtime.block_on(&disk, async {
            write(&disk, 0, 1).await.unwrap();
            disk.sync(FILE).await.unwrap();
            write(&disk, 1, 2).await.unwrap();
        });
        assert_eq!(byte_of(&disk, 1), Some(2), "a cached write is read");
        let after = disk.power_off();
        assert_eq!(byte_of(&after, 0), Some(1));
        if byte_of(&after, 1) == Some(2) {
            kept += 1
        } else {
            lost += 1
        }
        assert_eq!(after.fault_counts().power_offs, 1);
        assert_eq!(after.fault_counts().cache_sectors_lost == 0, byte_of(&after, 1) == Some(2));
    }
    assert!(lost > 5 && kept > 1, "{lost} lost, {kept} kept");
}

#[test]
fn a_sync_does_not_cover_what_was_written_while_it_ran() {
    let (runtime, disk) = made(Faults::default());
    runtime.block_on(&disk, write(&disk, 0, 1)).unwrap();
    let mut buffer = disk.buffer(BLOCK_BYTES);
    buffer.fill(2);
    // The sync is submitted when it is first polled; the write behind it completes before it.
    let mut sync = std::pin::pin!(disk.sync(FILE));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(sync.as_mut().poll(&mut context).is_pending());
    let second = disk.write(FILE, 0, buffer);
    disk.set_faults(Faults { reordered_ppm: CERTAIN_PPM, ..Faults::default() });
    assert!(disk.complete_oldest());
    runtime.block_on(&disk, second).unwrap();
    runtime.block_on(&disk, sync).unwrap();
    assert_eq!(byte_of(&disk, 0), Some(2));
    assert_eq!(byte_of(&disk.cut_power(|_, _, _| false), 0), Some(1));
    assert_eq!(disk.fault_counts().reordered, 1);
}

#[test]
fn writes_that_are_torn_land_in_part_and_sectors_that_are_torn_in_their_beginning() {
    let mut counts = FaultCounts::default();
    let mut partial_blocks = 0;
    for seed in 0..50 {
        let faults =
            Faults { torn_write_ppm: CERTAIN_PPM, torn_sector_ppm: CERTAIN_PPM / 10, ..Faults::default() };
        let (_, disk) = made(Faults { seed, ..faults });
        let mut buffer = disk.buffer(BLOCK_BYTES);
        buffer.fill(9);
        drop(disk.append(FILE, 0, buffer, BLOCK_BYTES));
        let after = disk.power_off();
        partial_blocks += u32::from(byte_of(&after, 0).is_none());
        counts = FaultCounts {
            torn_writes: counts.torn_writes + after.fault_counts().torn_writes,
            torn_sectors: counts.torn_sectors + after.fault_counts().torn_sectors,
            ..counts
        };
        for sector in after.content(FILE)[..BLOCK_BYTES].chunks(SECTOR_BYTES) {
            let landed = sector.iter().take_while(|byte| **byte == 9).count();
            assert!(sector[landed..].iter().all(|byte| *byte == 0));
        }
    }
    assert!(partial_blocks > 10 && counts.torn_writes > 10 && counts.torn_sectors > 3, "{counts:?}");
}

#[test]
fn a_lost_write_is_reported_as_done_and_leaves_the_old_content() {
    let (runtime, disk) = made(Faults { lost_write_ppm: CERTAIN_PPM, ..Faults::default() });
    runtime.block_on(&disk, write(&disk, 3, 5)).unwrap();
    assert_eq!(byte_of(&disk, 3), Some(0));
    let damage = disk.damage();
    assert_eq!((damage.len(), damage[0].kind, damage[0].offset), (1, DamageKind::Lost, at(3)));
    assert_eq!(disk.fault_counts(), FaultCounts { lost_writes: 1, ..FaultCounts::default() });
}

#[test]
fn a_misdirected_write_is_found_where_it_was_not_sent() {
    let (runtime, disk) = made(Faults { misdirected_write_ppm: CERTAIN_PPM, ..Faults::default() });
    runtime.block_on(&disk, write(&disk, 3, 5)).unwrap();
    let found: Vec<u64> = (0..BLOCKS).filter(|block| byte_of(&disk, *block) == Some(5)).collect();
    assert!(found.len() == 1 && found != [3], "{found:?}");
    let damage: Vec<_> = disk.damage().iter().map(|damage| (damage.kind, damage.offset)).collect();
    assert_eq!(damage, [(DamageKind::Lost, at(3)), (DamageKind::Misdirected, at(found[0]))]);
    assert_eq!(disk.fault_counts().misdirected_writes, 1);
}

#[test]
fn rot_changes_one_bit_for_good() {
    let (runtime, disk) = made(Faults { rot_ppm: CERTAIN_PPM, ..Faults::default() });
    let rotten = runtime.block_on(&disk, read(&disk, 2)).unwrap();
    assert_eq!(rotten.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    disk.set_faults(Faults::default());
    assert_eq!(runtime.block_on(&disk, read(&disk, 2)), Ok(rotten));
    assert_eq!((disk.fault_counts().rotten_bits, disk.damage()[0].kind), (1, DamageKind::Rot));
}

#[test]
fn reads_writes_syncs_and_growth_fail_as_often_as_asked_and_say_so() {
    let (runtime, disk) = made(Faults { read_error_ppm: CERTAIN_PPM, ..Faults::default() });
    assert_eq!(runtime.block_on(&disk, read(&disk, 0)), Err(ErrorKind::Other));
    disk.set_faults(Faults { write_error_ppm: CERTAIN_PPM, ..Faults::default() });
    assert_eq!(runtime.block_on(&disk, write(&disk, 0, 1)), Err(ErrorKind::Other));
    let mut buffer = disk.buffer(BLOCK_BYTES);
    buffer.fill(1);
    assert!(runtime.block_on(&disk, disk.append(FILE, 0, buffer, BLOCK_BYTES)).is_err());
    disk.set_faults(Faults { sync_error_ppm: CERTAIN_PPM, ..Faults::default() });
    assert_eq!(runtime.block_on(&disk, disk.sync(FILE)).unwrap_err().operation, "sync");
    disk.set_faults(Faults { no_space_ppm: CERTAIN_PPM, ..Faults::default() });
    let full = runtime.block_on(&disk, disk.extend(FILE, at(BLOCKS), at(BLOCKS + 1))).unwrap_err();
    assert_eq!((full.operation, full.source.kind), ("extend", ErrorKind::StorageFull));
    disk.set_faults(Faults { capacity_bytes: Some(at(BLOCKS + 1)), ..Faults::default() });
    runtime.block_on(&disk, disk.extend(FILE, at(BLOCKS), at(BLOCKS + 1))).unwrap();
    let over = runtime.block_on(&disk, disk.extend(FILE, at(BLOCKS + 1), at(BLOCKS + 2)));
    assert_eq!(over.unwrap_err().source.kind, ErrorKind::StorageFull);
    let expected = FaultCounts {
        read_errors: 1,
        write_errors: 2,
        sync_errors: 1,
        no_space: 2,
        ..FaultCounts::default()
    };
    assert_eq!(disk.fault_counts(), FaultCounts { torn_writes: disk.fault_counts().torn_writes, ..expected });
}

#[test]
fn after_a_failed_sync_what_it_should_have_covered_may_be_gone() {
    let mut seen = [0; 3];
    for seed in 0..30 {
        let (runtime, disk) = made(Faults { seed, ..Faults::default() });
        runtime.block_on(&disk, write(&disk, 0, 1)).unwrap();
        disk.set_faults(Faults { sync_error_ppm: CERTAIN_PPM, ..Faults::default() });
        runtime.block_on(&disk, disk.sync(FILE)).unwrap_err();
        disk.set_faults(Faults::default());
        runtime.block_on(&disk, disk.sync(FILE)).unwrap();
        match byte_of(&disk.cut_power(|_, _, _| false), 0) {
            Some(1) => seen[0] += 1,
            None => seen[1] += 1,
            _ => seen[2] += 1,
        }
    }
    assert!(seen[1] > 10, "a later sync that succeeds does not bring it back: {seen:?}");
}

#[test]
fn operations_complete_out_of_order_and_slow_ones_after_timers() {
    let faults = Faults { reordered_ppm: CERTAIN_PPM / 2, slow_ppm: CERTAIN_PPM / 4, ..Faults::default() };
    let (runtime, disk) = made(faults);
    let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for block in 0..BLOCKS {
        let (disk, order) = (disk.clone(), std::rc::Rc::clone(&order));
        crate::runtime::Runtime::spawn(&runtime, async move {
            write(&disk, block, 1).await.unwrap();
            order.borrow_mut().push(block);
        });
    }
    runtime.run_ready();
    assert_eq!(disk.operations_in_flight(), BLOCKS as usize);
    while disk.operations_in_flight() > 0 {
        assert!(runtime.move_on(&disk));
        runtime.run_ready();
    }
    assert_eq!(order.borrow().len(), BLOCKS as usize);
    assert!(!order.borrow().is_sorted());
    let counts = disk.fault_counts();
    assert!(counts.reordered > 1 && counts.slow > 1, "{counts:?}");
}

#[test]
fn growth_that_the_power_interrupts_leaves_any_length_in_between_and_can_be_repeated() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let (_, disk) = made(Faults { seed, ..Faults::default() });
        let mut growing = std::pin::pin!(disk.extend(FILE, at(BLOCKS), at(BLOCKS + 4)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(growing.as_mut().poll(&mut context).is_pending());
        let after = disk.power_off();
        lengths.insert(after.content(FILE).len() as u64 / BLOCK_BYTES as u64 - BLOCKS);
        let runtime = TestRuntime::new(2);
        runtime.block_on(&after, after.extend(FILE, at(BLOCKS), at(BLOCKS + 4))).unwrap();
        assert_eq!(after.content(FILE).len() as u64, at(BLOCKS + 4));
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let faults = Faults {
            seed,
            lost_write_ppm: CERTAIN_PPM / 10,
            misdirected_write_ppm: CERTAIN_PPM / 10,
            write_error_ppm: CERTAIN_PPM / 10,
            rot_ppm: CERTAIN_PPM / 10,
            ..Faults::crashes_only(seed)
        };
        let (runtime, disk) = made(faults);
        let mut random = Random::new(seed);
        for _ in 0..60 {
            let block = random.below(BLOCKS);
            let done = runtime.block_on(&disk, async {
                (write(&disk, block, random.bits() as u8).await, read(&disk, block).await.is_ok())
            });
            std::hint::black_box(&done);
        }
        let after = disk.power_off();
        (after.content(FILE), after.damage(), after.fault_counts())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}
