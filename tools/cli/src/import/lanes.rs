//! The way from lines to acknowledged puts: one reading thread, many lanes, one stream of events.
//!
//! A line's key chooses its lane, so lines of one key keep their order. Every queue is bounded, and the
//! bytes of all items under way together are bounded too; a slow cluster makes the reader wait.

use super::convert::{self, Format};
use super::input::{Line, Source};
use evenkeel_client::limits::TIMEOUT_DEFAULT;
use evenkeel_client::{Client, Error};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::encode_item;
use indicatif::ProgressBar;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// How long one item is tried while the cluster says that it is too busy or full.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long no put at all may be acknowledged before one without an answer stops the import.
const SILENCE_MAX: Duration = Duration::from_secs(4);
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Items that wait in each lane behind the one being put.
const LANE_ITEMS_MAX: usize = 4;
/// Encoded items under way, in units of 1 KiB.
const MEMORY_KIB_MAX: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;

const _: () = assert!(SILENCE_MAX.as_millis() < TIMEOUT_DEFAULT.as_millis(), "the first timeout tells");
const _: () = assert!(MEMORY_KIB_MAX * 1024 > evenkeel_model::limits::STORED_ITEM_BYTES_MAX);

/// A line of one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its place on the command line, from 0.
    pub source: usize,
    /// Counts from 1.
    pub line: u64,
}

/// What happened to a line, or to everything.
#[derive(Debug)]
pub enum Event {
    /// The item is durable.
    Acknowledged {
        /// Where it came from.
        origin: Origin,
        /// Its size by DynamoDB's rules.
        item_bytes: u64,
    },
    /// The line is no item of the table; nothing of it was written.
    Bad {
        /// Where it came from.
        origin: Origin,
        /// Why, for a person.
        reason: String,
    },
    /// No more is read, or no more is written.
    Stopped(Stop),
}

