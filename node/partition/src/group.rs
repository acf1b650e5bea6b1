//! One member of a partition's group at work: what consensus is told, and what is done of what it asks.
//!
//! Everything here happens between two awaits. Records go to the engine in the order they are asked for,
//! messages that rest on a write wait for it, and what is chosen is applied at once. What goes to other
//! members and comes from them is in `traffic.rs`.

mod traffic;

use crate::hub::Hub;
use crate::journal::Writes;
use crate::mark::{Marks, is_mark};
use crate::message::SnapshotEnd;
use crate::mistakes;
use crate::partition::Partition;
use crate::place::{Membership, Place};
use crate::sessions::{RequestToken, Sessions, TokenNote};
use evenkeel_model::{Generation, PartitionId, Slot, Timestamp};
use evenkeel_paxos::{
    Action, Anchor, Configuration, Entry as Vote, EntryKind, Facts, Grant, Input, MemberId, MemberKind,
    Message, Output, Record, Replica, Settings, Standing, Time, Token,
};
use evenkeel_storage::{Disk, Durable, Entry, Operation, Position, Refused, Runtime, WalFailed};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::rc::Rc;

/// How many support messages carry what a leader has chosen, after it has: some may be lost.
const ANNOUNCEMENTS: u8 = 3;

/// The state of one member.
pub(crate) struct Group {
    pub replica: Replica,
    out: Output,
    /// Loads to be answered, once the step that asked is done.
    loads: VecDeque<(MemberId, Slot, Slot)>,
    /// The payloads of entries that a step may ask to be written, from this slot on.
    incoming: Vec<Option<Entry>>,
    incoming_from: Slot,
    /// Messages that wait for a write.
    held: VecDeque<(Token, MemberId, Message, Vec<Vote>)>,
    durable: Token,
    pub places: Places,
    pub sessions: Sessions,
    pub marks: Marks,
    /// Writes with a token that are not applied yet.
    pub pending_tokens: HashMap<(u128, u64), Slot>,
    /// Content is being put in its place: until that is durable consensus hears of nothing.
    paused: bool,
    /// What has become durable meanwhile.
    deferred: Option<Token>,
    /// What came with the content that consensus is being told of.
    installed: Option<SnapshotEnd>,
    /// The last wake-up asked of the hub.
    alarm: Option<Time>,
    announcements: u8,
}

/// Where the members live that this one has heard of.
#[derive(Default)]
pub(crate) struct Places {
    /// Each with the number of its core.
    known: Vec<(MemberId, Place, Option<usize>)>,
}

/// What the replica asks its surroundings.
pub(crate) struct Surroundings<'a, R> {
    pub hub: &'a Hub<R>,
    pub places: &'a Places,
    pub id: PartitionId,
    pub generation: Generation,
}

impl Places {
    /// Takes note of where a member lives.
    pub fn learn<R: Runtime>(&mut self, hub: &Hub<R>, member: MemberId, place: Place) {
        if self.place(member).is_none() {
            self.known.push((member, place, hub.core(place)));
        }
    }

    pub fn learn_all<R: Runtime>(&mut self, hub: &Hub<R>, membership: &Membership) {
        membership.seats().for_each(|seat| self.learn(hub, seat.member.id, seat.place));
    }

    pub fn place(&self, member: MemberId) -> Option<Place> {
        self.known.iter().find(|known| known.0 == member).map(|known| known.1)
    }

    fn core(&self, member: MemberId) -> Option<usize> {
        self.known.iter().find(|known| known.0 == member)?.2
    }

    /// Whether a member that this one has heard of lives on a core.
    pub fn is_on(&self, core: usize) -> bool {
        self.known.iter().any(|known| known.2 == Some(core))
    }

    /// The members with their places.
    pub fn membership(&self, configuration: &Configuration) -> Membership {
        let places = configuration.ids().iter().map(|&id| self.place(id).unwrap_or_default()).collect();
        Membership { configuration: *configuration, places }
    }

