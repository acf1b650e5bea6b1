//! A small world of real replicas: every message, every write, every tick is one action of the searcher.
//!
//! After every action the world checks what must always hold; a breach is a [`Violation`].

use crate::node::{Held, NODES_MAX, Node, SUPPORT, Surroundings, Write, checksum};
use evenkeel_model::Slot;
use evenkeel_paxos::{
    Action, Anchor, Configuration, Entry, Input, Member, MemberId, MemberKind, Message, Output, Refused,
    Settings, Standing, Support, SupportSettings, Supports, Trap,
};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A breach of what must always hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// What is under way between two cores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    pub from: MemberId,
    pub to: MemberId,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    Group(Message, Vec<Entry>),
    Support(Support),
    Snapshot(Anchor, Configuration),
}

/// One thing the searcher does. Nodes and packets are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A packet arrives; if `again`, it stays under way too.
    Deliver { packet: usize, again: bool },
    /// A packet is lost.
    Drop { packet: usize },
    /// The oldest write of a node is durable.
    Persist { node: usize },
    /// A node stops and starts; a part of its writes under way is found on the device.
    Crash { node: usize, records: usize, entries: usize },
    /// An orderly stop, which records until when support was given, and a start.
    Restart { node: usize },
    /// A node loses its disk, for ever.
    Wipe { node: usize },
    /// Time passes for everybody.
    Tick,
    /// So much time passes that all support runs out.
    Wait,
    /// A clock runs ahead of the others.
    Drift { node: usize },
    /// A machine is paused while time passes: only a clock that stops would not notice.
    Pause { node: usize },
    /// A clock jumps back for one reading.
    Back { node: usize },
    /// A replica looks at the time.
    Time { node: usize },
    /// A core sends its support message.
    Support { from: usize, to: usize },
    /// A core asks another one for support and has the answer at once.
    Exchange { from: usize, to: usize },
    /// A replica is told to stand for election.
    Campaign { node: usize },
    /// A write.
    Propose { node: usize },
    /// A leader hands over.
    Transfer { node: usize, to: usize },
    /// A leader is told to swap members.
    Swap { node: usize, remove: usize, add: usize },
    /// A leader's commit index is sent to the others.
    Announce { node: usize },
    /// A checkpoint takes the log up to what is chosen.
    Trim { node: usize },
    /// A node is cut off, or no longer.
    Cut { node: usize },
}

#[derive(Clone, Debug)]
pub struct World {
    pub settings: Rc<Settings>,
    pub nodes: Vec<Node>,
    pub packets: Vec<Packet>,
    pub proposals: u32,
    /// The entry of each slot that somebody said to be chosen.
    pub chosen: BTreeMap<Slot, u128>,
    /// Each write's checksum and that of the entry it was proposed behind.
    pub parents: BTreeMap<u128, u128>,
    /// The last slot that a leader said to be chosen: its writes may have been acknowledged.
    pub acknowledged: Slot,
    /// Whether events are counted; a search over states has no use for it.
    pub counts_events: bool,
    /// What has happened, by name.
    pub seen: BTreeMap<&'static str, u64>,
}

pub fn member(id: u32, kind: MemberKind) -> Member {
    Member { id: MemberId(id), kind }
}

impl World {
    /// Three founders, numbered 1 to 3, and others that may be swapped in.
    pub fn new(settings: Settings, joiners: &[MemberKind]) -> World {
        let founders: Vec<Member> = (1..=3).map(|id| member(id, MemberKind::Storage)).collect();
        let first = Configuration::first(&founders);
        let joiners = joiners.iter().zip(4..).map(|(&kind, id)| member(id, kind));
        let mut nodes: Vec<Node> = founders
            .iter()
            .copied()
            .chain(joiners)
            .map(|member| Node::new(member, first, u64::from(member.id.0 - 1) * 3))
            .collect();
        assert!(nodes.len() <= NODES_MAX);
        let trap = settings.trap;
        nodes.iter_mut().for_each(|node| node.supports = with_trap(node, trap));
        World {
            settings: Rc::new(settings),
            nodes,
            packets: Vec::new(),
            proposals: 0,
            chosen: BTreeMap::new(),
            parents: BTreeMap::new(),
            acknowledged: Slot(0),
            counts_events: true,
            seen: BTreeMap::new(),
        }
    }

    pub fn note(&mut self, event: &'static str) {
        if self.counts_events {
            *self.seen.entry(event).or_default() += 1;
        }
    }