/// Why the import cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A source cannot be read further.
    #[error("{name}:{line}: {source}")]
    Read {
        /// The source.
        name: String,
        /// The line it would have been; 0 if the source cannot be opened.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The cluster does not take an item.
    #[error("{0}")]
    Put(#[from] Error),
    /// The list of acknowledged lines cannot be written.
    #[error("cannot write the list of acknowledged lines: {0}")]
    Acknowledged(io::Error),
}

/// What is to be read, and how.
pub struct Feed {
    /// The sources in their order.
    pub sources: Vec<Source>,
    /// The notation, or nothing to tell it for each source.
    pub format: Option<Format>,
    /// The table to write to.
    pub table: Arc<TableRow>,
}

struct Job {
    origin: Origin,
    key: Vec<u8>,
    item: Vec<u8>,
    item_bytes: u64,
    _memory: OwnedSemaphorePermit,
}

/// Starts the reader and the lanes; the events end when everything is done.
pub fn start(client: Client, feed: Feed, lanes: u16, bar: ProgressBar) -> mpsc::Receiver<Event> {
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let (table, started) = (feed.table.clone(), Instant::now());
    let shared = Arc::new(Lanes { client, table, started, last_acknowledged_ms: AtomicU64::new(0) });
    let mut senders = Vec::with_capacity(lanes.into());
    for _ in 0..lanes {
        let (sender, jobs) = mpsc::channel(LANE_ITEMS_MAX);
        senders.push(sender);
        tokio::spawn(shared.clone().run_lane(jobs, events.clone()));
    }
    let reader = Reader {
        feed,
        lanes: senders,
        events,
        memory: Arc::new(Semaphore::new(MEMORY_KIB_MAX)),
        runtime: tokio::runtime::Handle::current(),
        bar,
    };
    // A thread of its own and never joined: it may wait on standard input when all else has ended.
    std::thread::spawn(move || reader.run());
    received
}

/// What all lanes share.
struct Lanes {
    client: Client,
    table: Arc<TableRow>,
    started: Instant,
    /// When the last put of any lane was acknowledged, in milliseconds after the start.
    last_acknowledged_ms: AtomicU64,
}

impl Lanes {
    async fn run_lane(self: Arc<Self>, mut jobs: mpsc::Receiver<Job>, events: mpsc::Sender<Event>) {
        while let Some(job) = jobs.recv().await {
            let (origin, item_bytes) = (job.origin, job.item_bytes);
            let event = match self.put(&job).await {
                Ok(()) => Event::Acknowledged { origin, item_bytes },
                Err(Error::Invalid { message }) => Event::Bad { origin, reason: message },
                Err(error) => Event::Stopped(Stop::Put(error)),
            };
            let last = matches!(event, Event::Stopped(_));
            drop(job);
            if events.send(event).await.is_err() || last {
                return;
            }
        }
    }

    async fn put(&self, job: &Job) -> Result<(), Error> {
        let deadline = Instant::now() + RETRY_MAX;
        let mut pause = PAUSE_FIRST;
        loop {
            match self.client.put_encoded(&self.table, &job.key, &job.item, false).await {
                Ok(_) => {
                    self.last_acknowledged_ms.store(self.now_ms(), Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) if !self.is_passing(&error) || Instant::now() + pause > deadline => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the same put may succeed later. One that may have happened is put again, for the item is
    /// the same; but where nobody has had an answer for long, there is no cluster any more.
    fn is_passing(&self, error: &Error) -> bool {
        match error {
            Error::Overloaded { .. } | Error::TableInUse { .. } => true,
            Error::OutcomeUnknown { .. } | Error::Expired { .. } | Error::Unavailable { .. } => {
                let silent_ms = self.now_ms() - self.last_acknowledged_ms.load(Ordering::Relaxed);
                Duration::from_millis(silent_ms) < SILENCE_MAX
            }
            _ => false,
        }
    }
}

struct Reader {
    feed: Feed,
    lanes: Vec<mpsc::Sender<Job>>,
    events: mpsc::Sender<Event>,
    memory: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
    bar: ProgressBar,
}

/// The other side has ended; there is nobody left to tell.
struct Ended;

impl Reader {
    fn run(self) {
        for (index, source) in self.feed.sources.iter().enumerate() {
            if self.read_source(index, source).is_err() {
                return;
            }
        }
    }

    fn read_source(&self, index: usize, source: &Source) -> Result<(), Ended> {
        let bar = self.bar.clone();
        let failed = |line, error| Stop::Read { name: source.name(), line, source: error };
        let mut lines = match source.open(move |bytes| bar.inc(bytes)) {
            Ok(lines) => lines,
            Err(error) => return self.stop(failed(0, error)),
        };
        let mut format = self.feed.format;
        loop {
            match lines.next_line() {
                Ok(Some(line)) => self.read_line(index, &line, &mut format)?,
                Ok(None) => return Ok(()),
                Err(error) => return self.stop(failed(lines.number() + 1, error)),
            }
        }
    }

    fn stop(&self, stop: Stop) -> Result<(), Ended> {
        self.tell(Event::Stopped(stop))?;
        Err(Ended)
    }

    fn tell(&self, event: Event) -> Result<(), Ended> {
        self.events.blocking_send(event).map_err(|_| Ended)
    }

    fn read_line(&self, source: usize, line: &Line<'_>, format: &mut Option<Format>) -> Result<(), Ended> {
        let origin = Origin { source, line: line.number };
        let text = match line.text {
            Ok(text) if text.trim().is_empty() => return Ok(()),
            Ok(text) => text,
            Err(reason) => return self.tell(Event::Bad { origin, reason: reason.to_string() }),
        };
        if format.is_none() {
            *format = convert::detect(text);
        }
        let converted = convert::item(text, format.unwrap_or(Format::Plain), &self.feed.table.schema);
        match converted {
            Ok(converted) => self.deal(origin, converted),
            Err(reason) => self.tell(Event::Bad { origin, reason: reason.to_string() }),
        }
    }

    fn deal(&self, origin: Origin, converted: convert::Converted) -> Result<(), Ended> {
        let item_bytes = converted.attributes.size_bytes() as u64;
        let (key, item) = (converted.key, encode_item(&converted.attributes));
        let kib = u32::try_from(item.len() / 1024 + 1).expect("below the limit of stored items");
        let memory = self.memory.clone().acquire_many_owned(kib);
        let _memory = self.runtime.block_on(memory).map_err(|_| Ended)?;
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let lane = (hasher.finish() % self.lanes.len() as u64) as usize;
        let job = Job { origin, key, item, item_bytes, _memory };
        self.lanes[lane].blocking_send(job).map_err(|_| Ended)
    }
}
