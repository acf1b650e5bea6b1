//! A cluster that is as small as it can be and still be right: each partition has a home, the first of its
//! members, which logs each write on its disk before it applies and answers it. The other members hold
//! copies for eventual reads; the home sends them its whole state, which is small.

use evenkeel_history::{Consistency, Image, Outcome, Request};
use evenkeel_sim::cluster::{CallToken, ReplicaState};
use evenkeel_sim::{Answer, Call, Core, Order, Outbox, Place, Seat, Shape, Start};
use evenkeel_storage::memory::{MemoryDisk, TestRuntime};
use evenkeel_storage::{BLOCK_BYTES, Disk, FileId, Runtime};
use evenkeel_wire::RefusalCode;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// What a model gets wrong.
pub struct Mistake;

impl Mistake {
    pub const NONE: u8 = 0;
    pub const ANSWER_BEFORE_DURABLE: u8 = 1;
    pub const READ_BEFORE_DURABLE: u8 = 2;
    pub const NO_TOKENS: u8 = 3;
    pub const STRONG_READ_FROM_COPY: u8 = 4;
    pub const COPY_DIFFERS: u8 = 5;
    pub const NO_RECOVERY: u8 = 6;
    pub const ALL_SERVE: u8 = 7;
    pub const NO_SYNC_AT_START: u8 = 8;
    pub const PANIC: u8 = 9;
}

const LOG: FileId = FileId::Segment(0);
const LOG_BLOCKS: u64 = 1024;
const RETRY: Duration = Duration::from_millis(20);
const SHIP: Duration = Duration::from_millis(40);

/// A partition as of a slot.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Content {
    slot: u64,
    images: BTreeMap<usize, Image>,
    /// The last operation of each session, and how it ended.
    settled: BTreeMap<u64, (u64, Outcome)>,
}

/// A write as it stands in the log, one to a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    partition: usize,
    key: usize,
    image: Image,
    token: CallToken,
    returned: Option<Image>,
}

#[derive(Default)]
struct State {
    ready: bool,
    contents: BTreeMap<usize, Content>,
    calls: VecDeque<Call>,
    writer: Option<Waker>,
    blocks: u64,
}

pub struct Model<const MISTAKE: u8> {
    place: Place,
    shape: Rc<Shape>,
    outbox: Outbox<(usize, Content)>,
    state: Rc<RefCell<State>>,
}

impl<const MISTAKE: u8> Clone for Model<MISTAKE> {
    fn clone(&self) -> Self {
        Model {
            place: self.place,
            shape: Rc::clone(&self.shape),
            outbox: self.outbox.clone(),
            state: Rc::clone(&self.state),
        }
    }
}

impl<const MISTAKE: u8> Core for Model<MISTAKE> {
    type Message = (usize, Content);

    /// A home is the only one to have what it has written.
    const OUTLIVES_A_DISK: bool = false;

    fn start(start: Start<Self::Message>) -> Self {
        let Start { place, shape, outbox, disk, runtime, life, .. } = start;
        let model = Model { place, shape, outbox, state: Rc::default() };
        if MISTAKE == Mistake::NO_RECOVERY && life > 3 {
            return model;
        }
        runtime.spawn(model.clone().work(disk, runtime.clone()));
        runtime.spawn(model.clone().ship_for_ever(runtime.clone()));
        model
    }

    fn receive(&self, _from: Place, (partition, content): Self::Message) {
        let mut state = self.state.borrow_mut();
        let mine = state.contents.entry(partition).or_default();
        if mine.slot < content.slot {
            *mine = content;
            if MISTAKE == Mistake::COPY_DIFFERS && mine.slot.is_multiple_of(10) {
                mine.images.insert(partition * self.shape.keys, Image::Value(-1));
            }
        }
    }

