//! One member of a group: what it is told, and who in here deals with it.
//!
//! The roles are files: `acceptor.rs` votes, `election.rs` notices that nobody leads, `campaign.rs` wins
//! phase 1, `leader.rs` proposes, `lease.rs` says whether reads may be served, `catch_up.rs` closes gaps,
//! `membership.rs` swaps members. A replica never panics because of what others say, save where going
//! on would mean that a chosen entry is not the same everywhere.

use crate::campaign::Campaign;
use crate::configuration::{Configuration, Member, MemberId, MemberKind};
use crate::election::Following;
use crate::entry::{Anchor, Entry};
use crate::leader::Leadership;
use crate::log::Log;
use crate::message::Message;
use crate::output::{Action, Output, Record, Span, Token};
use crate::recovery::Durable;
use crate::settings::{Facts, Time, trap};
use evenkeel_model::{Ballot, Generation, Slot};

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(crate) member: Member,
    pub(crate) generation: Generation,
    pub(crate) promised: Ballot,
    /// The leader this member has bound itself to, and the epoch of support it did so under.
    pub(crate) bound: Binding,
    pub(crate) log: Log,
    pub(crate) written: Token,
    pub(crate) durable: Token,
    pub(crate) now: Time,
    /// Before this time the core may still be supporting somebody by the word of its former life.
    pub(crate) votes_from: Time,
    pub(crate) wake: Option<Time>,
    /// A chosen configuration says that this member has been removed.
    pub(crate) removed: bool,
    /// A quorum's promises said that this member is none, and no leader has been heard since.
    pub(crate) outside: bool,
    pub(crate) role: Role,
}

/// A leader's ballot that this member has acknowledged, and the support it goes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Binding {
    pub ballot: Ballot,
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Following(Following),
    Campaigning(Box<Campaign>),
    Leading(Box<Leadership>),
}

/// What a replica is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A message, with its entries.
    Message {
        /// Who sent it.
        from: MemberId,
        /// What.
        message: Message,
        /// Its entries, their payloads checked against their checksums.
        entries: &'a [Entry],
    },
    /// All writes up to this one are durable.
    Persisted {
        /// The last one.
        token: Token,
    },
    /// Time has passed; due at [`Replica::wake`].
    Tick,
    /// Support with the core of some member began or lapsed.
    Liveness,
    /// Stand for election now, for the control plane says so.
    Campaign,
    /// Hand leadership over.
    Transfer {
        /// To whom; to nobody in particular if nothing.
        to: Option<MemberId>,
    },
    /// The entries that [`Action::Load`] asked for.
    Loaded {
        /// As asked.
        to: MemberId,
        /// As asked, with the checksum.
        after: Anchor,
        /// What follows it; at least one unless there is none.
        entries: &'a [Entry],
    },
    /// The log begins later than [`Action::Load`] asked for.
    Trimmed {
        /// As asked.
        to: MemberId,
        /// Where the log begins.
        base: Anchor,
        /// The members as of it.
        configuration: Configuration,
    },
    /// A snapshot is installed, durably.
    Installed {
        /// The last entry in it.
        base: Anchor,
        /// The members as of it.
        configuration: Configuration,
    },
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It follows; the leader it last heard, if it heard one under the present ballot.
    Follower(Option<MemberId>),
    /// It stands for election, or has won and is still fetching what it must adopt.
    Candidate,
    /// It leads; proposals are taken.
    Leader,
}

/// Why a proposal was not taken. Nothing has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This replica does not lead; perhaps this one does.
    NotLeader(Option<MemberId>),
    /// A swap is under way, and nothing is proposed past it; try again.
    SwapPending,
    /// Too many entries are not chosen; try again.
    Full,
    /// The swap would break a rule: fresh number, one log replica, the leader stays.
    BadSwap,
}

/// One step: the time, the facts, and where the effects go.
pub(crate) struct Step<'a, F: Facts> {
    pub now: Time,
    pub facts: &'a F,
    pub out: &'a mut Output,
}

impl Replica {
    /// A member of a new group.
    pub fn first(member: MemberId, generation: Generation, configuration: Configuration) -> Replica {
        let kind = configuration.kind(member).expect("a founder is in the first configuration");
        let durable = Durable::new(configuration);
        Replica::recover(Member { id: member, kind }, generation, &durable, Time::default())
    }

