//! One request from its first attempt to its end: what follows from the outcome of each attempt.
//!
//! | outcome | read | write |
//! |---|---|---|
//! | refused, nothing done, may succeed later | retry | retry |
//! | refused for good | give up | give up |
//! | the log failed | give up | outcome unknown |
//! | connection lost before it was sent | retry | retry |
//! | connection lost after it was sent | retry | outcome unknown |
//! | time is up before it was sent | expired | expired |
//! | time is up after it was sent | expired | outcome unknown |
//!
//! A write whose outcome is unknown is never repeated here: whether that is safe, the caller knows.
//! Retries wait with exponential backoff and full jitter ("Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015), end before the deadline, and are paid from the client's [`RetryBudget`].
//! The first retry after [`RefusalCode::WrongPartition`] is free of both: the route was old, the
//! cluster is not in trouble.

use crate::budget::RetryBudget;
use evenkeel_wire::RefusalCode;

/// Whether a request may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing; repeating it is harmless.
    Read,
    /// It may have changed something even if no answer came.
    Write,
}

/// How an attempt ended, if not by an answer that settles the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node refused.
    Refusal(RefusalCode),
    /// The node refused with a code that this program does not know.
    UnknownRefusal,
    /// There was no connection, or it broke.
    ConnectionLost {
        /// Whether the request may have reached the node.
        sent: bool,
    },
    /// The deadline passed without an answer.
    Timeout {
        /// Whether the request may have reached the node.
        sent: bool,
    },
}

/// Why a call ends without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The node refused for good; nothing was done.
    Refused,
    /// The node refused for now, and the deadline or the retries are used up; nothing was done.
    Busy,
    /// The node cannot be reached, or its log has failed; nothing was done.
    Unavailable,
    /// The time was up; nothing was done.
    Expired,
    /// The write may have happened or not.
    OutcomeUnknown,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again.
    Retry {
        /// Microseconds to wait first.
        after_us: u64,
        /// Whether the map of routes must be read again first.
        refresh_route: bool,
    },
    /// End the call.
    GiveUp(GiveUp),
}

/// How often and how fast a call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most attempts of one call.
    pub attempts_max: u32,
    /// Longest wait before the second attempt; it doubles with each further one.
    pub backoff_first_us: u64,
    /// Longest wait before any attempt.
    pub backoff_max_us: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { attempts_max: 8, backoff_first_us: 5_000, backoff_max_us: 500_000 }
    }
}

/// The state of one call.
#[derive(Clone, Debug)]
pub struct Call {
    policy: RetryPolicy,
    effect: Effect,
    deadline_us: u64,
    attempts: u32,
    redirected: bool,
}

impl Call {
    /// A call whose first attempt begins now and that must end by `deadline_us`.
    pub fn new(policy: RetryPolicy, effect: Effect, deadline_us: u64) -> Call {
        Call { policy, effect, deadline_us, attempts: 1, redirected: false }
    }

    /// Attempts so far, the one under way included.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Microseconds left at time `now_us`.
    pub fn time_left_us(&self, now_us: u64) -> u64 {
        self.deadline_us.saturating_sub(now_us)
    }

    /// Decides what follows from an attempt's outcome. `requests_total` is for the budget, see
    /// [`RetryBudget::withdraw`]; `random` is any number, drawn anew for each call of this function.
    pub fn handle_outcome(
        &mut self,
        outcome: Outcome,
        budget: &mut RetryBudget,
        requests_total: u64,
        now_us: u64,
        random: u64,
    ) -> Decision {
        let uncertain = match self.effect {
            Effect::Read => None,
            Effect::Write => Some(Decision::GiveUp(GiveUp::OutcomeUnknown)),
        };
        match outcome {
            Outcome::Refusal(RefusalCode::WrongPartition) if !self.redirected => {
                self.redirected = true;
                self.redirect(now_us)
            }
            Outcome::Refusal(code) if code.is_retryable() => {
                let refresh_route = code == RefusalCode::WrongPartition;
                self.retry(GiveUp::Busy, refresh_route, budget, requests_total, now_us, random)
            }
            Outcome::Refusal(RefusalCode::Failed) => {
                uncertain.unwrap_or(Decision::GiveUp(GiveUp::Unavailable))
            }
            Outcome::Refusal(RefusalCode::Expired) => Decision::GiveUp(GiveUp::Expired),
            Outcome::Refusal(_) | Outcome::UnknownRefusal => Decision::GiveUp(GiveUp::Refused),
            Outcome::ConnectionLost { sent } => match uncertain.filter(|_| sent) {
                Some(unknown) => unknown,
                None => self.retry(GiveUp::Unavailable, false, budget, requests_total, now_us, random),
            },
            Outcome::Timeout { sent } => {
                uncertain.filter(|_| sent).unwrap_or(Decision::GiveUp(GiveUp::Expired))
            }
        }
    }

    fn redirect(&mut self, now_us: u64) -> Decision {
        if self.attempts >= self.policy.attempts_max || self.time_left_us(now_us) == 0 {
            return Decision::GiveUp(GiveUp::Busy);
        }
        self.attempts += 1;
        Decision::Retry { after_us: 0, refresh_route: true }
    }

