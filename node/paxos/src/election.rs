//! A member that has no leader: how it notices, whom it asks, when it stands for election.
//!
//! Before it stands, a member asks the others whether *they* reach the leader (gray failure: often only
//! the asker's own link is broken). That avoids needless elections and is not what safety rests on; so
//! it is bounded: after a number of such answers the control plane is told, and the member stands.

use crate::configuration::MemberId;
use crate::message::Message;
use crate::output::Action;
use crate::replica::{Binding, Replica, Role, Step};
use crate::settings::{Facts, ROUND_MAX, Time, trap};
use evenkeel_model::Ballot;

/// The place in the order of candidates of a member that does not know itself one.
const STRANGERS_PLACE: usize = 40;

/// The state of a member that does not lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Following {
    leader: Ballot,
    /// The greatest round heard of: the next campaign goes above it.
    round: u64,
    /// How often others said that they reach the leader.
    blocked: u8,
    probe: Option<Probe>,
}

/// Members that said they do not reach the leader, by their place in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Probe {
    unreached: u8,
}

impl Following {
    pub fn of(leader: Ballot) -> Following {
        Following { leader, ..Following::default() }
    }

    /// The ballot of the leader heard last; the least if none was.
    pub fn leader_ballot(&self) -> Ballot {
        self.leader
    }

    /// The leader, if it was heard under the present ballot.
    pub fn leader(&self, promised: Ballot) -> Option<MemberId> {
        (self.leader == promised && promised != Ballot::default()).then_some(MemberId(promised.replica))
    }

    /// The leader speaks to this member: nobody has to be asked about it.
    pub fn hear(&mut self) {
        (self.blocked, self.probe) = (0, None);
    }

    /// Takes note of a ballot that somebody has promised.
    pub fn heard(&mut self, ballot: Ballot) {
        self.round = self.round.max(ballot.round);
    }
}

