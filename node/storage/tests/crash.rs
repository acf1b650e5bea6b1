//! Every way a recorded log can be cut short, torn or damaged.
//!
//! A recording is a base (the files before) and the appends of one run, with the times at which each
//! was submitted and completed. From it the disk after a power cut at any time is rebuilt, with any
//! part of the appends in flight; and the final disk with any byte changed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::*;
use evenkeel_model::{PartitionId, Slot};
use evenkeel_storage::{
    FileId, OpenError, Runtime,
    memory::{Append, MemoryDisk, SECTOR_BYTES, TestRuntime},
    wal::frame::{self, FrameHeader},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

type Files = BTreeMap<FileId, Vec<u8>>;

/// Which of a partition's entries were submitted and acknowledged by when.
#[derive(Clone, Default)]
struct Script {
    /// Sizes of the images, by partition; slots count from 1.
    sizes: BTreeMap<PartitionId, Vec<usize>>,
    /// Time, partition, slot.
    acknowledged: Rc<RefCell<Vec<(u64, PartitionId, u64)>>>,
}

struct Recording {
    base: Files,
    history: Vec<Append>,
    script: Script,
    /// Entries acknowledged before.
    before: BTreeMap<PartitionId, u64>,
}

fn image(id: PartitionId, slot: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (id.0 as usize * 31 + slot as usize * 7 + at) as u8).collect()
}

fn files(disk: &MemoryDisk) -> Files {
    disk.file_ids().into_iter().map(|file| (file, disk.content(file))).collect()
}

fn disk_of(files: &Files) -> MemoryDisk {
    let disk = MemoryDisk::automatic();
    for (&file, bytes) in files {
        disk.set_content(file, bytes.clone());
    }
    disk
}

impl Recording {
    /// Everything completed at `time`, in the order of completion.
    fn at(&self, time: u64) -> Files {
        let mut files = self.base.clone();
        let mut done: Vec<&Append> = self.history.iter().filter(|append| append.done(time)).collect();
        done.sort_by_key(|append| append.completed);
        for append in done {
            write(&mut files, append, 0..append.bytes.len());
        }
        files
    }

    fn in_flight(&self, time: u64) -> Vec<&Append> {
        self.history.iter().filter(|append| append.submitted <= time && !append.done(time)).collect()
    }

    fn end(&self) -> u64 {
        self.history
            .iter()
            .map(|append| append.submitted.max(append.completed.unwrap_or(0)))
            .max()
            .unwrap_or(0)
    }

    fn acknowledged(&self, time: u64) -> BTreeMap<PartitionId, u64> {
        let mut last = self.before.clone();
        for &(at, id, slot) in self.script.acknowledged.borrow().iter().filter(|(at, _, _)| *at <= time) {
            assert!(at <= time);
            let known = last.entry(id).or_default();
            *known = slot.max(*known);
        }
        last
    }

    /// Opens `disk` and checks that it holds all that was acknowledged, and beyond that only what was
    /// submitted, without holes.
    fn check(&self, disk: &MemoryDisk, acknowledged: &BTreeMap<PartitionId, u64>) -> Result<(), String> {
        let runtime = TestRuntime::new(99);
        let (engine, recovery) = open(&runtime, disk, config()).map_err(|error| error.to_string())?;
        for (id, &least) in acknowledged {
            let found = recovery.partitions.iter().find(|partition| partition.id == *id);
            let last = found.map_or(0, |partition| partition.last_slot.0);
            if last < least {
                return Err(format!("partition {id} lost slot {} of {least}", last + 1));
            }
        }
        for partition in &recovery.partitions {
            let sizes = &self.script.sizes[&partition.id];
            let last = partition.last_slot.0 as usize;
            let expected: Vec<_> = (1..=last as u64)
                .map(|slot| {
                    (format!("{slot:04}").into_bytes(), image(partition.id, slot, sizes[slot as usize - 1]))
                })
                .collect();
            engine.apply_to(partition.id, partition.last_slot);
            if items(&runtime, disk, &engine, partition.id) != expected {
                return Err(format!("partition {} does not hold its first {last} entries", partition.id));
            }
        }
        runtime.stop();
        Ok(())
    }
}

