//! What an engine is asked to do in one step, what comes back, and the items that all engines store.
//!
//! Every step runs in a process of its own, which opens the engine's directory, does the step, prints its
//! [`Outcome`] as one line of JSON and ends without closing anything, as if it was killed. So memory and IO of
//! an engine are those of its process, and whatever it acknowledged must be found by the next step.
//!
//! The package of the other engines compiles this very file too: it uses nothing of the workspace.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Smallest value: what tells it apart from all others.
pub const VALUE_BYTES_MIN: usize = 40;
/// How many acknowledged writes of a step are remembered, for the next one to look for.
const WITNESSES_MAX: usize = 1024;
/// Slowest latency that is told apart; slower ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// What the kernel counts blocks of files in.
const STAT_BLOCK_BYTES: u64 = 512;

/// What a process is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Which engine.
    pub engine: String,
    /// Where its files are, or will be.
    pub directory: PathBuf,
    /// What to do.
    pub step: Step,
    /// The items.
    pub data: Data,
    /// Memory for caches and buffers, together.
    pub memory_bytes: u64,
    /// Size of the leaves of a tree that can choose it.
    pub leaf_bytes: usize,
    /// Versions written by this step are greater than those of earlier ones: it counts the steps.
    pub epoch: u32,
    /// A control group that bounds the process's memory, page cache included; it enters it first.
    pub group: Option<PathBuf>,
}

/// The items there are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Data {
    /// How many.
    pub items: u64,
    /// Size of each one's value.
    pub value_bytes: usize,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Puts every item once, in the order of numbers, which is a random order of keys, and lets all background
    /// work end. Only the end of it must be durable.
    Load,
    /// Overwrites items picked at random, each write durable before the next one of its writer.
    Put {
        /// Writers at the same time.
        writers: u64,
        /// For how long.
        seconds: f64,
    },
    /// Gets items picked at random.
    Get {
        /// Readers at the same time.
        readers: u64,
        /// For how long at most.
        seconds: f64,
        /// How many gets at most: few enough, and hardly a page is read twice.
        gets_max: u64,
        /// Of these first items.
        among: u64,
        /// So many of these are read once before.
        warm: u64,
    },
    /// Reads all items in key order.
    Scan,
    /// Puts and gets by a few writers and readers, first with no background work, then while it goes on.
    Merge {
        /// For how long each.
        seconds: f64,
    },
    /// Opens, gets one item, and then looks for these writes.
    Restart {
        /// Numbers and the versions that must be found.
        expected: Vec<(u64, u64)>,
    },
}

/// What came of a step; what does not apply to it is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// From the beginning of the opening to the first answer, in milliseconds.
    pub open_ms: f64,
    /// What was measured, in seconds.
    pub seconds: f64,
    /// Puts.
    pub puts: Option<Latencies>,
    /// Gets.
    pub gets: Option<Latencies>,
    /// Puts and gets while background work went on.
    pub merging: Option<(Latencies, Latencies)>,
    /// Writes that were refused, to be tried again.
    pub refused: u64,
    /// Answers that were not what had been written, and errors.
    pub wrong: u64,
    /// The first of them.
    pub first_fault: Option<String>,
    /// Items read by a scan.
    pub scanned: u64,
    /// Bytes that the process had the device read and write while it was measured.
    pub io: Io,
    /// Pages read from the device meanwhile, if the engine counts them.
    pub page_reads: Option<u64>,
    /// Bytes that the engine itself has written to log and pages meanwhile, if it counts them.
    pub engine_written: Option<u64>,
    /// Puts in each second.
    pub timeline: Vec<u64>,
    /// Bytes that its files take on the device.
    pub disk_bytes: u64,
    /// Bytes that its files would take without space that is held ready, if the engine knows.
    pub used_bytes: Option<u64>,
    /// The process's greatest memory, in bytes.
    pub memory_max_bytes: u64,
    /// Of the present memory, what belongs to no file.
    pub memory_anonymous_bytes: u64,
    /// Writes that must be found from now on.
    pub witnesses: Vec<(u64, u64)>,
    /// What a reader of the figures should know of how they came about.
    pub notes: Vec<String>,
}

/// Latencies of one kind of operation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// Operations.
    pub count: u64,
    /// Of them in a second.
    pub per_second: f64,
    /// Median, in microseconds.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Bytes that went between a process and the device.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Io {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub write_bytes: u64,
}

impl Io {
    /// Of this process, so far; zero if the kernel does not tell.
    pub fn now() -> Io {
        let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
        Io { read_bytes: field(&text, "read_bytes:"), write_bytes: field(&text, "write_bytes:") }
    }

    /// Since then.
    pub fn since(self) -> Io {
        let now = Io::now();
        Io {
            read_bytes: now.read_bytes.saturating_sub(self.read_bytes),
            write_bytes: now.write_bytes.saturating_sub(self.write_bytes),
        }
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()).and_then(|value| value.parse().ok()).unwrap_or(0)
}

