//! One request from its first attempt to its end: what follows from the outcome of each attempt.
//!
//! | outcome | read | write with a token | other write |
//! |---|---|---|---|
//! | another replica leads | ask it | ask it | ask it |
//! | nobody leads yet | wait, ask again | wait, ask again | wait, ask again |
//! | refused, nothing done, may succeed later | retry | retry | retry |
//! | refused for good | give up | give up | give up |
//! | leadership lost under it | retry | retry | outcome unknown |
//! | the log failed | ask another | ask another | outcome unknown |
//! | a page of the replica is damaged | ask another, once | give up | give up |
//! | connection lost before it was sent | ask another | ask another | ask another |
//! | connection lost after it was sent | ask another | ask another | outcome unknown |
//! | time is up before it was sent | expired | expired | expired |
//! | time is up after it was sent | expired | outcome unknown | outcome unknown |
//!
//! A write with a token is applied once however often it is repeated; one without is never repeated here: whether
//! that is safe, the caller knows. Once an attempt of a write may have happened, whatever ends the call leaves
//! its outcome unknown.
//!
//! Retries wait with exponential backoff and full jitter ("Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015), end before the deadline, and are paid from the client's [`RetryBudget`]. Free are
//! the first retry after [`RefusalCode::WrongPartition`] and after a lost connection, and the way to a leader: the
//! cluster is not in trouble, it is somewhere else. Where nobody leads, calls wait until the deadline and ask
//! seldom, so that an election is no storm of questions.

use crate::budget::RetryBudget;
use evenkeel_wire::RefusalCode;

/// Whether a request may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing; repeating it is harmless.
    Read,
    /// It may have changed something even if no answer came.
    Write,
    /// The same, but repeating it changes it once only: it has a token.
    RepeatableWrite,
}

/// How an attempt ended, if not by an answer that settles the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node refused.
    Refusal(RefusalCode),
    /// The node refused with a code that this program does not know.
    UnknownRefusal,
    /// Another replica must be asked; nothing was done.
    Redirect {
        /// Whether it is known which one, and nothing speaks against asking it at once.
        known: bool,
    },
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
    /// The first retries of their kind are free.
    redirected: bool,
    moved: bool,
    /// A replica was asked whose page is damaged.
    damaged: bool,
    /// How often it was sent to a leader, and how often there was none.
    led: u32,
    unled: u32,
    /// Whether an attempt may have changed something.
    uncertain: bool,
}

/// How often a call goes where it is sent without waiting.
const LEADS_FREE_MAX: u32 = 3;
/// The wait for a leader, from the first time there is none, to the longest; half of it is jitter.
const UNLED_FIRST_US: u64 = 20_000;
const UNLED_MAX_US: u64 = 200_000;

impl Call {
    /// A call whose first attempt begins now and that must end by `deadline_us`.
    pub fn new(policy: RetryPolicy, effect: Effect, deadline_us: u64) -> Call {
        Call {
            policy,
            effect,
            deadline_us,
            attempts: 1,
            redirected: false,
            moved: false,
            damaged: false,
            led: 0,
            unled: 0,
            uncertain: false,
        }
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
        let decision = match outcome {
            Outcome::Redirect { known } => self.follow(known, now_us, random),
            Outcome::Refusal(RefusalCode::WrongPartition) if !self.redirected => {
                self.redirected = true;
                self.redirect(now_us)
            }
            Outcome::Refusal(code) if code.is_retryable() => {
                let refresh_route = code == RefusalCode::WrongPartition;
                self.retry(GiveUp::Busy, refresh_route, budget, requests_total, now_us, random)
            }
            Outcome::Refusal(RefusalCode::Unknown) => self.lost(true, budget, requests_total, now_us, random),
            Outcome::Refusal(RefusalCode::Failed) => self.lost(true, budget, requests_total, now_us, random),
            Outcome::Refusal(RefusalCode::Damaged) => self.leave_damaged(now_us),
            Outcome::Refusal(RefusalCode::Expired) => Decision::GiveUp(GiveUp::Expired),
            Outcome::Refusal(_) | Outcome::UnknownRefusal => Decision::GiveUp(GiveUp::Refused),
            Outcome::ConnectionLost { sent } => self.lost(sent, budget, requests_total, now_us, random),
            Outcome::Timeout { sent } => {
                self.uncertain |= sent;
                Decision::GiveUp(GiveUp::Expired)
            }
        };
        let unknown = self.uncertain && self.effect != Effect::Read;
        match decision {
            Decision::GiveUp(_) if unknown => Decision::GiveUp(GiveUp::OutcomeUnknown),
            decision => decision,
        }
    }

