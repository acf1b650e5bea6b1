//! Which nodes there are: those that say so, by the disk they come with; and a node that takes another's place.

use super::members::{place, swap_fault};
use super::{Control, ControlError, StepError};
use crate::links::read_members;
use crate::nodes::read_address;
use crate::tables::Reign;
use evenkeel_model::catalogue::{NodeRow, PartitionRow, Replica};
use evenkeel_model::{NodeId, PartitionId, ShardId};
use evenkeel_partition::{Membership, Place};
use evenkeel_wire::message::peer::{Keeps, Seat};
use evenkeel_wire::message::{ArchivedRegisterNode, NodeAddress, PartitionState, ReplicaState, SwapMember};
use evenkeel_wire::{Kind, decode};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

/// How often it is looked whether a group has taken its new member in, before it is told again.
const SWAP_LOOKS: u32 = 100;
/// Pause between two looks.
const SWAP_PAUSE: Duration = Duration::from_millis(100);

/// The address in a node's row.
pub(super) fn address_of(row: &NodeRow) -> NodeAddress {
    let NodeRow { id, port_base, shards, .. } = *row;
    NodeAddress { id, zone: row.zone.clone(), host: row.host.clone(), port_base, shards }
}

impl Control {
    /// Takes note that a node is there; durable when it returns.
    ///
    /// # Errors
    /// [`ControlError::OtherDisk`] if it is not the one it was.
    pub async fn register_node(self: &Rc<Self>, asked: &ArchivedRegisterNode) -> Result<(), ControlError> {
        let NodeAddress { id, zone, host, port_base, shards } = read_address(&asked.node);
        let replaces = asked.replaces.as_ref().map(NodeId::from);
        let row = NodeRow { id, zone, host, port_base, shards, store: asked.store.into(), replaces };
        let turn = self.turn().await?;
        let rows = self.catalogue().nodes().await?;
        if let Some(heir) = rows.iter().find(|heir| heir.replaces == Some(id)) {
            let text = format!("node {id} was replaced by node {} for good", heir.id);
            return Err(ControlError::Invalid(text));
        }
        let present = rows.iter().find(|present| present.id == id);
        if present.is_some_and(|present| present.store != row.store) {
            return Err(ControlError::OtherDisk(id));
        }
        if present != Some(&row) {
            self.catalogue().put_node(turn.reign, &row).await?;
            self.parts.nodes.learn(address_of(&row));
            if row.replaces.is_some() {
                self.take_over_in_background(turn.reign, row);
            }
        }
        Ok(())
    }

    /// The nodes that new partitions may be placed on, by id.
    pub(super) async fn nodes_to_place_on(&self) -> Result<Vec<NodeAddress>, ControlError> {
        let rows = self.catalogue().nodes().await?;
        let replaced: HashSet<NodeId> = rows.iter().filter_map(|row| row.replaces).collect();
        let mut nodes = self.parts.nodes.all();
        nodes.retain(|node| !replaced.contains(&node.id));
        nodes.sort_by_key(|node| node.id);
        Ok(nodes)
    }

    /// Has a node take the place of the one it replaces in every group.
    pub(super) fn take_over_in_background(self: &Rc<Self>, reign: Reign, node: NodeRow) {
        let Some(old) = node.replaces else { return };
        let node = Rc::new(node);
        self.in_background(reign, format!("node {} replaces node {old}", node.id), move |control| {
            let node = Rc::clone(&node);
            async move { control.take_over(reign, old, &node).await }
        });
    }