    /// A member that a swap is to bring in; it does not vote before it knows where its log begins.
    /// `founders` is the group's first configuration.
    pub fn joining(member: Member, generation: Generation, founders: Configuration) -> Replica {
        Replica::recover(member, generation, &Durable::new(founders), Time::default())
    }

    /// A member as its log describes it. `votes_from` is when all support that the core gave in its former
    /// life has run out: [`Supports::restart_wait_ns`](crate::Supports::restart_wait_ns) after an unclean
    /// start, [`Supports::given_until`](crate::Supports::given_until) if an orderly stop recorded it.
    pub fn recover(member: Member, generation: Generation, durable: &Durable, votes_from: Time) -> Replica {
        Replica {
            member,
            generation,
            promised: durable.promised,
            bound: Binding::default(),
            log: durable.log(),
            written: Token(0),
            durable: Token(0),
            now: Time::default(),
            votes_from,
            wake: None,
            removed: false,
            outside: false,
            role: Role::Following(Following::default()),
        }
    }

    /// Takes one input.
    pub fn step<F: Facts>(&mut self, now: Time, input: Input<'_>, facts: &F, out: &mut Output) {
        let mut step = self.begin_step(now, facts, out);
        let step = &mut step;
        match input {
            Input::Message { from, message, entries } => self.on_message(step, from, message, entries),
            Input::Persisted { token } => self.on_persisted(step, token),
            Input::Tick | Input::Liveness => self.on_time(step),
            Input::Campaign => self.campaign(step),
            Input::Transfer { to } => self.relinquish(step, to),
            Input::Loaded { to, after, entries } => self.on_loaded(step, to, after, entries),
            Input::Trimmed { to, base, configuration } => self.on_trimmed(step, to, base, configuration),
            Input::Installed { base, configuration } => self.on_installed(step, base, configuration),
        }
    }

