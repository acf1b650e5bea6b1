//! The mutation score: each known mistake is switched on, and the search must find it.
//!
//! A search that finds nothing proves little unless it finds what is there. `EVENKEEL_LONG=1` prints how
//! many seeds each one took, which is the table in `docs/internals/consensus.md`.

use crate::walk::{Plan, walk};
use crate::{bfs, scenarios};
use evenkeel_paxos::Trap;
use std::time::Instant;

/// Mistakes that random walks find, each with a seed that found it when this was written: tried first, so
/// that the usual run is short. Any other seed will do as well.
const BY_WALK: [(Trap, u64); 22] = [
    (Trap::AcceptedBeforeDurable, 5),
    (Trap::OwnVoteOnSubmission, 6),
    (Trap::SuffixByLength, 41978),
    (Trap::ReadBeforeNoop, 109),
    (Trap::NoPreviousCheck, 447),
    (Trap::TwoSwaps, 21492),
    (Trap::ProposePastSwap, 6),
    (Trap::SwapByOldQuorum, 42),
    (Trap::SwapByNewQuorum, 69),
    (Trap::NewerConfigurationIgnored, 94212),
    (Trap::IdentityReused, 3164),
    (Trap::LogReplicaVotesEarly, 6),
    (Trap::LogReplicaLeads, 2447),
    (Trap::SupportFromSending, 1768),
    (Trap::LeaseOutlivesTransfer, 602),
    (Trap::VoteWithoutWait, 19929),
    (Trap::CommitBeyondVerified, 5878),
    (Trap::CommitGoesBack, 6),
    (Trap::SupportWithoutBinding, 6009),
    (Trap::BoundMemberPromises, 206),
    (Trap::AnyRelinquishUnbinds, 66411),
    (Trap::IdentityFromBallot, 6),
];

/// Mistakes that breadth-first search finds from a prepared start.
const BY_SEARCH: [Trap; 9] = [
    Trap::PromiseBeforeDurable,
    Trap::PromiseComesBackOlder,
    Trap::PrepareBeforeDurable,
    Trap::OldAcceptedCounts,
    Trap::LeaseFromArrival,
    Trap::LapseForgotten,
    Trap::TimeGoesBack,
    Trap::ClockStopsInPause,
    Trap::TailKeptOverInstall,
];

/// More than any of them takes.
const SEEDS_MAX: u64 = 1_000_000;
const STATES_MAX: usize = 1_000_000;

fn wanted(trap: Trap) -> bool {
    std::env::var("EVENKEEL_TRAP").is_ok_and(|only| only != format!("{trap:?}"))
}

#[test]
fn every_mistake_is_found_by_walking() {
    let long = std::env::var_os("EVENKEEL_LONG").is_some();
    let mut missed = Vec::new();
    for (trap, known) in BY_WALK.into_iter().filter(|&(trap, _)| !wanted(trap)) {
        let start = Instant::now();
        let plan = Plan { trap: Some(trap), ..Plan::default() };
        let first = if long { None } else { Some(known) };
        let found = first
            .into_iter()
            .chain(0..SEEDS_MAX)
            .find_map(|seed| Some((seed, walk(seed, &plan, false, false).err()?)));
        match found {
            Some((seed, found)) => {
                let first: String = found.violation.0.chars().take(90).collect();
                println!("{trap:?}: seed {seed}, {:?}: {first}", start.elapsed());
            }
            None => missed.push(trap),
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}

#[test]
fn every_mistake_is_found_breadth_first() {
    let mut missed = Vec::new();
    for trap in BY_SEARCH.into_iter().filter(|&trap| !wanted(trap)) {
        let (world, bounds) = scenarios::for_trap(trap).expect("each has its scenario");
        let report = bfs::search(world, bounds, STATES_MAX);
        match report.violation {
            Some((violation, moves)) => {
                let first: String = violation.0.chars().take(90).collect();
                println!("{trap:?}: {} states, {} moves: {first}", report.states, moves.len());
            }
            None => {
                println!("{trap:?}: {} states, complete {}", report.states, report.complete);
                missed.push(trap);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The same starts, without the mistake: so it is the mistake that is found, not the start.
#[test]
fn no_prepared_start_breaks_an_invariant_by_itself() {
    // Two starts already contain their mistake: a ballot used without a promise, a clock that stood still.
    let contain_it = [Trap::PrepareBeforeDurable, Trap::ClockStopsInPause];
    for trap in BY_SEARCH.into_iter().filter(|trap| !contain_it.contains(trap)) {
        let (mut world, bounds) = scenarios::for_trap(trap).expect("each has its scenario");
        world.switch_off();
        let report = bfs::search(world, bounds, 20_000);
        println!("start of {trap:?}: {} states, complete {}", report.states, report.complete);
        assert_eq!(report.violation, None, "{trap:?}");
    }
}
