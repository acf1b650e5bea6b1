//! What the groups of one core share: support with other cores, settings, timers, the way out.
//!
//! Cores are numbered as groups name them. It knows groups only by their ids.

use crate::mark::LOOKS_PER_INTERVAL;
use crate::message::{CoreMessage, GroupMessage, Outbox};
use crate::place::Place;
use evenkeel_model::PartitionId;
use evenkeel_paxos::{Grant, Settings, Support, SupportSettings, Supports, Time};
use evenkeel_storage::Runtime;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Copies that a core makes at the same time: each has about a megabyte of pieces and pages in memory.
const COPIES_MAX: usize = 16;

/// How a core takes part in its groups.
#[derive(Clone)]
pub struct CoreConfig {
    /// Where it is.
    pub place: Place,
    /// The settings of all its groups.
    pub settings: Settings,
    /// How long support lasts.
    pub support: SupportSettings,
    /// How many bytes of applied entries each group with several members keeps in memory, for others to
    /// catch up by; beyond that they take a snapshot.
    pub tail_bytes_max: u64,
    /// How many bytes more all groups together keep for members that copy content at the moment: what is written
    /// meanwhile is what they need next.
    pub copy_tail_bytes_max: u64,
    /// How far apart the marks of a partition are that is written to ([`Engine::mark`](evenkeel_storage::Engine::mark)).
    pub mark_interval_ns: u64,
    /// Keys and images in one piece of a snapshot, about.
    pub piece_bytes: usize,
    /// The way to other cores.
    pub outbox: Rc<dyn Outbox>,
}

/// A core without others, whose groups have one member each.
struct Nowhere;

impl Outbox for Nowhere {
    fn send(&self, _to: Place, _message: CoreMessage) {}
}

impl CoreConfig {
    /// What production uses.
    pub fn new(place: Place, outbox: Rc<dyn Outbox>) -> CoreConfig {
        CoreConfig {
            place,
            settings: Settings::default(),
            support: SupportSettings::default(),
            tail_bytes_max: 4 * 1024 * 1024,
            copy_tail_bytes_max: 64 * 1024 * 1024,
            mark_interval_ns: 3_600_000_000_000,
            piece_bytes: 128 * 1024,
            outbox,
        }
    }

    /// A core whose groups have one member each: there is nobody to talk to.
    pub fn alone(place: Place) -> CoreConfig {
        CoreConfig::new(place, Rc::new(Nowhere))
    }
}