    /// An entry without operations: its content follows from its kind and place.
    fn sealed(&self, slot: Slot, kind: &EntryKind) -> Entry {
        match kind {
            EntryKind::Swap(configuration) => Entry {
                slot,
                note: self.membership(configuration).encode(),
                lasting: true,
                ..Entry::default()
            },
            EntryKind::Command | EntryKind::Noop => Entry { slot, ..Entry::default() },
        }
    }
}

impl<R: Runtime> Facts for Surroundings<'_, R> {
    fn settings(&self) -> &Settings {
        &self.hub.config.settings
    }

    fn received(&self, member: MemberId) -> Grant {
        self.places.core(member).map(|core| self.hub.supports.borrow().received(core)).unwrap_or_default()
    }

    fn given(&self, member: MemberId) -> Grant {
        self.places.core(member).map(|core| self.hub.supports.borrow().given(core)).unwrap_or_default()
    }

    fn seal(&self, previous: Anchor, kind: &EntryKind) -> u128 {
        let entry = self.places.sealed(previous.slot.next(), kind);
        entry.checksum(self.id, self.generation, previous.checksum)
    }
}

impl Group {
    pub fn new(replica: Replica, places: Places, sessions: Sessions, marks: Marks) -> Group {
        Group {
            replica,
            out: Output::default(),
            loads: VecDeque::new(),
            incoming: Vec::new(),
            incoming_from: Slot(0),
            held: VecDeque::new(),
            durable: Token(0),
            places,
            sessions,
            marks,
            pending_tokens: HashMap::new(),
            paused: false,
            deferred: None,
            installed: None,
            alarm: None,
            announcements: 0,
        }
    }

    /// The present member that lives on a core.
    pub fn member_on(&self, core: usize) -> Option<MemberId> {
        let ids = self.replica.configuration().ids();
        ids.iter().copied().find(|&id| self.places.core(id) == Some(core))
    }

    /// Gives back memory that is not needed while nothing happens.
    fn rest(&mut self) {
        self.replica.rest();
        self.out = Output::default();
        (self.loads, self.incoming) = (VecDeque::new(), Vec::new());
        self.held.shrink_to_fit();
        self.pending_tokens.shrink_to_fit();
    }

    /// Whether it takes nothing in: what others say is said again.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// From now on consensus hears of nothing.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Consensus is about to hear that content was installed; yields what it has not heard of yet.
    pub fn resume(&mut self, end: SnapshotEnd) -> Option<Token> {
        self.paused = false;
        self.installed = Some(end);
        self.deferred.take()
    }

    pub fn leads(&self) -> bool {
        self.replica.standing() == Standing::Leader
    }

    /// Members and outcomes as of what is applied, as they are written down with a snapshot; without the
    /// outcomes only by mistake.
    pub fn state(&self, with_outcomes: bool) -> Rc<[u8]> {
        let mut to = crate::bytes::Writer::default();
        self.places.membership(self.replica.configuration()).write(&mut to);
        if with_outcomes {
            self.sessions.write(&mut to);
        } else {
            Sessions::default().write(&mut to);
        }
        Rc::from(to.bytes)
    }

    /// The payload of an entry that consensus asks to be written.
    fn payload(&mut self, slot: Slot, vote: &Vote) -> Entry {
        let at = slot.0.checked_sub(self.incoming_from.0).and_then(|at| usize::try_from(at).ok());
        let arrived = at.and_then(|at| self.incoming.get_mut(at)).and_then(Option::take);
        arrived.unwrap_or_else(|| {
            assert!(vote.kind != EntryKind::Command, "a write comes with its payload");
            self.places.sealed(slot, &vote.kind)
        })
    }
}

