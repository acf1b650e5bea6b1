//! Swaps of members: one entry puts a new member in the place of an old one.
//!
//! The new member first learns the log, without a vote, until it holds all that is chosen; then the swap
//! is proposed. Nothing is proposed past it, and it is chosen by a quorum of the old and of the new
//! members. Each of these rules, left out, loses writes within seconds of model search.

use crate::configuration::{Configuration, Member, MemberId};
use crate::entry::EntryKind;
use crate::leader::Peer;
use crate::message::Message;
use crate::output::Output;
use crate::replica::{Refused, Replica, Role, Step};
use crate::settings::{Facts, Time, trap};
use evenkeel_model::Slot;

/// A swap that waits for its new member to learn the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Learner {
    remove: MemberId,
    add: Member,
}

impl Replica {
    /// Begins to put `add` in the place of `remove`. The new member's replica must exist
    /// ([`Replica::joining`]). A swap that still waits for another new member is given up for this one.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn swap(
        &mut self,
        now: Time,
        remove: MemberId,
        add: Member,
        facts: &impl Facts,
        out: &mut Output,
    ) -> Result<(), Refused> {
        let mut step = self.begin_step(now, facts, out);
        let chosen = self.log.chosen().slot;
        let pending = self.log.pending().is_some();
        let next = self.log.pending().unwrap_or(self.log.configuration()).swapped(remove, add);
        let refusal = self.refusal();
        let me = self.id();
        let Role::Leading(leading) = &mut self.role else { return Err(refusal) };
        if leading.opened == Slot(0) || pending && !trap!(facts, TwoSwaps) {
            return Err(Refused::SwapPending);
        }
        if next.is_none() || remove == me {
            return Err(Refused::BadSwap);
        }
        if let Some(former) = leading.learner.replace(Learner { remove, add }) {
            leading.peers.retain(|peer| peer.member != former.add);
        }
        leading.peers.push(Peer::new(add, chosen));
        let at = leading.peers.len() - 1;
        self.greet(&mut step, at);
        self.progress_learner(&mut step);
        Ok(())
    }

    /// Proposes the swap once its new member holds everything that is chosen.
    pub(crate) fn progress_learner<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let chosen = self.log.chosen().slot;
        let base = *self.log.pending().unwrap_or(self.log.configuration());
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(Learner { remove, add }) = leading.learner.clone() else { return };
        let early = trap!(step.facts, LogReplicaVotesEarly);
        let second = trap!(step.facts, TwoSwaps);
        // Before its own first entry is chosen, a leader does not know what the tail to be held is.
        let opened = chosen >= leading.opened;
        let learned = opened && leading.peer(add.id).is_some_and(|peer| peer.matched >= chosen);
        if !(learned || early || second) {
            return;
        }
        leading.learner = None;
        let Some(next) = base.swapped(remove, add) else { return };
        let kind = EntryKind::Swap(next);
        let checksum = step.facts.seal(self.log.end(), &kind);
        self.append_own(step, &[checksum], kind);
        if trap!(step.facts, LogReplicaVotesEarly) {
            let end = self.log.end().slot;
            let Role::Leading(leading) = &mut self.role else { return };
            leading.peers.iter_mut().filter(|peer| peer.member == add).for_each(|peer| peer.matched = end);
        }
        self.supply_all(step);
    }

    /// A swap is chosen: everybody hears of it, and the removed member is forgotten.
    pub(crate) fn on_swapped<F: Facts>(&mut self, step: &mut Step<'_, F>, before: &Configuration) {
        let configuration = *self.log.configuration();
        let Role::Leading(leading) = &mut self.role else { return };
        let members: Vec<MemberId> = leading.peers.iter().map(|peer| peer.member.id).collect();
        leading
            .peers
            .retain(|peer| configuration.contains(peer.member.id) || !before.contains(peer.member.id));
        let chosen = self.log.chosen();
        for id in members {
            self.send(step, id, Message::Commit { chosen });
        }
        if !configuration.contains(self.id()) {
            self.relinquish(step, None);
            return;
        }
        self.open(step);
        self.supply_all(step);
    }
}
