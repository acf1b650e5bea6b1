//! What clients ask of a cluster while things go wrong, and the history of what they saw.
//!
//! Each client does one operation at a time, on keys of one partition, so a partition that does not answer holds
//! up nobody else. Keys are used for some seconds and then others are: a key's history stays short enough for an
//! exact search. Native clients put, delete and read, near and strong; those of HTTP also put under conditions and
//! increment. Nothing is repeated here: what a library or the router repeats by itself is part of what is tried.
//!
//! An item is a number (see `evenkeel_history::event`) and a filling. Every put writes another number.

use super::{ChaosError, Clock};
use crate::http::Answer;
use crate::{Http, Random};
use evenkeel_client::{Client, Consistency as Reads, Error, PartitionDescription};
use evenkeel_history::{Consistency, History, Image, Outcome, Request};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::key::encode_key;
use evenkeel_model::{AttributeValue, Attributes, KeyValue, Number, encode_item};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The table that is written.
pub const TABLE: &str = "chaos";
/// The attribute that is its key.
pub const KEY: &str = "k";
const NUMBER: &str = "n";
const FILLING: &str = "f";
const FILLING_BYTES_MAX: u64 = 2048;
/// How long the same keys are used.
const KEYS_LAST: Duration = Duration::from_secs(10);
/// Keys of a partition in use.
const KEYS: usize = 4;
/// How long a client thinks between two operations at most.
const THINKS_MS_MAX: u64 = 60;
/// Patience with an answer over HTTP; the router gives up before.
const HTTP_PATIENCE: Duration = Duration::from_secs(15);
/// Pause before a router that is not there is tried again.
const HTTP_PAUSE: Duration = Duration::from_millis(100);
/// Increments add less than lies between two numbers that are put.
const PUT_STEP: i64 = 1_000_000;

/// A write that succeeded, and how long it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Success {
    /// When, since the run began.
    pub at: Duration,
    /// The partition, counted from 0.
    pub partition: usize,
    /// From its beginning to its end.
    pub took: Duration,
}

/// The partitions of the table, by their lower ends.
pub struct Ranges(Vec<Vec<u8>>);

impl Ranges {
    /// Those of the table of the run.
    pub fn of(partitions: &[PartitionDescription]) -> Ranges {
        let mut lowers: Vec<Vec<u8>> =
            partitions.iter().filter(|one| one.table == TABLE).map(|one| one.lower.clone()).collect();
        lowers.sort();
        Ranges(lowers)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The one that owns a key.
    pub fn of_key(&self, key: &str) -> usize {
        let encoded = encode_key(&KeyValue::S(key.to_owned()), None);
        self.0.partition_point(|lower| *lower <= encoded).saturating_sub(1)
    }
}

/// What all clients share.
pub struct Record {
    /// What they saw.
    pub history: RefCell<History>,
    /// Writes that succeeded.
    pub successes: RefCell<Vec<Success>>,
    /// When operations ended without success; conditions that did not hold are successes.
    pub failures: RefCell<Vec<Duration>>,
    /// Answers that no fault explains.
    pub wrong: RefCell<BTreeSet<String>>,
    /// Where keys belong.
    pub ranges: Ranges,
    clock: Clock,
    put_last: Cell<i64>,
    stop: Cell<bool>,
}

impl Record {
    /// Nothing has happened yet.
    pub fn new(ranges: Ranges, clock: Clock) -> Rc<Record> {
        Rc::new(Record {
            history: RefCell::default(),
            successes: RefCell::default(),
            failures: RefCell::default(),
            wrong: RefCell::default(),
            ranges,
            clock,
            put_last: Cell::new(0),
            stop: Cell::new(false),
        })
    }

    /// Has clients begin nothing more.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// A number that nobody has put.
    pub fn fresh(&self) -> i64 {
        self.put_last.set(self.put_last.get() + PUT_STEP);
        self.put_last.get()
    }

