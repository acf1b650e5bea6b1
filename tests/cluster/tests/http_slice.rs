//! The whole path by the HTTP API: a real process, bare requests, exact answers.

use bytes::Bytes;
use evenkeel_cluster_tests::data::{self, random_item, typed, typed_value};
use evenkeel_cluster_tests::http::create_table;
use evenkeel_cluster_tests::{Dev, Http, Random, data_directory};
use evenkeel_model::{AttributeValue, Attributes, Number};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

const KEYS: [(&str, &str); 2] = [("pk", "S"), ("sk", "S")];

fn text(value: &str) -> Value {
    json!({ "S": value })
}

fn key(partition: &str, sort: &str) -> Value {
    json!({ "pk": text(partition), "sk": text(sort) })
}

async fn put(http: &mut Http, table: &str, item: &Value) {
    http.call("PutItem", json!({ "TableName": table, "Item": item })).await;
}

async fn get(http: &mut Http, table: &str, key: Value) -> Value {
    let mut answer =
        http.call("GetItem", json!({ "TableName": table, "Key": key, "ConsistentRead": true })).await;
    answer["Item"].take()
}

#[tokio::test]
async fn a_table_is_created_described_listed_deleted_and_created_again() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    assert_eq!(http.create_table("orders", &KEYS).await, ["CREATING", "ACTIVE"]);
    let table = http.call("DescribeTable", json!({ "TableName": "orders" })).await["Table"].take();
    assert_eq!(table["TableName"], "orders");
    assert_eq!(table["KeySchema"], create_table("orders", &KEYS)["KeySchema"]);
    assert_eq!(table["AttributeDefinitions"], create_table("orders", &KEYS)["AttributeDefinitions"]);
    assert!(
        table["TableArn"].as_str().is_some_and(|arn| arn.ends_with(":000000000000:table/orders")),
        "{table}"
    );

    for name in ["alpha", "beta", "gamma"] {
        http.create_table(name, &KEYS[..1]).await;
    }
    let first = http.call("ListTables", json!({ "Limit": 2 })).await;
    assert_eq!(first, json!({ "TableNames": ["alpha", "beta"], "LastEvaluatedTableName": "beta" }));
    let rest = http.call("ListTables", json!({ "ExclusiveStartTableName": "beta" })).await;
    assert_eq!(rest, json!({ "TableNames": ["gamma", "orders"] }));

    put(http, "orders", &key("p", "s")).await;
    http.delete_table("orders").await;
    let (error, message) =
        http.refused("GetItem", json!({ "TableName": "orders", "Key": key("p", "s") })).await;
    assert_eq!(
        (error.as_str(), message.as_str()),
        ("ResourceNotFoundException", "Requested resource not found")
    );
    http.create_table("orders", &KEYS).await;
    assert_eq!(get(http, "orders", key("p", "s")).await, Value::Null, "the new table is another one");
    assert_eq!(http.count("orders").await, 0);
}

#[tokio::test]
async fn items_of_every_type_come_back_and_are_there_after_a_restart() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    println!("ready after {:?} on fresh data", dev.ready_after());
    let http = &mut dev.http().await;
    http.create_table("types", &KEYS).await;
    let mut random = Random::from_environment();
    let mut items: Vec<Attributes> = (0..40)
        .map(|n| random_item(&format!("many-{n}"), &random.clone().text(9).replace('\0', ""), &mut random))
        .filter(|item| item.get("sk") != Some(&AttributeValue::S(String::new())))
        .collect();
    let keys = [("pk", AttributeValue::S("all".into())), ("sk", AttributeValue::S("types".into()))];
    items.push(data::every_type().into_iter().chain(keys).collect());
    for batch in items.chunks(25) {
        let writes: Vec<Value> =
            batch.iter().map(|item| json!({ "PutRequest": { "Item": typed(item) } })).collect();
        let answer = http.call("BatchWriteItem", json!({ "RequestItems": { "types": writes } })).await;
        assert_eq!(answer["UnprocessedItems"], json!({}));
    }
    put(http, "types", &key("gone", "1")).await;
    let old = json!({ "TableName": "types", "Key": key("gone", "1"), "ReturnValues": "ALL_OLD" });
    assert_eq!(http.call("DeleteItem", old.clone()).await["Attributes"], key("gone", "1"));
    assert_eq!(http.call("DeleteItem", old).await, json!({}), "deleting what is not there succeeds");

    let exit = dev.stop();
    assert_eq!(exit.status.code(), Some(0), "SIGTERM: {}", exit.said);
    let dev = Dev::start(directory.path());
    println!("ready after {:?} on stopped data", dev.ready_after());
    let http = &mut dev.http().await;
    for item in &items {
        let attribute = |name| typed_value(item.get(name).expect("a key attribute"));
        let found = get(http, "types", json!({ "pk": attribute("pk"), "sk": attribute("sk") })).await;
        assert_eq!(found, typed(item));
    }
    assert_eq!(get(http, "types", key("gone", "1")).await, Value::Null);
    assert_eq!(http.count("types").await, items.len() as u64);
    let exit = dev.signal("INT");
    assert_eq!(exit.status.code(), Some(0), "SIGINT: {}", exit.said);
}

