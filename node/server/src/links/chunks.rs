//! Large messages in parts, so that nobody waits behind them.
//!
//! A message above a limit is cut, and the parts of different groups' messages take turns. Messages of one
//! group keep their order: what follows a large one waits behind it. So many bytes of parts may be under way;
//! the receiver says how many it has taken. The queue is bounded, and what it has no room for is dropped:
//! consensus sends again what matters.
//!
//! Knows nothing of sockets, and of a message only its group and its bytes.

use super::limits::{CHUNKED_MESSAGES_MAX, CHUNKS_UNDER_WAY_BYTES_MAX, QUEUE_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use evenkeel_model::PartitionId;
use evenkeel_wire::cutter::FRAME_RESERVED_BYTES_MAX;
use evenkeel_wire::message::peer::{ArchivedChunk, CHUNK_BYTES, Chunk};
use evenkeel_wire::{BODY_BYTES_MAX, Frame, FrameHeader, HEADER_BYTES, Kind, encode};
use std::collections::{HashMap, VecDeque};

/// Frames that are to leave on one link.
#[derive(Default)]
pub struct Outgoing {
    /// Large messages, the one whose turn is next first. Those behind the first few wait.
    larges: VecDeque<Large>,
    queued_bytes: usize,
    numbered: u64,
    sent_bytes: u64,
    taken_bytes: u64,
}

/// A message being sent in parts, and what its group has said since.
struct Large {
    group: PartitionId,
    number: u64,
    body: Bytes,
    offset: usize,
    behind: VecDeque<Bytes>,
}

/// Parts that have arrived on one link.
#[derive(Default)]
pub struct Incoming {
    partial: HashMap<u64, BytesMut>,
    taken_bytes: u64,
    /// How many were taken when the sender was told last.
    told_bytes: u64,
}

/// A part that does not follow the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("part of message {message} at {offset} of {body_bytes} bytes does not follow what came before")]
pub struct Misplaced {
    /// Which message.
    pub message: u64,
    /// Where the part claims to begin.
    pub offset: u32,
    /// How long the message claims to be.
    pub body_bytes: u32,
}

impl Outgoing {
    /// Takes a group's frame; yields it if it can leave at once.
    pub fn offer(&mut self, group: PartitionId, frame: Bytes) -> Option<Bytes> {
        let large = self.larges.iter_mut().find(|large| large.group == group);
        if large.is_none() && frame.len() <= HEADER_BYTES + CHUNK_BYTES {
            return Some(frame);
        }
        if self.queued_bytes + frame.len() > QUEUE_BYTES_MAX {
            return None;
        }
        self.queued_bytes += frame.len();
        match large {
            Some(large) => large.behind.push_back(frame),
            None => self.begin(group, frame, VecDeque::new()),
        }
        None
    }

    fn begin(&mut self, group: PartitionId, frame: Bytes, behind: VecDeque<Bytes>) {
        self.numbered += 1;
        let body = frame.slice(HEADER_BYTES..);
        self.larges.push_back(Large { group, number: self.numbered, body, offset: 0, behind });
    }

    /// The frame that leaves next, if one may.
    pub fn next(&mut self) -> Option<Bytes> {
        let large = self.larges.front_mut()?;
        if large.offset == large.body.len() {
            return self.next_behind();
        }
        if self.sent_bytes - self.taken_bytes >= CHUNKS_UNDER_WAY_BYTES_MAX {
            return None;
        }
        let end = large.body.len().min(large.offset + CHUNK_BYTES);
        let part = &large.body[large.offset..end];
        let small = |bytes: usize| u32::try_from(bytes).expect("bodies are smaller than 4 GiB");
        let chunk = Chunk {
            message: large.number,
            body_bytes: small(large.body.len()),
            offset: small(large.offset),
            part,
        };
        let frame = encode(&chunk, 0, 0);
        self.sent_bytes += part.len() as u64;
        large.offset = end;
        if end == large.body.len() {
            self.queued_bytes -= HEADER_BYTES + end;
            if large.behind.is_empty() {
                self.larges.pop_front();
                return Some(frame);
            }
        }
        // The first few take turns; the others begin when one of these has ended.
        let turn = self.larges.pop_front().expect("looked at above");
        let at = self.larges.len().min(CHUNKED_MESSAGES_MAX - 1);
        self.larges.insert(at, turn);
        Some(frame)
    }

    /// The first message is complete: what its group has said since.
    fn next_behind(&mut self) -> Option<Bytes> {
        let large = self.larges.front_mut()?;
        let frame = large.behind.pop_front().expect("what has nothing behind it is gone");
        if frame.len() > HEADER_BYTES + CHUNK_BYTES {
            let Large { group, behind, .. } = self.larges.pop_front().expect("looked at above");
            self.begin(group, frame, behind);
            return self.next();
        }
        self.queued_bytes -= frame.len();
        if large.behind.is_empty() {
            self.larges.pop_front();
        }
        Some(frame)
    }

    /// The receiver has taken this many bytes of parts since the link began.
    pub fn taken(&mut self, bytes: u64) {
        self.taken_bytes = self.taken_bytes.max(bytes.min(self.sent_bytes));
    }
}

impl Incoming {
    /// Takes a part; yields the message as a frame if it is complete.
    ///
    /// # Errors
    /// The sender does not cut messages as it should: the link is of no use.
    pub fn push(&mut self, chunk: &ArchivedChunk<'_>) -> Result<Option<Frame>, Misplaced> {
        let (message, offset) = (u64::from(chunk.message), u32::from(chunk.offset));
        let body_bytes = u32::from(chunk.body_bytes);
        let (part, whole) = (&*chunk.part, body_bytes as usize);
        let begun = self.partial.get(&message).map_or(0, |partial| partial.len());
        let is_new = !self.partial.contains_key(&message);
        let fits = whole <= BODY_BYTES_MAX && !part.is_empty() && part.len() <= whole.saturating_sub(begun);
        if begun != offset as usize || !fits || is_new && self.partial.len() >= CHUNKED_MESSAGES_MAX {
            return Err(Misplaced { message, offset, body_bytes });
        }
        self.taken_bytes += part.len() as u64;
        let partial = self
            .partial
            .entry(message)
            .or_insert_with(|| BytesMut::with_capacity(whole.min(FRAME_RESERVED_BYTES_MAX)));
        partial.extend_from_slice(part);
        if partial.len() < whole {
            return Ok(None);
        }
        let body = self.partial.remove(&message).unwrap_or_default().freeze();
        // Each part came in a frame whose checksum was right; the whole needs none.
        let header =
            FrameHeader { kind: Kind::Group as u16, request_id: 0, timeout_us: 0, body_bytes, checksum: 0 };
        Ok(Some(Frame { header, body }))
    }

    /// How many bytes of parts were taken, if it is time to tell the sender.
    pub fn untold(&mut self) -> Option<u64> {
        if self.taken_bytes - self.told_bytes < CHUNKS_UNDER_WAY_BYTES_MAX / 4 {
            return None;
        }
        self.told_bytes = self.taken_bytes;
        Some(self.taken_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::decode;
    use evenkeel_wire::frame::{open, seal};

    fn frame(byte: u8, body_bytes: usize) -> Bytes {
        let mut frame = vec![byte; HEADER_BYTES + body_bytes];
        seal(&mut frame, Kind::Group as u16, 0, 0);
        frame.into()
    }

    fn chunk(frame: Bytes) -> (u64, usize, Frame) {
        let frame = open(frame).unwrap();
        let chunk = decode::<Chunk>(&frame).unwrap();
        (chunk.message.into(), chunk.part.len(), frame.clone())
    }

    fn group(id: u64) -> PartitionId {
        PartitionId(id)
    }

    #[test]
    fn small_messages_leave_at_once_and_large_ones_take_turns() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.offer(group(1), frame(1, CHUNK_BYTES)).is_some());
        assert!(outgoing.next().is_none());
        assert!(outgoing.offer(group(1), frame(2, 2 * CHUNK_BYTES + 1)).is_none());
        assert!(outgoing.offer(group(2), frame(3, 2 * CHUNK_BYTES)).is_none());
        assert!(outgoing.offer(group(3), frame(4, 1)).is_some(), "others do not wait");
        let sent: Vec<_> = std::iter::from_fn(|| outgoing.next()).map(chunk).collect();
        let sent: Vec<_> = sent.iter().map(|(message, bytes, _)| (*message, *bytes)).collect();
        let full = CHUNK_BYTES;
        assert_eq!(sent, [(1, full), (2, full), (1, full), (2, full), (1, 1)]);
        assert_eq!(outgoing.queued_bytes, 0);
    }

    #[test]
    fn messages_of_one_group_keep_their_order() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.offer(group(1), frame(1, CHUNK_BYTES + 1)).is_none());
        assert!(outgoing.offer(group(1), frame(2, 5)).is_none(), "it waits behind the large one");
        assert!(outgoing.offer(group(1), frame(3, CHUNK_BYTES + 2)).is_none());
        assert!(outgoing.offer(group(1), frame(4, 6)).is_none());
        let bytes: Vec<usize> = std::iter::from_fn(|| outgoing.next())
            .map(|frame| match open(frame.clone()).unwrap() {
                small if small.header.kind == Kind::Group as u16 => small.body.len(),
                _ => chunk(frame).1,
            })
            .collect();
        assert_eq!(bytes, [CHUNK_BYTES, 1, 5, CHUNK_BYTES, 2, 6]);
        assert_eq!(outgoing.queued_bytes, 0);
        assert!(outgoing.offer(group(1), frame(5, 7)).is_some());
    }

    #[test]
    fn what_is_sent_is_put_together_again() {
        let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
        let bodies = [50_000, 16_385, 300_000, 1_000_000, 70_000];
        for (id, bytes) in bodies.into_iter().enumerate() {
            assert!(outgoing.offer(group(id as u64), frame(id as u8, bytes)).is_none());
        }
        let mut arrived = Vec::new();
        loop {
            let Some(next) = outgoing.next() else { break };
            let (_, _, frame) = chunk(next);
            let whole = incoming.push(decode::<Chunk>(&frame).unwrap()).unwrap();
            arrived.extend(whole.map(|whole| (whole.body[0], whole.body.len())));
            if let Some(bytes) = incoming.untold() {
                outgoing.taken(bytes);
            }
        }
        arrived.sort_unstable();
        let expected: Vec<_> = bodies.into_iter().enumerate().map(|(id, bytes)| (id as u8, bytes)).collect();
        assert_eq!(arrived, expected);
        assert!(incoming.partial.is_empty() && outgoing.queued_bytes == 0);
    }

    #[test]
    fn nothing_goes_beyond_what_the_receiver_has_taken() {
        let mut outgoing = Outgoing::default();
        outgoing.offer(group(1), frame(1, 4 * CHUNKS_UNDER_WAY_BYTES_MAX as usize));
        let sent = std::iter::from_fn(|| outgoing.next()).count();
        assert_eq!(sent * CHUNK_BYTES, CHUNKS_UNDER_WAY_BYTES_MAX as usize);
        outgoing.taken(CHUNK_BYTES as u64);
        assert!(outgoing.next().is_some() && outgoing.next().is_none());
        outgoing.taken(u64::MAX);
        assert!(outgoing.next().is_some(), "a receiver that claims too much gets no more than the window");
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_is_never_larger() {
        let mut outgoing = Outgoing::default();
        for id in 0..64 {
            outgoing.offer(group(id), frame(1, 1 << 20));
            assert!(outgoing.queued_bytes <= QUEUE_BYTES_MAX);
        }
        assert!(outgoing.larges.len() < 64);
        assert!(outgoing.offer(group(99), frame(2, 10)).is_some(), "small messages are not in the queue");
    }

    #[test]
    fn parts_that_do_not_follow_are_refused() {
        let cases = [
            ("not at the beginning", vec![(1, 100, 5, 10)]),
            ("a hole", vec![(1, 100, 0, 10), (1, 100, 20, 10)]),
            ("a repetition", vec![(1, 100, 0, 10), (1, 100, 0, 10)]),
            ("more than announced", vec![(1, 15, 0, 10), (1, 15, 10, 10)]),
            ("nothing", vec![(1, 100, 0, 0)]),
            ("too large", vec![(1, u32::MAX, 0, 10)]),
            (
                "too many at once",
                (0..=CHUNKED_MESSAGES_MAX as u64).map(|message| (message, 100, 0, 10)).collect(),
            ),
        ];
        for (name, parts) in cases {
            let mut incoming = Incoming::default();
            let last = parts.len() - 1;
            for (at, (message, body_bytes, offset, bytes)) in parts.into_iter().enumerate() {
                let part = vec![7; bytes];
                let chunk = Chunk { message, body_bytes, offset, part: &part };
                let frame = open(encode(&chunk, 0, 0)).unwrap();
                let taken = incoming.push(decode::<Chunk>(&frame).unwrap());
                assert_eq!(taken.is_err(), at == last, "{name}, part {at}");
            }
        }
    }
}
