//! What members have said that they hold, and must hold through every crash; and what cores themselves
//! have seen to be wrong.
//!
//! A member that acknowledges entries or promises a ballot says so in a message. Whatever becomes of its
//! process, it must know all of that again when it is back: entries up to what it acknowledged, as far as they
//! are chosen, and a ballot no lesser than the one promised. Only a member with another number need not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A ballot, as its round and its replica.
pub type Ballot = (u64, u32);

/// What a member has said.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Word {
    /// Its durable log equals a leader's up to this slot.
    pub upto: u64,
    /// It accepts nothing below.
    pub ballot: Ballot,
}

#[derive(Default, Debug)]
struct Inner {
    /// By partition and member, with the ballot under which the log was equal to its leader's.
    words: BTreeMap<(usize, u32), (Word, Ballot)>,
    /// The greatest slot of each partition that anybody has applied.
    chosen: BTreeMap<usize, u64>,
    wrong: Option<String>,
}

/// The watch over one run. A clone is the same one.
#[derive(Clone, Default, Debug)]
pub struct Watch {
    inner: Rc<RefCell<Inner>>,
}

impl Watch {
    /// A member says in a message that its log equals that of the leader of a ballot up to a slot.
    pub fn acknowledged(&self, partition: usize, member: u32, ballot: Ballot, upto: u64) {
        let words = &mut self.inner.borrow_mut().words;
        let (word, under) = words.entry((partition, member)).or_default();
        word.upto = word.upto.max(upto);
        *under = ballot.max(*under);
        word.ballot = word.ballot.max(ballot);
    }

    /// A leader has sent a member entries behind a slot: what the member held there under a lesser ballot may be
    /// replaced from now on.
    pub fn replaces(&self, partition: usize, member: u32, ballot: Ballot, after: u64) {
        let words = &mut self.inner.borrow_mut().words;
        if let Some((word, under)) = words.get_mut(&(partition, member))
            && *under < ballot
        {
            word.upto = word.upto.min(after);
        }
    }

    /// A member promises a ballot in a message.
    pub fn promised(&self, partition: usize, member: u32, ballot: Ballot) {
        let words = &mut self.inner.borrow_mut().words;
        let (word, _) = words.entry((partition, member)).or_default();
        word.ballot = word.ballot.max(ballot);
    }

    /// Somebody has applied the log of a partition up to a slot.
    pub fn applied(&self, partition: usize, slot: u64) {
        let chosen = &mut self.inner.borrow_mut().chosen;
        let known = chosen.entry(partition).or_default();
        *known = slot.max(*known);
    }

    /// What a member has said that must still be true: of its log only what is chosen, for the rest may have
    /// been replaced by a later leader.
    pub fn word(&self, partition: usize, member: u32) -> Word {
        let inner = self.inner.borrow();
        let chosen = inner.chosen.get(&partition).copied().unwrap_or_default();
        let (Word { upto, ballot }, _) = inner.words.get(&(partition, member)).copied().unwrap_or_default();
        Word { upto: upto.min(chosen), ballot }
    }

    /// Something is wrong, by itself; the first report counts.
    pub fn report(&self, wrong: String) {
        self.inner.borrow_mut().wrong.get_or_insert(wrong);
    }

    /// What was reported.
    pub fn wrong(&self) -> Option<String> {
        self.inner.borrow().wrong.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_as_far_as_the_log_is_chosen_and_never_shrinks() {
        let watch = Watch::default();
        watch.acknowledged(3, 1, (1, 1), 9);
        watch.acknowledged(3, 1, (1, 1), 7);
        watch.promised(3, 1, (2, 2));
        watch.promised(3, 1, (1, 3));
        assert_eq!(watch.word(3, 1), Word { upto: 0, ballot: (2, 2) });
        watch.applied(3, 8);
        watch.applied(3, 5);
        assert_eq!(watch.word(3, 1).upto, 8);
        assert_eq!(watch.word(3, 2), Word::default());
    }

    #[test]
    fn what_a_later_leader_may_replace_is_no_word_any_more() {
        let watch = Watch::default();
        watch.acknowledged(3, 1, (1, 1), 9);
        watch.applied(3, 9);
        watch.replaces(3, 1, (1, 1), 4);
        assert_eq!(watch.word(3, 1).upto, 9, "the same leader has the same entries");
        watch.replaces(3, 1, (2, 2), 6);
        assert_eq!(watch.word(3, 1).upto, 6);
        watch.acknowledged(3, 1, (2, 2), 8);
        watch.replaces(3, 1, (2, 2), 6);
        assert_eq!(watch.word(3, 1), Word { upto: 8, ballot: (2, 2) });
    }
}
