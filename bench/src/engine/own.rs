//! This store's engine in the steps of the bench: one shard on one core, with a real disk, and neither network nor
//! replication.
//!
//! A write is what a group of one member makes of it: an entry appended to the log, durable, then applied.

use super::steps::{self, Data, Io, Outcome, Pick, Picker, Random, Request, Step, Tally};
use crate::error::BenchError;
use evenkeel_driver::{Core, CoreConfig, DiskConfig, GlommioRuntime, Placement, UringDisk, run_core};
use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Timestamp};
use evenkeel_storage::{
    BLOCK_BYTES, CheckpointError, Engine, EngineConfig, Entry, Limits, Operation, PageSettings, Position,
    RangeQuery, Refused, Runtime, WalConfig,
};
use std::cell::Cell;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PHASE: &str = "evenkeel";
/// Partitions of the shard; the hash at the beginning of a key tells which one has it.
const PARTITIONS: u64 = 8;
const PARTITION_BITS: u32 = PARTITIONS.ilog2();
const GENERATION: Generation = Generation(1);
const BALLOT: Ballot = Ballot { round: 1, replica: 1 };
/// As nodes have it, but for smaller segments: the log shall go round in a short run.
const SEGMENT_BYTES: u64 = 8 << 20;
const SEGMENTS_MIN: u64 = 4;
/// The log may take this many times what tables may, as nodes have it by default.
const LOG_TO_TABLES: u64 = 4;
/// Of the memory, what is left to program, frames and all else; less if there is little.
const OTHER_BYTES: u64 = 16 << 20;
const PAGE_FILE_STEP_BYTES: u64 = 16 << 20;
const PAGE_FILE_BYTES_MAX: u64 = 4 << 40;
/// How long recovery would keep notes of owners; there are none here.
const NOTES_NS: u64 = 30_000_000_000;
/// A writer that was refused tries again after this.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);
/// Pause before a checkpoint that failed is tried again, as a shard has it.
const CHECKPOINT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Values of one entry while items are loaded, and entries at the same time. An entry that is refused is looked at
/// again and again, item by item, so they are not many.
const LOAD_ENTRY_BYTES: usize = 64 << 10;
const LOAD_ENTRY_ITEMS_MAX: usize = 64;
const LOAD_WRITERS: u64 = 8;
/// A page of a scan.
const SCAN_PAGE_BYTES: usize = 1 << 20;
/// Operations that may be answered from memory before others get their turn.
const OPERATIONS_PER_TURN: u64 = 32;
/// Writers and readers beside merges.
const MERGE_WRITERS: u64 = 2;
const MERGE_READERS: u64 = 2;
/// Writers that fill tables before.
const FILL_WRITERS: u64 = 32;
/// What tables hold before, as a part of their budget, and at most when merges begin: until then none is due.
const FILLED_SHARE: f64 = 0.2;
const IDLE_SHARE_MAX: f64 = 0.5;
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Performs a step in this process. The engine is left open: it ends with the process.
///
/// # Errors
/// The step could not be performed.
pub fn perform(request: Request) -> Result<Outcome, BenchError> {
    let (done, outcome) = std::sync::mpsc::channel();
    let config = CoreConfig { name: "bench-engine".to_owned(), placement: Placement::Unbound };
    let run = move |core: Core| async move {
        let began = Instant::now();
        match Own::open(&core, request).await {
            Ok(own) => {
                let own = Rc::new(own);
                // Who waits has left only if the process ends.
                let _ = done.send(own.perform(began).await);
                std::future::pending::<()>().await;
            }
            Err(reason) => drop(done.send(Err(reason))),
        }
    };
    let core = run_core(config, run).map_err(BenchError::in_phase(PHASE))?;
    match outcome.recv() {
        Ok(performed) => performed.map_err(BenchError::in_phase(PHASE)),
        Err(_) => {
            core.join().map_err(BenchError::in_phase(PHASE))?;
            Err(BenchError::Phase { phase: PHASE, reason: "the core ended early".to_owned() })
        }
    }
}