/// What the groups of a core share.
pub(crate) struct Hub<R> {
    pub runtime: R,
    pub config: CoreConfig,
    /// Before this time the core may be supporting somebody by the word of its former life.
    pub votes_from: Time,
    pub supports: RefCell<Supports>,
    cores: RefCell<Vec<Core>>,
    /// When groups want to be told the time.
    wakes: RefCell<BTreeMap<PartitionId, Time>>,
    /// Groups of which something was chosen that others may not have heard of. Idle ones are not looked at.
    announcing: RefCell<BTreeSet<PartitionId>>,
    support_due: Cell<Time>,
    marks_due: Cell<Time>,
    /// Of the bytes kept for copies, what no group has taken.
    copy_tail_left: Cell<u64>,
    /// Copies under way.
    copies: Cell<usize>,
    /// When the task that keeps time will look next, and how to have it look earlier.
    planned: Cell<Time>,
    keeper: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

/// Bytes of applied entries that a group may keep for a copy, until this is dropped.
pub(crate) struct TailShare<R> {
    hub: Rc<Hub<R>>,
    pub bytes: u64,
}

impl<R> Drop for TailShare<R> {
    fn drop(&mut self) {
        self.hub.copy_tail_left.set(self.hub.copy_tail_left.get() + self.bytes);
    }
}

/// One of the copies that a core makes at the same time, until this is dropped.
pub(crate) struct CopyShare<R> {
    hub: Rc<Hub<R>>,
}

impl<R> Drop for CopyShare<R> {
    fn drop(&mut self) {
        self.hub.copies.set(self.hub.copies.get() - 1);
    }
}

/// Another core.
struct Core {
    place: Place,
    /// Whether support was live when it was last looked at, given and received.
    live: (bool, bool),
}

impl<R: Runtime> Hub<R> {
    /// A core in its `life`th life, counted from 1; `unclean` if it may have supported anybody before.
    pub fn new(runtime: R, config: CoreConfig, life: u32, unclean: bool) -> Hub<R> {
        let now = Time(runtime.now_ns());
        let wait_ns = if unclean { Supports::restart_wait_ns(&config.support) } else { 0 };
        let votes_from = now.after(wait_ns);
        Hub {
            votes_from,
            supports: RefCell::new(Supports::new(config.support.clone(), life, 0, votes_from)),
            copy_tail_left: Cell::new(config.copy_tail_bytes_max),
            copies: Cell::new(0),
            runtime,
            config,
            cores: RefCell::default(),
            wakes: RefCell::default(),
            announcing: RefCell::default(),
            support_due: Cell::new(now),
            marks_due: Cell::new(now),
            planned: Cell::new(Time(u64::MAX)),
            keeper: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    /// Half of what is left of the bytes kept for copies, for one more of them.
    pub fn take_tail(self: &Rc<Self>) -> TailShare<R> {
        let bytes = self.copy_tail_left.get() / 2;
        self.copy_tail_left.set(self.copy_tail_left.get() - bytes);
        TailShare { hub: self.clone(), bytes }
    }

    /// One more copy, unless there are too many.
    pub fn begin_copy(self: &Rc<Self>) -> Option<CopyShare<R>> {
        let copies = self.copies.get() + 1;
        (copies <= COPIES_MAX).then(|| {
            self.copies.set(copies);
            CopyShare { hub: self.clone() }
        })
    }

    pub fn now(&self) -> Time {
        Time(self.runtime.now_ns())
    }

    /// The number of a core; nothing for this one.
    pub fn core(&self, place: Place) -> Option<usize> {
        if place == self.config.place {
            return None;
        }
        let mut cores = self.cores.borrow_mut();
        let known = cores.iter().position(|core| core.place == place);
        Some(known.unwrap_or_else(|| {
            cores.push(Core { place, live: (false, false) });
            self.support_due.set(self.now());
            self.look_by(self.now());
            self.supports.borrow_mut().add_peer()
        }))
    }

    /// Takes a support message in; yields the core if support began with it.
    pub fn supported(&self, from: Place, support: &Support) -> Option<usize> {
        let core = self.core(from)?;
        let began = self.supports.borrow_mut().receive(self.now(), core, support);
        began.then_some(core)
    }

    /// The cores with which support has lapsed since this was last asked.
    pub fn lapsed(&self) -> Vec<usize> {
        let (now, supports) = (self.now(), self.supports.borrow());
        let live = |grant: Grant| grant.live(now);
        let mut lapsed = Vec::new();
        for (at, core) in self.cores.borrow_mut().iter_mut().enumerate() {
            let before =
                std::mem::replace(&mut core.live, (live(supports.given(at)), live(supports.received(at))));
            if before.0 && !core.live.0 || before.1 && !core.live.1 {
                lapsed.push(at);
            }
        }
        lapsed
    }

    /// Sends support to every core, if that is due; returns whether. `chosen` yields what rides on it to a
    /// core.
    pub fn send_support(&self, log_moves: bool, chosen: impl Fn(usize) -> Vec<GroupMessage>) -> bool {
        let now = self.now();
        if now < self.support_due.get() {
            return false;
        }
        self.support_due.set(now.after(self.config.support.period_ns));
        let places: Vec<Place> = self.cores.borrow().iter().map(|core| core.place).collect();
        for (core, place) in places.into_iter().enumerate() {
            let support = self.supports.borrow_mut().message(now, core, log_moves);
            self.config.outbox.send(place, CoreMessage::Support { support, chosen: chosen(core) });
        }
        true
    }

    /// Something of a group was chosen: the next support messages say so.
    pub fn announce(&self, id: PartitionId) {
        self.announcing.borrow_mut().insert(id);
    }

    /// Others have been told often enough of what was chosen of a group.
    pub fn announced(&self, id: PartitionId) {
        self.announcing.borrow_mut().remove(&id);
    }

    /// The groups with something to announce, in order.
    pub fn announcing(&self) -> Vec<PartitionId> {
        self.announcing.borrow().iter().copied().collect()
    }

    /// A group wants to be told the time.
    pub fn wake_group(&self, id: PartitionId, at: Option<Time>) {
        let mut wakes = self.wakes.borrow_mut();
        match at {
            Some(at) => {
                wakes.insert(id, at);
                self.look_by(at);
            }
            None => {
                wakes.remove(&id);
            }
        }
    }

    /// The groups whose time has come.
    pub fn due(&self) -> Vec<PartitionId> {
        let now = self.now();
        let mut wakes = self.wakes.borrow_mut();
        let due: Vec<PartitionId> = wakes.iter().filter(|&(_, &at)| at <= now).map(|(&id, _)| id).collect();
        wakes.retain(|_, at| *at > now);
        due
    }

    /// Whether it is time to look which partitions are to be marked.
    pub fn may_mark(&self) -> bool {
        let now = self.now();
        let may = now >= self.marks_due.get();
        if may {
            self.marks_due.set(now.after(self.config.mark_interval_ns / LOOKS_PER_INTERVAL));
        }
        may
    }

    /// When the task that keeps time has something to do.
    pub fn next_due(&self) -> Time {
        let support = (!self.cores.borrow().is_empty()).then(|| self.support_due.get());
        let wake = self.wakes.borrow().values().copied().min();
        let next = wake.into_iter().chain(support).fold(self.marks_due.get(), Time::min);
        self.planned.set(next);
        next
    }

    fn look_by(&self, at: Time) {
        if at < self.planned.get() {
            self.planned.set(at);
            self.wake_keeper();
        }
    }

    pub fn set_keeper(&self, context: &Context<'_>) {
        *self.keeper.borrow_mut() = Some(context.waker().clone());
    }

    /// Whether something is due earlier than the time it was planned for.
    pub fn is_before(&self, planned: Time) -> bool {
        self.closed.get() || self.planned.get() < planned
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.borrow().as_ref() {
            keeper.wake_by_ref();
        }
    }

    /// The core stops.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake_keeper();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}
