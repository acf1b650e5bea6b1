//! What goes wrong, when and for how long: drawn from a seed, and then done to the machines.
//!
//! Kinds come in rounds, each round all of them in a random order, so a run that lasts for one round has seen them
//! all. A fault is taken back before its machine suffers another one; faults of different machines may overlap,
//! also so that no majority is left. Only one disk at a time is emptied: two of three copies are never lost.

use super::machines::{MACHINES, Machines};
use super::network::{self, End};
use super::{ChaosError, Clock};
use crate::Random;
use serde_json::Value;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest that a fault lasts, in runs long enough for it.
const LASTS_MAX: Duration = Duration::from_secs(8);
const LASTS_MIN: Duration = Duration::from_millis(300);
/// Pause behind a fault, before the next one begins.
const PAUSE_MAX: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// One in so many faults begins while the one before goes on.
const OVERLAPS_ONCE_IN: u64 = 4;
/// Rounds of all kinds that fit into a run at least.
const ROUNDS_MIN: u32 = 2;
const TICK: Duration = Duration::from_millis(20);
/// How long a stuttering process is stopped, and then runs.
const STUTTER: Duration = Duration::from_millis(60);
/// How often it is looked whether an emptied disk is full again.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// SIGKILL of a node, which starts again.
    Kill,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGKILL of the router.
    KillRouter,
    /// An orderly stop of a node, which starts again.
    Stop,
    /// SIGSTOP of a node, and SIGCONT.
    Pause,
    /// Nothing gets from one node to another.
    CutOneWay,
    /// Nothing gets from one node to another, or back.
    CutBothWays,
    /// Nothing gets to a node or from it.
    Isolate,
    /// Nothing gets from the router to a node, or back, or both.
    CutRouter,
    /// The disk of a node is slow.
    SlowDisk,
    /// A node is killed and its disk emptied; another one takes its place.
    EmptyDisk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::KillRouter,
        Kind::Stop,
        Kind::Pause,
        Kind::CutOneWay,
        Kind::CutBothWays,
        Kind::Isolate,
        Kind::CutRouter,
        Kind::SlowDisk,
        Kind::EmptyDisk,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "SIGKILL",
            Kind::KillAll => "SIGKILL of all",
            Kind::KillRouter => "SIGKILL of the router",
            Kind::Stop => "orderly stop",
            Kind::Pause => "SIGSTOP",
            Kind::CutOneWay => "one-way cut",
            Kind::CutBothWays => "two-way cut",
            Kind::Isolate => "isolated node",
            Kind::CutRouter => "cut from the router",
            Kind::SlowDisk => "slow disk",
            Kind::EmptyDisk => "emptied disk",
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// On which machine, if on one.
    pub machine: usize,
    /// Which way nothing gets, where it is a cut.
    pub cuts: Vec<(End, End)>,
    /// How long.
    pub lasts: Duration,
    /// From its end to the beginning of the next; nothing if that begins before, halfway through this.
    pub pause: Option<Duration>,
}

/// What went wrong, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// When it began, since the run did.
    pub began: Duration,
    /// When it was taken back.
    pub ended: Duration,
    /// What.
    pub kind: Kind,
    /// To whom.
    pub text: String,
}

/// The faults of a seed, one after another.
pub struct Schedule {
    random: Random,
    round: Vec<Kind>,
    lasts_max: Duration,
}

impl Schedule {
    /// The faults of this seed for a run of this length.
    pub fn new(seed: u64, run: Duration) -> Schedule {
        let share = run / (ROUNDS_MIN * Kind::ALL.len() as u32);
        let lasts_max = share.clamp(LASTS_MIN * 2, LASTS_MAX);
        Schedule { random: Random::from_seed(seed), round: Vec::new(), lasts_max }
    }

