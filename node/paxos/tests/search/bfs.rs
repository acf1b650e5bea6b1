//! Breadth-first search: every order of the moves that a set of bounds allows, from a prepared start.
//!
//! A message that is never delivered is a lost one, and messages are delivered in any order, so loss and
//! reordering need no moves of their own. States are compared by a 64-bit hash of everything in them.

use crate::node::{NODES_MAX, Node};
use crate::walk::settings;
use crate::world::{Move, Violation, World};
use evenkeel_paxos::{MemberKind, Standing, Trap};
use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many moves of each kind are left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// By node.
    pub campaigns: [u8; NODES_MAX],
    /// By node.
    pub crashes: [u8; NODES_MAX],
    pub restarts: [u8; NODES_MAX],
    pub proposals: u8,
    pub duplicates: u8,
    pub ticks: u8,
    pub drifts: u8,
    /// Spans of time in which all support runs out.
    pub waits: u8,
    /// A paused machine.
    pub pauses: u8,
    /// A clock that is read as earlier than it is.
    pub backs: u8,
    /// Support asked for and given at once.
    pub exchanges: u8,
    /// Support messages that are under way like all others.
    pub supports: u8,
    /// Hand-overs from one node to another.
    pub transfers: u8,
    /// Commit indexes sent.
    pub announcements: u8,
    /// Who is swapped for whom, and how often.
    pub swaps: Vec<(usize, usize)>,
    /// Links that carry nothing, either way.
    pub down: Vec<(usize, usize)>,
}

/// What a search has seen.
#[derive(Debug, Default)]
pub struct Report {
    pub states: usize,
    pub depth: usize,
    /// The bounds were exhausted, not the limit on states.
    pub complete: bool,
    pub violation: Option<(Violation, Vec<Move>)>,
}

struct State {
    world: World,
    bounds: Bounds,
    depth: usize,
    index: u32,
}

/// A world in which node 0 leads, everybody knows that its no-op is chosen, and nothing is under way.
pub fn led(trap: Option<Trap>, joiners: &[MemberKind]) -> World {
    let mut world = fresh(trap, joiners);
    script(&mut world, &[Move::Campaign { node: 0 }]);
    script(&mut world, &[Move::Announce { node: 0 }]);
    world
}

/// A world in which nothing has happened yet.
pub fn fresh(trap: Option<Trap>, joiners: &[MemberKind]) -> World {
    let mut world = World::new(settings(trap), joiners);
    world.counts_events = false;
    world
}

/// Makes the moves, then writes and delivers everything.
pub fn script(world: &mut World, moves: &[Move]) {
    for &step in moves {
        world.make(step).expect("a script breaks nothing");
    }
    loop {
        let write = (0..world.nodes.len()).map(|node| Move::Persist { node }).find(|&step| world.can(step));
        let step = match write {
            Some(step) => step,
            None if world.packets.is_empty() => return,
            None => Move::Deliver { packet: 0, again: false },
        };
        world.make(step).expect("a script breaks nothing");
    }
}

/// Searches until a breach, the end of what the bounds allow, or this many states.
pub fn search(world: World, bounds: Bounds, states_max: usize) -> Report {
    let mut report = Report::default();
    let mut seen: HashSet<u64> = HashSet::new();
    let mut came: Vec<(u32, Option<Move>)> = vec![(0, None)];
    seen.insert(fingerprint(&world, &bounds));
    let mut frontier = VecDeque::from([State { world, bounds, depth: 0, index: 0 }]);
    while let Some(state) = frontier.pop_front() {
        report.depth = state.depth;
        for step in moves(&state.world, &state.bounds) {
            let mut world = state.world.clone();
            let mut bounds = state.bounds.clone();
            bounds.spend(step);
            let outcome = catch_unwind(AssertUnwindSafe(|| world.make(step)));
            let violation = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(violation)) => Some(violation),
                Err(_) => Some(Violation("a replica stopped itself".to_owned())),
            };
            if let Some(violation) = violation {
                report.states = seen.len();
                report.violation = Some((violation, trace(&came, state.index, step)));
                return report;
            }
            world
                .packets
                .retain(|packet| !bounds.is_down(packet.from.0 as usize - 1, packet.to.0 as usize - 1));
            world.packets.sort_by_cached_key(hash);
            if seen.insert(fingerprint(&world, &bounds)) {
                came.push((state.index, Some(step)));
                let index = u32::try_from(came.len() - 1).expect("fewer states than that");
                frontier.push_back(State { world, bounds, depth: state.depth + 1, index });
            }
        }
        if seen.len() >= states_max {
            report.states = seen.len();
            return report;
        }
    }
    report.states = seen.len();
    report.complete = true;
    report
}

