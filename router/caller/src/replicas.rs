//! The replicas of a partition as a caller knows them, and the one it asks first.
//!
//! Who leads is in no catalogue: it is learned from answers, kept here, and right until it is not. A wrong guess
//! costs one redirect.

use evenkeel_model::{NodeId, ShardId};
use evenkeel_wire::message::NodeAddress;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A shard of a node and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
    /// `host:port`, with brackets around an IPv6 address.
    pub address: Arc<str>,
    /// The node's availability zone.
    pub zone: Arc<str>,
}

impl Place {
    /// A shard of one of the nodes; nothing if none of them has it.
    pub fn find(nodes: &[NodeAddress], node: NodeId, shard: ShardId) -> Option<Place> {
        Place::of(nodes.iter().find(|listed| listed.id == node)?, shard)
    }

    /// A shard of a node, if the node has it.
    pub fn of(node: &NodeAddress, shard: ShardId) -> Option<Place> {
        let port = node.port_base.checked_add(shard.0).filter(|_| shard.0 < node.shards)?;
        let address = match node.host.contains(':') {
            true => format!("[{}]:{port}", node.host),
            false => format!("{}:{port}", node.host),
        };
        let zone = node.zone.as_str().into();
        Some(Place { node: node.id, shard, address: address.into(), zone })
    }

    fn is(&self, other: &Place) -> bool {
        (self.node, self.shard) == (other.node, other.shard)
    }
}

/// The replicas of a partition; at least one.
#[derive(Debug)]
pub struct Replicas {
    places: Vec<Place>,
    /// Which of them leads, as far as anybody has said.
    first: AtomicUsize,
}

impl Replicas {
    /// Replicas, of which the first one is guessed to lead.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(places: Vec<Place>) -> Replicas {
        assert!(!places.is_empty(), "a partition has at least one replica");
        Replicas { places, first: AtomicUsize::new(0) }
    }

    /// Where they are.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The one to ask first.
    pub fn first(&self) -> &Place {
        &self.places[self.first.load(Ordering::Relaxed).min(self.places.len() - 1)]
    }

    /// Takes note that this one leads, if it is one of them.
    pub fn prefer(&self, place: &Place) {
        if let Some(at) = self.places.iter().position(|own| own.is(place)) {
            self.first.store(at, Ordering::Relaxed);
        }
    }

    /// The one to ask: the first one of those that are `usable`, in the order of [`Replicas::first`] and those
    /// behind it, `not` this one if there is another; the first one if none is.
    pub fn pick(&self, not: Option<&Place>, usable: impl Fn(&Place) -> bool) -> &Place {
        let first = self.first.load(Ordering::Relaxed);
        let turn = |at: usize| &self.places[(first + at) % self.places.len()];
        let mut others =
            (0..self.places.len()).map(turn).filter(|place| !not.is_some_and(|not| not.is(place)));
        others.clone().find(|place| usable(place)).or_else(|| others.next()).unwrap_or_else(|| self.first())
    }

    /// The one to ask for what need not be of this moment: one of this zone, if it is usable.
    pub fn near(&self, zone: &str, usable: impl Fn(&Place) -> bool) -> Option<&Place> {
        self.places.iter().find(|place| &*place.zone == zone && usable(place))
    }
}

impl Clone for Replicas {
    fn clone(&self) -> Replicas {
        let first = AtomicUsize::new(self.first.load(Ordering::Relaxed));
        Replicas { places: self.places.clone(), first }
    }
}

impl PartialEq for Replicas {
    /// What is guessed makes no difference.
    fn eq(&self, other: &Replicas) -> bool {
        self.places == other.places
    }
}

impl Eq for Replicas {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: u32, zone: &str) -> Place {
        Place { node: NodeId(node), shard: ShardId(0), address: "h:1".into(), zone: zone.into() }
    }

    fn three() -> Replicas {
        Replicas::new(vec![place(1, "a"), place(2, "b"), place(3, "c")])
    }

    #[test]
    fn who_was_said_to_lead_is_asked_first() {
        let replicas = three();
        assert_eq!(replicas.first().node, NodeId(1));
        replicas.prefer(&place(3, "elsewhere"));
        assert_eq!(replicas.first().node, NodeId(3));
        replicas.prefer(&place(9, "a"));
        assert_eq!(replicas.first().node, NodeId(3), "a stranger changes nothing");
        assert_eq!(replicas.clone().first().node, NodeId(3));
    }

    #[test]
    fn the_next_usable_one_is_picked_and_any_rather_than_none() {
        let replicas = three();
        replicas.prefer(&place(2, "b"));
        type Case = (Option<u32>, &'static [u32], u32);
        let cases: [Case; 7] = [
            (None, &[1, 2, 3], 2),
            (Some(2), &[1, 2, 3], 3),
            (None, &[1], 1),
            (Some(2), &[2], 3),
            (None, &[], 2),
            (Some(2), &[], 3),
            (Some(3), &[1, 3], 1),
        ];
        for (not, usable, expected) in cases {
            let not = not.map(|node| place(node, ""));
            let picked = replicas.pick(not.as_ref(), |place| usable.contains(&place.node.0));
            assert_eq!(picked.node, NodeId(expected), "{not:?} {usable:?}");
        }
        let alone = Replicas::new(vec![place(1, "a")]);
        assert_eq!(alone.pick(Some(&place(1, "a")), |_| false).node, NodeId(1));
    }

    #[test]
    fn the_nearest_is_of_the_same_zone() {
        let replicas = three();
        assert_eq!(replicas.near("c", |_| true).map(|place| place.node), Some(NodeId(3)));
        assert_eq!(replicas.near("c", |_| false), None);
        assert_eq!(replicas.near("x", |_| true), None);
    }
}
