//! The mutation score: each known mistake is switched on, and the search must find it.
//!
//! A search that finds nothing proves little unless it finds what is there. `EVENKEEL_LONG=1` prints how
//! many seeds each one took, which is the table in `docs/internals/consensus.md`.

use crate::walk::{Plan, walk};
use evenkeel_paxos::Trap;
use std::time::Instant;

/// Mistakes that random walks find by an invariant.
const BY_WALK: [Trap; 29] = [
    Trap::PromiseBeforeDurable,
    Trap::AcceptedBeforeDurable,
    Trap::PrepareBeforeDurable,
    Trap::OwnVoteOnSubmission,
    Trap::PromiseComesBackOlder,
    Trap::SuffixByLength,
    Trap::ReadBeforeNoop,
    Trap::OldAcceptedCounts,
    Trap::NoPreviousCheck,
    Trap::TwoSwaps,
    Trap::ProposePastSwap,
    Trap::SwapByOldQuorum,
    Trap::SwapByNewQuorum,
    Trap::NewerConfigurationIgnored,
    Trap::IdentityReused,
    Trap::LogReplicaVotesEarly,
    Trap::LogReplicaLeads,
    Trap::LeaseFromArrival,
    Trap::SupportFromSending,
    Trap::LapseForgotten,
    Trap::ClockStopsInPause,
    Trap::LeaseOutlivesTransfer,
    Trap::VoteWithoutWait,
    Trap::CommitBeyondVerified,
    Trap::TailKeptOverInstall,
    Trap::CommitGoesBack,
    Trap::TimeGoesBack,
    Trap::SupportWithoutBinding,
    Trap::BoundMemberPromises,
];

/// More seeds than any of them takes.
const SEEDS_MAX: u64 = 150_000;

#[test]
fn every_mistake_is_found_by_walking() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let only = std::env::var("EVENKEEL_TRAP").ok();
    let list = BY_WALK.iter().copied().chain([Trap::AnyRelinquishUnbinds, Trap::IdentityFromBallot]);
    for trap in list.filter(|trap| only.as_ref().is_none_or(|only| *only == format!("{trap:?}"))) {
        let start = Instant::now();
        let plan = Plan { trap: Some(trap), ..Plan::default() };
        let found = (0..SEEDS_MAX).find_map(|seed| Some((seed, walk(seed, &plan, false, false).err()?)));
        match found {
            Some((seed, found)) => {
                let first: String = found.violation.0.chars().take(90).collect();
                println!("{trap:?}: seed {seed}, {:?}: {first}", start.elapsed());
            }
            None => missed.push(trap),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}
