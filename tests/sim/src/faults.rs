//! What goes wrong, and for how long: drawn one at a time from what the seed's swarm allows.

use crate::cluster::{Core, Order, Place};
use crate::machine::Crash;
use crate::network::End;
use crate::swarm::Swarm;
use crate::world::World;
use evenkeel_storage::memory::Random;

/// Something that goes wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nodes end at once, each for a while.
    Crash(Vec<(usize, Crash, u64)>),
    /// Nothing gets from one end to the other.
    Cut(End, End, u64),
    /// Nothing gets to a node or from it.
    Isolate(usize, u64),
    /// A core does nothing.
    Stall(Place, u64),
    /// A disk is slow.
    SlowDisk(Place, u64),
    /// A disk completes nothing.
    StuckDisk(Place, u64),
    /// No file can be made on a disk.
    FullDisk(Place, u64),
    /// A clock changes its rate.
    Drift(usize),
    /// A wall clock is set.
    JumpWall(usize, i64),
    /// The control plane interferes.
    Order(Order),
}

/// Draws the next fault; a crash, if nothing else will do any more.
pub fn draw<C: Core>(world: &mut World<C>, only_crashes: bool) -> Fault {
    let (nodes, cores) = (world.shape.nodes, world.shape.cores);
    let partition = below(&mut world.random, world.shape.partitions);
    let swap = swap(world, partition);
    let (swarm, random) = (world.swarm.clone(), &mut world.random);
    let node = below(random, nodes);
    let place = Place { node, core: below(random, cores) };
    let other = (node + 1 + below(random, nodes)) % (nodes + 1);
    let for_ns = 5_000_000 << random.below(10);
    let link = [End::Node(node), if other == nodes { End::Clients } else { End::Node(other) }];
    let [from, to] = if random.once_in(2) { link } else { [link[1], link[0]] };
    let transfer = Order::Transfer { partition };
    let kinds: [(bool, Fault); 11] = [
        (true, Fault::Crash(crashes(node, nodes, &swarm, random))),
        (swarm.cuts && from != to, Fault::Cut(from, to, for_ns)),
        (swarm.isolation, Fault::Isolate(node, for_ns)),
        (swarm.stalls, Fault::Stall(place, for_ns)),
        (swarm.slow_disks, Fault::SlowDisk(place, for_ns)),
        (swarm.stuck_disks, Fault::StuckDisk(place, for_ns)),
        (swarm.full_disks, Fault::FullDisk(place, for_ns)),
        (swarm.drift_ppm > 0, Fault::Drift(node)),
        (swarm.wall_jumps, Fault::JumpWall(node, random.bits().cast_signed() >> 24)),
        (swarm.transfers, Fault::Order(transfer)),
        (swarm.swaps && swap.is_some(), Fault::Order(swap.unwrap_or(transfer))),
    ];
    let mut active: Vec<Fault> =
        kinds.into_iter().filter_map(|(active, fault)| active.then_some(fault)).collect();
    let chosen = if only_crashes { 0 } else { below(random, active.len()) };
    active.swap_remove(chosen)
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).expect("it is below a usize")
}

/// A swap of a member for one in the same node or in a node without members, if there is one to be had.
fn swap<C: Core>(world: &mut World<C>, partition: usize) -> Option<Order> {
    let holds = |core: &C| core.replicas().iter().any(|replica| replica.partition == partition);
    let holders: Vec<Place> = world.cores().filter(|(_, core)| holds(core)).map(|(place, _)| place).collect();
    let removed = (!holders.is_empty()).then(|| holders[below(&mut world.random, holders.len())])?;
    let free = |place: &Place| {
        let apart = holders.iter().all(|holder| holder.node != place.node);
        !holders.contains(place) && (apart || place.node == removed.node)
    };
    let places: Vec<Place> = world.shape.places().filter(free).collect();
    let add = (!places.is_empty()).then(|| places[below(&mut world.random, places.len())])?;
    Some(Order::Swap { partition, remove: removed, add, number: world.fresh_number() })
}

fn crashes(node: usize, nodes: usize, swarm: &Swarm, random: &mut Random) -> Vec<(usize, Crash, u64)> {
    let count = if swarm.mass_crashes && random.once_in(3) { 1 + random.below(nodes as u64) } else { 1 };
    let victim = |step: u64| {
        let crash = if swarm.power_cuts && random.once_in(2) { Crash::PowerCut } else { Crash::Kill };
        let step = usize::try_from(step).expect("there are few nodes");
        ((node + step) % nodes, crash, 1_000_000 << random.below(12))
    };
    (0..count).map(victim).collect()
}

/// Lets it go wrong.
pub fn inflict<C: Core>(world: &mut World<C>, fault: Fault) {
    world.trace(|| format!("fault: {fault:?}"));
    world.seen.note(name(&fault));
    match fault {
        Fault::Crash(victims) => {
            for (node, crash, down_ns) in victims {
                world.crash(node, crash, down_ns);
            }
        }
        Fault::Cut(from, to, for_ns) => world.cut(from, to, for_ns),
        Fault::Isolate(node, for_ns) => {
            let others = (0..world.shape.nodes).filter(|other| *other != node).map(End::Node);
            for other in others.chain([End::Clients]) {
                world.cut(End::Node(node), other, for_ns);
                world.cut(other, End::Node(node), for_ns);
            }
        }
        Fault::Stall(place, for_ns) => world.stall(place, for_ns),
        Fault::SlowDisk(place, for_ns) => world.hamper_disk(place, false, for_ns),
        Fault::StuckDisk(place, for_ns) => world.hamper_disk(place, true, for_ns),
        Fault::FullDisk(place, for_ns) => world.fill_disk(place, for_ns),
        Fault::Drift(node) => world.drift(node),
        Fault::JumpWall(node, by_ns) => world.jump_wall(node, by_ns),
        Fault::Order(order) => world.order(order),
    }
}

fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Crash(victims) if victims.len() > 1 => "fault: several nodes crash",
        Fault::Crash(victims) if victims[0].1 == Crash::PowerCut => "fault: power cut",
        Fault::Crash(_) => "fault: killed process",
        Fault::Cut(..) => "fault: one-way cut",
        Fault::Isolate(..) => "fault: isolated node",
        Fault::Stall(..) => "fault: stalled core",
        Fault::SlowDisk(..) => "fault: slow disk",
        Fault::StuckDisk(..) => "fault: stuck disk",
        Fault::FullDisk(..) => "fault: full disk",
        Fault::Drift(_) => "fault: clock changes its rate",
        Fault::JumpWall(..) => "fault: wall clock is set",
        Fault::Order(Order::Transfer { .. }) => "order: transfer",
        Fault::Order(Order::Swap { .. }) => "order: swap",
    }
}
