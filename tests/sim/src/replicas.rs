//! The real thing: a core of a node as `node/partition` makes it, with its engine, its log and its groups.

use crate::cluster::{self, Answer, Call, Core, Order, REPLICAS, ReplicaState, Shape, Start};
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
    Body, Change, CoreConfig, CoreMessage, GroupMessage, OUTCOMES_KEPT_NS, Outbox, Outcome as Written,
    Partition, Place, RangeRequest, ReadError, Redirect, RequestToken, Seat, Shard, Terms, WriteError,
};
use evenkeel_paxos::{Member, MemberId, MemberKind, Standing};
use evenkeel_storage::memory::{MemoryDisk, TestRuntime};
use evenkeel_storage::{Engine, EngineConfig, Limits, PageSettings, Runtime, WalConfig};
use evenkeel_wire::RefusalCode;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const GENERATION: Generation = Generation(1);
const VALUE: &str = "value";
/// Ids of founders are below this, or at it.
const FOUNDERS: u32 = 3;
const SWAP_PATIENCE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(20);

type Local = Partition<MemoryDisk, TestRuntime>;
type LocalShard = Shard<MemoryDisk, TestRuntime>;

/// One life of a core.
pub struct Replicas {
    at: cluster::Place,
    shape: Rc<Shape>,
    outbox: cluster::Outbox<CoreMessage>,
    runtime: TestRuntime,
    /// Nothing until the log has been read.
    shard: Rc<RefCell<Option<Rc<LocalShard>>>>,
    noticed: RefCell<Noticed>,
}

/// What was noticed already, so that it is counted once.
#[derive(Default)]
struct Noticed {
    segments_recycled: u64,
    checkpoints: u64,
    /// The partitions whose strong reads this core would have answered when it was last looked at.
    serving: BTreeSet<usize>,
}

struct Way(cluster::Outbox<CoreMessage>);

impl Outbox for Way {
    fn send(&self, to: Place, message: CoreMessage) {
        self.0.send(there(to), message);
    }
}

fn place(place: cluster::Place) -> Place {
    let node = NodeId(u32::try_from(place.node).expect("few nodes") + 1);
    Place { node, shard: ShardId(u16::try_from(place.core).expect("few cores")) }
}