    /// Goes on without the mistake; support that was given under it stays.
    pub fn switch_off(&mut self) {
        Rc::make_mut(&mut self.settings).trap = None;
        self.nodes.iter_mut().for_each(|node| node.supports.switch_off());
    }

    /// Whether a move can be made now, and changes anything.
    pub fn can(&self, step: Move) -> bool {
        let up = |node: usize| !self.nodes[node].lost;
        match step {
            Move::Deliver { packet, .. } => {
                let Packet { from, to, .. } = self.packets[packet];
                let cut = |id: MemberId| self.nodes[id.0 as usize - 1].cut;
                !cut(from) && !cut(to) && up(to.0 as usize - 1)
            }
            Move::Persist { node } => up(node) && !self.nodes[node].queue.is_empty(),
            Move::Propose { node } => up(node) && self.nodes[node].replica.standing() == Standing::Leader,
            Move::Announce { node } => up(node) && self.nodes[node].replica.announcement().is_some(),
            Move::Transfer { node, to } => {
                node != to && up(node) && self.nodes[node].replica.standing() == Standing::Leader
            }
            Move::Swap { node, remove, add } => {
                let leader = &self.nodes[node].replica;
                up(node)
                    && leader.standing() == Standing::Leader
                    && leader.configuration().contains(MemberId(remove as u32 + 1))
                    && !leader.configuration().contains(MemberId(add as u32 + 1))
            }
            Move::Time { node } => {
                let node = &self.nodes[node];
                !node.lost && node.replica.wake().is_none_or(|wake| wake <= node.now())
            }
            Move::Support { from, to } => from != to && up(from) && up(to),
            Move::Exchange { from, to } => {
                from != to && up(from) && up(to) && !self.nodes[from].cut && !self.nodes[to].cut
            }
            Move::Trim { node } => {
                let node = &self.nodes[node];
                let room = node.disk.chosen() > node.disk.base().0.slot;
                !node.lost && node.replica.member().kind == MemberKind::Storage && room
            }
            Move::Crash { node, .. }
            | Move::Restart { node }
            | Move::Wipe { node }
            | Move::Drift { node }
            | Move::Pause { node }
            | Move::Back { node }
            | Move::Campaign { node }
            | Move::Cut { node } => up(node),
            Move::Drop { .. } | Move::Tick | Move::Wait => true,
        }
    }

    /// Makes a move, and checks what must always hold.
    pub fn make(&mut self, step: Move) -> Result<(), Violation> {
        match step {
            Move::Deliver { packet, again } => {
                let packet =
                    if again { self.packets[packet].clone() } else { self.packets.swap_remove(packet) };
                self.deliver(packet)?;
            }
            Move::Drop { packet } => drop(self.packets.swap_remove(packet)),
            Move::Persist { node } => self.persist(node)?,
            Move::Crash { node, records, entries } => self.crash(node, records, entries, true)?,
            Move::Restart { node } => self.crash(node, usize::MAX - 1, 0, false)?,
            Move::Wipe { node } => self.wipe(node),
            Move::Tick => self.nodes.iter_mut().for_each(|node| node.clock += 1),
            Move::Wait => {
                let wait = Supports::restart_wait_ns(&SUPPORT);
                self.nodes.iter_mut().for_each(|node| node.clock += wait + 1);
            }
            Move::Drift { node } => {
                self.nodes[node].clock += 1;
                self.nodes[node].drifts += 1;
            }
            Move::Pause { node } => self.pause(node),
            Move::Back { node } => self.back(node)?,
            Move::Time { node } => self.input(node, Input::Tick)?,
            Move::Support { from, to } => self.send_support(from, to),
            Move::Exchange { from, to } => {
                for (from, to) in [(from, to), (to, from)] {
                    self.send_support(from, to);
                    let packet = self.packets.pop().expect("sent on the line above");
                    self.deliver(packet)?;
                }
            }
            Move::Campaign { node } => self.input(node, Input::Campaign)?,
            Move::Propose { node } => self.propose(node)?,
            Move::Transfer { node, to } => {
                self.note("relinquish");
                self.input(node, Input::Transfer { to: Some(MemberId(to as u32 + 1)) })?;
            }
            Move::Swap { node, remove, add } => self.swap(node, remove, add)?,
            Move::Announce { node } => self.announce(node),
            Move::Trim { node } => self.trim(node),
            Move::Cut { node } => self.nodes[node].cut ^= true,
        }
        self.check_reads()
    }