/// What an entry is to consensus; nothing if no replica can have made it.
pub(crate) fn kind_of(entry: &Entry) -> Option<EntryKind> {
    if entry.lasting {
        return Some(EntryKind::Swap(Membership::decode(&entry.note)?.configuration));
    }
    let is_noop = entry.operations.is_empty() && entry.note.is_empty();
    Some(if is_noop { EntryKind::Noop } else { EntryKind::Command })
}

pub(crate) fn position(anchor: Anchor) -> Position {
    Position { slot: anchor.slot, checksum: anchor.checksum }
}

pub(crate) fn anchor(position: Position) -> Anchor {
    Anchor { slot: position.slot, checksum: position.checksum }
}

impl<D: Disk, R: Runtime> Partition<D, R> {
    pub(crate) fn surroundings<'a>(&'a self, places: &'a Places) -> Surroundings<'a, R> {
        let row = self.row();
        Surroundings { hub: &self.hub, places, id: row.id, generation: row.generation }
    }

    /// The time, as far as this group needs it: a group with one member rests on no support.
    pub(crate) fn now(&self, replica: &Replica) -> Time {
        if replica.configuration().ids() == [replica.member().id] { Time(0) } else { self.hub.now() }
    }

    /// Tells consensus something, and does what it asks.
    pub(crate) fn tell(&self, input: Input<'_>) {
        let mut group = self.group.borrow_mut();
        let group = &mut *group;
        if group.paused {
            return;
        }
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        group.replica.step(now, input, &facts, &mut group.out);
        self.perform(group);
    }

    /// Proposes an entry that the engine lets in. Nothing has been done if it is refused.
    pub(crate) fn propose_entry(
        &self,
        group: &mut Group,
        entry: Entry,
        checksum: u128,
    ) -> Result<(), evenkeel_paxos::Refused> {
        let slot = entry.slot;
        group.incoming.clear();
        group.incoming.push(Some(entry));
        group.incoming_from = slot;
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        let proposed = group.replica.propose(now, &[checksum], &facts, &mut group.out);
        let first = proposed.inspect_err(|_| {
            // Or an entry that consensus itself puts into this slot later would be taken for this one.
            group.incoming.clear();
        })?;
        assert_eq!(first, slot, "a proposal follows the end of the log");
        self.perform(group);
        Ok(())
    }

    pub(crate) fn swap_member(
        &self,
        remove: MemberId,
        add: crate::place::Seat,
    ) -> Result<(), evenkeel_paxos::Refused> {
        let mut group = self.group.borrow_mut();
        let group = &mut *group;
        group.places.learn(&self.hub, add.member.id, add.place);
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        group.replica.swap(now, remove, add.member, &facts, &mut group.out)?;
        self.perform(group);
        Ok(())
    }

    /// Does what a step has asked, and what follows from that.
    fn perform(&self, group: &mut Group) {
        let mut out = std::mem::take(&mut group.out);
        loop {
            let actions = std::mem::take(&mut out.actions);
            for action in &actions {
                self.act(group, action, &out);
            }
            out.actions = actions;
            out.clear();
            let Some((to, after, upto)) = group.loads.pop_front() else { break };
            self.load(group, to, after, upto, &mut out);
        }
        group.out = out;
        group.incoming.clear();
        self.set_alarm(group);
        self.wake_readers();
    }

    fn act(&self, group: &mut Group, action: &Action, out: &Output) {
        match action {
            Action::Persist { token, record, entries } => {
                self.persist(group, *token, record, out.span(entries));
            }
            Action::Send { to, message, entries, after } => {
                let votes = out.span(entries);
                if *after <= group.durable || self.errs(mistakes::SENT_BEFORE_DURABLE) {
                    self.send(group, *to, message, votes);
                } else {
                    group.held.push_back((*after, *to, *message, votes.to_vec()));
                }
            }
            Action::Committed { chosen } => self.advance(group, chosen.slot),
            Action::Leadership { leads, .. } => self.led(group, *leads),
            Action::Load { to, after, upto } => group.loads.push_back((*to, *after, *upto)),
            Action::NeedSnapshot { from, .. } => self.fetch_snapshot(*from),
            Action::Blocked { .. } => self.blocked.set(true),
            Action::Removed => self.removed.set(true),
        }
    }