    /// An attempt ended without saying what it did, if it was `sent`. Another replica can be asked.
    fn lost(
        &mut self,
        sent: bool,
        budget: &mut RetryBudget,
        requests_total: u64,
        now_us: u64,
        random: u64,
    ) -> Decision {
        self.uncertain |= sent;
        if sent && self.effect == Effect::Write {
            return Decision::GiveUp(GiveUp::OutcomeUnknown);
        }
        if !self.moved && self.attempts < self.policy.attempts_max && self.time_left_us(now_us) > 0 {
            self.moved = true;
            self.attempts += 1;
            return Decision::Retry { after_us: 0, refresh_route: false };
        }
        self.retry(GiveUp::Unavailable, false, budget, requests_total, now_us, random)
    }

    /// Another replica may have the page whole, and may be allowed to answer from it.
    fn leave_damaged(&mut self, now_us: u64) -> Decision {
        if self.damaged || self.effect != Effect::Read || self.time_left_us(now_us) == 0 {
            return Decision::GiveUp(GiveUp::Refused);
        }
        self.damaged = true;
        self.attempts += 1;
        Decision::Retry { after_us: 0, refresh_route: false }
    }

    /// Goes to who leads, or waits until somebody does.
    fn follow(&mut self, known: bool, now_us: u64, random: u64) -> Decision {
        let after_us = if known && self.led < LEADS_FREE_MAX {
            self.led += 1;
            0
        } else {
            let doubled = UNLED_FIRST_US << self.unled.min(16);
            self.unled += 1;
            let half_us = doubled.min(UNLED_MAX_US) / 2;
            half_us + random % (half_us + 1)
        };
        if after_us >= self.time_left_us(now_us) {
            return Decision::GiveUp(GiveUp::Unavailable);
        }
        Decision::Retry { after_us, refresh_route: false }
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
    use Effect::{Read, RepeatableWrite, Write};

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
        use Outcome::{ConnectionLost, Redirect, Refusal, Timeout, UnknownRefusal};
        let retry = Decision::Retry { after_us: 0, refresh_route: false };
        let redirect = Decision::Retry { after_us: 0, refresh_route: true };
        let end = Decision::GiveUp;
        let unknown = end(GiveUp::OutcomeUnknown);
        let refused = end(GiveUp::Refused);
        let waits = Decision::Retry { after_us: UNLED_FIRST_US / 2, refresh_route: false };
        let cases = [
            (Redirect { known: true }, retry, retry),
            (Redirect { known: false }, waits, waits),
            (Refusal(RefusalCode::WrongPartition), redirect, redirect),
            (Refusal(RefusalCode::Overloaded), retry, retry),
            (Refusal(RefusalCode::TableFull), retry, retry),
            (Refusal(RefusalCode::LogFull), retry, retry),
            (Refusal(RefusalCode::Invalid), refused, refused),
            (Refusal(RefusalCode::Unsupported), refused, refused),
            (Refusal(RefusalCode::Forbidden), refused, refused),
            (Refusal(RefusalCode::Expired), end(GiveUp::Expired), end(GiveUp::Expired)),
            (Refusal(RefusalCode::Failed), retry, unknown),
            (Refusal(RefusalCode::Unknown), retry, unknown),
            (Refusal(RefusalCode::Damaged), retry, refused),
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
            let once = match outcome {
                Timeout { sent: true } => unknown,
                Refusal(RefusalCode::Damaged) => refused,
                _ => read,
            };
            for (effect, expected) in [(Read, read), (Write, write), (RepeatableWrite, once)] {
                let decision = call(effect).handle_outcome(outcome, &mut budget(1), 0, 0, 0);
                assert_eq!(decision, expected, "{outcome:?} of a {effect:?}");
            }
        }
    }

