//! Closing gaps: what a member lacks is read from a log and sent to it, or it is told to begin anew.
//!
//! The only place from which two logs are known to be equal without comparing is a chosen slot, so every
//! catch-up begins there. What is not in memory is read by the shell ([`Action::Load`]).

use crate::configuration::{Configuration, MemberId};
use crate::entry::{Anchor, Entry};
use crate::message::Message;
use crate::output::{Action, Token};
use crate::replica::{Replica, Role, Step};
use crate::settings::Facts;
use evenkeel_model::{Ballot, Slot};

impl Replica {
    /// A follower's log does not join what it was sent: begin where it knows the log to be chosen.
    pub(crate) fn on_behind<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        chosen: Slot,
    ) {
        let end = self.log.end().slot;
        let Role::Leading(leading) = &mut self.role else { return };
        if ballot != leading.ballot || chosen > end {
            return;
        }
        let Some(at) = leading.peers.iter().position(|peer| peer.member.id == from) else { return };
        let peer = &mut leading.peers[at];
        let is_ahead = chosen > peer.known;
        if peer.rewound && !is_ahead {
            return;
        }
        (peer.rewound, peer.copying) = (true, peer.copying && !is_ahead);
        peer.known = peer.matched.max(chosen);
        peer.sent = peer.known;
        self.greet(step, at);
    }

    /// A candidate to whom this member has promised asks for the log it must adopt.
    pub(crate) fn on_fetch<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        after: Anchor,
        upto: Slot,
    ) {
        if ballot == self.promised && from == MemberId(ballot.replica) {
            let most = after.slot.0.saturating_add(step.facts.settings().entries_per_message_max as u64);
            let upto = upto.min(Slot(most)).min(self.log.end().slot);
            step.out.push(Action::Load { to: from, after: after.slot, upto });
        }
    }

    pub(crate) fn on_loaded<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        to: MemberId,
        after: Anchor,
        entries: &[Entry],
    ) {
        let end = self.log.end().slot;
        let last = Slot(after.slot.0 + entries.len() as u64);
        if let Role::Leading(leading) = &mut self.role {
            let Some(at) = leading.peers.iter().position(|peer| peer.member.id == to) else { return };
            let peer = &mut leading.peers[at];
            peer.loading = false;
            if peer.sent != after.slot || last > end {
                return;
            }
            peer.sent = last;
            let message = self.accept_message(after);
            self.send_entries(step, to, message, entries);
            self.supply_member(step, to);
        } else if to == MemberId(self.promised.replica) {
            let message = Message::Entries { ballot: self.promised, after };
            self.send_entries(step, to, message, entries);
        }
    }

    pub(crate) fn on_trimmed<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        to: MemberId,
        base: Anchor,
        configuration: Configuration,
    ) {
        if let Role::Leading(leading) = &mut self.role {
            let Some(peer) = leading.peers.iter_mut().find(|peer| peer.member.id == to) else { return };
            (peer.loading, peer.copying) = (false, true);
        } else if to != MemberId(self.promised.replica) {
            return;
        }
        self.send(step, to, Message::Begin { ballot: self.promised, base, configuration });
    }

    fn send_entries<F: Facts>(
        &self,
        step: &mut Step<'_, F>,
        to: MemberId,
        message: Message,
        entries: &[Entry],
    ) {
        let entries = step.out.hold(entries.iter().copied());
        step.out.push(Action::Send { to, message, entries, after: Token(0) });
    }
}
