//! Requests for tables, users, nodes and members of groups.

use super::answers::{Unanswered, malformed, reply};
use super::{Caller, Service};
use crate::control::{Control, member, seats, stand_if_first, swap_fault};
use bytes::Bytes;
use evenkeel_model::catalogue::{PartitionRow, Replica};
use evenkeel_model::{ItemView, PartitionId};
use evenkeel_partition::CreateError;
use evenkeel_paxos::{MemberId, Refused};
use evenkeel_quic::Role;
use evenkeel_wire::message::{
    ChangeUser, CreatePartition, CreateTable, DeleteTable, Done, DropPartition, RegisterNode, SwapMember,
    Table, UpdateTable,
};
use evenkeel_wire::{Frame, RefusalCode, decode};
use std::rc::Rc;

impl Service {
    fn control(&self) -> Result<Rc<Control>, Unanswered> {
        let elsewhere = || {
            let text = "the control plane runs beside partition 0, elsewhere";
            Unanswered::new(RefusalCode::WrongPartition, text)
        };
        self.control.borrow().clone().ok_or_else(elsewhere)
    }

    pub(super) async fn create_table(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<CreateTable>(frame).map_err(malformed)?;
        let row = self.control()?.create_table(asked).await?;
        Ok(reply(&frame.header, &Table { row: &row }))
    }

    pub(super) async fn update_table(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<UpdateTable>(frame).map_err(malformed)?;
        let row = self.control()?.update_table(asked).await?;
        Ok(reply(&frame.header, &Table { row: &row }))
    }

    pub(super) async fn delete_table(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<DeleteTable>(frame).map_err(malformed)?;
        let row = self.control()?.delete_table(&asked.name).await?;
        Ok(reply(&frame.header, &Table { row: &row }))
    }

    pub(super) async fn change_user(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<ChangeUser>(frame).map_err(malformed)?;
        self.control()?.change_user(asked).await?;
        Ok(reply(&frame.header, &Done {}))
    }

    pub(super) async fn register_node(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<RegisterNode>(frame).map_err(malformed)?;
        let node = (&asked.node.id).into();
        if !caller.roles.contains(Role::Node) || caller.node != Some(node) {
            let text = format!("the certificate shown is not that of node {node}");
            return Err(Unanswered::new(RefusalCode::Forbidden, text));
        }
        self.control()?.register_node(asked).await?;
        Ok(reply(&frame.header, &Done {}))
    }

    pub(super) async fn create_partition(
        self: &Rc<Self>,
        caller: &Caller,
        frame: &Frame,
    ) -> Result<Bytes, Unanswered> {
        from_a_node(caller)?;
        let asked = decode::<CreatePartition>(frame).map_err(malformed)?;
        if u128::from(asked.store) != self.identity.store {
            let text = "the disk of this node is not the one it is known by";
            return Err(Unanswered::new(RefusalCode::Forbidden, text));
        }
        let id = PartitionId::from(&asked.partition);
        let row = partition_row(id, &asked.row)?;
        let number = u32::from(asked.member);
        self.shard.create_member(id, &asked.row, &seats(&row.founders), member(number)).await?;
        stand_if_first(&self.shard, &row, number);
        if id == PartitionId::CATALOGUE {
            self.start_control();
        }
        Ok(reply(&frame.header, &Done {}))
    }

    pub(super) async fn drop_partition(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Unanswered> {
        from_a_node(caller)?;
        let asked = decode::<DropPartition>(frame).map_err(malformed)?;
        let dropped = self.shard.drop_partition((&asked.partition).into(), (&asked.generation).into());
        dropped.await?;
        Ok(reply(&frame.header, &Done {}))
    }

    pub(super) fn swap_member(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Unanswered> {
        from_a_node(caller)?;
        let asked = decode::<SwapMember>(frame).map_err(malformed)?;
        let partition = self.shard.serving((&asked.partition).into(), (&asked.generation).into());
        let gone = || Unanswered::new(RefusalCode::WrongPartition, "the partition is not on this shard");
        let partition = partition.ok_or_else(gone)?;
        let replica = Replica {
            member: asked.add.member.into(),
            node: (&asked.add.node).into(),
            shard: (&asked.add.shard).into(),
        };
        let refused = |refused: Refused| match refused {
            Refused::NotLeader(_) => Unanswered::Elsewhere(Box::new(partition.redirect())),
            Refused::BadSwap => Unanswered::new(RefusalCode::Invalid, swap_fault(&refused)),
            Refused::SwapPending | Refused::Full => {
                Unanswered::new(RefusalCode::Overloaded, swap_fault(&refused))
            }
        };
        partition.swap(MemberId(asked.remove.into()), seats(&[replica])[0]).map_err(refused)?;
        Ok(reply(&frame.header, &Done {}))
    }
}

/// The row of the partition that a member is to be made of.
fn partition_row(id: PartitionId, stored: &[u8]) -> Result<PartitionRow, Unanswered> {
    let fault = |reason: String| CreateError::Row { partition: id, reason };
    let view = ItemView::check(stored).map_err(|error| fault(error.to_string()))?;
    let row =
        PartitionRow::from_attributes(&view.to_attributes()).map_err(|error| fault(error.to_string()))?;
    if ![1, 3].contains(&row.founders.len()) {
        return Err(fault("a group is founded by one member or three".to_owned()).into());
    }
    Ok(row)
}

fn from_a_node(caller: &Caller) -> Result<(), Unanswered> {
    if caller.roles.contains(Role::Node) {
        return Ok(());
    }
    Err(Unanswered::new(RefusalCode::Forbidden, "only a node of the cluster may ask for this"))
}