trait Done {
    fn done(&self, time: u64) -> bool;
}

impl Done for Append {
    fn done(&self, time: u64) -> bool {
        self.completed.is_some_and(|completed| completed <= time)
    }
}

fn write(files: &mut Files, append: &Append, part: std::ops::Range<usize>) {
    let file = files.entry(append.file).or_insert_with(|| vec![0; config().wal.segment_bytes as usize]);
    let start = append.offset as usize;
    file[start + part.start..start + part.end].copy_from_slice(&append.bytes[part]);
}

/// Writes `rounds` of entries with two frames in flight, completing them in varied order, and covers
/// the last one if `cover`. Each round is one frame. Returns the recording.
fn record(base: Files, script: Script, rounds: &[&[(PartitionId, usize)]], cover: bool) -> Recording {
    let disk = disk_of(&base);
    let runtime = TestRuntime::new(base.len() as u64 + 5);
    let mut script = script;
    let (engine, recovery) = open(&runtime, &disk, config()).unwrap();
    let before: BTreeMap<_, _> =
        recovery.partitions.iter().map(|partition| (partition.id, partition.last_slot.0)).collect();
    for (id, last) in &before {
        script.sizes.get_mut(id).unwrap().truncate(*last as usize);
    }
    script.acknowledged = Rc::default();
    for id in [P1, P2] {
        if !before.contains_key(&id) {
            runtime.block_on(&disk, engine.create_partition(id, G1, b"meta")).unwrap();
        }
    }
    disk.set_automatic(false);
    for (index, round) in rounds.iter().enumerate() {
        for &(id, bytes) in *round {
            let sizes = script.sizes.entry(id).or_default();
            sizes.push(bytes);
            let slot = sizes.len() as u64;
            let durable =
                engine.append_next(id, put(slot, &format!("{slot:04}"), &image(id, slot, bytes))).unwrap();
            let (clock, acknowledged) = (disk.clone(), Rc::clone(&script.acknowledged));
            runtime.spawn(async move {
                durable.await.unwrap();
                acknowledged.borrow_mut().push((clock.clock(), id, slot));
            });
        }
        runtime.run_ready();
        let flying = disk.in_flight();
        // Sometimes the younger of two completes first.
        if flying.len() == 2 && (cover || index + 1 < rounds.len()) {
            if index % 3 == 0 {
                disk.complete(flying[1]);
                runtime.run_ready();
            }
            disk.complete(flying[0]);
            runtime.run_ready();
        }
    }
    if cover {
        while disk.complete_oldest() {
            runtime.run_ready();
        }
        runtime.pass(&disk, Duration::from_millis(25));
    }
    Recording { base, history: disk.history(), script, before }
}

const ROUNDS: &[&[(PartitionId, usize)]] = &[
    &[(P1, 10), (P2, 20), (P1, 30)],
    &[(P1, 3000), (P2, 2500)],
    &[(P2, 5)],
    &[(P1, 700)],
    &[(P2, 4500), (P1, 1)],
    &[(P1, 7900)],
    &[(P1, 50), (P2, 60)],
    &[(P2, 3900)],
    &[(P1, 15)],
];

fn first_run(cover: bool) -> Recording {
    record(Files::new(), Script::default(), ROUNDS, cover)
}

/// A run behind the torn end of another one, whose last frame but one is lost and whose last is whole.
fn second_run(cover: bool) -> Recording {
    let first = first_run(false);
    let end = first.end();
    let flying = first.in_flight(end);
    assert_eq!(flying.len(), 2);
    let mut base = first.at(end);
    write(&mut base, flying[0], 0..SECTOR_BYTES);
    write(&mut base, flying[1], 0..flying[1].bytes.len());
    record(base, first.script, ROUNDS, cover)
}

