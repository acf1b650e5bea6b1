//! The retry budget: a token bucket that all calls of one client share.
//!
//! Every request earns a fraction of a retry, and a small number of retries a second is free, so that
//! a quiet client can retry too. When everything fails, load rises by that fraction and no more.
//! (The mechanism is Finagle's `RetryBudget`; the reasons are in "Addressing Cascading Failures" of
//! Google's SRE book.)
//!
//! Requests are not counted here one by one: a withdrawal is told how many the client has sent so far,
//! so the path of a request that succeeds does not touch the bucket.

/// Retries are counted in millionths, so that what a microsecond or a request earns is a whole number.
const MILLIONTHS: u64 = 1_000_000;

/// How many retries are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetPolicy {
    /// Retries that a thousand requests earn.
    pub retries_per_thousand_requests: u64,
    /// Retries earned each second whatever the number of requests.
    pub retries_per_second: u64,
    /// Most retries saved up.
    pub retries_saved_max: u64,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        BudgetPolicy { retries_per_thousand_requests: 100, retries_per_second: 10, retries_saved_max: 100 }
    }
}

/// A bucket of retries; it starts full.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    policy: BudgetPolicy,
    retries_millionths: u64,
    requests_seen: u64,
    refilled_us: u64,
}

impl RetryBudget {
    /// A full bucket at time `now_us`.
    pub fn new(policy: BudgetPolicy, now_us: u64) -> RetryBudget {
        let retries_millionths = policy.retries_saved_max.saturating_mul(MILLIONTHS);
        RetryBudget { policy, retries_millionths, requests_seen: 0, refilled_us: now_us }
    }

    /// Takes one retry out at time `now_us`, if there is one. `requests_total` counts the requests that
    /// the client has begun so far.
    pub fn withdraw(&mut self, now_us: u64, requests_total: u64) -> bool {
        self.earn(now_us, requests_total);
        match self.retries_millionths.checked_sub(MILLIONTHS) {
            Some(rest) => {
                self.retries_millionths = rest;
                true
            }
            None => false,
        }
    }

    fn earn(&mut self, now_us: u64, requests_total: u64) {
        let requests = requests_total.saturating_sub(self.requests_seen);
        let elapsed_us = now_us.saturating_sub(self.refilled_us);
        let by_requests = requests.saturating_mul(self.policy.retries_per_thousand_requests * 1_000);
        let by_time = elapsed_us.saturating_mul(self.policy.retries_per_second);
        self.refilled_us = self.refilled_us.max(now_us);
        self.requests_seen = self.requests_seen.max(requests_total);
        let full = self.policy.retries_saved_max.saturating_mul(MILLIONTHS);
        self.retries_millionths =
            self.retries_millionths.saturating_add(by_requests).saturating_add(by_time).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Withdrawals at (time, requests so far) that succeed, from an empty bucket.
    fn allowed(policy: BudgetPolicy, tries: &[(u64, u64)]) -> Vec<bool> {
        let mut budget = RetryBudget::new(policy, 0);
        while budget.withdraw(0, 0) {}
        tries.iter().map(|(now_us, requests)| budget.withdraw(*now_us, *requests)).collect()
    }

    #[test]
    fn requests_and_time_earn_retries_up_to_what_may_be_saved() {
        let policy =
            BudgetPolicy { retries_per_thousand_requests: 100, retries_per_second: 10, retries_saved_max: 3 };
        type Case = (&'static str, &'static [(u64, u64)], &'static [bool]);
        let cases: [Case; 6] = [
            ("nothing earned", &[(0, 0), (0, 9)], &[false, false]),
            ("ten requests earn one retry", &[(0, 10), (0, 10)], &[true, false]),
            ("fractions add up", &[(0, 5), (0, 10), (0, 11)], &[false, true, false]),
            (
                "a tenth of a second earns one retry",
                &[(99_999, 0), (100_000, 0), (100_000, 0)],
                &[false, true, false],
            ),
            (
                "a clock that goes back earns nothing twice",
                &[(100_000, 0), (0, 0), (100_000, 0)],
                &[true, false, false],
            ),
            ("no more is saved than allowed", &[(9_000_000, 900); 4], &[true, true, true, false]),
        ];
        for (name, tries, expected) in cases {
            assert_eq!(allowed(policy, tries), expected, "{name}");
        }
    }

    #[test]
    fn when_everything_fails_load_rises_by_the_fraction_and_the_floor() {
        let mut budget = RetryBudget::new(BudgetPolicy::default(), 0);
        let retries = (1..=100_000u64).filter(|n| budget.withdraw(n * 100, *n)).count();
        // 100 saved, 10 % of 100,000 requests, 10 a second for 10 seconds.
        assert!((10_190..=10_200).contains(&retries), "{retries}");
    }
}
