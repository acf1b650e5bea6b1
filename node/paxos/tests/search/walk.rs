//! Random deep walks: a seed chooses how often each kind of move is made, then makes hundreds of them.

use crate::world::{Move, Violation, World};
use evenkeel_model::Slot;
use evenkeel_paxos::{MemberKind, Settings, Standing, Trap};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// splitmix64: small, and the same everywhere.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Kinds of moves and how often each is made, before the seed changes it.
const KINDS: [(&str, u64); 21] = [
    ("deliver", 400),
    ("again", 12),
    ("drop", 25),
    ("persist", 120),
    ("crash", 6),
    ("restart", 2),
    ("wipe", 1),
    ("tick", 40),
    ("drift", 2),
    ("pause", 4),
    ("back", 4),
    ("time", 60),
    ("support", 90),
    ("campaign", 8),
    ("propose", 15),
    ("transfer", 2),
    ("swap", 4),
    ("announce", 5),
    ("trim", 3),
    ("cut", 2),
    ("exchange", 40),
];

/// What a walk is about. A swarm: most of what goes wrong needs much of one thing and little of another.
#[derive(Clone, Copy, Debug)]
struct Theme {
    joiners: &'static [MemberKind],
    /// Kinds that are made more or less often than usual: times how much, by how much.
    favours: &'static [(&'static str, u64, u64)],
}

const THEMES: [Theme; 7] = [
    Theme { joiners: &[MemberKind::Log, MemberKind::Storage, MemberKind::Storage], favours: &[] },
    // Without support nobody is bound: candidates and old leaders meet all the time.
    Theme {
        joiners: &[],
        favours: &[
            ("support", 0, 1),
            ("exchange", 0, 1),
            ("tick", 1, 4),
            ("time", 1, 4),
            ("campaign", 6, 1),
            ("crash", 5, 1),
            ("persist", 1, 2),
            ("wipe", 0, 1),
        ],
    },
    Theme {
        joiners: &[MemberKind::Log, MemberKind::Storage],
        favours: &[
            ("swap", 8, 1),
            ("campaign", 5, 1),
            ("support", 1, 8),
            ("exchange", 1, 4),
            ("tick", 1, 4),
            ("crash", 3, 1),
        ],
    },
    Theme { joiners: &[], favours: &LEASES },
    Theme { joiners: &[MemberKind::Log], favours: &LEASES },
    // Messages and writes, a few elections and crashes, and nothing else.
    Theme { joiners: &[], favours: &QUIET },
    Theme { joiners: &[MemberKind::Log], favours: &QUIET },
];

/// Members that are bound most of the time, links that break, elections in spite of that.
const LEASES: [(&str, u64, u64); 9] = [
    ("exchange", 4, 1),
    ("cut", 4, 1),
    ("transfer", 2, 1),
    ("campaign", 2, 1),
    ("crash", 1, 2),
    ("wipe", 0, 1),
    ("trim", 0, 1),
    ("drop", 1, 4),
    ("time", 1, 2),
];

const QUIET: [(&str, u64, u64); 17] = [
    ("exchange", 0, 1),
    ("cut", 0, 1),
    ("support", 0, 1),
    ("tick", 0, 1),
    ("time", 0, 1),
    ("drift", 0, 1),
    ("pause", 0, 1),
    ("back", 0, 1),
    ("wipe", 0, 1),
    ("restart", 0, 1),
    ("transfer", 0, 1),
    ("trim", 0, 1),
    ("announce", 1, 4),
    ("again", 1, 4),
    ("drop", 1, 4),
    ("campaign", 2, 1),
    ("persist", 2, 1),
];

/// How much a walk may do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: usize,
    /// Disks that may be lost.
    pub wipes: usize,
    /// Clocks may run ahead this often, within the drift that leases allow for.
    pub drifts: u8,
    pub trap: Option<Trap>,
    /// Which theme; by the seed, if nothing.
    pub theme: Option<usize>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { steps: 600, wipes: 1, drifts: 2, trap: None, theme: None }
    }
}

pub fn settings(trap: Option<Trap>) -> Settings {
    Settings {
        election_wait_ns: 2,
        election_round_ns: 4,
        resend_ns: 4,
        quorum_wait_ns: 4,
        blocked_probes_max: 2,
        entries_in_flight_max: 12,
        entries_per_message_max: 3,
        trap,
    }
}

