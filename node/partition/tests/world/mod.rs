//! Cores with one member each of one group, on disks in memory, a small network and virtual time.
//!
//! The network delays, loses and repeats messages, and can be cut. A disk's writes complete in any order
//! when nothing else is ready. A core that crashes loses its tasks and the writes that were under way.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]
#![allow(dead_code, reason = "each test file uses its part")]

use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{
    AttributeValue, Attributes, ClusterId, Generation, ItemView, NodeId, PartitionId, ShardId, TableId,
    encode_item,
};
use evenkeel_partition::{
    CoreConfig, CoreMessage, OUTCOMES_KEPT_NS, Outbox, Partition, Place, RangeRequest, Seat, Shard,
};
use evenkeel_paxos::{Member, MemberId, MemberKind, Standing};
use evenkeel_storage::memory::{MemoryDisk, Random, TestRuntime};
use evenkeel_storage::{Engine, EngineConfig, Limits, Mistake, PageSettings, Runtime, WalConfig};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

pub const ID: PartitionId = PartitionId(7);
/// How far apart marks of a group are that is written to.
pub const MARK_INTERVAL: Duration = Duration::from_secs(4);
pub const GENERATION: Generation = Generation(1);

/// Keys and stored items.
pub type Items = Vec<(Vec<u8>, Vec<u8>)>;
pub type TestShard = Shard<MemoryDisk, CoreRuntime>;
pub type TestPartition = Partition<MemoryDisk, CoreRuntime>;

/// The executor as one life of a core sees it: its tasks end with it.
#[derive(Clone)]
pub struct CoreRuntime {
    inner: TestRuntime,
    alive: Rc<Cell<bool>>,
}

impl Runtime for CoreRuntime {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let alive = self.alive.clone();
        let mut task = Some(Box::pin(task));
        self.inner.spawn(poll_fn(move |context| {
            if !alive.get() {
                task = None;
            }
            task.as_mut().map_or(Poll::Ready(()), |task| task.as_mut().poll(context))
        }));
    }

    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn wall_ns(&self) -> u64 {
        self.inner.wall_ns()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        self.inner.sleep(duration)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn errs(&self, mistake: Mistake) -> bool {
        self.inner.errs(mistake)
    }
}

/// What happens to messages.
pub struct Network {
    runtime: TestRuntime,
    random: RefCell<Random>,
    shards: RefCell<Vec<Option<Rc<TestShard>>>>,
    /// One message in this many is lost, and one is repeated; none if 0.
    pub faults: Cell<u64>,
    /// Links that carry nothing, by sender and receiver.
    cut: RefCell<BTreeSet<(usize, usize)>>,
    /// Messages that carried a piece of a snapshot, and the slots of these snapshots.
    pub snapshots: Cell<u64>,
    pub bases: RefCell<BTreeSet<u64>>,
}

impl Network {
    /// The member on a core, if that is up.
    pub fn serving(&self, core: usize) -> Option<Rc<TestPartition>> {
        let shard = self.shards.borrow()[core].clone()?;
        shard.serving(ID, GENERATION)
    }
}

/// The way out of one core.
struct Link {
    network: Rc<Network>,
    from: usize,
}

impl Outbox for Link {
    fn send(&self, to: Place, message: CoreMessage) {
        let (network, from, to) = (self.network.clone(), self.from, to.node.0 as usize - 1);
        let faults = network.faults.get();
        let mut random = network.random.borrow_mut();
        if let CoreMessage::Group(group) = &message
            && let evenkeel_partition::Body::Piece(piece) = &group.body
        {
            network.bases.borrow_mut().insert(piece.base.slot.0);
            network.snapshots.set(network.snapshots.get() + 1);
        }
        if network.cut.borrow().contains(&(from, to)) || faults > 0 && random.once_in(faults) {
            return;
        }
        let copies = if faults > 0 && random.once_in(faults) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = Duration::from_micros(20 + random.below(if faults > 0 { 3000 } else { 100 }));
            let (network, message) = (network.clone(), message.clone());
            self.network.runtime.spawn(async move {
                network.runtime.sleep(delay).await;
                let shard = network.shards.borrow().get(to).cloned().flatten();
                if let Some(shard) = shard.filter(|_| !network.cut.borrow().contains(&(from, to))) {
                    shard.receive(place(from), message);
                }
            });
        }
    }
}

pub fn place(core: usize) -> Place {
    Place { node: NodeId(core as u32 + 1), shard: ShardId(0) }
}

pub fn seat(core: usize) -> Seat {
    let member = Member { id: MemberId(core as u32 + 1), kind: MemberKind::Storage };
    Seat { member, place: place(core) }
}

