//! How long a check of a history takes: 10,000 operations of 16 clients on 100 keys with 5 % unknown
//! outcomes, right and with one wrong answer, and a single hot key.
//!
//! `cargo bench -p evenkeel-history` prints the figures and fails if the first takes a second.

use evenkeel_history::{Consistency, History, Image, Limits, Outcome, Request, Verdict, check};
use std::time::{Duration, Instant};

/// What a check of the usual history may take.
const LIMIT: Duration = Duration::from_secs(1);

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[derive(Clone, Copy)]
struct Workload {
    operations: u64,
    keys: u64,
    clients: u64,
    unknown_percent: u64,
}

enum Client {
    Idle,
    Asked { id: u64, key: usize, request: Request },
    Applied { id: u64, outcome: Outcome },
}

/// What a right store answers: each operation is applied between its beginning and its end.
fn record(workload: Workload, seed: u64) -> History {
    let mut random = Random(seed);
    let mut history = History::new();
    let mut store = vec![Image::Absent; usize::try_from(workload.keys).expect("few keys")];
    let mut clients: Vec<_> = (0..workload.clients).map(|_| Client::Idle).collect();
    let (mut begun, mut time) = (0, 0);
    while begun < workload.operations {
        time += 1;
        let client = random.below(workload.clients);
        let slot = &mut clients[usize::try_from(client).expect("few clients")];
        *slot = match *slot {
            Client::Idle => {
                begun += 1;
                let key = usize::try_from(random.below(workload.keys)).expect("few keys");
                let request = request(&mut random, store[key], i64::try_from(time).expect("short"));
                let id = history.invoke(time, client, &format!("key-{key}"), request);
                Client::Asked { id, key, request }
            }
            Client::Asked { id, key, request } => {
                let unknown = random.below(100) < workload.unknown_percent;
                let lost = unknown && random.below(2) == 0;
                let outcome = if lost { Outcome::Unknown } else { apply(request, &mut store[key]) };
                Client::Applied { id, outcome: if unknown { Outcome::Unknown } else { outcome } }
            }
            Client::Applied { id, outcome } => {
                history.respond(time, id, outcome).expect("each operation ends once");
                Client::Idle
            }
        };
    }
    history
}

fn request(random: &mut Random, there: Image, value: i64) -> Request {
    match random.below(10) {
        0..=3 => Request::Get { consistency: Consistency::Strong },
        4..=6 => Request::Put { value },
        7 => Request::Delete,
        8 => Request::PutIf { expected: there, value },
        _ => Request::Increment { by: 1 },
    }
}

fn apply(request: Request, there: &mut Image) -> Outcome {
    let before = *there;
    match request {
        Request::Get { .. } => return Outcome::Ok { returned: Some(before) },
        Request::Put { value } => *there = Image::Value(value),
        Request::Delete => *there = Image::Absent,
        Request::PutIf { expected, .. } if expected != before => {
            return Outcome::ConditionFailed { found: Some(before) };
        }
        Request::PutIf { value, .. } => *there = Image::Value(value),
        Request::Increment { by } => {
            let Image::Value(value) = before else {
                *there = Image::Value(by);
                return Outcome::Ok { returned: Some(*there) };
            };
            *there = Image::Value(value + by);
            return Outcome::Ok { returned: Some(*there) };
        }
    }
    Outcome::Ok { returned: None }
}

/// The history with one read, two thirds in, that saw an older number.
fn spoiled(history: &History) -> History {
    let mut spoiled = History::new();
    let from = history.operations().len() * 2 / 3;
    let mut done = false;
    for (index, operation) in history.operations().iter().enumerate() {
        let id = spoiled.invoke(operation.invoked, operation.client, &operation.key, operation.request);
        let Some((time, mut outcome)) = operation.response else { continue };
        if let Outcome::Ok { returned: Some(Image::Value(value)) } = outcome
            && !operation.request.writes()
            && index > from
            && !std::mem::replace(&mut done, true)
        {
            outcome = Outcome::Ok { returned: Some(Image::Value(value - 1_000_000)) };
        }
        spoiled.respond(time, id, outcome).expect("as in the first history");
    }
    spoiled
}

fn measure(name: &str, history: &History, expect_right: bool) -> Duration {
    let start = Instant::now();
    let verdict = check(history, Limits::default());
    let taken = start.elapsed();
    println!("{name}: {} operations in {:.1} ms", history.operations().len(), taken.as_secs_f64() * 1e3);
    match verdict {
        Verdict::Linearizable { .. } => assert!(expect_right, "{name} is wrong"),
        Verdict::Violation(explanation) => assert!(!expect_right, "{explanation}"),
        Verdict::Undecided { keys } => panic!("{name}: {} keys undecided", keys.len()),
    }
    taken
}

fn main() {
    let usual = Workload { operations: 10_000, keys: 100, clients: 16, unknown_percent: 5 };
    let mut worst = Duration::ZERO;
    for seed in 1..=10 {
        let history = record(usual, seed);
        worst = worst.max(measure(&format!("usual, seed {seed}"), &history, true));
        worst = worst.max(measure(&format!("one wrong answer, seed {seed}"), &spoiled(&history), false));
    }
    for unknown_percent in [0, 1] {
        let hot = Workload { operations: 2_000, keys: 1, clients: 16, unknown_percent };
        measure(&format!("one hot key, {unknown_percent} % unknown"), &record(hot, 1), true);
    }
    println!("worst usual: {:.1} ms, limit {} ms", worst.as_secs_f64() * 1e3, LIMIT.as_millis());
    assert!(worst < LIMIT, "the usual history took {worst:?}");
}
