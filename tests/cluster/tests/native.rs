//! The whole path by the native client, on the same data as the HTTP API.

use evenkeel_client::{Client, Consistency, CreateTable, Error, Query, RangeRequest, SortCondition};
use evenkeel_cluster_tests::data::{every_type, random_item, typed};
use evenkeel_cluster_tests::{Dev, Random, data_directory, native};
use evenkeel_model::catalogue::{self, PartitionRow, TableRow, TableStatus, partitions_prefix};
use evenkeel_model::key::{encode_item_key, successor};
use evenkeel_model::{
    AttributeValue, Attributes, ItemView, KeyAttribute, KeySchema, KeyType, KeyValue, NodeId, TableId,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn key(partition: &str, sort: &str) -> Attributes {
    [("pk", text(partition)), ("sk", text(sort))].into_iter().collect()
}

fn key_of(item: &Attributes) -> Attributes {
    ["pk", "sk"].map(|name| (name, item.get(name).expect("a key attribute").clone())).into_iter().collect()
}

fn schema() -> KeySchema {
    let attribute = |name: &str| KeyAttribute { name: name.to_owned(), key_type: KeyType::S };
    KeySchema { partition: attribute("pk"), sort: Some(attribute("sk")) }
}

fn request(name: &str) -> CreateTable {
    CreateTable::new(name, schema())
}

async fn create(client: &Client, name: &str) -> TableRow {
    let made = client.create_table(request(name)).await.expect("no such table yet");
    assert_eq!(made.status, TableStatus::Creating);
    loop {
        let row = client.describe_table(name).await.expect("it was made");
        if row.status == TableStatus::Active {
            assert_eq!((row.id, &row.schema), (made.id, &schema()));
            return row;
        }
    }
}

/// Everything that pages of at most `limit` items hold.
async fn scan(client: &Client, table: &str, limit: u32) -> Vec<Attributes> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let page = client.scan(table, Some(limit), after.as_ref()).await.expect("the table is there");
        assert!(page.items.len() <= limit as usize);
        items.extend(page.items);
        match page.after {
            None => return items,
            next => after = next,
        }
    }
}

#[tokio::test]
async fn what_one_path_writes_the_other_reads() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let client = native::connect(&dev.client_file()).await;
    let http = &mut dev.http().await;
    create(&client, "shared").await;
    let mut random = Random::from_environment();
    let mut items: Vec<Attributes> =
        (0..300).map(|n| random_item(&format!("p{}", n % 40), &format!("s{n}"), &mut random)).collect();
    let all_types = key("all", "types");
    let pairs = |item: &Attributes| -> Vec<(String, AttributeValue)> {
        item.iter().map(|attribute| (attribute.name.clone(), attribute.value.clone())).collect()
    };
    let types = every_type().into_iter().map(|(name, value)| (name.to_owned(), value));
    items.push(types.chain(pairs(&all_types)).collect());
    for (n, item) in items.iter().enumerate() {
        if n.is_multiple_of(2) {
            client.put("shared", item.clone()).await.expect("a valid item");
        } else {
            http.call("PutItem", json!({ "TableName": "shared", "Item": typed(item) })).await;
        }
    }
    for item in &items {
        let key = key_of(item);
        let read = json!({ "TableName": "shared", "Key": typed(&key) });
        assert_eq!(client.get("shared", key).await.expect("a valid key").as_ref(), Some(item));
        assert_eq!(http.call("GetItem", read).await["Item"], typed(item));
    }
    let by_key = |items: Vec<Attributes>| -> BTreeMap<Option<Vec<u8>>, Attributes> {
        items.into_iter().map(|item| (encode_item_key(&schema(), &item), item)).collect()
    };
    let expected = by_key(items.clone());
    for limit in [1, 7, 1000] {
        assert!(by_key(scan(&client, "shared", limit).await) == expected, "pages of {limit}");
    }
    client.delete("shared", all_types.clone()).await.expect("a valid key");
    client.delete("shared", all_types.clone()).await.expect("deleting what is not there succeeds");
    assert_eq!(client.get("shared", all_types).await, Ok(None));
    assert_eq!(http.count("shared").await, 300);

    drop(client);
    let exit = dev.stop();
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
    let dev = Dev::start(directory.path());
    let client = native::connect(&dev.client_file()).await;
    items.pop();
    assert!(by_key(scan(&client, "shared", 50).await) == by_key(items), "all of it is there after a restart");
}

