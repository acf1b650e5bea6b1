//! Every moment of a flip at which the power can go, and every copy or pair of copies that can go bad.

use super::{super::superblock::tests, *};
use crate::{
    memory::{Faults, MemoryDisk, TestRuntime},
    space::HEAD_BLOCKS,
};

const HEAD_BYTES: u64 = HEAD_BLOCKS * BLOCK_BYTES as u64;

/// A superblock of several sectors, each of which says the sequence.
fn superblock(sequence: u64) -> Superblock {
    let mut superblock = tests::superblock(sequence, 80);
    superblock.pieces.iter_mut().for_each(|piece| piece.checksum = sequence);
    superblock
}

/// A disk whose four copies say `sequence`.
fn anchored(sequence: u64) -> MemoryDisk {
    let disk = MemoryDisk::faulty(Faults::default());
    let runtime = TestRuntime::new(1);
    runtime.block_on(&disk, disk.create(FileId::Pages, HEAD_BYTES)).unwrap();
    runtime.block_on(&disk, write(&disk, &superblock(sequence))).unwrap();
    disk
}

fn read_back(disk: &MemoryDisk) -> Result<Option<Anchored>, OpenError> {
    TestRuntime::new(2).block_on(disk, read(disk))
}

/// The sequence that counts, and the stale copies.
fn says(disk: &MemoryDisk) -> (u64, Vec<usize>) {
    let anchored = read_back(disk).unwrap().unwrap();
    assert_eq!(anchored.superblock, superblock(anchored.superblock.sequence));
    (anchored.superblock.sequence, anchored.stale)
}

fn spoil(disk: &MemoryDisk, copy: usize) {
    disk.rot(FileId::Pages, COPY_BLOCKS[copy] * BLOCK_BYTES as u64 + 40 + copy as u64, 3);
}

fn heal(disk: &MemoryDisk) {
    let anchored = read_back(disk).unwrap().unwrap();
    let writing = write_copies(disk, &anchored.superblock, &anchored.stale);
    TestRuntime::new(3).block_on(disk, writing).unwrap();
}

#[test]
fn any_single_or_double_damage_of_the_copies_is_survived() {
    for first in 0..4 {
        for second in 0..4 {
            let disk = anchored(5);
            spoil(&disk, first);
            let mut stale = vec![first];
            if second != first {
                spoil(&disk, second);
                stale.push(second);
                stale.sort_unstable();
            }
            assert_eq!(says(&disk), (5, stale));
            heal(&disk);
            assert_eq!(says(&disk), (5, vec![]));
        }
    }
}

#[test]
fn with_three_copies_damaged_it_is_reported_and_never_guessed() {
    let disk = anchored(5);
    (0..3).for_each(|copy| spoil(&disk, copy));
    let Err(OpenError::Corrupt { file, found, .. }) = read_back(&disk) else { panic!("not reported") };
    assert_eq!(file, FileId::Pages);
    assert!(found.ends_with("sequence 5"), "{found}");
}

/// Runs the flip from 5 to 6 until `steps` operations have completed, and returns the disk.
fn flip_until(steps: usize) -> (MemoryDisk, bool) {
    let disk = anchored(5);
    let mut flip = Box::pin({
        let disk = disk.clone();
        async move { write(&disk, &superblock(6)).await }
    });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut done = flip.as_mut().poll(&mut context).is_ready();
    for _ in 0..steps {
        if done {
            break;
        }
        assert!(disk.complete_oldest());
        done = flip.as_mut().poll(&mut context).is_ready();
    }
    std::mem::forget(flip);
    (disk, done)
}

/// Whether a sector lands: a bit of `pattern` for each of the first four sectors of the first and of the
/// second copy of a pair, the others going with the fourth.
fn lands(pattern: u32, offset: u64, index: usize) -> bool {
    let sector = (offset / 512) as usize % 8 + index;
    let second = !(offset / BLOCK_BYTES as u64).is_multiple_of(32);
    pattern >> (sector.min(3) + if second { 4 } else { 0 }) & 1 == 1
}

