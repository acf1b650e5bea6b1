//! Phase 1: a candidate collects promises, finds the log it must adopt, and fetches what it lacks of it.
//!
//! The log to adopt is found slot by slot: behind the greatest chosen anchor, the entry of the greatest
//! ballot wins, and logs that do not go on from it are left behind. (The greatest ballot, not the
//! longest log: an entry of an older ballot that a later leader did not adopt was never chosen.) A log may
//! go on where the winner's ends: an entry of an older ballot may still have been chosen if the later
//! leader had only begun to repeat it.
//!
//! Which members must have promised follows from the log found: those of its last chosen configuration,
//! and those of a swap at its end. Newer ones are asked as they are discovered.

use crate::configuration::{Configuration, MemberId};
use crate::entry::{Anchor, Entry, EntryKind};
use crate::message::Message;
use crate::output::{Action, Record, Token};
use crate::replica::{Binding, Replica, Role, Step};
use crate::settings::{Facts, ROUND_MAX, trap};
use evenkeel_model::{Ballot, Slot};

/// The state of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Campaign {
    pub ballot: Ballot,
    /// The write of the candidate's own promise.
    written: Token,
    asked: Vec<MemberId>,
    promises: Vec<Promised>,
    /// Phase 1 is won, and this is being fetched.
    adopting: Option<Adoption>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Promised {
    from: MemberId,
    chosen: Anchor,
    configuration: Configuration,
    after: Anchor,
    entries: Vec<Entry>,
}

/// The log that a set of promises prescribes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Adoption {
    chosen: Anchor,
    configuration: Configuration,
    /// The members that a swap at the end would make.
    pending: Option<Configuration>,
    end: Anchor,
    /// Who has all of it.
    source: MemberId,
}

impl Campaign {
    pub fn heap_bytes(&self) -> usize {
        let entries: usize = self.promises.iter().map(|promise| promise.entries.capacity()).sum();
        size_of::<Campaign>()
            + self.promises.capacity() * size_of::<Promised>()
            + entries * size_of::<Entry>()
            + self.asked.capacity() * size_of::<MemberId>()
    }
}

impl Replica {
    /// Begins a campaign, unless this member may not.
    pub(crate) fn campaign<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let Some(ballot) = self.next_ballot(step) else { return };
        self.promised = ballot;
        self.bound = Binding::default();
        let written = self.persist(step, Record::Promise { ballot }, []);
        self.role = Role::Campaigning(Box::new(Campaign {
            ballot,
            written,
            asked: Vec::new(),
            promises: Vec::new(),
            adopting: None,
        }));
        self.wake = Some(step.now.after(step.facts.settings().election_round_ns));
        step.out.push(Action::Leadership { ballot, leads: false });
        let pending = self.log.pending().copied();
        self.ask(step, self.log.configuration().ids().iter().copied().chain(ids(&pending)).collect());
    }

    /// Asks members that have not been asked, once this member's own promise is durable: a candidate
    /// that forgot its ballot might use it again for something else.
    fn ask<F: Facts>(&mut self, step: &mut Step<'_, F>, members: Vec<MemberId>) {
        let chosen = self.log.chosen();
        let (me, generation) = (self.id(), self.generation);
        let Some(campaign) = self.campaigning() else { return };
        let message = Message::Prepare { ballot: campaign.ballot, generation, chosen };
        let after = if trap!(step.facts, PrepareBeforeDurable) { Token(0) } else { campaign.written };
        for to in members {
            if to != me && !campaign.asked.contains(&to) {
                campaign.asked.push(to);
                let entries = step.out.hold([]);
                step.out.push(Action::Send { to, message, entries, after });
            }
        }
    }

    pub(crate) fn on_promise<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        ballot: Ballot,
        (chosen, configuration): (Anchor, Configuration),
        after: Anchor,
        entries: &[Entry],
    ) {
        let Some(campaign) = self.campaigning() else { return };
        if campaign.ballot != ballot || campaign.adopting.is_some() {
            return;
        }
        let known = campaign.promises.iter().any(|promise| promise.from == from);
        if !known {
            let entries = entries.to_vec();
            campaign.promises.push(Promised { from, chosen, configuration, after, entries });
        }
        self.judge(step);
    }

    pub(crate) fn on_campaign_persisted<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        if self.campaigning().is_some_and(|campaign| campaign.adopting.is_none()) {
            self.judge(step);
        }
    }

    /// Whether the promises so far win phase 1, and then on to what they prescribe.
    fn judge<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        let durable = self.durable;
        let own = self.own_promise();
        let me = self.id();
        let Some(campaign) = self.campaigning() else { return };
        let mut adoption = adopt(step, &own, &campaign.promises);
        if trap!(step.facts, NewerConfigurationIgnored) {
            (adoption.configuration, adoption.pending) = (own.configuration, None);
        }
        let own_durable = durable >= campaign.written || trap!(step.facts, OwnVoteOnSubmission);
        let promised =
            |id| id == me && own_durable || campaign.promises.iter().any(|promise| promise.from == id);
        let won = adoption.configuration.quorum(promised)
            && adoption.pending.is_none_or(|pending| pending.quorum(promised));
        if adoption.configuration.has_removed(me) {
            self.leave(step);
        } else if won && !adoption.configuration.contains(me) && ids(&adoption.pending).all(|id| id != me) {
            let heard = campaign.ballot;
            self.outside = true;
            self.give_up(step, heard);
        } else if won {
            self.win(step, adoption);
        } else {
            let members = adoption.configuration.ids().iter().copied().chain(ids(&adoption.pending));
            self.ask(step, members.collect());
        }
    }

    fn own_promise(&self) -> Promised {
        let chosen = self.log.chosen();
        Promised {
            from: self.id(),
            chosen,
            configuration: *self.log.configuration(),
            after: chosen,
            entries: self.log.behind(chosen.slot, usize::MAX).collect(),
        }
    }

    fn win<F: Facts>(&mut self, step: &mut Step<'_, F>, adoption: Adoption) {
        if self.log.end() == adoption.end {
            self.choose(step, adoption.chosen.slot);
            self.lead(step);
            return;
        }
        let after = self.log.chosen();
        self.wake = Some(step.now.after(step.facts.settings().election_round_ns));
        let (source, upto) = (adoption.source, adoption.end.slot);
        let Some(campaign) = self.campaigning() else { return };
        let ballot = campaign.ballot;
        campaign.promises = Vec::new();
        campaign.adopting = Some(adoption);
        self.send(step, source, Message::Fetch { ballot, after, upto });
    }

    /// A part of the log to adopt. It is accepted under the candidate's own ballot, like everything a
    /// leader proposes.
    pub(crate) fn on_entries<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        ballot: Ballot,
        after: Anchor,
        entries: &[Entry],
    ) {
        let Some(campaign) = self.campaigning() else { return };
        let Some(adoption) = campaign.adopting.clone().filter(|_| campaign.ballot == ballot) else { return };
        let wanted =
            adoption.end.slot.0.checked_sub(after.slot.0).and_then(|most| usize::try_from(most).ok());
        let Some(wanted) = wanted.filter(|_| self.log.holds(after)) else { return };
        let entries = &entries[..entries.len().min(wanted)];
        self.accept(step, ballot, after.slot, entries, self.log.chosen().slot);
        self.wake = Some(step.now.after(step.facts.settings().election_round_ns));
        // The own log may go on behind what came, with entries that the rest will replace.
        let have = Slot(after.slot.0 + entries.len() as u64);
        if self.log.end() == adoption.end {
            self.choose(step, adoption.chosen.slot);
            self.lead(step);
        } else if have >= adoption.end.slot || entries.is_empty() {
            self.give_up(step, ballot);
        } else if let Some(after) = self.log.anchor(have) {
            self.send(step, adoption.source, Message::Fetch { ballot, after, upto: adoption.end.slot });
        }
    }

    pub(crate) fn on_campaign_time<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        if self.wake.is_none_or(|wake| step.now >= wake) {
            let heard = self.promised;
            self.give_up(step, heard);
        }
    }

    /// A ballot was refused. If somebody has promised a greater one, there is no use in going on.
    pub(crate) fn on_nack<F: Facts>(&mut self, step: &mut Step<'_, F>, ballot: Ballot, promised: Ballot) {
        if promised.round > ROUND_MAX && !trap!(step.facts, RoundUnbounded) {
            return;
        }
        match &mut self.role {
            Role::Following(following) => following.heard(promised),
            Role::Campaigning(_) | Role::Leading(_) => {
                if ballot == self.promised && promised > ballot {
                    self.give_up(step, promised);
                }
            }
        }
    }

    fn campaigning(&mut self) -> Option<&mut Campaign> {
        match &mut self.role {
            Role::Campaigning(campaign) => Some(campaign),
            Role::Following(_) | Role::Leading(_) => None,
        }
    }
}

