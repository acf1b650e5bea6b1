//! What the tests of this crate share: seeds, random numbers, and histories in a short notation.
#![allow(dead_code, reason = "each test program uses its own part")]

use evenkeel_history::{Consistency, History, Image, Outcome, Request};

/// SplitMix64: the same seed gives the same numbers for ever.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// The seed in `EVENKEEL_SEED`, or `otherwise`; printed either way.
pub fn seed(otherwise: u64) -> u64 {
    let seed =
        std::env::var("EVENKEEL_SEED").ok().map(|text| text.parse().expect("EVENKEEL_SEED is a number"));
    let seed = seed.unwrap_or(otherwise);
    println!("seed={seed}");
    seed
}

pub const GET: Request = Request::Get { consistency: Consistency::Strong };
pub const ABSENT: Outcome = Outcome::Ok { returned: Some(Image::Absent) };
pub const OK: Outcome = Outcome::Ok { returned: None };

pub fn saw(value: i64) -> Outcome {
    Outcome::Ok { returned: Some(Image::Value(value)) }
}

pub fn put(value: i64) -> Request {
    Request::Put { value }
}

/// A history of one key, of operations `(client, invoked, ended, request, outcome)`.
pub fn history(operations: &[(u64, u64, u64, Request, Outcome)]) -> History {
    let mut history = History::new();
    add(&mut history, "k", operations);
    history
}

pub fn add(history: &mut History, key: &str, operations: &[(u64, u64, u64, Request, Outcome)]) {
    for &(client, invoked, ended, request, outcome) in operations {
        let id = history.invoke(invoked, client, key, request);
        history.respond(ended, id, outcome).expect("a test writes right lines");
    }
}
