//! True time, the queue of what happens next, and everything that happens to cores.
//!
//! A step takes the next event off the queue; two events of the same nanosecond come in the order in
//! which they were queued. What concerns clients and faults is handed to the caller.

use crate::client::Timer;
use crate::clock::Clock;
use crate::cluster::{Answer, Call, CallToken, Core, Order, Outgoing, Place, REPLICAS, Shape};
use crate::machine::{Birth, Crash, Slot};
use crate::network::{End, Fate, Network};
use crate::seen::Seen;
use crate::swarm::Swarm;
use crate::watch::Watch;
use evenkeel_storage::memory::{Append, DamageKind, Random};
use evenkeel_storage::{FileId, Mistake};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A node whose disks were emptied takes part as the one that it was.
pub const IDENTITY_REUSED: Mistake =
    Mistake("cluster: a node with emptied disks takes part as the one it was");

/// What is in the queue.
#[derive(Clone, Debug)]
enum Event<M> {
    Message {
        from: Place,
        to: Place,
        message: M,
    },
    Call {
        to: Place,
        call: Call,
    },
    /// An operation of a core's disk is done.
    Done {
        to: Place,
        life: u32,
        operation: u64,
    },
    /// A timer of a core is due, or its stall ends.
    Wake {
        to: Place,
    },
    Order {
        to: Place,
        order: Order,
    },
    Restart {
        node: usize,
    },
    Crash {
        node: usize,
        crash: Crash,
        down_ns: u64,
    },
    Mend {
        from: End,
        to: End,
    },
    Room {
        of: Place,
    },
    Outer(Occurrence),
}

/// What a step leaves to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occurrence {
    /// A client is answered.
    Answer {
        /// The operation.
        token: CallToken,
        /// The attempt.
        attempt: u32,
        /// What.
        answer: Answer,
    },
    /// A client's time has come.
    Client {
        /// Whose.
        client: u64,
        /// For what.
        timer: Timer,
    },
    /// Something is to go wrong.
    Fault,
    /// The control plane looks at the cluster.
    Control,
    /// Something happened inside.
    Inside,
}

/// A machine without its cores.
struct Machine {
    clock: Clock,
    wall_ahead_ns: i64,
    up: bool,
    incarnation: u32,
}

/// A node with a damaged disk. While there is one, no other disk is touched: what is chosen is on two of three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Harm {
    /// The node.
    pub node: usize,
    /// Another one has taken its place, and is to be taken in by the groups.
    pub replaced: bool,
}

/// A cluster in its surroundings.
pub struct World<C: Core> {
    /// How large it is.
    pub shape: Rc<Shape>,
    /// What can go wrong.
    pub swarm: Swarm,
    /// All that is drawn, but for faults.
    pub random: Random,
    /// Faults are drawn from this, so that leaving one out changes no other.
    pub fault_random: Random,
    /// What happened.
    pub seen: Seen,
    /// What members have promised.
    pub watch: Watch,
    /// Until when every second client gets no answer.
    muted_until: u64,
    /// The node whose disk is damaged.
    pub harm: Option<Harm>,
    /// The links.
    pub network: Network,
    /// Crashes of nodes so far.
    pub crashes: u64,
    slots: Vec<Slot<C>>,
    machines: Vec<Machine>,
    queue: BTreeMap<(u64, u64), Event<C::Message>>,
    queued: u64,
    orders: u32,
    now_ns: u64,
    digest: u64,
    mistakes: &'static [Mistake],
    tracing: bool,
}

