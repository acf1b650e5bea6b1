//! Scrub: a slow walk over everything that was written and may not be read for years, to find what has gone
//! bad while other copies are still good.
//!
//! Each round looks at every page of every tree, as the device has it, against the reference in its parent, and
//! at every frame of the log that is durable and needed. Trees are walked in short stretches, each under a pin of
//! its own: a walk of hours must not keep for hours what merges give up.
//!
//! What is bad is told once and stays on a list while it is part of a tree or of the log. Nothing else is done
//! about it: reads of a bad page fail by its checksum, those of others do not. A page that is bad on the device
//! and good in the cache goes on being read from there.

use super::Engine;
use crate::{
    disk::{BLOCK_BYTES, Disk, FileId},
    limits::{SCRUB_READ_BYTES, SCRUB_ROUND_NS, SCRUB_STRETCH_NS},
    runtime::Runtime,
    tree::verify::{Fault, Walk},
    wal::{
        frame::{self, FrameFault, FrameHeader},
        reader::Reader,
        segment::LiveSegment,
    },
};
use evenkeel_model::PartitionId;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, Waker},
    time::Duration,
};

/// Something on the device that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrubFault {
    /// A page of a tree.
    #[error("page of partition {partition}: {fault}")]
    Page {
        /// Whose page it is.
        partition: PartitionId,
        /// Its first block.
        block: u64,
        /// What is wrong, with what is expected and what was found.
        fault: Fault,
    },
    /// A frame of the log.
    #[error("{file} at block {block} is corrupt: expected {expected}, found {found}")]
    Frame {
        /// The segment's file.
        file: FileId,
        /// The block that the frame begins in.
        block: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// What scrubs have done since the start, and what of it is bad now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCounts {
    /// Rounds that came to their end.
    pub rounds: u64,
    /// Pages looked at.
    pub pages: u64,
    /// Frames looked at.
    pub frames: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Pages that the last look at them found bad, and that are still part of a tree.
    pub bad_pages: u64,
    /// The same of frames of the log.
    pub bad_frames: u64,
}

/// Where something bad is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BadPlace {
    Page(u64),
    Frame(FileId, u64),
}

/// What scrubs know.
#[derive(Debug, Default)]
pub(super) struct Scrubbed {
    counts: ScrubCounts,
    bad: BTreeMap<BadPlace, ScrubFault>,
    closed: bool,
    sleeper: Option<Waker>,
}

impl Scrubbed {
    fn bad(&self, wanted: impl Fn(&BadPlace) -> bool) -> u64 {
        self.bad.keys().filter(|place| wanted(place)).count() as u64
    }
}

impl ScrubFault {
    fn place(&self) -> BadPlace {
        match *self {
            ScrubFault::Page { block, .. } => BadPlace::Page(block),
            ScrubFault::Frame { file, block, .. } => BadPlace::Frame(file, block),
        }
    }
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Looks at everything again and again, at `bytes_per_second`, until the engine is closed or
    /// [told to stop](Self::stop_scrub); `report` is told what is bad when it is found first.
    pub async fn scrub(&self, bytes_per_second: u64, report: impl FnMut(&ScrubFault)) {
        let mut round = Round::new(self, bytes_per_second, report);
        while !self.inner.scrubbed.borrow().closed {
            let began_ns = self.inner.runtime.now_ns();
            if round.run().await.is_some() {
                let spent_ns = self.inner.runtime.now_ns().saturating_sub(began_ns);
                round.sleep(SCRUB_ROUND_NS.saturating_sub(spent_ns)).await;
            }
        }
    }

    /// Looks at everything once.
    pub async fn scrub_once(&self, bytes_per_second: u64, report: impl FnMut(&ScrubFault)) {
        // If it ends early that is because the engine is closed.
        let _ = Round::new(self, bytes_per_second, report).run().await;
    }

    /// Has scrubs end.
    pub fn stop_scrub(&self) {
        let mut scrubbed = self.inner.scrubbed.borrow_mut();
        scrubbed.closed = true;
        scrubbed.sleeper.take().into_iter().for_each(Waker::wake);
    }

    /// What scrubs have done.
    pub fn scrub_counts(&self) -> ScrubCounts {
        let scrubbed = self.inner.scrubbed.borrow();
        let bad_pages = scrubbed.bad(|place| matches!(place, BadPlace::Page(_)));
        let bad_frames = scrubbed.bad(|place| matches!(place, BadPlace::Frame(..)));
        ScrubCounts { bad_pages, bad_frames, ..scrubbed.counts }
    }