    async fn take_over(&self, reign: Reign, old: NodeId, node: &NodeRow) -> Result<(), StepError> {
        let orphans: HashSet<PartitionId> = self.orphans().await?.iter().map(|row| row.id).collect();
        let mut waiting = Ok(());
        for mut row in self.catalogue().partitions().await? {
            let Some(at) = row.replicas.iter().position(|replica| replica.node == old) else { continue };
            // Of what no table has any more, nothing is left on a lost disk.
            if orphans.contains(&row.id) {
                continue;
            }
            let lost = row.replicas[at];
            row.replicas[at] = match self.swap(&row, lost, node).await {
                Ok(taken) => taken,
                Err(error @ StepError::Catalogue(_)) => return Err(error),
                // One group that waits holds up no other.
                Err(error) => {
                    waiting = Err(error);
                    continue;
                }
            };
            row.unmade.retain(|&member| member != lost.member);
            let turn = self.turn().await?;
            // A table that is being deleted meanwhile has its rows removed by whoever deletes it.
            if self.catalogue().has_partition(row.id).await? && turn.reign == reign {
                self.catalogue().put_partition(reign, &row).await?;
            }
        }
        waiting
    }

    /// Puts a new member on a node in the place of a lost one; yields it once the group has chosen that.
    async fn swap(&self, row: &PartitionRow, lost: Replica, node: &NodeRow) -> Result<Replica, StepError> {
        let (leader, members) = self.led(row).await?;
        if let Some(taken) = on_node(&members, node.id) {
            return Ok(taken);
        }
        let shard = ShardId(lost.shard.0 % node.shards.max(1));
        let member = members.configuration.id_max.0 + 1;
        let replica = Replica { member, node: node.id, shard };
        self.make_member(row, &replica).await?;
        let add = Seat { member, keeps: Keeps::Tree, node: node.id, shard };
        let message = SwapMember { partition: row.id, generation: row.generation, remove: lost.member, add };
        if leader == self.parts.own {
            let partition = self.parts.shard.serving(row.id, row.generation);
            let partition = partition.ok_or_else(|| waiting(row, "its leader is gone"))?;
            let seat = super::seats(&[replica])[0];
            let begun = partition.swap(evenkeel_paxos::MemberId(lost.member), seat);
            begun.map_err(|refused| waiting(row, swap_fault(&refused)))?;
        } else {
            self.parts.peers.call(leader, &message, Kind::Done).await?;
        }
        for _ in 0..SWAP_LOOKS {
            if let Some(taken) = on_node(&self.led(row).await?.1, node.id) {
                return Ok(taken);
            }
            self.parts.core.sleep(SWAP_PAUSE).await;
        }
        Err(waiting(row, "its new member still learns the log"))
    }

    /// Who leads a partition's group, and who its members are.
    async fn led(&self, row: &PartitionRow) -> Result<(Place, Membership), StepError> {
        for replica in &row.replicas {
            let at = place(replica);
            if let Ok((true, members)) = self.state_at(at, row).await {
                return Ok((at, members));
            }
        }
        Err(waiting(row, "nobody leads it"))
    }

    async fn state_at(&self, at: Place, row: &PartitionRow) -> Result<(bool, Membership), StepError> {
        if at == self.parts.own {
            let partition = self.parts.shard.serving(row.id, row.generation);
            let partition = partition.ok_or_else(|| waiting(row, "its member is gone"))?;
            return Ok((partition.reign().is_some(), partition.redirect().members));
        }
        let question = PartitionState { partition: row.id, generation: row.generation };
        let frame = self.parts.peers.call(at, &question, Kind::ReplicaState).await?;
        let malformed = |reason: String| StepError::Waiting(format!("{at}: {reason}"));
        let state = decode::<ReplicaState>(&frame).map_err(|error| malformed(error.to_string()))?;
        let members = read_members(&state.redirect.members).map_err(|error| malformed(error.to_string()))?;
        Ok((state.leads, members))
    }
}

fn waiting(row: &PartitionRow, reason: &str) -> StepError {
    StepError::Waiting(format!("partition {}: {reason}", row.id))
}

/// The member that lives on a node.
fn on_node(members: &Membership, node: NodeId) -> Option<Replica> {
    let seat = members.seats().find(|seat| seat.place.node == node)?;
    Some(Replica { member: seat.member.id.0, node, shard: seat.place.shard })
}
