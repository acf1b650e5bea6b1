//! Phase 2: a leader proposes, keeps its followers supplied, and counts their votes.
//!
//! Accepts leave at the moment of the proposal, beside the leader's own log write, and one after the
//! other without waiting for answers. A follower's answer says how far its log equals the leader's; what a
//! quorum has is chosen. While a swap stands at the end of the log nothing is proposed past it, and it is
//! chosen only by a quorum of the old and of the new members.

use crate::configuration::{Configuration, Member, MemberId};
use crate::election::Following;
use crate::entry::{Anchor, Entry, EntryKind};
use crate::membership::Learner;
use crate::message::Message;
use crate::output::{Action, Output, Record, Token};
use crate::replica::{Refused, Replica, Role, Standing, Step};
use crate::settings::{Facts, Time, trap};
use evenkeel_model::{Ballot, Slot};
use std::collections::VecDeque;

/// The state of a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leadership {
    pub ballot: Ballot,
    /// The other members, those of a swap under way, and a member that is to be swapped in.
    pub peers: Vec<Peer>,
    /// Own writes under way, and up to where each makes the log durable.
    writes: VecDeque<(Token, Slot)>,
    /// Up to where the own log is durable under this ballot.
    own: Slot,
    /// The first slot this leader proposed itself; 0 before it could. Chosen, everything before is known.
    pub opened: Slot,
    pub learner: Option<Learner>,
    /// Since when no quorum supports this leader.
    alone_since: Option<Time>,
}

/// What a leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub member: Member,
    /// Its durable log equals the leader's up to here.
    pub matched: Slot,
    /// Where to begin when something has to be sent again.
    pub known: Slot,
    /// Up to where entries have been sent.
    pub sent: Slot,
    /// `known`, when the time was last looked at.
    seen: Slot,
    /// Older entries are being read from the log for it.
    pub loading: bool,
    /// The log begins later than it needs, and it was told so: nothing can be sent before it says that it has
    /// begun anew. It is told again when time passes.
    pub copying: bool,
    /// It said that it could not join what it was sent, and was sent everything again. More such answers
    /// are to what was under way before, until it gets ahead or time passes.
    pub rewound: bool,
    /// The stretch of support under which it is bound to this leader; 0 if it is not.
    pub epoch: u64,
    /// The stretch of support under which it was last asked to bind itself.
    asked: u64,
}

impl Peer {
    pub fn new(member: Member, known: Slot) -> Peer {
        let matched = Slot(0);
        Peer {
            member,
            matched,
            known,
            sent: known,
            seen: known,
            loading: false,
            copying: false,
            rewound: false,
            epoch: 0,
            asked: 0,
        }
    }

    /// Everything behind what it is known to have is sent once more.
    fn rewind(&mut self) {
        self.sent = self.known;
        (self.loading, self.copying, self.rewound) = (false, false, false);
    }

    /// Nothing is to be sent to it at the moment, whatever it lacks.
    fn rests(&self) -> bool {
        self.loading || self.copying
    }
}

impl Leadership {
    pub fn peer(&self, id: MemberId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.member.id == id)
    }

    pub fn heap_bytes(&self) -> usize {
        size_of::<Leadership>()
            + self.peers.capacity() * size_of::<Peer>()
            + self.writes.capacity() * size_of::<(Token, Slot)>()
    }

    pub fn shrink(&mut self) {
        self.peers.shrink_to_fit();
        self.writes.shrink_to_fit();
    }

    /// The greatest slot that a quorum's durable logs reach.
    fn quorum_slot(&self, me: MemberId, configuration: &Configuration) -> Slot {
        let mut slots = [Slot(0); crate::MEMBERS_MAX];
        let ids = configuration.ids();
        for (slot, &id) in slots.iter_mut().zip(ids) {
            *slot = if id == me { self.own } else { self.peer(id).map_or(Slot(0), |peer| peer.matched) };
        }
        let slots = &mut slots[..ids.len()];
        slots.sort_unstable_by(|a, b| b.cmp(a));
        slots[ids.len() / 2]
    }
}