#[test]
fn without_the_flush_between_the_pairs_a_cut_may_leave_no_superblock() {
    let mut lost = 0;
    for pattern in 0..256 {
        let disk = anchored(5);
        let runtime = TestRuntime::new(1);
        for block in COPY_BLOCKS {
            let mut buffer = disk.page_buffer(BLOCK_BYTES);
            superblock(6).encode(&mut buffer);
            let write = disk.write(FileId::Pages, block * BLOCK_BYTES as u64, buffer);
            runtime.block_on(&disk, write).unwrap();
        }
        let cut = disk.cut_power(|write, index, _| lands(pattern, write.offset, index));
        lost += u32::from(matches!(read_back(&cut), Err(OpenError::Corrupt { .. }) | Ok(None)));
    }
    assert!(lost > 100, "{lost} of 256 cuts");
}

#[test]
fn a_flip_cut_at_any_point_leaves_the_old_or_the_new_superblock_and_a_done_one_the_new() {
    let (mut old, mut new) = (0, 0);
    for steps in 0..=6 {
        for pattern in 0..256u32 {
            let (disk, done) = flip_until(steps);
            assert_eq!(done, steps == 6, "two writes and a sync for each pair");
            let cut = disk.cut_power(|write, index, _| lands(pattern, write.offset, index));
            let (sequence, stale) = says(&cut);
            match sequence {
                5 => old += 1,
                6 => new += 1,
                other => panic!("sequence {other}"),
            }
            assert!(steps < 3 || sequence == 6, "the first pair is durable after three steps");
            heal(&cut);
            let again = cut.cut_power(|_, _, _| false);
            assert_eq!(says(&again), (sequence, vec![]), "healed, from {stale:?}");
        }
    }
    assert!(old > 500 && new > 1000, "{old} old, {new} new");
}

#[test]
fn damage_to_one_copy_while_a_flip_is_cut_is_survived_or_reported() {
    let (mut survived, mut reported) = (0, 0);
    for steps in 0..=6 {
        for copy in 0..4 {
            for lands in [false, true] {
                let (disk, done) = flip_until(steps);
                let cut = disk.cut_power(|_, _, _| lands);
                spoil(&cut, copy);
                match read_back(&cut) {
                    Ok(Some(anchored)) => {
                        assert!(!done || anchored.superblock.sequence == 6);
                        survived += 1;
                    }
                    Err(OpenError::Corrupt { .. }) if !done => reported += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(survived > 45, "{survived} survived, {reported} reported");
}

#[test]
fn a_file_without_any_superblock_is_new_and_so_is_one_whose_first_was_cut() {
    let disk = MemoryDisk::faulty(Faults::default());
    let runtime = TestRuntime::new(1);
    runtime.block_on(&disk, disk.create(FileId::Pages, HEAD_BYTES)).unwrap();
    assert_eq!(read_back(&disk), Ok(None));
    let first = Superblock { pieces: Vec::new(), catalogue_bytes: 0, ..tests::superblock(0, 0) };
    runtime.block_on(&disk, write_copies(&disk, &first, &[0])).unwrap();
    assert_eq!(read_back(&disk), Ok(None));
    runtime.block_on(&disk, write(&disk, &first)).unwrap();
    assert_eq!(read_back(&disk).unwrap().unwrap().superblock, first);
}

#[test]
fn writing_one_pair_only_would_be_noticed_by_these_tests() {
    // The protocol without its second pair: damage to one copy of the first brings the old state back.
    let disk = anchored(5);
    let runtime = TestRuntime::new(1);
    runtime.block_on(&disk, write_copies(&disk, &superblock(6), &[0, 1])).unwrap();
    assert_eq!(says(&disk), (6, vec![2, 3]));
    spoil(&disk, 0);
    assert_eq!(says(&disk), (5, vec![0, 1]));
}
