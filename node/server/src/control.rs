//! The control plane: creates, changes and deletes tables, beside the shard that holds partition 0.
//!
//! The catalogue is the plan, and the shards follow it. Creating a table writes its partitions' rows,
//! then its own row as CREATING; that row is the point of no return. A task then tells the shards and
//! turns the row ACTIVE. Deleting turns the row DELETING, tells the shards, and removes the rows, the
//! table's own last. Every step may be repeated, and at start whatever was left half done is finished;
//! partition rows without a table, from a crash before the point of no return, are swept.
//!
//! Changes of tables and users are made one at a time. If the control plane is down, reads and writes go on.

use crate::config::NodeConfig;
use crate::drop_guard::DropGuard;
use crate::limits::{CONTROL_RETRY_PAUSE, PARTITIONS_AT_CREATION_MAX};
use crate::peers::{CallError, Peers};
use crate::service::CoreShard;
use crate::tables::Catalogue;
use evenkeel_driver::{Core, GlommioRuntime};
use evenkeel_model::catalogue::{PartitionRow, SequenceRow, TableRow, TableStatus, Throughput};
use evenkeel_model::limits::{
    KEY_ATTRIBUTE_NAME_BYTES_MAX, TABLE_NAME_BYTES_MAX, TABLE_NAME_BYTES_MIN, TAG_KEY_CHARACTERS_MAX,
    TAG_VALUE_CHARACTERS_MAX, TAGS_MAX,
};
use evenkeel_model::{
    Generation, KeyAttribute, KeySchema, KeyType, NodeId, PartitionId, ShardId, TableId, encode_item, key,
};
use evenkeel_partition::{CreateError, Place, ReadError, WriteError};
use evenkeel_storage::Runtime;
use evenkeel_wire::Kind;
use evenkeel_wire::message::{
    ArchivedBilling, ArchivedCreateTable, ArchivedUpdateTable, CreatePartition, DropPartition,
};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

