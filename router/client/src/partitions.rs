//! What partitions are made of and how far their replicas are, for whoever looks after a cluster.

use crate::call::leader;
use crate::client::Client;
use crate::connection::LaneChoice;
use crate::error::Error;
use crate::limits::CONNECT_TIMEOUT;
use evenkeel_caller::{Place, Route};
use evenkeel_model::{Ballot, Generation, NodeId, PartitionId, ShardId, Slot};
use evenkeel_wire::message::{PartitionState, ReplicaState};
use evenkeel_wire::{Kind, decode, encode};
use tokio::time::timeout;

/// A partition and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Which one.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: Generation,
    /// The name of its table; empty for the catalogue.
    pub table: String,
    /// The least encoded key that it owns.
    pub lower: Vec<u8>,
    /// The least encoded key behind it; nothing for the last partition.
    pub upper: Option<Vec<u8>>,
    /// Its replicas, as the catalogue lists them.
    pub replicas: Vec<ReplicaDescription>,
}

/// A replica, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaDescription {
    /// Its node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
    /// The node's availability zone.
    pub zone: String,
    /// What it says, or why it says nothing.
    pub state: Result<ReplicaReport, String>,
}

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Its number in the group.
    pub member: u32,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it leads and is sure to, so that it answers reads.
    pub leased: bool,
    /// Who leads, as far as it knows.
    pub leader: Option<(NodeId, ShardId)>,
    /// The greatest ballot it has promised.
    pub ballot: Ballot,
    /// The last slot that is applied.
    pub applied: Slot,
    /// The last slot of its log.
    pub end: Slot,
    /// The last mark of the log at which a merge has ended, since its node's start, and the hash of the content
    /// there: equal for all replicas that have ended one at the same.
    pub mark: Option<(Slot, u128)>,
    /// Its items.
    pub items: u64,
    /// Their size by DynamoDB's rules, in bytes.
    pub bytes: u64,
}

impl PartitionDescription {
    /// How many slots a replica has still to apply, compared with the one that has applied most.
    pub fn lag(&self, report: &ReplicaReport) -> u64 {
        let reports = self.replicas.iter().filter_map(|replica| replica.state.as_ref().ok());
        reports.map(|report| report.applied.0).max().unwrap_or(0).saturating_sub(report.applied.0)
    }
}

impl Client {
    /// All partitions with what their replicas say of themselves, those of the catalogue first and then by
    /// number. Replicas that cannot be asked say why.
    ///
    /// # Errors
    /// Failures to read the catalogue.
    pub async fn partitions(&self) -> Result<Vec<PartitionDescription>, Error> {
        self.inner().refresh_until(self.inner().deadline()).await?;
        let mut found = Vec::new();
        for (table, route) in self.routes() {
            let mut replicas = Vec::new();
            for place in route.replicas.places() {
                let state = self.replica_state(place, &route).await;
                let (node, shard, zone) = (place.node, place.shard, place.zone.to_string());
                replicas.push(ReplicaDescription { node, shard, zone, state });
            }
            let Route { partition, generation, lower, upper, .. } = route;
            found.push(PartitionDescription { partition, generation, table, lower, upper, replicas });
        }
        found.sort_by_key(|partition| partition.partition);
        Ok(found)
    }

    /// The routes of all tables that can be used, with their tables' names.
    fn routes(&self) -> Vec<(String, Route)> {
        let view = self.inner().follower.view();
        let of_table = |table: &evenkeel_caller::TableRoutes| {
            let routes = table.routes().unwrap_or_default().to_vec();
            let name = table.row().name.clone();
            routes.into_iter().map(move |route| (name.clone(), route)).collect::<Vec<_>>()
        };
        view.map.tables().flat_map(of_table).collect()
    }

    async fn replica_state(&self, place: &Place, route: &Route) -> Result<ReplicaReport, String> {
        let question = PartitionState { partition: route.partition, generation: route.generation };
        let timeout_us = CONNECT_TIMEOUT.as_micros() as u64;
        let asking = async {
            let link = self.inner().links.link(place);
            let connection = link.connection().await.map_err(|failure| failure.to_string())?;
            let encode = |id| encode(&question, id, timeout_us);
            connection.request(LaneChoice::BySize, encode, &mut false).await.map_err(|lost| lost.to_string())
        };
        let late = |_| format!("no answer within {CONNECT_TIMEOUT:?}");
        let frame = timeout(CONNECT_TIMEOUT, asking).await.map_err(late)??;
        if frame.header.kind != Kind::ReplicaState as u16 {
            let refused = crate::call::refusal(&frame).map(|(_, message)| message);
            return Err(refused.unwrap_or_else(|| "an answer that makes no sense".to_owned()));
        }
        let state = decode::<ReplicaState>(&frame).map_err(|error| error.to_string())?;
        Ok(ReplicaReport {
            member: state.member.into(),
            leads: state.leads,
            leased: state.leased,
            leader: leader(&state.redirect),
            ballot: (&state.ballot).into(),
            applied: (&state.applied).into(),
            end: (&state.end).into(),
            mark: Some((Slot::from(&state.marked), state.content_hash.into()))
                .filter(|mark| mark.0 > Slot(0)),
            items: state.items.into(),
            bytes: state.bytes.into(),
        })
    }
}