    fn serve(&self, call: Call) {
        let members = self.shape.members(call.partition);
        let at_home = members[0] == self.place;
        let strong = call.request != Request::Get { consistency: Consistency::Eventual };
        let reads = !call.request.writes();
        let lax = MISTAKE == Mistake::STRONG_READ_FROM_COPY && reads;
        if strong && !at_home && !lax || !members.contains(&self.place) {
            let code = RefusalCode::WrongPartition;
            return self.outbox.answer(&call, Answer::Refused { code, leader: Some(members[0]) });
        }
        let mut state = self.state.borrow_mut();
        if at_home && !state.ready {
            let code = RefusalCode::Overloaded;
            return self.outbox.answer(&call, Answer::Refused { code, leader: None });
        }
        if reads {
            let image = state.contents.get(&call.partition).and_then(|content| content.images.get(&call.key));
            let returned = Some(image.copied().unwrap_or(Image::Absent));
            return self.outbox.answer(&call, Answer::Settled(Outcome::Ok { returned }));
        }
        state.calls.push_back(call);
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    fn obey(&self, _order: Order) {}

    fn has_stopped(&self) -> bool {
        false
    }

    fn replicas(&self) -> Vec<ReplicaState> {
        let state = self.state.borrow();
        let mine = (0..self.shape.partitions)
            .filter(|&partition| self.shape.members(partition).contains(&self.place));
        let replica = |partition: usize| {
            let content = state.contents.get(&partition).cloned().unwrap_or_default();
            let at_home = self.shape.members(partition)[0] == self.place;
            let image = |(key, image): (&usize, &Image)| {
                let number = if let Image::Value(value) = image { *value } else { i64::MIN };
                (*key as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) ^ number as u128
            };
            ReplicaState {
                partition,
                applied: content.slot,
                members: self.seats(partition).to_vec(),
                member_max: 3,
                member: self.seat(partition).map_or(0, |seat| seat.member),
                end: content.slot,
                mark: None,
                promised: (0, 0),
                content: Some((
                    content.slot,
                    content.images.iter().map(image).fold(0, |sum, hash| sum.rotate_left(5) ^ hash),
                )),
                serves: at_home && state.ready || MISTAKE == Mistake::ALL_SERVE,
            }
        };
        // A home that has not read its log yet holds nothing yet.
        mine.map(replica).filter(|replica| state.ready || replica.applied > 0).collect()
    }
}

impl<const MISTAKE: u8> Model<MISTAKE> {
    fn seats(&self, partition: usize) -> [Seat; 3] {
        let mut member = 0;
        self.shape.members(partition).map(|place| {
            member += 1;
            Seat { member, place, incarnation: 0 }
        })
    }

    fn seat(&self, partition: usize) -> Option<Seat> {
        self.seats(partition).into_iter().find(|seat| seat.place == self.place)
    }

    async fn work(self, disk: MemoryDisk, runtime: TestRuntime) {
        self.recover(&disk, &runtime).await;
        loop {
            let call = self.next_call().await;
            let Some((record, outcome)) = self.judge(&call) else { continue };
            let answer = Answer::Settled(outcome);
            let Some(record) = record else {
                self.outbox.answer(&call, answer);
                continue;
            };
            if MISTAKE == Mistake::ANSWER_BEFORE_DURABLE {
                self.outbox.answer(&call, answer);
            }
            if MISTAKE == Mistake::READ_BEFORE_DURABLE {
                self.apply(&record);
            }
            let block = self.state.borrow().blocks;
            assert!(block < LOG_BLOCKS, "runs are short");
            let mut buffer = disk.buffer(BLOCK_BYTES);
            record.write(block, &mut buffer);
            disk.append(LOG, block * BLOCK_BYTES as u64, buffer, BLOCK_BYTES).await.expect("no disk breaks");
            self.state.borrow_mut().blocks += 1;
            if MISTAKE != Mistake::READ_BEFORE_DURABLE {
                self.apply(&record);
            }
            self.outbox.answer(&call, answer);
            self.ship(record.partition);
        }
    }

    async fn recover(&self, disk: &MemoryDisk, runtime: &TestRuntime) {
        while disk.files().await.expect("no disk breaks").is_empty() {
            if disk.create(LOG, LOG_BLOCKS * BLOCK_BYTES as u64).await.is_err() {
                runtime.sleep(RETRY).await;
            }
        }
        if MISTAKE != Mistake::NO_SYNC_AT_START {
            disk.sync(LOG).await.expect("no disk breaks");
        }
        for block in 0..LOG_BLOCKS {
            let buffer = disk.buffer(BLOCK_BYTES);
            let buffer = disk.read(LOG, block * BLOCK_BYTES as u64, buffer).await.expect("no disk breaks");
            let Some(record) = Record::read(block, &buffer) else {
                if buffer.iter().any(|byte| *byte != 0) {
                    self.outbox.note("cut tail");
                }
                self.state.borrow_mut().blocks = block;
                break;
            };
            self.apply(&record);
        }
        self.state.borrow_mut().ready = true;
    }

