//! The pace of operations over time: how many succeeded in each turn, the slowest one, the longest time without any.
//!
//! Times are counted from the beginning of what is looked at.

use std::time::Duration;

/// A success: when it ended, and how long it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Success {
    /// When.
    pub at: Duration,
    /// From its beginning to its end.
    pub took: Duration,
}

/// A time without a success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// When it began.
    pub from: Duration,
    /// How long it was.
    pub lasted: Duration,
}

/// The longest time without a success up to `end`; `successes` by time.
pub fn longest_gap(successes: impl Iterator<Item = Duration>, end: Duration) -> Gap {
    let mut last = Duration::ZERO;
    let mut longest = Gap { from: last, lasted: Duration::ZERO };
    for at in successes.filter(|at| *at <= end).chain([end]) {
        let lasted = at.saturating_sub(last);
        if lasted > longest.lasted {
            longest = Gap { from: last, lasted };
        }
        last = last.max(at);
    }
    longest
}

/// Steps to be drawn: the rate of successes of each turn, and how many milliseconds its slowest one took.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Steps {
    /// Seconds, and successes a second.
    pub rates: Vec<(f64, f64)>,
    /// Seconds, and milliseconds.
    pub slowest: Vec<(f64, f64)>,
}

/// What turns of this length have of the successes up to `end`.
pub fn steps(successes: &[Success], turn: Duration, end: Duration) -> Steps {
    let length = turn.as_secs_f64();
    let count = (end.as_secs_f64() / length).ceil().max(1.0) as usize;
    let mut turns = vec![(0u32, Duration::ZERO); count];
    for success in successes {
        if let Some((count, slowest)) = turns.get_mut((success.at.as_secs_f64() / length) as usize) {
            *count += 1;
            *slowest = (*slowest).max(success.took);
        }
    }
    let mut steps = Steps::default();
    for (at, (count, slowest)) in turns.into_iter().enumerate() {
        // What is counted belongs to the whole turn.
        for at in [at as f64 * length, (at + 1) as f64 * length] {
            steps.rates.push((at, f64::from(count) / length));
            steps.slowest.push((at, slowest.as_secs_f64() * 1000.0));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_longest_gap_counts_from_the_beginning_and_to_the_end() {
        let gap = |successes: &[u64]| {
            let gap = longest_gap(successes.iter().map(|&at| ms(at)), ms(5_000));
            (gap.from, gap.lasted)
        };
        assert_eq!(gap(&[10, 1_210, 1_220, 4_900]), (ms(1_220), ms(3_680)));
        assert_eq!(gap(&[4_000, 9_000]), (ms(0), ms(4_000)));
        assert_eq!(gap(&[100]), (ms(100), ms(4_900)));
        assert_eq!(gap(&[]), (ms(0), ms(5_000)));
    }

    #[test]
    fn successes_are_counted_in_their_turns() {
        let success = |at, took| Success { at: ms(at), took: ms(took) };
        let successes = [success(10, 2), success(20, 8), success(990, 4), success(1_200, 1)];
        let steps = steps(&successes, ms(500), ms(1_000));
        assert_eq!(steps.rates, [(0.0, 4.0), (0.5, 4.0), (0.5, 2.0), (1.0, 2.0)]);
        assert_eq!(steps.slowest, [(0.0, 8.0), (0.5, 8.0), (0.5, 4.0), (1.0, 4.0)]);
    }
}