    /// Does an operation and writes it down.
    pub async fn run(&self, client: u64, key: &str, request: Request, way: &mut impl Way) -> Outcome {
        let began = self.clock.now();
        let id = self.history.borrow_mut().invoke(micros(began), client, key, request);
        let outcome = match way.ask(key, request).await {
            Ok(outcome) => outcome,
            Err(reason) => {
                self.wrong.borrow_mut().insert(format!("key {key:?}, {request}: {reason}"));
                // Nothing is known of what has no meaning.
                if request.writes() { Outcome::Unknown } else { Outcome::Failed }
            }
        };
        let ended = self.clock.now();
        let recorded = self.history.borrow_mut().respond(micros(ended), id, outcome);
        if let Err(fault) = recorded {
            self.wrong.borrow_mut().insert(format!("key {key:?}: {fault}"));
        }
        match outcome {
            Outcome::Ok { .. } | Outcome::ConditionFailed { .. } if request.writes() => {
                let (partition, took) = (self.ranges.of_key(key), ended.saturating_sub(began));
                self.successes.borrow_mut().push(Success { at: ended, partition, took });
            }
            Outcome::Ok { .. } | Outcome::ConditionFailed { .. } => {}
            Outcome::Failed | Outcome::Unknown => self.failures.borrow_mut().push(ended),
        }
        outcome
    }

    /// The keys of a partition that are in use.
    fn keys(&self, partition: usize) -> Vec<String> {
        let era = self.clock.now().as_secs() / KEYS_LAST.as_secs();
        let names = (0..).map(|number| format!("{era}-{number}"));
        names.filter(|name| self.ranges.of_key(name) == partition).take(KEYS).collect()
    }
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).expect("runs are short")
}

/// A way to ask the cluster.
pub trait Way {
    /// Whether it knows conditions and increments.
    const CHANGES: bool;

    /// Asks once; an error is an answer that no fault explains.
    fn ask(&mut self, key: &str, request: Request) -> impl Future<Output = Result<Outcome, String>>;
}

/// A client of a partition, until it is told to stop.
pub async fn run_client(
    record: Rc<Record>,
    number: u64,
    partition: usize,
    mut random: Random,
    mut way: impl Way,
) {
    let mut seen: Option<(String, Image)> = None;
    while !record.stop.get() {
        let keys = record.keys(partition);
        let key = &keys[random.below(keys.len() as u64) as usize];
        let expected = seen.as_ref().filter(|(of, _)| of == key).map_or(Image::Absent, |(_, image)| *image);
        let request = draw(&mut random, expected, || record.fresh(), way_changes(&way));
        let outcome = record.run(number, key, request, &mut way).await;
        seen = match (request, outcome) {
            (Request::Put { value } | Request::PutIf { value, .. }, Outcome::Ok { .. }) => {
                Some((key.clone(), Image::Value(value)))
            }
            (_, Outcome::Ok { returned: Some(image) }) => Some((key.clone(), image)),
            _ => seen,
        };
        sleep(Duration::from_millis(random.below(THINKS_MS_MAX))).await;
    }
}

fn way_changes<W: Way>(_: &W) -> bool {
    W::CHANGES
}

fn draw(random: &mut Random, expected: Image, fresh: impl Fn() -> i64, changes: bool) -> Request {
    match random.below(16) {
        0..3 => Request::Get { consistency: Consistency::Strong },
        3..6 => Request::Get { consistency: Consistency::Eventual },
        6 => Request::Delete,
        7..9 if changes => Request::Increment { by: 1 },
        9..12 if changes => Request::PutIf { expected, value: fresh() },
        _ => Request::Put { value: fresh() },
    }
}

/// By the native client.
pub struct Native {
    /// The client.
    pub client: Client,
    /// The table.
    pub table: Arc<TableRow>,
}

impl Way for Native {
    const CHANGES: bool = false;

    async fn ask(&mut self, key: &str, request: Request) -> Result<Outcome, String> {
        let encoded = encode_key(&KeyValue::S(key.to_owned()), None);
        let done = |result: Result<(), Error>| native_outcome(request, result.map(|()| None));
        match request {
            Request::Put { value } => {
                let item = encode_item(&item(key, value));
                done(self.client.put_encoded(&self.table, &encoded, &item, false).await.map(|_| ()))
            }
            Request::Delete => {
                done(self.client.delete_encoded(&self.table, &encoded, false).await.map(|_| ()))
            }
            Request::Get { consistency } => {
                let reads = match consistency {
                    Consistency::Strong => Reads::Strong,
                    Consistency::Session | Consistency::Eventual => Reads::Eventual,
                };
                let found = self.client.get_encoded(&self.table, &encoded, reads).await;
                match found {
                    Ok(Some(item)) => {
                        let attributes = item.view().map_err(|error| error.to_string())?.to_attributes();
                        Ok(Outcome::Ok { returned: Some(Image::Value(number(&attributes)?)) })
                    }
                    Ok(None) => Ok(Outcome::Ok { returned: Some(Image::Absent) }),
                    Err(error) => native_outcome(request, Err(error)),
                }
            }
            Request::PutIf { .. } | Request::Increment { .. } => {
                Err("native clients do not ask this".to_owned())
            }
        }
    }
}