fn ids(configuration: &Option<Configuration>) -> impl Iterator<Item = MemberId> + use<'_> {
    configuration.iter().flat_map(|configuration| configuration.ids().iter().copied())
}

/// The log to adopt, from the candidate's own and the promised ones.
fn adopt<F: Facts>(_step: &Step<'_, F>, own: &Promised, promises: &[Promised]) -> Adoption {
    // The own log stands last: of equally good sources it is taken, and nothing need be fetched.
    let logs = || promises.iter().chain([own]);
    let best = logs().max_by_key(|log| log.chosen.slot).expect("the own log is one of them");
    let mut going: Vec<(&Promised, &[Entry])> =
        logs().filter_map(|log| Some((log, log.behind(best.chosen)?))).collect();
    let mut adoption = Adoption {
        chosen: best.chosen,
        configuration: best.configuration,
        pending: None,
        end: best.chosen,
        source: best.from,
    };
    #[cfg(feature = "traps")]
    if trap!(_step.facts, SuffixByLength) {
        let longest = going.iter().map(|(_, entries)| entries.len()).max();
        going.retain(|(_, entries)| Some(entries.len()) == longest);
    }
    loop {
        going.retain(|(_, entries)| !entries.is_empty());
        let next = going.iter().map(|(_, entries)| entries[0]).max_by_key(|entry| entry.ballot);
        let Some(next) = next else { return adoption };
        going.retain(|(_, entries)| entries[0].checksum == next.checksum);
        adoption.end.slot = adoption.end.slot.next();
        adoption.end.checksum = next.checksum;
        adoption.source = going.last().expect("the entry is from one of them").0.from;
        adoption.pending = match next.kind {
            EntryKind::Swap(configuration) => Some(configuration),
            EntryKind::Command | EntryKind::Noop => None,
        };
        going.iter_mut().for_each(|(_, entries)| *entries = &entries[1..]);
    }
}

impl Promised {
    /// The entries behind an anchor that is not before the beginning; nothing if the log does not hold it.
    fn behind(&self, anchor: Anchor) -> Option<&[Entry]> {
        if anchor == self.after {
            return Some(&self.entries);
        }
        let count = usize::try_from(anchor.slot.0.checked_sub(self.after.slot.0)?).ok()?;
        let last = self.entries.get(count.checked_sub(1)?)?;
        (last.checksum == anchor.checksum).then(|| &self.entries[count..])
    }
}
