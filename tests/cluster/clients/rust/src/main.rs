//! The AWS SDK for Rust against the HTTP API, with nothing set but the endpoint.
//!
//! Each test is a function that yields an error or nothing. The closing line is `N passed, M failed`.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest, ReturnValue,
    ScalarAttributeType, TableStatus, WriteRequest,
};
use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

type Tested = Result<(), Box<dyn Error>>;

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn wanted(holds: bool, what: &str) -> Tested {
    if holds { Ok(()) } else { Err(what.into()) }
}

async fn create(client: &Client, name: &str) -> Tested {
    let attribute =
        |name: &str, of| AttributeDefinition::builder().attribute_name(name).attribute_type(of).build();
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    client
        .create_table()
        .table_name(name)
        .attribute_definitions(attribute("pk", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("sk", ScalarAttributeType::N)?)
        .key_schema(key("pk", KeyType::Hash)?)
        .key_schema(key("sk", KeyType::Range)?)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    for _ in 0..300 {
        let table = client.describe_table().table_name(name).send().await?.table;
        if table.and_then(|table| table.table_status) == Some(TableStatus::Active) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the table did not become active in 30 s".into())
}

async fn items_of_every_type_come_back(client: &Client) -> Tested {
    create(client, "rust-types").await?;
    let item = HashMap::from([
        ("pk".to_owned(), text("a")),
        ("sk".to_owned(), number(1)),
        ("n".to_owned(), number("-1.5E-7".parse::<f64>()?)),
        ("bin".to_owned(), AttributeValue::B(vec![0, 255].into())),
        ("yes".to_owned(), AttributeValue::Bool(true)),
        ("null".to_owned(), AttributeValue::Null(true)),
        ("set".to_owned(), AttributeValue::Ss(vec!["x".into(), "y".into()])),
        ("list".to_owned(), AttributeValue::L(vec![text("é"), number(2)])),
        ("map".to_owned(), AttributeValue::M(HashMap::from([("k".to_owned(), text("v"))]))),
    ]);
    client.put_item().table_name("rust-types").set_item(Some(item.clone())).send().await?;
    let found = client
        .get_item()
        .table_name("rust-types")
        .key("pk", text("a"))
        .key("sk", number(1))
        .consistent_read(true)
        .send()
        .await?
        .item
        .unwrap_or_default();
    wanted(found == item, "the item came back otherwise")
}

async fn updates_and_conditions_hold(client: &Client) -> Tested {
    create(client, "rust-counters").await?;
    let mut last = None;
    for _ in 0..3 {
        last = client
            .update_item()
            .table_name("rust-counters")
            .key("pk", text("c"))
            .key("sk", number(0))
            .update_expression("ADD #n :one SET seen = if_not_exists(seen, :now)")
            .expression_attribute_names("#n", "n")
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":now", text("now"))
            .return_values(ReturnValue::AllNew)
            .send()
            .await?
            .attributes;
    }
    wanted(last.is_some_and(|item| item["n"] == number(3)), "three additions do not make three")?;
    let refused = client
        .put_item()
        .table_name("rust-counters")
        .item("pk", text("c"))
        .item("sk", number(0))
        .condition_expression("attribute_not_exists(pk)")
        .send()
        .await;
    let error = refused.err().ok_or("a condition that does not hold was passed over")?;
    let service = error.into_service_error();
    wanted(service.is_conditional_check_failed_exception(), "another error than expected")?;
    wanted(service.message() == Some("The conditional request failed"), "another text than expected")
}

async fn pages_of_a_query_make_the_whole(client: &Client) -> Tested {
    create(client, "rust-pages").await?;
    for chunk in (0..100).collect::<Vec<_>>().chunks(25) {
        let requests = chunk.iter().map(|at| {
            let put = PutRequest::builder().item("pk", text("p")).item("sk", number(at)).build()?;
            Ok(WriteRequest::builder().put_request(put).build())
        });
        let requests = requests.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let written = client.batch_write_item().request_items("rust-pages", requests).send().await?;
        wanted(written.unprocessed_items.unwrap_or_default().is_empty(), "a batch was left undone")?;
    }
    let mut pages = client
        .query()
        .table_name("rust-pages")
        .key_condition_expression("pk = :p AND sk >= :from")
        .expression_attribute_values(":p", text("p"))
        .expression_attribute_values(":from", number(10))
        .limit(7)
        .into_paginator()
        .send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        found.extend(page?.items.unwrap_or_default());
    }
    let expected: Vec<AttributeValue> = (10..100).map(number).collect();
    let keys: Vec<AttributeValue> =
        found.into_iter().map(|mut item| item.remove("sk").unwrap_or(text(""))).collect();
    wanted(keys == expected, "the pages are not the whole, in order")
}

async fn a_table_that_is_not_there_is_told(client: &Client) -> Tested {
    let refused = client.describe_table().table_name("nowhere").send().await;
    let error = refused.err().ok_or("a table that is not there was described")?.into_service_error();
    wanted(error.is_resource_not_found_exception(), "another error than expected")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(endpoint) = std::env::args().nth(1) else {
        eprintln!("usage: sdk-client ENDPOINT");
        return ExitCode::from(2);
    };
    let config =
        aws_config::defaults(aws_config::BehaviorVersion::latest()).endpoint_url(endpoint).load().await;
    let client = Client::new(&config);
    let (mut passed, mut failed) = (0, 0);
    let mut tell = |name: &str, tested: Tested| match tested {
        Ok(()) => {
            passed += 1;
            println!("ok   {name}");
        }
        Err(error) => {
            failed += 1;
            println!("FAIL {name}: {error:?}");
        }
    };
    tell("items of every type come back", items_of_every_type_come_back(&client).await);
    tell("updates and conditions hold", updates_and_conditions_hold(&client).await);
    tell("pages of a query make the whole", pages_of_a_query_make_the_whole(&client).await);
    tell("a table that is not there is told", a_table_that_is_not_there_is_told(&client).await);
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