/// Why a table was not created, changed or deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ControlError {
    /// The request is malformed.
    #[error("{0}")]
    Invalid(String),
    /// There is a table of this name.
    #[error("table {0} exists already")]
    Exists(String),
    /// There is no table of this name.
    #[error("table {0} does not exist")]
    NotFound(String),
    /// The table is being created or deleted.
    #[error("table {name} is {}", status.name())]
    InUse {
        /// The table.
        name: String,
        /// What it is in the middle of.
        status: TableStatus,
    },
    /// There is a user of this name.
    #[error("user {0} exists already")]
    UserExists(String),
    /// There is no user of this name.
    #[error("user {0} does not exist")]
    UserNotFound(String),
    /// Deletion protection is on.
    #[error("table {0} is protected against deletion")]
    Protected(String),
    /// A row of the catalogue cannot be understood.
    #[error("the catalogue's row {key} cannot be read: {reason}")]
    Malformed {
        /// Which row.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The catalogue could not be written.
    #[error("the catalogue could not be written: {0}")]
    Write(#[from] WriteError),
    /// The catalogue could not be read.
    #[error("the catalogue could not be read: {0}")]
    Read(#[from] ReadError),
}

/// Why a shard did not do what the catalogue says.
#[derive(Clone, Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Local(#[from] CreateError),
    #[error(transparent)]
    Catalogue(#[from] ControlError),
}

/// The control plane of the cluster.
pub struct Control {
    core: Core,
    runtime: GlommioRuntime,
    shard: Rc<CoreShard>,
    catalogue: Catalogue,
    peers: Rc<Peers>,
    own: (NodeId, ShardId),
    shards: Vec<(NodeId, ShardId)>,
    /// Held by whoever changes the catalogue.
    turn: tokio::sync::Mutex<()>,
    closing: Cell<bool>,
    /// Tables that are being finished.
    finishing: Cell<usize>,
}

impl Control {
    /// The control plane over this shard's catalogue.
    pub fn new(
        core: Core,
        config: &NodeConfig,
        own: (NodeId, ShardId),
        shard: Rc<CoreShard>,
        catalogue: Catalogue,
        peers: Rc<Peers>,
    ) -> Control {
        let runtime = core.runtime();
        let shards = placement_order(config);
        Control {
            core,
            runtime,
            shard,
            catalogue,
            peers,
            own,
            shards,
            turn: tokio::sync::Mutex::new(()),
            closing: Cell::new(false),
            finishing: Cell::new(0),
        }
    }

    /// Begins nothing any more; what is left half done is finished at the next start.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Whether nothing is being done in the background.
    pub fn is_idle(&self) -> bool {
        self.finishing.get() == 0
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.runtime.wall_ns() / 1_000_000
    }

    /// Waits for the turn to change the catalogue.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Creates a table; yields its row, CREATING, as a stored item.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn create_table(self: &Rc<Self>, asked: &ArchivedCreateTable) -> Result<Vec<u8>, ControlError> {
        let schema = read_schema(asked)?;
        let name = table_name(&asked.name)?;
        let throughput = throughput(&asked.billing);
        let tags: BTreeMap<String, String> = asked.tags().collect();
        check_tags(&tags)?;
        let now_ms = self.now_ms();
        let _turn = self.turn().await;
        match self.catalogue.table(&name).await? {
            None => {}
            Some(TableRow { status: TableStatus::Active, .. }) => return Err(ControlError::Exists(name)),
            Some(row) => return Err(ControlError::InUse { name, status: row.status }),
        }
        let count = self.shards.len().min(PARTITIONS_AT_CREATION_MAX);
        let first = self.take_ids(count + 1).await?;
        let table = TableRow {
            id: TableId(first),
            name,
            schema,
            status: TableStatus::Creating,
            created_ms: now_ms,
            throughput,
            on_demand_since_ms: throughput.is_none().then_some(now_ms),
            deletion_protection: asked.deletion_protection,
            tags,
        };
        let partitions = self.place(table.id, first + 1, count);
        for partition in &partitions {
            self.catalogue.put_partition(partition).await?;
        }
        let stored = self.catalogue.put_table(&table).await?;
        self.finish_in_background(table, partitions);
        Ok(stored)
    }

    /// Changes what a table is like; yields its row as a stored item.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn update_table(&self, asked: &ArchivedUpdateTable) -> Result<Vec<u8>, ControlError> {
        let name = table_name(&asked.name)?;
        let _turn = self.turn().await;
        let mut table = self.active_table(name).await?;
        if let Some(billing) = asked.billing.as_ref() {
            let before = std::mem::replace(&mut table.throughput, throughput(billing));
            if before.is_some() && table.throughput.is_none() {
                table.on_demand_since_ms = Some(self.now_ms());
            }
        }
        if let Some(protection) = asked.deletion_protection.as_ref() {
            table.deletion_protection = *protection;
        }
        for key in asked.tags_removed.iter() {
            table.tags.remove(key.as_str());
        }
        table.tags.extend(asked.tags_set());
        check_tags(&table.tags)?;
        self.catalogue.put_table(&table).await
    }

    /// The row of a table that is open to requests and changes.
    async fn active_table(&self, name: String) -> Result<TableRow, ControlError> {
        match self.catalogue.table(&name).await? {
            None => Err(ControlError::NotFound(name)),
            Some(table) if table.status == TableStatus::Active => Ok(table),
            Some(table) => Err(ControlError::InUse { name, status: table.status }),
        }
    }

    /// Begins to delete a table; yields its row, DELETING, as a stored item.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn delete_table(self: &Rc<Self>, name: &str) -> Result<Vec<u8>, ControlError> {
        let name = table_name(name)?;
        let _turn = self.turn().await;
        let mut table = self.active_table(name).await?;
        if table.deletion_protection {
            return Err(ControlError::Protected(table.name));
        }
        table.status = TableStatus::Deleting;
        let mut partitions = self.catalogue.partitions().await?;
        partitions.retain(|partition| partition.table == table.id);
        let stored = self.catalogue.put_table(&table).await?;
        self.finish_in_background(table, partitions);
        Ok(stored)
    }

    /// Finishes what an earlier run left half done.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub async fn resume(self: &Rc<Self>) -> Result<(), ControlError> {
        let _turn = self.turn().await;
        let tables = self.catalogue.tables().await?;
        let partitions = self.catalogue.partitions().await?;
        let known: HashSet<TableId> = tables.iter().map(|table| table.id).collect();
        for orphan in partitions.iter().filter(|partition| !known.contains(&partition.table)) {
            self.catalogue.delete_partition(orphan.id).await?;
        }
        for table in tables.into_iter().filter(|table| table.status != TableStatus::Active) {
            let own = partitions.iter().filter(|partition| partition.table == table.id).cloned().collect();
            self.finish_in_background(table, own);
        }
        Ok(())
    }

    /// The first of `count` ids that were never given before.
    async fn take_ids(&self, count: usize) -> Result<u64, ControlError> {
        let last = self.catalogue.sequence().await?.last;
        self.catalogue.put_sequence(SequenceRow { last: last + count as u64 }).await?;
        Ok(last + 1)
    }

    /// Lays a table's partitions over the shards; which shard comes first depends on the table, so that
    /// small tables do not all begin on the same one.
    fn place(&self, table: TableId, first_id: u64, count: usize) -> Vec<PartitionRow> {
        let lowers = key::even_bounds(count);
        let row = |index: usize| {
            let (node, shard) = self.shards[(table.0 as usize + index) % self.shards.len()];
            PartitionRow {
                table,
                lower: lowers[index].clone(),
                upper: lowers.get(index + 1).cloned(),
                id: PartitionId(first_id + index as u64),
                generation: Generation(1),
                node,
                shard,
            }
        };
        (0..count).map(row).collect()
    }

    fn finish_in_background(self: &Rc<Self>, table: TableRow, partitions: Vec<PartitionRow>) {
        let control = Rc::clone(self);
        control.finishing.set(control.finishing.get() + 1);
        self.runtime.spawn(async move {
            let _end = DropGuard(|| control.finishing.set(control.finishing.get() - 1));
            let mut reported = String::new();
            while let Err(error) = control.finish(&table, &partitions).await {
                if control.closing.get() {
                    return;
                }
                let text = error.to_string();
                if text != reported {
                    tracing::warn!(table = table.name, status = table.status.name(), "waiting: {text}");
                    reported = text;
                }
                control.core.sleep(CONTROL_RETRY_PAUSE).await;
            }
        });
    }

    async fn finish(&self, table: &TableRow, partitions: &[PartitionRow]) -> Result<(), StepError> {
        match table.status {
            TableStatus::Active => {}
            TableStatus::Creating => {
                for partition in partitions {
                    self.create_partition(partition).await?;
                }
                let active = TableRow { status: TableStatus::Active, ..table.clone() };
                self.catalogue.put_table(&active).await?;
            }
            TableStatus::Deleting => {
                for partition in partitions {
                    self.drop_partition(partition).await?;
                    self.catalogue.delete_partition(partition.id).await?;
                }
                self.catalogue.delete_table(&table.name).await?;
            }
        }
        Ok(())
    }

    async fn create_partition(&self, row: &PartitionRow) -> Result<(), StepError> {
        let stored = encode_item(&row.to_attributes());
        if (row.node, row.shard) == self.own {
            return Ok(self.shard.create(row.id, &stored).await?);
        }
        let message = CreatePartition { partition: row.id, generation: row.generation, row: &stored };
        self.peers.call(place(row), &message, Kind::Done).await?;
        Ok(())
    }

    async fn drop_partition(&self, row: &PartitionRow) -> Result<(), StepError> {
        if (row.node, row.shard) == self.own {
            return Ok(self.shard.drop_partition(row.id, row.generation).await?);
        }
        let message = DropPartition { partition: row.id, generation: row.generation };
        self.peers.call(place(row), &message, Kind::Done).await?;
        Ok(())
    }
}

