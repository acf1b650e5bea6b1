//! A disk and an executor in memory, both deterministic, for tests and the simulator.
//!
//! The disk keeps apart what is written, what is cached and what is durable, in sectors of 512 bytes,
//! so that a test can cut the power at any point and choose which sectors made it. The executor runs
//! on virtual time and does nothing that its caller did not ask for.
//!
//! Nothing here is fast, and nothing here reads a clock or draws a random number of its own.

mod disk;
mod executor;
mod faults;
mod media;
mod operations;
#[cfg(test)]
mod tests;

pub use disk::{Append, MemoryBuffer, MemoryDisk};
pub use executor::TestRuntime;
pub use faults::{CERTAIN_PPM, Damage, DamageKind, FaultCounts, Faults};
pub use media::SECTOR_BYTES;

/// The seeds of a random test: the one in `EVENKEEL_SEED`, the range `a..b` in `EVENKEEL_SEEDS`, or the
/// first `count`.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("EVENKEEL_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("EVENKEEL_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").expect("EVENKEEL_SEEDS is a range a..b");
            number(first)..number(end)
        }
        Err(_) => 0..count,
    }
}

/// A small generator of random numbers (SplitMix64): the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