    /// Everything that is known to be bad now.
    pub fn scrub_faults(&self) -> Vec<ScrubFault> {
        self.inner.scrubbed.borrow().bad.values().cloned().collect()
    }

    fn scrubbed(&self) -> &RefCell<Scrubbed> {
        &self.inner.scrubbed
    }
}

/// One walk over everything. Its steps yield nothing when it is to end.
struct Round<'a, D: Disk, R: Runtime, F> {
    engine: &'a Engine<D, R>,
    bytes_per_second: u64,
    /// When the next bytes may be read.
    due_ns: u64,
    /// What is bad, of this round.
    found: BTreeMap<BadPlace, ScrubFault>,
    report: F,
}

impl<'a, D: Disk, R: Runtime, F: FnMut(&ScrubFault)> Round<'a, D, R, F> {
    fn new(engine: &'a Engine<D, R>, bytes_per_second: u64, report: F) -> Self {
        assert!(bytes_per_second > 0, "a scrub without a pace is not begun");
        Round { engine, bytes_per_second, due_ns: 0, found: BTreeMap::new(), report }
    }

    async fn run(&mut self) -> Option<()> {
        self.found.clear();
        let mut partitions: Vec<_> = self.engine.inner.partitions.borrow().ids().map(|(id, _)| id).collect();
        partitions.sort_unstable();
        for id in partitions {
            self.walk(id).await?;
        }
        self.read_log().await?;
        let mut scrubbed = self.engine.scrubbed().borrow_mut();
        scrubbed.counts.rounds += 1;
        // What was not met again is not in use any more.
        scrubbed.bad = std::mem::take(&mut self.found);
        Some(())
    }

    /// Looks at the tree of a partition. A merge meanwhile makes another one of it: the walk goes on there.
    async fn walk(&mut self, id: PartitionId) -> Option<()> {
        let mut lower = Some(Vec::new());
        while let Some(from) = lower.take() {
            let pages = &self.engine.inner.pages;
            let pin = pages.pin();
            let Some(root) = self.engine.inner.partitions.borrow().get(id).and_then(|one| one.tree) else {
                return Some(());
            };
            let began_ns = self.engine.inner.runtime.now_ns();
            let mut walk = Walk::from(pages.clone(), &root, from);
            while let Some((page, looked)) = walk.step().await {
                self.engine.scrubbed().borrow_mut().counts.pages += 1;
                let is_leaf = page.is_leaf;
                if let Err(fault) = looked {
                    self.note(ScrubFault::Page { partition: id, block: page.extent.first_block, fault });
                }
                self.pay(page.extent.bytes()).await?;
                let spent_ns = self.engine.inner.runtime.now_ns().saturating_sub(began_ns);
                if is_leaf && spent_ns >= SCRUB_STRETCH_NS {
                    lower = walk.next_key().map(<[u8]>::to_vec);
                    break;
                }
            }
            drop(pin);
        }
        Some(())
    }

    fn note(&mut self, fault: ScrubFault) {
        let place = fault.place();
        let before = self.engine.scrubbed().borrow_mut().bad.insert(place, fault.clone());
        if before.as_ref() != Some(&fault) {
            (self.report)(&fault);
        }
        self.found.insert(place, fault);
    }