#[tokio::test]
async fn query_pages_in_sort_order_both_ways_and_by_each_condition() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("sorted", &KEYS).await;
    let sort = |n: usize| format!("{}/{n:03}", if n < 60 { "early" } else { "late" });
    for n in 0..100 {
        put(http, "sorted", &key("p", &sort(n))).await;
        put(http, "sorted", &key("other", &sort(n))).await;
    }
    let query = |condition: &str, values: Value, more: Value| {
        let mut body = json!({
            "TableName": "sorted",
            "KeyConditionExpression": format!("pk = :p{condition}"),
            "ExpressionAttributeValues": { ":p": text("p") },
        });
        for (into, from) in [("ExpressionAttributeValues", values), ("", more)] {
            let target = if into.is_empty() { &mut body } else { &mut body[into] };
            target.as_object_mut().expect("an object").extend(from.as_object().expect("an object").clone());
        }
        body
    };
    let numbers = |items: &[Value]| -> Vec<usize> {
        let number = |item: &Value| item["sk"]["S"].as_str().and_then(|sk| sk[sk.len() - 3..].parse().ok());
        items.iter().map(|item| number(item).expect("a sort key as above")).collect()
    };
    let between = json!({ ":a": text(&sort(10)), ":b": text(&sort(20)) });
    let one = json!({ ":a": text(&sort(10)) });
    let cases = [
        ("", json!({}), 0..100),
        (" AND sk = :a", one.clone(), 10..11),
        (" AND sk < :a", one.clone(), 0..10),
        (" AND sk <= :a", one.clone(), 0..11),
        (" AND sk > :a", one.clone(), 11..100),
        (" AND sk >= :a", one, 10..100),
        (" AND sk BETWEEN :a AND :b", between, 10..21),
        (" AND begins_with(sk, :a)", json!({ ":a": text("late/") }), 60..100),
        (" AND begins_with(sk, :a)", json!({ ":a": text("later") }), 0..0),
    ];
    for (condition, values, expected) in cases {
        let expected: Vec<usize> = expected.collect();
        for (forward, limit) in [(true, 1000), (false, 1000), (true, 7), (false, 10)] {
            let more = json!({ "ScanIndexForward": forward, "Limit": limit });
            let (items, pages) = http.pages("Query", query(condition, values.clone(), more)).await;
            let mut found = numbers(&items);
            if !forward {
                found.reverse();
            }
            assert_eq!(found, expected, "{condition:?} forward={forward} limit={limit}");
            assert!(
                pages > expected.len() / limit.max(1) || expected.len().is_multiple_of(limit),
                "{pages} pages"
            );
        }
    }
    let names = json!({ "KeyConditionExpression": "#p = :p", "ExpressionAttributeNames": { "#p": "pk" } });
    assert_eq!(http.pages("Query", query("", json!({}), names)).await.0.len(), 100);
}

