//! The map of routes: from a table's name and a key to the partition that owns it and where that is.
//!
//! A map is built once from one reading of the catalogue and never changes; a newer one replaces it
//! whole. Each table's partitions are checked on building: a table whose ranges leave a gap, overlap,
//! or lie on an unknown node is unusable and says why, and no other table is touched by it.
//!
//! Look-ups: a table by a hash, its partition by binary search over the lower bounds.

use crate::replicas::{Place, Replicas};
use evenkeel_model::catalogue::{PartitionRow, Replica, TableRow};
use evenkeel_model::{Generation, NodeId, PartitionId, ShardId, TableId};
use evenkeel_wire::message::NodeAddress;
use std::collections::HashMap;
use std::sync::Arc;

/// One reading of the catalogue, in any order.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// All tables.
    pub tables: Vec<TableRow>,
    /// All partitions.
    pub partitions: Vec<PartitionRow>,
    /// All nodes.
    pub nodes: Vec<NodeAddress>,
}

/// A partition, the range it owns, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation, which requests name.
    pub generation: Generation,
    /// The least encoded key that it owns.
    pub lower: Vec<u8>,
    /// The least encoded key behind it; nothing for the last partition.
    pub upper: Option<Vec<u8>>,
    /// Where its replicas are.
    pub replicas: Replicas,
}

/// Why a table cannot be used with this reading of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// Its partitions are not made yet, or dropped already.
    #[error("the table has no partitions")]
    NoPartitions,
    /// Some keys belong to no partition.
    #[error("no partition owns the keys before those of partition {before}")]
    GapBefore {
        /// The partition behind the gap.
        before: PartitionId,
    },
    /// No partition goes to the end of the keys.
    #[error("no partition owns the keys after those of partition {after}")]
    GapAfter {
        /// The last partition.
        after: PartitionId,
    },
    /// Some keys belong to two partitions.
    #[error("partitions {first} and {second} own the same keys")]
    Overlap {
        /// The one that begins first.
        first: PartitionId,
        /// The other.
        second: PartitionId,
    },
    /// A range without keys.
    #[error("partition {partition} owns no keys")]
    Empty {
        /// The partition.
        partition: PartitionId,
    },
    /// A partition on nodes and shards that the cluster does not list.
    #[error("partition {partition} is on nodes that the cluster does not list")]
    UnknownPlaces {
        /// The partition.
        partition: PartitionId,
    },
}

/// A table and the routes to its partitions.
#[derive(Clone, Debug)]
pub struct TableRoutes {
    row: Arc<TableRow>,
    routes: Result<Vec<Route>, TableFault>,
}

/// The routes of all tables at one moment.
#[derive(Clone, Debug, Default)]
pub struct RouteMap {
    by_id: HashMap<TableId, TableRoutes>,
    names: HashMap<String, TableId>,
}

impl RouteMap {
    /// The map of one reading of the catalogue.
    pub fn new(catalogue: Catalogue) -> RouteMap {
        let places = Places::new(&catalogue.nodes);
        let mut partitions: HashMap<TableId, Vec<PartitionRow>> = HashMap::new();
        for row in catalogue.partitions {
            partitions.entry(row.table).or_default().push(row);
        }
        let mut map = RouteMap::default();
        for row in catalogue.tables {
            let routes = routes(partitions.remove(&row.id).unwrap_or_default(), &places);
            map.names.insert(row.name.clone(), row.id);
            map.by_id.insert(row.id, TableRoutes { row: Arc::new(row), routes });
        }
        map
    }

    /// Takes over from an older map who leads which partition.
    pub fn inherit(&self, older: &RouteMap) {
        for (id, table) in &self.by_id {
            let Some(Ok(before)) = older.by_id.get(id).map(TableRoutes::routes) else { continue };
            for route in table.routes().unwrap_or_default() {
                let same = before.binary_search_by(|before| before.lower.cmp(&route.lower)).ok();
                if let Some(before) =
                    same.map(|at| &before[at]).filter(|old| old.partition == route.partition)
                {
                    route.replicas.prefer(before.replicas.first());
                }
            }
        }
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&TableRoutes> {
        self.by_id.get(self.names.get(name)?)
    }

    /// The table of this identity.
    pub fn table_by_id(&self, id: TableId) -> Option<&TableRoutes> {
        self.by_id.get(&id)
    }

    /// All tables, in no order.
    pub fn tables(&self) -> impl Iterator<Item = &TableRoutes> {
        self.by_id.values()
    }
}

impl TableRoutes {
    /// The table's row.
    pub fn row(&self) -> &Arc<TableRow> {
        &self.row
    }