    pub(crate) fn begin_step<'a, F: Facts>(
        &mut self,
        now: Time,
        facts: &'a F,
        out: &'a mut Output,
    ) -> Step<'a, F> {
        self.now = if trap!(facts, TimeGoesBack) { now } else { self.now.max(now) };
        Step { now: self.now, facts, out }
    }

    fn on_message<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        from: MemberId,
        message: Message,
        entries: &[Entry],
    ) {
        match message {
            Message::Prepare { ballot, generation, chosen } => {
                self.on_prepare(step, from, ballot, generation, chosen);
            }
            Message::Promise { ballot, chosen, configuration, after } => {
                self.on_promise(step, from, ballot, (chosen, configuration), after, entries);
            }
            Message::Accept { ballot, generation, after, chosen } => {
                self.on_accept(step, from, (ballot, generation), after, chosen, entries);
            }
            Message::Accepted { ballot, upto, epoch } => self.on_accepted(step, from, ballot, upto, epoch),
            Message::Behind { ballot, chosen } => self.on_behind(step, from, ballot, chosen),
            Message::Nack { ballot, promised } => self.on_nack(step, ballot, promised),
            Message::Commit { chosen } => self.on_commit(step, chosen),
            Message::Probe { ballot } => self.on_probe(step, from, ballot),
            Message::ProbeReply { ballot, leader } => {
                self.on_probe_reply(step, from, ballot, leader);
            }
            Message::Relinquish { ballot, to } => self.on_relinquish(step, ballot, to),
            Message::Fetch { ballot, after, upto } => self.on_fetch(step, from, ballot, after, upto),
            Message::Entries { ballot, after } => self.on_entries(step, ballot, after, entries),
            Message::Begin { ballot, base, configuration } => {
                self.on_begin(step, from, ballot, base, configuration);
            }
        }
    }

    fn on_persisted<F: Facts>(&mut self, step: &mut Step<'_, F>, token: Token) {
        assert!(token <= self.written, "only what was written becomes durable");
        self.durable = self.durable.max(token);
        match &self.role {
            Role::Following(_) => {}
            Role::Campaigning(_) => self.on_campaign_persisted(step),
            Role::Leading(_) => self.on_own_persisted(step),
        }
    }

    fn on_time<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        match &self.role {
            Role::Following(_) => self.on_follower_time(step),
            Role::Campaigning(_) => self.on_campaign_time(step),
            Role::Leading(_) => self.on_leader_time(step),
        }
    }

    /// Which member this is.
    pub fn member(&self) -> Member {
        self.member
    }

    /// When it wants to be told the time; never, while it is idle.
    pub fn wake(&self) -> Option<Time> {
        self.wake
    }

    /// The greatest ballot it has promised; a leader's own.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The last entry known to be chosen.
    pub fn chosen(&self) -> Anchor {
        self.log.chosen()
    }

    /// The last entry of its log, chosen or not: a leader's next proposal follows it.
    pub fn end(&self) -> Anchor {
        self.log.end()
    }

    /// The members as of the last chosen entry: what redirects carry.
    pub fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    /// The identity of an entry that is not known to be chosen.
    pub fn checksum(&self, slot: Slot) -> Option<u128> {
        self.log.anchor(slot).map(|anchor| anchor.checksum)
    }

    /// What it is.
    pub fn standing(&self) -> Standing {
        match &self.role {
            Role::Following(following) => Standing::Follower(following.leader(self.promised)),
            Role::Campaigning(_) => Standing::Candidate,
            Role::Leading(_) => Standing::Leader,
        }
    }

    /// Gives back memory that an idle group does not need.
    pub fn rest(&mut self) {
        self.log.shrink();
        if let Role::Leading(leading) = &mut self.role {
            leading.shrink();
        }
    }

    /// All the memory the replica holds.
    pub fn memory_bytes(&self) -> usize {
        let role = match &self.role {
            Role::Following(_) => 0,
            Role::Campaigning(campaign) => campaign.heap_bytes(),
            Role::Leading(leading) => leading.heap_bytes(),
        };
        size_of::<Replica>() + self.log.heap_bytes() + role
    }

    /// Whether the member has yet to learn where its log begins. It does not vote until then.
    pub(crate) fn blank(&self) -> bool {
        self.log.end().slot == Slot(0) && !self.log.configuration().contains(self.member.id)
    }

    pub(crate) fn id(&self) -> MemberId {
        self.member.id
    }

    pub(crate) fn has_tree(&self) -> bool {
        self.member.kind == MemberKind::Storage
    }

    pub(crate) fn send<F: Facts>(&self, step: &mut Step<'_, F>, to: MemberId, message: Message) {
        let entries = step.out.hold([]);
        step.out.push(Action::Send { to, message, entries, after: Token(0) });
    }

    /// Sends what rests on everything written so far.
    pub(crate) fn send_durable<F: Facts>(
        &self,
        step: &mut Step<'_, F>,
        to: MemberId,
        message: Message,
        entries: Span,
    ) {
        step.out.push(Action::Send { to, message, entries, after: self.written });
    }

    pub(crate) fn persist<F: Facts>(
        &mut self,
        step: &mut Step<'_, F>,
        record: Record,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Token {
        self.written = Token(self.written.0.checked_add(1).expect("2^64 writes outlast any process"));
        let entries = step.out.hold(entries);
        step.out.push(Action::Persist { token: self.written, record, entries });
        self.written
    }

    /// Says that the log is chosen up to `slot`, and what follows from that.
    pub(crate) fn choose<F: Facts>(&mut self, step: &mut Step<'_, F>, slot: Slot) {
        let version = self.log.configuration().version;
        if self.log.choose(slot) {
            self.told_chosen(step, version);
        }
    }

    /// After the chosen anchor has moved.
    pub(crate) fn told_chosen<F: Facts>(&mut self, step: &mut Step<'_, F>, version_before: u32) {
        step.out.push(Action::Committed { chosen: self.log.chosen() });
        // A member that joins reads of configurations before its own; their numbers are below its own.
        let configuration = self.log.configuration();
        if configuration.version != version_before && configuration.has_removed(self.member.id) {
            self.leave(step);
        }
    }

    /// A chosen swap has removed this member. It goes on leading until everybody has been told.
    pub(crate) fn leave<F: Facts>(&mut self, step: &mut Step<'_, F>) {
        if !matches!(self.role, Role::Leading(_)) {
            self.follow(step, Ballot::default());
        }
        if !self.removed {
            step.out.push(Action::Removed);
        }
        self.removed = true;
    }

    /// Follows from now on, whoever leads. A leader that stops says so: whoever is bound to it is free.
    pub(crate) fn follow<F: Facts>(&mut self, step: &mut Step<'_, F>, leader: Ballot) {
        self.release_all(step, None);
        if !matches!(self.role, Role::Following(_)) {
            step.out.push(Action::Leadership { ballot: leader, leads: false });
        }
        self.role = Role::Following(Following::of(leader));
        self.wake = None;
    }
}
