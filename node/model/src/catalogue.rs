//! The catalogue of the cluster: which tables and partitions there are, as items of partition 0.
//!
//! The catalogue is a table like every other, with a string partition key and a string sort key:
//!
//! | pk | sk | row |
//! |---|---|---|
//! | `table` | table name | [`TableRow`] |
//! | `partition` | partition id, 20 digits | [`PartitionRow`] |
//! | `node` | node id, 10 digits | [`NodeRow`] |
//! | `sequence` | `id` | the greatest id given so far, [`SequenceRow`] |
//! | `user` | user name | [`UserRow`] |
//!
//! This module only converts rows from and to attributes; who writes them, and when, is the control
//! plane's business. Who the members of a partition's group are, its own log decides; a row tells who they were
//! when it was written, which is where to ask first.

use crate::ids::{Generation, NodeId, PartitionId, ShardId, TableId};
use crate::key::{KeyAttribute, KeySchema, KeyType, KeyValue, collection_prefix, encode_key};
use crate::number::Number;
use crate::value::{Attribute, AttributeValue, Attributes, sorted_by_name};
use std::collections::BTreeMap;

mod nodes;
mod users;

pub use nodes::*;
pub use users::*;

const TABLE: &str = "table";
const PARTITION: &str = "partition";
const SEQUENCE: &str = "sequence";
const USER: &str = "user";

/// The key schema of the catalogue itself.
pub fn schema() -> KeySchema {
    let attribute = |name: &str| KeyAttribute { name: name.to_owned(), key_type: KeyType::S };
    KeySchema { partition: attribute("pk"), sort: Some(attribute("sk")) }
}

fn row_key(kind: &str, name: &str) -> Vec<u8> {
    encode_key(&KeyValue::S(kind.to_owned()), Some(&KeyValue::S(name.to_owned())))
}

/// Key of a table's row.
pub fn table_key(name: &str) -> Vec<u8> {
    row_key(TABLE, name)
}

/// Key of a partition's row.
pub fn partition_key(id: PartitionId) -> Vec<u8> {
    row_key(PARTITION, &format!("{:020}", id.0))
}

/// Key of the row that hands out ids.
pub fn sequence_key() -> Vec<u8> {
    row_key(SEQUENCE, "id")
}

/// What the keys of all tables' rows begin with; they sort by table name.
pub fn tables_prefix() -> Vec<u8> {
    collection_prefix(&KeyValue::S(TABLE.to_owned()))
}

/// What the keys of all partitions' rows begin with.
pub fn partitions_prefix() -> Vec<u8> {
    collection_prefix(&KeyValue::S(PARTITION.to_owned()))
}

/// Why an item of the catalogue is not the row it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("catalogue row: attribute {attribute} is absent or malformed")]
pub struct RowError {
    /// The attribute at fault.
    pub attribute: &'static str,
}

/// Where a table is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStatus {
    /// Its partitions are being made.
    Creating,
    /// Open to requests.
    Active,
    /// Its partitions are being dropped.
    Deleting,
}

impl TableStatus {
    /// DynamoDB's name of the status.
    pub fn name(self) -> &'static str {
        match self {
            TableStatus::Creating => "CREATING",
            TableStatus::Active => "ACTIVE",
            TableStatus::Deleting => "DELETING",
        }
    }

    fn from_name(name: &str) -> Option<TableStatus> {
        [TableStatus::Creating, TableStatus::Active, TableStatus::Deleting]
            .into_iter()
            .find(|s| s.name() == name)
    }
}

/// Provisioned throughput in capacity units a second; nothing of it means on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// Read capacity units.
    pub read_units: u64,
    /// Write capacity units.
    pub write_units: u64,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// Its identity; a table made again under the same name has another.
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// What identifies its items.
    pub schema: KeySchema,
    /// Where it is in its life.
    pub status: TableStatus,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Provisioned throughput, or nothing for on demand.
    pub throughput: Option<Throughput>,
    /// When the table was last turned to on demand, in milliseconds since the Unix epoch.
    pub on_demand_since_ms: Option<u64>,
    /// Whether DeleteTable is refused.
    pub deletion_protection: bool,
    /// What its owner calls it by: values by key.
    pub tags: BTreeMap<String, String>,
}

