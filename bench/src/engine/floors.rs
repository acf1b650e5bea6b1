//! What no engine can be faster than: durable appends to a log file, and reads of 4 KiB at random places of a file.
//!
//! The reads are plain ones, by threads, past the page cache: what the device and the kernel take, and nothing of ours.

use super::children::Settings;
use super::steps::{Latencies, Random, Tally};
use crate::error::BenchError;
use crate::floor;
use crate::tally::Measured;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const PHASE: &str = "read floor";
const FILE: &str = "reads";
const BLOCK_BYTES: usize = evenkeel_storage::BLOCK_BYTES;
const FILL_BYTES: usize = 1 << 20;
/// Frames of one item of 1 KiB.
const FRAME_BYTES: usize = 4 << 10;

/// The floors, round by round.
pub(super) struct Floors {
    directory: PathBuf,
    settings: Settings,
    file: File,
    pub(super) appends: Vec<Measured>,
    pub(super) reads: Vec<Latencies>,
    pub(super) many_reads: Vec<Latencies>,
    /// How the log was made durable.
    pub(super) strategy: String,
}

impl Floors {
    /// Makes a file to read from, as large as the data.
    pub(super) fn new(directory: PathBuf, settings: Settings) -> Result<Floors, BenchError> {
        let path = directory.join(FILE);
        let fault = |source| BenchError::File { path: path.clone(), source };
        std::fs::create_dir_all(&directory).map_err(fault)?;
        let data_bytes = settings.data.items * settings.data.value_bytes as u64;
        let fill = File::create(&path).map_err(fault)?;
        let block = vec![0x5a; FILL_BYTES];
        for megabyte in 0..data_bytes.div_ceil(FILL_BYTES as u64) {
            fill.write_all_at(&block, megabyte * FILL_BYTES as u64).map_err(fault)?;
        }
        fill.sync_all().map_err(fault)?;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).map_err(fault)?;
        let (appends, reads, many_reads) = Default::default();
        Ok(Floors { directory, settings, file, appends, reads, many_reads, strategy: String::new() })
    }

    /// Measures all of them once.
    pub(super) fn measure(&mut self, seconds: f64, reads_max: u64) -> Result<(), BenchError> {
        let lasts = Duration::from_secs_f64(seconds);
        let (append, strategy) = floor::measure(self.directory.join("log"), FRAME_BYTES, lasts, None)?;
        self.strategy = format!("{strategy:?}");
        self.appends.push(append);
        let blocks = self.settings.data.items * self.settings.data.value_bytes as u64 / BLOCK_BYTES as u64;
        self.reads.push(self.read(1, reads_max, blocks)?);
        self.many_reads.push(self.read(super::MANY, reads_max, blocks)?);
        Ok(())
    }

    /// Reads so many blocks by so many threads.
    fn read(&self, readers: u64, reads_max: u64, blocks: u64) -> Result<Latencies, BenchError> {
        let start = Instant::now();
        let tallies: Vec<Tally> = thread::scope(|scope| {
            let read = |reader| scope.spawn(move || self.read_some(reader, reads_max / readers, blocks));
            let threads: Vec<_> = (0..readers).map(read).collect();
            threads.into_iter().map(|thread| thread.join().expect("a reader does not panic")).collect()
        });
        Tally::summary_of_gets(tallies, start.elapsed()).map_err(BenchError::in_phase(PHASE))
    }

    fn read_some(&self, reader: u64, reads: u64, blocks: u64) -> Tally {
        let mut tally = Tally::new();
        let mut random = Random(self.reads.len() as u64 * super::MANY + reader);
        // Direct IO wants memory that begins at a multiple of a block.
        let mut memory = vec![0; 2 * BLOCK_BYTES];
        let at = memory.as_ptr().align_offset(BLOCK_BYTES);
        let block = &mut memory[at..at + BLOCK_BYTES];
        for _ in 0..reads {
            let offset = random.below(blocks) * BLOCK_BYTES as u64;
            let began = Instant::now();
            match self.file.read_exact_at(block, offset) {
                Ok(()) => tally.read(began),
                Err(error) => tally.fault(error.to_string()),
            }
        }
        tally
    }
}
