//! The acceptor: promises and votes.
//!
//! A vote is a statement about a prefix: "my durable log equals the log of this ballot's leader up to
//! this slot". It is made only when the entry before the first one carried is the same here, and that
//! entry's checksum vouches for all before it.

use crate::configuration::{Configuration, MemberId};
use crate::election::Following;
use crate::entry::{Anchor, Entry};
use crate::message::Message;
use crate::output::{Action, Record, Token};
use crate::replica::{Binding, Replica, Role, Step};
use crate::settings::{Facts, ROUND_MAX, trap};
use evenkeel_model::{Ballot, Generation, Slot};

/// How entries that came in join the log.
enum Joint {
    /// They follow this slot, once the part that is chosen here is left out.
    At { after: Slot, skip: usize },
    /// There is a gap, or nothing that could be compared.
    Apart,
    /// They contradict what is chosen: a leader of the past sent them.
    Stale,
}

impl Replica {
    pub(crate) fn on_prepare<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        generation: Generation,
        chosen: Anchor,
    ) {
        if generation != self.generation || self.blank() || !valid(step, ballot) {
            return;
        }
        if self.log.configuration().has_removed(from) {
            // It does not know; promising it anything would only disturb those who are members.
            let (base, configuration) = (self.log.chosen(), *self.log.configuration());
            self.send(step, from, Message::Begin { ballot, base, configuration });
            return;
        }
        let restarting = step.now < self.votes_from && !trap!(step.facts, VoteWithoutWait);
        let bound = self.bound_against(step, ballot) && !trap!(step.facts, BoundMemberPromises);
        if ballot < self.promised || (ballot > self.promised && (restarting || bound)) {
            self.send(step, from, Message::Nack { ballot, promised: self.promised });
            return;
        }
        if ballot > self.promised {
            self.follow(step, Ballot::default());
            self.wait_for_leader(step);
            self.promised = ballot;
            self.persist(step, Record::Promise { ballot }, []);
        }
        let promise = self.promise(ballot, chosen);
        let Message::Promise { after, .. } = promise else { unreachable!("made on the line above") };
        let held = (self.log.anchor(after.slot) == Some(after)).then_some(after.slot);
        let entries = held.into_iter().flat_map(|slot| self.log.behind(slot, usize::MAX));
        let entries = step.out.hold(entries);
        if trap!(step.facts, PromiseBeforeDurable) {
            step.out.push(Action::Send { to: from, message: promise, entries, after: Token(0) });
        } else {
            self.send_durable(step, from, promise, entries);
        }
    }

    /// What this member has to say in phase 1 to a candidate whose log is chosen up to `theirs`. The
    /// entries begin behind the later of the two chosen anchors; if the candidate's is the later one and
    /// this log does not hold it, none of its entries can be of use.
    pub(crate) fn promise(&self, ballot: Ballot, theirs: Anchor) -> Message {
        let chosen = self.log.chosen();
        let after = if theirs.slot > chosen.slot { theirs } else { chosen };
        Message::Promise { ballot, chosen, configuration: *self.log.configuration(), after }
    }

    pub(crate) fn on_accept<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        (ballot, generation): (Ballot, Generation),
        after: Anchor,
        chosen: Slot,
        entries: &[Entry],
    ) {
        if generation != self.generation || !valid(step, ballot) {
            return;
        }
        if ballot < self.promised {
            self.send(step, from, Message::Nack { ballot, promised: self.promised });
            return;
        }
        self.follow_leader(step, ballot);
        match self.joint(step, after, entries) {
            Joint::Stale => {}
            Joint::Apart => {
                self.hear(step);
                let chosen = self.log.chosen().slot;
                self.send(step, from, Message::Behind { ballot, chosen });
            }
            Joint::At { after: joint, skip } => {
                let upto = Slot(after.slot.0 + entries.len() as u64);
                self.accept(step, ballot, joint, &entries[skip..], chosen.min(upto));
                if trap!(step.facts, CommitBeyondVerified) {
                    self.choose(step, chosen.min(self.log.end().slot));
                }
                self.acknowledge(step, from, ballot, upto);
            }
        }
    }

    fn follow_leader<F: Facts>(&mut self, step: &mut Step<'_, F>, ballot: Ballot) {
        if self.following_ballot() != ballot {
            self.follow(step, ballot);
        }
    }

    /// The leader speaks to this member, which cannot bind itself to it yet: it has no reason to stand.
    fn hear<F: Facts>(&mut self, step: &Step<'_, F>) {
        if let Some(following) = self.following() {
            following.hear();
        }
        self.wait_for_leader(step);
    }

    fn acknowledge<F: Facts>(&mut self, step: &mut Step<'_, F>, to: MemberId, ballot: Ballot, upto: Slot) {
        let given = step.facts.given(to);
        let epoch = if given.live(step.now) { given.epoch } else { 0 };
        self.bound = Binding { ballot, epoch };
        self.outside = false;
        self.wait_for_leader(step);
        let message = Message::Accepted { ballot, upto, epoch };
        let nothing = step.out.hold([]);
        if trap!(step.facts, AcceptedBeforeDurable) {
            step.out.push(Action::Send { to, message, entries: nothing, after: Token(0) });
        } else {
            self.send_durable(step, to, message, nothing);
        }
    }

    fn joint<F: Facts>(&self, step: &Step<'_, F>, after: Anchor, entries: &[Entry]) -> Joint {
        let chosen = self.log.chosen();
        if after.slot >= chosen.slot {
            let unchecked = trap!(step.facts, NoPreviousCheck) && after.slot <= self.log.end().slot;
            return if self.log.holds(after) || unchecked {
                Joint::At { after: after.slot, skip: 0 }
            } else {
                Joint::Apart
            };
        }
        let skip = usize::try_from(chosen.slot.0 - after.slot.0).unwrap_or(usize::MAX);
        match skip.checked_sub(1).and_then(|last| entries.get(last)) {
            None => Joint::Apart,
            Some(entry) if entry.checksum == chosen.checksum => Joint::At { after: chosen.slot, skip },
            Some(_) => Joint::Stale,
        }
    }

    /// Accepts entries that follow `after`, an entry that both logs have, and writes down what is new:
    /// the ballot, and the entries from the first one on that differs. That one and all behind it lose
    /// their places: had one of them been chosen, this leader would have adopted it.
    pub(crate) fn accept<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        ballot: Ballot,
        after: Slot,
        entries: &[Entry],
        chosen: Slot,
    ) -> Token {
        let same = entries
            .iter()
            .zip(self.log.behind(after, usize::MAX))
            .take_while(|(theirs, ours)| theirs.checksum == ours.checksum)
            .count();
        let joint = Slot(after.0 + same as u64);
        let fresh = &entries[same..];
        let last = self.log.get(joint);
        let known = last.is_none_or(|entry| entry.ballot >= ballot) && ballot == self.promised;
        let version = self.log.configuration().version;
        let chosen_before = self.log.chosen();
        self.promised = ballot;
        self.log.reaccept(joint, ballot);
        let after = self.log.anchor(joint).expect("the log has what was compared with it");
        if !fresh.is_empty() {
            self.log.truncate(joint);
            for entry in fresh {
                self.log.append(Entry { ballot, ..*entry });
            }
        }
        self.log.choose(chosen);
        if !fresh.is_empty() || !known {
            let record = Record::Accept { ballot, after, chosen: self.log.chosen().slot };
            self.persist(step, record, fresh.iter().map(|entry| Entry { ballot, ..*entry }));
        }
        if self.log.chosen() != chosen_before {
            self.told_chosen(step, version);
        } else if trap!(step.facts, CommitGoesBack) && chosen < chosen_before.slot {
            step.out.push(Action::Committed { chosen: Anchor { slot: chosen, checksum: 0 } });
        }
        self.written
    }

    pub(crate) fn on_commit<F: Facts>(&mut self, step: &mut Step<'_, F>, chosen: Anchor) {
        if chosen.slot > self.log.chosen().slot && self.log.holds(chosen) {
            let before = *self.log.configuration();
            self.choose(step, chosen.slot);
            if self.log.configuration().version != before.version {
                // A leader may hear from the one before it that the swap it is repeating is chosen.
                self.on_swapped(step, &before);
            }
        }
    }

    /// A log that begins later than this member's ends. A log replica has no tree to fill and begins
    /// there too; one with a tree needs the snapshot.
    pub(crate) fn on_begin<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        base: Anchor,
        configuration: Configuration,
    ) {
        if configuration.has_removed(self.id()) {
            self.leave(step);
            return;
        }
        if ballot >= self.promised && from == MemberId(ballot.replica) && valid(step, ballot) {
            self.follow_leader(step, ballot);
            self.hear(step);
        }
        // That the base is chosen is true whoever says it; only the answer depends on the ballot.
        let useful = base.slot > self.log.chosen().slot;
        if useful && self.has_tree() {
            step.out.push(Action::NeedSnapshot { from, base });
        } else if useful {
            self.begin(step, base, configuration);
        }
        if ballot < self.promised {
            self.send(step, from, Message::Nack { ballot, promised: self.promised });
        } else if base.slot <= self.log.chosen().slot {
            let (nothing, chosen) = (step.out.hold([]), self.log.chosen().slot);
            self.send_durable(step, from, Message::Behind { ballot, chosen }, nothing);
        }
    }

    pub(crate) fn on_installed<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        base: Anchor,
        configuration: Configuration,
    ) {
        if base.slot <= self.log.chosen().slot {
            return;
        }
        let ballot = self.following_ballot();
        self.follow(step, ballot);
        self.begin(step, base, configuration);
        self.wait_for_leader(step);
        if ballot != Ballot::default() {
            let leader = MemberId(ballot.replica);
            let nothing = step.out.hold([]);
            self.send_durable(step, leader, Message::Behind { ballot, chosen: base.slot }, nothing);
        }
    }

    fn begin<F: Facts>(&mut self, step: &mut Step<'_, F>, base: Anchor, configuration: Configuration) {
        let version = self.log.configuration().version;
        self.keep_or_begin(step, base, configuration);
        self.persist(step, Record::Begin { base, configuration }, []);
        self.told_chosen(step, version);
    }

    fn keep_or_begin<F: Facts>(&mut self, _step: &Step<'_, F>, base: Anchor, configuration: Configuration) {
        #[cfg(feature = "traps")]
        if trap!(_step.facts, TailKeptOverInstall) {
            self.log.begin_keeping_the_tail(base, configuration);
            return;
        }
        self.log.begin(base, configuration);
    }

    fn following_ballot(&self) -> Ballot {
        match &self.role {
            Role::Following(following) => following.leader_ballot(),
            Role::Campaigning(_) | Role::Leading(_) => Ballot::default(),
        }
    }

    /// Whether this member must not promise `ballot`: it is bound to a leader that its core supports. A
    /// leader's own word binds nobody against itself: its next campaign says that its last ballot is over.
    fn bound_against<F: Facts>(&self, step: &Step<'_, F>, ballot: Ballot) -> bool {
        match &self.role {
            Role::Leading(_) => self.holds_lease(step),
            Role::Following(_) | Role::Campaigning(_) => {
                self.bound_live(step) && ballot.replica != self.bound.ballot.replica
            }
        }
    }

    /// Whether this member is bound to a leader that its core supports, without a lapse since. A leader
    /// that a chosen swap has removed binds nobody: it leads no more, or lost its lease before.
    pub(crate) fn bound_live<F: Facts>(&self, step: &Step<'_, F>) -> bool {
        let Binding { ballot, epoch } = self.bound;
        let leader = MemberId(ballot.replica);
        let given = step.facts.given(leader);
        let bound = epoch != 0 && ballot == self.promised && given.epoch == epoch;
        bound && given.live(step.now) && !self.log.configuration().has_removed(leader)
    }

    /// While nobody leads, time matters.
    pub(crate) fn wait_for_leader<F: Facts>(&mut self, step: &Step<'_, F>) {
        self.wake = if self.bound_live(step) { None } else { Some(step.now.after(self.patience_ns(step))) };
    }

    pub(crate) fn following(&mut self) -> Option<&mut Following> {
        match &mut self.role {
            Role::Following(following) => Some(following),
            Role::Campaigning(_) | Role::Leading(_) => None,
        }
    }
}

/// Whether a ballot can be real.
fn valid<F: Facts>(step: &Step<'_, F>, ballot: Ballot) -> bool {
    ballot.round <= ROUND_MAX || trap!(step.facts, RoundUnbounded)
}