    fn deliver(&mut self, Packet { from, to, body }: Packet) -> Result<(), Violation> {
        let at = to.0 as usize - 1;
        match body {
            Body::Group(message, entries) => {
                self.input(at, Input::Message { from, message, entries: &entries })
            }
            Body::Support(support) => {
                let node = &mut self.nodes[at];
                let now = node.now();
                if node.supports.receive(now, from.0 as usize - 1, &support) {
                    self.input(at, Input::Liveness)?;
                }
                Ok(())
            }
            Body::Snapshot(base, configuration) => {
                self.note("snapshot installed");
                let record = evenkeel_paxos::Record::Begin { base, configuration };
                self.nodes[at].disk.apply(&record, &[]);
                self.nodes[at].view.apply(&record, &[]);
                self.input(at, Input::Installed { base, configuration })
            }
        }
    }

    fn persist(&mut self, at: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        let write = node.queue.pop_front().expect("only asked when there is one");
        node.disk.apply(&write.record, &write.entries);
        node.durable = write.token;
        let promised = node.disk.promised();
        if self.settings.trap.is_some() && !node.promises.contains(&promised) {
            node.promises.push(promised);
        }
        let from = node.id();
        let (go, wait) = node.held.drain(..).partition(|held| held.after <= write.token);
        node.held = wait;
        self.packets.extend(released(from, go));
        self.input(at, Input::Persisted { token: write.token })
    }

    fn crash(&mut self, at: usize, records: usize, entries: usize, unclean: bool) -> Result<(), Violation> {
        let trap = self.settings.trap;
        if !unclean {
            while !self.nodes[at].queue.is_empty() {
                self.persist(at)?;
            }
        }
        let node = &mut self.nodes[at];
        if entries > 0 && node.queue.get(records).is_some_and(|write| entries < write.entries.len()) {
            self.note("cut tail");
        }
        self.nodes[at].crash(records, entries, trap, unclean);
        self.input(at, Input::Tick)
    }

    fn wipe(&mut self, at: usize) {
        self.note("disk lost");
        if self.settings.trap == Some(Trap::IdentityReused) {
            let node = &mut self.nodes[at];
            let founders = node.replica.configuration();
            let (member, clock, incarnation) = (node.replica.member(), node.clock, node.incarnation);
            if founders.version == 0 && founders.contains(member.id) {
                *node = Node::new(member, *founders, clock);
                node.incarnation = incarnation;
                node.crash(0, 0, self.settings.trap, true);
            }
            return;
        }
        self.nodes[at].lost = true;
        self.nodes[at].queue.clear();
        self.nodes[at].held.clear();
    }

    fn pause(&mut self, at: usize) {
        let stops = self.settings.trap == Some(Trap::ClockStopsInPause);
        for (other, node) in self.nodes.iter_mut().enumerate() {
            if other != at || !stops {
                node.clock += 1;
            }
        }
    }

    /// A replica that knows the time reads a clock that has jumped back, once.
    fn back(&mut self, at: usize) -> Result<(), Violation> {
        self.input(at, Input::Liveness)?;
        let clock = self.nodes[at].clock;
        self.nodes[at].clock = clock.saturating_sub(5);
        let may = self.may_read(at);
        let outcome = if may { self.check_reads() } else { Ok(()) };
        self.nodes[at].clock = clock;
        outcome
    }

    fn send_support(&mut self, from: usize, to: usize) {
        let node = &mut self.nodes[from];
        let now = node.now();
        let body = Body::Support(node.supports.message(now, to, true));
        self.packets.push(Packet { from: node.id(), to: self.nodes[to].id(), body });
    }

    fn propose(&mut self, at: usize) -> Result<(), Violation> {
        self.proposals += 1;
        let node = &mut self.nodes[at];
        let parent = node.replica.end().checksum;
        let value = checksum(parent, &self.proposals);
        self.parents.insert(value, parent);
        let surroundings = Surroundings { settings: &self.settings, supports: &node.supports };
        let mut out = Output::default();
        let taken = node.replica.propose(node.now(), &[value], &surroundings, &mut out);
        if taken == Err(Refused::SwapPending) {
            self.note("proposal refused for a swap");
        }
        self.carry_out(at, out)
    }

