//! The catalogue as typed rows: reads and writes partition 0 through the same path as every item.

use crate::control::ControlError;
use crate::service::CoreShard;
use evenkeel_driver::{GlommioRuntime, UringDisk};
use evenkeel_model::catalogue::{
    self, PartitionRow, RowError, SequenceRow, TableRow, UserRow, partition_key, partitions_prefix,
    sequence_key, table_key, tables_prefix, user_key,
};
use evenkeel_model::limits::PAGE_BYTES_MAX;
use evenkeel_model::{Attributes, ItemView, PartitionId, encode_item, key};
use evenkeel_partition::{Partition, RangeRequest};
use std::rc::Rc;

/// Partition 0, as rows.
pub struct Catalogue {
    partition: Rc<Partition<UringDisk, GlommioRuntime>>,
}

impl Catalogue {
    /// The catalogue on this shard, which is created if this is the cluster's first start.
    ///
    /// # Errors
    /// As creating a partition.
    pub async fn open(
        shard: &CoreShard,
        row: &PartitionRow,
    ) -> Result<Catalogue, evenkeel_partition::CreateError> {
        shard.create(row.id, &encode_item(&row.to_attributes())).await?;
        let partition = shard.serving(row.id, row.generation);
        Ok(Catalogue { partition: partition.expect("created on the line above, and never dropped") })
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

    /// All partitions of user tables, by id.
    pub async fn partitions(&self) -> Result<Vec<PartitionRow>, ControlError> {
        self.rows(partitions_prefix(), PartitionRow::from_attributes).await
    }

    /// Writes the row of a table; yields it as a stored item.
    pub async fn put_table(&self, row: &TableRow) -> Result<Vec<u8>, ControlError> {
        self.put(&table_key(&row.name), &row.to_attributes()).await
    }

    /// Writes the row of a partition.
    pub async fn put_partition(&self, row: &PartitionRow) -> Result<(), ControlError> {
        self.put(&partition_key(row.id), &row.to_attributes()).await.map(drop)
    }

    /// Writes the greatest id given so far.
    pub async fn put_sequence(&self, row: SequenceRow) -> Result<(), ControlError> {
        self.put(&sequence_key(), &row.to_attributes()).await.map(drop)
    }

    /// Deletes the row of a table.
    pub async fn delete_table(&self, name: &str) -> Result<(), ControlError> {
        self.partition.delete(&table_key(name)).await?;
        Ok(())
    }

    /// Deletes the row of a partition.
    pub async fn delete_partition(&self, id: PartitionId) -> Result<(), ControlError> {
        self.partition.delete(&partition_key(id)).await?;
        Ok(())
    }

    /// The row of a user.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, ControlError> {
        self.row(&user_key(name), UserRow::from_attributes).await
    }

    /// Writes the row of a user.
    pub async fn put_user(&self, row: &UserRow) -> Result<(), ControlError> {
        self.put(&user_key(&row.name), &row.to_attributes()).await.map(drop)
    }

    /// Deletes the row of a user.
    pub async fn delete_user(&self, name: &str) -> Result<(), ControlError> {
        self.partition.delete(&user_key(name)).await?;
        Ok(())
    }

    async fn put(&self, key: &[u8], attributes: &Attributes) -> Result<Vec<u8>, ControlError> {
        let stored = encode_item(attributes);
        self.partition.put(key, &stored).await?;
        Ok(stored)
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