impl Outcome {
    /// Looks at the process and its files, at the end of a step.
    pub fn take_stock(&mut self, directory: &Path) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.memory_max_bytes = field(&status, "VmHWM:") * 1024;
        self.memory_anonymous_bytes = field(&status, "RssAnon:") * 1024;
        self.disk_bytes = bytes_on_disk(directory).unwrap_or(0);
    }

    /// Counts what went wrong.
    pub fn fault(&mut self, reason: String) {
        self.wrong += 1;
        self.first_fault.get_or_insert(reason);
    }

    /// Counts an item of a scan.
    pub fn scanned(&mut self, key: &[u8], value: &[u8]) {
        self.scanned += 1;
        let number = read_u64_be(key, 8);
        if !number.is_some_and(|number| is_value_of(value, number)) {
            self.fault(format!("key {key:02x?}: found {}", told(Some(value))));
        }
    }

    /// Compares a value with what must be found.
    pub fn found(&mut self, number: u64, version: u64, value: Option<&[u8]>, value_bytes: usize) {
        if value.is_none_or(|value| value != self::value(number, version, value_bytes)) {
            self.fault(format!("item {number}, version {version}: found {}", told(value)));
        }
    }

    /// Takes in what several writers or readers have counted.
    pub fn take(&mut self, tallies: Vec<Tally>, took: Duration) {
        self.seconds = took.as_secs_f64();
        let mut all = Tally::new();
        tallies.into_iter().for_each(|tally| all.add(tally));
        self.puts = all.puts.summary(took);
        self.gets = all.gets.summary(took);
        self.refused += all.refused;
        self.wrong += all.wrong;
        self.first_fault = self.first_fault.take().or(all.first_fault);
        self.timeline = all.timeline;
        self.witnesses = all.witnesses;
    }
}

/// Bytes of the blocks of all files of a directory.
pub fn bytes_on_disk(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            bytes_on_disk(&entry.path())?
        } else {
            metadata.blocks() * STAT_BLOCK_BYTES
        };
    }
    Ok(bytes)
}

/// The latencies of one kind of operation, as they come.
struct Recorded(Histogram<u64>);

impl Recorded {
    fn new() -> Recorded {
        let made = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Recorded(made.expect("the bounds are in order and three digits are supported"))
    }

    fn record(&mut self, began: Instant) {
        self.0.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn summary(&self, took: Duration) -> Option<Latencies> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        (!self.0.is_empty()).then(|| Latencies {
            count: self.0.len(),
            per_second: self.0.len() as f64 / took.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max() as f64 / 1000.0,
        })
    }
}

/// What one writer or reader has counted.
pub struct Tally {
    puts: Recorded,
    gets: Recorded,
    timeline: Vec<u64>,
    witnesses: Vec<(u64, u64)>,
    refused: u64,
    wrong: u64,
    first_fault: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally::new()
    }
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Tally {
        Tally {
            puts: Recorded::new(),
            gets: Recorded::new(),
            timeline: Vec::new(),
            witnesses: Vec::new(),
            refused: 0,
            wrong: 0,
            first_fault: None,
        }
    }

    /// A put that began then, of a step that began at `start`, is durable.
    pub fn put(&mut self, start: Instant, began: Instant, pick: Pick) {
        self.puts.record(began);
        let second = usize::try_from(start.elapsed().as_secs()).expect("a step ends some day");
        if self.timeline.len() <= second {
            self.timeline.resize(second + 1, 0);
        }
        self.timeline[second] += 1;
        if self.witnesses.len() >= 2 * WITNESSES_MAX {
            self.forget_old();
        }
        self.witnesses.push((pick.number, pick.version));
    }

    /// A get that began then was answered, with this value if there is one.
    pub fn get(&mut self, began: Instant, number: u64, value: Option<&[u8]>) {
        self.gets.record(began);
        if !value.is_some_and(|value| is_value_of(value, number)) {
            self.fault(format!("item {number}: found {}", told(value)));
        }
    }

    /// Something without a value was read.
    pub fn read(&mut self, began: Instant) {
        self.gets.record(began);
    }

    /// A write was refused, and will be tried again.
    pub fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Something failed.
    pub fn fault(&mut self, reason: String) {
        self.wrong += 1;
        self.first_fault.get_or_insert(reason);
    }

    /// The newest writes, and only the newest one of an item.
    fn forget_old(&mut self) {
        let newest = self.witnesses.split_off(self.witnesses.len().saturating_sub(WITNESSES_MAX));
        self.witnesses = newest;
    }

    fn add(&mut self, other: Tally) {
        let same = "all histograms have the same bounds";
        self.puts.0.add(&other.puts.0).expect(same);
        self.gets.0.add(&other.gets.0).expect(same);
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.first_fault = self.first_fault.take().or(other.first_fault);
        let seconds = self.timeline.len().max(other.timeline.len());
        self.timeline.resize(seconds, 0);
        self.timeline.iter_mut().zip(&other.timeline).for_each(|(sum, one)| *sum += one);
        // A writer has its items to itself: the last write of each that is remembered is its newest.
        let mut newest: Vec<(u64, u64)> = Vec::new();
        for witness in other.witnesses.into_iter().rev() {
            if newest.iter().all(|(number, _)| *number != witness.0) {
                newest.push(witness);
            }
            if newest.len() >= WITNESSES_MAX / 8 {
                break;
            }
        }
        self.witnesses.extend(newest);
    }

    /// What all gets of a time come to.
    pub fn summary_of_gets(tallies: Vec<Tally>, took: Duration) -> Result<Latencies, String> {
        let mut all = Tally::new();
        tallies.into_iter().for_each(|tally| all.add(tally));
        match all.first_fault {
            Some(fault) => Err(fault),
            None => all.gets.summary(took).ok_or_else(|| "no get ended".to_owned()),
        }
    }

    /// The two summaries of a time.
    pub fn summaries(tallies: Vec<Tally>, took: Duration) -> Result<(Latencies, Latencies), String> {
        let mut all = Tally::new();
        tallies.into_iter().for_each(|tally| all.add(tally));
        if let Some(fault) = all.first_fault {
            return Err(fault);
        }
        all.puts.summary(took).zip(all.gets.summary(took)).ok_or_else(|| "no put or no get ended".to_owned())
    }
}

