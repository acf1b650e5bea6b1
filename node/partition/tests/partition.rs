//! A shard of partitions over the engine and a disk in memory whose writes complete when the test says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]

use evenkeel_expression::{
    Action, Comparator, Condition, ConditionView, Operand, Path, SetOperand, Test, Update, UpdateView,
};
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{
    AttributeValue, Attributes, ClusterId, Generation, ItemView, NodeId, PartitionId, ShardId, Slot, TableId,
    encode_item,
};
use evenkeel_partition::{
    Change, CoreConfig, Counts, OUTCOMES_KEPT_NS, Outcome, Partition, Place, RangeRequest, ReadError, Shard,
    Terms, WriteError, Written,
};
use evenkeel_storage::memory::{MemoryDisk, TestRuntime};
use evenkeel_storage::{Engine, EngineConfig, Limits, PageSettings, Refused, Runtime, WalConfig};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const ID: PartitionId = PartitionId(7);
const GENERATION: Generation = Generation(1);
/// The slot of the first write of a new partition: before it stands the entry by which its leader begins.
const FIRST: Slot = Slot(2);

type TestShard = Shard<MemoryDisk, TestRuntime>;
type TestPartition = Partition<MemoryDisk, TestRuntime>;

fn open(runtime: &TestRuntime, disk: &MemoryDisk, table_bytes_max: u64) -> TestShard {
    let config = EngineConfig {
        cluster: ClusterId(1),
        node: NodeId(1),
        shard: ShardId(0),
        wal: WalConfig::new(8 << 20, 64 << 20),
        table_bytes_max,
        pages: PageSettings {
            step_bytes: 1 << 20,
            bytes_max: 1 << 30,
            cache_bytes: 1 << 20,
            limits: Limits { leaf_bytes: 4096, inner_bytes: 4096 },
        },
        notes_ns: OUTCOMES_KEPT_NS,
    };
    let opened = runtime.block_on(disk, Engine::open(disk.clone(), runtime.clone(), config));
    let (engine, recovery) = opened.unwrap();
    let alone = CoreConfig::alone(Place { node: NodeId(1), shard: ShardId(0) });
    Shard::open(engine, runtime.clone(), alone, &recovery).unwrap()
}

fn row() -> PartitionRow {
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

/// A shard with one partition that owns the keys from 10 to 20, on a disk that completes at once.
fn with_partition(table_bytes_max: u64) -> (TestRuntime, MemoryDisk, TestShard, Rc<TestPartition>) {
    let (runtime, disk) = (TestRuntime::new(1), MemoryDisk::automatic());
    let shard = open(&runtime, &disk, table_bytes_max);
    runtime.block_on(&disk, shard.create(ID, &encode_item(&row().to_attributes()))).unwrap();
    let partition = shard.serving(ID, GENERATION).unwrap();
    // Answered once the partition has chosen its first entry.
    assert_eq!(runtime.block_on(&disk, partition.get(&[11])).unwrap(), None);
    (runtime, disk, shard, partition)
}

fn item(text: &str) -> Vec<u8> {
    encode_item(&Attributes::from_iter([("text", AttributeValue::S(text.to_owned()))]))
}

fn text(stored: &[u8]) -> String {
    match ItemView::check(stored).unwrap().to_attributes().get("text") {
        Some(AttributeValue::S(text)) => text.clone(),
        other => panic!("not an item of this test: {other:?}"),
    }
}

async fn write(
    partition: &TestPartition,
    key: &[u8],
    change: Change<'_>,
    return_old: bool,
) -> Result<Written, WriteError> {
    match partition.write(key, change, Terms { return_old, ..Terms::default() }).await? {
        Outcome::Written(written) => Ok(written),
        Outcome::ConditionFailed { .. } => panic!("there is no condition"),
    }
}

async fn put(
    partition: &TestPartition,
    key: &[u8],
    item: &[u8],
    return_old: bool,
) -> Result<Written, WriteError> {
    write(partition, key, Change::Put(item), return_old).await
}

async fn delete(partition: &TestPartition, key: &[u8], return_old: bool) -> Result<Written, WriteError> {
    write(partition, key, Change::Delete, return_old).await
}

fn old_text(written: &Written) -> Option<String> {
    written.old.as_deref().map(text)
}

#[test]
fn writes_are_read_back_with_their_slot_and_a_rising_timestamp() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    runtime.block_on(&disk, async {
        assert_eq!(put(&partition, &[11], &item("a"), false).await.unwrap().slot, FIRST);
        assert_eq!(put(&partition, &[12], &item("b"), false).await.unwrap().slot, FIRST.next());
        let (a, b) =
            (partition.get(&[11]).await.unwrap().unwrap(), partition.get(&[12]).await.unwrap().unwrap());
        let headers = [&a, &b].map(|stored| ItemView::check(stored).unwrap().header());
        assert_eq!(headers.map(|header| header.slot), [FIRST, FIRST.next()]);
        assert!(headers[0].timestamp < headers[1].timestamp);
        assert_eq!(partition.counts(), Counts { items: 2, bytes: 10 });
        delete(&partition, &[11], false).await.unwrap();
        assert!(partition.get(&[11]).await.unwrap().is_none());
        assert_eq!(partition.counts(), Counts { items: 1, bytes: 5 });
    });
}