fn trace(came: &[(u32, Option<Move>)], mut index: u32, last: Move) -> Vec<Move> {
    let mut moves = vec![last];
    while let (before, Some(step)) = came[index as usize] {
        moves.push(step);
        index = before;
    }
    moves.reverse();
    moves
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn fingerprint(world: &World, bounds: &Bounds) -> u64 {
    hash(&(&world.nodes, &world.packets, world.proposals, &world.chosen, world.acknowledged, bounds))
}

fn moves(world: &World, bounds: &Bounds) -> Vec<Move> {
    let mut moves = Vec::new();
    for packet in 0..world.packets.len() {
        if packet > 0 && world.packets[packet] == world.packets[packet - 1] {
            continue;
        }
        moves.push(Move::Deliver { packet, again: false });
        if bounds.duplicates > 0 {
            moves.push(Move::Deliver { packet, again: true });
        }
    }
    for node in 0..world.nodes.len() {
        moves.push(Move::Persist { node });
        node_moves(&mut moves, &world.nodes[node], node, bounds);
        for to in 0..world.nodes.len() {
            pair_moves(&mut moves, world, bounds, node, to);
        }
    }
    if bounds.ticks > 0 {
        moves.push(Move::Tick);
    }
    if bounds.waits > 0 {
        moves.push(Move::Wait);
    }
    moves.retain(|&step| world.can(step));
    moves
}

fn node_moves(moves: &mut Vec<Move>, at: &Node, node: usize, bounds: &Bounds) {
    let leads = at.replica.standing() == Standing::Leader;
    let mut some = |yes: bool, step: Move| {
        if yes {
            moves.push(step);
        }
    };
    some(bounds.campaigns[node] > 0 && !leads, Move::Campaign { node });
    some(bounds.crashes[node] > 0, Move::Crash { node, records: 0, entries: 0 });
    some(bounds.restarts[node] > 0, Move::Restart { node });
    some(bounds.proposals > 0 && leads, Move::Propose { node });
    some(bounds.announcements > 0 && leads, Move::Announce { node });
    some(bounds.drifts > 0, Move::Drift { node });
    some(bounds.pauses > 0, Move::Pause { node });
    some(bounds.backs > 0, Move::Back { node });
}

fn pair_moves(moves: &mut Vec<Move>, world: &World, bounds: &Bounds, node: usize, to: usize) {
    if node == to || bounds.is_down(node, to) {
        return;
    }
    let leads = world.nodes[node].replica.standing() == Standing::Leader;
    if bounds.exchanges > 0 {
        moves.push(Move::Exchange { from: node, to });
    }
    if bounds.supports > 0 {
        moves.push(Move::Support { from: node, to });
    }
    if bounds.transfers > 0 && leads {
        moves.push(Move::Transfer { node, to });
    }
    for &(remove, add) in bounds.swaps.iter().filter(|swap| leads && swap.1 == to) {
        moves.push(Move::Swap { node, remove, add });
    }
}

impl Bounds {
    fn is_down(&self, from: usize, to: usize) -> bool {
        self.down.iter().any(|&link| link == (from, to) || link == (to, from))
    }

    fn spend(&mut self, step: Move) {
        match step {
            Move::Campaign { node } => self.campaigns[node] -= 1,
            Move::Crash { node, .. } => self.crashes[node] -= 1,
            Move::Restart { node } => self.restarts[node] -= 1,
            Move::Propose { .. } => self.proposals -= 1,
            Move::Announce { .. } => self.announcements -= 1,
            Move::Drift { .. } => self.drifts -= 1,
            Move::Pause { .. } => self.pauses -= 1,
            Move::Back { .. } => self.backs -= 1,
            Move::Exchange { .. } => self.exchanges -= 1,
            Move::Support { .. } => self.supports -= 1,
            Move::Transfer { .. } => self.transfers -= 1,
            Move::Tick => self.ticks -= 1,
            Move::Wait => self.waits -= 1,
            Move::Deliver { again: true, .. } => self.duplicates -= 1,
            Move::Swap { remove, add, .. } => self.swaps.retain(|&swap| swap != (remove, add)),
            _ => {}
        }
    }
}