    async fn ship_for_ever(self, runtime: TestRuntime) {
        loop {
            runtime.sleep(SHIP).await;
            for partition in 0..self.shape.partitions {
                self.ship(partition);
            }
        }
    }

    fn ship(&self, partition: usize) {
        let [home, copies @ ..] = self.shape.members(partition);
        let state = self.state.borrow();
        let content = state.contents.get(&partition).filter(|_| home == self.place && state.ready);
        for (content, copy) in content.into_iter().flat_map(|content| copies.map(|copy| (content, copy))) {
            self.outbox.send(copy, (partition, content.clone()));
        }
    }

    async fn next_call(&self) -> Call {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            match state.calls.pop_front() {
                Some(call) => Poll::Ready(call),
                None => {
                    state.writer = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// What a write does, and how it ends; nothing if its session has gone on.
    fn judge(&self, call: &Call) -> Option<(Option<Record>, Outcome)> {
        let state = self.state.borrow();
        let content = state.contents.get(&call.partition);
        let settled = content.and_then(|content| content.settled.get(&call.token.client));
        match settled.filter(|_| MISTAKE != Mistake::NO_TOKENS) {
            Some((sequence, _)) if *sequence > call.token.sequence => return None,
            Some((sequence, outcome)) if *sequence == call.token.sequence => return Some((None, *outcome)),
            _ => {}
        }
        let before =
            content.and_then(|content| content.images.get(&call.key)).copied().unwrap_or(Image::Absent);
        let (image, returned) = match call.request {
            Request::Put { value } => (Image::Value(value), Some(before)),
            Request::Delete => (Image::Absent, None),
            Request::PutIf { expected, .. } if expected != before => {
                return Some((None, Outcome::ConditionFailed { found: Some(before) }));
            }
            Request::PutIf { value, .. } => (Image::Value(value), None),
            Request::Increment { by } => {
                let number = if let Image::Value(value) = before { value } else { 0 };
                (Image::Value(number + by), Some(Image::Value(number + by)))
            }
            Request::Get { .. } => unreachable!("reads are not queued"),
        };
        let Call { partition, key, token, .. } = *call;
        Some((Some(Record { partition, key, image, token, returned }), Outcome::Ok { returned }))
    }

    fn apply(&self, record: &Record) {
        let mut state = self.state.borrow_mut();
        let content = state.contents.entry(record.partition).or_default();
        content.slot += 1;
        assert!(MISTAKE != Mistake::PANIC || content.slot < 40, "slot {} is too much", content.slot);
        content.images.insert(record.key, record.image);
        let outcome = Outcome::Ok { returned: record.returned };
        content.settled.insert(record.token.client, (record.token.sequence, outcome));
    }
}

impl Record {
    /// The numbers stand at the beginning of the block and their checksum at its end, so that a torn
    /// block is seen to be torn.
    fn write(&self, block: u64, buffer: &mut [u8]) {
        let image = |image: Option<Image>| match image {
            None => [0, 0],
            Some(Image::Absent) => [1, 0],
            Some(Image::Value(value)) => [2, value.cast_unsigned()],
        };
        let ([tag, value], [old_tag, old_value]) = (image(Some(self.image)), image(self.returned));
        let CallToken { client, sequence } = self.token;
        let numbers =
            [block, self.partition as u64, self.key as u64, client, sequence, tag, value, old_tag, old_value];
        for (bytes, number) in buffer.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        let end = BLOCK_BYTES - 8;
        let checksum = checksum(&buffer[..end]);
        buffer[end..].copy_from_slice(&checksum.to_le_bytes());
    }

    fn read(block: u64, buffer: &[u8]) -> Option<Record> {
        let number = |index: usize| {
            u64::from_le_bytes(buffer[8 * index..8 * index + 8].try_into().expect("eight bytes"))
        };
        let image = |index: usize| match number(index) {
            0 => None,
            1 => Some(Image::Absent),
            _ => Some(Image::Value(number(index + 1).cast_signed())),
        };
        let whole = checksum(&buffer[..BLOCK_BYTES - 8]) == number(BLOCK_BYTES / 8 - 1);
        let image_there = image(5).filter(|_| whole && number(0) == block)?;
        Some(Record {
            partition: number(1) as usize,
            key: number(2) as usize,
            image: image_there,
            token: CallToken { client: number(3), sequence: number(4) },
            returned: image(7),
        })
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    words.fold(0x1234_5678, |sum, word| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29))
}