#[test]
fn an_old_image_is_the_newest_proposed_one_and_comes_when_the_write_is_durable() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    disk.set_automatic(false);
    let answers: Rc<RefCell<Vec<Option<String>>>> = Rc::default();
    for value in ["a", "b", "c"] {
        let (partition, answers) = (partition.clone(), answers.clone());
        runtime.spawn(async move {
            let written = put(&partition, &[11], &item(value), true).await.unwrap();
            answers.borrow_mut().push(old_text(&written));
        });
    }
    runtime.run_ready();
    assert!(answers.borrow().is_empty(), "nothing is answered before it is durable");
    let unread = runtime.block_on(&MemoryDisk::held(), partition.get(&[11])).unwrap();
    assert!(unread.is_none(), "a read does not see what is not durable");
    while disk.complete_oldest() {
        runtime.run_ready();
    }
    assert_eq!(*answers.borrow(), [None, Some("a".to_owned()), Some("b".to_owned())]);
    let last = runtime.block_on(&disk, delete(&partition, &[11], true)).unwrap();
    assert_eq!(old_text(&last), Some("c".to_owned()));
}

#[test]
fn keys_of_others_and_bad_items_are_refused_and_change_nothing() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    runtime.block_on(&disk, async {
        for key in [&[9u8][..], &[20], &[10, 0][..0]] {
            let refused = put(&partition, key, &item("a"), false).await.unwrap_err();
            assert!(matches!(refused, WriteError::NotOwned(ID) | WriteError::KeyBytes(0)), "{refused}");
        }
        assert!(matches!(partition.get(&[20]).await, Err(ReadError::NotOwned(ID))));
        assert!(matches!(put(&partition, &[11], b"noise", false).await, Err(WriteError::Item(_))));
        let long = vec![11; evenkeel_model::limits::ENCODED_KEY_BYTES_MAX + 1];
        assert!(matches!(delete(&partition, &long, false).await, Err(WriteError::KeyBytes(_))));
        assert_eq!(put(&partition, &[11], &item("a"), false).await.unwrap().slot, FIRST);
    });
}

#[test]
fn at_the_budget_puts_are_refused_until_a_checkpoint_has_made_room() {
    let (runtime, disk, _shard, partition) = with_partition(4096);
    let sleeper = runtime.clone();
    runtime.block_on(&disk, async {
        let large = item(&"x".repeat(3000));
        let mut first = pin!(put(&partition, &[11], &large, false));
        let begun = poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending())).await;
        assert!(begun, "it waits for the log");
        let refused = put(&partition, &[12], &large, false).await.unwrap_err();
        assert!(matches!(refused, WriteError::Refused(Refused::TableFull { .. })), "{refused}");
        first.await.unwrap();
        sleeper.sleep(Duration::from_millis(10)).await;
        let slot = put(&partition, &[12], &large, false).await.unwrap().slot;
        assert_eq!(slot, Slot(FIRST.0 + 1), "the refused write took no slot");
        assert!(partition.get(&[11]).await.unwrap().is_some(), "it is in the tree now");
    });
}

