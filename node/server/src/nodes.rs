//! Where the nodes of the cluster are, as far as this shard knows: from its configuration, and from what nodes
//! that have proved who they are say of themselves and of others.

use evenkeel_model::NodeId;
use evenkeel_partition::Place;
use evenkeel_wire::message::{ArchivedNodeAddress, NodeAddress};
use std::cell::RefCell;
use std::net::SocketAddr;

/// The nodes known so far.
pub struct Nodes {
    known: RefCell<Vec<NodeAddress>>,
    holders: RefCell<Vec<Place>>,
}

impl Nodes {
    /// The nodes of a configuration, and the shards that hold the catalogue by it.
    pub fn new(known: Vec<NodeAddress>, holders: Vec<Place>) -> Nodes {
        Nodes { known: RefCell::new(known), holders: RefCell::new(holders) }
    }

    /// The shards that hold the catalogue, or did: one of them knows every node.
    pub fn holders(&self) -> Vec<Place> {
        self.holders.borrow().clone()
    }

    /// Takes note of a shard that is said to hold the catalogue.
    pub fn hear_of_holder(&self, holder: Place) {
        let mut holders = self.holders.borrow_mut();
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<NodeAddress> {
        self.known.borrow().clone()
    }

    /// One of them.
    pub fn get(&self, id: NodeId) -> Option<NodeAddress> {
        self.known.borrow().iter().find(|node| node.id == id).cloned()
    }

    /// Takes note of where a node is; the newest word holds.
    pub fn learn(&self, node: NodeAddress) {
        let mut known = self.known.borrow_mut();
        match known.iter_mut().find(|present| present.id == node.id) {
            Some(present) => *present = node,
            None => known.push(node),
        }
    }

    /// Takes note of a node by an older word, of which nothing else is known: since it was written the node may
    /// have moved, as the configuration or the node itself has said.
    pub fn hear_of(&self, node: NodeAddress) {
        let mut known = self.known.borrow_mut();
        if !known.iter().any(|present| present.id == node.id) {
            known.push(node);
        }
    }

    /// The address of a core, if its node is known and has it.
    pub fn address(&self, place: Place) -> Option<SocketAddr> {
        let known = self.known.borrow();
        let node = known.iter().find(|node| node.id == place.node)?;
        let port = node.port_base.checked_add(place.shard.0).filter(|_| place.shard.0 < node.shards)?;
        Some(SocketAddr::new(node.host.parse().ok()?, port))
    }
}

/// A node's address as it arrived.
pub fn read_address(node: &ArchivedNodeAddress) -> NodeAddress {
    NodeAddress {
        id: (&node.id).into(),
        zone: node.zone.as_str().to_owned(),
        host: node.host.as_str().to_owned(),
        port_base: node.port_base.into(),
        shards: node.shards.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::ShardId;

    fn node(id: u32, port_base: u16) -> NodeAddress {
        let (zone, host) = ("a".to_owned(), "127.0.0.1".to_owned());
        NodeAddress { id: NodeId(id), zone, host, port_base, shards: 2 }
    }

    #[test]
    fn the_newest_word_of_where_a_node_is_holds() {
        let nodes = Nodes::new(vec![node(1, 7000)], Vec::new());
        let address = |id, shard| {
            let place = Place { node: NodeId(id), shard: ShardId(shard) };
            nodes.address(place).map(|address| address.port())
        };
        assert_eq!((address(1, 1), address(1, 2), address(2, 0)), (Some(7001), None, None));
        nodes.learn(node(2, 8000));
        nodes.learn(node(1, 9000));
        nodes.hear_of(node(1, 7000));
        assert_eq!((address(1, 0), address(2, 0), nodes.all().len()), (Some(9000), Some(8000), 2));
    }
}