    fn persist(&self, group: &mut Group, token: Token, record: &Record, votes: &[Vote]) {
        if self.halted.get() {
            return;
        }
        if self.engine.log_failure().is_some() {
            // The log takes nothing: what it holds is not what consensus takes it to hold any more. Whoever waits
            // for it to be durable hears why it has stopped.
            self.halted.set(true);
        }
        let written = match *record {
            Record::Promise { ballot } => self.engine.promise(self.row().id, ballot),
            Record::Accept { ballot, after, chosen } if votes.is_empty() => {
                let chosen = chosen.min(after.slot);
                self.engine.accepted(self.row().id, ballot, position(after), chosen)
            }
            Record::Accept { after, chosen, .. } => self.write_entries(group, after.slot, chosen, votes),
            Record::Begin { base, configuration } => self.write_begin(group, base, &configuration),
        };
        match written {
            Ok(durable) => self.journal.push(self.this(), token, durable),
            Err(refused) => self.halt(&refused),
        }
    }

    fn write_entries(
        &self,
        group: &mut Group,
        after: Slot,
        chosen: Slot,
        votes: &[Vote],
    ) -> Result<Durable, Refused> {
        let mut slot = after;
        let mut durable = None;
        for vote in votes {
            slot = slot.next();
            let entry = group.payload(slot, vote);
            let entry = Entry { ballot: vote.ballot, chosen: chosen.min(slot), ..entry };
            self.observe(entry.timestamp);
            if entry.lasting
                && let Some(membership) = Membership::decode(&entry.note)
            {
                group.places.learn_all(&self.hub, &membership);
            }
            // Writes complete in order: the last one speaks for all.
            drop(durable.replace(self.engine.append(self.row().id, entry, vote.checksum)?));
        }
        Ok(durable.expect("there is at least one"))
    }

    fn write_begin(
        &self,
        group: &mut Group,
        base: Anchor,
        configuration: &Configuration,
    ) -> Result<Durable, Refused> {
        let (durable, SnapshotEnd { timestamp, state }) = match group.installed.take() {
            // A flip has written it down.
            Some(end) => (self.engine.nothing_to_write(), end),
            None => {
                let kind = group.replica.member().kind;
                assert!(kind == MemberKind::Log, "only a log without content begins anew without any");
                let mut to = crate::bytes::Writer::default();
                group.places.membership(configuration).write(&mut to);
                Sessions::default().write(&mut to);
                let (timestamp, state) = (Timestamp(0), Rc::from(to.bytes));
                let durable = self.engine.begin(self.row().id, position(base), timestamp, &state)?;
                (durable, SnapshotEnd { timestamp, state })
            }
        };
        if let Some((membership, sessions)) = read_state(&state) {
            group.places.learn_all(&self.hub, &membership);
            group.sessions = sessions;
        }
        self.observe(timestamp);
        Ok(durable)
    }

    /// Applies what is chosen, and lets those go who wait for it.
    fn advance(&self, group: &mut Group, slot: Slot) {
        // What consensus asked to be written is not there if the log has stopped or refused it.
        if slot <= self.applied() || self.halted.get() {
            return;
        }
        while let Some(mark) = self.apply_to_mark(group, slot) {
            self.reach_mark(group, mark, slot);
        }
        self.set_applied(slot);
        group.announcements = ANNOUNCEMENTS;
        self.hub.announce(self.row().id);
    }

