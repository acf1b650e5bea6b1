//! Concurrent writers that know what was acknowledged.
//!
//! Each writer owns its keys, so it knows every state that a key may be in: the one last acknowledged, and
//! after a write without an answer also the one that this write would have made. Items are made from key
//! and version alone: one that is neither whole nor of a possible version shows.

use evenkeel_client::Client;
use evenkeel_cluster_tests::data::typed;
use evenkeel_cluster_tests::{Dev, Http, Random, native};
use evenkeel_model::{AttributeValue, Attributes, Number};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const TABLE: &str = "crash";
const WRITERS: usize = 16;
const KEYS_PER_WRITER: usize = 60;
/// A write to a process that was killed gets no answer; how long its writer waits for one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A version of a key's item, or that it is deleted.
type State = Option<u64>;

/// All writers, while none of them writes.
pub struct Writers(Vec<Writer>);

/// The writers at work.
pub struct Written(JoinSet<Writer>);

struct Writer {
    id: usize,
    random: Random,
    version: u64,
    /// By key: the states that it may be in; more than one is in doubt and left alone until verified.
    possible: Vec<Vec<State>>,
}

/// Half of the writers speak the native protocol, half HTTP.
enum Connection {
    Native(Client),
    Http(Http),
}

fn key(writer: usize, key: usize) -> [(&'static str, AttributeValue); 2] {
    let text = |value: String| AttributeValue::S(value);
    [("pk", text(format!("writer {writer} group {}", key % 7))), ("sk", text(format!("key {key}")))]
}

/// The one item of this key and version: mostly small, sometimes as large as many log pages.
fn item(writer: usize, of: usize, version: u64) -> Attributes {
    let mut random = Random::from_seed(version << 32 | (writer as u64) << 16 | of as u64);
    let bytes = if random.below(40) == 0 { 60_000 } else { 1_500 };
    let body = random.below(bytes) as usize;
    let others = [
        ("version", AttributeValue::N(Number::from(version))),
        ("body", AttributeValue::B(random.bytes(body))),
    ];
    key(writer, of).into_iter().chain(others).collect()
}

impl Connection {
    async fn open(dev: &Dev, writer: usize) -> Connection {
        if writer.is_multiple_of(2) {
            return Connection::Http(dev.http().await);
        }
        let mut config = native::config(&dev.client_file());
        config.timeout = ANSWER_WITHIN;
        Connection::Native(Client::connect(config).await.expect("the cluster takes connections"))
    }

    async fn write(&mut self, writer: usize, of: usize, state: State) -> Result<(), String> {
        let key: Attributes = key(writer, of).into_iter().collect();
        let item = state.map(|version| item(writer, of, version));
        match self {
            Connection::Native(client) => match item {
                Some(item) => client.put(TABLE, item).await.map(drop),
                None => client.delete(TABLE, key).await.map(drop),
            }
            .map_err(|error| error.to_string()),
            Connection::Http(http) => {
                let (operation, body) = match item {
                    Some(item) => ("PutItem", json!({ "TableName": TABLE, "Item": typed(&item) })),
                    None => ("DeleteItem", json!({ "TableName": TABLE, "Key": typed(&key) })),
                };
                let answer = http.try_call(operation, &body).await.map_err(|error| error.to_string())?;
                if answer.status.is_success() { Ok(()) } else { Err(answer.text()) }
            }
        }
    }
}

impl Writer {
    /// Writes until there is no answer any more, or no key is free of doubt.
    async fn write(
        mut self,
        mut connection: Connection,
        acknowledged: Arc<AtomicU64>,
        enough: Arc<Notify>,
        target: u64,
    ) -> Self {
        let mut last_error = String::new();
        let mut refused = 0;
        while refused < KEYS_PER_WRITER {
            let of = self.random.below(KEYS_PER_WRITER as u64) as usize;
            if self.possible[of].len() > 1 {
                refused += 1;
                continue;
            }
            self.version += 1;
            let state = (self.random.below(8) != 0).then_some(self.version);
            self.possible[of].push(state);
            match connection.write(self.id, of, state).await {
                Ok(()) => {
                    self.possible[of] = vec![state];
                    if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == target {
                        enough.notify_one();
                    }
                }
                Err(error) => {
                    refused += 1;
                    let lost = acknowledged.load(Ordering::Relaxed) >= target;
                    last_error = error;
                    if lost {
                        return self;
                    }
                }
            }
        }
        println!("writer {} gave up: {last_error}", self.id);
        self
    }
}

impl Writers {
    /// Writers of a table that has no items yet.
    pub fn new(random: &mut Random) -> Writers {
        let writer = |id| Writer {
            id,
            random: Random::from_seed(random.draw()),
            version: 0,
            possible: vec![vec![None]; KEYS_PER_WRITER],
        };
        Writers((0..WRITERS).map(writer).collect())
    }

    /// Creates the table that they write to.
    pub async fn create_table(&self, dev: &Dev) {
        dev.http().await.create_table(TABLE, &[("pk", "S"), ("sk", "S")]).await;
    }

    /// Lets all write at once; yields as soon as so many writes are acknowledged, while others are under way.
    pub async fn write_until(&mut self, dev: Dev, target: u64) -> (Dev, Written) {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let enough = Arc::new(Notify::new());
        let mut written = JoinSet::new();
        for writer in std::mem::take(&mut self.0) {
            let connection = Connection::open(&dev, writer.id).await;
            written.spawn(writer.write(connection, acknowledged.clone(), enough.clone(), target));
        }
        tokio::select! {
            () = enough.notified() => {}
            Some(ended) = written.join_next() => {
                panic!("writer {} ended before the kill", ended.expect("no writer panics").id)
            }
        }
        (dev, Written(written))
    }

    /// Waits for the writers, whose cluster is gone.
    pub async fn take_back(&mut self, written: Written) {
        self.0 = written.0.join_all().await;
        self.0.sort_by_key(|writer| writer.id);
        let in_doubt = self.0.iter().flat_map(|writer| &writer.possible).filter(|states| states.len() > 1);
        println!("{} keys in doubt", in_doubt.count());
    }

    /// Every key is in a possible state, whole, by a scan through HTTP and by gets through the native client.
    pub async fn verify(&mut self, dev: &Dev) {
        let client = native::connect(&dev.client_file()).await;
        let http = &mut dev.http().await;
        let (scanned, _) = http.pages("Scan", json!({ "TableName": TABLE })).await;
        let name = |item: &Value| (item["pk"].to_string(), item["sk"].to_string());
        let mut scanned: std::collections::BTreeMap<_, _> =
            scanned.into_iter().map(|item| (name(&item), item)).collect();
        for writer in &mut self.0 {
            for (of, possible) in writer.possible.iter_mut().enumerate() {
                let key: Attributes = key(writer.id, of).into_iter().collect();
                let found = client.get(TABLE, key.clone()).await.expect("the cluster answers");
                let version = found.as_ref().map(|item| match item.get("version") {
                    Some(AttributeValue::N(number)) => u64::try_from(number).expect("a version"),
                    other => panic!("{key:?} has no version: {other:?}"),
                });
                assert!(possible.contains(&version), "{key:?} is {version:?}, possible are {possible:?}");
                let whole = version.map(|version| item(writer.id, of, version));
                assert!(found == whole, "{key:?} is torn at version {version:?}");
                let scanned = scanned.remove(&name(&typed(&key)));
                assert!(scanned == whole.as_ref().map(typed), "a scan finds {key:?} otherwise: {scanned:?}");
                *possible = vec![version];
            }
        }
        assert!(scanned.is_empty(), "nobody wrote {:?}", scanned.keys());
    }
}
