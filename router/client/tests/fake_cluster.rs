//! The client against a cluster that is told when to misbehave.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod fake;

use evenkeel_client::{Client, Consistency, CreateTable, Error, Query, RangeRequest, SortCondition};
use evenkeel_model::catalogue::{TableRow, TableStatus};
use evenkeel_model::key::encode_key;
use evenkeel_model::{
    AttributeValue, Attributes, ClusterId, KeyType, KeyValue, NodeId, Number, PartitionId, encode_item,
};
use evenkeel_wire::{Kind, RefusalCode};
use fake::{Action, Cluster, table_row};
use std::time::Duration;

const SMALL_LANE: u64 = 0;
const BULK_LANE: u64 = 1;

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(Number::from(value))
}

fn key(pk: &str) -> Attributes {
    Attributes::from_iter([("pk", text(pk))])
}

fn item(pk: &str, value: u64) -> Attributes {
    Attributes::from_iter([("pk", text(pk)), ("v", number(value))])
}

/// One node, one client, one table `plain` in one partition.
async fn plain() -> (Cluster, Client) {
    let cluster = Cluster::start(1);
    cluster.add_table(&table_row(5, "plain", None), 1);
    let client = cluster.client().await;
    (cluster, client)
}

/// Lets other tasks run until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect("it becomes so");
}

#[tokio::test]
async fn items_are_written_read_and_deleted() {
    let (_cluster, client) = plain().await;
    assert_eq!(client.get("plain", key("a")).await, Ok(None));
    client.put("plain", item("a", 1)).await.unwrap();
    assert_eq!(client.get("plain", key("a")).await, Ok(Some(item("a", 1))));
    let table = client.table("plain").await.unwrap();
    let encoded = encode_key(&KeyValue::S("a".to_owned()), None);
    let old = client.put_encoded(&table, &encoded, &encode_item(&item("a", 2)), true).await.unwrap().unwrap();
    assert_eq!(old.view().unwrap().to_attributes(), item("a", 1));
    let old = client.delete_encoded(&table, &encoded, true).await.unwrap().unwrap();
    assert_eq!(old.view().unwrap().to_attributes(), item("a", 2));
    client.delete("plain", key("a")).await.unwrap();
    assert_eq!(client.get("plain", key("a")).await, Ok(None));
}

#[tokio::test]
async fn what_is_invalid_is_refused_before_it_is_sent() {
    let (cluster, client) = plain().await;
    let nameless = Attributes::from_iter([("v", number(1))]);
    assert!(matches!(client.put("plain", nameless.clone()).await, Err(Error::Invalid { .. })));
    assert!(matches!(client.get("plain", nameless.clone()).await, Err(Error::Invalid { .. })));
    assert!(matches!(client.delete("plain", nameless).await, Err(Error::Invalid { .. })));
    assert_eq!(cluster.seen(Kind::Put) + cluster.seen(Kind::Get) + cluster.seen(Kind::Delete), 0);
}

