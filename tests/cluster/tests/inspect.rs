//! `evenkeel inspect`: says that the files of a killed cluster are whole, and finds a byte that is not. So does the
//! scrub of a running node.

use evenkeel_cluster_tests::{Dev, binary, data_directory};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const TABLE: &str = "inspected";
/// More than half of the memory for tables, so that trees are made.
const ITEMS: usize = 600;
const ITEM_BYTES: usize = 40_000;
/// Of both halves, for one shard.
const MEMORY_MIB: &str = "32";
const BLOCK_BYTES: usize = 4096;
/// Far more than the scrub takes to read all of it once.
const FOUND_WITHIN: Duration = Duration::from_secs(120);

fn inspect(data: &Path, arguments: &[&str]) -> Output {
    let output =
        Command::new(binary::evenkeel()).args(["inspect", "--data"]).arg(data).args(arguments).output();
    output.expect("the binary starts")
}

fn as_json(output: &Output) -> Value {
    let shards: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    shards[0].clone()
}

/// What an item consists of, again and again; wherever one begins to read it, it is no other item's.
fn word(number: usize) -> String {
    format!("<{number:06}>")
}

/// Writes until a partition has a tree, then kills the cluster.
async fn killed_cluster(data: &Path) {
    let arguments = ["--nodes", "1", "--memory-mib", MEMORY_MIB];
    let dev = Dev::try_start(data, &arguments).unwrap_or_else(|exit| panic!("dev ended: {exit:?}"));
    let mut http = dev.http().await;
    http.create_table(TABLE, &[("k", "S")]).await;
    for number in 0..ITEMS {
        let body = word(number).repeat(ITEM_BYTES / 8);
        let item = json!({ "k": { "S": format!("key {number}") }, "body": { "S": body } });
        http.call("PutItem", json!({ "TableName": TABLE, "Item": item })).await;
    }
    let running = inspect(data, &[]);
    let said = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(running.status.code() == Some(1) && said.contains("in use by a running node"), "{said}");
    dev.kill();
}

/// A byte of a file, changed until this is dropped.
struct Flipped {
    path: PathBuf,
    offset: u64,
}

impl Flipped {
    fn new(path: PathBuf, offset: u64) -> Flipped {
        let flipped = Flipped { path, offset };
        flipped.flip();
        flipped
    }

