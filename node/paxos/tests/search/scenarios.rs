//! Small worlds for the breadth-first search, each about one question.

use crate::bfs::{Bounds, fresh, led, script};
use crate::world::{Move, World};
use evenkeel_paxos::{MemberKind, Trap};

/// All of them, with a mistake switched on or none.
pub fn all(trap: Option<Trap>) -> Vec<(&'static str, World, Bounds)> {
    vec![
        ("rival candidates", rivals(trap).0, rivals(trap).1),
        ("a leader that crashes", crash(trap).0, crash(trap).1),
        ("a candidate that crashes", forgetful(trap).0, forgetful(trap).1),
        ("a swap", swap(trap).0, swap(trap).1),
        ("a swap and a rival", swap_rival(trap).0, swap_rival(trap).1),
        ("leases", leases(trap).0, leases(trap).1),
        ("a lease and clocks", clocks(trap).0, clocks(trap).1),
    ]
}

/// A leader and a candidate, and a follower that crashes between them.
pub fn rivals(trap: Option<Trap>) -> (World, Bounds) {
    let bounds = Bounds {
        campaigns: [0, 1, 0, 0, 0, 0],
        crashes: [0, 0, 1, 0, 0, 0],
        proposals: 1,
        ..Bounds::default()
    };
    (led(trap, &[]), bounds)
}

/// A leader that crashes and stands again.
pub fn crash(trap: Option<Trap>) -> (World, Bounds) {
    let bounds = Bounds {
        campaigns: [1, 1, 0, 0, 0, 0],
        crashes: [1, 0, 0, 0, 0, 0],
        waits: 1,
        proposals: 2,
        ..Bounds::default()
    };
    (led(trap, &[]), bounds)
}

/// A first candidate that crashes and may come back with the same ballot.
pub fn forgetful(trap: Option<Trap>) -> (World, Bounds) {
    let world = fresh(trap, &[]);
    let bounds = Bounds {
        campaigns: [2, 0, 0, 0, 0, 0],
        crashes: [1, 0, 0, 0, 0, 0],
        waits: 1,
        proposals: 2,
        ..Bounds::default()
    };
    (world, bounds)
}

/// Node 2 is swapped for a log replica, with a rival that may win before, during and after.
pub fn swap(trap: Option<Trap>) -> (World, Bounds) {
    let bounds =
        Bounds { campaigns: [0, 1, 0, 0, 0, 0], proposals: 1, swaps: vec![(2, 3)], ..Bounds::default() };
    (led(trap, &[MemberKind::Log]), bounds)
}

/// The swap is proposed and the new member has it; the member to be removed stands for election.
pub fn swap_rival(trap: Option<Trap>) -> (World, Bounds) {
    let mut world = led(trap, &[MemberKind::Log]);
    world.nodes[1].cut = true;
    world.nodes[2].cut = true;
    world.make(Move::Swap { node: 0, remove: 2, add: 3 }).expect("a script breaks nothing");
    deliver_reachable(&mut world);
    world.nodes[1].cut = false;
    world.nodes[2].cut = false;
    let bounds = Bounds { campaigns: [0, 0, 1, 0, 0, 0], proposals: 1, ..Bounds::default() };
    (world, bounds)
}

/// Support between a leader, a rival and a follower while time passes.
pub fn leases(trap: Option<Trap>) -> (World, Bounds) {
    let mut world = fresh(trap, &[]);
    exchange_all(&mut world);
    script(&mut world, &[Move::Campaign { node: 0 }]);
    let bounds = Bounds {
        campaigns: [0, 1, 0, 0, 0, 0],
        restarts: [0, 0, 1, 0, 0, 0],
        transfers: 1,
        ..Bounds::default()
    };
    (world, bounds)
}

/// A lease that runs out while a rival waits for that.
pub fn clocks(trap: Option<Trap>) -> (World, Bounds) {
    let mut world = fresh(trap, &[]);
    exchange_all(&mut world);
    script(&mut world, &[Move::Campaign { node: 0 }]);
    for _ in 0..4 {
        world.make(Move::Tick).expect("a script breaks nothing");
    }
    let bounds = Bounds {
        campaigns: [0, 1, 0, 0, 0, 0],
        ticks: 6,
        drifts: 1,
        pauses: 3,
        backs: 1,
        exchanges: 1,
        supports: 2,
        ..Bounds::default()
    };
    (world, bounds)
}

fn exchange_all(world: &mut World) {
    for from in 0..3 {
        for to in (0..3).filter(|&to| to != from) {
            world.make(Move::Exchange { from, to }).expect("a script breaks nothing");
        }
    }
}

/// Writes and delivers everything that is not cut off; the rest stays under way.
fn deliver_reachable(world: &mut World) {
    loop {
        let write = (0..world.nodes.len()).map(|node| Move::Persist { node });
        let packets = (0..world.packets.len()).map(|packet| Move::Deliver { packet, again: false });
        let Some(step) = write.chain(packets).find(|&step| world.can(step)) else { return };
        world.make(step).expect("a script breaks nothing");
    }
}