#[tokio::test]
async fn a_scan_visits_every_item_of_every_partition_once() {
    let cluster = Cluster::start(2);
    cluster.add_table(&table_row(5, "spread", None), 5);
    let client = cluster.client().await;
    for at in 0..40 {
        client.put("spread", item(&format!("key {at}"), at)).await.unwrap();
    }
    for limit in [None, Some(1), Some(7), Some(40), Some(41)] {
        let (mut values, mut after) = (Vec::new(), None);
        loop {
            let page = client.scan("spread", limit, after.as_ref()).await.unwrap();
            assert!(page.items.len() <= limit.unwrap_or(u32::MAX) as usize);
            values.extend(page.items.iter().map(|item| item.get("v").unwrap().clone()));
            match page.after {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        assert_eq!(values.len(), 40, "limit {limit:?}");
        assert!((0..40).all(|at| values.contains(&number(at))), "limit {limit:?}");
    }
    let table = client.table("spread").await.unwrap();
    assert_eq!(client.table_counts(&table).await.unwrap().0, 40);
}

#[tokio::test]
async fn a_range_walks_partitions_in_key_order_and_says_whether_it_ended() {
    let cluster = Cluster::start(2);
    cluster.add_table(&table_row(5, "spread", None), 4);
    let client = cluster.client().await;
    let table = client.table("spread").await.unwrap();
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for at in 0..30 {
        let name = KeyValue::S(format!("key {at}"));
        keys.push(encode_key(&name, None));
        client.put("spread", item(&format!("key {at}"), at)).await.unwrap();
    }
    keys.sort();
    let size = item("key 00", 10).size_bytes() as u32;
    for reverse in [false, true] {
        let whole = RangeRequest {
            lower: vec![],
            upper: None,
            consistency: Consistency::Strong,
            reverse,
            items_max: 1000,
            bytes_max: u32::MAX,
            filter: None,
        };
        let inner = RangeRequest { lower: keys[3].clone(), upper: Some(keys[27].clone()), ..whole.clone() };
        let cases = [
            (whole.clone(), 0..30, false),
            (RangeRequest { items_max: 30, ..whole.clone() }, 0..30, true),
            (RangeRequest { items_max: 11, ..whole.clone() }, 0..11, true),
            (RangeRequest { bytes_max: 1, ..whole.clone() }, 0..1, true),
            (inner.clone(), 3..27, false),
            (RangeRequest { items_max: 5, ..inner.clone() }, 3..8, true),
            (RangeRequest { upper: Some(keys[3].clone()), ..inner.clone() }, 3..3, false),
        ];
        for (request, expected, more) in cases {
            let page = client.range_encoded(&table, &request).await.unwrap();
            let found: Vec<&[u8]> = page.rows().map(|(key, _)| key).collect();
            let mut expected: Vec<&[u8]> = keys[expected].iter().map(Vec::as_slice).collect();
            if reverse {
                let end =
                    request.upper.as_ref().map_or(30, |upper| keys.iter().filter(|k| *k < upper).count());
                expected = keys[end - expected.len()..end].iter().rev().map(Vec::as_slice).collect();
            }
            assert_eq!((found, page.more), (expected, more), "{request:?}");
        }
        let some = RangeRequest { bytes_max: 4 * size, ..whole };
        assert!((4..=6).contains(&client.range_encoded(&table, &some).await.unwrap().len()));
    }
}

#[tokio::test]
async fn a_query_returns_one_collection_in_order_in_either_direction() {
    let cluster = Cluster::start(1);
    cluster.add_table(&table_row(6, "sorted", Some(KeyType::N)), 2);
    let client = cluster.client().await;
    for pk in ["a", "b", "c"] {
        for sk in 0..10 {
            let item = Attributes::from_iter([("pk", text(pk)), ("sk", number(sk))]);
            client.put("sorted", item).await.unwrap();
        }
    }
    let from = |sk: u64| SortCondition::GreaterOrEqual(KeyValue::N(Number::from(sk)));
    for (sort, reverse, expected) in [
        (SortCondition::All, false, (0..10).collect::<Vec<u64>>()),
        (SortCondition::All, true, (0..10).rev().collect()),
        (from(6), false, (6..10).collect()),
        (from(6), true, (6..10).rev().collect()),
    ] {
        let mut query = Query { sort, reverse, limit: Some(3), ..Query::new(KeyValue::S("b".to_owned())) };
        let mut found = Vec::new();
        loop {
            let page = client.query("sorted", &query).await.unwrap();
            found.extend(page.items.iter().map(|item| item.get("sk").unwrap().clone()));
            match page.after {
                Some(key) => query.after = Some(key),
                None => break,
            }
        }
        assert_eq!(found, expected.into_iter().map(number).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_partition_that_has_moved_is_found_again() {
    let cluster = Cluster::start(2);
    cluster.add_table(&table_row(5, "plain", None), 1);
    let client = cluster.client().await;
    client.put("plain", item("a", 1)).await.unwrap();
    cluster.move_partition(PartitionId(500), NodeId(2));
    client.put("plain", item("a", 2)).await.unwrap();
    assert_eq!(client.get("plain", key("a")).await, Ok(Some(item("a", 2))));
    assert!(client.statistics().retries <= 1, "{:?}", client.statistics());
}

#[tokio::test]
async fn a_busy_node_is_asked_again() {
    let (cluster, client) = plain().await;
    for code in [RefusalCode::Overloaded, RefusalCode::TableFull, RefusalCode::LogFull] {
        cluster.next(Kind::Put, Action::Refuse(code));
    }
    client.put("plain", item("a", 1)).await.unwrap();
    assert_eq!((client.statistics().retries, cluster.seen(Kind::Put)), (3, 4));
}

#[tokio::test]
async fn a_node_that_stays_busy_is_not_asked_for_ever() {
    let cluster = Cluster::start(1);
    cluster.add_table(&table_row(5, "plain", None), 1);
    let mut config = cluster.config();
    config.retry.attempts_max = 3;
    let client = Client::connect(config).await.unwrap();
    for _ in 0..10 {
        cluster.next(Kind::Put, Action::Refuse(RefusalCode::Overloaded));
    }
    let error = client.put("plain", item("a", 1)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Overloaded { message } if message == "Overloaded by the fake"),
        "{error}"
    );
    assert!(error.is_retry_safe());
    assert_eq!((cluster.seen(Kind::Put), client.statistics().errors_overloaded), (3, 1));
}

#[tokio::test]
async fn refusals_for_good_are_told_as_what_they_are() {
    let (cluster, client) = plain().await;
    type Case = (RefusalCode, fn(&Error) -> bool);
    let cases: [Case; 5] = [
        (RefusalCode::Invalid, |error| matches!(error, Error::Invalid { .. })),
        (RefusalCode::Forbidden, |error| matches!(error, Error::Forbidden { .. })),
        (RefusalCode::Expired, |error| matches!(error, Error::Expired { .. })),
        (RefusalCode::Damaged, |error| matches!(error, Error::Damaged { .. })),
        (RefusalCode::Unsupported, |error| matches!(error, Error::Internal { .. })),
    ];
    for (at, (code, is_expected)) in cases.into_iter().enumerate() {
        cluster.next(Kind::Put, Action::Refuse(code));
        let error = client.put("plain", item("a", 1)).await.unwrap_err();
        assert!(is_expected(&error), "{code:?}: {error}");
        assert_eq!(cluster.seen(Kind::Put), at + 1);
    }
}

#[tokio::test]
async fn an_attempt_that_says_nothing_of_what_it_did_is_repeated_and_writes_under_one_token() {
    let actions: [fn() -> Action; 5] = [
        || Action::CloseConnection,
        || Action::Refuse(RefusalCode::Failed),
        || Action::Refuse(RefusalCode::Unknown),
        || Action::Garbage,
        || Action::FlippedBit,
    ];
    for (at, action) in actions.into_iter().enumerate() {
        let (cluster, client) = plain().await;
        cluster.next(Kind::Put, action());
        client.put("plain", item("a", 1)).await.unwrap();
        client.put("plain", item("a", 2)).await.unwrap();
        let tokens = cluster.tokens();
        assert_eq!((tokens.len(), client.statistics().retries), (3, 1), "action {at}");
        assert_eq!(tokens[0], tokens[1], "action {at}: repeated under the same token");
        assert!(tokens[1].0 == tokens[2].0 && tokens[1].1 < tokens[2].1, "action {at}: {tokens:?}");
        cluster.next(Kind::Get, action());
        assert!(client.get("plain", key("a")).await.is_ok(), "action {at}");
        assert_eq!(cluster.seen(Kind::Get), 2, "action {at}");
    }
}

#[tokio::test]
async fn a_write_that_may_have_happened_and_is_not_answered_has_an_unknown_outcome() {
    let cluster = Cluster::start(1);
    cluster.add_table(&table_row(5, "plain", None), 1);
    let mut config = cluster.config();
    config.retry.attempts_max = 2;
    let client = Client::connect(config).await.unwrap();
    for action in [Action::CloseConnection, Action::Refuse(RefusalCode::Invalid)] {
        cluster.next(Kind::Put, action);
    }
    let error = client.put("plain", item("a", 1)).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }) && !error.is_retry_safe(), "{error}");
    let statistics = client.statistics();
    assert_eq!((cluster.seen(Kind::Put), statistics.errors_outcome_unknown), (2, 1));
    assert!(statistics.connections_lost >= 1 && statistics.connections >= 2, "{statistics:?}");
}

#[tokio::test]
async fn a_write_is_sent_over_a_new_connection_if_the_old_one_was_lost_before() {
    let (cluster, client) = plain().await;
    let mut held = cluster.hold(Kind::Get, 1);
    let table = client.table("plain").await.unwrap();
    let (got, ()) = tokio::join!(client.get_encoded(&table, b"k", Consistency::Strong), async {
        held.recv().await.unwrap().close_connection();
    });
    assert_eq!(got, Ok(None));
    client.put("plain", item("a", 1)).await.unwrap();
    assert_eq!(cluster.seen(Kind::Put), 1);
}

#[tokio::test]
async fn requests_that_come_together_make_one_connection() {
    let cluster = Cluster::start(2);
    cluster.add_table(&table_row(5, "spread", None), 2);
    let client = cluster.client().await;
    let before = client.statistics().connections;
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..100 {
        let client = client.clone();
        tasks.spawn(async move { client.put("spread", item(&format!("key {at}"), at)).await });
    }
    assert!(tasks.join_all().await.into_iter().all(|result| result.is_ok()));
    // Node 1 holds the catalogue and was connected to already.
    assert!(client.statistics().connections <= before + 1, "{:?}", client.statistics());
}

#[tokio::test]
async fn no_answer_ends_at_the_deadline_and_a_late_one_is_dropped() {
    let cluster = Cluster::start(1);
    cluster.add_table(&table_row(5, "plain", None), 1);
    let mut config = cluster.config();
    config.timeout = Duration::from_millis(50);
    let client = Client::connect(config).await.unwrap();
    let mut held = cluster.hold(Kind::Get, 1);
    assert!(matches!(client.get("plain", key("a")).await, Err(Error::Expired { .. })));
    held.recv().await.unwrap().answer().await;
    until(|| client.statistics().late_answers == 1).await;
    let _held = cluster.hold(Kind::Put, 1);
    assert!(matches!(client.put("plain", item("a", 1)).await, Err(Error::OutcomeUnknown { .. })));
    assert_eq!(client.statistics().errors_expired, 1);
}

#[tokio::test]
async fn malformed_frames_end_the_connection_and_nothing_else() {
    for action in [|| Action::Garbage, || Action::FlippedBit] {
        let (cluster, client) = plain().await;
        cluster.next(Kind::Put, action());
        assert_eq!(client.put("plain", item("a", 1)).await, Ok(()));
        cluster.next(Kind::Get, action());
        assert!(client.get("plain", key("a")).await.is_ok());
        assert_eq!(client.statistics().malformed_frames, 2);
    }
}

#[tokio::test]
async fn a_thousand_requests_are_answered_in_reverse() {
    let (cluster, client) = plain().await;
    for at in 0..1000 {
        client.put("plain", item(&format!("key {at}"), at)).await.unwrap();
    }
    let mut held = cluster.hold(Kind::Get, 1000);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..1000 {
        let client = client.clone();
        tasks.spawn(async move {
            let name = format!("key {at}");
            assert_eq!(client.get("plain", key(&name)).await, Ok(Some(item(&name, at))));
        });
    }
    let mut requests = Vec::new();
    while requests.len() < 1000 {
        requests.push(held.recv().await.unwrap());
    }
    for request in requests.into_iter().rev() {
        request.answer().await;
    }
    tasks.join_all().await;
    assert_eq!(client.statistics().retries, 0);
}

#[tokio::test]
async fn a_client_is_used_from_several_threads_at_once() {
    let (cluster, client) = plain().await;
    let table = client.table("plain").await.unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (client, table) = (client.clone(), table.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut tasks = tokio::task::JoinSet::new();
                    for at in 0..200 {
                        let (client, table) = (client.clone(), table.clone());
                        let key = encode_key(&KeyValue::S(format!("{thread} {at}")), None);
                        let written = encode_item(&item(&format!("{thread} {at}"), at));
                        tasks.spawn(async move {
                            client.put_encoded(&table, &key, &written, false).await.unwrap();
                            let read =
                                client.get_encoded(&table, &key, Consistency::Strong).await.unwrap().unwrap();
                            assert_eq!(&*read, &written[..]);
                        });
                    }
                    tasks.join_all().await;
                });
            })
        })
        .collect();
    until(|| threads.iter().all(std::thread::JoinHandle::is_finished)).await;
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((cluster.seen(Kind::Put), client.statistics().connections), (800, 1));
}

