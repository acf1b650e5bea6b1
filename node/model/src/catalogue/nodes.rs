//! Rows of nodes: which there are, where they are, and by which disk each is known.

use super::{Reader, RowError, integer, text};
use crate::ids::NodeId;
use crate::key::{KeyValue, collection_prefix};
use crate::value::{AttributeValue, Attributes};

const NODE: &str = "node";

/// A node that belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Which one.
    pub id: NodeId,
    /// Its availability zone.
    pub zone: String,
    /// IP address or name.
    pub host: String,
    /// UDP port of its shard 0.
    pub port_base: u16,
    /// How many shards it has.
    pub shards: u16,
    /// What was drawn when its disk was formatted: a node that comes with another disk has forgotten what it
    /// promised, and is refused.
    pub store: u128,
    /// The node in whose place it has come.
    pub replaces: Option<NodeId>,
}

/// Key of a node's row.
pub fn node_key(id: NodeId) -> Vec<u8> {
    super::row_key(NODE, &format!("{:010}", id.0))
}

/// What the keys of all nodes' rows begin with.
pub fn nodes_prefix() -> Vec<u8> {
    collection_prefix(&KeyValue::S(NODE.to_owned()))
}

impl NodeRow {
    /// The row as an item.
    pub fn to_attributes(&self) -> Attributes {
        let mut pairs = vec![
            ("pk", text(NODE)),
            ("sk", text(&format!("{:010}", self.id.0))),
            ("id", integer(self.id.0.into())),
            ("zone", text(&self.zone)),
            ("host", text(&self.host)),
            ("port", integer(self.port_base.into())),
            ("shards", integer(self.shards.into())),
            ("store", AttributeValue::B(self.store.to_be_bytes().to_vec())),
        ];
        if let Some(replaces) = self.replaces {
            pairs.push(("replaces", integer(replaces.0.into())));
        }
        pairs.into_iter().collect()
    }

    /// The row that an item holds.
    ///
    /// # Errors
    /// The first attribute that is absent or malformed.
    pub fn from_attributes(attributes: &Attributes) -> Result<NodeRow, RowError> {
        let row = Reader(attributes);
        let store = row.binary("store")?.try_into().map_err(|_| RowError { attribute: "store" })?;
        Ok(NodeRow {
            id: NodeId(row.integer("id")?),
            zone: row.text("zone")?,
            host: row.text("host")?,
            port_base: row.integer("port")?,
            shards: row.integer("shards")?,
            store: u128::from_be_bytes(store),
            replaces: match row.has("replaces") {
                true => Some(NodeId(row.integer("replaces")?)),
                false => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_from_their_items_and_stand_under_their_prefix() {
        let first = NodeRow {
            id: NodeId(3),
            zone: "a".to_owned(),
            host: "::1".to_owned(),
            port_base: 7101,
            shards: 4,
            store: 5 << 100,
            replaces: None,
        };
        for row in [NodeRow { replaces: Some(NodeId(1)), ..first.clone() }, first] {
            assert_eq!(NodeRow::from_attributes(&row.to_attributes()), Ok(row));
        }
        assert!(node_key(NodeId(3)).starts_with(&nodes_prefix()));
    }
}