    fn flip(&self) {
        let file = std::fs::File::options().read(true).write(true).open(&self.path).expect("it is there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset).expect("it is that long");
        file.write_all_at(&[byte[0] ^ 0x10], self.offset).expect("it can be written");
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        self.flip();
    }
}

#[tokio::test]
async fn a_byte_that_is_wrong_is_found_wherever_it_matters() {
    let directory = data_directory();
    let data = directory.path();
    killed_cluster(data).await;
    let whole = inspect(data, &["--verify", "--output", "json"]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let shard = as_json(&whole);
    assert_eq!((&shard["faults"], &shard["verified"]), (&json!([]), &json!(true)));
    let directory = PathBuf::from(shard["shard"].as_str().expect("a path"));
    let pages = || directory.join("pages.dat");
    let segment = shard["log"]["segments"][0]["file"].as_str().expect("a live segment");
    let tree =
        shard["partitions"].as_array().expect("an array").iter().find(|row| row["leaves"].as_u64() > Some(1));
    let tree = tree.unwrap_or_else(|| panic!("no tree was made: {shard}"));
    let offset = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no offset: {shard}"));
    let (first, last) = (&shard["pages"]["superblock_offsets"][0], &shard["pages"]["superblock_offsets"][3]);
    let catalogue = &shard["pages"]["catalogue_offsets"][0];
    let places = [
        ("the first superblock", pages(), offset(first) + 50, Some(offset(first))),
        ("the last superblock", pages(), offset(last) + 17, Some(offset(last))),
        ("the catalogue", pages(), offset(catalogue) + 9, Some(offset(catalogue))),
        ("a root page", pages(), offset(&tree["root_offset"]) + 40, Some(offset(&tree["root_offset"]))),
        // Where the frame begins that this is part of, the writes before decide.
        ("a frame of the log", directory.join("wal").join(format!("{segment}.log")), 1 << 20, None),
    ];
    for (what, path, at, named) in places {
        let flipped = Flipped::new(path, at);
        let found = inspect(data, &["--verify", "--output", "json"]);
        assert_eq!(found.status.code(), Some(1), "{what}: {found:?}");
        let faults = as_json(&found)["faults"].to_string();
        let file = if flipped.path == pages() { "pages" } else { segment };
        let place =
            format!("{file} at offset {}", named.map_or(String::new(), |offset: u64| format!("{offset}")));
        assert!(faults.contains(&place), "{what}: {faults}");
        drop(flipped);
        assert_eq!(inspect(data, &["--verify"]).status.code(), Some(0), "{what}: it is right again");
    }
    // A look leaves nothing behind.
    let dev = Dev::start(data);
    assert_eq!(dev.http().await.count(TABLE).await, ITEMS as u64);
    assert_eq!(dev.stop().status.code(), Some(0));
    assert_eq!(inspect(data, &["--verify"]).status.code(), Some(0));
    a_running_node_finds_it(data, &pages()).await;
}

/// The scrub of a running node tells of a leaf that is wrong; the items on it are refused, all others are read.
async fn a_running_node_finds_it(data: &Path, pages: &Path) {
    // The first items are in the tree for long. What they have been copied from is free, and nobody looks there.
    let broken = 17;
    let blocks = blocks_with(pages, &word(broken));
    assert!(!blocks.is_empty(), "item {broken} is in no page");
    let flipped: Vec<Flipped> =
        blocks.iter().map(|&offset| Flipped::new(pages.to_owned(), offset + 99)).collect();
    let dev = Dev::start(data);
    let deadline = Instant::now() + FOUND_WITHIN;
    while !dev.said().contains("damage on the disk: page of partition") {
        assert!(Instant::now() < deadline, "nothing was told of a bad page: {}", dev.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut http = dev.http().await;
    let mut refused = Vec::new();
    for number in 0..ITEMS {
        let key = json!({ "TableName": TABLE, "Key": { "k": { "S": format!("key {number}") } } });
        let answer = http.try_call("GetItem", &key).await.expect("an answer");
        if answer.status == StatusCode::OK {
            assert!(answer.json()["Item"].is_object(), "{}", answer.text());
            continue;
        }
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.text());
        refused.push(number);
    }
    assert_eq!(refused, [broken], "an item of this size has a leaf of its own");
    assert_eq!(dev.stop().status.code(), Some(0));
    drop(flipped);
    assert_eq!(inspect(data, &["--verify"]).status.code(), Some(0));
}

/// Offsets of blocks that hold nothing but a word of eight bytes, again and again.
fn blocks_with(pages: &Path, word: &str) -> Vec<u64> {
    let bytes = std::fs::read(pages).expect("it is there");
    let repeated = word.repeat(BLOCK_BYTES / word.len() + 1);
    let turned: Vec<&[u8]> = (0..word.len()).map(|at| &repeated.as_bytes()[at..at + BLOCK_BYTES]).collect();
    let blocks = bytes.chunks_exact(BLOCK_BYTES).enumerate();
    let found = blocks.filter(|(_, block)| turned.contains(block));
    found.map(|(number, _)| (number * BLOCK_BYTES) as u64).collect()
}

#[test]
fn what_is_no_data_of_a_node_is_refused() {
    let directory = data_directory();
    for (data, expected) in [
        (directory.path().to_owned(), "holds no data of a node"),
        (directory.path().join("nowhere"), "No such file or directory"),
    ] {
        let output = inspect(&data, &["--verify"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(expected), "{said}");
    }
}
