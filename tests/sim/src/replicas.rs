//! The real thing: a core of a node as `node/partition` makes it, with its engine, its log and its groups.

mod looking;
mod watching;

use crate::cluster::{
    self, Answer, Call, Core, Order, REPLICAS, ReplicaState, Seat as Sitting, Shape, Start,
};
use evenkeel_expression::{
    Action, Comparator, Condition, ConditionView, Operand, Path, Test, Update, UpdateView,
};
use evenkeel_history::{Consistency, Image, Outcome, Request};
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{
    AttributeValue, Attributes, ClusterId, Generation, ItemView, NodeId, PartitionId, ShardId, TableId,
    encode_item,
};
use evenkeel_partition::{
    Body, Change, CoreConfig, CoreMessage, GroupMessage, OUTCOMES_KEPT_NS, Outcome as Written, Partition,
    Place, ReadError, Redirect, RequestToken, Seat, Shard, Terms, WriteError,
};
use evenkeel_paxos::{Member, MemberId, MemberKind, Standing};
use evenkeel_storage::memory::{MemoryDisk, TestRuntime};
use evenkeel_storage::{
    Engine, EngineConfig, Limits, MergeCounts, OpenError, PageSettings, Runtime, WalConfig,
};
use evenkeel_wire::RefusalCode;
use looking::Looks;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use watching::{Addressed, Way};

const GENERATION: Generation = Generation(1);
const VALUE: &str = "value";
/// Node numbers of one place are so far apart; a cluster has fewer nodes.
const NODES_MAX: u32 = 16;
/// One item to a piece, nearly: copies take several.
const PIECE_BYTES: usize = 1;
/// A few marks of each partition in a run.
const MARK_INTERVAL_NS: u64 = 1_000_000_000;
const SWAP_PATIENCE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(20);

type Local = Partition<MemoryDisk, TestRuntime>;
type LocalShard = Shard<MemoryDisk, TestRuntime>;

/// One life of a core.
pub struct Replicas {
    at: cluster::Place,
    own: Place,
    shape: Rc<Shape>,
    outbox: cluster::Outbox<Addressed>,
    runtime: TestRuntime,
    /// Nothing until the log has been read.
    shard: Rc<RefCell<Option<Rc<LocalShard>>>>,
    /// What is wrong with the disk.
    damage: Rc<RefCell<Option<String>>>,
    noticed: RefCell<Noticed>,
    looks: RefCell<Looks>,
}

/// What was noticed already, so that it is counted once.
#[derive(Default)]
struct Noticed {
    segments_recycled: u64,
    checkpoints: u64,
    marks_passed: u64,
    /// The partitions whose strong reads this core would have answered when it was last looked at.
    serving: BTreeSet<usize>,
}

/// A place of the cluster, as the node that is there now, or was, knows itself.
fn place(place: cluster::Place, incarnation: u32) -> Place {
    let node = u32::try_from(place.node).expect("few nodes") + 1 + NODES_MAX * incarnation;
    Place { node: NodeId(node), shard: ShardId(u16::try_from(place.core).expect("few cores")) }
}

fn there(place: Place) -> cluster::Place {
    cluster::Place { node: ((place.node.0 - 1) % NODES_MAX) as usize, core: usize::from(place.shard.0) }
}

fn sitting(seat: Seat) -> Sitting {
    let incarnation = (seat.place.node.0 - 1) / NODES_MAX;
    Sitting { member: seat.member.id.0, place: there(seat.place), incarnation }
}

fn seat(sitting: Sitting) -> Seat {
    let member = Member { id: MemberId(sitting.member), kind: MemberKind::Storage };
    Seat { member, place: place(sitting.place, sitting.incarnation) }
}

fn id(partition: usize) -> PartitionId {
    PartitionId(partition as u64 + 1)
}

fn row(partition: usize) -> PartitionRow {
    let lower = u8::try_from(partition).expect("few partitions") + 10;
    PartitionRow {
        table: TableId(3),
        lower: vec![lower],
        upper: Some(vec![lower + 1]),
        id: id(partition),
        generation: GENERATION,
        founders: Vec::new(),
        replicas: Vec::new(),
        unmade: Vec::new(),
    }
}

fn founders(shape: &Shape, partition: usize) -> [Seat; REPLICAS] {
    let mut number = 0;
    shape.members(partition).map(|at| {
        number += 1;
        Seat { member: Member { id: MemberId(number), kind: MemberKind::Storage }, place: place(at, 0) }
    })
}

fn key_bytes(call: &Call) -> Vec<u8> {
    vec![
        u8::try_from(call.partition).expect("few partitions") + 10,
        u8::try_from(call.key).expect("few keys"),
    ]
}

fn number(value: i64) -> AttributeValue {
    AttributeValue::N(u64::try_from(value).expect("workloads count upwards").into())
}