/// The parts of an append that a power cut can leave: each prefix and each suffix in whole sectors.
fn tears(append: &Append) -> Vec<std::ops::Range<usize>> {
    let bytes = append.bytes.len();
    let prefixes = (0..=bytes).step_by(SECTOR_BYTES).map(|end| 0..end);
    let suffixes = (SECTOR_BYTES..bytes).step_by(SECTOR_BYTES).map(|start| start..bytes);
    prefixes.chain(suffixes).collect()
}

fn check_every_cut(recording: &Recording) -> (u64, u64) {
    let (mut images, mut with_two) = (0, 0);
    for time in 0..=recording.end() {
        let whole = recording.at(time);
        let acknowledged = recording.acknowledged(time);
        let flying = recording.in_flight(time);
        let first = flying.first().map_or_else(Vec::new, |append| tears(append));
        let second = flying.get(1).map_or_else(Vec::new, |append| tears(append));
        assert!(flying.len() <= 2);
        for one in first.iter().map(Some).chain(first.is_empty().then_some(None)) {
            for other in second.iter().map(Some).chain(second.is_empty().then_some(None)) {
                let mut files = whole.clone();
                for (append, part) in flying.iter().zip([one, other].into_iter().flatten()) {
                    write(&mut files, append, part.clone());
                }
                let result = recording.check(&disk_of(&files), &acknowledged);
                assert_eq!(result, Ok(()), "cut at {time}, torn {one:?} and {other:?}");
                images += 1;
                with_two += u64::from(other.is_some());
            }
        }
    }
    (images, with_two)
}

#[test]
fn every_cut_and_every_tear_of_a_first_run_keeps_all_that_was_acknowledged() {
    let recording = record(Files::new(), Script::default(), &[ROUNDS, ROUNDS].concat(), true);
    let segments =
        recording.history.iter().map(|append| append.file).collect::<std::collections::BTreeSet<_>>();
    assert!(segments.len() >= 3, "the recording switches segments");
    let (images, with_two) = check_every_cut(&recording);
    assert!(images > 2000 && with_two > 1500, "{images} images, {with_two} with two frames in flight");
}

#[test]
fn every_cut_and_every_tear_of_a_run_behind_a_cut_keeps_all_that_was_acknowledged() {
    let recording = second_run(true);
    assert!(!recording.before.is_empty());
    let (images, with_two) = check_every_cut(&recording);
    assert!(images > 2000 && with_two > 1500, "{images} images, {with_two} with two frames in flight");
}

type Placed = (FileId, FrameHeader);

/// The frames of the files, by rising sequence, those of the newest run winning, and the others.
fn frames(files: &Files) -> (Vec<Placed>, Vec<Placed>) {
    let mut all = Vec::new();
    for (&file, bytes) in files {
        let mut offset = 0;
        while offset < bytes.len() {
            let claimed =
                frame::claim(&bytes[offset..], bytes.len() - offset).map_or(0, |claim| claim.frame_bytes);
            match frame::open(&bytes[offset..offset + claimed]) {
                Ok((header, _)) if header.offset as usize == offset => {
                    all.push((file, header));
                    offset += claimed;
                }
                _ => offset += 4096,
            }
        }
    }
    all.sort_by_key(|(_, header)| (header.segment, header.sequence));
    let is_live = |(_, header): &Placed| {
        let later_run = |(_, other): &Placed| {
            other.run_start && other.segment > header.segment && other.sequence <= header.sequence
        };
        !all.iter().any(later_run)
    };
    all.iter().copied().partition(is_live)
}

