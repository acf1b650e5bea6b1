//! Outcomes of writes that carried a token, so that a repeated write is applied once.
//!
//! A token is a session and a sequence in it. The outcome of a write is recorded when its entry is
//! applied, on every replica alike, from what stands in the entry; it is forgotten below the session's
//! lowest unanswered sequence, 30 s of the log's own time after it was made, or when there are too many
//! bytes. Conditions that failed are not recorded. It knows no clock but the log's, in which a wall clock
//! that jumps ahead counts for little: else a jump would have a repeated write applied twice.
//!
//! ```text
//! note of an entry   session u128, sequence u64, lowest unanswered u64, flags u32 (1: new image wanted),
//!                    old image u32 length + 1 or 0, then its bytes
//! outcomes           timestamp u64 of the last entry, nanoseconds u64 that had passed in the log, count u32,
//!                    then for each by age: a note, slot u64, when it was made u64 by the same nanoseconds,
//!                    new image as above
//! ```

use crate::bytes::{Reader, Writer};
use evenkeel_model::{LogTime, Slot, Timestamp};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

/// For how long outcomes are known, in the log's time.
pub const OUTCOMES_KEPT_NS: u64 = 30_000_000_000;
/// Most bytes of outcomes of one partition; beyond them the oldest are forgotten. With what else is written
/// down beside a snapshot they fit into a frame of the log.
const OUTCOMES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an outcome takes besides its images.
const OUTCOME_OVERHEAD_BYTES: usize = 192;

/// Names a write, so that it can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestToken {
    /// Drawn at random by whoever sends.
    pub session: u128,
    /// Rises from write to write.
    pub sequence: u64,
    /// The least sequence whose answer has not arrived: what is below never comes again.
    pub lowest: u64,
}

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub slot: Slot,
    pub old: Option<Rc<[u8]>>,
    pub new: Option<Rc<[u8]>>,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: the write is new.
    Fresh,
    /// Its entry is applied.
    Done(Recorded),
    /// Its sender has had the answer.
    Stale,
}

/// What an entry's note says of its write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenNote<'a> {
    pub token: RequestToken,
    pub wants_new: bool,
    pub old: Option<&'a [u8]>,
}

#[derive(Debug, Default)]
struct Session {
    lowest: u64,
    /// With when it was made.
    outcomes: BTreeMap<u64, (u64, Recorded)>,
}

/// The outcomes of a partition.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: HashMap<u128, Session>,
    /// The oldest first: when it was made, session and sequence.
    ages: VecDeque<(u64, u128, u64)>,
    bytes: usize,
    time: LogTime,
}

impl TokenNote<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        self.write(&mut to);
        to.bytes
    }

    fn write(&self, to: &mut Writer) {
        to.u128(self.token.session);
        to.u64(self.token.sequence);
        to.u64(self.token.lowest);
        to.u32(self.wants_new.into());
        to.optional(self.old);
    }

    fn read<'a>(from: &mut Reader<'a>) -> Option<TokenNote<'a>> {
        let token = RequestToken { session: from.u128()?, sequence: from.u64()?, lowest: from.u64()? };
        Some(TokenNote { token, wants_new: from.u32()? == 1, old: from.optional()? })
    }

    pub fn decode(bytes: &[u8]) -> Option<TokenNote<'_>> {
        let mut from = Reader::new(bytes);
        TokenNote::read(&mut from).filter(|_| from.is_empty())
    }
}

impl Sessions {
    /// What is known of a token.
    pub fn known(&self, token: RequestToken) -> Known {
        let Some(session) = self.sessions.get(&token.session) else { return Known::Fresh };
        match session.outcomes.get(&token.sequence) {
            Some((_, recorded)) => Known::Done(recorded.clone()),
            None if token.sequence < session.lowest => Known::Stale,
            None => Known::Fresh,
        }
    }

    /// Records the outcome of an entry that is applied now.
    pub fn record(&mut self, note: &TokenNote<'_>, slot: Slot, timestamp: Timestamp, new: Option<&Rc<[u8]>>) {
        let old = note.old.map(Rc::from);
        let recorded = Recorded { slot, old, new: new.filter(|_| note.wants_new).cloned() };
        let made_ns = self.time.advance(timestamp);
        self.keep(note.token, made_ns, recorded);
        self.expire(made_ns);
    }

    /// Takes note of an entry without a token: time has passed.
    pub fn pass(&mut self, timestamp: Timestamp) {
        self.time.advance(timestamp);
    }

    fn keep(&mut self, token: RequestToken, made_ns: u64, recorded: Recorded) {
        let session = self.sessions.entry(token.session).or_default();
        session.lowest = session.lowest.max(token.lowest);
        let kept = session.outcomes.split_off(&session.lowest);
        let forgotten = std::mem::replace(&mut session.outcomes, kept);
        self.bytes += recorded.bytes();
        let replaced = session.outcomes.insert(token.sequence, (made_ns, recorded));
        let gone = forgotten.into_values().chain(replaced).map(|(_, recorded)| recorded.bytes());
        self.bytes -= gone.sum::<usize>();
        self.ages.push_back((made_ns, token.session, token.sequence));
    }

