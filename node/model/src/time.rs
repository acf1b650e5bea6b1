//! Timestamps of writes: a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).

use rkyv::{Archive, Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, made strictly increasing within a partition.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct Timestamp(pub u64);

impl From<&ArchivedTimestamp> for Timestamp {
    fn from(archived: &ArchivedTimestamp) -> Self {
        Timestamp(archived.0.into())
    }
}

/// Yields timestamps that follow the wall clock and never repeat or go back, whatever the wall clock does.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Timestamp,
}

impl HybridClock {
    /// A clock that continues after `last`, the greatest timestamp seen so far.
    pub fn after(last: Timestamp) -> Self {
        HybridClock { last }
    }

    /// Takes note of a timestamp made elsewhere, so that the next one is greater.
    pub fn observe(&mut self, seen: Timestamp) {
        self.last = self.last.max(seen);
    }

    /// The next timestamp at wall-clock time `now_ns` (nanoseconds since the Unix epoch).
    pub fn tick(&mut self, now_ns: u64) -> Timestamp {
        let next = now_ns.max(self.last.0.checked_add(1).expect("the year 2554 is far away"));
        self.last = Timestamp(next);
        self.last
    }
}

/// The time that passes in a log, as the timestamps of its entries tell it. The same entries tell every replica
/// the same. A step from one entry to the next counts for little, however large it is: a wall clock that jumps
/// ahead makes nothing old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTime {
    /// The greatest timestamp so far.
    pub last: Timestamp,
    /// Nanoseconds that have passed.
    pub elapsed_ns: u64,
}

impl LogTime {
    /// Most that one step counts for, in nanoseconds.
    pub const STEP_NS_MAX: u64 = 5_000_000_000;

    /// Goes on to an entry of this timestamp; returns the nanoseconds that have passed.
    pub fn advance(&mut self, to: Timestamp) -> u64 {
        let step_ns = to.0.saturating_sub(self.last.0);
        if self.last != Timestamp::default() {
            self.elapsed_ns += step_ns.min(LogTime::STEP_NS_MAX);
        }
        self.last = self.last.max(to);
        self.elapsed_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_still_yields_rising_timestamps() {
        let mut clock = HybridClock::after(Timestamp(10));
        let stamps: Vec<u64> = [5, 20, 20, 7, 30].into_iter().map(|now| clock.tick(now).0).collect();
        assert_eq!(stamps, [11, 20, 21, 22, 30]);
    }

    #[test]
    fn in_a_log_time_passes_by_small_steps_only() {
        let mut time = LogTime::default();
        let second = 1_000_000_000;
        let passed: Vec<u64> = [100, 101, 100, 4000, 4002]
            .iter()
            .map(|at| time.advance(Timestamp(at * second)) / second)
            .collect();
        assert_eq!(passed, [0, 1, 1, 6, 8]);
    }
}