#[tokio::test]
async fn requests_beyond_the_limit_in_flight_wait_for_their_turn() {
    const LIMIT: usize = evenkeel_client::limits::REQUESTS_IN_FLIGHT_MAX;
    let (cluster, client) = plain().await;
    let mut held = cluster.hold(Kind::Get, LIMIT);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..LIMIT + 100 {
        let client = client.clone();
        tasks.spawn(async move { client.get("plain", key("a")).await });
    }
    let mut requests = Vec::new();
    // The watcher of the catalogue may have one place.
    while requests.len() < LIMIT - 1 {
        requests.push(held.recv().await.unwrap());
    }
    assert!(cluster.seen(Kind::Get) <= LIMIT);
    for request in requests {
        request.answer().await;
    }
    until(|| cluster.seen(Kind::Get) == LIMIT + 100).await;
    held.recv().await.unwrap().answer().await;
    assert!(tasks.join_all().await.into_iter().all(|result| result == Ok(None)));
}

#[tokio::test]
async fn large_requests_take_the_bulk_lane() {
    let (cluster, client) = plain().await;
    let large = Attributes::from_iter([("pk", text("large")), ("v", text(&"x".repeat(400 * 1000)))]);
    client.put("plain", large.clone()).await.unwrap();
    client.put("plain", item("small", 1)).await.unwrap();
    assert_eq!(client.get("plain", key("large")).await, Ok(Some(large)));
    assert_eq!(client.scan("plain", None, None).await.unwrap().items.len(), 2);
    assert_eq!(cluster.lanes_of(Kind::Put), [BULK_LANE, SMALL_LANE]);
    assert_eq!(cluster.lanes_of(Kind::Get), [SMALL_LANE]);
    assert!(cluster.lanes_of(Kind::Range).iter().all(|lane| *lane == BULK_LANE));
}