impl Replica {
    pub(crate) fn on_follower_time<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        if !self.can_stand(step) {
            self.wake = None;
            return;
        }
        if self.bound_live(step) {
            self.wake = None;
            if let Some(following) = self.following() {
                following.hear();
            }
            return;
        }
        match self.wake {
            None => self.wait_for_leader(step),
            Some(wake) if step.now < wake => {}
            Some(_) => self.on_follower_due(step),
        }
    }

    fn on_follower_due<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let Some(following) = self.following() else { return };
        match following.probe.take() {
            Some(probe) if self.unreached_by_quorum(probe) => self.campaign(step),
            Some(_) | None => self.probe(step),
        }
    }

    /// Asks the others about the leader, or stands at once if there never was one, or nobody to ask, or it
    /// does not know itself a member: then those it knows may all have gone.
    fn probe<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let configuration = *self.log.configuration();
        let asks = configuration.contains(self.id()) && configuration.ids() != [self.id()];
        if self.promised == Ballot::default() || !asks {
            self.campaign(step);
            return;
        }
        for &id in configuration.ids().iter().filter(|&&id| id != self.member.id) {
            self.send(step, id, Message::Probe { ballot: self.promised });
        }
        if let Some(following) = self.following() {
            following.probe = Some(Probe::default());
        }
        self.wake = Some(step.now.after(step.facts.settings().election_round_ns));
    }

    pub(crate) fn on_probe<F: Facts>(&mut self, step: &mut Step<'_, F>, from: MemberId, ballot: Ballot) {
        let leader = match &self.role {
            Role::Leading(leading) if self.holds_lease(step) => leading.ballot,
            Role::Following(_) | Role::Campaigning(_) if self.bound_live(step) => self.bound.ballot,
            _ => Ballot::default(),
        };
        self.send(step, from, Message::ProbeReply { ballot, leader });
    }

    pub(crate) fn on_probe_reply<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        leader: Ballot,
    ) {
        let ids = *self.log.configuration();
        if leader.replica == self.id().0 && self.following().is_some() {
            // Somebody is bound to this member, which leads no more; what said so was lost.
            let others = ids.ids().iter().copied().filter(|&id| id != self.member.id && id != from);
            for id in others.chain([from]) {
                self.send(step, id, Message::Relinquish { ballot: leader, to: None });
            }
        }
        let reachable = leader != Ballot::default() && leader.replica != self.id().0;
        if reachable && leader.replica != from.0 {
            // If it does lead, this tells it nothing; if not, it sets free who waits for it.
            self.send(step, MemberId(leader.replica), Message::ProbeReply { ballot, leader });
        }
        let Some(at) = ids.ids().iter().position(|&id| id == from) else { return };
        if ballot != self.promised {
            return;
        }
        let Some(following) = self.following() else { return };
        let Some(probe) = &mut following.probe else { return };
        if reachable {
            following.probe = None;
            self.on_blocked(step, ballot);
            return;
        }
        probe.unreached |= 1 << at;
        let probe = *probe;
        let all = ids
            .ids()
            .iter()
            .enumerate()
            .all(|(at, &id)| id == self.id() || id.0 == ballot.replica || probe.unreached & 1 << at != 0);
        if all && self.unreached_by_quorum(probe) {
            self.campaign(step);
        }
    }

    /// Somebody reaches the leader that this member does not reach.
    fn on_blocked<F: Facts>(&mut self, step: &mut Step<'_, F>, ballot: Ballot) {
        let most = step.facts.settings().blocked_probes_max;
        self.wake = Some(step.now.after(self.patience_ns(step)));
        let Some(following) = self.following() else { return };
        following.blocked = following.blocked.saturating_add(1);
        let blocked = following.blocked;
        if blocked == most {
            step.out.push(Action::Blocked { ballot });
        }
        if blocked >= most && !trap!(step.facts, ProbeBlocksForEver) {
            self.campaign(step);
        }
    }

    fn unreached_by_quorum(&self, probe: Probe) -> bool {
        let configuration = self.log.configuration();
        configuration.quorum(|id| {
            let at = configuration.ids().iter().position(|&member| member == id);
            id == self.id() || at.is_some_and(|at| probe.unreached & 1 << at != 0)
        })
    }

    pub(crate) fn on_relinquish<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        ballot: Ballot,
        to: Option<MemberId>,
    ) {
        let any = trap!(step.facts, AnyRelinquishUnbinds);
        if self.bound.ballot != ballot && !any || self.following().is_none() {
            return;
        }
        self.bound = Binding::default();
        self.follow(step, Ballot::default());
        if to == Some(self.id()) {
            self.campaign(step);
        } else {
            self.wait_for_leader(step);
        }
    }

    /// Whether this member may stand: it has the tree and has not been removed. One that is no voter yet, by
    /// what it knows, may be one all the same: the swap that brought it in may be chosen without it, and
    /// then it may be the only one left that can lead. The promises tell.
    pub(crate) fn can_stand<F: Facts>(&self, step: &Step<'_, F>) -> bool {
        !self.blank() && !self.removed && (self.has_tree() || trap!(step.facts, LogReplicaLeads))
    }

    /// The ballot of this member's next campaign; nothing if it may not begin one now.
    pub(crate) fn next_ballot<F: Facts>(&mut self, step: &Step<'_, F>) -> Option<Ballot> {
        let bound = self.bound_live(step) && !trap!(step.facts, BoundMemberPromises);
        if !self.can_stand(step) || bound {
            return None;
        }
        if step.now < self.votes_from && !trap!(step.facts, VoteWithoutWait) {
            self.wake = Some(self.votes_from);
            return None;
        }
        let heard = match &self.role {
            Role::Following(following) => following.round,
            Role::Campaigning(_) => 0,
            Role::Leading(_) => return None,
        };
        let round =
            self.promised.round.max(heard).checked_add(1).expect("rounds are bounded where they come in");
        (round <= ROUND_MAX).then_some(Ballot { round, replica: self.id().0 })
    }

    /// How long to wait for a leader: longer for later members, and different in each round, so that two
    /// of them do not keep disturbing each other. One that does not know itself a member waits much longer:
    /// it must not keep those who are from electing one of themselves.
    pub(crate) fn patience_ns<F: Facts>(&self, step: &Step<'_, F>) -> u64 {
        let wait_ns = step.facts.settings().election_wait_ns;
        let configuration = self.log.pending().unwrap_or(self.log.configuration());
        let place = configuration.ids().iter().position(|&id| id == self.id());
        let place = place.filter(|_| !self.outside).unwrap_or(STRANGERS_PLACE);
        let mixed = (u64::from(self.id().0) << 32 ^ self.promised.round)
            .wrapping_add(0x9E37_79B9_7F4A_7C15)
            .wrapping_mul(0xBF58_476D_1CE4_E5B9);
        wait_ns + place as u64 * (wait_ns / 2) + (mixed >> 33) % wait_ns.max(1)
    }

    /// Back to following nobody, to try again later.
    pub(crate) fn give_up<F: Facts>(&mut self, step: &mut Step<'_, F>, heard: Ballot) {
        self.follow(step, Ballot::default());
        if let Some(following) = self.following() {
            following.heard(heard);
        }
        let pause: Time = step.now.after(self.patience_ns(step));
        self.wake = Some(pause);
    }
}