    fn swap(&mut self, at: usize, remove: usize, add: usize) -> Result<(), Violation> {
        let add = self.nodes[add].replica.member();
        let node = &mut self.nodes[at];
        let surroundings = Surroundings { settings: &self.settings, supports: &node.supports };
        let mut out = Output::default();
        let remove = MemberId(remove as u32 + 1);
        let _ = node.replica.swap(node.now(), remove, add, &surroundings, &mut out);
        self.carry_out(at, out)
    }

    fn announce(&mut self, at: usize) {
        let message = self.nodes[at].replica.announcement().expect("only asked of a leader");
        let from = self.nodes[at].id();
        let ids: Vec<MemberId> = self.nodes.iter().map(Node::id).filter(|&id| id != from).collect();
        self.packets.extend(ids.into_iter().map(|to| Packet {
            from,
            to,
            body: Body::Group(message, Vec::new()),
        }));
    }

    fn trim(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let slot = node.disk.chosen();
        node.disk.trim(slot);
        node.view.trim(slot);
    }

    /// Gives one input to a replica and does what it asks for.
    pub fn input(&mut self, at: usize, input: Input<'_>) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        let surroundings = Surroundings { settings: &self.settings, supports: &node.supports };
        let mut out = Output::default();
        node.replica.step(node.now(), input, &surroundings, &mut out);
        self.carry_out(at, out)
    }

    fn carry_out(&mut self, at: usize, out: Output) -> Result<(), Violation> {
        for action in &out.actions {
            if let Action::Persist { token, record, entries } = action {
                let entries = out.span(entries).to_vec();
                let node = &mut self.nodes[at];
                node.view.apply(record, &entries);
                node.queue.push_back(Write { token: *token, record: *record, entries });
            }
        }
        self.check_log(at)?;
        for action in &out.actions {
            self.do_one(at, action, &out)?;
        }
        Ok(())
    }

    fn do_one(&mut self, at: usize, action: &Action, out: &Output) -> Result<(), Violation> {
        match action {
            Action::Persist { .. } | Action::Leadership { leads: false, .. } => {}
            Action::Send { to, message, entries, after } => {
                let entries = out.span(entries).to_vec();
                let held = Held { after: *after, to: *to, message: *message, entries };
                let node = &mut self.nodes[at];
                if *after <= node.durable {
                    let from = node.id();
                    self.packets.extend(released(from, vec![held]));
                } else {
                    node.held.push(held);
                }
            }
            Action::Committed { chosen } => self.committed(at, *chosen)?,
            Action::Leadership { .. } => self.note("leader"),
            Action::Load { to, after, upto } => self.load(at, *to, *after, *upto)?,
            Action::NeedSnapshot { from, base } => self.snapshot(at, *from, *base),
            Action::Blocked { .. } => self.note("blocked probe"),
            Action::Removed => self.note("removed"),
        }
        Ok(())
    }

    fn load(&mut self, at: usize, to: MemberId, after: Slot, upto: Slot) -> Result<(), Violation> {
        let (base, configuration) = self.nodes[at].view.base();
        if after < base.slot {
            self.note("log trimmed");
            return self.input(at, Input::Trimmed { to, base, configuration });
        }
        let view = &self.nodes[at].view;
        let Some(anchor) = view.anchor(after) else { return Ok(()) };
        let most = usize::try_from(upto.0.saturating_sub(after.0)).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = view.behind(after).iter().take(most).copied().collect();
        self.note("catch-up");
        self.input(at, Input::Loaded { to, after: anchor, entries: &entries })
    }

    fn snapshot(&mut self, at: usize, from: MemberId, base: Anchor) {
        let source = &self.nodes[from.0 as usize - 1];
        if source.lost || source.replica.chosen().slot < base.slot {
            return;
        }
        let body = Body::Snapshot(source.replica.chosen(), *source.replica.configuration());
        self.packets.push(Packet { from, to: self.nodes[at].id(), body });
    }

    pub fn may_read(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let surroundings = Surroundings { settings: &self.settings, supports: &node.supports };
        !node.lost && node.replica.may_read(node.now(), &surroundings)
    }
}

fn released(from: MemberId, held: Vec<Held>) -> impl Iterator<Item = Packet> {
    held.into_iter().map(move |held| Packet {
        from,
        to: held.to,
        body: Body::Group(held.message, held.entries),
    })
}

fn with_trap(node: &Node, trap: Option<Trap>) -> Supports {
    let settings = SupportSettings { trap, ..SUPPORT };
    Supports::new(settings, node.incarnation, NODES_MAX, evenkeel_paxos::Time::default())
}
