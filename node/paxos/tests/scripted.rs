//! What a replica does in single situations that a search would not judge: bounds, idleness, refusals.

use evenkeel_model::{Ballot, Generation, Slot};
use evenkeel_paxos::{
    Action, Anchor, Configuration, EntryKind, Facts, Grant, Input, Member, MemberId, MemberKind, Message,
    Output, ROUND_MAX, Refused, Replica, Settings, Standing, Time, Trap,
};
use std::cell::Cell;

/// Surroundings in which everybody is supported, or nobody.
struct Surroundings {
    settings: Settings,
    live: Cell<bool>,
}

impl Surroundings {
    fn new(trap: Option<Trap>) -> Surroundings {
        Surroundings { settings: Settings { trap, ..Settings::default() }, live: Cell::new(true) }
    }

    fn grant(&self) -> Grant {
        if self.live.get() { Grant { epoch: 1, until: Time(u64::MAX) } } else { Grant::default() }
    }
}

impl Facts for Surroundings {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn received(&self, _member: MemberId) -> Grant {
        self.grant()
    }

    fn given(&self, _member: MemberId) -> Grant {
        self.grant()
    }

    fn seal(&self, previous: Anchor, _kind: &EntryKind) -> u128 {
        previous.checksum * 31 + u128::from(previous.slot.0) + 1
    }
}

fn founders() -> Configuration {
    Configuration::first(&[1, 2, 3].map(|id| Member { id: MemberId(id), kind: MemberKind::Storage }))
}

/// Three replicas whose disks and links are instant.
struct Group {
    replicas: Vec<Replica>,
    facts: Surroundings,
    now: Time,
}

impl Group {
    fn new() -> Group {
        let replicas = (1..=3).map(|id| Replica::first(MemberId(id), Generation(1), founders())).collect();
        Group { replicas, facts: Surroundings::new(None), now: Time(1) }
    }

    fn input(&mut self, at: usize, input: Input<'_>) -> usize {
        let mut out = Output::default();
        self.replicas[at].step(self.now, input, &self.facts, &mut out);
        self.settle(at, out)
    }

    /// Carries everything out; returns how many messages were sent.
    fn settle(&mut self, at: usize, out: Output) -> usize {
        let from = MemberId(at as u32 + 1);
        let mut sent = 0;
        for action in &out.actions {
            match action {
                Action::Persist { token, .. } => sent += self.input(at, Input::Persisted { token: *token }),
                Action::Send { to, message, entries, .. } => {
                    let entries = out.span(entries).to_vec();
                    let input = Input::Message { from, message: *message, entries: &entries };
                    sent += 1 + self.input(to.0 as usize - 1, input);
                }
                _ => {}
            }
        }
        sent
    }

    fn propose(&mut self, at: usize) -> Result<Slot, Refused> {
        let mut out = Output::default();
        let checksum = u128::from(self.replicas[at].end().slot.0) * 1000 + 7;
        let taken = self.replicas[at].propose(self.now, &[checksum], &self.facts, &mut out);
        self.settle(at, out);
        taken
    }
}

fn message(replica: &mut Replica, now: u64, facts: &Surroundings, from: u32, message: Message) -> Output {
    let mut out = Output::default();
    let input = Input::Message { from: MemberId(from), message, entries: &[] };
    replica.step(Time(now), input, facts, &mut out);
    out
}

#[test]
fn a_write_is_chosen_by_three_and_an_idle_group_sends_nothing_and_stays_small() {
    let mut group = Group::new();
    group.input(0, Input::Campaign);
    assert_eq!(group.replicas[0].standing(), Standing::Leader);
    for slot in 2..100 {
        assert_eq!(group.propose(0), Ok(Slot(slot)));
    }
    assert_eq!(group.replicas[0].chosen().slot, Slot(99));
    assert!(group.replicas[0].may_read(group.now, &group.facts));
    let announcement = group.replicas[0].announcement().unwrap();
    for at in 1..3 {
        group.input(at, Input::Message { from: MemberId(1), message: announcement, entries: &[] });
        assert_eq!(group.replicas[at].chosen(), group.replicas[0].chosen());
    }
    for _ in 0..10 {
        group.now = group.now.after(1_000_000_000);
        for at in 0..3 {
            assert_eq!(group.input(at, Input::Tick), 0, "an idle group sends nothing");
        }
    }
    for replica in &mut group.replicas {
        replica.rest();
        assert_eq!(replica.wake(), None, "an idle group needs no timer");
        assert!(replica.memory_bytes() < 1024, "{} bytes", replica.memory_bytes());
        println!("idle {:?}: {} bytes", replica.standing(), replica.memory_bytes());
    }
}

