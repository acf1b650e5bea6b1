//! The state of a running log: frames being built, frames being written, what is durable.
//!
//! Records are written straight into the buffer of the frame that is being built. Frames leave in
//! order, at most two at a time: frame N+2 is not submitted before N is durable, which is what lets
//! recovery tell a power cut from damage. A frame's header is written when it leaves, so that its
//! `durable` mark is as high as it can be.
//!
//! Decides and keeps count; the [`writer`](super::writer) task does what it decides.

use super::{
    WalConfig,
    commit::Commits,
    frame::{self, FRAME_HEADER_BYTES, FrameHeader},
    record::{RecordHeader, record_bytes, write_record},
    segment::{Place, SegmentRing},
};
use crate::{
    disk::{BLOCK_BYTES, Disk, FileId},
    engine::EngineStatistics,
    error::{Refused, WalFailed},
};
use evenkeel_model::{ClusterId, NodeId, ShardId};
use std::{
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// What records always leave: a block for the empty frame that covers the last of them, and one for the frame whose
/// word gives segments back. A log without room for that word would stay full for ever.
const LAST_FRAMES_BYTES: usize = 2 * BLOCK_BYTES;

/// Who writes a log; stands in each frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) shard: ShardId,
    /// Drawn at random by each start.
    pub(crate) run: u64,
}

/// How urgent a record is when room is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Takes room, and leaves some for what gives room back.
    Entry,
    /// Creates or drops a partition, belongs to consensus, or was let in before: never waits for others,
    /// and may use the last of the room.
    Control,
}

/// A frame that takes records.
struct Building<B> {
    buffer: B,
    /// Header and records so far.
    used: usize,
    records: u32,
    /// It takes no more.
    is_ended: bool,
}

/// A frame being written.
#[derive(Clone, Copy, Debug)]
enum Flight {
    Frame {
        sequence: u64,
    },
    /// The last, empty frame again, in its place.
    Again,
}

/// One device write.
pub(crate) struct Write<B> {
    pub(crate) place: Place,
    pub(crate) buffer: B,
    pub(crate) bytes: usize,
    /// Which of the two writes in flight it is.
    pub(crate) lane: usize,
}

/// The log of one shard.
pub(crate) struct Log<D: Disk> {
    disk: D,
    config: WalConfig,
    identity: Identity,
    pub(crate) ring: SegmentRing,
    pub(crate) commits: Rc<Commits>,
    /// Frames that wait, in order; the last one takes records.
    queue: VecDeque<Building<D::Buffer>>,
    pool: Vec<D::Buffer>,
    flights: [Option<Flight>; 2],
    sequence_next: u64,
    /// Checksum of the last frame submitted.
    previous: u128,
    /// The `durable` mark of the last frame submitted.
    covered: u64,
    /// The last frame that must be covered: one with records, or the first of the run.
    to_cover: u64,
    quiet_since_ns: u64,
    /// Memory and place of the empty frame, while that is the last frame.
    empty: Option<D::Buffer>,
    empty_place: Option<Place>,
    run_started: bool,
    /// A frame is wanted for its word that segments are released.
    release_wanted: bool,
    /// The last flip of the page file known durable.
    flip: u64,
    /// Segments that are no longer needed once a frame is durable: the word that a partition is gone.
    unpins: VecDeque<(u64, u32)>,
    closing: bool,
    finished: bool,
    writer: Option<Waker>,
    closers: Vec<Waker>,
    statistics: EngineStatistics,
}

impl<D: Disk> Log<D> {
    /// A log behind the frame `last`, whose checksum is `previous`; everything up to it is durable, and so is
    /// `flip` of the page file.
    pub(crate) fn new(
        disk: D,
        config: WalConfig,
        identity: Identity,
        ring: SegmentRing,
        last: u64,
        previous: u128,
        flip: u64,
    ) -> Self {
        Log {
            empty: Some(disk.buffer(BLOCK_BYTES)),
            disk,
            config,
            identity,
            ring,
            commits: Commits::new(last),
            queue: VecDeque::new(),
            pool: Vec::new(),
            flights: [None, None],
            sequence_next: last + 1,
            previous,
            covered: last,
            to_cover: last,
            quiet_since_ns: 0,
            empty_place: None,
            run_started: false,
            release_wanted: false,
            flip,
            unpins: VecDeque::new(),
            closing: false,
            finished: false,
            writer: None,
            closers: Vec::new(),
            statistics: EngineStatistics::default(),
        }
    }