    /// Its routes in the order of their ranges, which cover every key once.
    ///
    /// # Errors
    /// Why the table cannot be used.
    pub fn routes(&self) -> Result<&[Route], &TableFault> {
        self.routes.as_deref()
    }

    /// The route to the partition that owns this key.
    ///
    /// # Errors
    /// Why the table cannot be used.
    pub fn floor(&self, key: &[u8]) -> Result<&Route, &TableFault> {
        let routes = self.routes()?;
        let behind = routes.partition_point(|route| route.lower.as_slice() <= key);
        Ok(&routes[behind.checked_sub(1).expect("the first range begins with the empty key")])
    }

    /// The route to the partition that owns the greatest keys below `upper`, or the last one if there is
    /// no bound; nothing if no key is below it.
    ///
    /// # Errors
    /// Why the table cannot be used.
    pub fn below(&self, upper: Option<&[u8]>) -> Result<Option<&Route>, &TableFault> {
        let routes = self.routes()?;
        let behind = match upper {
            None => routes.len(),
            Some(upper) => routes.partition_point(|route| route.lower.as_slice() < upper),
        };
        Ok(behind.checked_sub(1).map(|at| &routes[at]))
    }

    /// The route that follows this one in key order, or precedes it if `reverse`; nothing at the end.
    ///
    /// # Errors
    /// Why the table cannot be used.
    pub fn next(&self, route: &Route, reverse: bool) -> Result<Option<&Route>, &TableFault> {
        match (&route.upper, reverse) {
            (_, true) => self.below(Some(&route.lower)),
            (Some(upper), false) => self.floor(upper).map(Some),
            (None, false) => self.routes().map(|_| None),
        }
    }
}

/// Shards, each made once.
struct Places(HashMap<(NodeId, ShardId), Place>);

impl Places {
    fn new(nodes: &[NodeAddress]) -> Places {
        let mut places = HashMap::new();
        for node in nodes {
            for shard in 0..node.shards {
                if let Some(place) = Place::of(node, ShardId(shard)) {
                    places.insert((node.id, ShardId(shard)), place);
                }
            }
        }
        Places(places)
    }