struct Own {
    core: Core,
    engine: Engine<UringDisk, GlommioRuntime>,
    request: Request,
    directory: PathBuf,
    /// Up to where each partition is applied.
    applied: Vec<Cell<Position>>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn config(request: &Request) -> EngineConfig {
    let rest = OTHER_BYTES.min(request.memory_bytes / 8);
    let tables = (request.memory_bytes - rest) / 2;
    let wal_bytes_max = (LOG_TO_TABLES * tables).max(SEGMENTS_MIN * SEGMENT_BYTES);
    EngineConfig {
        cluster: ClusterId(1),
        node: NodeId(1),
        shard: ShardId(0),
        wal: WalConfig::new(SEGMENT_BYTES, wal_bytes_max),
        table_bytes_max: tables,
        pages: PageSettings {
            step_bytes: PAGE_FILE_STEP_BYTES,
            bytes_max: PAGE_FILE_BYTES_MAX,
            cache_bytes: request.memory_bytes - rest - tables,
            limits: Limits { leaf_bytes: request.leaf_bytes, ..Limits::default() },
        },
        notes_ns: NOTES_NS,
    }
}

/// Which partition has a key.
fn partition(key: &[u8]) -> PartitionId {
    PartitionId(u64::from(key[0] >> (u8::BITS - PARTITION_BITS)))
}

impl Own {
    async fn open(core: &Core, request: Request) -> Result<Own, String> {
        let disk = core.open_disk(&request.directory, DiskConfig::default()).await.map_err(text)?;
        let opened = Engine::open(disk, core.runtime(), config(&request)).await;
        let (engine, recovery) = opened.map_err(text)?;
        for found in &recovery.partitions {
            engine.apply(found.id, found.last_slot, |_| ControlFlow::Continue(()));
        }
        if recovery.partitions.is_empty() {
            for id in (0..PARTITIONS).map(PartitionId) {
                engine.create_partition(id, GENERATION, b"bench").await.map_err(text)?;
            }
        }
        let applied = (0..PARTITIONS).map(|id| Cell::new(engine.end(PartitionId(id)))).collect();
        let directory = request.directory.clone();
        Ok(Own { core: core.clone(), engine, request, directory, applied })
    }

    async fn perform(self: &Rc<Self>, began: Instant) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let first = steps::key(0);
        // Before items were loaded there is nothing to find; the answer takes as long.
        self.engine.get(partition(&first), &first).await.map_err(text)?;
        outcome.open_ms = began.elapsed().as_secs_f64() * 1000.0;
        match self.request.step {
            Step::Get { warm, .. } => self.warm(warm).await?,
            // What an earlier step left to be merged is not this one's to pay.
            Step::Put { .. } => self.checkpoint_all().await?,
            _ => {}
        }
        let before = (Io::now(), self.page_reads(), self.written());
        match self.request.step.clone() {
            Step::Load => self.load(&mut outcome).await?,
            Step::Put { writers, seconds } => {
                self.core.spawn(keep_room(self.engine.clone(), self.core.runtime()));
                let span = Span::of(seconds);
                let work = (0..writers).map(|at| self.writer(at, writers, &span));
                let (tallies, took) = together(&self.core, work.collect()).await;
                outcome.take(tallies, took);
            }
            Step::Get { readers, seconds, gets_max, among, .. } => {
                let (span, each) = (Span::of(seconds), gets_max / readers);
                let work = (0..readers).map(|at| self.reader(at, among, each, &span));
                let (tallies, took) = together(&self.core, work.collect()).await;
                outcome.take(tallies, took);
            }
            Step::Scan => self.scan(&mut outcome).await?,
            Step::Merge { seconds } => self.merge(&mut outcome, seconds).await?,
            Step::Restart { expected } => self.look_for(&mut outcome, &expected).await?,
        }
        outcome.io = before.0.since();
        outcome.page_reads = Some(self.page_reads() - before.1);
        outcome.engine_written = Some(self.written() - before.2);
        outcome.take_stock(&self.directory);
        outcome.used_bytes = Some(self.engine.pages().used().used_blocks * BLOCK_BYTES as u64);
        Ok(outcome)
    }

