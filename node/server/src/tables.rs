//! The catalogue as typed rows: reads and writes partition 0 through the same path as every item.
//!
//! Every write names the reign in which what it rests on was read: had another member led in between, it is
//! refused.

use crate::control::ControlError;
use crate::service::CorePartition;
use evenkeel_model::catalogue::{
    self, NodeRow, PartitionRow, RowError, SequenceRow, TableRow, UserRow, node_key, nodes_prefix,
    partition_key, partitions_prefix, sequence_key, table_key, tables_prefix, user_key,
};
use evenkeel_model::limits::PAGE_BYTES_MAX;
use evenkeel_model::{Attributes, ItemView, NodeId, PartitionId, encode_item, key};
use evenkeel_partition::{Change, RangeRequest, ReadError, Terms};
use std::rc::Rc;

/// A stretch of uninterrupted leadership of partition 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign(pub u64);

/// Partition 0, as rows.
pub struct Catalogue {
    partition: Rc<CorePartition>,
}

impl Catalogue {
    /// The catalogue in this member of partition 0.
    pub fn new(partition: Rc<CorePartition>) -> Catalogue {
        Catalogue { partition }
    }

    /// The member that is written and read.
    pub fn partition(&self) -> &Rc<CorePartition> {
        &self.partition
    }

    /// The present reign.
    ///
    /// # Errors
    /// This member does not lead.
    pub fn reign(&self) -> Result<Reign, ControlError> {
        match self.partition.reign() {
            Some(reign) => Ok(Reign(reign)),
            None => Err(ReadError::NotLeader(Box::new(self.partition.redirect())).into()),
        }
    }

    /// The row of a table.
    pub async fn table(&self, name: &str) -> Result<Option<TableRow>, ControlError> {
        self.row(&table_key(name), TableRow::from_attributes).await
    }

    /// The greatest id given so far.
    pub async fn sequence(&self) -> Result<SequenceRow, ControlError> {
        Ok(self.row(&sequence_key(), SequenceRow::from_attributes).await?.unwrap_or_default())
    }

    /// All tables, by name.
    pub async fn tables(&self) -> Result<Vec<TableRow>, ControlError> {
        self.rows(tables_prefix(), TableRow::from_attributes).await
    }

    /// All partitions, by id; of the catalogue's own there may be none yet.
    pub async fn partitions(&self) -> Result<Vec<PartitionRow>, ControlError> {
        self.rows(partitions_prefix(), PartitionRow::from_attributes).await
    }

    /// Writes the row of a table; yields it as a stored item.
    pub async fn put_table(&self, reign: Reign, row: &TableRow) -> Result<Vec<u8>, ControlError> {
        self.put(reign, &table_key(&row.name), &row.to_attributes()).await
    }

    /// Writes the row of a partition.
    pub async fn put_partition(&self, reign: Reign, row: &PartitionRow) -> Result<(), ControlError> {
        self.put(reign, &partition_key(row.id), &row.to_attributes()).await.map(drop)
    }

    /// Writes the greatest id given so far.
    pub async fn put_sequence(&self, reign: Reign, row: SequenceRow) -> Result<(), ControlError> {
        self.put(reign, &sequence_key(), &row.to_attributes()).await.map(drop)
    }

    /// Deletes the row of a table.
    pub async fn delete_table(&self, reign: Reign, name: &str) -> Result<(), ControlError> {
        self.delete(reign, &table_key(name)).await
    }

    /// Deletes the row of a partition.
    pub async fn delete_partition(&self, reign: Reign, id: PartitionId) -> Result<(), ControlError> {
        self.delete(reign, &partition_key(id)).await
    }

    /// Whether there is a row of a partition.
    pub async fn has_partition(&self, id: PartitionId) -> Result<bool, ControlError> {
        Ok(self.partition.get(&partition_key(id)).await?.is_some())
    }

    /// The row of a node.
    pub async fn node(&self, id: NodeId) -> Result<Option<NodeRow>, ControlError> {
        self.row(&node_key(id), NodeRow::from_attributes).await
    }

    /// All nodes that have said that they are there, by id.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, ControlError> {
        self.rows(nodes_prefix(), NodeRow::from_attributes).await
    }

    /// Writes the row of a node.
    pub async fn put_node(&self, reign: Reign, row: &NodeRow) -> Result<(), ControlError> {
        self.put(reign, &node_key(row.id), &row.to_attributes()).await.map(drop)
    }

    /// The row of a user.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, ControlError> {
        self.row(&user_key(name), UserRow::from_attributes).await
    }

    /// Writes the row of a user.
    pub async fn put_user(&self, reign: Reign, row: &UserRow) -> Result<(), ControlError> {
        self.put(reign, &user_key(&row.name), &row.to_attributes()).await.map(drop)
    }

    /// Deletes the row of a user.
    pub async fn delete_user(&self, reign: Reign, name: &str) -> Result<(), ControlError> {
        self.delete(reign, &user_key(name)).await
    }

    async fn put(&self, reign: Reign, key: &[u8], attributes: &Attributes) -> Result<Vec<u8>, ControlError> {
        let stored = encode_item(attributes);
        self.write(reign, key, Change::Put(&stored)).await?;
        Ok(stored)
    }

    async fn delete(&self, reign: Reign, key: &[u8]) -> Result<(), ControlError> {
        self.write(reign, key, Change::Delete).await
    }

    async fn write(&self, reign: Reign, key: &[u8], change: Change<'_>) -> Result<(), ControlError> {
        let terms = Terms { reign: Some(reign.0), ..Terms::default() };
        self.partition.write(key, change, terms).await?;
        Ok(())
    }

    async fn row<T>(
        &self,
        key: &[u8],
        parse: impl Fn(&Attributes) -> Result<T, RowError>,
    ) -> Result<Option<T>, ControlError> {
        let stored = self.partition.get(key).await?;
        stored.map(|stored| parse_row(key, &stored, &parse)).transpose()
    }

    async fn rows<T>(
        &self,
        prefix: Vec<u8>,
        parse: impl Fn(&Attributes) -> Result<T, RowError>,
    ) -> Result<Vec<T>, ControlError> {
        let upper = key::successor(&prefix).expect("a prefix ends with the index id, which can rise");
        let mut lower = prefix;
        let mut rows = Vec::new();
        loop {
            let request = RangeRequest {
                lower: &lower,
                upper: Some(&upper),
                reverse: false,
                items_max: usize::MAX,
                bytes_max: PAGE_BYTES_MAX,
                filter: None,
            };
            let page = self.partition.range(request).await?;
            for (key, stored) in &page.items {
                rows.push(parse_row(key, stored, &parse)?);
            }
            match page.items.last() {
                Some((last, _)) if page.more => {
                    lower = last.to_vec();
                    lower.push(0);
                }
                _ => return Ok(rows),
            }
        }
    }
}

fn parse_row<T>(
    key: &[u8],
    stored: &[u8],
    parse: impl Fn(&Attributes) -> Result<T, RowError>,
) -> Result<T, ControlError> {
    let malformed = |reason: String| ControlError::Malformed { key: catalogue_name(key), reason };
    let view = ItemView::parse(stored).map_err(|error| malformed(error.to_string()))?;
    parse(&view.to_attributes()).map_err(|error| malformed(error.to_string()))
}

fn catalogue_name(key: &[u8]) -> String {
    match key::decode_key(key) {
        Some((partition, sort)) => {
            format!("{partition:?} {sort:?} of {:?}", catalogue::schema().partition.name)
        }
        None => evenkeel_model::hex::Hex(key).to_string(),
    }
}
