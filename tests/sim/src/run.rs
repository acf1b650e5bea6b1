//! One seed from beginning to end.
//!
//! *Safety*: clients work while faults come and go, until there were enough operations and crashes. Nothing
//! need work, but nothing may be wrong. *Liveness*: everything is healed, and within a bounded time each
//! partition must take a write, each key a read, and the copies must be equal. Then the history is judged.

use crate::client::{Clients, Workload};
use crate::cluster::{Core, Place, ReplicaState, Shape};
use crate::control::{CONTROL_EVERY_NS, Control};
use crate::faults;
use crate::machine::Crash;
use crate::seen::Counts;
use crate::swarm::Swarm;
use crate::watch::Ballot;
use crate::world::{Harm, Occurrence, World};
use evenkeel_history::{Consistency, Explanation, Limits, Request, Verdict, check, final_state, reads};
use evenkeel_storage::Mistake;
use evenkeel_storage::memory::Random;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

/// A seed counts only with so many operations of clients.
pub const OPERATIONS_MIN: u64 = 1_000;
/// A seed counts only with so many crashes of nodes.
pub const CRASHES_MIN: u64 = 3;
/// How long it takes until the next crash when clients have done enough and crashes are missing.
const CRASH_PAUSE_NS: u64 = 100_000_000;
/// How long the phase with faults lasts at most.
const SAFETY_NS_MAX: u64 = 600_000_000_000;
/// How long a healed cluster may take until everything works.
const LIVENESS_NS_MAX: u64 = 60_000_000_000;
/// How long a process is away that has ended by itself.
const STARTED_AGAIN_NS: u64 = 100_000_000;
/// How long it takes until a node whose disk is damaged has been replaced.
const REPLACED_NS: u64 = 50_000_000;
/// How often copies are compared and leases counted.
const LOOK_EVERY_STEPS: u64 = 64;

/// What a seed showed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Faults.
    pub faults: u64,
    /// Steps of the simulation.
    pub steps: u64,
    /// Virtual time that passed.
    pub virtual_ns: u64,
    /// Differs if anything happened otherwise.
    pub digest: u64,
    /// What happened, by name.
    pub seen: Counts,
}

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// A key's operations have no order.
    #[error("not linearizable: {0}")]
    NotLinearizable(Box<Explanation>),
    /// The search for an order took too long; nobody knows.
    #[error("undecided: the search for an order took too long for keys {0:?}")]
    Undecided(Vec<Rc<str>>),
    /// An acknowledged write is gone.
    #[error("lost write: {0}")]
    Lost(Box<final_state::LostWrite>),
    /// A read saw what was not chosen.
    #[error("read of what was never chosen: {0}")]
    Unchosen(Box<reads::Unchosen>),
    /// A session went back.
    #[error("session went back: {0}")]
    WentBack(Box<reads::WentBack>),
    /// Two cores would serve strong reads of a partition at the same moment.
    #[error("lease exclusion: {one} and {other} both serve partition {partition} at {at_ns} ns")]
    TwoServe {
        /// The partition.
        partition: usize,
        /// One core.
        one: Place,
        /// The other.
        other: Place,
        /// True time.
        at_ns: u64,
    },
    /// Copies differ at the same slot.
    #[error("copies differ: {one} and {other} at slot {slot} of partition {partition}")]
    CopiesDiffer {
        /// The partition.
        partition: usize,
        /// The slot.
        slot: u64,
        /// One core.
        one: Place,
        /// The other.
        other: Place,
    },
    /// A member has lost what it said it had.
    #[error(
        "word broken: member {member} of partition {partition} at {place} had acknowledged slot {acknowledged} \
         and promised ballot {promised:?}, and has slots to {end} and ballot {ballot:?}"
    )]
    WordBroken {
        /// The partition.
        partition: usize,
        /// The member.
        member: u32,
        /// Its core.
        place: Place,
        /// What it acknowledged and is chosen.
        acknowledged: u64,
        /// What it promised.
        promised: Ballot,
        /// The end of its log.
        end: u64,
        /// The greatest ballot it knows to have promised.
        ballot: Ballot,
    },
    /// A core has seen something that must not be.
    #[error("wrong: {0}")]
    Wrong(String),
    /// A disk that nobody has damaged is taken for damaged.
    #[error("false alarm: {place} takes its disk for damaged: {what}")]
    FalseAlarm {
        /// The core.
        place: Place,
        /// What it says.
        what: String,
    },
    /// Too little happened for the seed to count.
    #[error("does not count: {operations} operations and {crashes} crashes in {after_s} s")]
    DoesNotCount {
        /// Operations of clients.
        operations: u64,
        /// Crashes of nodes.
        crashes: u64,
        /// Virtual seconds.
        after_s: u64,
    },
    /// An assertion of the cluster failed, or of the simulator.
    #[error("panic: {0}")]
    Panic(String),
    /// A healed cluster does not work.
    #[error("no recovery: {what} after {after_s} s without faults")]
    NoRecovery {
        /// What does not.
        what: String,
        /// Virtual seconds since it was healed.
        after_s: u64,
    },
}

