//! The control plane, as far as it is simulated: nodes that are not what they were are replaced, and their
//! members with them, one step at a time and again until it is done.
//!
//! What it knows is what cores hold ([`Core::replicas`]); what it wants done it says in orders, which may find
//! nobody who can carry them out.

use crate::cluster::{Core, Order, ReplicaState, Seat};
use crate::world::{Harm, World};
use std::collections::BTreeMap;

/// How often it looks.
pub const CONTROL_EVERY_NS: u64 = 50_000_000;

/// The newest copy of each partition that can be seen.
fn newest<C: Core>(world: &World<C>) -> BTreeMap<usize, ReplicaState> {
    let mut newest: BTreeMap<usize, ReplicaState> = BTreeMap::new();
    for replica in world.cores().flat_map(|(_, core)| core.replicas()) {
        let known = newest.get(&replica.partition);
        if known.is_none_or(|known| known.applied < replica.applied) {
            newest.insert(replica.partition, replica);
        }
    }
    newest
}

/// The control plane of one run.
#[derive(Default, Debug)]
pub struct Control {
    /// The swaps that brought in the members of now: the greatest number of a member, and a slot not before the
    /// swap.
    swaps: BTreeMap<usize, (u32, u64)>,
}

impl Control {
    /// Brings fresh members in where nodes were replaced; once all are in, another disk may be harmed.
    ///
    /// They are in when every member has applied an entry behind the swap, which proves it chosen: as long as only
    /// a leader knows that, the members before the swap are needed, and one of them is gone.
    pub fn look<C: Core>(&mut self, world: &mut World<C>) {
        let Some(Harm { node, replaced: true }) = world.harm else { return };
        let newest = newest(world);
        let mut missing = newest.len() < world.shape.partitions;
        for (&partition, copy) in &newest {
            let gone = |seat: &&Seat| seat.incarnation != world.incarnation(seat.place.node);
            if let Some(gone) = copy.members.iter().find(gone) {
                missing = true;
                if let Some(order) = step(world, partition, copy, *gone) {
                    world.order(order);
                }
                continue;
            }
            let swap = self.swaps.entry(partition).or_default();
            if swap.0 != copy.member_max {
                *swap = (copy.member_max, copy.applied);
            }
            missing |= copy.members.iter().any(|seat| !knows(world, partition, seat, *swap));
        }
        let all_seen = (0..world.shape.nodes).all(|node| world.is_working(node));
        if all_seen && !missing {
            world.trace(|| format!("every group has taken in the new node {node}"));
            world.seen.note("every group has taken in a replaced node");
            world.harm = None;
        }
    }
}

/// Whether a member is where it should be, with a complete copy, and has applied more than a swap.
fn knows<C: Core>(world: &World<C>, partition: usize, seat: &Seat, (member_max, slot): (u32, u64)) -> bool {
    let Some(core) = world.core(seat.place) else { return false };
    core.replicas().iter().any(|replica| {
        let same = replica.partition == partition && replica.member == seat.member;
        same && replica.member_max == member_max && replica.applied > slot
    })
}

/// What is to be done next for the member of a node that is gone: a fresh one is made in its place, and swapped
/// in.
fn step<C: Core>(world: &mut World<C>, partition: usize, copy: &ReplicaState, gone: Seat) -> Option<Order> {
    let incarnation = world.incarnation(gone.place.node);
    let at = |member| Seat { member, place: gone.place, incarnation };
    let here = world.core(gone.place)?.member(partition);
    Some(match here {
        None => Order::Join { partition, add: at(world.fresh_number()) },
        Some(member) if member > copy.member_max => {
            Order::Swap { partition, remove: gone.member, add: at(member) }
        }
        // A number that a chosen configuration has left behind never comes back.
        Some(member) => Order::Drop { partition, at: at(member) },
    })
}