fn item(value: i64) -> Vec<u8> {
    encode_item(&Attributes::from_iter([(VALUE, number(value))]))
}

fn image(stored: Option<&[u8]>) -> Image {
    let Some(stored) = stored else { return Image::Absent };
    let item = ItemView::check(stored).expect("a stored item is whole").to_attributes();
    match item.get(VALUE) {
        Some(AttributeValue::N(number)) => Image::Value(number.to_string().parse().expect("a small number")),
        other => panic!("not an item of this workload: {other:?}"),
    }
}

fn config(place: Place, shape: &Shape) -> EngineConfig {
    let (segment_bytes, segments) = shape.segments;
    EngineConfig {
        cluster: ClusterId(1),
        node: place.node,
        shard: place.shard,
        wal: WalConfig {
            segment_bytes,
            frame_bytes: 8 * 1024,
            frame_bytes_max: 24 * 1024,
            writes_in_flight_max: 2,
            frames_queued_max: 4,
            wal_bytes_max: segments * segment_bytes,
            idle_frame_after: Duration::from_millis(10),
            idle_frame_every: Duration::from_secs(1),
        },
        table_bytes_max: 64 * 1024,
        pages: PageSettings {
            step_bytes: 66 * 4096,
            bytes_max: 64 << 20,
            cache_bytes: shape.cache_bytes,
            limits: Limits { leaf_bytes: 4096, inner_bytes: 4096 },
        },
        notes_ns: OUTCOMES_KEPT_NS,
    }
}

impl Core for Replicas {
    type Message = Addressed;

    const OUTLIVES_A_DISK: bool = true;

    fn describe(message: &Addressed) -> String {
        message.to_string()
    }

    fn start(start: Start<Addressed>) -> Self {
        let Start { place: at, shape, outbox, disk, runtime, life, incarnation } = start;
        let own = place(at, incarnation);
        let core = Replicas {
            at,
            own,
            shape,
            outbox,
            runtime: runtime.clone(),
            shard: Rc::default(),
            damage: Rc::default(),
            noticed: RefCell::default(),
            looks: RefCell::default(),
        };
        let (slot, shape, outbox) = (core.shard.clone(), core.shape.clone(), core.outbox.clone());
        let damage = core.damage.clone();
        let spawner = runtime.clone();
        spawner.spawn(async move {
            let (engine, recovery) = loop {
                match Engine::open(disk.clone(), runtime.clone(), config(own, &shape)).await {
                    Ok(opened) => break opened,
                    // A full disk, or one that fails.
                    Err(OpenError::Disk(_)) => runtime.sleep(RETRY).await,
                    Err(error) => {
                        *damage.borrow_mut() = Some(error.to_string());
                        return;
                    }
                }
            };
            if recovery.cut.is_some() {
                outbox.note("cut tail");
            }
            let mut core_config = CoreConfig::new(own, Rc::new(Way { from: own, outbox: outbox.clone() }));
            (core_config.tail_bytes_max, core_config.copy_tail_bytes_max) = (2 * 1024, 8 * 1024);
            core_config.piece_bytes = PIECE_BYTES;
            core_config.mark_interval_ns = MARK_INTERVAL_NS;
            let shard =
                Rc::new(Shard::open(engine, runtime.clone(), core_config, &recovery).expect("it opens"));
            *slot.borrow_mut() = Some(shard.clone());
            // Founders are made once: a member that was removed must not come back.
            for partition in (0..shape.partitions).filter(|_| life == 1 && incarnation == 0) {
                let members = shape.members(partition);
                let Some(mine) = members.iter().position(|member| *member == at) else { continue };
                let founders = founders(&shape, partition);
                let row = encode_item(&row(partition).to_attributes());
                while let Err(error) =
                    shard.create_member(id(partition), &row, &founders, founders[mine].member).await
                {
                    outbox.note("creation refused");
                    let _ = error;
                    runtime.sleep(RETRY).await;
                }
            }
        });
        core
    }

    fn receive(&self, _from: cluster::Place, Addressed { from, to, message }: Addressed) {
        // For a node that is gone.
        if to != self.own {
            return;
        }
        if let CoreMessage::Group(GroupMessage { body: Body::Piece(piece), .. }) = &message
            && piece.last.is_some()
        {
            self.outbox.note("snapshot install");
        }
        if let Some(shard) = &*self.shard.borrow() {
            shard.receive(from, message);
        }
    }