/// A seed that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Why.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}: {}", self.seed, self.violation)
    }
}

/// A run: a seed, and what is done otherwise than the seed says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Prints what happens.
    pub tracing: bool,
    /// What the cluster gets wrong.
    pub mistakes: &'static [Mistake],
    /// The faults that are left out, by their number in the run.
    pub spared: BTreeSet<u64>,
    /// How many faults there are at most; then the run may end.
    pub faults_max: Option<u64>,
    /// No message is lost, repeated or delayed.
    pub calm_network: bool,
    /// How many clients there are at most.
    pub clients_max: Option<u64>,
}

impl Plan {
    /// A seed as it is.
    pub fn of(seed: u64) -> Plan {
        Plan { seed, ..Plan::default() }
    }

    /// Whether anything is left out, so that the run need not have as much in it as a seed that counts.
    fn is_reduced(&self) -> bool {
        self.faults_max.is_some() || !self.spared.is_empty()
    }
}

/// Runs a seed.
///
/// # Errors
/// If a promise is broken.
pub fn run<C: Core>(plan: &Plan) -> Result<Report, Box<Failure>> {
    let seed = plan.seed;
    // Nothing that the run has touched is looked at after a panic.
    let run = std::panic::AssertUnwindSafe(|| run_unguarded::<C>(plan));
    let result = std::panic::catch_unwind(run).unwrap_or_else(|panic| Err(Violation::Panic(said(&*panic))));
    result.map_err(|violation| Box::new(Failure { seed, violation }))
}

