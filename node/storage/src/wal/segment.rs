//! The ring of segments: which file holds which part of the log, which are free, which is next.
//!
//! A segment is *live* from its opening until no record in it is needed; the live segments are always
//! a contiguous piece of the log's order, because frames are chained. Who needs records pins their
//! segment. A released file may be overwritten only once a frame that says so is durable, or a crash
//! could leave neither the old segment nor the word that it was not needed.
//!
//! A pure state machine: it knows nothing of disks, frames' contents or time.

use crate::{disk::FileId, limits::KEPT_PART};
use std::collections::VecDeque;

/// A segment that holds needed records, or is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveSegment {
    /// Place in the log's order.
    pub(crate) sequence: u32,
    /// The file.
    pub(crate) file: FileId,
}

#[derive(Debug)]
struct Pinned {
    segment: LiveSegment,
    pins: u32,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) segment: u32,
}

/// The segments of one log.
#[derive(Debug)]
pub(crate) struct SegmentRing {
    segment_bytes: u64,
    files_max: usize,
    /// Oldest first; frames go to the last one.
    live: VecDeque<Pinned>,
    /// Where the next frame goes in the last live segment.
    offset: u64,
    /// Released, and the frame that must be durable before they are overwritten.
    leaving: VecDeque<(u64, FileId)>,
    free: VecDeque<FileId>,
    file_next: u32,
    sequence_next: u32,
    /// The files released since the start, and how many of these are written over.
    released: Vec<FileId>,
    recycled: u64,
    /// A file is being made.
    preparing: bool,
    /// The last attempt to make a file failed; it is being repeated.
    starved: bool,
}

impl SegmentRing {
    /// A ring whose `live` segments are not written any more: the next frame opens `sequence_next`.
    pub(crate) fn new(segment_bytes: u64, files_max: usize, file_next: u32, sequence_next: u32) -> Self {
        SegmentRing {
            segment_bytes,
            files_max,
            live: VecDeque::new(),
            offset: segment_bytes,
            leaving: VecDeque::new(),
            free: VecDeque::new(),
            file_next,
            sequence_next,
            released: Vec::new(),
            recycled: 0,
            preparing: false,
            starved: false,
        }
    }

    /// Adds a segment found by recovery, in the log's order.
    pub(crate) fn add_live(&mut self, segment: LiveSegment) {
        assert!(
            self.live.back().is_none_or(|last| last.segment.sequence < segment.sequence),
            "segments come in order"
        );
        self.live.push_back(Pinned { segment, pins: 0 });
    }

    /// Adds a file that may be overwritten.
    pub(crate) fn add_free(&mut self, file: FileId) {
        self.free.push_back(file);
    }

    /// Adds a file that may be overwritten once `frame` is durable.
    pub(crate) fn add_leaving(&mut self, frame: u64, file: FileId) {
        self.leaving.push_back((frame, file));
    }

    /// The segment that a record appended now will be in, or one before it.
    pub(crate) fn current(&self) -> u32 {
        self.live.back().map_or(self.sequence_next, |last| last.segment.sequence)
    }

    /// Keeps `segment` and everything behind it.
    pub(crate) fn pin(&mut self, segment: u32) {
        self.find(segment).pins += 1;
    }

    /// Takes one pin back.
    pub(crate) fn unpin(&mut self, segment: u32) {
        let found = self.find(segment);
        found.pins = found.pins.checked_sub(1).expect("only what was pinned is unpinned");
    }

    fn find(&mut self, segment: u32) -> &mut Pinned {
        let index = self
            .live
            .binary_search_by_key(&segment, |live| live.segment.sequence)
            .expect("pins are taken on live segments, and a pinned segment stays live");
        &mut self.live[index]
    }

    /// Finds room for a frame, in a new segment if it does not fit into the present one; none while
    /// no file is ready.
    pub(crate) fn place(&mut self, frame_bytes: usize) -> Option<Place> {
        let frame_bytes = frame_bytes as u64;
        assert!(frame_bytes <= self.segment_bytes, "a frame fits into a segment");
        if self.offset + frame_bytes > self.segment_bytes {
            let file = self.free.pop_front()?;
            self.recycled += u64::from(self.released.contains(&file));
            let sequence = self.sequence_next;
            self.sequence_next = sequence.checked_add(1).expect("2^32 segments outlast the device");
            self.live.push_back(Pinned { segment: LiveSegment { sequence, file }, pins: 0 });
            self.offset = 0;
        }
        let current = self.live.back().expect("a segment was opened").segment;
        let place = Place { file: current.file, offset: self.offset, segment: current.sequence };
        self.offset += frame_bytes;
        Some(place)
    }

    /// Whether [`place`](Self::place) would find room now.
    pub(crate) fn is_ready(&self, frame_bytes: usize) -> bool {
        self.offset + frame_bytes as u64 <= self.segment_bytes || !self.free.is_empty()
    }

    /// Whether a file is being made, and nothing has gone wrong with that.
    pub(crate) fn is_coming(&self) -> bool {
        self.preparing && !self.starved
    }

    /// Whether the next frame will release a segment.
    pub(crate) fn can_release(&self) -> bool {
        self.live.len() > 1 && self.live[0].pins == 0
    }

    /// Releases the segments that nobody needs, by the word of `frame`, and returns the oldest that is kept.
    pub(crate) fn release(&mut self, frame: u64) -> u32 {
        while self.can_release() {
            let gone = self.live.pop_front().expect("there are two");
            self.leaving.push_back((frame, gone.segment.file));
        }
        self.live[0].segment.sequence
    }

