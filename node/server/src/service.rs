//! The service of a shard: a checked frame becomes a call of a partition, its result an answer.
//!
//! Each request runs as a task of its own, so a write that waits for its frame of the log holds up
//! nothing, and all requests that arrived together share that frame. What a connection may have under
//! way is bounded; beyond it requests are refused, not queued.

mod answers;
mod control;
mod items;

use crate::control::{Control, ControlParts};
use crate::drop_guard::DropGuard;
use crate::limits::REQUESTS_IN_FLIGHT_MAX;
use crate::links::Links;
use crate::nodes::Nodes;
use crate::peers::Peers;
use crate::requests::RequestCounts;
use answers::{Unanswered, malformed, reply};
use bytes::Bytes;
use evenkeel_driver::{Core, GlommioRuntime, UringDisk};
use evenkeel_model::{ClusterId, Generation, NodeId, PartitionId};
use evenkeel_partition::{Partition, Place, Shard};
use evenkeel_quic::{Connection, ConnectionId, Handler, Lane, Roles};
use evenkeel_storage::Runtime;
use evenkeel_wire::frame::{common_version, versions};
use evenkeel_wire::message::{Hello, ShardPlace, Welcome};
use evenkeel_wire::{Frame, Kind, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, RefusalCode, decode};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// The generation of partition 0, which never changes.
pub const CATALOGUE_GENERATION: Generation = Generation(1);

/// A shard as it runs on a core.
pub type CoreShard = Shard<UringDisk, GlommioRuntime>;
/// One of its partitions.
pub type CorePartition = Partition<UringDisk, GlommioRuntime>;

/// What the service says of itself in answer to Hello.
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This shard.
    pub place: Place,
    /// What the node's disk is known by.
    pub store: u128,
    /// Drawn when the node started.
    pub incarnation: u64,
    /// All nodes.
    pub nodes: Rc<Nodes>,
    /// The shards that were to hold partition 0 when the cluster was formed.
    pub catalogue: Vec<ShardPlace>,
}

/// One shard's service.
pub struct Service {
    /// Who it is.
    pub identity: Identity,
    /// Its partitions.
    pub shard: Rc<CoreShard>,
    /// Its connections to others.
    pub peers: Rc<Peers>,
    /// Its links to those it shares groups with.
    pub links: Rc<Links>,
    /// The control plane, on shards that hold partition 0.
    pub control: RefCell<Option<Rc<Control>>>,
    /// Its counters.
    pub counts: RequestCounts,
    /// The core it runs on.
    pub core: Core,
    /// Where its tasks run.
    pub runtime: GlommioRuntime,
    connections: RefCell<HashMap<ConnectionId, Rc<Caller>>>,
}

/// Who is at the other end of a connection.
struct Caller {
    roles: Roles,
    node: Option<NodeId>,
    greeted: Cell<bool>,
    in_flight: Cell<u32>,
}

/// The handle by which the endpoint reaches the service.
#[derive(Clone)]
pub struct ServiceHandle(pub Rc<Service>);

impl Handler for ServiceHandle {
    fn opened(&self, connection: &Connection) {
        let (roles, node) = (connection.roles(), connection.node());
        let caller = Caller { roles, node, greeted: Cell::new(false), in_flight: Cell::new(0) };
        self.0.connections.borrow_mut().insert(connection.id(), Rc::new(caller));
        self.0.counts.opened();
    }

    fn frame(&self, lane: &Lane, frame: Frame) {
        if frame.header.kind & 0x8000 != 0 {
            return self.0.peers.answered(lane.id().connection, frame);
        }
        if Links::takes(frame.header.kind) {
            return self.0.receive(&lane.connection(), frame);
        }
        if frame.header.kind == Kind::Ping as u16 {
            // That it arrived is acknowledged already.
            return;
        }
        let Some(caller) = self.0.connections.borrow().get(&lane.id().connection).cloned() else { return };
        let kind = Kind::from_number(frame.header.kind);
        self.0.counts.begin(kind);
        caller.in_flight.set(caller.in_flight.get() + 1);
        let service = self.0.clone();
        let lane = lane.clone();
        self.0.runtime.spawn(async move {
            let _end = DropGuard(|| {
                caller.in_flight.set(caller.in_flight.get() - 1);
                service.counts.end();
            });
            let header = frame.header;
            let answer = service.answer(&caller, &lane, kind, frame).await.unwrap_or_else(|unanswered| {
                service.counts.refused(kind);
                unanswered.reply(&header)
            });
            // An asker that is gone needs no answer.
            let _ = lane.send(answer);
        });
    }

    fn datagram(&self, connection: &Connection, frame: Frame) {
        if Links::takes(frame.header.kind) {
            self.0.receive(connection, frame);
        }
    }

    fn closed(&self, connection: ConnectionId) {
        self.0.links.lost(connection);
        if self.0.connections.borrow_mut().remove(&connection).is_some() {
            self.0.counts.closed();
        }
        self.0.peers.closed(connection);
    }
}

