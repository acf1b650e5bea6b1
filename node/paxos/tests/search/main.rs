//! Model search over the real replicas: every interleaving of messages, writes, crashes and clocks that
//! a bound or a seed allows, with the invariants checked after every single move.
//!
//! `EVENKEEL_SEED=n` walks one seed and prints its moves; `EVENKEEL_SEEDS=a..b` and `EVENKEEL_LONG=1`
//! make the searches larger (`cargo xtask long search`).

mod bfs;
mod check;
mod mutation;
mod node;
mod scenarios;
mod walk;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use walk::{Plan, walk};

fn seeds(default: u64) -> Range<u64> {
    if let Some(seed) = std::env::var("EVENKEEL_SEED").ok().and_then(|text| text.parse::<u64>().ok()) {
        return seed..seed + 1;
    }
    let range = std::env::var("EVENKEEL_SEEDS").ok().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()?)
    });
    let long = if std::env::var_os("EVENKEEL_LONG").is_some() { 100 } else { 1 };
    range.unwrap_or(0..default * long)
}

#[test]
fn no_random_walk_breaks_an_invariant_and_every_group_comes_back() {
    let tracing = std::env::var_os("EVENKEEL_SEED").is_some();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let seeds = seeds(3000);
    for seed in seeds.clone() {
        match walk(seed, &Plan::default(), true, tracing) {
            Ok(world) => {
                for (event, count) in world.seen {
                    *seen.entry(event).or_default() += count;
                }
            }
            Err(found) => {
                found.moves.iter().for_each(|step| println!("{step}"));
                panic!("seed={seed}: {}", found.violation.0);
            }
        }
    }
    println!("walks: {} seeds, events {seen:?}", seeds.end - seeds.start);
}

#[test]
fn no_order_of_moves_within_the_bounds_breaks_an_invariant() {
    let states_max = if std::env::var_os("EVENKEEL_LONG").is_some() { 1_000_000 } else { 60_000 };
    for (name, world, bounds) in scenarios::all(None) {
        let report = bfs::search(world, bounds, states_max);
        println!(
            "{name}: {} states, depth {}, {}",
            report.states,
            report.depth,
            if report.complete { "complete" } else { "up to the limit" }
        );
        assert_eq!(report.violation, None, "{name}");
    }
}
