//! Where the copies of a new table's partitions go: each in a zone of its own, and as evenly as counting can
//! make it.
//!
//! A cluster of fewer than three zones keeps one copy. Knows nothing of how full nodes are.

use evenkeel_model::catalogue::{PartitionRow, Replica};
use evenkeel_model::{Generation, NodeId, PartitionId, ShardId, TableId, key};
use evenkeel_wire::message::NodeAddress;
use std::collections::BTreeSet;

/// Zones that copies are kept in, if there are as many.
const COPIES: usize = 3;

/// The rows of a table's partitions, over all shards. Which shard comes first depends on the table, so that small
/// tables do not all begin on the same one.
pub fn place(nodes: &[NodeAddress], table: TableId, first_id: u64, count: usize) -> Vec<PartitionRow> {
    let lowers = key::even_bounds(count);
    let row = |index: usize| {
        let replicas = replicas(nodes, table.0 as usize + index);
        PartitionRow {
            table,
            lower: lowers[index].clone(),
            upper: lowers.get(index + 1).cloned(),
            id: PartitionId(first_id + index as u64),
            generation: Generation(1),
            founders: replicas.clone(),
            replicas,
            unmade: Vec::new(),
        }
    };
    (0..count).map(row).collect()
}

/// How many shards there are.
pub fn shard_count(nodes: &[NodeAddress]) -> usize {
    nodes.iter().map(|node| usize::from(node.shards)).sum()
}

/// The members of the `turn`th partition, the one that should lead first.
fn replicas(nodes: &[NodeAddress], turn: usize) -> Vec<Replica> {
    let order = order(nodes);
    let (first, shard) = order[turn % order.len()];
    let zones: BTreeSet<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
    let mut places = vec![(first.id, shard)];
    if zones.len() >= COPIES {
        let behind = zones
            .range::<str, _>((std::ops::Bound::Excluded(first.zone.as_str()), std::ops::Bound::Unbounded));
        let others = behind.chain(zones.iter()).filter(|zone| **zone != first.zone);
        for zone in others.take(COPIES - 1) {
            let there: Vec<&NodeAddress> = nodes.iter().filter(|node| node.zone == **zone).collect();
            let node = there[turn / order.len() % there.len()];
            places.push((node.id, ShardId((turn % usize::from(node.shards)) as u16)));
        }
    }
    let replica =
        |(at, (node, shard)): (usize, (NodeId, ShardId))| Replica { member: at as u32 + 1, node, shard };
    places.into_iter().enumerate().map(replica).collect()
}

/// All shards, shard by shard and node by node, so that consecutive ones are on different nodes.
fn order(nodes: &[NodeAddress]) -> Vec<(&NodeAddress, ShardId)> {
    let most = nodes.iter().map(|node| node.shards).max().unwrap_or(0);
    let of_rank = |rank: u16| {
        nodes.iter().filter(move |node| rank < node.shards).map(move |node| (node, ShardId(rank)))
    };
    (0..most).flat_map(of_rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn nodes(list: &[(u32, &str, u16)]) -> Vec<NodeAddress> {
        let node = |&(id, zone, shards): &(u32, &str, u16)| NodeAddress {
            id: NodeId(id),
            zone: zone.to_owned(),
            host: "127.0.0.1".to_owned(),
            port_base: 7000,
            shards,
        };
        list.iter().map(node).collect()
    }

    #[test]
    fn each_copy_is_in_a_zone_of_its_own_and_every_shard_leads_as_often() {
        let nodes = nodes(&[(1, "a", 2), (2, "b", 2), (3, "c", 2), (4, "a", 2)]);
        let rows = place(&nodes, TableId(5), 100, 8);
        let mut leads = BTreeMap::new();
        for row in &rows {
            let zones: BTreeSet<_> = row
                .replicas
                .iter()
                .map(|replica| &nodes.iter().find(|node| node.id == replica.node).unwrap().zone)
                .collect();
            assert_eq!(zones.len(), 3, "{row:?}");
            assert_eq!(row.replicas.iter().map(|replica| replica.member).collect::<Vec<_>>(), [1, 2, 3]);
            assert!(row.replicas.iter().all(|replica| replica.shard.0 < 2));
            *leads.entry((row.replicas[0].node, row.replicas[0].shard)).or_insert(0) += 1;
        }
        assert_eq!(leads.into_values().collect::<Vec<_>>(), [1; 8]);
        assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), (100..108).collect::<Vec<_>>());
    }

    #[test]
    fn fewer_zones_than_copies_keep_one() {
        for list in
            [&[(1, "a", 1)][..], &[(1, "a", 1), (2, "b", 1)], &[(1, "a", 1), (2, "a", 1), (3, "a", 1)]]
        {
            let rows = place(&nodes(list), TableId(1), 1, 2);
            assert!(
                rows.iter().all(|row| row.replicas.len() == 1 && row.replicas == row.founders),
                "{list:?}"
            );
        }
    }
}