/// Changes every byte of the final disk, one at a time; counts those reported and those not noticed.
fn check_every_flip(recording: &Recording, files: &Files) -> Result<(u64, u64), String> {
    let all = recording.acknowledged(u64::MAX);
    let (live, _) = frames(files);
    let highest_durable = live.iter().map(|(_, header)| header.durable).max().unwrap();
    let (mut reported, mut harmless) = (0, 0);
    for (&file, bytes) in files {
        for at in 0..bytes.len() {
            let owner = live.iter().find(|(of, header)| {
                let start = header.offset as usize;
                *of == file && (start..start + header.frame_bytes as usize).contains(&at)
            });
            // Of what no frame owns, a sample is enough: there is nothing to notice.
            if owner.is_none() && at % 97 != 0 {
                continue;
            }
            let disk = disk_of(files);
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.set_content(file, damaged);
            let covered = owner.is_some_and(|(_, header)| header.sequence <= highest_durable);
            let runtime = TestRuntime::new(3);
            match open(&runtime, &disk, config()) {
                Err(OpenError::Corrupt { .. }) if covered => reported += 1,
                Ok(_) if !covered => {
                    recording.check(&disk, &all).map_err(|lost| format!("{file} byte {at}: {lost}"))?;
                    harmless += 1;
                }
                other => {
                    let found = other.map(|_| "a log without damage").map_err(|error| error.to_string());
                    return Err(format!("{file} byte {at}, covered: {covered}, gave {found:?}"));
                }
            }
            runtime.stop();
        }
    }
    Ok((reported, harmless))
}

#[test]
fn every_flipped_byte_of_a_covered_frame_is_reported_and_no_other_loses_anything() {
    let recording = first_run(true);
    let (reported, harmless) = check_every_flip(&recording, &recording.at(u64::MAX)).unwrap();
    assert!(reported > 40_000 && harmless > 4000, "{reported} reported, {harmless} harmless");
}

#[test]
fn every_flipped_byte_around_a_cut_is_reported_if_it_was_acknowledged_and_harmless_if_not() {
    let recording = second_run(true);
    let files = recording.at(u64::MAX);
    let (live, cut) = frames(&files);
    assert!(live.iter().filter(|(_, header)| header.run_start).count() == 2 && !cut.is_empty());
    let (reported, harmless) = check_every_flip(&recording, &files).unwrap();
    assert!(reported > 80_000 && harmless > 4000, "{reported} reported, {harmless} harmless");
}

/// The same log as if frames never said what was durable.
fn without_durable_marks(files: &Files) -> Files {
    let mut files = files.clone();
    let mut previous = 0;
    for (file, header) in frames(&files).0 {
        let start = header.offset as usize;
        let bytes = &mut files.get_mut(&file).unwrap()[start..start + header.frame_bytes as usize];
        previous = frame::seal(&FrameHeader { durable: 0, previous, ..header }, bytes);
    }
    files
}

#[test]
fn without_the_durable_marks_the_same_check_finds_acknowledged_entries_lost_in_silence() {
    let recording = first_run(true);
    let files = without_durable_marks(&recording.at(u64::MAX));
    assert_eq!(
        recording.check(&disk_of(&files), &recording.acknowledged(u64::MAX)),
        Ok(()),
        "it is still a log"
    );
    let acknowledged = recording.acknowledged(u64::MAX);
    let mut lost = 0;
    for (file, header) in frames(&files).0 {
        let mut damaged = files.clone();
        damaged.get_mut(&file).unwrap()[header.offset as usize + 200] ^= 1;
        let result = recording.check(&disk_of(&damaged), &acknowledged);
        lost += u32::from(result.is_err_and(|lost| lost.contains("lost slot")));
    }
    assert!(lost > 5, "{lost} frames lost in silence");
}

#[test]
fn a_missing_segment_is_reported() {
    let recording = first_run(true);
    let whole = recording.at(u64::MAX);
    let last = frames(&whole).0.last().unwrap().0;
    for &file in whole.keys().filter(|file| **file != last) {
        let mut files = whole.clone();
        let used = files.remove(&file).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0));
        let result = open(&TestRuntime::new(1), &disk_of(&files), config());
        assert_eq!(matches!(result, Err(OpenError::Corrupt { .. })), used, "{file}");
    }
}

