//! The control plane: creates, changes and deletes tables, beside the member that leads partition 0.
//!
//! The catalogue is the plan, and the shards follow it. Creating a table writes its partitions' rows,
//! then its own row as CREATING; that row is the point of no return. A task then tells the shards and
//! turns the row ACTIVE, once a majority of each partition's members is made; the others are noted in the
//! partition's row, and made when their nodes are there. Deleting turns the row DELETING, tells the shards, and
//! removes the rows once a majority of each partition's members is dropped. Every step may be repeated, and whoever
//! comes to lead finishes what was left half done; partition rows without a table, of members that were away or from
//! a crash before the point of no return, are swept.
//!
//! Changes of tables, users and nodes are made one at a time, each within one reign. If the control plane is
//! down, reads and writes go on.

mod background;
mod checks;
mod members;
mod registry;
mod removal;

pub(crate) use members::{member, seats, stand_if_first, swap_fault};

use crate::drop_guard::DropGuard;
use crate::limits::{CONTROL_RETRY_PAUSE, PARTITIONS_AT_CREATION_MAX};
use crate::nodes::Nodes;
use crate::peers::{CallError, Peers};
use crate::placement;
use crate::service::{CorePartition, CoreShard};
use crate::tables::{Catalogue, Reign};
use background::Chore;
use checks::{check_tags, read_schema, table_name, throughput};
use evenkeel_driver::{Core, GlommioRuntime};
use evenkeel_model::catalogue::{PartitionRow, SequenceRow, TableRow, TableStatus};
use evenkeel_model::{NodeId, TableId};
use evenkeel_partition::{CreateError, Place, ReadError, WriteError};
use evenkeel_storage::Runtime;
use evenkeel_wire::message::{ArchivedCreateTable, ArchivedUpdateTable};
use registry::address_of;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
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
    /// A node comes with another disk than it is known by.
    #[error(
        "node {0} is known by another disk; what was promised from there is forgotten. \
         Give the node a fresh id, an empty directory and `replaces = {0}`"
    )]
    OtherDisk(NodeId),
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
pub(crate) enum StepError {
    /// Another shard could not be told.
    #[error(transparent)]
    Call(#[from] CallError),
    /// This shard could not do it.
    #[error(transparent)]
    Local(#[from] CreateError),
    /// The catalogue could not be read or written.
    #[error(transparent)]
    Catalogue(#[from] ControlError),
    /// A node has not yet said that it is there, so nobody knows its disk.
    #[error("node {0} has not registered yet")]
    Unregistered(NodeId),
    /// A group does not follow yet.
    #[error("{0}")]
    Waiting(String),
}

/// What the control plane works with.
pub struct ControlParts {
    /// The core it runs on.
    pub core: Core,
    /// The shard of this core.
    pub shard: Rc<CoreShard>,
    /// The way to others.
    pub peers: Rc<Peers>,
    /// Where nodes are.
    pub nodes: Rc<Nodes>,
    /// This shard.
    pub own: Place,
}

/// The control plane of the cluster, beside one member of partition 0. It does something only while that
/// leads.
pub struct Control {
    pub(crate) parts: ControlParts,
    runtime: GlommioRuntime,
    catalogue: Catalogue,
    /// Held by whoever changes the catalogue.
    turn: tokio::sync::Mutex<()>,
    closing: Cell<bool>,
    /// Pieces of work in the background.
    working: Cell<usize>,
    /// Members that are not made yet are made.
    completing: Chore,
    /// Members of deleted tables are dropped.
    sweeping: Chore,
}

/// The turn to change the catalogue.
pub(crate) struct Turn<'a> {
    /// The reign in which everything of this turn happens.
    pub reign: Reign,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl Control {
    /// The control plane beside this member of partition 0; [`Control::run`] sets it to work.
    pub fn new(parts: ControlParts, partition: Rc<CorePartition>) -> Control {
        Control {
            runtime: parts.core.runtime(),
            parts,
            catalogue: Catalogue::new(partition),
            turn: tokio::sync::Mutex::new(()),
            closing: Cell::new(false),
            working: Cell::new(0),
            completing: Chore::default(),
            sweeping: Chore::default(),
        }
    }

    /// Begins nothing any more; what is left half done is finished by whoever leads next.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Whether nothing is being done in the background.
    pub fn is_idle(&self) -> bool {
        self.working.get() == 0
    }

    /// Work in the background, until what is returned is dropped.
    fn begin_work(&self) -> DropGuard<impl FnMut()> {
        self.working.set(self.working.get() + 1);
        DropGuard(|| self.working.set(self.working.get() - 1))
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.runtime.wall_ns() / 1_000_000
    }

    /// Waits for the turn to change the catalogue.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, ControlError> {
        let guard = self.turn.lock().await;
        Ok(Turn { reign: self.catalogue.reign()?, _guard: guard })
    }

    /// Finishes what was left half done whenever this member comes to lead, until the shard stops.
    pub async fn run(self: Rc<Self>) {
        let _end = self.begin_work();
        while self.catalogue.partition().until_leading(true).await {
            if let Err(error) = self.resume().await {
                tracing::debug!(%error, "the control plane cannot begin yet");
                self.parts.core.sleep(CONTROL_RETRY_PAUSE).await;
                if self.catalogue.reign().is_ok() {
                    continue;
                }
            }
            if !self.catalogue.partition().until_leading(false).await {
                return;
            }
        }
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
        let turn = self.turn().await?;
        let reign = turn.reign;
        match self.catalogue.table(&name).await? {
            None => {}
            Some(TableRow { status: TableStatus::Active, .. }) => return Err(ControlError::Exists(name)),
            Some(row) => return Err(ControlError::InUse { name, status: row.status }),
        }
        let nodes = self.nodes_to_place_on().await?;
        let count = placement::shard_count(&nodes).min(PARTITIONS_AT_CREATION_MAX);
        let first = self.take_ids(reign, count + 1).await?;
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
        let partitions = placement::place(&nodes, table.id, first + 1, count);
        for partition in &partitions {
            self.catalogue.put_partition(reign, partition).await?;
        }
        let stored = self.catalogue.put_table(reign, &table).await?;
        self.finish_in_background(reign, table, partitions);
        Ok(stored)
    }

    /// Changes what a table is like; yields its row as a stored item.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn update_table(&self, asked: &ArchivedUpdateTable) -> Result<Vec<u8>, ControlError> {
        let name = table_name(&asked.name)?;
        let turn = self.turn().await?;
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
        self.catalogue.put_table(turn.reign, &table).await
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
        let turn = self.turn().await?;
        let mut table = self.active_table(name).await?;
        if table.deletion_protection {
            return Err(ControlError::Protected(table.name));
        }
        table.status = TableStatus::Deleting;
        let mut partitions = self.catalogue.partitions().await?;
        partitions.retain(|partition| partition.table == table.id);
        let stored = self.catalogue.put_table(turn.reign, &table).await?;
        self.finish_in_background(turn.reign, table, partitions);
        Ok(stored)
    }

    /// Finishes what others, or earlier runs, have left half done.
    async fn resume(self: &Rc<Self>) -> Result<(), ControlError> {
        let turn = self.turn().await?;
        let reign = turn.reign;
        let tables = self.catalogue.tables().await?;
        let partitions = self.catalogue.partitions().await?;
        let own = self.catalogue.partition().row();
        if !partitions.iter().any(|partition| partition.id == own.id) {
            self.catalogue.put_partition(reign, own).await?;
        }
        for table in tables.into_iter().filter(|table| table.status != TableStatus::Active) {
            let own = partitions.iter().filter(|partition| partition.table == table.id).cloned().collect();
            self.finish_in_background(reign, table, own);
        }
        let nodes = self.catalogue.nodes().await?;
        for node in nodes {
            self.parts.nodes.hear_of(address_of(&node));
            if node.replaces.is_some() {
                self.take_over_in_background(reign, node);
            }
        }
        self.complete_in_background(reign);
        self.sweep_in_background(reign);
        Ok(())
    }

    /// The first of `count` ids that were never given before.
    async fn take_ids(&self, reign: Reign, count: usize) -> Result<u64, ControlError> {
        let last = self.catalogue.sequence().await?.last;
        self.catalogue.put_sequence(reign, SequenceRow { last: last + count as u64 }).await?;
        Ok(last + 1)
    }

    fn finish_in_background(self: &Rc<Self>, reign: Reign, table: TableRow, partitions: Vec<PartitionRow>) {
        let what = format!("table {}, {}", table.name, table.status.name());
        let work = Rc::new((table, partitions));
        self.in_background(reign, what, move |control| {
            let work = Rc::clone(&work);
            async move { control.finish(reign, &work.0, &work.1).await }
        });
    }

    async fn finish(
        self: &Rc<Self>,
        reign: Reign,
        table: &TableRow,
        partitions: &[PartitionRow],
    ) -> Result<(), StepError> {
        match table.status {
            TableStatus::Active => {}
            TableStatus::Creating => {
                let mut complete = true;
                let away = RefCell::default();
                for partition in partitions {
                    let unmade = self.make_members(partition, &away).await?;
                    if !unmade.is_empty() {
                        complete = false;
                        let row = PartitionRow { unmade, ..partition.clone() };
                        self.catalogue.put_partition(reign, &row).await?;
                    }
                }
                let active = TableRow { status: TableStatus::Active, ..table.clone() };
                self.catalogue.put_table(reign, &active).await?;
                if !complete {
                    self.complete_in_background(reign);
                }
            }
            TableStatus::Deleting => {
                let is_complete = self.drop_groups(reign, table.id).await?;
                self.catalogue.delete_table(reign, &table.name).await?;
                if !is_complete {
                    self.sweep_in_background(reign);
                }
            }
        }
        Ok(())
    }
}