#[test]
fn a_range_is_read_in_both_directions_and_within_the_partition_only() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    runtime.block_on(&disk, async {
        for key in 11..=15u8 {
            put(&partition, &[key], &item(&key.to_string()), false).await.unwrap();
        }
        let range = |reverse, items_max, bytes_max| {
            let partition = partition.clone();
            async move {
                let request =
                    RangeRequest { lower: &[0], upper: None, reverse, items_max, bytes_max, filter: None };
                let page = partition.range(request).await.unwrap();
                assert_eq!(page.applied, Slot(FIRST.0 + 4));
                (page.items.iter().map(|(key, _)| key[0]).collect::<Vec<u8>>(), page.more)
            }
        };
        assert_eq!(range(false, 100, 1 << 20).await, (vec![11, 12, 13, 14, 15], false));
        assert_eq!(range(true, 2, 1 << 20).await, (vec![15, 14], true));
        // Six bytes an item: the second one reaches seven.
        assert_eq!(range(false, 100, 7).await, (vec![11, 12], true));
    });
}

#[test]
fn everything_acknowledged_is_there_after_a_restart_and_slots_go_on() {
    let (runtime, disk, shard, partition) = with_partition(1 << 20);
    runtime.block_on(&disk, put(&partition, &[11], &item("a"), false)).unwrap();
    let crashed = disk.cut_power(|_, _, _| false);
    drop((shard, partition));
    runtime.stop();
    let runtime = TestRuntime::new(2);
    crashed.set_automatic(true);
    let shard = open(&runtime, &crashed, 1 << 20);
    let partition = shard.serving(ID, GENERATION).unwrap();
    assert_eq!(*partition.row(), row());
    runtime.block_on(&crashed, async {
        assert_eq!(text(&partition.get(&[11]).await.unwrap().unwrap()), "a");
        let slot = put(&partition, &[12], &item("b"), false).await.unwrap().slot;
        assert_eq!(slot, Slot(FIRST.0 + 2), "the new reign began with an entry too");
    });
}

#[test]
fn a_partition_is_created_once_and_dropped_once_and_repeating_either_is_fine() {
    let (runtime, disk, shard, partition) = with_partition(1 << 20);
    runtime.block_on(&disk, async {
        put(&partition, &[11], &item("a"), false).await.unwrap();
        shard.create(ID, &encode_item(&row().to_attributes())).await.unwrap();
        assert_eq!(partition.counts().items, 1, "creating again leaves what is there");
        let other = PartitionRow { id: PartitionId(8), ..row() };
        assert!(shard.create(ID, &encode_item(&other.to_attributes())).await.is_err());
        shard.drop_partition(ID, GENERATION).await.unwrap();
        shard.drop_partition(ID, GENERATION).await.unwrap();
        assert!(shard.serving(ID, GENERATION).is_none());
        let late = put(&partition, &[11], &item("b"), false).await.unwrap_err();
        assert!(matches!(late, WriteError::NotOwned(ID)), "{late}");
    });
}

#[test]
fn a_watcher_is_told_of_a_change_or_of_the_end_of_its_patience() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    let seen: Rc<RefCell<Option<Slot>>> = Rc::default();
    let watcher = (partition.clone(), seen.clone());
    runtime.spawn(async move {
        *watcher.1.borrow_mut() = Some(watcher.0.changed(Slot(1), Duration::from_secs(3600)).await);
    });
    runtime.run_ready();
    assert_eq!(*seen.borrow(), None);
    runtime.block_on(&disk, put(&partition, &[11], &item("a"), false)).unwrap();
    runtime.run_ready();
    assert_eq!(*seen.borrow(), Some(FIRST));
    let unchanged = partition.changed(FIRST, Duration::from_millis(5));
    assert_eq!(runtime.block_on(&disk, unchanged), FIRST);
}