    /// Forgets what is too old now, and the oldest if there is too much.
    fn expire(&mut self, now_ns: u64) {
        while let Some(&(made_ns, id, sequence)) = self.ages.front() {
            let old = made_ns.saturating_add(OUTCOMES_KEPT_NS) < now_ns;
            if !old && self.bytes <= OUTCOMES_BYTES_MAX {
                return;
            }
            self.ages.pop_front();
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.outcomes.get(&sequence).is_some_and(|(kept, _)| *kept == made_ns) {
                let (_, recorded) = session.outcomes.remove(&sequence).expect("looked up on the line above");
                self.bytes -= recorded.bytes();
            }
            if session.outcomes.is_empty() {
                self.sessions.remove(&id);
            }
        }
    }

    pub fn write(&self, to: &mut Writer) {
        to.u64(self.time.last.0);
        to.u64(self.time.elapsed_ns);
        let count_at = to.bytes.len();
        to.u32(0);
        let mut count = 0u32;
        for &(made_ns, session, sequence) in &self.ages {
            let Some(known) = self.sessions.get(&session) else { continue };
            let Some((kept, recorded)) = known.outcomes.get(&sequence) else { continue };
            if *kept != made_ns {
                continue;
            }
            let token = RequestToken { session, sequence, lowest: known.lowest };
            let (wants_new, old) = (recorded.new.is_some(), recorded.old.as_deref());
            TokenNote { token, wants_new, old }.write(to);
            to.u64(recorded.slot.0);
            to.u64(made_ns);
            to.optional(recorded.new.as_deref());
            count += 1;
        }
        to.bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    }

    pub fn read(from: &mut Reader<'_>) -> Option<Sessions> {
        let time = LogTime { last: Timestamp(from.u64()?), elapsed_ns: from.u64()? };
        let mut sessions = Sessions { time, ..Sessions::default() };
        for _ in 0..from.u32()? {
            let note = TokenNote::read(from)?;
            let (slot, made_ns) = (Slot(from.u64()?), from.u64()?);
            let (old, new) = (note.old.map(Rc::from), from.optional()?.map(Rc::from));
            sessions.keep(note.token, made_ns, Recorded { slot, old, new });
        }
        Some(sessions)
    }
}

impl Recorded {
    fn bytes(&self) -> usize {
        let image = |image: &Option<Rc<[u8]>>| image.as_ref().map_or(0, |image| image.len());
        OUTCOME_OVERHEAD_BYTES + image(&self.old) + image(&self.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(sequence: u64, lowest: u64) -> RequestToken {
        RequestToken { session: 7, sequence, lowest }
    }

    fn record(sessions: &mut Sessions, sequence: u64, lowest: u64, timestamp: u64) {
        let note = TokenNote { token: token(sequence, lowest), wants_new: true, old: Some(b"old") };
        sessions.record(&note, Slot(sequence), Timestamp(timestamp), Some(&Rc::from(*b"new")));
    }

    fn slot(sessions: &Sessions, sequence: u64) -> Option<u64> {
        match sessions.known(token(sequence, 0)) {
            Known::Done(recorded) => Some(recorded.slot.0),
            Known::Fresh | Known::Stale => None,
        }
    }

    #[test]
    fn outcomes_are_forgotten_below_the_lowest_unanswered_sequence() {
        let mut sessions = Sessions::default();
        (1..=3).for_each(|sequence| record(&mut sessions, sequence, 1, sequence));
        assert_eq!(slot(&sessions, 1), Some(1));
        record(&mut sessions, 4, 3, 4);
        assert_eq!((slot(&sessions, 2), slot(&sessions, 3)), (None, Some(3)));
        assert_eq!(sessions.known(token(2, 0)), Known::Stale, "a late duplicate is not new");
        assert_eq!(sessions.known(token(5, 0)), Known::Fresh);
    }

    #[test]
    fn outcomes_are_forgotten_after_thirty_seconds_of_the_logs_time() {
        let mut sessions = Sessions::default();
        let second = 1_000_000_000;
        (1..=31).for_each(|at| record(&mut sessions, at, 0, at * second));
        assert_eq!(slot(&sessions, 1), Some(1));
        sessions.pass(Timestamp(31 * second + 1));
        record(&mut sessions, 32, 0, 31 * second + 2);
        assert_eq!((slot(&sessions, 1), slot(&sessions, 2)), (None, Some(2)));
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_has_no_outcome_forgotten() {
        let mut sessions = Sessions::default();
        record(&mut sessions, 1, 0, 1);
        record(&mut sessions, 2, 0, 3_600_000_000_000);
        assert_eq!((slot(&sessions, 1), slot(&sessions, 2)), (Some(1), Some(2)));
    }

    #[test]
    fn outcomes_survive_being_written_down() {
        let mut sessions = Sessions::default();
        (1..=5).for_each(|sequence| record(&mut sessions, sequence, 3, sequence));
        let mut to = Writer::default();
        sessions.write(&mut to);
        let again = Sessions::read(&mut Reader::new(&to.bytes)).unwrap();
        for sequence in 0..8 {
            assert_eq!(again.known(token(sequence, 0)), sessions.known(token(sequence, 0)));
        }
        assert_eq!(again.bytes, sessions.bytes);
        assert!(Sessions::read(&mut Reader::new(&to.bytes[..9])).is_none());
    }

    #[test]
    fn the_bytes_of_a_note_are_frozen() {
        let note = TokenNote { token: token(0x21, 0x11), wants_new: true, old: Some(b"old") };
        let hex: String = note.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "07000000000000000000000000000000\
             2100000000000000\
             1100000000000000\
             01000000\
             040000006f6c64"
        );
        assert_eq!(TokenNote::decode(&note.encode()), Some(note));
    }
}