impl<C: Core> World<C> {
    /// A cluster whose nodes start now, for the first time, and make these mistakes.
    pub fn new(
        shape: Shape,
        swarm: Swarm,
        mut random: Random,
        mistakes: &'static [Mistake],
        tracing: bool,
    ) -> World<C> {
        let (seen, watch) = (Seen::default(), Watch::default());
        let machine = |_| Machine { clock: Clock::new(0, 0, 0), wall_ahead_ns: 0, up: false, incarnation: 0 };
        let mut world = World {
            slots: shape.places().map(|place| Slot::new(place, &seen, &watch)).collect(),
            machines: (0..shape.nodes).map(machine).collect(),
            shape: Rc::new(shape),
            swarm,
            fault_random: Random::new(random.bits()),
            random,
            seen,
            watch,
            muted_until: 0,
            harm: None,
            network: Network::default(),
            crashes: 0,
            queue: BTreeMap::new(),
            queued: 0,
            orders: 0,
            now_ns: 0,
            digest: 0,
            mistakes,
            tracing,
        };
        for node in 0..world.shape.nodes {
            let fast_ppm = world.draw_drift();
            world.machines[node].clock = Clock::new(0, 1 + world.random.below(1_000_000_000), fast_ppm);
            world.restart(node);
        }
        world
    }