#[tokio::test]
async fn more_than_a_connection_can_hold_is_sent_all_the_same() {
    let (cluster, client) = plain().await;
    let blob = "x".repeat(200 * 1000);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..100 {
        let client = client.clone();
        let large = Attributes::from_iter([("pk", text(&format!("key {at}"))), ("v", text(&blob))]);
        tasks.spawn(async move { client.put("plain", large).await });
    }
    assert!(tasks.join_all().await.into_iter().all(|result| result == Ok(())));
    let table = client.table("plain").await.unwrap();
    assert_eq!(client.table_counts(&table).await.unwrap().0, 100);
    assert_eq!(cluster.seen(Kind::Put), 100);
}

#[tokio::test]
async fn each_seed_that_fails_is_named_and_one_that_works_is_enough() {
    let cluster = Cluster::start(1);
    let mut config = cluster.config();
    config.seeds = vec!["no.such.host.invalid:1".to_owned(), "not an address".to_owned()];
    match Client::connect(config.clone()).await.err() {
        Some(Error::Seeds { seeds }) => {
            let named: Vec<_> = seeds.iter().map(|seed| seed.address.as_str()).collect();
            assert_eq!(named, ["no.such.host.invalid:1", "not an address"]);
        }
        other => panic!("{other:?}"),
    }
    config.seeds.push(cluster.seed(0));
    Client::connect(config).await.unwrap();
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let cluster = Cluster::start(1);
    let mut config = cluster.config();
    config.cluster = Some(fake::CLUSTER);
    Client::connect(config.clone()).await.unwrap();
    config.cluster = Some(ClusterId(1));
    let error = Client::connect(config).await.err().unwrap();
    assert!(error.to_string().contains("Mismatch by the fake"), "{error}");
}

