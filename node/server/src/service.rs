//! The service of a shard: a checked frame becomes a call of a partition, its result an answer.
//!
//! Each request runs as a task of its own, so a write that waits for its frame of the log holds up
//! nothing, and all requests that arrived together share that frame. What a connection may have under
//! way is bounded; beyond it requests are refused, not queued.

use crate::control::{Control, ControlError};
use crate::drop_guard::DropGuard;
use crate::limits::{PAGE_ITEMS_MAX, REQUESTS_IN_FLIGHT_MAX, WATCH_PATIENCE_MAX};
use crate::links::Links;
use crate::nodes::Nodes;
use crate::peers::Peers;
use crate::requests::RequestCounts;
use bytes::Bytes;
use evenkeel_driver::{GlommioRuntime, UringDisk};
use evenkeel_expression::{ConditionView, ProgramError, UpdateView};
use evenkeel_model::limits::PAGE_BYTES_MAX;
use evenkeel_model::{ClusterId, Generation, NodeId, PartitionId, ShardId, Slot};
use evenkeel_partition::{
    Change, CreateError, Outcome, Partition, RangeRequest, ReadError, Shard, Terms, WriteError,
};
use evenkeel_quic::{Connection, ConnectionId, Handler, Lane, Role, Roles};
use evenkeel_storage::{PartitionError, Refused, Runtime};
use evenkeel_wire::frame::{common_version, versions};
use evenkeel_wire::message::{
    ArchivedTerms, ChangeUser, Changed, ConditionFailed, CreatePartition, CreateTable, Delete, DeleteTable,
    Done, DropPartition, Found, Get, Hello, Page, PartitionCounts, PartitionStatistics, Put, Range, Row,
    Table, Update, UpdateTable, Watch, Welcome, Written,
};
use evenkeel_wire::{
    DecodeError, Frame, FrameHeader, Kind, Message, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Refusal,
    RefusalCode, decode, encode,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// A shard as it runs on a core.
pub type CoreShard = Shard<UringDisk, GlommioRuntime>;
type CorePartition = Partition<UringDisk, GlommioRuntime>;

/// What the service says of itself in answer to Hello.
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This shard.
    pub shard: ShardId,
    /// Drawn when the node started.
    pub incarnation: u64,
    /// All nodes.
    pub nodes: Rc<Nodes>,
    /// The node that holds partition 0, on its shard 0.
    pub catalogue_node: NodeId,
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
    /// The control plane, on the shard that holds partition 0.
    pub control: Option<Rc<Control>>,
    /// Its counters.
    pub counts: RequestCounts,
    /// Where its tasks run.
    pub runtime: GlommioRuntime,
    connections: RefCell<HashMap<ConnectionId, Rc<Caller>>>,
}

/// Who is at the other end of a connection.
struct Caller {
    roles: Roles,
    greeted: Cell<bool>,
    in_flight: Cell<u32>,
}

/// The handle by which the endpoint reaches the service.
#[derive(Clone)]
pub struct ServiceHandle(pub Rc<Service>);