/// A walk that found a breach.
#[derive(Debug)]
pub struct Found {
    pub violation: Violation,
    pub moves: Vec<String>,
}

pub struct Walk {
    pub world: World,
    random: Random,
    weights: [u64; KINDS.len()],
    total: u64,
    plan: Plan,
    wipes: usize,
    trace: Vec<String>,
    tracing: bool,
}

impl Walk {
    pub fn new(seed: u64, plan: &Plan, tracing: bool) -> Walk {
        let mut random = Random(seed);
        let theme = THEMES[plan.theme.unwrap_or(seed as usize % THEMES.len())];
        let favoured = KINDS.map(|(name, weight)| {
            let (times, by) =
                theme.favours.iter().find(|favour| favour.0 == name).map_or((1, 1), |f| (f.1, f.2));
            weight * times * 8 / by
        });
        let mut weights = favoured.map(|weight| weight * [0, 1, 2, 4, 12][random.below(5)] / 2);
        for (at, (name, _)) in KINDS.iter().enumerate() {
            // Without these nothing happens at all.
            if ["deliver", "persist", "tick", "time", "support", "propose"].contains(name) {
                weights[at] = weights[at].max(favoured[at] / 4);
            }
        }
        let world = World::new(settings(plan.trap), theme.joiners);
        let total = weights.iter().sum();
        let trace = Vec::new();
        Walk { world, random, weights, total, plan: plan.clone(), wipes: 0, trace, tracing }
    }

    pub fn run(&mut self) -> Result<(), Violation> {
        for _ in 0..self.plan.steps {
            let Some(step) = self.choose() else { continue };
            self.make(step)?;
        }
        Ok(())
    }

    fn make(&mut self, step: Move) -> Result<(), Violation> {
        if self.tracing {
            let what = match step {
                Move::Deliver { packet, .. } | Move::Drop { packet } => {
                    format!("{step:?} {:?}", self.world.packets[packet])
                }
                _ => format!("{step:?}"),
            };
            self.trace.push(what);
        }
        self.world.make(step)
    }