    /// The next one, of those machines that are free; none if no machine is.
    pub fn draw(&mut self, is_free: impl Fn(usize) -> bool) -> Option<Fault> {
        let free: Vec<usize> = (0..MACHINES).filter(|&at| is_free(at)).collect();
        if free.is_empty() {
            return None;
        }
        if self.round.is_empty() {
            self.round = Kind::ALL.to_vec();
        }
        let next = self.random.below(self.round.len() as u64) as usize;
        // What befalls everybody waits until everybody is free.
        let for_all = |kind: &Kind| *kind == Kind::KillAll;
        let at = match free.len() == MACHINES {
            true => next,
            false => self.round.iter().position(|kind| !for_all(kind))?,
        };
        let kind = self.round.swap_remove(at);
        let machine = free[self.random.below(free.len() as u64) as usize];
        let other = (machine + 1 + self.random.below(MACHINES as u64 - 1) as usize) % MACHINES;
        let cuts = self.cuts(kind, machine, other);
        let lasts = self.between(LASTS_MIN, self.lasts_max);
        let pause = self.between(PAUSE_MIN.min(self.lasts_max), PAUSE_MAX.min(self.lasts_max));
        let overlaps = self.random.below(OVERLAPS_ONCE_IN) == 0;
        Some(Fault { kind, machine, cuts, lasts, pause: (!overlaps).then_some(pause) })
    }

    fn cuts(&mut self, kind: Kind, machine: usize, other: usize) -> Vec<(End, End)> {
        let both = |one: End, other: End| [(one, other), (other, one)];
        let own = End::Machine(machine);
        match kind {
            Kind::CutOneWay => vec![both(own, End::Machine(other))[self.random.below(2) as usize]],
            Kind::CutBothWays => both(own, End::Machine(other)).to_vec(),
            Kind::Isolate => {
                let others = (0..MACHINES).filter(|&at| at != machine).map(End::Machine);
                others.chain([End::Router, End::Clients]).flat_map(|other| both(own, other)).collect()
            }
            Kind::CutRouter => match self.random.below(3) {
                2 => both(own, End::Router).to_vec(),
                way => vec![both(own, End::Router)[way as usize]],
            },
            _ => Vec::new(),
        }
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis() as u64;
        least + Duration::from_millis(self.random.below(span + 1))
    }
}

/// A fault that goes on.
struct Active {
    fault: Fault,
    mark: Mark,
    until: Duration,
    /// Being looked after a lost node's copies, which another one takes over.
    refill: Option<Refill>,
    /// Whether the process is stopped in turns.
    stutters: bool,
}

/// Looks whether a node that was replaced is in no partition any more.
struct Refill {
    lost: u32,
    look_at: Duration,
    looking: Option<JoinHandle<std::io::Result<Output>>>,
}

/// Does the faults of a schedule to machines, until it is told to stop; then takes back what goes on.
pub struct Tormentor {
    /// The machines.
    pub machines: Machines,
    /// What went wrong so far.
    pub marks: Vec<Mark>,
    schedule: Schedule,
    active: Vec<Active>,
    /// When the next fault begins.
    next: Duration,
    clock: Clock,
}

impl Tormentor {
    /// Nothing is wrong yet.
    pub fn new(machines: Machines, schedule: Schedule, clock: Clock) -> Tormentor {
        Tormentor { machines, marks: Vec::new(), schedule, active: Vec::new(), next: clock.now(), clock }
    }

    /// Goes on until `stop` is set, and then until everything is whole again but for copies.
    ///
    /// # Errors
    /// If the system refuses, or a node does not stop.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), ChaosError> {
        while !stop.load(Ordering::Relaxed) {
            self.tick()?;
            thread::sleep(TICK);
        }
        while !self.active.is_empty() {
            self.end_one(0)?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), ChaosError> {
        let now = self.clock.now();
        self.stutter(now)?;
        self.look_after_refills(now);
        if let Some(at) = self.active.iter().position(|active| active.until <= now) {
            self.end_one(at)?;
        }
        // A node that was told to stop ends when it has, and is waited for when the fault is taken back.
        let active = &self.active;
        let stops = |at: usize| {
            active.iter().any(|active| active.fault.kind == Kind::Stop && active.fault.machine == at)
        };
        self.machines.look(stops)?;
        if now >= self.next {
            self.begin_one(now)?;
        }
        Ok(())
    }