fn place(row: &PartitionRow) -> Place {
    Place { node: row.node, shard: row.shard }
}

/// All shards, shard by shard and node by node, so that consecutive partitions are on different nodes.
fn placement_order(config: &NodeConfig) -> Vec<(NodeId, ShardId)> {
    let most = config.cluster.nodes.iter().map(|node| node.shards).max().unwrap_or(0);
    let of_rank = |rank: u16| {
        let has = move |node: &&crate::config::NodeEntry| rank < node.shards;
        config.cluster.nodes.iter().filter(has).map(move |node| (NodeId(node.id), ShardId(rank)))
    };
    (0..most).flat_map(of_rank).collect()
}

fn throughput(billing: &ArchivedBilling) -> Option<Throughput> {
    match billing {
        ArchivedBilling::OnDemand => None,
        ArchivedBilling::Provisioned(read_units, write_units) => {
            Some(Throughput { read_units: (*read_units).into(), write_units: (*write_units).into() })
        }
    }
}

fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ControlError> {
    if tags.len() > TAGS_MAX {
        return Err(ControlError::Invalid(format!("a table has at most {TAGS_MAX} tags")));
    }
    let allowed = |(key, value): (&String, &String)| {
        (1..=TAG_KEY_CHARACTERS_MAX).contains(&key.chars().count())
            && value.chars().count() <= TAG_VALUE_CHARACTERS_MAX
    };
    if tags.iter().all(allowed) {
        return Ok(());
    }
    Err(ControlError::Invalid(format!(
        "the key of a tag has 1 to {TAG_KEY_CHARACTERS_MAX} characters, its value at most {TAG_VALUE_CHARACTERS_MAX}"
    )))
}

fn table_name(name: &str) -> Result<String, ControlError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let length = (TABLE_NAME_BYTES_MIN..=TABLE_NAME_BYTES_MAX).contains(&name.len());
    if length && name.bytes().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(ControlError::Invalid(format!(
        "a table's name has {TABLE_NAME_BYTES_MIN} to {TABLE_NAME_BYTES_MAX} of a-z, A-Z, 0-9, _, . and -"
    )))
}

fn read_schema(asked: &ArchivedCreateTable) -> Result<KeySchema, ControlError> {
    let attribute = |archived: &key::ArchivedKeyAttribute| {
        let name = archived.name.to_string();
        if name.is_empty() || name.len() > KEY_ATTRIBUTE_NAME_BYTES_MAX {
            let text = format!("the name of a key attribute has 1 to {KEY_ATTRIBUTE_NAME_BYTES_MAX} bytes");
            return Err(ControlError::Invalid(text));
        }
        Ok(KeyAttribute { name, key_type: KeyType::from(&archived.key_type) })
    };
    let partition = attribute(&asked.schema.partition)?;
    let sort = asked.schema.sort.as_ref().map(attribute).transpose()?;
    if sort.as_ref().is_some_and(|sort| sort.name == partition.name) {
        return Err(ControlError::Invalid("partition key and sort key have the same name".to_owned()));
    }
    Ok(KeySchema { partition, sort })
}