    fn retry(
        &mut self,
        otherwise: GiveUp,
        refresh_route: bool,
        budget: &mut RetryBudget,
        requests_total: u64,
        now_us: u64,
        random: u64,
    ) -> Decision {
        let doublings = self.attempts.saturating_sub(1).min(32);
        let longest_us =
            self.policy.backoff_first_us.saturating_mul(1 << doublings).min(self.policy.backoff_max_us);
        let after_us = random % (longest_us + 1);
        let in_time = after_us < self.time_left_us(now_us);
        if self.attempts >= self.policy.attempts_max || !in_time || !budget.withdraw(now_us, requests_total) {
            return Decision::GiveUp(otherwise);
        }
        self.attempts += 1;
        Decision::Retry { after_us, refresh_route }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::BudgetPolicy;
    use Effect::{Read, Write};

    const DEADLINE_US: u64 = 1_000_000;

    fn budget(retries: u64) -> RetryBudget {
        let policy = BudgetPolicy {
            retries_per_thousand_requests: 0,
            retries_per_second: 0,
            retries_saved_max: retries,
        };
        RetryBudget::new(policy, 0)
    }

    fn call(effect: Effect) -> Call {
        Call::new(RetryPolicy::default(), effect, DEADLINE_US)
    }

    #[test]
    fn each_outcome_of_a_first_attempt_has_its_decision() {
        use Outcome::{ConnectionLost, Refusal, Timeout, UnknownRefusal};
        let retry = Decision::Retry { after_us: 0, refresh_route: false };
        let redirect = Decision::Retry { after_us: 0, refresh_route: true };
        let end = Decision::GiveUp;
        let unknown = end(GiveUp::OutcomeUnknown);
        let refused = end(GiveUp::Refused);
        let cases = [
            (Refusal(RefusalCode::WrongPartition), redirect, redirect),
            (Refusal(RefusalCode::Overloaded), retry, retry),
            (Refusal(RefusalCode::TableFull), retry, retry),
            (Refusal(RefusalCode::LogFull), retry, retry),
            (Refusal(RefusalCode::Invalid), refused, refused),
            (Refusal(RefusalCode::Unsupported), refused, refused),
            (Refusal(RefusalCode::Forbidden), refused, refused),
            (Refusal(RefusalCode::Expired), end(GiveUp::Expired), end(GiveUp::Expired)),
            (Refusal(RefusalCode::Failed), end(GiveUp::Unavailable), unknown),
            (Refusal(RefusalCode::TableExists), refused, refused),
            (Refusal(RefusalCode::TableNotFound), refused, refused),
            (Refusal(RefusalCode::TableInUse), refused, refused),
            (Refusal(RefusalCode::Mismatch), refused, refused),
            (Refusal(RefusalCode::Protected), refused, refused),
            (Refusal(RefusalCode::UserExists), refused, refused),
            (Refusal(RefusalCode::UserNotFound), refused, refused),
            (UnknownRefusal, refused, refused),
            (ConnectionLost { sent: false }, retry, retry),
            (ConnectionLost { sent: true }, retry, unknown),
            (Timeout { sent: false }, end(GiveUp::Expired), end(GiveUp::Expired)),
            (Timeout { sent: true }, end(GiveUp::Expired), unknown),
        ];
        for (outcome, read, write) in cases {
            for (effect, expected) in [(Read, read), (Write, write)] {
                let decision = call(effect).handle_outcome(outcome, &mut budget(1), 0, 0, 0);
                assert_eq!(decision, expected, "{outcome:?} of a {effect:?}");
            }
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_jitter_covers_them_whole() {
        let mut budget = budget(100);
        let (mut shortest, mut longest) = (call(Read), call(Read));
        let busy = Outcome::Refusal(RefusalCode::Overloaded);
        for expected in [5_000u64, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000] {
            let after = |call: &mut Call, random, budget: &mut RetryBudget| match call
                .handle_outcome(busy, budget, 0, 0, random)
            {
                Decision::Retry { after_us, refresh_route: false } => after_us,
                other => panic!("{other:?}"),
            };
            assert_eq!(after(&mut shortest, 0, &mut budget), 0);
            assert_eq!(after(&mut longest, expected, &mut budget), expected);
        }
        assert_eq!(longest.attempts(), 8);
        assert_eq!(longest.handle_outcome(busy, &mut budget, 0, 0, 0), Decision::GiveUp(GiveUp::Busy));
    }

    #[test]
    fn no_retry_is_planned_beyond_the_deadline() {
        let busy = Outcome::Refusal(RefusalCode::Overloaded);
        let at = |now_us, random| call(Read).handle_outcome(busy, &mut budget(1), 0, now_us, random);
        assert_eq!(at(DEADLINE_US - 1_001, 1_000), Decision::Retry { after_us: 1_000, refresh_route: false });
        assert_eq!(at(DEADLINE_US - 1_000, 1_000), Decision::GiveUp(GiveUp::Busy));
        assert_eq!(at(DEADLINE_US + 1, 0), Decision::GiveUp(GiveUp::Busy));
    }

    #[test]
    fn an_empty_budget_ends_retries_but_not_the_first_redirect() {
        let wrong = Outcome::Refusal(RefusalCode::WrongPartition);
        let mut call = call(Write);
        let redirect = Decision::Retry { after_us: 0, refresh_route: true };
        assert_eq!(call.handle_outcome(wrong, &mut budget(0), 0, 0, 7), redirect);
        assert_eq!(call.handle_outcome(wrong, &mut budget(0), 0, 0, 7), Decision::GiveUp(GiveUp::Busy));
    }

    #[test]
    fn a_second_redirect_waits_and_is_paid() {
        let wrong = Outcome::Refusal(RefusalCode::WrongPartition);
        let (mut call, mut budget) = (call(Read), budget(1));
        call.handle_outcome(wrong, &mut budget, 0, 0, 7);
        let paid = call.handle_outcome(wrong, &mut budget, 0, 0, 7);
        assert_eq!(paid, Decision::Retry { after_us: 7, refresh_route: true });
        assert_eq!(call.handle_outcome(wrong, &mut budget, 0, 0, 7), Decision::GiveUp(GiveUp::Busy));
    }
}