    fn serve(&self, call: Call) {
        let Some(partition) = self.local(call.partition) else {
            let code = RefusalCode::WrongPartition;
            return self.outbox.answer(&call, Answer::Refused { code, leader: None });
        };
        let outbox = self.outbox.clone();
        self.runtime.spawn(async move {
            if let Some(answer) = answer(&partition, &call, &outbox).await {
                outbox.answer(&call, answer);
            }
        });
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Transfer { partition } => {
                if let Some(partition) = self.local(partition).filter(|partition| partition.serves()) {
                    self.outbox.note("relinquish");
                    partition.transfer(None);
                }
            }
            Order::Join { partition, add } if seat(add).place == self.own => self.join(partition, seat(add)),
            Order::Swap { partition, remove, add } if add.place != self.at => {
                if let Some(partition) = self.local(partition) {
                    self.swap(partition, MemberId(remove), seat(add));
                }
            }
            Order::Drop { partition, at } if seat(at).place == self.own => {
                let local = self.local(partition);
                if let Some(local) = local.filter(|local| local.member().0 == at.member) {
                    self.drop_member(partition, &local);
                }
            }
            Order::Join { .. } | Order::Swap { .. } | Order::Drop { .. } => {}
        }
    }

    fn has_stopped(&self) -> bool {
        self.shard.borrow().as_ref().is_some_and(|shard| shard.failure().is_some())
    }

    fn damage(&self) -> Option<String> {
        let corrupt = self.shard.borrow().as_ref().map_or(0, |shard| shard.corrupt_pages());
        let page = (corrupt > 0).then(|| "a page is not what it should be".to_owned());
        self.damage.borrow().clone().or(page)
    }

    fn member(&self, partition: usize) -> Option<u32> {
        self.local(partition).map(|local| local.member().0)
    }

    fn replicas(&self) -> Vec<ReplicaState> {
        self.notice();
        (0..self.shape.partitions).filter_map(|partition| self.state(partition)).collect()
    }
}

impl Replicas {
    /// Counts what happened since the last look.
    fn notice(&self) {
        let Some(shard) = self.shard.borrow().clone() else { return };
        let mut noticed = self.noticed.borrow_mut();
        let recycled = shard.statistics().segments_recycled;
        let MergeCounts { flips: checkpoints, marks_passed, .. } = shard.checkpoints();
        for (event, now, before) in [
            ("segment wrap", recycled, std::mem::replace(&mut noticed.segments_recycled, recycled)),
            ("checkpoint", checkpoints, std::mem::replace(&mut noticed.checkpoints, checkpoints)),
            ("mark passed over", marks_passed, std::mem::replace(&mut noticed.marks_passed, marks_passed)),
        ] {
            (before..now).for_each(|_| self.outbox.note(event));
        }
        for partition in 0..self.shape.partitions {
            let Some(local) = self.local(partition) else { continue };
            if local.serves() {
                noticed.serving.insert(partition);
            } else if noticed.serving.remove(&partition) && local.standing() == Standing::Leader {
                self.outbox.note("lease lapse");
            }
        }
    }

    /// Makes the member that a swap is to bring in.
    fn join(&self, partition: usize, seat: Seat) {
        let Some(shard) = self.shard.borrow().clone() else { return };
        if self.local(partition).is_some() {
            return;
        }
        let founders = founders(&self.shape, partition);
        let row = encode_item(&row(partition).to_attributes());
        self.runtime.spawn(async move {
            // A member that is not made does not answer, and the swap is not chosen.
            let _ = shard.create_member(id(partition), &row, &founders, seat.member).await;
        });
    }

    /// Has the member here, if it leads, replace another one.
    fn swap(&self, partition: Rc<Local>, remove: MemberId, add: Seat) {
        if partition.swap(remove, add).is_err() {
            return;
        }
        let (runtime, outbox) = (self.runtime.clone(), self.outbox.clone());
        self.runtime.spawn(async move {
            runtime.sleep(SWAP_PATIENCE).await;
            if partition.redirect().members.seats().any(|seat| seat == add) {
                outbox.note("swap");
            }
        });
    }

    /// Drops a member that has no part in its group any more.
    fn drop_member(&self, number: usize, _member: &Local) {
        let Some(shard) = self.shard.borrow().clone() else { return };
        self.runtime.spawn(async move {
            let _ = shard.drop_partition(id(number), GENERATION).await;
        });
    }

    fn local(&self, partition: usize) -> Option<Rc<Local>> {
        self.shard.borrow().as_ref()?.serving(id(partition), GENERATION)
    }

