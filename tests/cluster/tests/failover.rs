//! Nodes that are killed, one after another, while clients write: nothing acknowledged is lost, and the writes go on.
//!
//! `EVENKEEL_LONG=1` makes the import ten times as long.

use evenkeel_client::{Client, Error};
use evenkeel_cluster_tests::{Dev, binary, data_directory, native};
use evenkeel_model::{AttributeValue, Attributes, Number};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TABLE: &str = "survivors";
const WRITERS: u64 = 4;
/// Acknowledged writes between two kills, and after each one while the node may still be away.
const WRITES: u64 = 200;
/// Far more than an election takes on a busy machine; gaps are measured in benches.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

fn key(number: u64) -> Attributes {
    Attributes::from_iter([("k", AttributeValue::S(format!("key {number}")))])
}

fn item(number: u64) -> Attributes {
    let own = key(number).iter().map(|found| (found.name.clone(), found.value.clone())).collect::<Vec<_>>();
    own.into_iter().chain([("v".to_owned(), AttributeValue::N(Number::from(number)))]).collect()
}

/// What the writers share.
#[derive(Default)]
struct Log {
    next: AtomicU64,
    stop: AtomicBool,
    acknowledged: Mutex<Vec<u64>>,
    /// Errors that no failover explains.
    wrong: Mutex<Vec<Error>>,
}