    fn kind(&mut self) -> &'static str {
        let mut at = self.random.next() % self.total.max(1);
        for ((name, _), &weight) in KINDS.iter().zip(&self.weights) {
            if at < weight {
                return name;
            }
            at -= weight;
        }
        "deliver"
    }

    /// Some node of those that will do.
    fn any(&mut self, will_do: impl Fn(&World, usize) -> bool) -> Option<usize> {
        let nodes: Vec<usize> = (0..self.world.nodes.len()).filter(|&at| will_do(&self.world, at)).collect();
        (!nodes.is_empty()).then(|| nodes[self.random.below(nodes.len())])
    }

    fn choose(&mut self) -> Option<Move> {
        let kind = self.kind();
        let count = self.world.nodes.len();
        let node = match kind {
            "propose" | "swap" | "transfer" | "announce" => {
                self.any(|world, at| world.can(Move::Propose { node: at }))?
            }
            "persist" => self.any(|world, at| world.can(Move::Persist { node: at }))?,
            _ => self.random.below(count),
        };
        let other = self.random.below(count);
        let third = match kind {
            "swap" => self.any(|world, add| world.can(Move::Swap { node, remove: other, add }))?,
            _ => self.random.below(count),
        };
        let packets = self.world.packets.len();
        let packet = if packets > 40 { 0 } else { self.random.below(packets) };
        let step = match kind {
            "deliver" | "again" | "drop" if packets == 0 => return None,
            "deliver" => Move::Deliver { packet, again: false },
            "again" => Move::Deliver { packet, again: packets < 30 },
            "drop" => Move::Drop { packet },
            "persist" => Move::Persist { node },
            "crash" => Move::Crash { node, records: self.random.below(4), entries: self.random.below(3) },
            "restart" => Move::Restart { node },
            "wipe" if self.wipes < self.plan.wipes => {
                self.wipes += 1;
                Move::Wipe { node }
            }
            "drift" if self.world.nodes[node].drifts < self.plan.drifts => Move::Drift { node },
            "pause" => Move::Pause { node },
            "back" => Move::Back { node },
            "time" => Move::Time { node },
            "support" => Move::Support { from: node, to: other },
            "campaign" => Move::Campaign { node },
            "propose" => Move::Propose { node },
            "transfer" => Move::Transfer { node, to: other },
            "swap" => Move::Swap { node, remove: other, add: third },
            "announce" => Move::Announce { node },
            "cut" => Move::Cut { node },
            "exchange" => Move::Exchange { from: node, to: other },
            "trim" => Move::Trim { node },
            _ => Move::Tick,
        };
        self.world.can(step).then_some(step)
    }

    /// Heals everything and sees whether the group comes back: somebody leads, holds the lease, and gets
    /// a new entry chosen that every live member learns of.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.world.nodes.iter_mut().for_each(|node| node.cut = false);
        let mut target: Option<Slot> = None;
        for round in 0..120 {
            self.round()?;
            let leader = (0..self.world.nodes.len()).find(|&at| self.world.may_read(at));
            let end = |at: usize| self.world.nodes[at].replica.end().slot;
            // A leader may be lost with the entry it proposed; the next one proposes another.
            if let Some(at) = leader.filter(|&at| target.is_none_or(|slot| end(at) < slot)) {
                let before = end(at);
                self.make(Move::Propose { node: at })?;
                target = (self.world.nodes[at].replica.end().slot > before).then_some(before.next());
            }
            if target.is_some_and(|slot| self.all_know(slot)) {
                self.world.note(if round < 30 { "healed" } else { "healed late" });
                return Ok(());
            }
        }
        Err(Violation(format!("the group does not come back: target {target:?}\n{:#?}", self.standings())))
    }

    fn standings(&self) -> Vec<String> {
        let describe = |node: &crate::node::Node| {
            let replica = &node.replica;
            format!(
                "{} lost={} {:?} promised={:?} chosen={} end={} members={:?} now={} wake={:?}",
                node.id(),
                node.lost,
                replica.standing(),
                replica.promised(),
                replica.chosen().slot,
                replica.end().slot,
                replica.configuration().ids(),
                node.clock,
                replica.wake()
            )
        };
        self.world.nodes.iter().map(describe).collect()
    }

    /// One exchange of support, everything written and delivered, one tick.
    fn round(&mut self) -> Result<(), Violation> {
        let count = self.world.nodes.len();
        for at in 0..count * count {
            let step = Move::Support { from: at / count, to: at % count };
            if self.world.can(step) {
                self.make(step)?;
            }
        }
        for at in 0..count {
            if self.world.nodes[at].replica.standing() == Standing::Leader {
                self.make(Move::Announce { node: at })?;
            }
        }
        for _ in 0..2000 {
            if let Some(node) = (0..count).find(|&node| self.world.can(Move::Persist { node })) {
                self.make(Move::Persist { node })?;
            } else if !self.world.packets.is_empty() {
                let packet = Move::Deliver { packet: 0, again: false };
                let step = if self.world.can(packet) { packet } else { Move::Drop { packet: 0 } };
                self.make(step)?;
            } else {
                break;
            }
        }
        self.make(Move::Tick)?;
        for node in 0..count {
            if !self.world.nodes[node].lost {
                self.make(Move::Time { node })?;
            }
        }
        Ok(())
    }

    fn all_know(&self, slot: Slot) -> bool {
        let reader = (0..self.world.nodes.len()).find(|&at| self.world.may_read(at));
        let Some(reader) = reader else { return false };
        let configuration = self.world.nodes[reader].replica.configuration();
        configuration.ids().iter().all(|id| {
            let node = &self.world.nodes[id.0 as usize - 1];
            node.lost || node.replica.chosen().slot >= slot
        })
    }

    fn found(&mut self, violation: Violation) -> Found {
        Found { violation, moves: std::mem::take(&mut self.trace) }
    }
}

/// Walks one seed; a panic of a replica is a breach like any other.
pub fn walk(seed: u64, plan: &Plan, heals: bool, tracing: bool) -> Result<World, Box<Found>> {
    let mut walk = Walk::new(seed, plan, tracing);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        walk.run()?;
        if heals { walk.heal() } else { Ok(()) }
    }));
    match outcome {
        Ok(Ok(())) => Ok(walk.world),
        Ok(Err(violation)) => Err(Box::new(walk.found(violation))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            let violation = Violation(format!("panic: {}", text.unwrap_or_default()));
            Err(Box::new(walk.found(violation)))
        }
    }
}