    #[test]
    fn once_a_write_may_have_happened_nothing_makes_its_outcome_known() {
        let later = [
            Outcome::Refusal(RefusalCode::Invalid),
            Outcome::Refusal(RefusalCode::Expired),
            Outcome::Timeout { sent: false },
            Outcome::UnknownRefusal,
        ];
        for outcome in later {
            for (effect, expected) in
                [(RepeatableWrite, GiveUp::OutcomeUnknown), (Read, GiveUp::Expired), (Read, GiveUp::Refused)]
            {
                let (mut call, mut budget) = (call(effect), budget(1));
                let first = call.handle_outcome(Outcome::ConnectionLost { sent: true }, &mut budget, 0, 0, 0);
                assert_eq!(first, Decision::Retry { after_us: 0, refresh_route: false });
                let Decision::GiveUp(reason) = call.handle_outcome(outcome, &mut budget, 0, 0, 0) else {
                    panic!("{outcome:?} ends a call")
                };
                assert!(reason == expected || effect == Read, "{outcome:?} of a {effect:?}: {reason:?}");
                assert!(effect != Read || reason != GiveUp::OutcomeUnknown, "{outcome:?}");
            }
        }
    }

    #[test]
    fn the_way_to_a_leader_is_free_and_waits_grow_until_the_deadline() {
        let mut none = budget(0);
        let mut follow = call(Write);
        let mut go = |call: &mut Call, known, now_us, random| {
            call.handle_outcome(Outcome::Redirect { known }, &mut none, 0, now_us, random)
        };
        let retry = |after_us| Decision::Retry { after_us, refresh_route: false };
        for _ in 0..LEADS_FREE_MAX {
            assert_eq!(go(&mut follow, true, 0, 0), retry(0));
        }
        assert_eq!(go(&mut follow, true, 0, 0), retry(10_000), "two that name each other are asked seldom");
        let mut waits = call(Read);
        for expected in [10_000, 20_000, 40_000, 80_000, 100_000, 100_000] {
            assert_eq!(go(&mut waits, false, 0, 0), retry(expected));
        }
        assert_eq!(go(&mut waits, false, 0, 100_000), retry(200_000), "half of it is jitter");
        let end = Decision::GiveUp(GiveUp::Unavailable);
        assert_eq!(go(&mut waits, false, DEADLINE_US - 100_000, 0), end);
        assert_eq!(waits.attempts(), 1, "nothing was tried");
    }

    #[test]
    fn a_second_lost_connection_waits_and_is_paid() {
        let lost = Outcome::ConnectionLost { sent: false };
        let (mut call, mut budget) = (call(Write), budget(1));
        let retry = |after_us| Decision::Retry { after_us, refresh_route: false };
        assert_eq!(call.handle_outcome(lost, &mut budget, 0, 0, 7), retry(0));
        assert_eq!(call.handle_outcome(lost, &mut budget, 0, 0, 7), retry(7));
        let end = Decision::GiveUp(GiveUp::Unavailable);
        assert_eq!(call.handle_outcome(lost, &mut budget, 0, 0, 7), end);
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
    fn a_read_leaves_a_damaged_page_once() {
        let damaged = Outcome::Refusal(RefusalCode::Damaged);
        let (mut call, mut budget) = (call(Read), budget(0));
        let mut ask = || call.handle_outcome(damaged, &mut budget, 0, 0, 0);
        assert_eq!(ask(), Decision::Retry { after_us: 0, refresh_route: false });
        assert_eq!(ask(), Decision::GiveUp(GiveUp::Refused));
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