#[tokio::test]
async fn any_node_leads_to_the_catalogue() {
    let cluster = Cluster::start(2);
    cluster.add_table(&table_row(5, "plain", None), 1);
    let mut config = cluster.config();
    config.seeds = vec![cluster.seed(1)];
    let client = Client::connect(config).await.unwrap();
    client.put("plain", item("a", 1)).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_requests_for_absent_tables_reads_the_catalogue_at_a_bounded_rate() {
    let (_cluster, client) = plain().await;
    let (before, begun) = (client.statistics().catalogue_reads, std::time::Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let client = client.clone();
        tasks.spawn(async move { client.get("absent", key("a")).await });
    }
    let absent = Err(Error::TableNotFound { table: "absent".to_owned() });
    assert!(tasks.join_all().await.into_iter().all(|result| result == absent));
    let intervals =
        begun.elapsed().as_millis() / evenkeel_client::limits::CATALOGUE_READ_INTERVAL.as_millis();
    let reads = u128::from(client.statistics().catalogue_reads - before);
    assert!(reads <= intervals + 1, "{reads} readings in {intervals} intervals");
}

#[tokio::test]
async fn tables_made_by_others_are_found_and_followed() {
    let (cluster, client) = plain().await;
    until(|| cluster.seen(Kind::Watch) == 1).await;
    let before = client.statistics().catalogue_reads;
    cluster.add_table(&table_row(7, "later", None), 3);
    until(|| client.statistics().catalogue_reads > before && cluster.seen(Kind::Watch) > 1).await;
    assert_eq!(*client.table("later").await.unwrap(), table_row(7, "later", None));
    client.put("later", item("a", 1)).await.unwrap();
}

#[tokio::test]
async fn a_catalogue_that_comes_back_is_followed_again() {
    let (cluster, client) = plain().await;
    until(|| cluster.seen(Kind::Watch) == 1).await;
    cluster.next(Kind::Watch, Action::CloseConnection);
    cluster.next(Kind::Hello, Action::CloseConnection);
    cluster.add_table(&table_row(7, "later", None), 1);
    until(|| cluster.seen(Kind::Watch) >= 3).await;
    client.put("later", item("a", 1)).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_not_ready_is_said_to_be_so() {
    let cluster = Cluster::start(1);
    let row = TableRow { status: TableStatus::Creating, ..table_row(5, "young", None) };
    cluster.add_table(&row, 1);
    let old = TableRow { status: TableStatus::Deleting, ..table_row(6, "old", None) };
    cluster.add_table(&old, 1);
    let client = cluster.client().await;
    assert_eq!(*client.table("young").await.unwrap(), row);
    assert_eq!(client.table("old").await, Err(Error::TableNotFound { table: "old".to_owned() }));
    assert_eq!(client.table("").await, Err(Error::TableNotFound { table: String::new() }));
    assert_eq!(client.describe_table("old").await, Ok(old));
    let gone = table_row(99, "gone", None);
    let result = client.get_encoded(&gone, b"key", Consistency::Strong).await;
    assert_eq!(result, Err(Error::TableNotFound { table: "gone".to_owned() }));
}

#[tokio::test]
async fn tables_are_listed_in_pages_and_described() {
    let cluster = Cluster::start(1);
    for (id, name) in [(5, "alpha"), (6, "beta"), (7, "gamma")] {
        cluster.add_table(&table_row(id, name, None), 1);
    }
    let client = cluster.client().await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(client.list_tables(None, 2).await, Ok((names(&["alpha", "beta"]), true)));
    assert_eq!(client.list_tables(Some("beta"), 2).await, Ok((names(&["gamma"]), false)));
    assert_eq!(client.list_tables(None, 3).await, Ok((names(&["alpha", "beta", "gamma"]), false)));
    assert_eq!(client.describe_table("beta").await, Ok(table_row(6, "beta", None)));
    let absent = Error::TableNotFound { table: "delta".to_owned() };
    assert_eq!(client.describe_table("delta").await, Err(absent));
}

#[tokio::test]
async fn tables_are_created_and_deleted_beside_the_catalogue() {
    let (cluster, client) = plain().await;
    let request = CreateTable::new("new", table_row(1, "new", None).schema);
    let made = client.create_table(request.clone()).await.unwrap();
    assert_eq!((made.name.as_str(), made.status), ("new", TableStatus::Creating));
    cluster.next(Kind::CreateTable, Action::Refuse(RefusalCode::TableExists));
    assert!(matches!(client.create_table(request).await, Err(Error::TableExists { .. })));
    let absent = Error::TableNotFound { table: "absent".to_owned() };
    assert_eq!(client.delete_table("absent").await, Err(absent));
    assert!(matches!(client.delete_table("protected").await, Err(Error::Protected { .. })));
}

#[tokio::test]
async fn the_last_clone_takes_the_connections_with_it() {
    let (cluster, client) = plain().await;
    let clone = client.clone();
    drop(client);
    clone.put("plain", item("a", 1)).await.unwrap();
    drop(clone);
    until(|| cluster.open_connections() == 0).await;
}

#[tokio::test]
async fn a_closed_client_says_so() {
    let (cluster, client) = plain().await;
    client.close().await;
    assert_eq!(client.put("plain", item("a", 1)).await, Err(Error::Closed));
    assert_eq!(client.table("absent").await, Err(Error::Closed));
    until(|| cluster.open_connections() == 0).await;
}

#[tokio::test]
async fn a_node_that_is_gone_is_unavailable() {
    let cluster = Cluster::start(2);
    cluster.add_table(&table_row(5, "spread", None), 2);
    let mut config = cluster.config();
    config.timeout = Duration::from_millis(300);
    let client = Client::connect(config).await.unwrap();
    cluster.stop_node(1);
    let mut failed = 0;
    for at in 0..10 {
        match client.put("spread", item(&format!("key {at}"), at)).await {
            Ok(()) => {}
            Err(Error::Unavailable { .. } | Error::Expired { .. }) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..10).contains(&failed), "{failed}");
}
