//! The steps of the bench on an engine whose calls block: a thread for each writer and reader.

use crate::steps::{self, Data, Io, Outcome, Picker, Random, Request, Step, Tally};
use crate::{Fault, Peer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Items that are loaded in one batch.
const BATCH_BYTES: usize = 4 << 20;
/// Writers and readers beside background work, as many as our own engine is given.
const MERGE_WRITERS: u64 = 2;
const MERGE_READERS: u64 = 2;

/// Performs a step and notes what came of it.
pub fn perform(peer: &dyn Peer, request: &Request, outcome: &mut Outcome) -> Result<(), Fault> {
    if let Step::Get { warm, .. } = request.step {
        for number in 0..warm {
            peer.get(&steps::key(number), &mut |_| ())?;
        }
    }
    if let Step::Put { .. } = request.step {
        // What an earlier step left to be merged is not this one's to pay.
        peer.settle()?;
    }
    let before = Io::now();
    match &request.step {
        Step::Load => load(peer, request.data, outcome)?,
        Step::Put { writers, seconds } => {
            let span = Span::of(*seconds);
            let (tallies, took) =
                together((0..*writers).map(|at| writer(peer, request, at, *writers, &span)));
            outcome.take(tallies, took);
        }
        Step::Get { readers, seconds, gets_max, among, .. } => {
            let (span, each) = (Span::of(*seconds), gets_max / readers);
            let (tallies, took) =
                together((0..*readers).map(|at| reader(peer, request, at, *among, each, &span)));
            outcome.take(tallies, took);
        }
        Step::Scan => {
            let began = Instant::now();
            peer.scan(&mut |key, value| outcome.scanned(key, value))?;
            outcome.seconds = began.elapsed().as_secs_f64();
        }
        Step::Merge { seconds } => merge(peer, request, *seconds, outcome)?,
        Step::Restart { expected } => {
            for &(number, version) in expected {
                let found = &mut |value: Option<&[u8]>| {
                    outcome.found(number, version, value, request.data.value_bytes);
                };
                peer.get(&steps::key(number), found)?;
            }
        }
    }
    outcome.io = before.since();
    Ok(())
}

fn load(peer: &dyn Peer, data: Data, outcome: &mut Outcome) -> Result<(), Fault> {
    let Data { items, value_bytes } = data;
    let began = Instant::now();
    let batch_items = (BATCH_BYTES / value_bytes).max(1);
    let mut batch = Vec::with_capacity(batch_items);
    for number in 0..items {
        batch.push((steps::key(number), steps::value(number, 0, value_bytes)));
        if batch.len() == batch_items || number + 1 == items {
            peer.load(&batch)?;
            batch.clear();
        }
    }
    peer.settle()?;
    outcome.seconds = began.elapsed().as_secs_f64();
    Ok(())
}

/// Puts and gets without background work, and then while it goes on, if there is any.
fn merge(peer: &dyn Peer, request: &Request, seconds: f64, outcome: &mut Outcome) -> Result<(), Fault> {
    let (idle, took) = mixed(peer, request, &Span::of(seconds));
    let (puts, gets) = Tally::summaries(idle, took)?;
    (outcome.puts, outcome.gets) = (Some(puts), Some(gets));
    let span = Span::of(f64::from(u32::MAX));
    let (merged, (tallies, took)) = thread::scope(|scope| {
        let merging = scope.spawn(|| {
            let least = Span::of(seconds);
            let mut merged = peer.merge();
            while matches!(merged, Ok(true)) && !least.is_over() {
                merged = peer.merge();
            }
            span.is_stopped.store(true, Ordering::Relaxed);
            merged
        });
        let mixed = mixed(peer, request, &span);
        (merging.join().unwrap_or_else(|_| Err("background work panicked".into())), mixed)
    });
    if merged? {
        outcome.merging = Some(Tally::summaries(tallies, took)?);
    }
    Ok(())
}

fn mixed(peer: &dyn Peer, request: &Request, span: &Span) -> (Vec<Tally>, Duration) {
    type Work<'a> = Box<dyn FnOnce() -> Tally + Send + 'a>;
    let writers =
        (0..MERGE_WRITERS).map(|at| Box::new(writer(peer, request, at, MERGE_WRITERS, span)) as Work<'_>);
    let among = request.data.items;
    let readers =
        (0..MERGE_READERS).map(|at| Box::new(reader(peer, request, at, among, u64::MAX, span)) as Work<'_>);
    together(writers.chain(readers))
}

/// A time in which something goes on.
struct Span {
    start: Instant,
    lasts: Duration,
    is_stopped: AtomicBool,
}

impl Span {
    /// One that begins now.
    fn of(seconds: f64) -> Span {
        let lasts = Duration::from_secs_f64(seconds);
        Span { start: Instant::now(), lasts, is_stopped: AtomicBool::new(false) }
    }

    fn is_over(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed) || self.start.elapsed() >= self.lasts
    }
}

fn writer<'a>(
    peer: &'a dyn Peer,
    request: &'a Request,
    at: u64,
    of: u64,
    span: &'a Span,
) -> impl FnOnce() -> Tally + Send + 'a {
    move || {
        let mut tally = Tally::new();
        let mut picker = Picker::new(request, at, of);
        while !span.is_over() {
            let pick = picker.pick();
            let value = steps::value(pick.number, pick.version, request.data.value_bytes);
            let began = Instant::now();
            match peer.put(&steps::key(pick.number), &value) {
                Ok(()) => tally.put(span.start, began, pick),
                Err(fault) => {
                    tally.fault(fault.to_string());
                    break;
                }
            }
        }
        tally
    }
}

fn reader<'a>(
    peer: &'a dyn Peer,
    request: &'a Request,
    at: u64,
    among: u64,
    gets_max: u64,
    span: &'a Span,
) -> impl FnOnce() -> Tally + Send + 'a {
    move || {
        let mut tally = Tally::new();
        let mut random = Random::of(request, at);
        for _ in 0..gets_max {
            if span.is_over() {
                break;
            }
            let number = random.below(among);
            let began = Instant::now();
            let got = peer.get(&steps::key(number), &mut |value| tally.get(began, number, value));
            if let Err(fault) = got {
                tally.fault(fault.to_string());
                break;
            }
        }
        tally
    }
}

/// Runs all at the same time; yields what they have counted, and how long that took.
fn together<W: FnOnce() -> Tally + Send>(work: impl Iterator<Item = W>) -> (Vec<Tally>, Duration) {
    let start = Instant::now();
    let tallies = thread::scope(|scope| {
        let threads: Vec<_> = work.map(|work| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| {
                let mut tally = Tally::new();
                tally.fault("a thread panicked".to_owned());
                tally
            })
        });
        ended.collect()
    });
    (tallies, start.elapsed())
}