impl Log {
    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no writer panics").len()
    }

    async fn write(self: Arc<Log>, client: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            match client.put(TABLE, item(number)).await {
                Ok(()) => self.acknowledged.lock().expect("no writer panics").push(number),
                Err(Error::OutcomeUnknown { .. } | Error::Unavailable { .. } | Error::Expired { .. }) => {}
                Err(error) => self.wrong.lock().expect("no writer panics").push(error),
            }
        }
    }

    /// Waits for so many more writes.
    async fn more(&self, writes: u64) {
        let (wanted, began) = (self.count() + writes as usize, Instant::now());
        while self.count() < wanted {
            assert!(began.elapsed() < GOES_ON_WITHIN, "writes do not go on: {} of {wanted}", self.count());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn pid(data: &Path, name: &str) -> Option<u32> {
    std::fs::read_to_string(data.join(format!("{name}.pid"))).ok()?.trim().parse().ok()
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

async fn partitions(dev: &Dev) -> Vec<Value> {
    let client_file = dev.client_file();
    // The writers go on meanwhile.
    let listing = tokio::task::spawn_blocking(move || {
        Command::new(binary::evenkeel())
            .args(["partition", "list", "--output", "json", "--cluster"])
            .arg(client_file)
            .output()
    });
    let listed = listing.await.expect("it does not panic").expect("the binary starts");
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    listed.as_array().expect("an array").clone()
}

/// Waits until `dev` has started a node again and every partition has three replicas that answer.
async fn until_whole(dev: &Dev) {
    let began = Instant::now();
    let is_whole = |partition: &Value| {
        let replicas = partition["replicas"].as_array().expect("an array");
        partition["leader"].is_object()
            && replicas.len() == 3
            && replicas
                .iter()
                .all(|replica| replica["role"].is_string() && replica["lag"].as_u64() < Some(100))
    };
    loop {
        let listed = partitions(dev).await;
        if listed.len() == 4 && listed.iter().all(is_whole) {
            return;
        }
        assert!(began.elapsed() < GOES_ON_WITHIN, "not whole: {listed:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn verify(client: &Client, log: &Log) {
    let acknowledged = log.acknowledged.lock().expect("no writer panics").clone();
    for number in acknowledged {
        let found = client.get(TABLE, key(number)).await;
        assert_eq!(found, Ok(Some(item(number))), "write {number} was acknowledged");
    }
}

#[tokio::test]
async fn nodes_killed_in_turn_lose_nothing_and_writes_go_on() {
    let directory = data_directory();
    let data = directory.path();
    let dev = Dev::try_start(data, &["--processes"]).unwrap_or_else(|exit| panic!("dev ended: {exit:?}"));
    let mut http = dev.http().await;
    http.create_table(TABLE, &[("k", "S")]).await;
    let client = native::connect(&dev.client_file()).await;
    until_whole(&dev).await;
    let log = Arc::new(Log::default());
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(log.clone().write(client.clone()))).collect();
    for (node, name) in [(1, "KILL"), (2, "TERM"), (3, "KILL")] {
        log.more(WRITES).await;
        let before = pid(data, &format!("node-{node}")).expect("each node has its file");
        signal(name, before);
        log.more(WRITES).await;
        until_whole(&dev).await;
        let after = pid(data, &format!("node-{node}"));
        assert!(after.is_some_and(|after| after != before), "node {node} is another process: {after:?}");
    }
    log.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    assert_eq!(*log.wrong.lock().expect("no writer panics"), [], "what a failover does not explain");
    verify(&client, &log).await;
    // The router is a process too, and comes back where it was.
    signal("KILL", pid(data, "router").expect("it has its file"));
    client.close().await;
    let exit = dev.stop();
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
    assert_eq!(pid(data, "node-1"), None, "their files go with them");

    // The same directory, in one process, and all nodes gone at once.
    let dev = Dev::start(data);
    verify(&native::connect(&dev.client_file()).await, &log).await;
    dev.kill();
    let dev = Dev::start(data);
    verify(&native::connect(&dev.client_file()).await, &log).await;
    assert_eq!(dev.stop().status.code(), Some(0));
}

/// A node that does not lead the catalogue.
async fn follower_of_the_catalogue(dev: &Dev) -> u64 {
    let listed = partitions(dev).await;
    let catalogue = listed.iter().find(|partition| partition["partition"] == 0).expect("it is listed");
    let leader = catalogue["leader"]["node"].as_u64().expect("looked at by until_whole");
    1 + leader % 3
}

#[tokio::test]
async fn tables_come_and_go_while_a_node_is_stopped() {
    let directory = data_directory();
    let data = directory.path();
    let dev = Dev::try_start(data, &["--processes"]).unwrap_or_else(|exit| panic!("dev ended: {exit:?}"));
    let mut http = dev.http().await;
    http.create_table("before", &[("k", "S")]).await;
    until_whole(&dev).await;
    let stopped = pid(data, &format!("node-{}", follower_of_the_catalogue(&dev).await)).expect("it runs");
    signal("STOP", stopped);
    http.delete_table("before").await;
    http.create_table("during", &[("k", "S")]).await;
    http.call("PutItem", json!({ "TableName": "during", "Item": { "k": { "S": "one" } } })).await;
    signal("CONT", stopped);
    // The copies of the new table on it are made, and those of the old one dropped.
    until_whole(&dev).await;
    assert_eq!(http.count("during").await, 1);
    assert_eq!(dev.stop().status.code(), Some(0));
}

/// A line of an import, of an item of its own.
fn line(number: u64) -> String {
    json!({ "k": format!("key {number}"), "v": number, "f": "x".repeat(number as usize % 500) }).to_string()
        + "\n"
}

#[tokio::test]
async fn an_import_passes_while_nodes_are_killed_and_come_back_in_turn() {
    let is_long = std::env::var_os("EVENKEEL_LONG").is_some_and(|value| value == "1");
    let step: u64 = if is_long { 40_000 } else { 4_000 };
    let directory = data_directory();
    let data = directory.path();
    let dev = Dev::try_start(data, &["--processes"]).unwrap_or_else(|exit| panic!("dev ended: {exit:?}"));
    let mut http = dev.http().await;
    http.create_table(TABLE, &[("k", "S")]).await;
    until_whole(&dev).await;
    let mut import = Command::new(binary::evenkeel())
        .args(["import", "--table", TABLE, "-", "--cluster"])
        .arg(dev.client_file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = import.stdin.take().expect("piped");
    let mut next = 0..;
    let mut feed = || {
        let lines: String = next.by_ref().take(step as usize).map(line).collect();
        // An import that has given up says why at its end.
        let _ = input.write_all(lines.as_bytes());
    };
    for node in 1..=3 {
        feed();
        signal("KILL", pid(data, &format!("node-{node}")).expect("each node has its file"));
        feed();
        until_whole(&dev).await;
    }
    drop(input);
    let output = import.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.starts_with(&format!("imported {} items, ", 6 * step)),
        "{output:?}"
    );
    // The connection of before has been idle for as long as the import took, and may be closed.
    assert_eq!(dev.http().await.count(TABLE).await, 6 * step);
    let client = native::connect(&dev.client_file()).await;
    for number in (0..6 * step).step_by(97) {
        let found = client.get(TABLE, key(number)).await;
        let found = found.expect("the cluster is whole").expect("its line was acknowledged");
        let value = found.iter().find(|attribute| attribute.name == "v").map(|found| &found.value);
        assert_eq!(value, Some(&AttributeValue::N(Number::from(number))));
    }
    client.close().await;
    assert_eq!(dev.stop().status.code(), Some(0));
}

#[tokio::test]
async fn what_partition_commands_cannot_find_is_named() {
    let directory = data_directory();
    let dev = Dev::start(directory.path());
    let cases: [(&[&str], &str); 2] = [
        (&["partition", "describe", "99"], "partition 99 does not exist"),
        (&["partition", "list", "--table", "nothing"], "table nothing does not exist"),
    ];
    for (arguments, expected) in cases {
        let output = Command::new(binary::evenkeel())
            .args(arguments)
            .arg("--cluster")
            .arg(dev.client_file())
            .output()
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(expected), "{arguments:?}: {said}");
    }
    let described = Command::new(binary::evenkeel())
        .args(["partition", "describe", "0", "--output", "json", "--cluster"])
        .arg(dev.client_file())
        .output()
        .expect("the binary starts");
    let described: Value = serde_json::from_slice(&described.stdout).expect("JSON");
    assert_eq!(
        (&described["partition"], described["replicas"].as_array().map(Vec::len)),
        (&json!(0), Some(3))
    );
    let roles: Vec<_> =
        described["replicas"].as_array().into_iter().flatten().map(|one| &one["role"]).collect();
    assert_eq!(roles.iter().filter(|role| **role == "leader").count(), 1, "{described}");
}