    /// Puts a record into the frame being built. Returns the sequence of the frame.
    pub(crate) fn append(
        &mut self,
        class: Class,
        header: &RecordHeader,
        checksum: u128,
        payload_bytes: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<u64, Refused> {
        let bytes = record_bytes(payload_bytes);
        let joins = self.admit(class, bytes)?;
        if !joins {
            let buffer = self.buffer((FRAME_HEADER_BYTES + bytes).next_multiple_of(BLOCK_BYTES));
            self.queue.push_back(Building { buffer, used: FRAME_HEADER_BYTES, records: 0, is_ended: false });
        }
        let frame = self.queue.back_mut().expect("a frame takes records");
        let space = &mut frame.buffer[frame.used..frame.used + bytes];
        write_record(space, header, checksum, payload_bytes, fill);
        frame.used += bytes;
        frame.records += 1;
        if frame.records == 1 && self.queue.len() == 1 {
            self.wake_writer();
        }
        Ok(self.newest_frame())
    }

    /// Has the next record begin a frame.
    pub(crate) fn end_frame(&mut self) {
        if let Some(frame) = self.queue.back_mut() {
            frame.is_ended = true;
        }
    }

    /// Whether a record of `bytes` can be taken, and whether it joins the frame being built.
    pub(crate) fn admit(&self, class: Class, bytes: usize) -> Result<bool, Refused> {
        let alone = (FRAME_HEADER_BYTES + bytes).next_multiple_of(BLOCK_BYTES);
        if alone > self.config.frame_bytes_max {
            return Err(Refused::TooLarge { bytes: bytes as u64, max: self.config.frame_bytes_max as u64 });
        }
        let joins = self
            .queue
            .back()
            .is_some_and(|frame| !frame.is_ended && frame.used + bytes <= frame.buffer.len());
        if class == Class::Entry && !joins && self.queue.len() > self.config.frames_queued_max {
            return Err(Refused::Busy);
        }
        let reserve = match class {
            Class::Entry => self.config.reserve_bytes(),
            Class::Control => LAST_FRAMES_BYTES,
        };
        let last = self.queue.len().wrapping_sub(1);
        let queued = self.queue.iter().enumerate().map(|(index, frame)| {
            (frame.used + if joins && index == last { bytes } else { 0 }).next_multiple_of(BLOCK_BYTES)
        });
        if !self.ring.has_room(queued.chain((!joins).then_some(alone)), reserve) {
            return Err(Refused::LogFull { used: self.ring.bytes_used(), max: self.config.wal_bytes_max });
        }
        Ok(joins)
    }

    /// Whether records of `bytes` altogether, each of which can be taken, can be taken one behind the other.
    pub(crate) fn admit_together(&self, bytes: usize) -> Result<(), Refused> {
        if bytes <= self.config.frame_bytes {
            return Ok(());
        }
        // A record that does not join a frame leaves at most its own size of it empty.
        let frames = (2 * bytes).div_ceil(self.config.frame_bytes);
        let queued = self.queue.iter().map(|frame| frame.buffer.len());
        let more = std::iter::repeat_n(self.config.frame_bytes, frames);
        if !self.ring.has_room(queued.chain(more), self.config.reserve_bytes()) {
            return Err(Refused::LogFull { used: self.ring.bytes_used(), max: self.config.wal_bytes_max });
        }
        Ok(())
    }

    /// Memory for a frame of `bytes`: one of those used before, unless the frame is larger than they are.
    fn buffer(&mut self, bytes: usize) -> D::Buffer {
        if bytes > self.config.frame_bytes {
            return self.disk.buffer(bytes);
        }
        self.pool.pop().unwrap_or_else(|| self.disk.buffer(self.config.frame_bytes))
    }

    /// The next write, if one may leave now.
    pub(crate) fn next_write(&mut self, now_ns: u64) -> Option<Write<D::Buffer>> {
        let again = self.flights.iter().flatten().any(|flight| matches!(flight, Flight::Again));
        if again
            || self.in_flight() >= self.config.writes_in_flight_max as u64
            || self.commits.failed().is_some()
        {
            return None;
        }
        let write = if self.queue.is_empty() { self.next_empty(now_ns) } else { self.next_full() };
        if write.is_some() {
            self.quiet_since_ns = now_ns;
        }
        write
    }

    fn next_full(&mut self) -> Option<Write<D::Buffer>> {
        let bytes = self.queue.front()?.used.next_multiple_of(BLOCK_BYTES);
        let place = self.ring.place(bytes)?;
        let frame = self.queue.pop_front().expect("there is one");
        self.empty_place = None;
        self.to_cover = self.sequence_next;
        Some(self.seal(place, frame.buffer, frame.used, frame.records))
    }

    /// The first frame of the run, the frame that covers the last one, or that frame again.
    fn next_empty(&mut self, now_ns: u64) -> Option<Write<D::Buffer>> {
        if self.in_flight() > 0 {
            return None;
        }
        let uncovered = self.covered < self.to_cover;
        let now = !self.run_started || self.release_wanted || (self.closing && uncovered);
        if !now && (self.closing || now_ns < self.idle_at_ns()) {
            return None;
        }
        if self.run_started && !uncovered && !self.release_wanted {
            let place = self.empty_place?;
            let buffer = self.empty.take().expect("the empty frame is not being written");
            self.flights[0] = Some(Flight::Again);
            return Some(Write { place, buffer, bytes: BLOCK_BYTES, lane: 0 });
        }
        let place = self.ring.place(BLOCK_BYTES)?;
        self.empty_place = Some(place);
        if !self.run_started {
            self.to_cover = self.sequence_next;
        }
        let buffer = self.empty.take().expect("the empty frame is not being written");
        self.statistics.frames_empty += 1;
        Some(self.seal(place, buffer, FRAME_HEADER_BYTES, 0))
    }

    /// Writes the header of the next frame.
    fn seal(&mut self, place: Place, mut buffer: D::Buffer, used: usize, records: u32) -> Write<D::Buffer> {
        let bytes = used.next_multiple_of(BLOCK_BYTES);
        buffer[used..bytes].fill(0);
        let sequence = self.sequence_next;
        let header = FrameHeader {
            run_start: !self.run_started,
            shard: self.identity.shard.0.into(),
            cluster: self.identity.cluster,
            run: self.identity.run,
            segment: place.segment,
            frame_bytes: u32::try_from(bytes).expect("frames are at most a few MiB"),
            sequence,
            durable: self.commits.durable(),
            previous: self.previous,
            records_bytes: u32::try_from(used - FRAME_HEADER_BYTES).expect("frames are at most a few MiB"),
            record_count: records,
            offset: u32::try_from(place.offset).expect("segments are at most 4 GiB"),
            oldest_segment: self.ring.release(sequence),
            node: self.identity.node,
            flip: self.flip,
        };
        self.release_wanted = false;
        self.previous = frame::seal(&header, &mut buffer[..bytes]);
        self.covered = header.durable;
        self.run_started = true;
        self.sequence_next += 1;
        let lane = self.lane(sequence);
        self.flights[lane] = Some(Flight::Frame { sequence });
        self.statistics.frames += 1;
        self.statistics.records += u64::from(records);
        self.statistics.frame_bytes += bytes as u64;
        Write { place, buffer, bytes, lane }
    }

    /// Takes note that the write on `lane` is durable, and moves those who waited to `woken`.
    pub(crate) fn written(&mut self, lane: usize, buffer: D::Buffer, woken: &mut Vec<Waker>) {
        let flight = self.flights[lane].take().expect("the write was under way");
        if buffer.len() == BLOCK_BYTES && self.empty.is_none() {
            self.empty = Some(buffer);
        } else if buffer.len() == self.config.frame_bytes {
            self.pool.push(buffer);
        }
        let Flight::Frame { .. } = flight else { return };
        let still = |flight: &Option<Flight>| match flight {
            Some(Flight::Frame { sequence }) => Some(*sequence),
            _ => None,
        };
        let durable = self.flights.iter().filter_map(still).min().unwrap_or(self.sequence_next) - 1;
        if durable > self.commits.durable() && self.commits.failed().is_none() {
            self.commits.advance(durable, woken);
            while self.unpins.front().is_some_and(|&(frame, _)| frame <= durable) {
                let (_, segment) = self.unpins.pop_front().expect("there is one");
                self.ring.unpin(segment);
                self.release_wanted |= self.ring.can_release();
            }
            self.ring.durable(durable);
        }
    }

    /// Stops the log for good.
    pub(crate) fn fail(&mut self, reason: WalFailed, woken: &mut Vec<Waker>) {
        self.commits.fail(reason, woken);
        self.queue.clear();
    }

    /// When the idle log wants to write next.
    pub(crate) fn idle_at_ns(&self) -> u64 {
        let wait = if self.covered < self.to_cover {
            self.config.idle_frame_after
        } else {
            self.config.idle_frame_every
        };
        self.quiet_since_ns.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Looks at the idle log again later: it was not idle.
    pub(crate) fn postpone_idle(&mut self, now_ns: u64) {
        self.quiet_since_ns = now_ns;
    }

    /// A file to make now, so that the next segment is ready before the present one is full.
    pub(crate) fn wanted_file(&mut self) -> Option<FileId> {
        // Of a log that is being closed the last frame is still to be covered.
        let is_done = self.closing && self.queue.is_empty() && self.covered >= self.to_cover;
        if is_done { None } else { self.ring.wanted() }
    }

    /// Takes back a pin on `segment` once `frame` is durable.
    pub(crate) fn unpin_when_durable(&mut self, frame: u64, segment: u32) {
        self.unpins.push_back((frame, segment));
    }

    /// Takes note that a flip of the page file is durable, and has the log say soon which segments that
    /// has released.
    pub(crate) fn flipped(&mut self, flip: u64) {
        self.flip = flip;
        if self.ring.can_release() {
            self.release_wanted = true;
            self.wake_writer();
        }
    }

    /// Write what is there, cover it, and end.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.wake_writer();
    }

    /// The frame of the newest record.
    pub(crate) fn newest_frame(&self) -> u64 {
        self.sequence_next + self.queue.len() as u64 - 1
    }

    /// Frames wait to be written.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// It is being closed.
    pub(crate) fn closing(&self) -> bool {
        self.closing
    }

    /// Nothing more is to be done.
    pub(crate) fn ended(&self) -> bool {
        // If no file comes for one more frame the last one stays uncovered.
        let one_more = self.ring.is_ready(BLOCK_BYTES) || self.ring.is_coming();
        let covered = self.covered >= self.to_cover || !one_more;
        let idle = self.queue.is_empty() && self.in_flight() == 0 && covered;
        self.commits.failed().is_some() || (self.closing && idle && self.flights.iter().all(Option::is_none))
    }

    /// The writer has ended: nothing more will be durable.
    pub(crate) fn finish(&mut self, woken: &mut Vec<Waker>) {
        self.finished = true;
        self.fail(WalFailed::Closed, woken);
        woken.append(&mut self.closers);
    }

    /// Resolves when the writer has ended.
    pub(crate) fn poll_finished(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.finished {
            return Poll::Ready(());
        }
        self.closers.push(context.waker().clone());
        Poll::Pending
    }

    /// Why nothing can be appended any more, if so.
    pub(crate) fn stopped(&self) -> Option<WalFailed> {
        self.commits.failed().or(self.closing.then_some(WalFailed::Closed))
    }

    pub(crate) fn set_writer(&mut self, waker: &Waker) {
        match &mut self.writer {
            Some(present) => present.clone_from(waker),
            None => self.writer = Some(waker.clone()),
        }
    }

    pub(crate) fn wake_writer(&self) {
        if let Some(writer) = &self.writer {
            writer.wake_by_ref();
        }
    }

    /// Frames submitted and not known durable, those that completed out of order included.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sequence_next - 1 - self.commits.durable()
    }

    /// Which of the two writes in flight a frame is: frame N+2 leaves only when N is durable.
    fn lane(&self, sequence: u64) -> usize {
        usize::try_from(sequence % 2).expect("it is 0 or 1")
    }

    /// The counters of the log; those of the tables are zero.
    pub(crate) fn statistics(&self) -> EngineStatistics {
        EngineStatistics {
            frame_durable: self.commits.durable(),
            frames_uncovered: self.to_cover.saturating_sub(self.covered),
            writes_in_flight: self.in_flight(),
            frames_queued: self.queue.len() as u64,
            wal_bytes: self.ring.bytes_used(),
            wal_bytes_max: self.config.wal_bytes_max,
            segments_live: self.ring.live_count() as u64,
            segments_free: self.ring.free_count() as u64,
            segments_recycled: self.ring.recycled(),
            ..self.statistics
        }
    }

    pub(crate) fn config(&self) -> &WalConfig {
        &self.config
    }
}
