//! One life after the other of one core: what it runs on, what is left of it by a crash.

use crate::cluster::{Core, Outbox, Place, Shape, Start};
use crate::seen::Seen;
use evenkeel_storage::memory::{Append, MemoryDisk, Random, TestRuntime};
use std::rc::Rc;

/// What an append takes at least and at most on a healthy disk.
const USUAL_NS: std::ops::Range<u64> = 60_000..400_000;
/// A slow disk is this much slower.
const SLOWNESS: u64 = 100;

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process: what was written and not synced is still there.
    Kill,
    /// The machine.
    PowerCut,
}

/// A core of a machine, through its lives.
pub(crate) struct Slot<C: Core> {
    pub place: Place,
    /// The core, while it lives.
    pub core: Option<C>,
    /// Which life it is in, from 1; a disk's completion is for the life that asked.
    pub life: u32,
    pub disk: MemoryDisk,
    pub runtime: TestRuntime,
    pub outbox: Outbox<C::Message>,
    /// It does nothing before this time.
    pub stalled_until: u64,
    pub slow_until: u64,
    pub stuck_until: u64,
    /// The next time it is to be woken for a timer.
    pub wake_at: Option<u64>,
    /// How many appends of the disk have been given a time of completion.
    timed: usize,
    seen: Seen,
}

impl<C: Core> Slot<C> {
    /// A core that has not lived yet, on an empty disk.
    pub fn new(place: Place, seen: &Seen) -> Slot<C> {
        Slot {
            place,
            core: None,
            life: 0,
            disk: MemoryDisk::held(),
            runtime: TestRuntime::new(0),
            outbox: Outbox::new(seen.clone()),
            stalled_until: 0,
            slow_until: 0,
            stuck_until: 0,
            wake_at: None,
            timed: 0,
            seen: seen.clone(),
        }
    }

    /// Begins the next life, at a time on the machine's clocks.
    pub fn start(&mut self, shape: &Rc<Shape>, seed: u64, local_ns: u64, wall_ahead_ns: i64) {
        assert!(self.core.is_none(), "a core lives once at a time");
        self.life += 1;
        self.runtime = TestRuntime::new(seed);
        self.runtime.advance_to(local_ns);
        self.runtime.jump_wall(wall_ahead_ns);
        self.outbox = Outbox::new(self.seen.clone());
        self.stalled_until = 0;
        self.wake_at = None;
        self.timed = 0;
        self.core = Some(C::start(Start {
            place: self.place,
            shape: Rc::clone(shape),
            life: self.life,
            disk: self.disk.clone(),
            runtime: self.runtime.clone(),
            outbox: self.outbox.clone(),
        }));
    }

    /// Ends the life: the tasks are gone, and of the disk's writes some sectors.
    pub fn crash(&mut self, crash: Crash, random: &mut Random) {
        self.runtime.stop();
        self.core = None;
        let mut tear = Tear { random, write: None, landing: Landing::All, seen: &self.seen };
        let lands = |append: &Append, sector, sectors| tear.lands(append, sector, sectors);
        self.disk = match crash {
            Crash::Kill => self.disk.kill_process(lands),
            Crash::PowerCut => self.disk.cut_power(lands),
        };
    }

    /// Appends that were submitted since the last call, by index, and what each takes.
    pub fn appends(&mut self, now_ns: u64, random: &mut Random) -> Vec<(usize, u64)> {
        let mut delay_ns = || {
            let usual_ns = USUAL_NS.start + random.below(USUAL_NS.end - USUAL_NS.start);
            let slow = if now_ns < self.slow_until { SLOWNESS } else { 1 };
            usual_ns * slow + self.stuck_until.saturating_sub(now_ns)
        };
        let new = self.timed..self.disk.append_count();
        self.timed = new.end;
        new.map(|index| (index, delay_ns())).collect()
    }
}

/// Which sectors of a write that was under way are there afterwards.
#[derive(Clone, Copy)]
enum Landing {
    All,
    Nothing,
    Prefix(usize),
    Some,
}

struct Tear<'a> {
    random: &'a mut Random,
    write: Option<(evenkeel_storage::FileId, u64)>,
    landing: Landing,
    seen: &'a Seen,
}

impl Tear<'_> {
    fn lands(&mut self, append: &Append, sector: usize, sectors: usize) -> bool {
        let write = Some((append.file, append.offset));
        if self.write != write {
            self.write = write;
            self.draw(sectors);
        }
        match self.landing {
            Landing::All => true,
            Landing::Nothing => false,
            Landing::Prefix(count) => sector < count,
            Landing::Some => self.random.once_in(2),
        }
    }

    fn draw(&mut self, sectors: usize) {
        let (landing, event) = match self.random.below(4) {
            0 => (Landing::All, "write landed in a crash"),
            1 => (Landing::Nothing, "write lost in a crash"),
            2 => (Landing::Prefix(self.random.below(sectors as u64) as usize), "write cut in a crash"),
            _ => (Landing::Some, "write torn in a crash"),
        };
        self.landing = landing;
        self.seen.note(event);
    }
}