fn there(place: Place) -> cluster::Place {
    cluster::Place { node: place.node.0 as usize - 1, core: usize::from(place.shard.0) }
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
        Seat { member: Member { id: MemberId(number), kind: MemberKind::Storage }, place: place(at) }
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

fn config(at: cluster::Place) -> EngineConfig {
    let place = place(at);
    EngineConfig {
        cluster: ClusterId(1),
        node: place.node,
        shard: place.shard,
        wal: WalConfig {
            segment_bytes: 64 * 1024,
            frame_bytes: 16 * 1024,
            frame_bytes_max: 48 * 1024,
            writes_in_flight_max: 2,
            frames_queued_max: 4,
            wal_bytes_max: 16 * 64 * 1024,
            idle_frame_after: Duration::from_millis(10),
            idle_frame_every: Duration::from_secs(1),
        },
        table_bytes_max: 64 * 1024,
        pages: PageSettings {
            step_bytes: 66 * 4096,
            bytes_max: 64 << 20,
            cache_bytes: 64 * 1024,
            limits: Limits { leaf_bytes: 4096, inner_bytes: 4096 },
        },
        notes_ns: OUTCOMES_KEPT_NS,
    }
}

impl Core for Replicas {
    type Message = CoreMessage;

    fn start(start: Start<CoreMessage>) -> Self {
        let Start { place: at, shape, outbox, disk, runtime, life } = start;
        let core = Replicas {
            at,
            shape,
            outbox,
            runtime: runtime.clone(),
            shard: Rc::default(),
            noticed: RefCell::default(),
        };
        let (slot, shape, outbox) = (core.shard.clone(), core.shape.clone(), core.outbox.clone());
        let spawner = runtime.clone();
        spawner.spawn(async move {
            let (engine, recovery) = loop {
                match Engine::open(disk.clone(), runtime.clone(), config(at)).await {
                    Ok(opened) => break opened,
                    Err(error) if error.to_string().contains("create") => runtime.sleep(RETRY).await,
                    Err(error) => panic!("{at} does not open: {error}"),
                }
            };
            if recovery.cut.is_some() {
                outbox.note("cut tail");
            }
            let mut core_config = CoreConfig::new(place(at), Rc::new(Way(outbox.clone())));
            core_config.tail_bytes_max = 2 * 1024;
            let shard =
                Rc::new(Shard::open(engine, runtime.clone(), core_config, &recovery).expect("it opens"));
            *slot.borrow_mut() = Some(shard.clone());
            // Founders are made once: a member that was removed must not come back.
            for partition in (0..shape.partitions).filter(|_| life == 1) {
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

    fn receive(&self, from: cluster::Place, message: CoreMessage) {
        if let CoreMessage::Group(GroupMessage { body: Body::Piece(piece), .. }) = &message
            && piece.last.is_some()
        {
            self.outbox.note("snapshot install");
        }
        if let Some(shard) = &*self.shard.borrow() {
            shard.receive(place(from), message);
        }
    }

    fn serve(&self, call: Call) {
        let Some(partition) = self.local(call.partition) else {
            let code = RefusalCode::WrongPartition;
            return self.outbox.answer(&call, Answer::Refused { code, leader: None });
        };
        let outbox = self.outbox.clone();
        self.runtime.spawn(async move {
            if let Some(answer) = answer(&partition, &call).await {
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
            Order::Swap { partition, remove, add, number } => {
                let member = Member { id: MemberId(FOUNDERS + number), kind: MemberKind::Storage };
                let seat = Seat { member, place: place(add) };
                if add == self.at {
                    self.join(partition, seat);
                } else if let Some(partition) = self.local(partition) {
                    self.swap(partition, place(remove), seat);
                }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.shard.borrow().as_ref().is_some_and(|shard| shard.failure().is_some())
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
        let (recycled, checkpoints) = (shard.statistics().segments_recycled, shard.checkpoints().flips);
        for (event, now, before) in [
            ("segment wrap", recycled, std::mem::replace(&mut noticed.segments_recycled, recycled)),
            ("checkpoint", checkpoints, std::mem::replace(&mut noticed.checkpoints, checkpoints)),
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

    /// Has the member here, if it leads, replace the one at `remove`.
    fn swap(&self, partition: Rc<Local>, remove: Place, add: Seat) {
        let seats: Vec<Seat> = partition.redirect().members.seats().collect();
        let Some(removed) = seats.iter().find(|seat| seat.place == remove) else { return };
        if partition.swap(removed.member.id, add).is_err() {
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

    /// Drops members that a swap has removed.
    fn drop_removed(&self, number: usize, partition: &Local) {
        let Some(shard) = self.shard.borrow().clone().filter(|_| partition.is_removed()) else { return };
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
            self.drop_removed(number, &partition);
            return None;
        }
        let request = RangeRequest {
            lower: &[0],
            upper: None,
            reverse: false,
            items_max: usize::MAX,
            bytes_max: usize::MAX,
            filter: None,
        };
        let mut read = pin!(partition.range_eventual(request));
        let Poll::Ready(Ok(page)) = read.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return None;
        };
        let mut content = 0_u128;
        for byte in page.items.iter().flat_map(|(key, image)| key.iter().chain(image.iter())) {
            content = (content ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
        }
        let members = partition.redirect().members.places.iter().map(|&place| there(place)).collect();
        let (applied, serves) = (page.applied.0, partition.serves());
        Some(ReplicaState { partition: number, applied, content, serves, members })
    }
}

async fn answer(partition: &Local, call: &Call) -> Option<Answer> {
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
                _ => partition.get_eventual(&key).await,
            };
            return read_answer(read);
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

fn read_answer(read: Result<Option<Rc<[u8]>>, ReadError>) -> Option<Answer> {
    Some(match read {
        Ok(stored) => Answer::Settled(Outcome::Ok { returned: Some(image(stored.as_deref())) }),
        Err(ReadError::NotLeader(redirect)) => refused(&redirect),
        Err(ReadError::NotOwned(_)) => Answer::Refused { code: RefusalCode::WrongPartition, leader: None },
        Err(error) => panic!("a read failed: {error}"),
    })
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