/// What a panic said.
fn said(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

fn run_unguarded<C: Core>(plan: &Plan) -> Result<Report, Violation> {
    let mut random = Random::new(plan.seed);
    let shape = Shape {
        nodes: 3 + usize::from(random.once_in(3)),
        cores: 2,
        partitions: 8,
        keys: 1 + usize::from(random.once_in(2)) * 5,
        segments: if random.once_in(2) { (64 * 1024, 16) } else { (32 * 1024, 12) },
        cache_bytes: if random.once_in(2) { 64 * 1024 } else { 8 * 1024 },
    };
    let (mut swarm, mut workload) = (Swarm::draw(&mut random), Workload::draw(&mut random));
    if plan.calm_network {
        (swarm.drop, swarm.duplicate, swarm.delay) = (0, 0, 0);
    }
    workload.clients = workload.clients.min(plan.clients_max.unwrap_or(u64::MAX));
    let mut world = World::new(shape, swarm, random, plan.mistakes, plan.tracing);
    world.trace(|| format!("seed {}: {:?}, {:?}, {workload:?}", plan.seed, world.shape, world.swarm));
    let clients = Clients::new(workload, &mut world);
    let plan = plan.clone();
    let simulation: Simulation<C> = Simulation {
        plan,
        world,
        control: Control::default(),
        clients,
        steps: 0,
        faults: 0,
        contents: BTreeMap::new(),
        marks: BTreeMap::new(),
        compared: BTreeSet::new(),
    };
    simulation.run()
}

struct Simulation<C: Core> {
    plan: Plan,
    /// Faults so far, those left out among them.
    faults: u64,
    world: World<C>,
    control: Control,
    clients: Clients,
    steps: u64,
    /// The content of each partition at each slot, and who held it first.
    contents: BTreeMap<(usize, u64), (u128, Place)>,
    /// What the tree of each partition held at each mark, and whose was the first.
    marks: BTreeMap<(usize, u64), (u128, Place)>,
    /// Whose were compared with that.
    compared: BTreeSet<(usize, u64, Place)>,
}

impl<C: Core> Simulation<C> {
    fn run(mut self) -> Result<Report, Violation> {
        self.make_trouble()?;
        self.recover()?;
        self.judge()?;
        let world = &self.world;
        Ok(Report {
            seed: self.plan.seed,
            faults: self.faults,
            operations: self.clients.begun(),
            crashes: world.crashes,
            steps: self.steps,
            virtual_ns: world.now_ns(),
            digest: world.digest(),
            seen: world.seen.counts(),
        })
    }

    /// The phase of faults.
    fn make_trouble(&mut self) -> Result<(), Violation> {
        self.world.after(self.world.swarm.fault_pause_ns, Occurrence::Fault);
        self.world.after(CONTROL_EVERY_NS, Occurrence::Control);
        while self.world.now_ns() < SAFETY_NS_MAX {
            let enough = self.world.crashes >= CRASHES_MIN || self.plan.is_reduced();
            if self.clients.have_done_enough() && enough {
                return Ok(());
            }
            if self.step()? == Occurrence::Fault {
                self.make_fault();
            }
        }
        let (operations, crashes) = (self.clients.begun(), self.world.crashes);
        let after_s = SAFETY_NS_MAX / 1_000_000_000;
        Err(Violation::DoesNotCount { operations, crashes, after_s })
    }

    fn make_fault(&mut self) {
        let fault = faults::draw(&mut self.world, self.clients.have_done_enough());
        let spared = self.plan.spared.contains(&self.faults)
            || self.plan.faults_max.is_some_and(|most| self.faults >= most);
        if !spared {
            faults::inflict(&mut self.world, fault);
        }
        self.faults += 1;
        let usual_ns = self.world.swarm.fault_pause_ns;
        let mean_ns = if self.clients.have_done_enough() { CRASH_PAUSE_NS } else { usual_ns };
        let pause_ns = self.world.fault_random.below(2 * mean_ns);
        self.world.after(pause_ns, Occurrence::Fault);
    }

    /// The phase of recovery: every partition takes a write, every key a read, every copy catches up.
    fn recover(&mut self) -> Result<(), Violation> {
        self.world.trace(|| "everything is healed".to_owned());
        self.world.heal();
        self.clients.rest();
        let shape = Rc::clone(&self.world.shape);
        for partition in 0..shape.partitions {
            self.clients.send_on_errand(partition * shape.keys, Request::Increment { by: 1 });
        }
        // What began before the healing must be over too: the reads are to see the end.
        self.until("a partition takes no write", |simulation| simulation.clients.are_idle())?;
        for key in 0..shape.partitions * shape.keys {
            self.clients.send_on_errand(key, Request::Get { consistency: Consistency::Strong });
        }
        self.until("a key cannot be read", |simulation| simulation.clients.are_idle())?;
        self.until("copies have not caught up", |simulation| simulation.copies_are_level())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        let start_ns = self.world.now_ns();
        while !done(self) {
            if self.world.now_ns() - start_ns > LIVENESS_NS_MAX {
                let after_s = LIVENESS_NS_MAX / 1_000_000_000;
                let what = format!("{what}, {}", self.uneven_copies());
                return Err(Violation::NoRecovery { what, after_s });
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Occurrence, Violation> {
        self.steps += 1;
        let occurrence = self.world.step().expect("clients always have a timer");
        match occurrence {
            Occurrence::Answer { token, attempt, answer } => {
                self.clients.handle_answer(&mut self.world, token, attempt, answer);
            }
            Occurrence::Client { client, timer } => {
                self.clients.handle_timer(&mut self.world, client, timer);
            }
            Occurrence::Control => {
                self.control.look(&mut self.world);
                self.world.after(CONTROL_EVERY_NS, Occurrence::Control);
            }
            Occurrence::Fault | Occurrence::Inside => {}
        }
        if self.steps.is_multiple_of(LOOK_EVERY_STEPS) {
            self.look()?;
            self.replace_damaged()?;
            self.start_stopped_again();
        }
        Ok(occurrence)
    }

    /// Whoever runs the cluster replaces nodes that say that their disks are damaged.
    fn replace_damaged(&mut self) -> Result<(), Violation> {
        let damage = |(place, core): (Place, &C)| Some((place, core.damage()?));
        let Some((place, what)) = self.world.cores().find_map(damage) else { return Ok(()) };
        if self.world.harm != Some(Harm { node: place.node, replaced: false }) {
            return Err(Violation::FalseAlarm { place, what });
        }
        self.world.trace(|| format!("{place} takes its disk for damaged: {what}"));
        self.world.seen.note("corruption found");
        self.world.replace(place.node, REPLACED_NS);
        Ok(())
    }

    /// Whoever keeps processes running starts those again that have ended by themselves.
    fn start_stopped_again(&mut self) {
        let stopped: BTreeSet<usize> =
            self.world.cores().filter(|(_, core)| core.has_stopped()).map(|(place, _)| place.node).collect();
        for node in stopped {
            self.world.seen.note("stopped by itself");
            if self.world.is_covered(node) {
                self.world.crash(node, Crash::Kill, STARTED_AGAIN_NS);
            } else {
                self.world.replace(node, REPLACED_NS);
            }
        }
    }

    /// Looks into the cores: one at most serves a partition, and equal slots hold equal content.
    fn look(&mut self) -> Result<(), Violation> {
        let mut serving: BTreeMap<usize, Place> = BTreeMap::new();
        for (other, core) in self.world.cores() {
            for replica in core.replicas() {
                let partition = replica.partition;
                if replica.serves
                    && let Some(one) = serving.insert(partition, other)
                {
                    let at_ns = self.world.now_ns();
                    return Err(Violation::TwoServe { partition, one, other, at_ns });
                }
                self.check_word(other, &replica)?;
                let content = replica.content.map(|content| (&mut self.contents, content));
                let mark = replica.mark.map(|mark| (&mut self.marks, mark));
                for (known, (slot, found)) in content.into_iter().chain(mark) {
                    let (first, one) = *known.entry((partition, slot)).or_insert((found, other));
                    if first != found {
                        return Err(Violation::CopiesDiffer { partition, slot, one, other });
                    }
                }
                if let Some((slot, _)) = replica.mark
                    && self.marks[&(partition, slot)].1 != other
                    && self.compared.insert((partition, slot, other))
                {
                    self.world.seen.note("marks compared");
                }
            }
        }
        self.world.watch.wrong().map_or(Ok(()), |wrong| Err(Violation::Wrong(wrong)))
    }

    /// A member has what it said it had.
    fn check_word(&self, place: Place, replica: &ReplicaState) -> Result<(), Violation> {
        let ReplicaState { partition, member, end, promised: ballot, .. } = *replica;
        let word = self.world.watch.word(partition, member);
        if end >= word.upto && ballot >= word.ballot {
            return Ok(());
        }
        let (acknowledged, promised) = (word.upto, word.ballot);
        Err(Violation::WordBroken { partition, member, place, acknowledged, promised, end, ballot })
    }

    fn copies_are_level(&self) -> bool {
        self.copies().values().all(|copies| is_level(copies))
    }

    /// The copies of partitions that are not all at the same slot.
    fn uneven_copies(&self) -> String {
        let mut uneven = Vec::new();
        for (partition, copies) in self.copies().iter().filter(|(_, copies)| !is_level(copies)) {
            let copies: Vec<String> =
                copies.iter().map(|(place, copy)| format!("{place} at {}", copy.applied)).collect();
            uneven.push(format!("partition {partition}: {}", copies.join(", ")));
        }
        if uneven.is_empty() { "with all copies level".to_owned() } else { uneven.join("; ") }
    }

    fn copies(&self) -> BTreeMap<usize, Vec<(Place, ReplicaState)>> {
        let mut copies: BTreeMap<usize, Vec<(Place, ReplicaState)>> = BTreeMap::new();
        for (place, core) in self.world.cores() {
            for replica in core.replicas() {
                copies.entry(replica.partition).or_default().push((place, replica));
            }
        }
        copies
    }

    /// Judges what the clients saw.
    fn judge(&self) -> Result<(), Violation> {
        let history = self.clients.history();
        if let Some(unchosen) = reads::unchosen(history).into_iter().next() {
            return Err(Violation::Unchosen(Box::new(unchosen)));
        }
        if let Some(back) = reads::went_back(history).into_iter().next() {
            return Err(Violation::WentBack(Box::new(back)));
        }
        if let Some(lost) =
            final_state::lost_writes(history, &final_state::last_reads(history)).into_iter().next()
        {
            return Err(Violation::Lost(Box::new(lost)));
        }
        match check(history, Limits::default()) {
            Verdict::Linearizable { .. } => Ok(()),
            Verdict::Violation(explanation) => Err(Violation::NotLinearizable(explanation)),
            Verdict::Undecided { keys } => Err(Violation::Undecided(keys)),
        }
    }
}

/// Whether every member, by the word of the newest copy, has a copy as new, and it has been looked at. What has
/// been removed need not.
fn is_level(copies: &[(Place, ReplicaState)]) -> bool {
    let Some((_, newest)) = copies.iter().max_by_key(|(_, copy)| copy.applied) else { return true };
    let seen = |copy: &ReplicaState| copy.content.map(|(slot, _)| slot);
    newest.members.iter().all(|seat| {
        let same =
            |(place, copy): &&(Place, ReplicaState)| *place == seat.place && copy.member == seat.member;
        let copy = copies.iter().find(same);
        copy.is_some_and(|(_, copy)| copy.applied == newest.applied && seen(copy) == Some(newest.applied))
    })
}