/// What was found instead of a value.
pub fn told(value: Option<&[u8]>) -> String {
    match value.map(|value| (value.len(), read_u64(value, 16), read_u64(value, 8))) {
        None => "nothing".to_owned(),
        Some((bytes, number, version)) => {
            format!("{bytes} bytes of item {number:?}, version {version:?}")
        }
    }
}

/// An item to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub number: u64,
    /// What it shall be.
    pub version: u64,
}

/// Picks items at random for one of several writers, each of which has the numbers of one residue class.
pub struct Picker {
    random: Random,
    items: u64,
    of: u64,
    at: u64,
    version: u64,
}

impl Picker {
    /// For writer `at` of `of`.
    pub fn new(request: &Request, at: u64, of: u64) -> Picker {
        let seed = (u64::from(request.epoch) << 32) | at;
        Picker {
            random: Random(mix(seed)),
            items: request.data.items,
            of,
            at,
            version: u64::from(request.epoch) << 40,
        }
    }

    /// The next one.
    pub fn pick(&mut self) -> Pick {
        self.version += 1;
        let number = self.random.below(self.items / self.of) * self.of + self.at;
        Pick { number, version: self.version }
    }
}

/// Numbers that look random, from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// For reader `at` of a step.
    pub fn of(request: &Request, at: u64) -> Random {
        Random(mix((u64::from(request.epoch) << 32) | (1 << 31) | at))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// SplitMix64's finaliser: another number for each number.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The key of an item: a hash, as the store's keys begin with, and the number.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number.wrapping_add(1)).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The value of an item in a version. It does not compress.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 4 | 4 | the value's size, where a stored item has its own |
/// | 8 | 8 | version |
/// | 16 | 8 | number |
/// | 32 | … | bits that look random, from number and version |
pub fn value(number: u64, version: u64, value_bytes: usize) -> Vec<u8> {
    let mut value = vec![0; value_bytes];
    let size = u32::try_from(value_bytes).expect("an item is smaller than 4 GiB");
    value[4..8].copy_from_slice(&size.to_le_bytes());
    value[8..16].copy_from_slice(&version.to_le_bytes());
    value[16..24].copy_from_slice(&number.to_le_bytes());
    let mut random = filler(number, version);
    for eight in value[32..].chunks_mut(8) {
        eight.copy_from_slice(&random.next().to_le_bytes()[..eight.len()]);
    }
    value
}

fn filler(number: u64, version: u64) -> Random {
    Random(mix(number) ^ version)
}

/// Whether a value is that of an item, in some version: looks at its beginning.
pub fn is_value_of(value: &[u8], number: u64) -> bool {
    let Some(version) = read_u64(value, 8) else { return false };
    read_u64(value, 16) == Some(number) && read_u64(value, 32) == Some(filler(number, version).next())
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).map(|eight| u64::from_le_bytes(eight.try_into().expect("eight bytes")))
}

fn read_u64_be(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).map(|eight| u64::from_be_bytes(eight.try_into().expect("eight bytes")))
}

/// Has this process enter the control group of its request.
///
/// # Errors
/// What the system said.
pub fn enter_group(request: &Request) -> io::Result<()> {
    match &request.group {
        // The number 0 stands for whoever writes it.
        Some(group) => fs::write(group.join("cgroup.procs"), "0"),
        None => Ok(()),
    }
}