    /// Applies up to `slot`, or only to the next mark, which it yields.
    fn apply_to_mark(&self, group: &mut Group, slot: Slot) -> Option<Slot> {
        let Group { sessions, pending_tokens, marks, .. } = group;
        let mut mark = None;
        self.engine.apply(self.row().id, slot, |entry| {
            marks.pass(entry);
            let note = (!entry.lasting).then(|| TokenNote::decode(&entry.note)).flatten();
            match note {
                Some(note) => {
                    pending_tokens.remove(&(note.token.session, note.token.sequence));
                    sessions.record(&note, entry.slot, entry.timestamp, first_image(entry));
                }
                None => sessions.pass(entry.timestamp),
            }
            mark = is_mark(entry).then_some(entry.slot);
            if mark.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        mark
    }

    /// Leadership was won or lost.
    fn led(&self, group: &mut Group, leads: bool) {
        group.pending_tokens.clear();
        if leads && !self.errs(mistakes::PENDING_TOKENS_FORGOTTEN) {
            let (chosen, end) = (self.applied(), self.engine.end(self.row().id).slot);
            for slot in chosen.0 + 1..=end.0 {
                let Some((entry, _)) = self.engine.entry(self.row().id, Slot(slot)) else { continue };
                let note = (!entry.lasting).then(|| TokenNote::decode(&entry.note)).flatten();
                if let Some(TokenNote { token, .. }) = note {
                    group.pending_tokens.insert((token.session, token.sequence), entry.slot);
                }
            }
        }
        self.leadership_changed(leads);
    }

    fn set_alarm(&self, group: &mut Group) {
        let sole = group.replica.configuration().ids() == [group.replica.member().id];
        let wake = group.replica.wake().filter(|_| !sole && !self.halted.get());
        if wake != group.alarm {
            group.alarm = wake;
            self.hub.wake_group(self.row().id, wake);
        }
    }

    /// The time that this group asked for has come.
    pub(crate) fn on_alarm(&self) {
        self.group.borrow_mut().alarm = None;
        self.tell(Input::Tick);
    }

    /// Support with a core began or lapsed; if a member of this group lives there, it matters here.
    pub(crate) fn on_liveness(&self, core: usize) {
        if self.group.borrow().places.is_on(core) {
            self.tell(Input::Liveness);
        }
    }

    /// A round of announcements has been made; returns whether another one is wanted. After the last one
    /// the group is idle.
    pub(crate) fn announced(&self) -> bool {
        let mut group = self.group.borrow_mut();
        group.announcements = group.announcements.saturating_sub(1);
        if group.announcements == 0 {
            group.rest();
            self.engine.rest(self.row().id);
        }
        group.announcements > 0
    }
}

impl<D: Disk, R: Runtime> Writes for Partition<D, R> {
    fn persisted(&self, token: Token) {
        let mut group = self.group.borrow_mut();
        let group = &mut *group;
        if group.paused {
            group.deferred = Some(token);
            return;
        }
        group.durable = group.durable.max(token);
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        group.replica.step(now, Input::Persisted { token }, &facts, &mut group.out);
        while group.held.front().is_some_and(|held| held.0 <= token) {
            let (_, to, message, votes) = group.held.pop_front().expect("looked at on the line above");
            self.send(group, to, &message, &votes);
        }
        self.perform(group);
    }

    fn failed(&self, reason: &WalFailed) {
        self.halt_because(reason);
    }
}

/// Members and outcomes from what was written down with a snapshot.
pub(crate) fn read_state(state: &[u8]) -> Option<(Membership, Sessions)> {
    let mut from = crate::bytes::Reader::new(state);
    let membership = Membership::read(&mut from)?;
    Some((membership, Sessions::read(&mut from)?))
}

/// The image that a write with a token left; such an entry has one operation.
pub(crate) fn first_image(entry: &Entry) -> Option<&Rc<[u8]>> {
    match entry.operations.first() {
        Some(Operation::Put { image, .. }) => Some(image),
        Some(Operation::Delete { .. }) | None => None,
    }
}

/// The token of a write and where it stands.
pub(crate) fn pending_slot(group: &RefCell<Group>, token: RequestToken) -> Option<Slot> {
    group.borrow().pending_tokens.get(&(token.session, token.sequence)).copied()
}
