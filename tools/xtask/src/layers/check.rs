//! The judgement: a pure function from a graph and the rules to violations.
//!
//! Levels and folders are checked edge by edge between members; as every edge is looked at, no
//! path can lead up. What must not be reached at all is checked over the transitive closure.

use std::collections::BTreeSet;

use super::graph::{Graph, Kind, Member};
use super::rules::{Crate, Rules};

/// One broken rule, worded so that the reader knows which line to change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error(
        "{directory} holds a manifest but is no member: list it in Cargo.toml, in layer order, or under exclude"
    )]
    Unlisted { directory: String },
    #[error(
        "{directory} is in no layer: a crate is one directory, one level deep, with a line in the \
         table of tools/xtask/src/layers/rules.rs and in ARCHITECTURE.md"
    )]
    Unknown { directory: String },
    #[error("{directory} is named {found}, expected {expected}")]
    Misnamed { directory: String, found: String, expected: &'static str },
    #[error("members are out of layer order: {directory} stands after {after}")]
    OutOfOrder { directory: String, after: String },
    #[error("{from} → {to} ({kind:?}) points up: folder {to_folder} lies above {from_folder}")]
    FolderUp { from: String, to: String, kind: Kind, from_folder: String, to_folder: String },
    #[error("{from} → {to} ({kind:?}) does not point down: level L{from_level} to L{to_level}")]
    LevelUp { from: String, to: String, kind: Kind, from_level: u8, to_level: u8 },
    #[error("{} must not be reached: {because}", path.join(" → "))]
    Reached { path: Vec<String>, because: &'static str },
    #[error("{from} depends on {package}, reserved for others: {because}")]
    Reserved { from: String, package: &'static str, because: &'static str },
    #[error("{package} is mandated but no member depends on it directly")]
    MandatedMissing { package: &'static str },
    #[error("{package} is mandated and declared by {members}, but no code of theirs names it")]
    MandatedUnused { package: &'static str, members: String },
    #[error("{package} pulls in {found} third-party crates, limit {max}")]
    OverBudget { package: &'static str, found: usize, max: usize },
}

/// Every violation, in the order of the rules.
pub fn check(graph: &Graph, rules: &Rules) -> Vec<Violation> {
    let mut violations = Vec::new();
    names_and_order(graph, rules, &mut violations);
    directions(graph, rules, &mut violations);
    unreachable(graph, rules, &mut violations);
    reserved(graph, rules, &mut violations);
    mandated(graph, rules, &mut violations);
    let (package, max) = (rules.budget.package, rules.budget.third_party_crates_max);
    let found = third_party_crates(graph, package);
    if found > max {
        violations.push(Violation::OverBudget { package, found, max });
    }
    violations
}

/// How many third-party crates the normal tree of a member holds; two versions count as two.
pub fn third_party_crates(graph: &Graph, package: &str) -> usize {
    let Some(member) = member_named(graph, package) else { return 0 };
    let reached = graph.reach(&member.key, false);
    reached.keys().filter(|key| graph.packages[*key].third_party).count()
}

fn member_named<'graph>(graph: &'graph Graph, package: &str) -> Option<&'graph Member> {
    graph.members.iter().find(|member| graph.name(&member.key) == package)
}

fn in_table<'rules>(rules: &'rules Rules, member: &Member) -> Option<(usize, &'rules Crate)> {
    rules.crates.iter().enumerate().find(|(_, known)| known.directory == member.directory)
}

fn names_and_order(graph: &Graph, rules: &Rules, violations: &mut Vec<Violation>) {
    for directory in &graph.unlisted {
        violations.push(Violation::Unlisted { directory: directory.clone() });
    }
    let mut highest: Option<(usize, &Member)> = None;
    for member in &graph.members {
        let directory = member.directory.clone();
        let Some((position, known)) = in_table(rules, member) else {
            violations.push(Violation::Unknown { directory });
            continue;
        };
        let found = graph.name(&member.key);
        if found != known.package {
            let (found, expected) = (found.to_owned(), known.package);
            violations.push(Violation::Misnamed { directory: directory.clone(), found, expected });
        }
        match highest {
            Some((before, after)) if before > position => {
                violations.push(Violation::OutOfOrder { directory, after: after.directory.clone() });
            }
            _ => highest = Some((position, member)),
        }
    }
}

/// Every edge between two members of the table points down, by folder and by level.
fn directions(graph: &Graph, rules: &Rules, violations: &mut Vec<Violation>) {
    let folder = |member: &Member| member.directory.split('/').next().map(str::to_owned).unwrap_or_default();
    let height = |folder: &str| rules.folders.iter().position(|known| *known == folder);
    for from in &graph.members {
        let Some((_, from_crate)) = in_table(rules, from) else { continue };
        for edge in &graph.packages[&from.key].edges {
            let Some(to) = graph.member(&edge.to).filter(|to| to.key != from.key) else { continue };
            let Some((_, to_crate)) = in_table(rules, to) else { continue };
            let names = (graph.name(&from.key).to_owned(), graph.name(&to.key).to_owned());
            let (from_folder, to_folder) = (folder(from), folder(to));
            let kind = edge.kind;
            if height(&to_folder) > height(&from_folder) {
                let (from, to) = names.clone();
                violations.push(Violation::FolderUp { from, to, kind, from_folder, to_folder });
            }
            let (from_level, to_level) = (from_crate.level, to_crate.level);
            let allowed = match kind {
                Kind::Test => to_level <= from_level,
                Kind::Normal => {
                    let sideways = rules.sideways.contains(&(from_crate.package, to_crate.package));
                    to_level < from_level || (to_level == from_level && sideways)
                }
            };
            if !allowed {
                let (from, to) = names;
                violations.push(Violation::LevelUp { from, to, kind, from_level, to_level });
            }
        }
    }
}

fn unreachable(graph: &Graph, rules: &Rules, violations: &mut Vec<Violation>) {
    for rule in rules.unreachable {
        let Some(from) = member_named(graph, rule.from) else { continue };
        let reached = graph.reach(&from.key, rule.in_tests_too);
        for package in rule.packages {
            let Some(key) = reached.keys().find(|key| graph.name(key) == *package) else { continue };
            let mut path = vec![graph.name(key).to_owned()];
            let mut at = key;
            while let Some(before) = reached.get(at) {
                path.push(graph.name(before).to_owned());
                at = before;
            }
            path.reverse();
            violations.push(Violation::Reached { path, because: rule.because });
        }
    }
}

fn reserved(graph: &Graph, rules: &Rules, violations: &mut Vec<Violation>) {
    for rule in rules.reserved {
        for member in &graph.members {
            let from = graph.name(&member.key).to_owned();
            let depends = direct(graph, member).contains(rule.package);
            if depends && !rule.members.contains(&from.as_str()) {
                let (package, because) = (rule.package, rule.because);
                violations.push(Violation::Reserved { from, package, because });
            }
        }
    }
}

fn mandated(graph: &Graph, rules: &Rules, violations: &mut Vec<Violation>) {
    for package in rules.mandated {
        let declaring: Vec<&Member> =
            graph.members.iter().filter(|member| direct(graph, member).contains(package)).collect();
        if declaring.is_empty() {
            violations.push(Violation::MandatedMissing { package });
        } else if !declaring.iter().any(|member| member.names.contains(*package)) {
            let members: Vec<&str> = declaring.iter().map(|member| graph.name(&member.key)).collect();
            violations.push(Violation::MandatedUnused { package, members: members.join(", ") });
        }
    }
}

fn direct<'graph>(graph: &'graph Graph, member: &Member) -> BTreeSet<&'graph str> {
    graph.packages[&member.key].edges.iter().map(|edge| graph.name(&edge.to)).collect()
}

#[cfg(test)]
mod tests;
