//! What goes wrong, and for how long: drawn one at a time from what the seed's swarm allows.

use crate::cluster::{Core, Order, Place, Seat};
use crate::machine::Crash;
use crate::network::End;
use crate::swarm::Swarm;
use crate::world::World;
use evenkeel_storage::memory::{DamageKind, Random};

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
    /// Every second client gets no answer for a while; nodes crash some time later.
    Mute(u64, u64, Vec<(usize, Crash, u64)>),
    /// A bit of a log, or of a page file, changes.
    Rot(Place, bool),
    /// The next append to a log, or the next write of a page, is lost or goes elsewhere.
    Damage(Place, bool, DamageKind),
    /// The next append to a log fails.
    FailedAppend(Place),
    /// A node loses its disks, and another takes its place after a while.
    Replace(usize, u64),
    /// The control plane moves something.
    Orders(Vec<Order>),
}

/// Draws the next fault; a crash, if nothing else will do any more.
pub fn draw<C: Core>(world: &mut World<C>, only_crashes: bool) -> Fault {
    let (nodes, cores) = (world.shape.nodes, world.shape.cores);
    let partition = below(&mut world.fault_random, world.shape.partitions);
    let swap = swap(world, partition);
    let victim = world.harm.map_or(below(&mut world.fault_random, nodes), |harm| harm.node);
    let may_harm = world.may_harm(victim);
    let (swarm, random) = (world.swarm.clone(), &mut world.fault_random);
    let node = below(random, nodes);
    let place = Place { node, core: below(random, cores) };
    let other = (node + 1 + below(random, nodes)) % (nodes + 1);
    let for_ns = 5_000_000 << random.below(10);
    let link = [End::Node(node), if other == nodes { End::Clients } else { End::Node(other) }];
    let [from, to] = if random.once_in(2) { link } else { [link[1], link[0]] };
    let transfer = Order::Transfer { partition };
    let harmed = Place { node: victim, core: below(random, cores) };
    let log = random.once_in(2);
    let fallen = if random.once_in(2) { nodes } else { 0 };
    let fallen = (0..fallen).map(|node| (node, Crash::Kill, 1_000_000 << random.below(5))).collect();
    let mute = Fault::Mute(500_000_000 << random.below(4), 20_000_000 << random.below(4), fallen);
    let kinds: [(bool, Fault); 17] = [
        (true, Fault::Crash(crashes(node, nodes, &swarm, random))),
        (swarm.cuts && from != to, Fault::Cut(from, to, for_ns)),
        (swarm.isolation, Fault::Isolate(node, for_ns)),
        (swarm.stalls, Fault::Stall(place, for_ns)),
        (swarm.slow_disks, Fault::SlowDisk(place, for_ns)),
        (swarm.stuck_disks, Fault::StuckDisk(place, for_ns)),
        (swarm.full_disks, Fault::FullDisk(place, for_ns)),
        (swarm.drift_ppm > 0, Fault::Drift(node)),
        (swarm.wall_jumps, Fault::JumpWall(node, random.bits().cast_signed() >> 24)),
        (swarm.mutes, mute),
        (swarm.transfers, Fault::Orders(vec![transfer])),
        (swarm.swaps && swap.is_some(), Fault::Orders(swap.unwrap_or_default())),
        (swarm.failed_appends && C::OUTLIVES_A_DISK, Fault::FailedAppend(place)),
        (swarm.rot && may_harm, Fault::Rot(harmed, log)),
        (swarm.lost_writes && may_harm, Fault::Damage(harmed, log, DamageKind::Lost)),
        (swarm.misdirected_writes && may_harm, Fault::Damage(harmed, log, DamageKind::Misdirected)),
        (swarm.emptied_disks && may_harm && random.once_in(2), Fault::Replace(victim, for_ns)),
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
fn swap<C: Core>(world: &mut World<C>, partition: usize) -> Option<Vec<Order>> {
    let member = |core: &C| core.replicas().into_iter().find(|replica| replica.partition == partition);
    let replicas = world.cores().filter_map(|(place, core)| Some((place, member(core)?)));
    let holders: Vec<(Place, u32)> = replicas.map(|(place, replica)| (place, replica.member)).collect();
    let (removed, remove) =
        (!holders.is_empty()).then(|| holders[below(&mut world.fault_random, holders.len())])?;
    let free = |place: &Place| {
        let apart = holders.iter().all(|(holder, _)| holder.node != place.node);
        let unused = world.core(*place).is_some_and(|core| core.member(partition).is_none());
        unused && (apart || place.node == removed.node)
    };
    let places: Vec<Place> = world.shape.places().filter(free).collect();
    let place = (!places.is_empty()).then(|| places[below(&mut world.fault_random, places.len())])?;
    let add = Seat { member: world.fresh_number(), place, incarnation: world.incarnation(place.node) };
    Some(vec![Order::Join { partition, add }, Order::Swap { partition, remove, add }])
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
        Fault::Mute(for_ns, after_ns, victims) => world.mute(for_ns, after_ns, victims),
        Fault::Rot(place, log) => world.rot(place, log),
        Fault::Damage(place, log, kind) => world.damage_next(place, log, kind),
        Fault::FailedAppend(place) => world.fail_append(place),
        Fault::Replace(node, down_ns) => world.replace(node, down_ns),
        Fault::Orders(orders) => orders.into_iter().for_each(|order| world.order(order)),
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
        Fault::Mute(..) => "fault: clients that get no answers",
        Fault::Rot(_, true) => "fault: rot in a log",
        Fault::Rot(_, false) => "fault: rot in a page file",
        Fault::Damage(_, true, DamageKind::Lost) => "fault: lost append",
        Fault::Damage(_, false, DamageKind::Lost) => "fault: lost write of a page",
        Fault::Damage(_, true, _) => "fault: misdirected append",
        Fault::Damage(_, false, _) => "fault: misdirected write of a page",
        Fault::FailedAppend(_) => "fault: failed append",
        Fault::Replace(..) => "fault: emptied disks",
        Fault::Orders(orders) if matches!(orders[..], [Order::Transfer { .. }]) => "order: transfer",
        Fault::Orders(_) => "order: swap",
    }
}