    fn begin_one(&mut self, now: Duration) -> Result<(), ChaosError> {
        let suffers = |kind: Kind| self.active.iter().any(|active| active.fault.kind == kind);
        if suffers(Kind::KillAll) {
            return Ok(());
        }
        // A fresh node suffers like all others while it takes copies over, which may take long.
        let suffers_at = |active: &Active, at| active.fault.machine == at && active.refill.is_none();
        let is_free = |at: usize| !self.active.iter().any(|active| suffers_at(active, at));
        let Some(fault) = self.schedule.draw(is_free) else { return Ok(()) };
        self.next = now + fault.pause.map_or(fault.lasts / 2, |pause| fault.lasts + pause);
        if fault.kind == Kind::EmptyDisk && (suffers(Kind::EmptyDisk) || !self.machines.can_replace()) {
            return Ok(());
        }
        if fault.kind == Kind::KillRouter && suffers(Kind::KillRouter) {
            return Ok(());
        }
        let text = self.describe(&fault);
        println!("{:>8.2} s  {text}, {:.1} s", now.as_secs_f64(), fault.lasts.as_secs_f64());
        let mark = Mark { began: now, ended: now, kind: fault.kind, text };
        let until = now + fault.lasts;
        let mut active = Active { fault, mark, until, refill: None, stutters: false };
        self.inflict(&mut active)?;
        self.active.push(active);
        Ok(())
    }

    fn describe(&self, fault: &Fault) -> String {
        let name = fault.kind.name();
        let node = self.machines.node(fault.machine);
        match fault.kind {
            Kind::KillAll | Kind::KillRouter => name.to_owned(),
            Kind::CutOneWay | Kind::CutBothWays => {
                format!("{name} from {} to {}", fault.cuts[0].0, fault.cuts[0].1)
            }
            _ => format!("{name}, node {node} on machine {}", fault.machine + 1),
        }
    }

    fn inflict(&mut self, active: &mut Active) -> Result<(), ChaosError> {
        let at = active.fault.machine;
        active.fault.cuts.iter().try_for_each(|&(from, to)| network::cut(from, to))?;
        match active.fault.kind {
            Kind::Kill => self.machines.kill_node(at),
            Kind::KillAll => (0..MACHINES).for_each(|at| self.machines.kill_node(at)),
            Kind::KillRouter => self.machines.kill_router(),
            Kind::Stop => self.machines.tell_to_stop(at)?,
            Kind::Pause => self.machines.hold(at, true)?,
            Kind::SlowDisk => active.stutters = !self.machines.slow(at, true),
            Kind::EmptyDisk => {
                let lost = self.machines.replace(at)?;
                active.until = Duration::MAX;
                active.refill = Some(Refill { lost, look_at: self.clock.now() + LOOK_PAUSE, looking: None });
            }
            Kind::CutOneWay | Kind::CutBothWays | Kind::Isolate | Kind::CutRouter => {}
        }
        Ok(())
    }

    /// Takes back a fault.
    fn end_one(&mut self, index: usize) -> Result<(), ChaosError> {
        let Active { fault, mut mark, stutters, .. } = self.active.swap_remove(index);
        let at = fault.machine;
        // Two faults may cut the same way: it is open again once both are over.
        let is_cut = |cut| self.active.iter().any(|active| active.fault.cuts.contains(cut));
        let over = fault.cuts.iter().filter(|cut| !is_cut(cut));
        over.copied().try_for_each(|(from, to)| network::heal(from, to))?;
        match fault.kind {
            Kind::Kill => self.machines.start_node(at)?,
            Kind::KillAll => (0..MACHINES).try_for_each(|at| self.machines.start_node(at))?,
            Kind::KillRouter => self.machines.start_router()?,
            Kind::Stop => {
                self.machines.await_stopped(at)?;
                self.machines.start_node(at)?;
            }
            Kind::Pause => self.machines.hold(at, false)?,
            Kind::SlowDisk if stutters => self.machines.hold(at, false)?,
            Kind::SlowDisk => {
                self.machines.slow(at, false);
            }
            Kind::EmptyDisk | Kind::CutOneWay | Kind::CutBothWays | Kind::Isolate | Kind::CutRouter => {}
        }
        mark.ended = self.clock.now();
        self.marks.push(mark);
        Ok(())
    }