    /// Where the replicas of a partition are; those on nodes that are not listed are left out.
    fn of(&self, row: &PartitionRow) -> Result<Replicas, TableFault> {
        let at = |replica: &Replica| self.0.get(&(replica.node, replica.shard)).cloned();
        let places: Vec<Place> = row.replicas.iter().filter_map(at).collect();
        if places.is_empty() {
            return Err(TableFault::UnknownPlaces { partition: row.id });
        }
        Ok(Replicas::new(places))
    }
}

fn routes(mut rows: Vec<PartitionRow>, places: &Places) -> Result<Vec<Route>, TableFault> {
    rows.sort_unstable_by(|a, b| a.lower.cmp(&b.lower).then(a.id.cmp(&b.id)));
    check_cover(&rows)?;
    rows.into_iter()
        .map(|row| {
            let replicas = places.of(&row)?;
            let PartitionRow { id: partition, generation, lower, upper, .. } = row;
            Ok(Route { partition, generation, lower, upper, replicas })
        })
        .collect()
}

/// Whether rows, sorted by lower bound, own every key once.
fn check_cover(rows: &[PartitionRow]) -> Result<(), TableFault> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Err(TableFault::NoPartitions) };
    if let Some(row) = rows.iter().find(|row| row.upper.as_ref().is_some_and(|upper| *upper <= row.lower)) {
        return Err(TableFault::Empty { partition: row.id });
    }
    if !first.lower.is_empty() {
        return Err(TableFault::GapBefore { before: first.id });
    }
    for pair in rows.windows(2) {
        match &pair[0].upper {
            Some(upper) if *upper == pair[1].lower => {}
            Some(upper) if *upper < pair[1].lower => {
                return Err(TableFault::GapBefore { before: pair[1].id });
            }
            _ => return Err(TableFault::Overlap { first: pair[0].id, second: pair[1].id }),
        }
    }
    match last.upper {
        None => Ok(()),
        Some(_) => Err(TableFault::GapAfter { after: last.id }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::catalogue::TableStatus;
    use evenkeel_model::{KeyAttribute, KeySchema, KeyType};
    use proptest::prelude::*;

    fn table(id: u64, name: &str) -> TableRow {
        let partition = KeyAttribute { name: "pk".into(), key_type: KeyType::S };
        TableRow {
            id: TableId(id),
            name: name.into(),
            schema: KeySchema { partition, sort: None },
            status: TableStatus::Active,
            created_ms: 0,
            throughput: None,
            on_demand_since_ms: None,
            deletion_protection: false,
            tags: Default::default(),
        }
    }

    fn node(id: u32, host: &str) -> NodeAddress {
        NodeAddress { id: NodeId(id), zone: "a".into(), host: host.into(), port_base: 7000, shards: 2 }
    }

    fn partition(id: u64, lower: &[u8], upper: Option<&[u8]>) -> PartitionRow {
        PartitionRow {
            table: TableId(5),
            lower: lower.to_vec(),
            upper: upper.map(<[u8]>::to_vec),
            id: PartitionId(id),
            generation: Generation(id as u32 + 100),
            founders: Vec::new(),
            replicas: vec![replica(id as u32 % 2 + 1, (id % 2) as u16)],
            unmade: Vec::new(),
        }
    }

    fn replica(node: u32, shard: u16) -> Replica {
        Replica { member: node, node: NodeId(node), shard: ShardId(shard) }
    }

    fn map(partitions: Vec<PartitionRow>) -> RouteMap {
        RouteMap::new(Catalogue {
            tables: vec![table(5, "orders"), table(6, "empty")],
            partitions,
            nodes: vec![node(1, "10.0.0.1"), node(2, "fd00::2")],
        })
    }

    #[test]
    fn a_key_leads_to_its_partition_and_address() {
        let map = map(vec![partition(2, b"m", None), partition(1, b"", Some(b"m"))]);
        let orders = map.table("orders").unwrap();
        assert_eq!(orders.row().id, TableId(5));
        let cases: [(&[u8], u64, &str); 4] = [
            (b"", 1, "[fd00::2]:7001"),
            (b"lzz", 1, "[fd00::2]:7001"),
            (b"m", 2, "10.0.0.1:7000"),
            (b"\xff\xff", 2, "10.0.0.1:7000"),
        ];
        for (key, id, address) in cases {
            let route = orders.floor(key).unwrap();
            assert_eq!((route.partition.0, &*route.replicas.first().address), (id, address), "{key:?}");
            assert_eq!(route.generation, Generation(id as u32 + 100));
        }
        assert!(map.table("absent").is_none() && map.table_by_id(TableId(9)).is_none());
        assert_eq!(map.tables().count(), 2);
    }

    #[test]
    fn a_table_that_cannot_be_used_says_why_and_leaves_others_alone() {
        let on = |replica| PartitionRow { replicas: vec![replica], ..partition(1, b"", None) };
        let (unknown_node, unknown_shard) = (on(replica(9, 0)), on(replica(2, 2)));
        let nowhere = || TableFault::UnknownPlaces { partition: PartitionId(1) };
        let id = PartitionId;
        let cases = [
            (vec![], TableFault::NoPartitions),
            (vec![partition(1, b"a", None)], TableFault::GapBefore { before: id(1) }),
            (vec![partition(1, b"", Some(b"b"))], TableFault::GapAfter { after: id(1) }),
            (
                vec![partition(1, b"", Some(b"b")), partition(2, b"c", None)],
                TableFault::GapBefore { before: id(2) },
            ),
            (
                vec![partition(1, b"", Some(b"c")), partition(2, b"b", None)],
                TableFault::Overlap { first: id(1), second: id(2) },
            ),
            (
                vec![partition(1, b"", None), partition(2, b"b", None)],
                TableFault::Overlap { first: id(1), second: id(2) },
            ),
            (
                vec![partition(1, b"", None), partition(2, b"", None)],
                TableFault::Overlap { first: id(1), second: id(2) },
            ),
            (
                vec![partition(1, b"", Some(b"")), partition(2, b"", None)],
                TableFault::Empty { partition: id(1) },
            ),
            (vec![unknown_node], nowhere()),
            (vec![unknown_shard], nowhere()),
        ];
        for (mut partitions, fault) in cases {
            partitions.push(PartitionRow { table: TableId(6), ..partition(7, b"", None) });
            let map = map(partitions);
            assert_eq!(map.table("orders").unwrap().floor(b"k"), Err(&fault), "{fault}");
            assert!(map.table("empty").unwrap().floor(b"k").is_ok(), "{fault}");
        }
    }

    #[test]
    fn a_newer_map_knows_who_leads_from_the_one_before() {
        let both = || {
            let replicas = vec![replica(1, 0), replica(2, 0)];
            map(vec![PartitionRow { replicas, ..partition(1, b"", None) }])
        };
        let (older, newer) = (both(), both());
        let lead = |map: &RouteMap| map.table("orders").unwrap().floor(b"k").unwrap().replicas.clone();
        let second = lead(&older).places()[1].clone();
        older.table("orders").unwrap().floor(b"k").unwrap().replicas.prefer(&second);
        newer.inherit(&older);
        assert_eq!(lead(&newer).first(), &second);
    }

    #[test]
    fn shards_beyond_the_last_port_have_no_address() {
        let node = NodeAddress { port_base: u16::MAX, ..node(1, "h") };
        assert_eq!(
            &*Place::find(std::slice::from_ref(&node), NodeId(1), ShardId(0)).unwrap().address,
            "h:65535"
        );
        assert_eq!(Place::find(&[node], NodeId(1), ShardId(1)), None);
    }

    fn bounds() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let bound = proptest::collection::vec(0u8..4, 1..4);
        proptest::collection::btree_set(bound, 0..12).prop_map(|set| set.into_iter().collect())
    }

    /// Partitions cut at these bounds, shuffled.
    fn cut(bounds: &[Vec<u8>]) -> Vec<PartitionRow> {
        let lowers = std::iter::once(Vec::new()).chain(bounds.iter().cloned());
        let uppers = bounds.iter().cloned().map(Some).chain([None]);
        let mut rows: Vec<_> = lowers
            .zip(uppers)
            .enumerate()
            .map(|(id, (lower, upper))| partition(id as u64, &lower, upper.as_deref()))
            .collect();
        rows.sort_by_key(|row| row.id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        rows
    }

    proptest! {
        #[test]
        fn look_ups_agree_with_a_search_of_all_rows(bounds in bounds(), key in proptest::collection::vec(0u8..5, 0..5)) {
            let rows = cut(&bounds);
            let map = map(rows.clone());
            let orders = map.table("orders").unwrap();
            let owner = rows.iter().find(|row| row.owns(&key)).unwrap();
            prop_assert_eq!(orders.floor(&key).unwrap().partition, owner.id);
            let below = rows.iter().filter(|row| row.lower < key).max_by_key(|row| row.lower.clone());
            prop_assert_eq!(orders.below(Some(&key)).unwrap().map(|r| r.partition), below.map(|r| r.id));
        }

        #[test]
        fn walking_visits_every_partition_once_in_either_direction(bounds in bounds()) {
            let map = map(cut(&bounds));
            let orders = map.table("orders").unwrap();
            for reverse in [false, true] {
                let start = if reverse { orders.below(None).unwrap() } else { Some(orders.floor(b"").unwrap()) };
                let walked: Vec<u64> = std::iter::successors(start, |route| orders.next(route, reverse).unwrap())
                    .map(|route| route.partition.0)
                    .collect();
                let mut expected: Vec<u64> = (0..=bounds.len() as u64).collect();
                if reverse {
                    expected.reverse();
                }
                prop_assert_eq!(walked, expected);
            }
        }
    }
}
