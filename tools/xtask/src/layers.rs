//! `cargo xtask layers`: the dependency rules of ARCHITECTURE.md, held on what cargo resolved.
//!
//! The rules are tables ([`rules`]), the judgement is a pure function over a small graph
//! ([`check`]), and only [`graph`] knows cargo. A rule is changed in its table, with its reason.

mod check;
mod graph;
mod rules;

use crate::failure::Failure;
use crate::workspace::Workspace;

/// Prints each violation; fails when there is one.
pub fn run(workspace: &Workspace) -> Result<(), Failure> {
    let graph = graph::load(workspace)?;
    let violations = check::check(&graph, &rules::RULES);
    for violation in &violations {
        println!("layers: {violation}");
    }
    let crates = check::third_party_crates(&graph, rules::RULES.budget.package);
    println!(
        "layers: {} members; {} third-party crates under `{}`, limit {}",
        graph.members.len(),
        crates,
        rules::RULES.budget.package,
        rules::RULES.budget.third_party_crates_max,
    );
    match violations.len() {
        0 => Ok(()),
        count => Err(Failure::Violations { check: "layers", count }),
    }
}