/// `text = VALUE`
fn text_is(value: &str) -> Vec<u8> {
    let mut condition = Condition::default();
    let value = Operand::Value(AttributeValue::S(value.to_owned()));
    condition.test(Test::Compare(Comparator::Equal, Operand::Path(Path::attribute("text")), value));
    condition.encode()
}

#[test]
fn a_condition_is_held_against_the_newest_proposed_item_and_its_failure_waits_for_it() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    disk.set_automatic(false);
    let answers: Rc<RefCell<Vec<String>>> = Rc::default();
    for (value, wanted) in [("a", None), ("b", Some("a")), ("c", Some("a")), ("d", Some("b"))] {
        let (partition, answers) = (partition.clone(), answers.clone());
        runtime.spawn(async move {
            let condition = wanted.map(text_is);
            let terms = Terms {
                condition: condition.as_deref().map(|bytes| ConditionView::check(bytes).unwrap()),
                return_old_on_failure: true,
                ..Terms::default()
            };
            let outcome = partition.write(&[11], Change::Put(&item(value)), terms).await.unwrap();
            answers.borrow_mut().push(match outcome {
                Outcome::Written(_) => format!("{value} written"),
                Outcome::ConditionFailed { old } => format!("{value} failed for {}", text(&old.unwrap())),
            });
        });
    }
    runtime.run_ready();
    assert!(answers.borrow().is_empty(), "nothing is durable yet: {:?}", answers.borrow());
    while disk.complete_oldest() {
        runtime.run_ready();
    }
    let found = runtime.block_on(&disk, partition.get(&[11])).unwrap().unwrap();
    assert_eq!(text(&found), "d");
    let mut answers = answers.borrow().clone();
    answers.sort();
    assert_eq!(answers, ["a written", "b written", "c failed for b", "d written"]);
}

#[test]
fn an_update_changes_the_item_or_makes_it_from_its_key() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    let mut update = Update::default();
    let value = update.operand(SetOperand::Value(AttributeValue::S("new".to_owned())));
    update.actions.push(Action::Set(Path::attribute("text"), value));
    update.actions.push(Action::Add(Path::attribute("count"), AttributeValue::N(1.into())));
    let program = update.encode();
    let key_item = encode_item(&Attributes::from_iter([("pk", AttributeValue::N(11.into()))]));
    runtime.block_on(&disk, async {
        for count in 1..=3u64 {
            let change =
                Change::Update { program: UpdateView::check(&program).unwrap(), key_item: &key_item };
            let terms = Terms { return_old: true, return_new: true, ..Terms::default() };
            let Outcome::Written(written) = partition.write(&[11], change, terms).await.unwrap() else {
                panic!("there is no condition")
            };
            assert_eq!((written.slot, written.old.is_some()), (Slot(FIRST.0 + count - 1), count > 1));
            let new = ItemView::check(&written.new.unwrap()).unwrap().to_attributes();
            let expected = [
                ("pk", AttributeValue::N(11.into())),
                ("text", AttributeValue::S("new".to_owned())),
                ("count", AttributeValue::N(count.into())),
            ];
            assert_eq!(new, Attributes::from_iter(expected));
        }
    });
}

#[test]
fn a_filter_leaves_items_out_but_limits_count_them() {
    let (runtime, disk, _shard, partition) = with_partition(1 << 20);
    runtime.block_on(&disk, async {
        for key in 11..16u8 {
            put(&partition, &[key], &item(if key % 2 == 0 { "even" } else { "odd" }), false).await.unwrap();
        }
        let filter = text_is("even");
        let request = RangeRequest {
            lower: &[0],
            upper: None,
            reverse: false,
            items_max: 3,
            bytes_max: usize::MAX,
            filter: Some(ConditionView::check(&filter).unwrap()),
        };
        let page = partition.range(request).await.unwrap();
        let keys: Vec<u8> = page.items.iter().map(|(key, _)| key[0]).collect();
        assert_eq!((keys, page.scanned, page.more), (vec![12], 3, true));
        assert_eq!(page.last.as_deref(), Some(&[13][..]));
    });
}