    /// Takes its time for bytes that were read.
    async fn pay(&mut self, bytes: usize) -> Option<()> {
        self.engine.scrubbed().borrow_mut().counts.bytes += bytes as u64;
        let now_ns = self.engine.inner.runtime.now_ns();
        let cost_ns = (bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second)) as u64;
        self.due_ns = self.due_ns.max(now_ns).saturating_add(cost_ns);
        self.sleep(self.due_ns - now_ns).await
    }

    /// Waits, unless it is time to end.
    async fn sleep(&mut self, ns: u64) -> Option<()> {
        let mut sleep = pin!(self.engine.inner.runtime.sleep(Duration::from_nanos(ns)));
        poll_fn(|context| {
            let mut scrubbed = self.engine.scrubbed().borrow_mut();
            if scrubbed.closed {
                return Poll::Ready(None);
            }
            scrubbed.sleeper = Some(context.waker().clone());
            sleep.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Looks at the frames of the log that are durable, segment by segment.
    async fn read_log(&mut self) -> Option<()> {
        let (live, durable, segment_bytes) = {
            let log = self.engine.inner.log.borrow();
            let live: Vec<LiveSegment> = log.ring.live().collect();
            (live, log.commits.durable(), log.config().segment_bytes)
        };
        let disk = self.engine.inner.pages.disk().clone();
        let mut reader = Reader::new(disk, segment_bytes, SCRUB_READ_BYTES);
        let mut chain = None;
        for (index, &segment) in live.iter().enumerate() {
            let end = match live.get(index + 1) {
                Some(next) => {
                    let head = frame_at(&mut reader, segment_bytes, *next, 0).await;
                    head.ok().map(|(header, _)| header.sequence)
                }
                // The last frame may be one that is written again in its place.
                None => Some(durable),
            };
            chain = self.read_segment(&mut reader, segment_bytes, segment, chain, end).await?;
        }
        Some(())
    }

    /// Looks at the frames of a segment that come before `end`, or at as many as follow each other; yields what
    /// the chain goes on with, unless that is not known.
    async fn read_segment(
        &mut self,
        reader: &mut Reader<D>,
        segment_bytes: u64,
        segment: LiveSegment,
        mut chain: Option<(u64, u128)>,
        end: Option<u64>,
    ) -> Option<Option<(u64, u128)>> {
        let (mut offset, mut is_told) = (0, false);
        while offset < segment_bytes && end.is_none_or(|end| chain.is_none_or(|(next, _)| next < end)) {
            let read = frame_at(reader, segment_bytes, segment, offset).await;
            let follows = |header: &FrameHeader| match chain {
                Some((sequence, previous)) => (header.sequence, header.previous) == (sequence, previous),
                None => end.is_none_or(|end| header.sequence < end),
            };
            let found = match read {
                Ok((header, checksum)) if follows(&header) => {
                    self.engine.scrubbed().borrow_mut().counts.frames += 1;
                    self.pay(header.frame_bytes as usize).await?;
                    offset += u64::from(header.frame_bytes);
                    (chain, is_told) = (Some((header.sequence + 1, checksum)), false);
                    continue;
                }
                Ok((header, _)) => format!("frame {}", header.sequence),
                Err(found) => found,
            };
            // Without an end, this may be it: the next segment is asked for the frame.
            if end.is_none() && chain.is_some() {
                break;
            }
            let is_live = self.engine.inner.log.borrow().ring.live().any(|live| live == segment);
            if !is_live {
                return Some(None);
            }
            if !is_told {
                let expected = chain.map_or("a frame".to_owned(), |(next, _)| format!("frame {next}"));
                let block = offset / BLOCK_BYTES as u64;
                self.note(ScrubFault::Frame { file: segment.file, block, expected, found });
            }
            // How long it was is not known: the next one is looked for.
            (chain, is_told) = (None, true);
            self.pay(BLOCK_BYTES).await?;
            offset += BLOCK_BYTES as u64;
        }
        Some(chain)
    }
}

/// The frame of a segment at `offset`, and its checksum; else what is there.
async fn frame_at<D: Disk>(
    reader: &mut Reader<D>,
    segment_bytes: u64,
    segment: LiveSegment,
    offset: u64,
) -> Result<(FrameHeader, u128), String> {
    let room = usize::try_from(segment_bytes - offset).unwrap_or(usize::MAX);
    let block = reader.piece(segment.file, offset, BLOCK_BYTES).await.map_err(|error| error.to_string())?;
    let claim = frame::claim(block, room).filter(|claim| claim.segment == segment.sequence);
    let claim = claim.ok_or_else(|| "nothing that begins like a frame of its segment".to_owned())?;
    let bytes = reader.piece(segment.file, offset, claim.frame_bytes).await;
    match frame::open(bytes.map_err(|error| error.to_string())?) {
        Ok(frame) => Ok(frame),
        Err(FrameFault::Absent) => Err("no frame".to_owned()),
        Err(FrameFault::Broken { expected, found }) => {
            Err(format!("one whose checksum is {found:032x} instead of {expected:032x}"))
        }
        Err(FrameFault::Unsupported { what, found }) => Err(format!("one whose {what} is {found}")),
    }
}