#[test]
fn a_relinquished_group_is_led_by_the_one_it_was_handed_to() {
    let mut group = Group::new();
    group.input(0, Input::Campaign);
    group.propose(0).unwrap();
    group.input(0, Input::Transfer { to: Some(MemberId(3)) });
    assert_eq!(group.replicas[2].standing(), Standing::Leader);
    assert_eq!(group.replicas[0].standing(), Standing::Follower(Some(MemberId(3))));
    assert_eq!(group.propose(0), Err(Refused::NotLeader(Some(MemberId(3)))));
    assert_eq!(group.propose(2), Ok(Slot(4)));
    assert!(group.replicas[2].may_read(group.now, &group.facts));
}

#[test]
fn a_leader_without_a_quorums_support_steps_down() {
    let mut group = Group::new();
    group.input(0, Input::Campaign);
    group.facts.live.set(false);
    group.input(0, Input::Liveness);
    assert_eq!(group.replicas[0].standing(), Standing::Leader);
    assert!(!group.replicas[0].may_read(group.now, &group.facts));
    group.now = group.now.after(Settings::default().quorum_wait_ns);
    group.input(0, Input::Tick);
    assert_ne!(group.replicas[0].standing(), Standing::Leader);
}

#[test]
fn a_swap_that_breaks_a_rule_is_refused() {
    let mut group = Group::new();
    group.input(0, Input::Campaign);
    let mut out = Output::default();
    let mut swap = |remove: u32, id: u32| {
        let add = Member { id: MemberId(id), kind: MemberKind::Log };
        group.replicas[0].swap(group.now, MemberId(remove), add, &group.facts, &mut out)
    };
    assert_eq!(swap(1, 4), Err(Refused::BadSwap), "the leader hands over before it goes");
    assert_eq!(swap(3, 2), Err(Refused::BadSwap), "a number is used once");
    assert_eq!(swap(9, 4), Err(Refused::BadSwap), "only a member is replaced");
    assert_eq!(swap(3, 4), Ok(()));
}

/// A follower that hears "I reach the leader" over and over.
fn blocked(trap: Option<Trap>) -> (usize, bool) {
    let facts = Surroundings::new(trap);
    facts.live.set(false);
    let mut replica = Replica::first(MemberId(2), Generation(1), founders());
    let ballot = Ballot { round: 1, replica: 1 };
    let accept =
        Message::Accept { ballot, generation: Generation(1), after: Anchor::default(), chosen: Slot(0) };
    message(&mut replica, 1, &facts, 1, accept);
    let mut reports = 0;
    for probe in 0..40u64 {
        let now = 2 + (probe + 1) * 10_000_000_000;
        replica.step(Time(now), Input::Tick, &facts, &mut Output::default());
        let reply = Message::ProbeReply { ballot, leader: ballot };
        let out = message(&mut replica, now, &facts, 3, reply);
        reports += out.actions.iter().filter(|action| matches!(action, Action::Blocked { .. })).count();
        if replica.standing() == Standing::Candidate {
            return (reports, true);
        }
    }
    (reports, false)
}

#[test]
fn a_blocked_probe_is_reported_and_does_not_block_for_ever() {
    assert_eq!(blocked(None), (1, true));
    assert_eq!(blocked(Some(Trap::ProbeBlocksForEver)), (1, false), "the mistake would be noticed");
}

/// A follower hears of a round that nobody can have reached.
fn absurd_round(trap: Option<Trap>) -> u64 {
    let facts = Surroundings::new(trap);
    let mut replica = Replica::first(MemberId(2), Generation(1), founders());
    let promised = Ballot { round: u64::MAX, replica: 3 };
    message(&mut replica, 1, &facts, 3, Message::Nack { ballot: Ballot::default(), promised });
    let prepare = Message::Prepare { ballot: promised, generation: Generation(1), chosen: Anchor::default() };
    message(&mut replica, 1, &facts, 3, prepare);
    replica.step(Time(1), Input::Campaign, &facts, &mut Output::default());
    replica.promised().round
}

#[test]
fn an_absurd_round_neither_ends_elections_nor_overflows() {
    assert_eq!(absurd_round(None), 1);
    assert!(std::panic::catch_unwind(|| absurd_round(Some(Trap::RoundUnbounded))).is_err());
    const { assert!(ROUND_MAX < u64::MAX - 1) };
}

#[test]
fn a_message_of_another_life_of_the_partition_is_ignored() {
    let facts = Surroundings::new(None);
    let mut replica = Replica::first(MemberId(2), Generation(2), founders());
    let ballot = Ballot { round: 1, replica: 1 };
    let prepare = Message::Prepare { ballot, generation: Generation(1), chosen: Anchor::default() };
    assert_eq!(message(&mut replica, 1, &facts, 1, prepare).actions, []);
    assert_eq!(replica.promised(), Ballot::default());
}