/// The scenario in which breadth-first search finds a mistake that random walks seldom meet.
pub fn for_trap(trap: Trap) -> Option<(World, Bounds)> {
    Some(match trap {
        Trap::PromiseBeforeDurable | Trap::PromiseComesBackOlder => old_accept_under_way(trap),
        Trap::PrepareBeforeDurable => forgotten_prepare(trap),
        Trap::OldAcceptedCounts => old_accepted_under_way(trap),
        Trap::LeaseFromArrival => lapsed(trap, false),
        Trap::LapseForgotten | Trap::TimeGoesBack => lapsed(trap, false),
        Trap::ClockStopsInPause => lapsed(trap, true),
        Trap::TailKeptOverInstall => contradicted_tail(trap),
        _ => return None,
    })
}

fn make(world: &mut World, moves: &[Move]) {
    for &step in moves {
        world.make(step).expect("a script breaks nothing");
    }
}

/// Delivers what is under way to one node now, and makes it durable there.
fn deliver_to(world: &mut World, node: usize) {
    while let Some(packet) = (0..world.packets.len()).find(|&at| world.packets[at].to.0 as usize == node + 1)
    {
        make(world, &[Move::Deliver { packet, again: false }]);
    }
    while world.can(Move::Persist { node }) {
        make(world, &[Move::Persist { node }]);
    }
}

/// The leader, node 0, has proposed a write that is still under way to node 2.
fn old_accept_under_way(trap: Trap) -> (World, Bounds) {
    let mut world = led(Some(trap), &[]);
    make(&mut world, &[Move::Propose { node: 0 }, Move::Persist { node: 0 }]);
    let bounds = Bounds {
        campaigns: [0, 1, 0, 0, 0, 0],
        crashes: [0, 0, 1, 0, 0, 0],
        down: vec![(0, 1)],
        ..Bounds::default()
    };
    (world, bounds)
}

/// The leader, node 0, has proposed a write that node 2 has; its answer is under way.
fn old_accepted_under_way(trap: Trap) -> (World, Bounds) {
    let mut world = led(Some(trap), &[]);
    make(&mut world, &[Move::Propose { node: 0 }]);
    deliver_to(&mut world, 2);
    let bounds =
        Bounds { campaigns: [1, 0, 0, 0, 0, 0], crashes: [1, 0, 0, 0, 0, 0], waits: 1, ..Bounds::default() };
    (world, bounds)
}

/// Node 0 leads by the promises of the two others, without its own being durable, and node 1 has its write.
fn forgotten_prepare(trap: Trap) -> (World, Bounds) {
    let mut world = fresh(Some(trap), &[]);
    make(&mut world, &[Move::Campaign { node: 0 }]);
    deliver_to(&mut world, 1);
    deliver_to(&mut world, 2);
    while !world.can(Move::Propose { node: 0 }) {
        make(&mut world, &[Move::Deliver { packet: 0, again: false }]);
    }
    make(&mut world, &[Move::Propose { node: 0 }]);
    deliver_to(&mut world, 1);
    world.packets.retain(|packet| packet.to.0 == 1);
    let bounds = Bounds {
        campaigns: [1, 0, 0, 0, 0, 0],
        crashes: [1, 0, 0, 0, 0, 0],
        waits: 1,
        proposals: 1,
        ..Bounds::default()
    };
    (world, bounds)
}

/// Node 0 leads and holds the lease; then nobody hears from it until all support has lapsed. An answer of
/// node 2 that renewed the lease is still under way. Node 1 stands for election.
fn lapsed(trap: Trap, paused: bool) -> (World, Bounds) {
    let mut world = fresh(Some(trap), &[]);
    exchange_all(&mut world);
    script(&mut world, &[Move::Campaign { node: 0 }]);
    make(&mut world, &[Move::Support { from: 2, to: 0 }]);
    for _ in 0..9 {
        make(&mut world, &[if paused { Move::Pause { node: 0 } } else { Move::Tick }]);
    }
    let bounds = Bounds {
        campaigns: [0, 1, 0, 0, 0, 0],
        exchanges: u8::from(trap == Trap::LapseForgotten),
        backs: u8::from(trap == Trap::TimeGoesBack),
        down: vec![(0, 1)],
        ..Bounds::default()
    };
    (world, bounds)
}

/// Node 0 has a tail that was never chosen, node 1 leads and has trimmed its log behind a chosen entry in
/// its place.
fn contradicted_tail(trap: Trap) -> (World, Bounds) {
    let mut world = led(Some(trap), &[]);
    make(&mut world, &[Move::Propose { node: 0 }, Move::Propose { node: 0 }]);
    make(&mut world, &[Move::Persist { node: 0 }, Move::Persist { node: 0 }]);
    world.packets.clear();
    make(&mut world, &[Move::Cut { node: 0 }, Move::Campaign { node: 1 }]);
    deliver_reachable(&mut world);
    world.packets.clear();
    // The record of the next write says that the no-op is chosen, which lets the log be trimmed there.
    make(&mut world, &[Move::Propose { node: 1 }, Move::Persist { node: 1 }, Move::Trim { node: 1 }]);
    world.packets.retain(|packet| packet.to.0 == 1);
    make(&mut world, &[Move::Cut { node: 0 }]);
    let bounds = Bounds { campaigns: [1, 0, 0, 0, 0, 0], ..Bounds::default() };
    (world, bounds)
}