impl Replica {
    /// Proposes writes with these chained checksums, in order, behind [`Replica::end`]. Returns the slot of
    /// the first. Whether they are chosen shows in [`Action::Committed`]; if leadership is lost before,
    /// they may still be chosen by somebody else.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn propose(
        &mut self,
        now: Time,
        checksums: &[u128],
        facts: &impl Facts,
        out: &mut Output,
    ) -> Result<Slot, Refused> {
        let mut step = self.begin_step(now, facts, out);
        let Role::Leading(leading) = &self.role else { return Err(self.refusal()) };
        let swapping = self.log.pending().is_some() || leading.opened == Slot(0);
        if swapping && !trap!(facts, ProposePastSwap) {
            return Err(Refused::SwapPending);
        }
        if self.log.len() + checksums.len() > facts.settings().entries_in_flight_max {
            return Err(Refused::Full);
        }
        let first = self.log.end().slot.next();
        self.append_own(&mut step, checksums, EntryKind::Command);
        self.supply_all(&mut step);
        Ok(first)
    }

    pub(crate) fn refusal(&self) -> Refused {
        match self.standing() {
            Standing::Follower(leader) => Refused::NotLeader(leader),
            Standing::Candidate | Standing::Leader => Refused::NotLeader(None),
        }
    }

    /// What a leader has to tell whoever has not heard that everything is chosen: it rides on the next
    /// support message to each member's core, so that an idle group has no traffic of its own.
    pub fn announcement(&self) -> Option<Message> {
        match &self.role {
            Role::Leading(_) => Some(Message::Commit { chosen: self.log.chosen() }),
            Role::Following(_) | Role::Campaigning(_) => None,
        }
    }

    /// Begins to lead with a log that is the one phase 1 prescribes: accepts it again under the new ballot
    /// and proposes a no-op behind it.
    pub(crate) fn lead<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let ballot = self.promised;
        let (chosen, end) = (self.log.chosen(), self.log.end());
        let me = self.id();
        let configuration = *self.log.configuration();
        let mut peers: Vec<Peer> =
            configuration.members().map(|member| Peer::new(member, chosen.slot)).collect();
        if let Some(pending) = self.log.pending() {
            let added = pending.members().filter(|member| !configuration.contains(member.id));
            peers.extend(added.map(|member| Peer::new(member, chosen.slot)));
        }
        peers.retain(|peer| peer.member.id != me);
        self.role = Role::Leading(Box::new(Leadership {
            ballot,
            peers,
            writes: VecDeque::new(),
            own: chosen.slot,
            opened: Slot(0),
            learner: None,
            alone_since: None,
        }));
        step.out.push(Action::Leadership { ballot, leads: true });
        self.log.reaccept(end.slot, ballot);
        let (mut after, mut again) = (self.log.end(), 0);
        if trap!(step.facts, IdentityFromBallot) {
            self.reseal(ballot);
            (after, again) = (chosen, self.log.len());
        }
        if self.log.len() > 0 {
            let record = Record::Accept { ballot, after, chosen: chosen.slot };
            let entries: Vec<Entry> = self.log.behind(chosen.slot, again).collect();
            let token = self.persist(step, record, entries);
            self.wrote(step, token, end.slot);
        }
        self.wake = Some(step.now.after(step.facts.settings().resend_ns));
        self.open(step);
        self.greet_all(step);
    }

    #[cfg(feature = "traps")]
    fn reseal(&mut self, ballot: Ballot) {
        self.log.reseal(ballot);
    }

    #[cfg(not(feature = "traps"))]
    fn reseal(&mut self, _ballot: Ballot) {}

    /// Proposes the no-op that tells this leader what is chosen, unless a swap stands in the way.
    pub(crate) fn open<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.opened == Slot(0) && self.log.pending().is_none() {
            leading.opened = self.log.end().slot.next();
            let checksum = step.facts.seal(self.log.end(), &EntryKind::Noop);
            self.append_own(step, &[checksum], EntryKind::Noop);
        }
    }

    /// Appends entries of one kind to the own log, as one write.
    pub(crate) fn append_own<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        checksums: &[u128],
        kind: EntryKind,
    ) {
        let ballot = self.promised;
        let after = self.log.end();
        let before = self.log.chosen().slot;
        for &checksum in checksums {
            self.log.append(Entry { ballot, checksum, kind });
        }
        debug_assert!(self.log.chosen().slot == before || cfg!(feature = "traps"));
        let record = Record::Accept { ballot, after, chosen: self.log.chosen().slot };
        let token =
            self.persist(step, record, checksums.iter().map(|&checksum| Entry { ballot, checksum, kind }));
        self.wrote(step, token, self.log.end().slot);
    }

    fn wrote<F: Facts>(&mut self, step: &mut Step<'_, F>, token: Token, upto: Slot) {
        let Role::Leading(leading) = &mut self.role else { return };
        leading.writes.push_back((token, upto));
        if trap!(step.facts, OwnVoteOnSubmission) {
            leading.own = upto;
        }
    }

    pub(crate) fn on_own_persisted<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let durable = self.durable;
        let Role::Leading(leading) = &mut self.role else { return };
        while let Some(&(token, upto)) = leading.writes.front().filter(|write| write.0 <= durable) {
            debug_assert!(token <= durable);
            leading.own = leading.own.max(upto);
            leading.writes.pop_front();
        }
        self.advance(step);
    }

    pub(crate) fn on_accepted<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        upto: Slot,
        epoch: u64,
    ) {
        let end = self.log.end().slot;
        let Role::Leading(leading) = &mut self.role else { return };
        let ours = ballot == leading.ballot || trap!(step.facts, OldAcceptedCounts);
        let Some(at) = leading.peers.iter().position(|peer| peer.member.id == from) else { return };
        if !ours || upto > end {
            return;
        }
        let peer = &mut leading.peers[at];
        let is_ahead = upto > peer.known;
        (peer.rewound, peer.copying) = (peer.rewound && !is_ahead, peer.copying && !is_ahead);
        peer.matched = peer.matched.max(upto);
        peer.known = peer.known.max(upto);
        peer.sent = peer.sent.max(peer.known);
        peer.epoch = peer.epoch.max(epoch);
        self.advance(step);
        self.supply_member(step, from);
    }

    /// Chooses what a quorum has. Votes of this ballot count for all of the log, also for what was
    /// proposed earlier by others: this leader has accepted it again.
    pub(crate) fn advance<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let me = self.id();
        let Role::Leading(leading) = &self.role else { return };
        let end = self.log.end().slot;
        let configuration = *self.log.configuration();
        let pending = self.log.pending().copied();
        let reached = leading.quorum_slot(me, &configuration);
        let Some(next) = pending else {
            self.choose(step, reached.min(end).max(self.log.chosen().slot));
            self.progress_learner(step);
            return;
        };
        let old = reached >= end || trap!(step.facts, SwapByNewQuorum);
        let new = leading.quorum_slot(me, &next) >= end || trap!(step.facts, SwapByOldQuorum);
        let upto = if old && new { end } else { reached.min(Slot(end.0 - 1)) };
        self.choose(step, upto.max(self.log.chosen().slot));
        if old && new {
            self.on_swapped(step, &configuration);
        }
    }

    pub(crate) fn supply_all<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let Role::Leading(leading) = &self.role else { return };
        for at in 0..leading.peers.len() {
            self.supply(step, at);
        }
        let wake = step.now.after(step.facts.settings().resend_ns);
        self.wake = Some(self.wake.map_or(wake, |earlier| earlier.min(wake)));
    }

    pub(crate) fn supply_member<F: Facts>(&mut self, step: &mut Step<'_, F>, id: MemberId) {
        let Role::Leading(leading) = &self.role else { return };
        if let Some(at) = leading.peers.iter().position(|peer| peer.member.id == id) {
            self.supply(step, at);
        }
    }

    /// Sends a member what it has not been sent: from memory, or by way of the log what is older.
    fn supply<F: Facts>(&mut self, step: &mut Step<'_, F>, at: usize) {
        let settings = step.facts.settings();
        let (chosen, end) = (self.log.chosen().slot, self.log.end().slot);
        loop {
            let Role::Leading(leading) = &mut self.role else { return };
            let peer = &mut leading.peers[at];
            let to = peer.member.id;
            let in_flight = usize::try_from(peer.sent.0 - peer.known.0).unwrap_or(usize::MAX);
            if peer.rests() || peer.sent >= end || in_flight >= settings.entries_in_flight_max {
                return;
            }
            let after = peer.sent;
            if after < chosen {
                peer.loading = true;
                let most = Slot(after.0.saturating_add(settings.entries_per_message_max as u64));
                step.out.push(Action::Load { to, after, upto: chosen.min(most) });
                return;
            }
            let most = settings.entries_per_message_max;
            let entries = step.out.hold(self.log.behind(after, most));
            peer.sent = Slot(after.0 + u64::from(entries.end - entries.start));
            let after = self.log.anchor(after).expect("what is behind the chosen slot is in memory");
            let message = self.accept_message(after);
            step.out.push(Action::Send { to, message, entries, after: Token(0) });
        }
    }

    pub(crate) fn accept_message(&self, after: Anchor) -> Message {
        let (ballot, generation, chosen) = (self.promised, self.generation, self.log.chosen().slot);
        Message::Accept { ballot, generation, after, chosen }
    }

    /// Sends everybody what they lack, or the question whether all is well: the answer binds them.
    pub(crate) fn greet_all<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let Role::Leading(leading) = &self.role else { return };
        for at in 0..leading.peers.len() {
            self.greet(step, at);
        }
    }

    pub(crate) fn greet<F: Facts>(&mut self, step: &mut Step<'_, F>, at: usize) {
        let (chosen, end) = (self.log.chosen().slot, self.log.end().slot);
        let Role::Leading(leading) = &mut self.role else { return };
        let peer = &mut leading.peers[at];
        let to = peer.member.id;
        peer.asked = step.facts.received(to).epoch;
        if peer.sent < end && !peer.rests() {
            self.supply(step, at);
            return;
        }
        let after = self.log.anchor(peer.known.max(chosen)).unwrap_or(self.log.chosen());
        let message = self.accept_message(after);
        self.send(step, to, message);
    }

    /// Sends again what was not answered, asks members to bind themselves whose support began anew, and
    /// steps down when no quorum has supported this leader for too long.
    pub(crate) fn on_leader_time<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        if self.steps_down(step) {
            let heard = self.promised;
            self.give_up(step, heard);
            return;
        }
        let due = self.wake.is_some_and(|wake| step.now >= wake);
        let end = self.log.end().slot;
        let mut waiting = false;
        let Role::Leading(leading) = &self.role else { return };
        for at in 0..leading.peers.len() {
            waiting |= self.look_after(step, at, due, end);
        }
        let Role::Leading(leading) = &self.role else { return };
        let waiting = waiting || leading.alone_since.is_some();
        if due || self.wake.is_none() {
            let next = step.now.after(step.facts.settings().resend_ns);
            self.wake = waiting.then_some(next);
        }
    }

    /// Returns whether something is wanted of this member that time may have to help with.
    fn look_after<F: Facts>(&mut self, step: &mut Step<'_, F>, at: usize, due: bool, end: Slot) -> bool {
        let Role::Leading(leading) = &mut self.role else { return false };
        let peer = &mut leading.peers[at];
        let received = step.facts.received(peer.member.id);
        if !received.live(step.now) {
            return false;
        }
        let unbound = peer.epoch != received.epoch;
        let stuck = due && peer.known < end && peer.known == peer.seen;
        peer.seen = peer.known;
        // What was under way when support lapsed has not arrived, for all this leader knows.
        let anew = unbound && peer.asked != received.epoch;
        if stuck || anew {
            peer.rewind();
        }
        let waiting = unbound || peer.known < end;
        if stuck || anew || unbound && due {
            self.greet(step, at);
        }
        waiting
    }

    fn steps_down<F: Facts>(&mut self, step: &Step<'_, F>) -> bool {
        let supported = self.holds_lease(step);
        let wait_ns = step.facts.settings().quorum_wait_ns;
        let Role::Leading(leading) = &mut self.role else { return false };
        if supported {
            leading.alone_since = None;
            return false;
        }
        let since = *leading.alone_since.get_or_insert(step.now);
        step.now >= since.after(wait_ns)
    }

    /// Hands leadership over: from here on nothing is served, and whoever hears of it is free.
    pub(crate) fn relinquish<F: Facts>(&mut self, step: &mut Step<'_, F>, to: Option<MemberId>) {
        let Role::Leading(leading) = &self.role else { return };
        let ballot = leading.ballot;
        self.release_all(step, to);
        if !trap!(step.facts, LeaseOutlivesTransfer) {
            self.role = Role::Following(Following::default());
            step.out.push(Action::Leadership { ballot, leads: false });
            self.give_up(step, ballot);
        }
    }

    /// Tells all members that the leader of this ballot, if this is one, has stopped for ever.
    pub(crate) fn release_all<F: Facts>(&self, step: &mut Step<'_, F>, to: Option<MemberId>) {
        let Role::Leading(leading) = &self.role else { return };
        for peer in &leading.peers {
            self.send(step, peer.member.id, Message::Relinquish { ballot: leading.ballot, to });
        }
    }
}