#[test]
fn a_segment_that_is_there_twice_is_reported() {
    let recording = first_run(true);
    let mut files = recording.at(u64::MAX);
    files.insert(FileId::Segment(40), files[&FileId::Segment(0)].clone());
    let result = open(&TestRuntime::new(1), &disk_of(&files), config());
    assert!(matches!(result, Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_recovery_that_is_cut_short_again_and_again_changes_nothing() {
    let recording = second_run(false);
    let end = recording.end();
    let mut files = recording.at(end);
    let flying = recording.in_flight(end);
    write(&mut files, flying[0], 0..SECTOR_BYTES);
    write(&mut files, flying[1], 0..flying[1].bytes.len());
    let acknowledged = recording.acknowledged(end);
    let mut expected = None;
    for attempt in 0..12 {
        let disk = disk_of(&files);
        disk.set_automatic(false);
        let runtime = TestRuntime::new(attempt);
        let opening = evenkeel_storage::Engine::open(disk.clone(), runtime.clone(), config());
        let mut opening = Box::pin(opening);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(opening.as_mut().poll(&mut context).is_pending());
        runtime.run_ready();
        assert_eq!(disk.in_flight().len(), 1, "the first frame of the run");
        // Each attempt leaves one more sector of it, the last ones all of it.
        let torn = disk.cut_power(|_, index, _| index < attempt as usize);
        recording.check(&torn.cut_power(|_, _, _| false), &acknowledged).unwrap();
        let (_, recovery) = open(&TestRuntime::new(50), &disk_of(&self::files(&torn)), config()).unwrap();
        let partitions: Vec<(PartitionId, Slot)> =
            recovery.partitions.iter().map(|partition| (partition.id, partition.last_slot)).collect();
        assert_eq!(&partitions, expected.get_or_insert_with(|| partitions.clone()));
        files = self::files(&torn);
    }
}

#[test]
fn a_process_that_is_killed_leaves_nothing_that_a_later_power_cut_takes_back() {
    let first = first_run(false);
    let disk = disk_of(&first.at(0));
    // Run the script again on a disk whose last writes are only cached when the process is killed.
    let runtime = TestRuntime::new(5);
    let (engine, _) = open(&runtime, &disk, config()).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"")).unwrap();
    disk.set_automatic(false);
    for slot in 1..=2 {
        drop(engine.append_next(P1, put(slot, &format!("{slot:04}"), b"v")).unwrap());
        runtime.run_ready();
    }
    assert_eq!(disk.in_flight().len(), 2);
    let killed = disk.kill_process(|_, _, _| true);
    killed.set_automatic(true);
    let (_, seen) = open(&TestRuntime::new(6), &killed, config()).unwrap();
    assert_eq!(seen.partitions[0].last_slot, Slot(2));
    let cut = killed.cut_power(|_, _, _| false);
    let (_, after) = open(&TestRuntime::new(7), &cut, config()).unwrap();
    assert_eq!(after.partitions[0].last_slot, Slot(2), "what was seen stays");
}

#[test]
fn a_frame_that_was_put_over_the_one_it_covers_is_no_end_of_the_log() {
    let disk = MemoryDisk::automatic();
    let runtime = TestRuntime::new(1);
    let (engine, _) = open(&runtime, &disk, config()).unwrap();
    runtime.block_on(&disk, engine.create_partition(P1, G1, b"meta")).unwrap();
    runtime.block_on(&disk, engine.append_next(P1, put(1, "k", b"v")).unwrap()).unwrap();
    runtime.pass(&disk, Duration::from_millis(12));
    runtime.block_on(&disk, engine.close()).unwrap();
    let history = disk.history();
    let [.., covered, covering] = &history[..] else { panic!("two writes") };
    assert_eq!((covered.file, covered.offset + covered.bytes.len() as u64), (covering.file, covering.offset));
    let mut content = disk.content(covering.file);
    let (first, last) = (covered.offset as usize, covering.offset as usize);
    content[first..first + covering.bytes.len()].copy_from_slice(&covering.bytes);
    content[last..last + covering.bytes.len()].fill(0);
    let disk = disk.cut_power(|_, _, _| false);
    disk.set_content(covering.file, content);
    match open(&TestRuntime::new(2), &disk, config()) {
        Err(OpenError::Corrupt { offset, .. }) => assert_eq!(offset, covered.offset),
        Ok((_, recovery)) => panic!("{} entries were found", recovery.entries),
        Err(error) => panic!("{error}"),
    }
}
