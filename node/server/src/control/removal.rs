//! Groups that no table has any more: dropped by a majority before the table is gone, and by the others when their
//! nodes are there.
//!
//! Without a majority nobody leads such a group, so what is left of it answers nobody. Its row stays in the
//! catalogue, without a table, until the last member is dropped: that is how those that are away are remembered.

use super::{Control, ControlError, StepError};
use crate::peers::CallError;
use crate::tables::Reign;
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{NodeId, TableId};
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

impl Control {
    /// Drops the groups of a table that is being deleted, and removes the rows of those that are dropped whole;
    /// yields whether all are. Fails as long as a majority of one of them is left.
    pub(super) async fn drop_groups(&self, reign: Reign, table: TableId) -> Result<bool, StepError> {
        let replaced = self.replaced().await?;
        let mut away = BTreeSet::new();
        let mut is_complete = true;
        // As they are now: a node may have taken another's place since the table was to be deleted.
        let partitions = self.catalogue.partitions().await?;
        for row in partitions.into_iter().filter(|row| row.table == table) {
            match self.drop_group(&row, &replaced, &mut away).await {
                (0, _) => self.catalogue.delete_partition(reign, row.id).await?,
                (left, Some(error)) if left * 2 >= row.replicas.len() => return Err(error),
                _ => is_complete = false,
            }
        }
        Ok(is_complete)
    }

    /// Drops what is left of groups without a table, until nothing is.
    pub(super) fn sweep_in_background(self: &Rc<Self>, reign: Reign) {
        let work = move |control: Rc<Control>| async move { control.sweep(reign).await };
        self.chore(reign, |control| &control.sweeping, "members of deleted tables", work);
    }

    async fn sweep(&self, reign: Reign) -> Result<(), StepError> {
        let orphans = self.orphans().await?;
        let replaced = self.replaced().await?;
        let mut away = BTreeSet::new();
        let mut last = Ok(());
        for row in orphans {
            match self.drop_group(&row, &replaced, &mut away).await {
                (0, _) => self.catalogue.delete_partition(reign, row.id).await?,
                (_, error) => last = error.map_or(last, Err),
            }
        }
        last
    }

    /// The partitions whose tables are not there any more. In the turn to change the catalogue, for a table that is
    /// being made has rows of partitions before it has its own.
    pub(super) async fn orphans(&self) -> Result<Vec<PartitionRow>, ControlError> {
        let _turn = self.turn().await?;
        let mut known: HashSet<TableId> =
            self.catalogue.tables().await?.iter().map(|table| table.id).collect();
        known.insert(TableId::CATALOGUE);
        let mut partitions = self.catalogue.partitions().await?;
        partitions.retain(|partition| !known.contains(&partition.table));
        Ok(partitions)
    }

    /// Nodes that have been replaced: what they held is gone with their disks.
    async fn replaced(&self) -> Result<HashSet<NodeId>, ControlError> {
        Ok(self.catalogue.nodes().await?.iter().filter_map(|row| row.replaces).collect())
    }

    /// Drops the members of a group; yields how many could not be, and why. Nodes that are `away` are not asked
    /// again.
    async fn drop_group(
        &self,
        row: &PartitionRow,
        replaced: &HashSet<NodeId>,
        away: &mut BTreeSet<NodeId>,
    ) -> (usize, Option<StepError>) {
        let (mut left, mut last) = (0, None);
        for replica in row.replicas.iter().filter(|replica| !replaced.contains(&replica.node)) {
            let dropped = match away.contains(&replica.node) {
                true => Err(StepError::Waiting(format!("node {} is away", replica.node))),
                false => self.drop_member(row, replica).await,
            };
            if let Err(error) = dropped {
                if matches!(error, StepError::Call(CallError::Unreachable { .. })) {
                    away.insert(replica.node);
                }
                left += 1;
                last = Some(error);
            }
        }
        (left, last)
    }
}