    fn page_reads(&self) -> u64 {
        self.engine.pages().cache_counts().device_reads
    }

    /// Bytes written to log and pages.
    fn written(&self) -> u64 {
        self.engine.statistics().frame_bytes + self.engine.pages().write_counts().bytes
    }

    /// Writes an entry, as soon as it is let in; counts how often it was refused.
    async fn write(
        &self,
        id: PartitionId,
        operations: Vec<Operation>,
        refused: &mut u64,
    ) -> Result<(), String> {
        let mut entry = Entry { ballot: BALLOT, operations, ..Entry::default() };
        loop {
            let end = self.engine.end(id);
            entry.slot = end.slot.next();
            entry.timestamp = Timestamp(entry.slot.0);
            entry.chosen = self.applied(id).get().slot;
            match self.engine.admits(id, [&entry]) {
                Ok(()) => {
                    let slot = entry.slot;
                    let checksum = entry.checksum(id, GENERATION, end.checksum);
                    let durable = self.engine.append(id, entry, checksum).map_err(text)?;
                    durable.await.map_err(text)?;
                    self.engine.apply(id, slot, |_| ControlFlow::Continue(()));
                    let applied = self.applied(id);
                    applied.set(Position { slot: slot.max(applied.get().slot), checksum: 0 });
                    return Ok(());
                }
                Err(Refused::TooLarge { .. }) => return Err("an entry is too large".to_owned()),
                Err(_) => {
                    *refused += 1;
                    self.core.sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }

    fn applied(&self, id: PartitionId) -> &Cell<Position> {
        &self.applied[usize::try_from(id.0).expect("there are few partitions")]
    }

    async fn put(&self, pick: Pick, tally: &mut Tally) -> Result<(), String> {
        let Data { value_bytes, .. } = self.request.data;
        let key = steps::key(pick.number);
        let image = steps::value(pick.number, pick.version, value_bytes);
        let operations = vec![Operation::Put { key: key[..].into(), image: image.into() }];
        let mut refused = 0;
        let written = self.write(partition(&key), operations, &mut refused).await;
        (0..refused).for_each(|_| tally.refuse());
        written
    }

    fn writer(self: &Rc<Self>, at: u64, of: u64, span: &Span) -> Work {
        Box::pin(Rc::clone(self).overwrite(at, of, span.clone()))
    }

    fn reader(self: &Rc<Self>, at: u64, among: u64, gets_max: u64, span: &Span) -> Work {
        Box::pin(Rc::clone(self).read(at, among, gets_max, span.clone()))
    }

    /// Overwrites items until the span is over.
    async fn overwrite(self: Rc<Self>, at: u64, of: u64, span: Span) -> Tally {
        let mut tally = Tally::new();
        let mut picker = Picker::new(&self.request, at, of);
        while !span.is_over() {
            let pick = picker.pick();
            let began = Instant::now();
            match self.put(pick, &mut tally).await {
                Ok(()) => tally.put(span.start, began, pick),
                Err(reason) => {
                    tally.fault(reason);
                    break;
                }
            }
        }
        tally
    }

    /// Gets some of the first items, at most so many, until the span is over.
    async fn read(self: Rc<Self>, at: u64, among: u64, gets_max: u64, span: Span) -> Tally {
        let mut tally = Tally::new();
        let mut random = Random::of(&self.request, at);
        for get in 0..gets_max {
            if span.is_over() {
                break;
            }
            let number = random.below(among);
            let key = steps::key(number);
            let began = Instant::now();
            match self.engine.get(partition(&key), &key).await {
                Ok(found) => tally.get(began, number, found.as_deref()),
                Err(error) => {
                    tally.fault(text(error));
                    break;
                }
            }
            if get % OPERATIONS_PER_TURN == 0 {
                self.core.yield_now().await;
            }
        }
        tally
    }

    /// Reads some items, so that their pages are in memory.
    async fn warm(&self, items: u64) -> Result<(), String> {
        for number in 0..items {
            let key = steps::key(number);
            self.engine.get(partition(&key), &key).await.map_err(text)?;
        }
        Ok(())
    }

    /// Puts every item, many at a time, and has all of it in trees in the end.
    async fn load(self: &Rc<Self>, outcome: &mut Outcome) -> Result<(), String> {
        self.core.spawn(keep_room(self.engine.clone(), self.core.runtime()));
        let work = (0..LOAD_WRITERS).map(|at| Box::pin(Rc::clone(self).loader(at)) as Work);
        let (tallies, took) = together(&self.core, work.collect()).await;
        outcome.take(tallies, took);
        // How often writers waited for merges is of no interest here.
        outcome.refused = 0;
        self.engine.stop_checkpoints();
        self.checkpoint_all().await
    }

    /// Puts the items of one residue class.
    async fn loader(self: Rc<Self>, at: u64) -> Tally {
        let mut tally = Tally::new();
        let Data { items, value_bytes } = self.request.data;
        let entry_items = (LOAD_ENTRY_BYTES / value_bytes).clamp(1, LOAD_ENTRY_ITEMS_MAX);
        let mut waiting: Vec<Vec<Operation>> = (0..PARTITIONS).map(|_| Vec::new()).collect();
        let mut refused = 0;
        for number in (at..items).step_by(usize::try_from(LOAD_WRITERS).expect("a few")) {
            let key = steps::key(number);
            let id = partition(&key);
            let image = steps::value(number, 0, value_bytes);
            let entry = &mut waiting[usize::try_from(id.0).expect("a few")];
            entry.push(Operation::Put { key: key[..].into(), image: image.into() });
            if entry.len() < entry_items {
                continue;
            }
            if let Err(reason) = self.write(id, std::mem::take(entry), &mut refused).await {
                tally.fault(reason);
                return tally;
            }
        }
        for (id, rest) in (0..PARTITIONS).map(PartitionId).zip(waiting) {
            if !rest.is_empty()
                && let Err(reason) = self.write(id, rest, &mut refused).await
            {
                tally.fault(reason);
            }
        }
        tally
    }

    /// Has everything that is applied in trees, durably.
    async fn checkpoint_all(&self) -> Result<(), String> {
        for id in (0..PARTITIONS).map(PartitionId) {
            loop {
                match self.engine.checkpoint(id, &[]).await {
                    Ok(()) => break,
                    // By the one who keeps room.
                    Err(CheckpointError::UnderWay { .. }) => self.core.sleep(CHECKPOINT_AGAIN_AFTER).await,
                    Err(error) => return Err(text(error)),
                }
            }
        }
        self.engine.flip().await.map_err(text)
    }

    async fn scan(&self, outcome: &mut Outcome) -> Result<(), String> {
        let began = Instant::now();
        for id in (0..PARTITIONS).map(PartitionId) {
            let mut lower = Vec::new();
            loop {
                let (reverse, items_max, bytes_max) = (false, usize::MAX, SCAN_PAGE_BYTES);
                let query = RangeQuery { lower, upper: None, reverse, items_max, bytes_max };
                let page = self.engine.range(id, query).await.map_err(text)?;
                for (key, value) in &page.items {
                    outcome.scanned(key, value);
                }
                let Some((last, _)) = page.items.last().filter(|_| page.more) else { break };
                // The next key in order.
                lower = [&last[..], &[0]].concat();
            }
        }
        outcome.seconds = began.elapsed().as_secs_f64();
        Ok(())
    }

    async fn look_for(&self, outcome: &mut Outcome, expected: &[(u64, u64)]) -> Result<(), String> {
        for &(number, version) in expected {
            let key = steps::key(number);
            let found = self.engine.get(partition(&key), &key).await.map_err(text)?;
            outcome.found(number, version, found.as_deref(), self.request.data.value_bytes);
        }
        Ok(())
    }

    /// Puts and gets without a merge, and then while all partitions are merged.
    async fn merge(self: &Rc<Self>, outcome: &mut Outcome, seconds: f64) -> Result<(), String> {
        // What earlier steps have left in tables would end the idle time before it begins.
        self.checkpoint_all().await?;
        let fill = Span::endless();
        let work = (0..FILL_WRITERS).map(|at| self.writer(at, FILL_WRITERS, &fill));
        tokio::join!(together(&self.core, work.collect()), self.end_when_filled(&fill, FILLED_SHARE));
        let idle = Span::of(seconds);
        let ((idle, took), ()) =
            tokio::join!(self.mixed(idle.clone()), self.end_when_filled(&idle, IDLE_SHARE_MAX));
        let (puts, gets) = Tally::summaries(idle, took)?;
        let span = Span::endless();
        let merged = async {
            let least = Span::of(seconds);
            let mut merged = self.checkpoint_all().await;
            while merged.is_ok() && !least.is_over() {
                merged = self.checkpoint_all().await;
            }
            span.stop();
            merged
        };
        let ((merging, took), merged) = tokio::join!(self.mixed(span.clone()), merged);
        merged?;
        outcome.merging = Some(Tally::summaries(merging, took)?);
        (outcome.puts, outcome.gets) = (Some(puts), Some(gets));
        Ok(())
    }

    /// Ends a span when tables hold a part of their budget.
    async fn end_when_filled(&self, span: &Span, share: f64) {
        while !span.is_over() {
            let statistics = self.engine.statistics();
            if statistics.table_bytes as f64 >= share * statistics.table_bytes_max as f64 {
                span.stop();
            }
            self.core.sleep(LOOK_PAUSE).await;
        }
    }

    /// A few writers and readers.
    async fn mixed(self: &Rc<Self>, span: Span) -> (Vec<Tally>, Duration) {
        let of = MERGE_WRITERS;
        let writers = (0..of).map(|at| self.writer(at, of, &span));
        let among = self.request.data.items;
        let readers = (0..MERGE_READERS).map(|at| self.reader(at, among, u64::MAX, &span));
        together(&self.core, writers.chain(readers).collect()).await
    }
}

/// A time in which something goes on.
#[derive(Clone)]
struct Span {
    start: Instant,
    lasts: Duration,
    is_stopped: Rc<Cell<bool>>,
}

impl Span {
    /// One that begins now.
    fn of(seconds: f64) -> Span {
        let (start, lasts) = (Instant::now(), Duration::from_secs_f64(seconds));
        Span { start, lasts, is_stopped: Rc::default() }
    }

    fn endless() -> Span {
        Span::of(f64::from(u32::MAX))
    }

    fn stop(&self) {
        self.is_stopped.set(true);
    }

    fn is_over(&self) -> bool {
        self.is_stopped.get() || self.start.elapsed() >= self.lasts
    }
}

/// Checkpoints what is due until the engine is told to stop, as a shard does.
async fn keep_room(engine: Engine<UringDisk, GlommioRuntime>, runtime: GlommioRuntime) {
    while let Some(due) = engine.checkpoints_due().await {
        let mut failed = false;
        for id in due {
            failed |= engine.checkpoint(id, &[]).await.is_err();
        }
        failed |= engine.flip().await.is_err();
        if failed {
            runtime.sleep(CHECKPOINT_AGAIN_AFTER).await;
        }
    }
}

type Work = Pin<Box<dyn Future<Output = Tally>>>;

/// Runs tasks at the same time; yields what they have counted, and how long that took.
async fn together(core: &Core, work: Vec<Work>) -> (Vec<Tally>, Duration) {
    let (ended, mut tallies) = mpsc::unbounded_channel();
    let start = Instant::now();
    for task in work {
        let ended = ended.clone();
        core.spawn(async move {
            // The receiver waits for all.
            let _ = ended.send(task.await);
        });
    }
    drop(ended);
    let mut all = Vec::new();
    while let Some(tally) = tallies.recv().await {
        all.push(tally);
    }
    (all, start.elapsed())
}