/// A member of a partition's group and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// Its number in the group, never given to another.
    pub member: u32,
    /// Its node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
}

/// A partition: a contiguous range of encoded keys of one table, and where its copies are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionRow {
    /// The table it belongs to.
    pub table: TableId,
    /// The least encoded key that belongs to it; empty for the first partition.
    pub lower: Vec<u8>,
    /// The least encoded key behind it; nothing for the last partition.
    pub upper: Option<Vec<u8>>,
    /// Its identity.
    pub id: PartitionId,
    /// Counts changes of range or owner.
    pub generation: Generation,
    /// The members its group began with.
    pub founders: Vec<Replica>,
    /// Its members, the one that should lead first.
    pub replicas: Vec<Replica>,
    /// The numbers of members that are not known to be made yet.
    pub unmade: Vec<u32>,
}

/// The greatest table or partition id given so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceRow {
    /// That id.
    pub last: u64,
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn integer(value: u64) -> AttributeValue {
    AttributeValue::N(Number::from(value))
}

/// Reads typed attributes of a row and says which one is at fault.
struct Reader<'a>(&'a Attributes);

impl Reader<'_> {
    fn text(&self, attribute: &'static str) -> Result<String, RowError> {
        match self.0.get(attribute) {
            Some(AttributeValue::S(text)) => Ok(text.clone()),
            _ => Err(RowError { attribute }),
        }
    }

    fn binary(&self, attribute: &'static str) -> Result<Vec<u8>, RowError> {
        match self.0.get(attribute) {
            Some(AttributeValue::B(bytes)) => Ok(bytes.clone()),
            _ => Err(RowError { attribute }),
        }
    }

    fn flag(&self, attribute: &'static str) -> Result<bool, RowError> {
        match self.0.get(attribute) {
            Some(AttributeValue::Bool(flag)) => Ok(*flag),
            _ => Err(RowError { attribute }),
        }
    }

    fn integer<T: TryFrom<u64>>(&self, attribute: &'static str) -> Result<T, RowError> {
        self.0.get(attribute).and_then(integer_in).ok_or(RowError { attribute })
    }

    fn list<T>(
        &self,
        attribute: &'static str,
        read: impl Fn(&AttributeValue) -> Option<T>,
    ) -> Result<Vec<T>, RowError> {
        let fault = RowError { attribute };
        match self.0.get(attribute) {
            Some(AttributeValue::L(values)) => values.iter().map(read).collect::<Option<_>>().ok_or(fault),
            _ => Err(fault),
        }
    }

    fn key_attribute(&self, name: &'static str, key_type: &'static str) -> Result<KeyAttribute, RowError> {
        let parsed = KeyType::from_name(&self.text(key_type)?).ok_or(RowError { attribute: key_type })?;
        Ok(KeyAttribute { name: self.text(name)?, key_type: parsed })
    }

    /// Texts by name; none if the attribute is absent.
    fn texts(&self, attribute: &'static str) -> Result<BTreeMap<String, String>, RowError> {
        let entry = |entry: &Attribute| match &entry.value {
            AttributeValue::S(text) => Ok((entry.name.clone(), text.clone())),
            _ => Err(RowError { attribute }),
        };
        match self.0.get(attribute) {
            None => Ok(BTreeMap::new()),
            Some(AttributeValue::M(entries)) => entries.iter().map(entry).collect(),
            Some(_) => Err(RowError { attribute }),
        }
    }

    fn has(&self, attribute: &str) -> bool {
        self.0.get(attribute).is_some()
    }
}