impl Service {
    /// A service with no connections yet.
    pub fn new(
        identity: Identity,
        shard: Rc<CoreShard>,
        peers: Rc<Peers>,
        links: Rc<Links>,
        core: Core,
    ) -> Service {
        let (counts, connections, control) = Default::default();
        let runtime = core.runtime();
        Service { identity, shard, peers, links, control, counts, core, runtime, connections }
    }

    /// Sets the control plane to work if this shard holds partition 0.
    pub fn start_control(&self) {
        let partition = self.shard.serving(PartitionId::CATALOGUE, CATALOGUE_GENERATION);
        let Some(partition) = partition.filter(|_| self.control.borrow().is_none()) else { return };
        let parts = ControlParts {
            core: self.core.clone(),
            shard: self.shard.clone(),
            peers: self.peers.clone(),
            nodes: self.identity.nodes.clone(),
            own: self.identity.place,
        };
        let control = Rc::new(Control::new(parts, partition));
        self.runtime.spawn(control.clone().run());
        self.control.replace(Some(control));
    }

    /// Takes in what another core says.
    fn receive(&self, connection: &Connection, frame: Frame) {
        if let Some((from, message)) = self.links.receive(connection, frame) {
            self.shard.receive(from, message);
        }
    }

    async fn answer(
        self: &Rc<Self>,
        caller: &Caller,
        lane: &Lane,
        kind: Option<Kind>,
        frame: Frame,
    ) -> Result<Bytes, Unanswered> {
        if caller.in_flight.get() > REQUESTS_IN_FLIGHT_MAX {
            let message =
                format!("more than {REQUESTS_IN_FLIGHT_MAX} requests of this connection are under way");
            return Err(Unanswered::new(RefusalCode::Overloaded, message));
        }
        if kind == Some(Kind::Hello) {
            return self.hello(caller, &frame);
        }
        if !caller.greeted.get() {
            return Err(Unanswered::new(RefusalCode::Mismatch, "a connection begins with Hello"));
        }
        match kind {
            Some(Kind::Get) => self.get(&frame).await,
            Some(Kind::Put) => self.put(&frame).await,
            Some(Kind::Delete) => self.delete(&frame).await,
            Some(Kind::Update) => self.update(&frame).await,
            Some(Kind::Range) => self.range(&frame).await,
            Some(Kind::Watch) => self.watch(&frame).await,
            Some(Kind::PartitionStatistics) => self.partition_statistics(&frame),
            Some(Kind::PartitionState) => self.partition_state(&frame),
            Some(Kind::CreateTable) => self.create_table(&frame).await,
            Some(Kind::UpdateTable) => self.update_table(&frame).await,
            Some(Kind::ChangeUser) => self.change_user(&frame).await,
            Some(Kind::DeleteTable) => self.delete_table(&frame).await,
            Some(Kind::CreatePartition) => self.create_partition(caller, &frame).await,
            Some(Kind::DropPartition) => self.drop_partition(caller, &frame).await,
            Some(Kind::RegisterNode) => self.register_node(caller, &frame).await,
            Some(Kind::SwapMember) => self.swap_member(caller, &frame),
            Some(Kind::Join) => Ok(reply(&frame.header, &self.links.join(lane, &frame)?)),
            _ => {
                let message = format!("requests of kind {:#06x} are not known here", frame.header.kind);
                Err(Unanswered::new(RefusalCode::Unsupported, message))
            }
        }
    }

    fn hello(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Unanswered> {
        let hello = decode::<Hello>(frame).map_err(malformed)?;
        let own = self.identity.cluster;
        if let Some(asked) = hello.cluster.as_ref() {
            let asked = u128::from(asked.0);
            if asked != own.0 {
                let message = format!("this node belongs to cluster {own}, not to {asked:032x}");
                return Err(Unanswered::new(RefusalCode::Mismatch, message));
            }
        }
        let (lowest, highest) = (u16::from(hello.version_min), u16::from(hello.version_max));
        let Some(version) = common_version(versions(), lowest..=highest) else {
            let message = format!(
                "this node speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}, \
                 not {lowest} to {highest}; run programs that share one"
            );
            return Err(Unanswered::new(RefusalCode::Mismatch, message));
        };
        caller.greeted.set(true);
        let welcome = Welcome {
            cluster: own,
            version,
            node: self.identity.place.node,
            shard: self.identity.place.shard,
            incarnation: self.identity.incarnation,
            nodes: self.identity.nodes.all(),
            catalogue: self.catalogue(),
        };
        Ok(reply(&frame.header, &welcome))
    }

    /// The shards that hold partition 0, as far as this one knows.
    pub fn catalogue(&self) -> Vec<ShardPlace> {
        let here = self.shard.serving(PartitionId::CATALOGUE, CATALOGUE_GENERATION);
        let of = |place: &Place| ShardPlace { node: place.node, shard: place.shard };
        match here {
            Some(partition) => partition.redirect().members.places.iter().map(of).collect(),
            None => self.identity.catalogue.clone(),
        }
    }
}