#[test]
fn accept_below_the_promised_ballot_is_refused() {
    let facts = Surroundings::new(None);
    let mut replica = Replica::first(MemberId(2), Generation(1), founders());
    let promised = Ballot { round: 2, replica: 3 };
    let prepare = Message::Prepare { ballot: promised, generation: Generation(1), chosen: Anchor::default() };
    message(&mut replica, 1, &facts, 3, prepare);
    let ballot = Ballot { round: 1, replica: 1 };
    let accept =
        Message::Accept { ballot, generation: Generation(1), after: Anchor::default(), chosen: Slot(0) };
    let out = message(&mut replica, 1, &facts, 1, accept);
    let nacked = |action: &Action| matches!(action, Action::Send { message, .. } if *message == Message::Nack { ballot, promised });
    assert!(out.actions.iter().any(nacked), "{:?}", out.actions);
}

/// A leader whose log begins later than the third member needs, and what it sent that member at each of these.
fn sent_while_copying(inputs: &[Input<'_>]) -> Vec<Vec<Message>> {
    let mut group = Group::new();
    group.input(0, Input::Campaign);
    (2..5).for_each(|slot| assert_eq!(group.propose(0), Ok(Slot(slot))));
    let leader = &mut group.replicas[0];
    let (base, configuration) = (leader.chosen(), *leader.configuration());
    let trimmed = Input::Trimmed { to: MemberId(3), base, configuration };
    let each = |input: &Input<'_>| {
        let mut out = Output::default();
        leader.step(group.now, *input, &group.facts, &mut out);
        let checksum = u128::from(leader.end().slot.0) * 1000 + 7;
        leader.propose(group.now, &[checksum], &group.facts, &mut out).expect("it leads");
        let to_third = |action: &Action| match action {
            Action::Send { to: MemberId(3), message, .. } => Some(*message),
            _ => None,
        };
        out.actions.iter().filter_map(to_third).collect()
    };
    [trimmed].iter().chain(inputs).map(each).collect()
}

#[test]
fn a_member_that_begins_anew_is_sent_nothing_before_it_says_that_it_has() {
    let ballot = Ballot { round: 1, replica: 1 };
    let behind = |chosen| Input::Message {
        from: MemberId(3),
        message: Message::Behind { ballot, chosen: Slot(chosen) },
        entries: &[],
    };
    let sent = sent_while_copying(&[Input::Tick, behind(5), Input::Tick]);
    assert!(matches!(sent[0][..], [Message::Begin { .. }]), "{sent:?}");
    assert!(sent[1].is_empty(), "writes go on without it: {sent:?}");
    let after = |message: &Message| match message {
        Message::Accept { after, .. } => Some(after.slot),
        _ => None,
    };
    assert_eq!(sent[2].iter().filter_map(after).next(), Some(Slot(5)), "{sent:?}");
    assert_eq!(sent[3].len(), 1, "{sent:?}");
}

#[test]
fn a_copy_is_told_to_a_leader_that_was_only_heard() {
    let facts = Surroundings::new(None);
    let mut replica = Replica::first(MemberId(3), Generation(1), founders());
    let ballot = Ballot { round: 7, replica: 1 };
    let (base, configuration) = (Anchor { slot: Slot(50), checksum: 9 }, founders());
    let out = message(&mut replica, 1, &facts, 1, Message::Begin { ballot, base, configuration });
    assert!(matches!(out.actions[..], [Action::NeedSnapshot { .. }]), "{out:?}");
    let mut out = Output::default();
    replica.step(Time(2), Input::Installed { base, configuration }, &facts, &mut out);
    let told = out.actions.iter().any(|action| {
        let to = MemberId(1);
        let message = Message::Behind { ballot, chosen: Slot(50) };
        matches!(action, Action::Send { to: t, message: m, after, .. }
            if *t == to && *m == message && after.0 > 0)
    });
    assert!(told, "once it is durable: {out:?}");
}

#[test]
fn a_member_that_hears_the_leader_does_not_stand_however_often_others_say_that_they_reach_it() {
    let facts = Surroundings::new(None);
    facts.live.set(false);
    let mut replica = Replica::first(MemberId(3), Generation(1), founders());
    let ballot = Ballot { round: 7, replica: 1 };
    let (base, configuration) = (Anchor { slot: Slot(50), checksum: 9 }, founders());
    let accept =
        Message::Accept { ballot, generation: Generation(1), after: Anchor::default(), chosen: Slot(0) };
    message(&mut replica, 1, &facts, 1, accept);
    let mut now = 1;
    for _ in 0..4 * facts.settings.blocked_probes_max {
        message(&mut replica, now, &facts, 1, Message::Begin { ballot, base, configuration });
        now += 1_000_000_000;
        replica.step(Time(now), Input::Tick, &facts, &mut Output::default());
        let reply = Message::ProbeReply { ballot: replica.promised(), leader: ballot };
        message(&mut replica, now, &facts, 2, reply);
    }
    assert_eq!(replica.standing(), Standing::Follower(Some(MemberId(1))));
}
