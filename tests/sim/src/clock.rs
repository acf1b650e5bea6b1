//! A machine's clock: it runs a little fast or slow, the rate changes, and it never goes back.

/// Parts in a million are counted in this.
const MILLION: i128 = 1_000_000;

/// Maps true time to what a machine takes for it. Both are in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    true_ns: u64,
    local_ns: u64,
    fast_ppm: i32,
}

impl Clock {
    /// A clock that shows `local_ns` now.
    pub fn new(true_ns: u64, local_ns: u64, fast_ppm: i32) -> Clock {
        Clock { true_ns, local_ns, fast_ppm }
    }

    /// What it shows at a time that is not before its last change.
    pub fn local_ns(&self, true_ns: u64) -> u64 {
        let passed = i128::from(true_ns.saturating_sub(self.true_ns));
        let local = i128::from(self.local_ns) + passed * (MILLION + i128::from(self.fast_ppm)) / MILLION;
        u64::try_from(local).expect("runs are shorter than centuries")
    }

    /// The first time at which it shows `local_ns` or more.
    pub fn true_ns(&self, local_ns: u64) -> u64 {
        let left = i128::from(local_ns.saturating_sub(self.local_ns)) * MILLION;
        let rate = MILLION + i128::from(self.fast_ppm);
        self.true_ns + u64::try_from((left + rate - 1) / rate).expect("runs are shorter than centuries")
    }

    /// Runs at another rate from now on.
    pub fn set_rate(&mut self, true_ns: u64, fast_ppm: i32) {
        *self = Clock::new(true_ns, self.local_ns(true_ns), fast_ppm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_asked_for_at_the_time_it_names_and_not_before() {
        for fast_ppm in [-4000, -1, 0, 1, 4000] {
            let mut clock = Clock::new(1_000, 50, fast_ppm);
            clock.set_rate(77_777, fast_ppm / 2);
            for local_ns in [clock.local_ns(77_777), 100_000, 999_999_999, 77_777_777_777] {
                let true_ns = clock.true_ns(local_ns);
                assert!(clock.local_ns(true_ns) >= local_ns, "{fast_ppm} {local_ns}");
                assert!(true_ns == 77_777 || clock.local_ns(true_ns - 1) < local_ns, "{fast_ppm} {local_ns}");
            }
        }
    }

    #[test]
    fn a_clock_does_not_jump_when_its_rate_changes() {
        let mut clock = Clock::new(0, 0, 4000);
        let before = clock.local_ns(1_000_000_007);
        clock.set_rate(1_000_000_007, -4000);
        assert_eq!(clock.local_ns(1_000_000_007), before);
        assert_eq!(before, 1_004_000_007);
    }
}