impl Handler for ServiceHandle {
    fn opened(&self, connection: &Connection) {
        let caller = Caller { roles: connection.roles(), greeted: Cell::new(false), in_flight: Cell::new(0) };
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
            let answer = service.answer(&caller, &lane, kind, frame).await.unwrap_or_else(|refusal| {
                service.counts.refused(kind);
                reply(&header, &refusal)
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

fn reply<M: Message>(header: &FrameHeader, message: &M) -> Bytes {
    encode(message, header.request_id, 0)
}

impl Service {
    /// A service with no connections yet.
    pub fn new(
        identity: Identity,
        shard: Rc<CoreShard>,
        peers: Rc<Peers>,
        links: Rc<Links>,
        control: Option<Rc<Control>>,
        runtime: GlommioRuntime,
    ) -> Service {
        let (counts, connections) = (RequestCounts::default(), RefCell::default());
        Service { identity, shard, peers, links, control, counts, runtime, connections }
    }

    /// Takes in what another core says.
    fn receive(&self, connection: &Connection, frame: Frame) {
        if let Some((from, message)) = self.links.receive(connection, frame) {
            self.shard.receive(from, message);
        }
    }

    async fn answer(
        &self,
        caller: &Caller,
        lane: &Lane,
        kind: Option<Kind>,
        frame: Frame,
    ) -> Result<Bytes, Refusal> {
        if caller.in_flight.get() > REQUESTS_IN_FLIGHT_MAX {
            let message =
                format!("more than {REQUESTS_IN_FLIGHT_MAX} requests of this connection are under way");
            return Err(Refusal::new(RefusalCode::Overloaded, message));
        }
        if kind == Some(Kind::Hello) {
            return self.hello(caller, &frame);
        }
        if !caller.greeted.get() {
            return Err(Refusal::new(RefusalCode::Mismatch, "a connection begins with Hello"));
        }
        match kind {
            Some(Kind::Get) => self.get(&frame).await,
            Some(Kind::Put) => self.put(&frame).await,
            Some(Kind::Delete) => self.delete(&frame).await,
            Some(Kind::Update) => self.update(&frame).await,
            Some(Kind::Range) => self.range(&frame).await,
            Some(Kind::Watch) => self.watch(&frame).await,
            Some(Kind::PartitionStatistics) => self.partition_statistics(&frame),
            Some(Kind::CreateTable) => self.create_table(&frame).await,
            Some(Kind::UpdateTable) => self.update_table(&frame).await,
            Some(Kind::ChangeUser) => self.change_user(&frame).await,
            Some(Kind::DeleteTable) => self.delete_table(&frame).await,
            Some(Kind::CreatePartition) => self.create_partition(caller, &frame).await,
            Some(Kind::DropPartition) => self.drop_partition(caller, &frame).await,
            Some(Kind::Join) => Ok(reply(&frame.header, &self.links.join(lane, &frame)?)),
            _ => {
                let message = format!("requests of kind {:#06x} are not known here", frame.header.kind);
                Err(Refusal::new(RefusalCode::Unsupported, message))
            }
        }
    }

    fn hello(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Refusal> {
        let hello = decode::<Hello>(frame).map_err(malformed)?;
        let own = self.identity.cluster;
        if let Some(asked) = hello.cluster.as_ref() {
            let asked = u128::from(asked.0);
            if asked != own.0 {
                let message = format!("this node belongs to cluster {own}, not to {asked:032x}");
                return Err(Refusal::new(RefusalCode::Mismatch, message));
            }
        }
        let (lowest, highest) = (u16::from(hello.version_min), u16::from(hello.version_max));
        let Some(version) = common_version(versions(), lowest..=highest) else {
            let message = format!(
                "this node speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}, \
                 not {lowest} to {highest}; run programs that share one"
            );
            return Err(Refusal::new(RefusalCode::Mismatch, message));
        };
        caller.greeted.set(true);
        let welcome = Welcome {
            cluster: own,
            version,
            node: self.identity.node,
            shard: self.identity.shard,
            incarnation: self.identity.incarnation,
            nodes: self.identity.nodes.all(),
            catalogue_node: self.identity.catalogue_node,
            catalogue_shard: ShardId(0),
        };
        Ok(reply(&frame.header, &welcome))
    }

    fn partition(&self, id: PartitionId, generation: Generation) -> Result<Rc<CorePartition>, Refusal> {
        self.shard.serving(id, generation).ok_or_else(|| {
            let message = format!("partition {id} of generation {generation} is not on this shard");
            Refusal::new(RefusalCode::WrongPartition, message)
        })
    }

    async fn get(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let get = decode::<Get>(frame).map_err(malformed)?;
        let partition = self.partition((&get.partition).into(), (&get.generation).into())?;
        let image = partition.get(&get.key).await.map_err(read_refusal)?;
        Ok(reply(&frame.header, &Found { item: image.as_deref() }))
    }

    async fn put(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let put = decode::<Put>(frame).map_err(malformed)?;
        let partition = self.partition((&put.partition).into(), (&put.generation).into())?;
        let written = partition.write(&put.key, Change::Put(&put.item), terms(&put.terms)?).await;
        write_reply(&frame.header, written)
    }

    async fn delete(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let delete = decode::<Delete>(frame).map_err(malformed)?;
        let partition = self.partition((&delete.partition).into(), (&delete.generation).into())?;
        let written = partition.write(&delete.key, Change::Delete, terms(&delete.terms)?).await;
        write_reply(&frame.header, written)
    }

    async fn update(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let update = decode::<Update>(frame).map_err(malformed)?;
        let partition = self.partition((&update.partition).into(), (&update.generation).into())?;
        let program = UpdateView::check(&update.program).map_err(bad_program)?;
        let change = Change::Update { program, key_item: &update.key_item };
        let written = partition.write(&update.key, change, terms(&update.terms)?).await;
        write_reply(&frame.header, written)
    }

    async fn range(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let range = decode::<Range>(frame).map_err(malformed)?;
        let partition = self.partition((&range.partition).into(), (&range.generation).into())?;
        let request = RangeRequest {
            lower: &range.lower,
            upper: range.upper.as_ref().map(|upper| &**upper),
            reverse: range.reverse,
            items_max: (u32::from(range.items_max) as usize).min(PAGE_ITEMS_MAX),
            bytes_max: (u32::from(range.bytes_max) as usize).min(PAGE_BYTES_MAX),
            filter: range
                .filter
                .as_ref()
                .map(|filter| ConditionView::check(filter))
                .transpose()
                .map_err(bad_program)?,
        };
        let page = partition.range(request).await.map_err(read_refusal)?;
        let rows = page.items.iter().map(|(key, item)| Row { key, item }).collect();
        let answer = Page {
            applied: page.applied,
            more: page.more,
            scanned: u32::try_from(page.scanned).expect("a page has at most 2^32 items"),
            scanned_bytes: page.scanned_bytes,
            last: page.last.as_deref(),
            rows,
        };
        Ok(reply(&frame.header, &answer))
    }

    async fn watch(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let watch = decode::<Watch>(frame).map_err(malformed)?;
        let partition = self.partition((&watch.partition).into(), (&watch.generation).into())?;
        let given = Duration::from_micros(frame.header.timeout_us) / 2;
        let applied = partition.changed(Slot::from(&watch.after), given.min(WATCH_PATIENCE_MAX)).await;
        Ok(reply(&frame.header, &Changed { applied }))
    }

    fn partition_statistics(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let asked = decode::<PartitionStatistics>(frame).map_err(malformed)?;
        let partition = self.partition((&asked.partition).into(), (&asked.generation).into())?;
        let counts = partition.counts();
        Ok(reply(&frame.header, &PartitionCounts { items: counts.items, bytes: counts.bytes }))
    }

    fn control(&self) -> Result<&Rc<Control>, Refusal> {
        let elsewhere = || {
            Refusal::new(RefusalCode::WrongPartition, "the control plane runs beside partition 0, elsewhere")
        };
        self.control.as_ref().ok_or_else(elsewhere)
    }

    async fn create_table(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let asked = decode::<CreateTable>(frame).map_err(malformed)?;
        let row = self.control()?.create_table(asked).await.map_err(control_refusal)?;
        Ok(reply(&frame.header, &Table { row: &row }))
    }

    async fn update_table(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let asked = decode::<UpdateTable>(frame).map_err(malformed)?;
        let row = self.control()?.update_table(asked).await.map_err(control_refusal)?;
        Ok(reply(&frame.header, &Table { row: &row }))
    }

    async fn delete_table(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let asked = decode::<DeleteTable>(frame).map_err(malformed)?;
        let row = self.control()?.delete_table(&asked.name).await.map_err(control_refusal)?;
        Ok(reply(&frame.header, &Table { row: &row }))
    }

    async fn change_user(&self, frame: &Frame) -> Result<Bytes, Refusal> {
        let asked = decode::<ChangeUser>(frame).map_err(malformed)?;
        self.control()?.change_user(asked).await.map_err(control_refusal)?;
        Ok(reply(&frame.header, &Done {}))
    }

    async fn create_partition(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Refusal> {
        from_a_node(caller)?;
        let asked = decode::<CreatePartition>(frame).map_err(malformed)?;
        self.shard.create((&asked.partition).into(), &asked.row).await.map_err(create_refusal)?;
        Ok(reply(&frame.header, &Done {}))
    }

    async fn drop_partition(&self, caller: &Caller, frame: &Frame) -> Result<Bytes, Refusal> {
        from_a_node(caller)?;
        let asked = decode::<DropPartition>(frame).map_err(malformed)?;
        let dropped = self.shard.drop_partition((&asked.partition).into(), (&asked.generation).into());
        dropped.await.map_err(create_refusal)?;
        Ok(reply(&frame.header, &Done {}))
    }
}

fn terms<'a>(asked: &'a ArchivedTerms<'_>) -> Result<Terms<'a>, Refusal> {
    let condition = asked.condition.as_ref().map(|condition| ConditionView::check(condition));
    Ok(Terms {
        condition: condition.transpose().map_err(bad_program)?,
        return_old: asked.return_old,
        return_new: asked.return_new,
        return_old_on_failure: asked.return_old_on_failure,
        token: None,
    })
}

fn write_reply(header: &FrameHeader, outcome: Result<Outcome, WriteError>) -> Result<Bytes, Refusal> {
    Ok(match outcome.map_err(write_refusal)? {
        Outcome::Written(done) => {
            let written = Written { slot: done.slot, old: done.old.as_deref(), new: done.new.as_deref() };
            reply(header, &written)
        }
        Outcome::ConditionFailed { old } => reply(header, &ConditionFailed { old: old.as_deref() }),
    })
}

fn bad_program(error: ProgramError) -> Refusal {
    Refusal::new(RefusalCode::Invalid, error.to_string())
}

fn from_a_node(caller: &Caller) -> Result<(), Refusal> {
    if caller.roles.contains(Role::Node) {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::Forbidden, "only a node of the cluster may ask for this"))
}

fn malformed(error: DecodeError) -> Refusal {
    Refusal::new(RefusalCode::Invalid, error.to_string())
}

fn refused_code(refused: &Refused) -> RefusalCode {
    match refused {
        Refused::TableFull { .. } => RefusalCode::TableFull,
        Refused::LogFull { .. } => RefusalCode::LogFull,
        Refused::Busy => RefusalCode::Overloaded,
        Refused::TooLarge { .. } => RefusalCode::Invalid,
    }
}

fn read_refusal(error: ReadError) -> Refusal {
    let code = match error {
        ReadError::NotOwned(_)
        | ReadError::NotLeader(_)
        | ReadError::Engine(evenkeel_storage::ReadError::Unknown { .. }) => RefusalCode::WrongPartition,
        ReadError::Item(_) | ReadError::Engine(evenkeel_storage::ReadError::Tree(_)) => RefusalCode::Failed,
    };
    Refusal::new(code, error.to_string())
}

fn write_refusal(error: WriteError) -> Refusal {
    let code = match &error {
        WriteError::NotOwned(_)
        | WriteError::NotLeader(_)
        | WriteError::Read(evenkeel_storage::ReadError::Unknown { .. }) => RefusalCode::WrongPartition,
        WriteError::KeyBytes(_) | WriteError::Item(_) | WriteError::Update(_) | WriteError::Stale => {
            RefusalCode::Invalid
        }
        WriteError::Refused(refused) => refused_code(refused),
        WriteError::Log(_) | WriteError::Unknown | WriteError::Read(evenkeel_storage::ReadError::Tree(_)) => {
            RefusalCode::Failed
        }
    };
    Refusal::new(code, error.to_string())
}

fn create_refusal(error: CreateError) -> Refusal {
    let code = match &error {
        CreateError::Row { .. } | CreateError::Generation { .. } => RefusalCode::Invalid,
        CreateError::Engine(PartitionError::Refused(refused)) => refused_code(refused),
        CreateError::Engine(PartitionError::Log(_)) => RefusalCode::Failed,
        CreateError::Engine(PartitionError::Exists { .. } | PartitionError::Unknown { .. }) => {
            RefusalCode::WrongPartition
        }
    };
    Refusal::new(code, error.to_string())
}

fn control_refusal(error: ControlError) -> Refusal {
    let code = match &error {
        ControlError::Invalid(_) => RefusalCode::Invalid,
        ControlError::Exists(_) => RefusalCode::TableExists,
        ControlError::NotFound(_) => RefusalCode::TableNotFound,
        ControlError::InUse { .. } => RefusalCode::TableInUse,
        ControlError::Protected(_) => RefusalCode::Protected,
        ControlError::UserExists(_) => RefusalCode::UserExists,
        ControlError::UserNotFound(_) => RefusalCode::UserNotFound,
        ControlError::Write(error) => return write_refusal(error.clone()),
        ControlError::Read(error) => return read_refusal(error.clone()),
        ControlError::Malformed { .. } => RefusalCode::Failed,
    };
    Refusal::new(code, error.to_string())
}