impl TableRow {
    /// The row as an item.
    pub fn to_attributes(&self) -> Attributes {
        let mut pairs = vec![
            ("pk", text(TABLE)),
            ("sk", text(&self.name)),
            ("id", integer(self.id.0)),
            ("partition_key", text(&self.schema.partition.name)),
            ("partition_key_type", text(self.schema.partition.key_type.name())),
            ("status", text(self.status.name())),
            ("created_ms", integer(self.created_ms)),
            ("deletion_protection", AttributeValue::Bool(self.deletion_protection)),
        ];
        if let Some(sort) = &self.schema.sort {
            pairs.push(("sort_key", text(&sort.name)));
            pairs.push(("sort_key_type", text(sort.key_type.name())));
        }
        if let Some(throughput) = self.throughput {
            pairs.push(("read_units", integer(throughput.read_units)));
            pairs.push(("write_units", integer(throughput.write_units)));
        }
        if let Some(since) = self.on_demand_since_ms {
            pairs.push(("on_demand_since_ms", integer(since)));
        }
        if !self.tags.is_empty() {
            let tag =
                |(name, value): (&String, &String)| Attribute { name: name.clone(), value: text(value) };
            let tags = sorted_by_name(self.tags.iter().map(tag).collect());
            pairs.push(("tags", AttributeValue::M(tags)));
        }
        pairs.into_iter().collect()
    }

    /// The row that an item holds.
    ///
    /// # Errors
    /// The first attribute that is absent or malformed.
    pub fn from_attributes(attributes: &Attributes) -> Result<TableRow, RowError> {
        let row = Reader(attributes);
        let sort = row.has("sort_key").then(|| row.key_attribute("sort_key", "sort_key_type")).transpose()?;
        let throughput = || -> Result<Throughput, RowError> {
            Ok(Throughput {
                read_units: row.integer("read_units")?,
                write_units: row.integer("write_units")?,
            })
        };
        Ok(TableRow {
            id: TableId(row.integer("id")?),
            name: row.text("sk")?,
            schema: KeySchema { partition: row.key_attribute("partition_key", "partition_key_type")?, sort },
            status: TableStatus::from_name(&row.text("status")?).ok_or(RowError { attribute: "status" })?,
            created_ms: row.integer("created_ms")?,
            throughput: row.has("read_units").then(throughput).transpose()?,
            on_demand_since_ms: row
                .has("on_demand_since_ms")
                .then(|| row.integer("on_demand_since_ms"))
                .transpose()?,
            deletion_protection: row.flag("deletion_protection")?,
            tags: row.texts("tags")?,
        })
    }
}

impl PartitionRow {
    /// The catalogue's own partition, which owns every key of the catalogue.
    pub fn catalogue(replicas: Vec<Replica>) -> PartitionRow {
        PartitionRow {
            table: TableId::CATALOGUE,
            lower: Vec::new(),
            upper: None,
            id: PartitionId::CATALOGUE,
            generation: Generation(1),
            founders: replicas.clone(),
            replicas,
            unmade: Vec::new(),
        }
    }

    /// Whether the partition owns this encoded key.
    pub fn owns(&self, key: &[u8]) -> bool {
        self.lower.as_slice() <= key && self.upper.as_deref().is_none_or(|upper| key < upper)
    }

    /// The row as an item.
    pub fn to_attributes(&self) -> Attributes {
        let mut pairs = vec![
            ("pk", text(PARTITION)),
            ("sk", text(&format!("{:020}", self.id.0))),
            ("id", integer(self.id.0)),
            ("table", integer(self.table.0)),
            ("lower", AttributeValue::B(self.lower.clone())),
            ("generation", integer(self.generation.0.into())),
            ("founders", replicas(&self.founders)),
            ("replicas", replicas(&self.replicas)),
        ];
        if let Some(upper) = &self.upper {
            pairs.push(("upper", AttributeValue::B(upper.clone())));
        }
        if !self.unmade.is_empty() {
            let unmade = self.unmade.iter().map(|&member| integer(member.into()));
            pairs.push(("unmade", AttributeValue::L(unmade.collect())));
        }
        pairs.into_iter().collect()
    }

