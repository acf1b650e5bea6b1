//! Members of groups: made, completed and dropped as the catalogue says.

use super::{Control, StepError};
use crate::peers::CallError;
use crate::service::CoreShard;
use crate::tables::Reign;
use evenkeel_model::catalogue::{PartitionRow, Replica};
use evenkeel_model::{NodeId, encode_item};
use evenkeel_partition::{Place, Seat};
use evenkeel_paxos::{Member, MemberId, MemberKind, Refused};
use evenkeel_wire::Kind;
use evenkeel_wire::message::{CreatePartition, DropPartition};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

impl Control {
    /// Makes the members of a partition, the one that should lead last; yields those that could not be made, of
    /// which there is no majority. Nodes that are `away` are not asked again.
    pub(super) async fn make_members(
        &self,
        row: &PartitionRow,
        away: &RefCell<BTreeSet<NodeId>>,
    ) -> Result<Vec<u32>, StepError> {
        let mut unmade = Vec::new();
        let mut last = None;
        for replica in row.replicas.iter().rev() {
            let made = match away.borrow().contains(&replica.node) {
                true => Err(StepError::Waiting(format!("node {} is away", replica.node))),
                false => Ok(()),
            };
            let made = match made {
                Ok(()) => self.make_member(row, replica).await,
                away => away,
            };
            if let Err(error) = made {
                if matches!(error, StepError::Call(CallError::Unreachable { .. })) {
                    away.borrow_mut().insert(replica.node);
                }
                unmade.push(replica.member);
                last = Some(error);
            }
        }
        match last {
            Some(error) if unmade.len() * 2 >= row.replicas.len() => Err(error),
            _ => Ok(unmade),
        }
    }

    /// Makes the members that could not be made when their tables were created.
    pub(super) fn complete_in_background(self: &Rc<Self>, reign: Reign) {
        let work = move |control: Rc<Control>| async move { control.complete(reign).await };
        self.chore(reign, |control| &control.completing, "members that are not made yet", work);
    }

    async fn complete(&self, reign: Reign) -> Result<(), StepError> {
        let partitions = self.catalogue.partitions().await?;
        for mut row in partitions.into_iter().filter(|row| !row.unmade.is_empty()) {
            for replica in row.replicas.iter().filter(|replica| row.unmade.contains(&replica.member)) {
                self.make_member(&row, replica).await?;
            }
            row.unmade.clear();
            let turn = self.turn().await?;
            // A table that is being deleted meanwhile has its rows removed by whoever deletes it.
            if self.catalogue.has_partition(row.id).await? && turn.reign == reign {
                self.catalogue.put_partition(reign, &row).await?;
            }
        }
        Ok(())
    }

    /// Makes one member of a partition's group.
    pub(super) async fn make_member(&self, row: &PartitionRow, replica: &Replica) -> Result<(), StepError> {
        let row_now = PartitionRow { unmade: Vec::new(), ..row.clone() };
        let stored = encode_item(&row_now.to_attributes());
        if place(replica) == self.parts.own {
            let founders = seats(&row.founders);
            let member = member(replica.member);
            self.parts.shard.create_member(row.id, &stored, &founders, member).await?;
            stand_if_first(&self.parts.shard, row, replica.member);
            return Ok(());
        }
        let known = self.catalogue.node(replica.node).await?;
        let store = known.ok_or(StepError::Unregistered(replica.node))?.store;
        let message = CreatePartition {
            partition: row.id,
            generation: row.generation,
            member: replica.member,
            store,
            row: &stored,
        };
        self.parts.peers.call(place(replica), &message, Kind::Done).await?;
        Ok(())
    }

    pub(super) async fn drop_member(&self, row: &PartitionRow, replica: &Replica) -> Result<(), StepError> {
        if place(replica) == self.parts.own {
            return Ok(self.parts.shard.drop_partition(row.id, row.generation).await?);
        }
        let message = DropPartition { partition: row.id, generation: row.generation };
        self.parts.peers.call(place(replica), &message, Kind::Done).await?;
        Ok(())
    }
}

/// Where a member lives.
pub(crate) fn place(replica: &Replica) -> Place {
    Place { node: replica.node, shard: replica.shard }
}

/// A member that keeps log and tree.
pub(crate) fn member(number: u32) -> Member {
    Member { id: MemberId(number), kind: MemberKind::Storage }
}

/// Members as the partition knows them.
pub(crate) fn seats(replicas: &[Replica]) -> Vec<Seat> {
    let seat = |replica: &Replica| Seat { member: member(replica.member), place: place(replica) };
    replicas.iter().map(seat).collect()
}

/// Has the member that should lead first stand for election: the others have been made before it.
pub(crate) fn stand_if_first(shard: &CoreShard, row: &PartitionRow, member: u32) {
    let is_first = row.founders.first().is_some_and(|first| first.member == member) && row.founders.len() > 1;
    let partition = shard.serving(row.id, row.generation).filter(|_| is_first);
    if let Some(partition) = partition.filter(|partition| partition.redirect().leader.is_none()) {
        partition.campaign();
    }
}

/// Why a swap does not begin.
pub(crate) fn swap_fault(refused: &Refused) -> &'static str {
    match refused {
        Refused::NotLeader(_) => "this member does not lead",
        Refused::SwapPending => "a swap is under way",
        Refused::Full => "too much is under way",
        Refused::BadSwap => {
            "the member to be removed leads or is none, or the number of the new one was used"
        }
    }
}