pub struct World {
    pub runtime: TestRuntime,
    pub random: Random,
    pub network: Rc<Network>,
    disks: Vec<MemoryDisk>,
    alive: Vec<Rc<Cell<bool>>>,
    tail_bytes_max: u64,
    /// No time passes while a disk has anything to do.
    pub are_disks_prompt: bool,
}

impl World {
    /// A group of three, on three cores, and a core more that a member may move to.
    pub fn new(seed: u64, tail_bytes_max: u64) -> World {
        let runtime = TestRuntime::new(seed);
        let network = Rc::new(Network {
            runtime: runtime.clone(),
            random: RefCell::new(Random::new(seed ^ 1)),
            shards: RefCell::new(vec![None; 4]),
            faults: Cell::new(0),
            cut: RefCell::default(),
            snapshots: Cell::new(0),
            bases: RefCell::default(),
        });
        let mut world = World {
            runtime,
            random: Random::new(seed),
            network,
            disks: (0..4).map(|_| MemoryDisk::held()).collect(),
            alive: (0..4).map(|_| Rc::default()).collect(),
            tail_bytes_max,
            are_disks_prompt: false,
        };
        for core in 0..3 {
            world.start(core);
            world.create(core, seat(core).member);
        }
        world
    }

    /// Creates a member on a core.
    pub fn create(&mut self, core: usize, member: Member) {
        let (shard, founders) = (self.shard(core), [seat(0), seat(1), seat(2)]);
        let row = encode_item(&row().to_attributes());
        self.runtime.block_on(&self.disks[core], shard.create_member(ID, &row, &founders, member)).unwrap();
    }

    /// Starts a core on what its disk holds.
    pub fn start(&mut self, core: usize) {
        let alive = Rc::new(Cell::new(true));
        let runtime = CoreRuntime { inner: self.runtime.clone(), alive: alive.clone() };
        self.alive[core] = alive;
        let config = EngineConfig {
            cluster: ClusterId(1),
            node: NodeId(core as u32 + 1),
            shard: ShardId(0),
            wal: WalConfig::new(8 << 20, 64 << 20),
            table_bytes_max: 64 << 20,
            pages: PageSettings {
                step_bytes: 1 << 20,
                bytes_max: 1 << 30,
                cache_bytes: 1 << 20,
                limits: Limits { leaf_bytes: 4096, inner_bytes: 4096 },
            },
            notes_ns: OUTCOMES_KEPT_NS,
        };
        let disk = self.disks[core].clone();
        let opened = self.runtime.block_on(&disk, Engine::open(disk.clone(), runtime.clone(), config));
        let (engine, recovery) = opened.unwrap();
        let outbox = Rc::new(Link { network: self.network.clone(), from: core });
        let mut config = CoreConfig::new(place(core), outbox);
        (config.tail_bytes_max, config.piece_bytes) = (self.tail_bytes_max, 64 << 10);
        config.mark_interval_ns = MARK_INTERVAL.as_nanos() as u64;
        let shard = Shard::open(engine, runtime, config, &recovery).unwrap();
        self.network.shards.borrow_mut()[core] = Some(Rc::new(shard));
    }

    /// Stops a core at once; some sectors of the writes under way are on its disk.
    pub fn crash(&mut self, core: usize) {
        self.alive[core].set(false);
        self.network.shards.borrow_mut()[core] = None;
        let keeps = self.random.below(3);
        let mut random = self.random.clone();
        self.random.bits();
        self.disks[core] = self.disks[core].cut_power(|_, _, _| match keeps {
            0 => false,
            1 => true,
            _ => random.once_in(2),
        });
    }

    pub fn is_up(&self, core: usize) -> bool {
        self.network.shards.borrow()[core].is_some()
    }

    /// Cuts a core off from all others, or joins it again.
    pub fn cut_off(&self, core: usize, cut: bool) {
        for other in (0..4).filter(|&other| other != core) {
            self.cut(core, other, cut);
            self.cut(other, core, cut);
        }
    }

