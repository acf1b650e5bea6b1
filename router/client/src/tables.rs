//! Operations on tables: the control plane beside partition 0, and the catalogue read as a table.

use crate::call::{NoRoute, Request, not_ready, routes};
use crate::catalogue::View;
use crate::client::Client;
use crate::connection::LaneChoice;
use crate::encoded::{Consistency, RangeRequest};
use crate::error::Error;
use bytes::Bytes;
use evenkeel_caller::{Effect, Replicas};
use evenkeel_model::catalogue::{TableRow, Throughput, table_key, tables_prefix};
use evenkeel_model::key::{decode_key, successor};
use evenkeel_model::{Generation, ItemView, KeySchema, KeyValue, PartitionId};
use evenkeel_wire::message::{self, Billing, PartitionCounts, PartitionStatistics};
use evenkeel_wire::{DecodeError, Frame, decode, encode};

/// A table to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// What identifies its items.
    pub schema: KeySchema,
    /// Provisioned throughput, or nothing for on demand.
    pub throughput: Option<Throughput>,
    /// Whether deleting it shall be refused.
    pub deletion_protection: bool,
    /// Keys and values of its tags.
    pub tags: Vec<(String, String)>,
}

impl CreateTable {
    /// A table without tags, on demand and not protected.
    pub fn new(name: impl Into<String>, schema: KeySchema) -> CreateTable {
        let name = name.into();
        CreateTable { name, schema, throughput: None, deletion_protection: false, tags: Vec::new() }
    }
}

/// What is to change about a table; nothing of something leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableChange {
    /// Provisioned throughput, or on demand: `Some(None)`.
    pub throughput: Option<Option<Throughput>>,
    /// Whether deleting it shall be refused.
    pub deletion_protection: Option<bool>,
    /// Tags to be set, by key and value.
    pub tags_set: Vec<(String, String)>,
    /// Keys of tags to be removed; those that are not there are ignored.
    pub tags_removed: Vec<String>,
}

fn billing(throughput: Option<Throughput>) -> Billing {
    match throughput {
        None => Billing::OnDemand,
        Some(Throughput { read_units, write_units }) => Billing::Provisioned(read_units, write_units),
    }
}

impl Client {
    /// Makes a table. It is being created when this returns and active a little later; the row says which.
    ///
    /// # Errors
    /// [`Error::TableExists`], [`Error::Invalid`], and the others of writes.
    pub async fn create_table(&self, table: CreateTable) -> Result<TableRow, Error> {
        let request = message::CreateTable {
            name: table.name,
            schema: table.schema,
            billing: billing(table.throughput),
            deletion_protection: table.deletion_protection,
            tags: table.tags,
        };
        let row = self.inner().call(&request, self.inner().deadline()).await?;
        table_row(&row)
    }

    /// Changes what a table is like; yields its row.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], [`Error::TableInUse`], [`Error::Invalid`], and the others of writes.
    pub async fn update_table(&self, name: &str, change: TableChange) -> Result<TableRow, Error> {
        let request = message::UpdateTable {
            name: name.to_owned(),
            billing: change.throughput.map(billing),
            deletion_protection: change.deletion_protection,
            tags_set: change.tags_set,
            tags_removed: change.tags_removed,
        };
        self.change(name, &request).await
    }

    /// Deletes a table and what it holds. The row returned is that of a table being deleted.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], [`Error::TableInUse`], [`Error::Protected`], and the others of writes.
    pub async fn delete_table(&self, name: &str) -> Result<TableRow, Error> {
        self.change(name, &message::DeleteTable { name: name.to_owned() }).await
    }

    /// Asks the control plane to change the table of this name.
    async fn change<R>(&self, name: &str, request: &R) -> Result<TableRow, Error>
    where
        R: Request<Answer = Bytes>,
    {
        let result = self.inner().call(request, self.inner().deadline()).await;
        let row = result.map_err(|error| match error {
            Error::TableNotFound { .. } => Error::TableNotFound { table: name.to_owned() },
            other => other,
        })?;
        table_row(&row)
    }

    /// The table's row as the catalogue has it at this moment, whatever its status.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], and those of reads.
    pub async fn describe_table(&self, name: &str) -> Result<TableRow, Error> {
        match self.get_encoded(&self.inner().catalogue_table, &table_key(name), Consistency::Strong).await? {
            Some(row) => table_row(&row),
            None => Err(Error::TableNotFound { table: name.to_owned() }),
        }
    }