#[tokio::test]
async fn numbers_sort_by_value_to_their_38th_digit() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("numbers", &[("pk", "N"), ("sk", "N")]).await;
    let mut ordered: Vec<Number> = [
        "-9.9999999999999999999999999999999999999e125",
        "-100",
        "-99.999999999999999999999999999999999999",
        "-1",
        "-1e-130",
        "0",
        "1e-130",
        "0.5",
        "9",
        "10",
        "10.000000000000000000000000000000000001",
        "10.000000000000000000000000000000000002",
        "12345678901234567890123456789012345678",
        "1e125",
    ]
    .iter()
    .map(|text| Number::parse(text).expect("a number"))
    .collect();
    let mut random = Random::from_environment();
    ordered.extend((0..60).map(|_| random.number()));
    for number in &ordered {
        put(http, "numbers", &json!({ "pk": { "N": "1.0" }, "sk": { "N": number.to_string() } })).await;
    }
    ordered.sort();
    ordered.dedup();
    let query = json!({
        "TableName": "numbers",
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": { ":p": { "N": "1" } },
        "Limit": 9,
    });
    let (items, _) = http.pages("Query", query).await;
    let found: Vec<&str> = items.iter().filter_map(|item| item["sk"]["N"].as_str()).collect();
    let expected: Vec<String> = ordered.iter().map(Number::to_string).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn scan_pages_by_limit_and_by_size_and_sees_each_item_once() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("scanned", &KEYS).await;
    let large = "x".repeat(300 * 1024);
    for n in 0..60 {
        let mut item = key(&format!("p{n}"), "s");
        if n % 6 == 0 {
            item["large"] = text(&large);
        }
        put(http, "scanned", &item).await;
    }
    for limit in [None, Some(1), Some(7), Some(60), Some(61)] {
        let mut body = json!({ "TableName": "scanned" });
        if let Some(limit) = limit {
            body["Limit"] = json!(limit);
        }
        let (items, pages) = http.pages("Scan", body).await;
        let mut found: Vec<&str> = items.iter().filter_map(|item| item["pk"]["S"].as_str()).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!((found.len(), items.len()), (60, 60), "limit {limit:?}");
        assert!(pages >= 3, "ten items of 300 KiB do not fit a page or two of 1 MiB: {pages} pages");
        if let Some(limit @ 1..=7) = limit {
            assert!(pages >= 60 / limit, "{pages} pages of {limit}");
        }
    }
    assert_eq!(http.count("scanned").await, 60);
}

#[tokio::test]
async fn errors_have_the_type_and_text_of_dynamodb() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("errors", &KEYS).await;
    let item = |item: Value| json!({ "TableName": "errors", "Item": item });
    let invalid = "One or more parameter values were invalid: ";
    let too_large = json!({ "pk": text("p"), "sk": text("s"), "v": text(&"x".repeat(400 * 1024)) });
    let digits = json!({ "pk": text("p"), "sk": text("s"), "n": { "N": "9".repeat(39) } });
    let cases = [
        (
            "PutItem",
            json!({ "TableName": "nowhere", "Item": key("p", "s") }),
            "ResourceNotFoundException",
            "Requested resource not found".to_owned(),
        ),
        (
            "DescribeTable",
            json!({ "TableName": "nowhere" }),
            "ResourceNotFoundException",
            "Requested resource not found: Table: nowhere not found".to_owned(),
        ),
        (
            "DeleteTable",
            json!({ "TableName": "nowhere" }),
            "ResourceNotFoundException",
            "Requested resource not found: Table: nowhere not found".to_owned(),
        ),
        (
            "CreateTable",
            create_table("errors", &KEYS),
            "ResourceInUseException",
            "Table already exists: errors".to_owned(),
        ),
        (
            "PutItem",
            item(json!({ "pk": text("p") })),
            "ValidationException",
            format!("{invalid}Missing the key sk in the item"),
        ),
        (
            "PutItem",
            item(json!({ "pk": { "N": "1" }, "sk": text("s") })),
            "ValidationException",
            format!("{invalid}Type mismatch for key pk expected: S actual: N"),
        ),
        (
            "PutItem",
            item(too_large),
            "ValidationException",
            "Item size has exceeded the maximum allowed size".to_owned(),
        ),
        (
            "PutItem",
            item(digits),
            "ValidationException",
            "1 validation error detected: Attempting to store more than 38 significant digits in a Number"
                .to_owned(),
        ),
        (
            "GetItem",
            json!({ "TableName": "errors", "Key": { "pk": text("p") } }),
            "ValidationException",
            "The provided key element does not match the schema".to_owned(),
        ),
    ];
    for (operation, body, error, message) in cases {
        let refused = http.refused(operation, body.clone()).await;
        assert_eq!(refused, (error.to_owned(), message), "{operation}");
    }
    let namespaces = [
        (
            "PutItem",
            json!({ "TableName": "nowhere", "Item": key("p", "s") }),
            "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException",
        ),
        ("PutItem", item(json!({ "pk": text("p") })), "com.amazon.coral.validate#ValidationException"),
        ("NoSuchThing", json!({}), "com.amazon.coral.service#UnknownOperationException"),
    ];
    for (operation, body, expected) in namespaces {
        let answer = http.try_call(operation, &body).await.expect("an answer");
        assert_eq!((answer.status, answer.error().0.as_str()), (StatusCode::BAD_REQUEST, expected));
    }
    let malformed = http.send("PutItem", Bytes::from_static(b"{\"TableName\":")).await.expect("an answer");
    malformed.check();
    assert_eq!(malformed.json(), json!({ "__type": "com.amazon.coral.service#SerializationException" }));
    assert_eq!(http.count("errors").await, 0, "nothing of what was refused is there");
}