    /// Everything up to `frame` is durable: the files it released may be overwritten.
    pub(crate) fn durable(&mut self, frame: u64) {
        while self.leaving.front().is_some_and(|&(released_by, _)| released_by <= frame) {
            let (_, file) = self.leaving.pop_front().expect("there is one");
            if !self.released.contains(&file) {
                self.released.push(file);
            }
            self.free.push_back(file);
        }
    }

    /// A file to make now, so that the next segment is ready before the present one is full.
    pub(crate) fn wanted(&mut self) -> Option<FileId> {
        if self.preparing || !self.free.is_empty() || self.files() >= self.files_max {
            return None;
        }
        self.preparing = true;
        let file = FileId::Segment(self.file_next);
        self.file_next = self.file_next.checked_add(1).expect("2^32 files outlast the device");
        Some(file)
    }

    /// The file wanted is there.
    pub(crate) fn prepared(&mut self, file: FileId) {
        assert!(self.preparing, "only a wanted file is made");
        self.preparing = false;
        self.starved = false;
        self.free.push_back(file);
    }

    /// Making the file wanted failed; it will be tried again.
    pub(crate) fn preparation_failed(&mut self) {
        self.starved = true;
    }

    /// Whether frames of these sizes can be written one behind the other, with `reserve` bytes left
    /// in the last segment or a whole segment behind it. Files that are yet to be made or to become
    /// free count: the frames wait for them.
    pub(crate) fn has_room(&self, frames: impl Iterator<Item = usize>, reserve: usize) -> bool {
        let to_make = if self.starved {
            0
        } else {
            self.files_max.saturating_sub(self.files() - usize::from(self.preparing))
        };
        let mut segments = self.free.len() + self.leaving.len() + to_make;
        let mut left = self.segment_bytes - self.offset;
        for frame_bytes in frames {
            let frame_bytes = frame_bytes as u64;
            if frame_bytes > left {
                if segments == 0 {
                    return false;
                }
                segments -= 1;
                left = self.segment_bytes;
            }
            left -= frame_bytes;
        }
        segments > 0 || left >= reserve as u64
    }

    /// Files that exist or are being made.
    fn files(&self) -> usize {
        self.live.len() + self.leaving.len() + self.free.len() + usize::from(self.preparing)
    }

    /// Bytes of the segments that hold the log, those not yet free to be overwritten included.
    pub(crate) fn bytes_used(&self) -> u64 {
        (self.live.len() + self.leaving.len()) as u64 * self.segment_bytes
    }

    /// The oldest segment that holds the log; none before the first frame.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.live.front().map(|live| live.segment.sequence)
    }

    /// Whether what is left is kept for those who take little.
    pub(crate) fn is_nearly_full(&self) -> bool {
        let used = (self.live.len() + self.leaving.len()) as u64;
        used * KEPT_PART > (KEPT_PART - 1) * self.files_max as u64
    }

    /// Segments that may exist.
    pub(crate) fn files_max(&self) -> usize {
        self.files_max
    }

    /// How often a segment was written over since the start.
    pub(crate) fn recycled(&self) -> u64 {
        self.recycled
    }

    /// The segments that hold the log, oldest first.
    pub(crate) fn live(&self) -> impl Iterator<Item = LiveSegment> {
        self.live.iter().map(|live| live.segment)
    }

    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(files_max: usize) -> SegmentRing {
        let mut ring = SegmentRing::new(40_960, files_max, 1, 1);
        ring.add_free(FileId::Segment(0));
        ring
    }

    #[test]
    fn frames_fill_a_segment_and_then_the_next_one_that_is_ready() {
        let mut ring = ring(3);
        let place = |file, offset, segment| Some(Place { file: FileId::Segment(file), offset, segment });
        assert_eq!(ring.place(32_768), place(0, 0, 1));
        assert_eq!(ring.place(8192), place(0, 32_768, 1));
        assert_eq!(ring.place(4096), None);
        let file = ring.wanted().unwrap();
        assert_eq!(ring.wanted(), None, "one at a time");
        ring.prepared(file);
        assert_eq!(ring.place(4096), place(1, 0, 2));
    }

    #[test]
    fn a_released_file_is_free_once_the_frame_that_says_so_is_durable() {
        let mut ring = ring(2);
        ring.place(40_960);
        ring.pin(1);
        let file = ring.wanted().unwrap();
        ring.prepared(file);
        ring.place(4096);
        assert_eq!((ring.release(10), ring.free_count()), (1, 0));
        ring.unpin(1);
        assert_eq!(ring.release(11), 2);
        ring.durable(10);
        assert_eq!(ring.free_count(), 0);
        ring.durable(11);
        assert_eq!(ring.free_count(), 1);
        assert_eq!(ring.wanted(), None);
        ring.place(36_864);
        assert_eq!(ring.place(4096), Some(Place { file: FileId::Segment(0), offset: 0, segment: 3 }));
    }

    #[test]
    fn room_is_counted_over_segments_that_are_yet_to_be_made() {
        let mut ring = ring(2);
        let room = |ring: &SegmentRing, frames: &[usize]| ring.has_room(frames.iter().copied(), 8192);
        assert!(room(&ring, &[40_960, 32_768]));
        assert!(!room(&ring, &[40_960, 36_864]), "the reserve would be used");
        assert!(!room(&ring, &[36_864, 36_864]), "what does not fit behind a frame is lost");
        ring.place(40_960);
        let file = ring.wanted().unwrap();
        assert!(room(&ring, &[32_768]));
        ring.preparation_failed();
        assert!(!room(&ring, &[4096]));
        ring.prepared(file);
        assert!(room(&ring, &[32_768]));
    }
}