    /// True time, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// A number that differs if anything happened otherwise or at another time.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Prints what happens now, if somebody wants to read it.
    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.tracing {
            println!("{:>14.6} ms  {}", self.now_ns as f64 / 1e6, what());
        }
    }

    /// Hands `occurrence` to the caller after so many nanoseconds.
    pub fn after(&mut self, delay_ns: u64, occurrence: Occurrence) {
        self.queue(delay_ns, Event::Outer(occurrence));
    }

    /// Sends an attempt of a client to a core.
    pub fn call(&mut self, to: Place, call: Call) {
        self.trace(|| {
            let Call { token, attempt, partition, key, request, .. } = &call;
            let client = token.client;
            format!(
                "client {client} asks {to}: {request} of key {key}, partition {partition}, attempt {attempt}"
            )
        });
        let fate = self.network.send(End::Clients, End::Node(to.node), &self.swarm, &mut self.random);
        self.post(fate, Event::Call { to, call });
    }

    /// Lets the next event happen.
    pub fn step(&mut self) -> Option<Occurrence> {
        let ((at_ns, number), event) = self.queue.pop_first()?;
        self.now_ns = at_ns;
        self.digest =
            (self.digest ^ at_ns ^ number << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        match event {
            Event::Message { from, to, message } => {
                self.wake(to, Event::Message { from, to, message: message.clone() }, |core| {
                    core.receive(from, message);
                });
            }
            Event::Call { to, call } => {
                self.wake(to, Event::Call { to, call: call.clone() }, |core| core.serve(call));
            }
            Event::Wake { to } => {
                let slot = self.slot_mut(to);
                slot.wake_at = slot.wake_at.filter(|&wake_at| wake_at > at_ns);
                self.wake(to, Event::Wake { to }, |_| {});
            }
            Event::Done { to, life, operation } => {
                let slot = self.slot_mut(to);
                if slot.life == life && slot.core.is_some() {
                    slot.disk.complete_operation(operation);
                    self.wake(to, Event::Wake { to }, |_| {});
                }
            }
            Event::Order { to, order } => self.wake(to, Event::Order { to, order }, |core| core.obey(order)),
            Event::Restart { node } => self.restart(node),
            Event::Crash { node, crash, down_ns } => self.crash(node, crash, down_ns),
            Event::Mend { from, to } => self.network.mend(from, to),
            Event::Room { of } => self.slot_mut(of).disk.set_full(false),
            Event::Outer(occurrence) => return Some(occurrence),
        }
        Some(Occurrence::Inside)
    }

    /// Ends the life of all cores of a node, and starts them again after a while.
    pub fn crash(&mut self, node: usize, crash: Crash, down_ns: u64) {
        if !self.is_covered(node) {
            // The next start would take the log to end where nobody can know better.
            self.seen.note("crash put off: damage that no start could find");
            return;
        }
        if !std::mem::replace(&mut self.machines[node].up, false) {
            return;
        }
        self.trace(|| format!("node {node} crashes: {crash:?}, for {} ms", down_ns / 1_000_000));
        self.crashes += 1;
        for index in self.slots_of(node) {
            self.slots[index].crash(crash, &mut self.random);
        }
        if crash == Crash::PowerCut {
            let fast_ppm = self.draw_drift();
            self.machines[node].clock = Clock::new(self.now_ns, 1, fast_ppm);
        }
        self.queue(down_ns, Event::Restart { node });
    }

    /// Lets every second client have no answer for a while, and nodes crash some time after now.
    pub fn mute(&mut self, for_ns: u64, after_ns: u64, victims: Vec<(usize, Crash, u64)>) {
        self.muted_until = self.now_ns + for_ns;
        for (node, crash, down_ns) in victims {
            self.queue(after_ns, Event::Crash { node, crash, down_ns });
        }
    }

    /// Puts another node in the place of one, with empty disks; it starts after a while.
    pub fn replace(&mut self, node: usize, down_ns: u64) {
        self.trace(|| {
            format!("node {node} is replaced, its disks are gone; back in {} ms", down_ns / 1_000_000)
        });
        self.seen.note("replaced node");
        self.crashes += u64::from(self.machines[node].up);
        let fast_ppm = self.draw_drift();
        let machine = &mut self.machines[node];
        (machine.up, machine.clock) = (false, Clock::new(self.now_ns, 1, fast_ppm));
        if !self.errs(IDENTITY_REUSED) {
            self.machines[node].incarnation += 1;
        }
        self.slots_of(node).for_each(|index| self.slots[index].empty());
        self.harm = Some(Harm { node, replaced: true });
        self.queue(down_ns, Event::Restart { node });
    }

    /// How many nodes were in the place of this one before.
    pub fn incarnation(&self, node: usize) -> u32 {
        self.machines[node].incarnation
    }

    /// Whether everything in the place of a node lives and is not stalled.
    pub fn is_working(&self, node: usize) -> bool {
        self.slots_of(node).all(|index| {
            let slot = &self.slots[index];
            slot.core.is_some() && slot.stalled_until <= self.now_ns
        })
    }

    /// Whether a start of this node would find out about all that is damaged on its disks.
    pub fn is_covered(&self, node: usize) -> bool {
        self.slots_of(node).all(|index| self.slots[index].is_covered())
    }

    /// The core in a place, if it lives.
    pub fn core(&self, place: Place) -> Option<&C> {
        self.slots[self.index(place)].core.as_ref()
    }

    /// Whether a mistake is to be made.
    fn errs(&self, mistake: Mistake) -> bool {
        self.mistakes.contains(&mistake)
    }

    /// Whether a disk of this node may be damaged now: what is chosen must be whole on two of three.
    pub fn may_harm(&self, node: usize) -> bool {
        C::OUTLIVES_A_DISK && self.harm.is_none_or(|harm| harm.node == node && !harm.replaced)
    }

    /// Lets the next append to the log, or the next write of a page, be lost or go elsewhere.
    pub fn damage_next(&mut self, place: Place, append: bool, kind: DamageKind) {
        let random = self.fault_random.bits();
        let slot = self.slot_mut(place);
        if slot.core.is_none() || append && !slot.is_covered() {
            return;
        }
        slot.disk.damage_next(append, kind, random);
        if append {
            slot.damages_next_append();
        }
        self.harm = Some(Harm { node: place.node, replaced: false });
    }

    /// Lets the next append to the log fail.
    pub fn fail_append(&mut self, place: Place) {
        self.slot_mut(place).disk.fail_next_append();
    }

    /// Changes one bit of a disk: in the log of what was written in this life and is known to be durable, or
    /// anywhere in the page file.
    pub fn rot(&mut self, place: Place, log: bool) {
        let (random, at) = (self.fault_random.bits(), self.fault_random.bits());
        let slot = self.slot_mut(place);
        if slot.core.is_none() {
            return;
        }
        let (file, from, bytes) = if log {
            let history = slot.disk.history();
            let Some(index) = random.checked_rem(history.len() as u64) else { return };
            let index = usize::try_from(index).expect("appends are in memory");
            let end = |append: &Append| append.offset + append.bytes.len() as u64;
            let chosen = &history[index];
            let overwritten = history[index + 1..].iter().any(|later| {
                later.file == chosen.file && later.offset < end(chosen) && chosen.offset < end(later)
            });
            if overwritten || !slot.disk.is_covered(index) {
                return;
            }
            (chosen.file, chosen.offset, chosen.bytes.len() as u64)
        } else {
            (FileId::Pages, 0, slot.disk.content(FileId::Pages).len() as u64)
        };
        let Some(at) = at.checked_rem(bytes * 8) else { return };
        slot.disk.rot(file, from + at / 8, u32::try_from(at % 8).expect("it is below eight"));
        self.harm = Some(Harm { node: place.node, replaced: false });
    }

    /// Lets a core do nothing for a while. Its disk and its clock go on.
    pub fn stall(&mut self, place: Place, for_ns: u64) {
        self.slot_mut(place).stalled_until = self.now_ns + for_ns;
        self.queue(for_ns, Event::Wake { to: place });
    }

    /// Makes a disk slow, or lets it complete nothing, for a while.
    pub fn hamper_disk(&mut self, place: Place, stuck: bool, for_ns: u64) {
        let until = self.now_ns + for_ns;
        let slot = self.slot_mut(place);
        *(if stuck { &mut slot.stuck_until } else { &mut slot.slow_until }) = until;
    }

    /// Lets no file be made on a disk for a while.
    pub fn fill_disk(&mut self, place: Place, for_ns: u64) {
        self.slot_mut(place).disk.set_full(true);
        self.queue(for_ns, Event::Room { of: place });
    }

    /// Cuts one direction of a link for a while.
    pub fn cut(&mut self, from: End, to: End, for_ns: u64) {
        self.network.cut(from, to);
        self.queue(for_ns, Event::Mend { from, to });
    }

    /// The number of a member that there never was.
    pub fn fresh_number(&mut self) -> u32 {
        self.orders += 1;
        self.orders + u32::try_from(REPLICAS).expect("few copies")
    }

    /// Lets every core hear an order.
    pub fn order(&mut self, order: Order) {
        for to in self.shape.places() {
            self.queue(0, Event::Order { to, order });
        }
    }

    /// Gives a machine's clock another rate.
    pub fn drift(&mut self, node: usize) {
        let fast_ppm = self.draw_drift();
        let now_ns = self.now_ns;
        self.machines[node].clock.set_rate(now_ns, fast_ppm);
        for index in self.slots_of(node) {
            self.set_alarm(index);
        }
    }

    /// Sets a machine's wall clock.
    pub fn jump_wall(&mut self, node: usize, by_ns: i64) {
        self.machines[node].wall_ahead_ns += by_ns;
        for index in self.slots_of(node) {
            self.slots[index].runtime.jump_wall(by_ns);
        }
    }

    /// Ends every fault, and starts what is down.
    pub fn heal(&mut self) {
        self.swarm = Swarm::calm();
        self.network.heal();
        self.muted_until = 0;
        self.queue.retain(|_, event| !matches!(event, Event::Crash { .. }));
        for node in 0..self.shape.nodes {
            self.restart(node);
        }
        for index in 0..self.slots.len() {
            let now_ns = self.now_ns;
            let slot = &mut self.slots[index];
            (slot.slow_until, slot.stuck_until) = (0, 0);
            slot.disk.set_full(false);
            if slot.stalled_until > now_ns {
                slot.stalled_until = 0;
                let to = slot.place;
                self.queue(0, Event::Wake { to });
            }
        }
    }

    /// Every core that lives and is not stalled, at this moment of its own clock.
    pub fn cores(&self) -> impl Iterator<Item = (Place, &C)> {
        self.slots.iter().filter(|slot| slot.stalled_until <= self.now_ns).filter_map(|slot| {
            slot.runtime.advance_to(self.machines[slot.place.node].clock.local_ns(self.now_ns));
            slot.core.as_ref().map(|core| (slot.place, core))
        })
    }

    fn restart(&mut self, node: usize) {
        if std::mem::replace(&mut self.machines[node].up, true) {
            return;
        }
        self.trace(|| format!("node {node} starts"));
        let Machine { clock, wall_ahead_ns, incarnation, .. } = self.machines[node];
        let shape = Rc::clone(&self.shape);
        for index in self.slots_of(node) {
            self.slots[index].start(&Birth {
                shape: &shape,
                seed: self.random.bits(),
                incarnation,
                local_ns: clock.local_ns(self.now_ns),
                wall_ahead_ns,
                mistakes: self.mistakes,
            });
            self.run_core(index);
        }
    }

    /// Lets a core do `what` now; not if it is dead, and `again` after its stall if it is stalled.
    fn wake(&mut self, place: Place, again: Event<C::Message>, what: impl FnOnce(&C)) {
        let (index, now_ns) = (self.index(place), self.now_ns);
        let slot = &self.slots[index];
        let Some(core) = &slot.core else { return };
        if slot.stalled_until > now_ns {
            let delay_ns = slot.stalled_until - now_ns;
            if !matches!(again, Event::Wake { .. }) {
                self.queue(delay_ns, again);
            }
            return;
        }
        slot.runtime.advance_to(self.machines[place.node].clock.local_ns(now_ns));
        if let Event::Message { from, message, .. } = &again {
            self.trace(|| format!("{from} → {place}: {}", C::describe(message)));
        }
        what(core);
        self.run_core(index);
    }

    /// Runs what is ready in a core, and carries away what it says and writes.
    fn run_core(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.runtime.run_ready();
        let (place, life) = (slot.place, slot.life);
        let operations = slot.operations(self.now_ns, &mut self.random);
        let outgoing = slot.outbox.take();
        for (operation, delay_ns) in operations {
            self.queue(delay_ns, Event::Done { to: place, life, operation });
        }
        for outgoing in outgoing {
            self.carry(place, outgoing);
        }
        self.set_alarm(index);
    }

    fn carry(&mut self, from: Place, outgoing: Outgoing<C::Message>) {
        let node = End::Node(from.node);
        match outgoing {
            Outgoing::Message { to, message } => {
                let fate = self.network.send(node, End::Node(to.node), &self.swarm, &mut self.random);
                self.post(fate, Event::Message { from, to, message });
            }
            Outgoing::Answer { token, .. } if token.client % 2 == 1 && self.now_ns < self.muted_until => {
                self.seen.note("answer lost");
            }
            Outgoing::Answer { token, attempt, answer } => {
                let fate = self.network.send(node, End::Clients, &self.swarm, &mut self.random);
                self.post(fate, Event::Outer(Occurrence::Answer { token, attempt, answer }));
            }
        }
    }

    fn post(&mut self, fate: Fate, event: Event<C::Message>) {
        match fate {
            Fate::Lost => self.seen.note("message lost"),
            Fate::Arrives(delay_ns) => self.queue(delay_ns, event),
            Fate::Twice(first_ns, second_ns) => {
                self.seen.note("message twice");
                self.queue(first_ns, event.clone());
                self.queue(second_ns, event);
            }
        }
    }

    /// Queues the wake-up for a core's next timer, unless one is queued that comes as early.
    fn set_alarm(&mut self, index: usize) {
        let slot = &self.slots[index];
        let Some(local_ns) = slot.runtime.next_timer_ns().filter(|_| slot.core.is_some()) else { return };
        let to = slot.place;
        let at_ns = self.machines[to.node].clock.true_ns(local_ns).max(self.now_ns);
        if slot.wake_at.is_none_or(|wake_at| at_ns < wake_at) {
            self.slots[index].wake_at = Some(at_ns);
            self.queue(at_ns - self.now_ns, Event::Wake { to });
        }
    }

    fn queue(&mut self, delay_ns: u64, event: Event<C::Message>) {
        self.queued += 1;
        self.queue.insert((self.now_ns + delay_ns, self.queued), event);
    }

    fn draw_drift(&mut self) -> i32 {
        let most = self.swarm.drift_ppm;
        let width = u64::try_from(2 * most + 1).expect("drift is not negative");
        i32::try_from(self.random.below(width)).expect("drift is small") - most
    }

    fn index(&self, place: Place) -> usize {
        place.node * self.shape.cores + place.core
    }

    fn slot_mut(&mut self, place: Place) -> &mut Slot<C> {
        let index = self.index(place);
        &mut self.slots[index]
    }

    fn slots_of(&self, node: usize) -> std::ops::Range<usize> {
        node * self.shape.cores..(node + 1) * self.shape.cores
    }
}