#[tokio::test]
async fn one_connection_serves_many_requests_on_http_1_and_2_and_refuses_what_is_too_large() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    // Both connections stay the same throughout: a connection that was closed would fail the next call.
    let mut one = dev.http().await;
    one.create_table("kept", &KEYS).await;
    let mut two = Http::connect_http2(dev.address()).await.expect("HTTP/2 is spoken");
    let mut ids = Vec::new();
    for n in 0..50 {
        for http in [&mut one, &mut two] {
            put(http, "kept", &key("p", &n.to_string())).await;
            let body = json!({ "TableName": "kept", "Key": key("p", &n.to_string()) });
            let answer = http.try_call("GetItem", &body).await.expect("an answer");
            answer.check();
            assert_eq!(answer.json(), json!({ "Item": key("p", &n.to_string()) }));
            ids.push(answer.header("x-amzn-requestid").to_owned());
        }
    }
    let answers = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), answers, "each answer has a request id of its own");

    let healthy = Request::get(format!("http://{}/", dev.address())).header("host", dev.address());
    let answer = one.request(healthy.body(Full::default()).expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().starts_with("healthy: "), "{}", answer.text());

    let body = vec![b' '; 16 * 1024 * 1024 + 1];
    let answer = two.send("PutItem", body.into()).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut another = dev.http().await;
    assert_eq!(another.count("kept").await, 50, "the endpoint goes on");
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("guarded", &KEYS).await;
    let files = ["client.toml", "router.toml", "node-1/node.toml"].map(|name| directory.path().join(name));
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap());
    let Err(exit) = Dev::try_start(directory.path(), &[]) else { panic!("two processes on one directory") };
    assert_eq!(before, files.each_ref().map(|file| std::fs::read(file).unwrap()), "files of the first");
    assert!(exit.status.code().is_some_and(|code| code != 0 && code != 101), "{exit:?}");
    assert!(
        exit.said.contains(&directory.path().display().to_string()),
        "names the directory: {}",
        exit.said
    );
    put(http, "guarded", &key("p", "s")).await;
    assert_eq!(get(http, "guarded", key("p", "s")).await, key("p", "s"));
}

