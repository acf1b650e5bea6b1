//! The model is itself tested: with any one promise of the formats switched off it must fail, soon.

use crate::{caught, weather::Weather};
use evenkeel_storage::{
    Mistake,
    mistakes::{
        ACKNOWLEDGED_UNFLUSHED, CHAIN_IGNORED, DURABLE_MARK_IGNORED, INSTALLED_UNFLIPPED, MARK_OVERRUN,
        ONE_PAIR, PAGE_UNCHECKED, RUN_LEFT_OUT, SUPERBLOCK_FIRST,
    },
};

/// Seeds within which each mistake must be noticed.
const NOTICED_WITHIN: u64 = 100;

/// The seeds until the first that fails, in weather in which nothing may be reported.
fn noticed(weather: Weather, mistakes: &'static [Mistake]) -> Option<(u64, String)> {
    (0..NOTICED_WITHIN).find_map(|seed| Some((seed + 1, caught(seed, weather, mistakes).err()?)))
}

#[test]
fn every_mistake_is_noticed() {
    let table: [(&str, Weather, &'static [Mistake]); 8] = [
        ("flush before acknowledging", Weather::Calm, &[ACKNOWLEDGED_UNFLUSHED]),
        ("run in the checksum, and its chain", Weather::Storm, &[RUN_LEFT_OUT, CHAIN_IGNORED]),
        ("`durable` mark", Weather::Calm, &[DURABLE_MARK_IGNORED]),
        ("catalogue after pages, superblock after both", Weather::Calm, &[SUPERBLOCK_FIRST]),
        ("superblock pairs", Weather::Calm, &[ONE_PAIR]),
        ("checksum in the parent", Weather::Calm, &[PAGE_UNCHECKED]),
        ("a merge's end at its mark", Weather::Calm, &[MARK_OVERRUN]),
        ("flip before an install is told", Weather::Calm, &[INSTALLED_UNFLIPPED]),
    ];
    let mut unnoticed = Vec::new();
    for (what, weather, mistakes) in table {
        match noticed(weather, mistakes) {
            Some((seeds, how)) => println!("| {what} | {seeds} | {} |", how.lines().next().unwrap_or("")),
            None => unnoticed.push(what),
        }
    }
    assert!(unnoticed.is_empty(), "{NOTICED_WITHIN} seeds did not notice that this was off: {unnoticed:?}");
}

/// The run and the chain of checksums stand in for each other: what one lets through the other stops.
#[test]
fn the_run_and_the_chain_each_suffice() {
    for mistakes in [&[RUN_LEFT_OUT], &[CHAIN_IGNORED]] {
        let found = noticed(Weather::Storm, mistakes);
        assert!(found.is_none(), "{mistakes:?} is noticed by itself after all: {found:?}");
    }
}

#[test]
fn a_device_that_lies_about_its_flushes_is_noticed() {
    let caught = (0..60).filter(|&seed| caught(seed, Weather::Lies, &[]).is_err()).count();
    assert!(caught > 20, "{caught} of 60 seeds noticed");
}