    /// At most `limit` names of tables in order, beginning behind `after`, and whether there are more.
    ///
    /// # Errors
    /// Those of reads.
    pub async fn list_tables(&self, after: Option<&str>, limit: usize) -> Result<(Vec<String>, bool), Error> {
        let prefix = tables_prefix();
        // One more than asked for tells whether there are more.
        let wanted = limit.saturating_add(1);
        let mut rest = RangeRequest {
            upper: successor(&prefix),
            lower: after.map_or(prefix, |name| [&table_key(name)[..], &[0]].concat()),
            consistency: Consistency::Strong,
            reverse: false,
            items_max: 0,
            bytes_max: u32::MAX,
            filter: None,
        };
        let mut names = Vec::new();
        loop {
            rest.items_max = u32::try_from(wanted - names.len()).unwrap_or(u32::MAX);
            let page = self.range_encoded(&self.inner().catalogue_table, &rest).await?;
            for (key, _) in page.rows() {
                names.push(table_name(key)?);
            }
            if let Some(last) = page.last_key().filter(|_| page.more && names.len() < wanted) {
                rest.lower = [last, &[0]].concat();
                continue;
            }
            let more = names.len() > limit;
            names.truncate(limit);
            return Ok((names, more));
        }
    }

    /// How many items a table holds, and how many bytes by DynamoDB's size rules. Each partition is asked
    /// at a moment of its own.
    ///
    /// # Errors
    /// Those of reads.
    pub async fn table_counts(&self, table: &TableRow) -> Result<(u64, u64), Error> {
        let deadline = self.inner().deadline();
        let (mut items, mut bytes) = (0u64, 0u64);
        let mut next = Some(Vec::new());
        while let Some(key) = next {
            let counts = self.inner().call(&CountPartition { table, key: &key }, deadline).await?;
            items = items.saturating_add(counts.items);
            bytes = bytes.saturating_add(counts.bytes);
            next = counts.upper;
        }
        Ok((items, bytes))
    }
}

fn table_row(item: &[u8]) -> Result<TableRow, Error> {
    let view = ItemView::parse(item).map_err(Error::internal)?;
    TableRow::from_attributes(&view.to_attributes()).map_err(Error::internal)
}

fn table_name(key: &[u8]) -> Result<String, Error> {
    match decode_key(key) {
        Some((_, Some(KeyValue::S(name)))) => Ok(name),
        _ => Err(Error::internal("a key of the catalogue is not that of a table")),
    }
}

pub(crate) fn control_plane(view: &View) -> Result<(&Replicas, ()), NoRoute> {
    Ok((view.catalogue().ok_or(NoRoute::NoCatalogue)?, ()))
}

fn answered_row(frame: &Frame) -> Result<Bytes, DecodeError> {
    Ok(frame.body.slice_ref(&decode::<message::Table>(frame)?.row))
}

/// Makes messages requests to the control plane: what is read of their answers, and how.
macro_rules! control_requests {
    ($($message:ty => $answer:ty, $read:expr);* $(;)?) => {
        $(impl $crate::call::Request for $message {
            type Route = ();
            type Answer = $answer;
            const EFFECT: evenkeel_caller::Effect = evenkeel_caller::Effect::Write;
            const LANE: $crate::connection::LaneChoice = $crate::connection::LaneChoice::BySize;

            fn route<'a>(
                &self,
                view: &'a $crate::catalogue::View,
            ) -> Result<(&'a evenkeel_caller::Replicas, ()), $crate::call::NoRoute> {
                $crate::tables::control_plane(view)
            }

            fn encode(&self, (): &(), request_id: u64, timeout_us: u64) -> bytes::Bytes {
                evenkeel_wire::encode(self, request_id, timeout_us)
            }

            fn read(
                &self,
                (): &(),
                frame: &evenkeel_wire::Frame,
            ) -> Result<$answer, evenkeel_wire::DecodeError> {
                $read(frame)
            }
        })*
    };
}
pub(crate) use control_requests;

control_requests!(
    message::CreateTable => Bytes, answered_row;
    message::UpdateTable => Bytes, answered_row;
    message::DeleteTable => Bytes, answered_row;
);

/// Asks the partition that owns a key for its counts.
struct CountPartition<'a> {
    table: &'a TableRow,
    key: &'a [u8],
}

struct CountRoute {
    partition: PartitionId,
    generation: Generation,
    upper: Option<Vec<u8>>,
}

struct Counts {
    items: u64,
    bytes: u64,
    upper: Option<Vec<u8>>,
}

impl Request for CountPartition<'_> {
    type Route = CountRoute;
    type Answer = Counts;
    const EFFECT: Effect = Effect::Read;
    const LANE: LaneChoice = LaneChoice::BySize;

    fn route<'a>(&self, view: &'a View) -> Result<(&'a Replicas, CountRoute), NoRoute> {
        let route =
            routes(view, self.table)?.floor(self.key).map_err(|fault| not_ready(self.table, fault))?;
        let (partition, generation) = (route.partition, route.generation);
        Ok((&route.replicas, CountRoute { partition, generation, upper: route.upper.clone() }))
    }

    fn encode(&self, route: &CountRoute, request_id: u64, timeout_us: u64) -> Bytes {
        let CountRoute { partition, generation, .. } = *route;
        encode(&PartitionStatistics { partition, generation }, request_id, timeout_us)
    }

    fn read(&self, route: &CountRoute, frame: &Frame) -> Result<Counts, DecodeError> {
        let counts = decode::<PartitionCounts>(frame)?;
        Ok(Counts { items: counts.items.into(), bytes: counts.bytes.into(), upper: route.upper.clone() })
    }
}