#[tokio::test]
async fn the_segments_of_a_scan_are_the_table_without_overlap() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("segments", &KEYS[..1]).await;
    for n in 0..60 {
        put(http, "segments", &json!({ "pk": text(&format!("item {n}")) })).await;
    }
    let mut seen = Vec::new();
    for segment in 0..7 {
        let scan = json!({ "TableName": "segments", "Segment": segment, "TotalSegments": 7, "Limit": 4 });
        let (items, _) = http.pages("Scan", scan).await;
        assert!(items.len() < 40, "segment {segment} holds {} of 60 items", items.len());
        seen.extend(items.iter().map(|item| item["pk"]["S"].as_str().expect("a key").to_owned()));
    }
    seen.sort();
    let mut expected: Vec<String> = (0..60).map(|n| format!("item {n}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn many_writers_of_one_counter_lose_no_increment() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    http.create_table("counters", &KEYS[..1]).await;
    let increment = json!({ "TableName": "counters", "Key": { "pk": text("a") },
        "UpdateExpression": "ADD hits :one", "ExpressionAttributeValues": { ":one": { "N": "1" } } });
    let mut writers = Vec::new();
    for _ in 0..8 {
        let (mut http, increment) = (dev.http().await, increment.clone());
        writers.push(tokio::spawn(async move {
            for _ in 0..50 {
                http.call("UpdateItem", increment.clone()).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    assert_eq!(get(http, "counters", json!({ "pk": text("a") })).await["hits"], json!({ "N": "400" }));
}

#[tokio::test]
async fn what_is_no_request_of_the_api_is_told_so() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    let unknown = r#"{"__type":"com.amazon.coral.service#UnknownOperationException"}"#;
    let malformed = r#"{"__type":"com.amazon.coral.service#SerializationException"}"#;
    let tables = r#"{"TableNames":[]}"#;
    let not_of_the_api = "<UnknownOperationException/>\n";
    let json = "application/x-amz-json-1.0";
    let cases = [
        ("POST", json, "DynamoDB_20120810.ListTables", "{}", 200, tables, json),
        (
            "POST",
            "Application/X-Amz-Json-1.0; charset=utf-8",
            "DynamoDB_20120810.ListTables",
            "{}",
            200,
            tables,
            json,
        ),
        ("POST", "application/json", "DynamoDB_20120810.ListTables", "{}", 200, tables, "application/json"),
        ("POST", json, "DynamoDB_20120810.ListTables", "", 400, malformed, json),
        ("POST", json, "DynamoDB_20120810.ListTables", "{", 400, malformed, json),
        ("POST", json, "DynamoDB_20120810.Sail", "{}", 400, unknown, json),
        ("POST", json, "ListTables", "{}", 400, unknown, json),
        ("POST", json, "", "{}", 400, unknown, json),
        ("POST", "", "DynamoDB_20120810.ListTables", "{}", 404, not_of_the_api, ""),
        ("POST", "text/plain", "DynamoDB_20120810.ListTables", "{}", 404, not_of_the_api, ""),
        ("POST", "application/x-amz-json-1.1", "DynamoDB_20120810.ListTables", "{}", 404, not_of_the_api, ""),
        ("PUT", json, "DynamoDB_20120810.ListTables", "{}", 404, not_of_the_api, ""),
        ("DELETE", "", "", "", 404, not_of_the_api, ""),
    ];
    for (method, content_type, target, body, status, expected, answered_as) in cases {
        let mut request = Request::builder().method(method).uri("/").header("host", dev.address());
        for (name, value) in [("content-type", content_type), ("x-amz-target", target)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::from(body)).expect("valid");
        let answer = http.request(request).await.expect("an answer");
        let case = format!("{method} {content_type} {target} {body}");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, expected), "{case}");
        assert_eq!(answer.header("content-type"), answered_as, "{case}");
        assert_eq!(answer.header("x-amz-crc32"), crc32fast::hash(expected.as_bytes()).to_string(), "{case}");
        assert_eq!(answer.header("x-amzn-requestid").len(), 52, "{case}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_and_read() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let http = &mut dev.http().await;
    let request = |method: &str| {
        let request = Request::builder().method(method).uri("/").header("host", dev.address());
        request.header("origin", "https://example.com")
    };
    let preflight = request("OPTIONS")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-amz-target, content-type");
    let answer = http.request(preflight.body(Full::default()).expect("valid")).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-headers"), "x-amz-target, content-type");
    assert_eq!(answer.header("access-control-max-age"), "172800");
    let list = request("POST")
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", "DynamoDB_20120810.ListTables");
    let answer = http.request(list.body(Full::from("{}")).expect("valid")).await.expect("an answer");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (StatusCode::OK, "*"));
    let plain = http.try_call("ListTables", &json!({})).await.expect("an answer");
    assert_eq!(plain.header("access-control-allow-origin"), "");
}