    fn stutter(&mut self, now: Duration) -> Result<(), ChaosError> {
        let stopped = (now.as_millis() / STUTTER.as_millis()).is_multiple_of(2);
        for active in self.active.iter().filter(|active| active.stutters) {
            self.machines.hold(active.fault.machine, stopped)?;
        }
        Ok(())
    }

    fn look_after_refills(&mut self, now: Duration) {
        for active in &mut self.active {
            let Some(refill) = &mut active.refill else { continue };
            if refill.looking.is_none() && now >= refill.look_at {
                let mut command = self.machines.ask_for_partitions();
                refill.looking = Some(thread::spawn(move || command.output()));
            }
            let Some(looked) = refill.looking.take_if(|looking| looking.is_finished()) else { continue };
            refill.look_at = now + LOOK_PAUSE;
            let output = looked.join().ok().and_then(Result::ok);
            if output.is_some_and(|output| is_replaced(&output, refill.lost)) {
                active.until = now;
            }
        }
    }
}

/// Whether a listing of partitions is whole and knows nothing of a node any more.
fn is_replaced(output: &Output, lost: u32) -> bool {
    let Ok(Value::Array(partitions)) = serde_json::from_slice(&output.stdout) else { return false };
    let mut replicas =
        partitions.iter().flat_map(|partition| partition["replicas"].as_array().into_iter().flatten());
    output.status.success() && !partitions.is_empty() && replicas.all(|replica| replica["node"] != lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn drawn(seed: u64, count: usize) -> Vec<Fault> {
        let mut schedule = Schedule::new(seed, Duration::from_secs(300));
        (0..count).map(|_| schedule.draw(|_| true).expect("every machine is free")).collect()
    }

    #[test]
    fn a_seed_draws_the_same_faults_every_time_and_each_round_has_all_kinds() {
        let first = drawn(7, 33);
        assert_eq!(first, drawn(7, 33));
        assert_ne!(first, drawn(8, 33));
        for round in first.chunks(Kind::ALL.len()) {
            let kinds: BTreeSet<Kind> = round.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
        }
    }

    #[test]
    fn a_machine_that_suffers_is_left_alone_and_all_are_only_killed_when_none_does() {
        let mut schedule = Schedule::new(3, Duration::from_secs(60));
        assert_eq!(schedule.draw(|_| false), None);
        let mut kinds = Vec::new();
        while let Some(fault) = schedule.draw(|at| at == 2) {
            assert_eq!(fault.machine, 2);
            assert!(fault.cuts.iter().all(|(from, to)| from != to), "{fault:?}");
            kinds.push(fault.kind);
        }
        assert_eq!(kinds.len(), Kind::ALL.len() - 1);
        assert_eq!(schedule.draw(|_| true).map(|fault| fault.kind), Some(Kind::KillAll));
    }

    #[test]
    fn two_rounds_fit_into_a_run() {
        for minutes in [1, 5, 30] {
            let run = Duration::from_secs(60 * minutes);
            let mut schedule = Schedule::new(minutes, run);
            let round: Duration = (0..Kind::ALL.len())
                .filter_map(|_| schedule.draw(|_| true))
                .map(|fault| fault.lasts + fault.pause.unwrap_or_default())
                .sum();
            assert!(round < run, "{minutes} minutes: a round takes {round:?}");
        }
    }

    #[test]
    fn a_node_is_replaced_when_no_partition_lists_it() {
        let listed = |nodes: &[u32]| {
            Output {
            status: Default::default(),
            stderr: Vec::new(),
            stdout: serde_json::json!([{ "replicas": nodes.iter().map(|node| serde_json::json!({ "node": node })).collect::<Vec<_>>() }])
                .to_string()
                .into_bytes(),
        }
        };
        assert!(!is_replaced(&listed(&[1, 2, 3]), 2));
        assert!(is_replaced(&listed(&[1, 6, 3]), 2));
        let nothing = Output { stdout: b"[]".to_vec(), ..listed(&[]) };
        assert!(!is_replaced(&nothing, 2));
    }
}