fn native_outcome(request: Request, result: Result<Option<Image>, Error>) -> Result<Outcome, String> {
    match result {
        Ok(returned) => Ok(Outcome::Ok { returned }),
        Err(Error::OutcomeUnknown { .. }) if request.writes() => Ok(Outcome::Unknown),
        Err(Error::Unavailable { .. } | Error::Expired { .. } | Error::Overloaded { .. }) => {
            Ok(Outcome::Failed)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn item(key: &str, value: i64) -> Attributes {
    Attributes::from_iter([
        (KEY, AttributeValue::S(key.to_owned())),
        (NUMBER, AttributeValue::N(Number::from(value.unsigned_abs()))),
        (FILLING, AttributeValue::S(filling(value))),
    ])
}

/// As long as the number wants it.
fn filling(value: i64) -> String {
    let bytes = Random::from_seed(value.unsigned_abs()).below(FILLING_BYTES_MAX);
    "x".repeat(bytes as usize)
}

fn number(attributes: &Attributes) -> Result<i64, String> {
    let found = attributes.iter().find(|attribute| attribute.name == NUMBER);
    match found.map(|attribute| &attribute.value) {
        Some(AttributeValue::N(number)) => {
            number.to_string().parse().map_err(|_| format!("{number} was never written"))
        }
        other => Err(format!("an item without a number was never written: {other:?}")),
    }
}

/// Over HTTP, by the router.
pub struct OverHttp {
    /// Where the router is.
    pub address: String,
    /// The connection, if there is one.
    pub connection: Option<Http>,
}

impl OverHttp {
    async fn call(&mut self, operation: &str, body: &Value) -> Option<Answer> {
        let address = self.address.clone();
        let asking = async {
            let mut http = match self.connection.take() {
                Some(http) => http,
                None => Http::connect(&address).await.ok()?,
            };
            let answer = http.try_call(operation, body).await.ok()?;
            Some((http, answer))
        };
        let (http, answer) = timeout(HTTP_PATIENCE, asking).await.ok()??;
        self.connection = Some(http);
        Some(answer)
    }
}

impl Way for OverHttp {
    const CHANGES: bool = true;

    async fn ask(&mut self, key: &str, request: Request) -> Result<Outcome, String> {
        let (operation, body) = over_http(key, request);
        let Some(answer) = self.call(operation, &body).await else {
            sleep(HTTP_PAUSE).await;
            return Ok(if request.writes() { Outcome::Unknown } else { Outcome::Failed });
        };
        http_outcome(request, answer.status.as_u16(), &answer.text())
    }
}

fn over_http(key: &str, request: Request) -> (&'static str, Value) {
    let key = json!({ KEY: { "S": key } });
    let item = |value: i64| {
        let mut item = key.clone();
        item[NUMBER] = json!({ "N": value.to_string() });
        item[FILLING] = json!({ "S": filling(value) });
        item
    };
    match request {
        Request::Get { consistency } => {
            let consistent = consistency == Consistency::Strong;
            ("GetItem", json!({ "TableName": TABLE, "Key": key, "ConsistentRead": consistent }))
        }
        Request::Put { value } => ("PutItem", json!({ "TableName": TABLE, "Item": item(value) })),
        Request::Delete => ("DeleteItem", json!({ "TableName": TABLE, "Key": key })),
        Request::PutIf { expected: Image::Absent, value } => (
            "PutItem",
            json!({ "TableName": TABLE, "Item": item(value), "ConditionExpression": format!("attribute_not_exists({KEY})") }),
        ),
        Request::PutIf { expected: Image::Value(expected), value } => (
            "PutItem",
            json!({
                "TableName": TABLE, "Item": item(value), "ConditionExpression": format!("{NUMBER} = :expected"),
                "ExpressionAttributeValues": { ":expected": { "N": expected.to_string() } },
            }),
        ),
        Request::Increment { by } => (
            "UpdateItem",
            json!({
                "TableName": TABLE, "Key": key, "UpdateExpression": format!("ADD {NUMBER} :by"),
                "ExpressionAttributeValues": { ":by": { "N": by.to_string() } }, "ReturnValues": "UPDATED_NEW",
            }),
        ),
    }
}

/// What an answer means; one that is no success, no failed condition and no fault of a server is wrong.
fn http_outcome(request: Request, status: u16, text: &str) -> Result<Outcome, String> {
    let wrong = || format!("status {status}: {text}");
    let json: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    match (status, request) {
        (200, Request::Get { .. }) => match &json["Item"] {
            Value::Null => Ok(Outcome::Ok { returned: Some(Image::Absent) }),
            item => http_number(item).map(|image| Outcome::Ok { returned: Some(image) }).ok_or_else(wrong),
        },
        (200, Request::Increment { .. }) => http_number(&json["Attributes"])
            .map(|image| Outcome::Ok { returned: Some(image) })
            .ok_or_else(wrong),
        (200, _) => Ok(Outcome::Ok { returned: None }),
        (400, Request::PutIf { .. }) if text.contains("ConditionalCheckFailedException") => {
            Ok(Outcome::ConditionFailed { found: None })
        }
        (500..600, request) if request.writes() => Ok(Outcome::Unknown),
        (500..600, _) => Ok(Outcome::Failed),
        _ => Err(wrong()),
    }
}

fn http_number(item: &Value) -> Option<Image> {
    item[NUMBER]["N"].as_str()?.parse().ok().map(Image::Value)
}

/// The clients that a run has, native ones of each zone and of none.
///
/// # Errors
/// If the cluster cannot be reached before anything goes wrong.
pub async fn natives(config: &evenkeel_client::ClientConfig) -> Result<Vec<Client>, ChaosError> {
    let mut clients = Vec::new();
    for zone in [None, Some("a"), Some("b"), Some("c")] {
        let config = evenkeel_client::ClientConfig { zone: zone.map(str::to_owned), ..config.clone() };
        let client = Client::connect(config).await;
        clients.push(client.map_err(|error| ChaosError::NotRun(format!("no client can connect: {error}")))?);
    }
    Ok(clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Request = Request::Put { value: 5 };
    const GET: Request = Request::Get { consistency: Consistency::Strong };

    #[test]
    fn an_answer_over_http_means_what_it_says_and_throttles_are_wrong() {
        let saw = |image| Ok(Outcome::Ok { returned: Some(image) });
        assert_eq!(http_outcome(GET, 200, "{}"), saw(Image::Absent));
        assert_eq!(http_outcome(GET, 200, r#"{"Item":{"n":{"N":"7"}}}"#), saw(Image::Value(7)));
        let add = Request::Increment { by: 1 };
        assert_eq!(http_outcome(add, 200, r#"{"Attributes":{"n":{"N":"8"}}}"#), saw(Image::Value(8)));
        assert_eq!(http_outcome(PUT, 503, r#"{"__type":"x"}"#), Ok(Outcome::Unknown));
        assert_eq!(http_outcome(GET, 500, r#"{"__type":"x"}"#), Ok(Outcome::Failed));
        let throttle = r#"{"__type":"ProvisionedThroughputExceededException"}"#;
        assert!(http_outcome(PUT, 400, throttle).is_err());
        let failed = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}"#;
        let conditional = Request::PutIf { expected: Image::Absent, value: 1 };
        assert_eq!(http_outcome(conditional, 400, failed), Ok(Outcome::ConditionFailed { found: None }));
        assert!(http_outcome(PUT, 400, failed).is_err());
        assert!(http_outcome(GET, 200, "no JSON").is_err());
    }

    #[test]
    fn only_a_write_of_unknown_outcome_may_have_happened() {
        let text = String::new;
        let unknown = Err(Error::OutcomeUnknown { message: text() });
        assert_eq!(native_outcome(PUT, unknown.clone()), Ok(Outcome::Unknown));
        assert!(native_outcome(GET, unknown).is_err());
        assert_eq!(native_outcome(PUT, Err(Error::Unavailable { message: text() })), Ok(Outcome::Failed));
        assert!(native_outcome(PUT, Err(Error::Internal { message: text() })).is_err());
        assert!(native_outcome(PUT, Err(Error::TableNotFound { table: text() })).is_err());
    }

    #[test]
    fn keys_belong_to_the_range_that_they_are_in() {
        let bounds = evenkeel_model::key::even_bounds(5);
        let ranges = Ranges(bounds.clone());
        for key in ["0-0", "0-1", "7-3", "x"] {
            let encoded = encode_key(&KeyValue::S(key.to_owned()), None);
            let at = ranges.of_key(key);
            assert!(
                bounds[at] <= encoded && bounds.get(at + 1).is_none_or(|upper| encoded < *upper),
                "{key}"
            );
        }
    }
}