    /// Cuts one direction of a link, or joins it again.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        let mut links = self.network.cut.borrow_mut();
        if cut {
            links.insert((from, to));
        } else {
            links.remove(&(from, to));
        }
    }

    pub fn heal(&self) {
        self.network.cut.borrow_mut().clear();
        self.network.faults.set(0);
    }

    pub fn shard(&self, core: usize) -> Rc<TestShard> {
        self.network.shards.borrow()[core].clone().unwrap()
    }

    pub fn partition(&self, core: usize) -> Rc<TestPartition> {
        self.shard(core).serving(ID, GENERATION).unwrap()
    }

    /// One turn: what is ready runs; then a write completes, or time moves.
    pub fn turn(&mut self) {
        self.runtime.run_ready();
        let busy: Vec<usize> =
            (0..4).filter(|&core| self.is_up(core) && !self.disks[core].in_flight().is_empty()).collect();
        if !busy.is_empty() && (self.are_disks_prompt || !self.random.once_in(4)) {
            let disk = &self.disks[busy[self.random.below(busy.len() as u64) as usize]];
            let flying = disk.in_flight();
            disk.complete(flying[self.random.below(flying.len() as u64) as usize]);
        } else {
            assert!(self.runtime.next_timer(), "support is sent for ever");
        }
    }

    /// Turns until `over`, at most for this long; returns whether it came to that.
    pub fn until(&mut self, patience: Duration, mut over: impl FnMut(&World) -> bool) -> bool {
        let end_ns = self.runtime.now_ns() + patience.as_nanos() as u64;
        while self.runtime.now_ns() < end_ns {
            self.runtime.run_ready();
            if over(self) {
                return true;
            }
            self.turn();
        }
        false
    }

    pub fn pass(&mut self, duration: Duration) {
        self.until(duration, |_| false);
    }

    /// Runs a future with everything else, at most for this long.
    pub fn run<T: 'static>(
        &mut self,
        patience: Duration,
        future: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let result: Rc<RefCell<Option<T>>> = Rc::default();
        let slot = result.clone();
        self.runtime.spawn(async move { *slot.borrow_mut() = Some(future.await) });
        self.until(patience, |_| result.borrow().is_some());
        result.take()
    }

    /// The core whose member leads and answers reads, once there is one.
    pub fn leader(&mut self) -> usize {
        for _ in 0..200 {
            for core in 0..4 {
                if !self.is_up(core) {
                    continue;
                }
                let Some(partition) = self.shard(core).serving(ID, GENERATION) else { continue };
                if partition.standing() != Standing::Leader {
                    continue;
                }
                let read = async move { partition.get(&[11]).await.is_ok() };
                if self.run(Duration::from_secs(2), read) == Some(true) {
                    return core;
                }
            }
            self.pass(Duration::from_millis(100));
        }
        panic!("nobody leads");
    }

    /// Everything applied on a core, and up to which slot.
    pub fn content(&mut self, core: usize) -> (u64, Items) {
        let partition = self.partition(core);
        let read = async move {
            let request = RangeRequest {
                lower: &[0],
                upper: None,
                reverse: false,
                items_max: usize::MAX,
                bytes_max: usize::MAX,
                filter: None,
            };
            let page = partition.range_eventual(request).await.unwrap();
            let items = page.items.iter().map(|(key, image)| (key.to_vec(), image.to_vec())).collect();
            (page.applied.0, items)
        };
        self.run(Duration::from_secs(5), read).expect("an eventual read waits for nobody")
    }

    /// What a member says of itself.
    pub fn describe(&self, core: usize) -> String {
        let partition = self.partition(core);
        let redirect = partition.redirect();
        format!(
            "core {core}: {:?}, applied {}, leader {:?}, members {:?}",
            partition.standing(),
            partition.applied(),
            redirect.leader,
            redirect.members.configuration.ids(),
        )
    }

    /// Waits until these cores have applied the same slot, and checks that they hold the same.
    pub fn settle(&mut self, cores: &[usize]) {
        let same = |world: &World| {
            let applied: BTreeSet<u64> =
                cores.iter().map(|&core| world.partition(core).applied().0).collect();
            applied.len() == 1
        };
        if !self.until(Duration::from_secs(30), same) {
            let states: Vec<String> = cores.iter().map(|&core| self.describe(core)).collect();
            panic!("not all get to the same slot: {states:#?}");
        }
        let contents: Vec<_> = cores.iter().map(|&core| self.content(core)).collect();
        for (at, content) in contents.iter().enumerate() {
            assert!(*content == contents[0], "cores {} and {} differ", cores[at], cores[0]);
        }
    }
}

pub fn row() -> PartitionRow {
    PartitionRow {
        table: TableId(3),
        lower: vec![10],
        upper: Some(vec![20]),
        id: ID,
        generation: GENERATION,
        founders: Vec::new(),
        replicas: Vec::new(),
        unmade: Vec::new(),
    }
}

pub fn item(text: &str) -> Vec<u8> {
    encode_item(&Attributes::from_iter([("text", AttributeValue::S(text.to_owned()))]))
}

pub fn text(stored: &[u8]) -> String {
    match ItemView::check(stored).unwrap().to_attributes().get("text") {
        Some(AttributeValue::S(text)) => text.clone(),
        other => panic!("not an item of this test: {other:?}"),
    }
}

/// The seeds of a random test: the one in `EVENKEEL_SEED`, or the first `count`.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("EVENKEEL_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..count,
    }
}