    fn state(&self, number: usize) -> Option<ReplicaState> {
        let partition = self.local(number)?;
        if partition.is_blocked() {
            self.outbox.note("blocked probe");
        }
        if partition.is_removed() {
            self.drop_member(number, &partition);
            return None;
        }
        let redirect = partition.redirect();
        let configuration = redirect.members.configuration;
        let member = partition.member();
        // One that is to join holds nothing to be looked at yet.
        if !configuration.contains(member) {
            return None;
        }
        let merges = self.shard.borrow().as_ref().map_or(0, |shard| shard.checkpoints().merges);
        let content = self.looks.borrow_mut().look(number, &partition, merges);
        let report = partition.report();
        self.outbox.watch().applied(number, report.applied.0);
        Some(ReplicaState {
            partition: number,
            applied: report.applied.0,
            content,
            mark: report.mark.map(|mark| (mark.slot.0, mark.content_hash)),
            member: member.0,
            end: report.end.0,
            promised: (report.ballot.round, report.ballot.replica),
            serves: report.leased,
            members: redirect.members.seats().map(sitting).collect(),
            member_max: configuration.id_max.0,
        })
    }
}

async fn answer(partition: &Local, call: &Call, outbox: &cluster::Outbox<Addressed>) -> Option<Answer> {
    let key = key_bytes(call);
    let token = RequestToken {
        session: u128::from(call.token.client) + 1,
        sequence: call.token.sequence,
        lowest: call.lowest_unanswered,
    };
    let terms = Terms { token: Some(token), ..Terms::default() };
    let written = match call.request {
        Request::Get { consistency } => {
            let read = match consistency {
                Consistency::Strong => partition.get(&key).await,
                _ => {
                    let read = partition.get_eventual(&key).await;
                    watching::check_applied(partition, &read, outbox.watch());
                    read
                }
            };
            return Some(read_answer(read));
        }
        Request::Put { value } => {
            let terms = Terms { return_old: true, ..terms };
            partition.write(&key, Change::Put(&item(value)), terms).await
        }
        Request::Delete => partition.write(&key, Change::Delete, terms).await,
        Request::PutIf { expected, value } => {
            let condition = condition(expected);
            let condition = Some(ConditionView::check(&condition).expect("well made"));
            let terms = Terms { condition, return_old_on_failure: true, ..terms };
            partition.write(&key, Change::Put(&item(value)), terms).await
        }
        Request::Increment { by } => {
            let mut update = Update::default();
            update.actions.push(Action::Add(Path::attribute(VALUE), number(by)));
            let program = update.encode();
            let key_item = encode_item(&Attributes::from_iter([("pk", AttributeValue::N(11.into()))]));
            let program = UpdateView::check(&program).expect("well made");
            let terms = Terms { return_new: true, ..terms };
            partition.write(&key, Change::Update { program, key_item: &key_item }, terms).await
        }
    };
    write_answer(call.request, written)
}

fn condition(expected: Image) -> Vec<u8> {
    let mut condition = Condition::default();
    let path = Path::attribute(VALUE);
    condition.test(match expected {
        Image::Absent => Test::NotExists(path),
        Image::Value(value) => {
            Test::Compare(Comparator::Equal, Operand::Path(path), Operand::Value(number(value)))
        }
    });
    condition.encode()
}

fn refused(redirect: &Redirect) -> Answer {
    let seat = redirect.members.seats().find(|seat| Some(seat.member.id) == redirect.leader);
    Answer::Refused { code: RefusalCode::WrongPartition, leader: seat.map(|seat| there(seat.place)) }
}

fn read_answer(read: Result<Option<Rc<[u8]>>, ReadError>) -> Answer {
    match read {
        Ok(stored) => Answer::Settled(Outcome::Ok { returned: Some(image(stored.as_deref())) }),
        Err(ReadError::NotLeader(redirect)) => refused(&redirect),
        Err(ReadError::NotOwned(_)) => Answer::Refused { code: RefusalCode::WrongPartition, leader: None },
        // A page that is damaged; the core says so too.
        Err(ReadError::Engine(_)) => Answer::Refused { code: RefusalCode::Overloaded, leader: None },
        Err(error) => panic!("a read failed: {error}"),
    }
}

fn write_answer(request: Request, written: Result<Written, WriteError>) -> Option<Answer> {
    let outcome = match written {
        Ok(Written::ConditionFailed { old }) => {
            Outcome::ConditionFailed { found: Some(image(old.as_deref())) }
        }
        Ok(Written::Written(written)) => {
            let returned = match request {
                Request::Put { .. } => Some(image(written.old.as_deref())),
                Request::Increment { .. } => Some(image(written.new.as_deref())),
                _ => None,
            };
            Outcome::Ok { returned }
        }
        Err(WriteError::NotLeader(redirect)) => return Some(refused(&redirect)),
        Err(WriteError::Unknown | WriteError::Log(_) | WriteError::Stale) => return None,
        Err(WriteError::NotOwned(_)) => {
            return Some(Answer::Refused { code: RefusalCode::WrongPartition, leader: None });
        }
        Err(WriteError::Refused(_) | WriteError::Read(_)) => {
            return Some(Answer::Refused { code: RefusalCode::Overloaded, leader: None });
        }
        Err(error) => panic!("a write is malformed: {error}"),
    };
    Some(Answer::Settled(outcome))
}
