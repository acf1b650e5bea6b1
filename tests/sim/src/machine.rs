//! One life after the other of one core: what it runs on, what is left of it by a crash.

use crate::cluster::{Core, Outbox, Place, Shape, Start};
use crate::seen::Seen;
use crate::watch::Watch;
use evenkeel_storage::Mistake;
use evenkeel_storage::memory::{Append, MemoryDisk, Random, TestRuntime};
use std::rc::Rc;

/// What an operation takes at least and at most on a healthy disk.
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
    /// How many of them since its disk was empty.
    lives: u32,
    pub disk: MemoryDisk,
    pub runtime: TestRuntime,
    pub outbox: Outbox<C::Message>,
    /// It does nothing before this time.
    pub stalled_until: u64,
    pub slow_until: u64,
    pub stuck_until: u64,
    /// The next time it is to be woken for a timer.
    pub wake_at: Option<u64>,
    /// The number of the next operation of the disk to be given a time of completion.
    timed: u64,
    /// An append of this life that nobody knows to be damaged: until others are durable behind it, no start could
    /// find out.
    damaged: Option<usize>,
    seen: Seen,
    watch: Watch,
}

/// What a life of a core begins with.
pub(crate) struct Birth<'a> {
    pub shape: &'a Rc<Shape>,
    pub seed: u64,
    /// How many nodes were in this place before.
    pub incarnation: u32,
    /// The time on the machine's clocks.
    pub local_ns: u64,
    pub wall_ahead_ns: i64,
    /// What it does wrong.
    pub mistakes: &'static [Mistake],
}

impl<C: Core> Slot<C> {
    /// A core that has not lived yet, on an empty disk.
    pub fn new(place: Place, seen: &Seen, watch: &Watch) -> Slot<C> {
        Slot {
            place,
            core: None,
            life: 0,
            lives: 0,
            disk: empty_disk(),
            runtime: TestRuntime::new(0),
            outbox: Outbox::new(seen.clone(), watch.clone()),
            stalled_until: 0,
            slow_until: 0,
            stuck_until: 0,
            wake_at: None,
            timed: 0,
            damaged: None,
            seen: seen.clone(),
            watch: watch.clone(),
        }
    }

    /// Begins the next life.
    pub fn start(&mut self, birth: &Birth<'_>) {
        assert!(self.core.is_none(), "a core lives once at a time");
        (self.life, self.lives) = (self.life + 1, self.lives + 1);
        self.runtime = TestRuntime::new(birth.seed);
        self.runtime.set_mistakes(birth.mistakes);
        self.runtime.advance_to(birth.local_ns);
        self.runtime.jump_wall(birth.wall_ahead_ns);
        self.outbox = Outbox::new(self.seen.clone(), self.watch.clone());
        self.stalled_until = 0;
        self.wake_at = None;
        self.timed = 0;
        self.core = Some(C::start(Start {
            place: self.place,
            shape: Rc::clone(birth.shape),
            life: self.lives,
            incarnation: birth.incarnation,
            disk: self.disk.clone(),
            runtime: self.runtime.clone(),
            outbox: self.outbox.clone(),
        }));
    }

    /// Ends the life: the tasks are gone, and of the disk's writes some sectors.
    pub fn crash(&mut self, crash: Crash, random: &mut Random) {
        self.runtime.stop();
        (self.core, self.damaged) = (None, None);
        let mut tear = Tear { random, write: None, landing: Landing::All, seen: &self.seen };
        let lands = |append: &Append, sector, sectors| tear.lands(append, sector, sectors);
        self.disk = match crash {
            Crash::Kill => self.disk.kill_process(lands),
            Crash::PowerCut => self.disk.cut_power(lands),
        };
    }

    /// Ends the life, and the disk with it.
    pub fn empty(&mut self) {
        self.runtime.stop();
        (self.core, self.damaged, self.lives) = (None, None, 0);
        self.disk = empty_disk();
    }

    /// Takes note that the next append is damaged.
    pub fn damages_next_append(&mut self) {
        self.damaged = Some(self.disk.append_count());
    }

    /// Whether a start would find out about all that is damaged.
    pub fn is_covered(&self) -> bool {
        self.damaged.is_none_or(|index| self.disk.is_covered(index))
    }

    /// Operations of the disk that were submitted since the last call, by number, and what each takes.
    pub fn operations(&mut self, now_ns: u64, random: &mut Random) -> Vec<(u64, u64)> {
        let mut delay_ns = || {
            let usual_ns = USUAL_NS.start + random.below(USUAL_NS.end - USUAL_NS.start);
            let slow = if now_ns < self.slow_until { SLOWNESS } else { 1 };
            usual_ns * slow + self.stuck_until.saturating_sub(now_ns)
        };
        let new = self.disk.operations_since(self.timed);
        self.timed = new.last().map_or(self.timed, |last| last + 1);
        new.into_iter().map(|id| (id, delay_ns())).collect()
    }
}

impl<C: Core> Drop for Slot<C> {
    /// Tasks hold the core, and the core holds what runs the tasks.
    fn drop(&mut self) {
        self.runtime.stop();
    }
}

fn empty_disk() -> MemoryDisk {
    let disk = MemoryDisk::held();
    disk.hold_everything();
    disk
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