    /// The row that an item holds.
    ///
    /// # Errors
    /// The first attribute that is absent or malformed.
    pub fn from_attributes(attributes: &Attributes) -> Result<PartitionRow, RowError> {
        let row = Reader(attributes);
        Ok(PartitionRow {
            table: TableId(row.integer("table")?),
            lower: row.binary("lower")?,
            upper: row.has("upper").then(|| row.binary("upper")).transpose()?,
            id: PartitionId(row.integer("id")?),
            generation: Generation(row.integer("generation")?),
            founders: row.list("founders", replica)?,
            replicas: row.list("replicas", replica)?,
            unmade: match row.has("unmade") {
                true => row.list("unmade", integer_in)?,
                false => Vec::new(),
            },
        })
    }
}

/// Members as a list of lists of three numbers.
fn replicas(replicas: &[Replica]) -> AttributeValue {
    let one = |replica: &Replica| {
        let numbers = [replica.member, replica.node.0, replica.shard.0.into()];
        AttributeValue::L(numbers.into_iter().map(|number| integer(number.into())).collect())
    };
    AttributeValue::L(replicas.iter().map(one).collect())
}

fn replica(value: &AttributeValue) -> Option<Replica> {
    let AttributeValue::L(numbers) = value else { return None };
    let [member, node, shard] = numbers.as_slice() else { return None };
    let (member, node) = (integer_in(member)?, NodeId(integer_in(node)?));
    Some(Replica { member, node, shard: ShardId(integer_in(shard)?) })
}

fn integer_in<T: TryFrom<u64>>(value: &AttributeValue) -> Option<T> {
    let AttributeValue::N(number) = value else { return None };
    T::try_from(u64::try_from(number).ok()?).ok()
}

impl SequenceRow {
    /// The row as an item.
    pub fn to_attributes(&self) -> Attributes {
        [("pk", text(SEQUENCE)), ("sk", text("id")), ("last", integer(self.last))].into_iter().collect()
    }

    /// The row that an item holds.
    ///
    /// # Errors
    /// The first attribute that is absent or malformed.
    pub fn from_attributes(attributes: &Attributes) -> Result<SequenceRow, RowError> {
        Ok(SequenceRow { last: Reader(attributes).integer("last")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableRow {
        TableRow {
            id: TableId(7),
            name: "orders".into(),
            schema: KeySchema {
                partition: KeyAttribute { name: "customer".into(), key_type: KeyType::S },
                sort: Some(KeyAttribute { name: "at".into(), key_type: KeyType::N }),
            },
            status: TableStatus::Creating,
            created_ms: 1_700_000_000_123,
            throughput: Some(Throughput { read_units: 5, write_units: 6 }),
            on_demand_since_ms: None,
            deletion_protection: true,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn rows_come_back_from_their_items() {
        let tags = [("team", "sea"), ("cost", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let on_demand = TableRow {
            throughput: None,
            on_demand_since_ms: Some(5),
            tags: tags.into_iter().collect(),
            ..table()
        };
        for row in [table(), on_demand] {
            assert_eq!(TableRow::from_attributes(&row.to_attributes()), Ok(row));
        }
        let replica = |member, node| Replica { member, node: NodeId(node), shard: ShardId(2) };
        let last = PartitionRow::catalogue(vec![replica(1, 1), replica(2, 2), replica(3, 3)]);
        let replicas = vec![replica(4, 7), replica(2, 2)];
        let first = PartitionRow {
            id: PartitionId(9),
            upper: Some(vec![8]),
            replicas,
            unmade: vec![4],
            ..last.clone()
        };
        for row in [first, last] {
            assert_eq!(PartitionRow::from_attributes(&row.to_attributes()), Ok(row));
        }
    }

    #[test]
    fn a_row_without_an_attribute_names_it() {
        assert_eq!(TableRow::from_attributes(&Attributes::default()), Err(RowError { attribute: "id" }));
    }

    #[test]
    fn rows_stand_under_their_prefixes() {
        assert!(table_key("orders").starts_with(&tables_prefix()));
        assert!(partition_key(PartitionId(3)).starts_with(&partitions_prefix()));
        assert_eq!(
            crate::key::encode_item_key(&schema(), &table().to_attributes()),
            Some(table_key("orders"))
        );
    }
}