#[tokio::test]
async fn a_query_reads_one_partition_key_in_order_both_ways() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let client = native::connect(&dev.client_file()).await;
    create(&client, "sorted").await;
    for n in 0..60 {
        client.put("sorted", key("p", &format!("{n:02}"))).await.expect("a valid item");
        client.put("sorted", key("q", &format!("{n:02}"))).await.expect("a valid item");
    }
    let value = |text: &str| KeyValue::S(text.to_owned());
    let cases = [
        (SortCondition::All, 0..60),
        (SortCondition::Equals(value("07")), 7..8),
        (SortCondition::Less(value("07")), 0..7),
        (SortCondition::GreaterOrEqual(value("55")), 55..60),
        (SortCondition::Between(value("10"), value("12")), 10..13),
        (SortCondition::BeginsWith(value("3")), 30..40),
    ];
    for (sort, expected) in cases {
        for (reverse, limit) in [(false, 7), (true, 7), (false, 100), (true, 100)] {
            let mut query = Query::new(value("p"));
            (query.sort, query.reverse, query.limit) = (sort.clone(), reverse, Some(limit));
            let mut found = Vec::new();
            loop {
                let page = client.query("sorted", &query).await.expect("a valid query");
                found.extend(page.items);
                match page.after {
                    None => break,
                    next => query.after = next,
                }
            }
            let mut wanted: Vec<_> = expected.clone().map(|n| key("p", &format!("{n:02}"))).collect();
            if reverse {
                wanted.reverse();
            }
            assert_eq!(found, wanted, "{sort:?} reverse={reverse} limit={limit}");
        }
    }
}

#[tokio::test]
async fn the_keys_of_a_table_are_spread_over_all_three_nodes() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let client = native::connect(&dev.client_file()).await;
    let table = create(&client, "spread").await;
    for n in 0..90 {
        client.put("spread", key(&format!("p{n}"), "s")).await.expect("a valid item");
    }
    // The catalogue is a table like every other; its rows say who owns which keys.
    let catalogue = TableRow {
        id: TableId::CATALOGUE,
        name: String::new(),
        schema: catalogue::schema(),
        status: TableStatus::Active,
        created_ms: 0,
        throughput: None,
        on_demand_since_ms: None,
        deletion_protection: true,
        tags: Default::default(),
    };
    let prefix = partitions_prefix();
    let upper = successor(&prefix);
    let all = RangeRequest {
        lower: prefix,
        upper,
        consistency: Consistency::Strong,
        reverse: false,
        items_max: 1000,
        bytes_max: 1 << 20,
        filter: None,
    };
    let page = client.range_encoded(&catalogue, &all).await.expect("the catalogue is read like a table");
    let partitions: Vec<PartitionRow> = page
        .rows()
        .map(|(_, item)| ItemView::parse(item).expect("a stored item").to_attributes())
        .map(|row| PartitionRow::from_attributes(&row).expect("a partition's row"))
        .filter(|row| row.table == table.id)
        .collect();
    let mut owners: BTreeMap<NodeId, usize> = BTreeMap::new();
    for item in scan(&client, "spread", 1000).await {
        let encoded = encode_item_key(&schema(), &item).expect("it has its key attributes");
        let owner: Vec<NodeId> =
            partitions.iter().filter(|row| row.owns(&encoded)).map(|row| row.replicas[0].node).collect();
        assert_eq!(owner.len(), 1, "each key has one partition");
        *owners.entry(owner[0]).or_default() += 1;
    }
    let nodes: BTreeSet<NodeId> = owners.keys().copied().collect();
    assert_eq!((nodes.len(), owners.values().sum::<usize>()), (3, 90), "{owners:?}");
    assert!(owners.values().all(|keys| *keys >= 10), "even up to chance: {owners:?}");
    assert_eq!(client.table_counts(&table).await.map(|(items, _)| items), Ok(90));
}

#[tokio::test]
async fn errors_say_what_the_application_did() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let client = native::connect(&dev.client_file()).await;
    create(&client, "errors").await;
    let missing = client.put("nowhere", key("a", "b")).await;
    assert_eq!(missing, Err(Error::TableNotFound { table: "nowhere".to_owned() }));
    assert!(matches!(client.create_table(request("errors")).await, Err(Error::TableExists { .. })));
    let half: Attributes = [("pk", text("a"))].into_iter().collect();
    assert!(matches!(client.put("errors", half.clone()).await, Err(Error::Invalid { .. })));
    assert!(matches!(client.get("errors", half).await, Err(Error::Invalid { .. })));
    client.delete_table("errors").await.expect("it is there");
    let mut gone = client.describe_table("errors").await;
    while gone.is_ok() {
        gone = client.describe_table("errors").await;
    }
    assert_eq!(gone, Err(Error::TableNotFound { table: "errors".to_owned() }));
    let again = create(&client, "errors").await;
    assert_eq!(client.table_counts(&again).await, Ok((0, 0)), "the new table is another one");

    let mut strangers = native::config(&dev.client_file());
    strangers.cluster = Some("00112233445566778899aabbccddeeff".parse().expect("an id"));
    assert!(Client::connect(strangers).await.is_err(), "another cluster's client is refused");
}
