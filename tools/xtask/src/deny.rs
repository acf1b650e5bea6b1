//! `cargo xtask deny`: what deny.toml says, held on what cargo resolved.
//!
//! The file is in cargo-deny's own format, so that tool reads it too (advisories need it); this
//! command checks licences, banned crates, sources and the line of reason of each direct
//! dependency, and needs nothing built. Reasons are comments, `# reason: NAME — TEXT`, because
//! cargo-deny refuses keys it does not know.

mod license;

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{Metadata, Package};
use serde::Deserialize;

use self::license::Expression;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// The part of deny.toml that is checked here.
#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<LicenseException>,
}

#[derive(Deserialize)]
struct LicenseException {
    #[serde(rename = "crate")]
    package: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    package: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Level {
    Deny,
    Warn,
    Allow,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Violation {
    #[error("{package}: licence `{license}` is not allowed by deny.toml")]
    License { package: String, license: String },
    #[error("{package}: states no licence")]
    NoLicense { package: String },
    #[error("{package}: licence `{license}` cannot be read")]
    UnreadableLicense { package: String, license: String },
    #[error("{package}: the licence exception for it is not needed: remove it from deny.toml")]
    StaleException { package: String },
    #[error("{package} is banned: {reason}")]
    Banned { package: String, reason: String },
    #[error("{package} comes from {origin}: only crates.io and the workspace itself are allowed")]
    Source { package: String, origin: String },
    #[error("{package} is a direct dependency without a `# reason:` line in deny.toml")]
    NoReason { package: String },
    #[error("deny.toml gives a reason for {package}, which is no direct dependency")]
    StaleReason { package: String },
    #[error("{package} stands in [workspace.dependencies] and no member uses it")]
    Unused { package: String },
}

/// What the check looks at, so that tests can state it without cargo.
struct Dependencies {
    packages: Vec<Resolved>,
    /// Third-party crates that members name, of any kind.
    direct: BTreeSet<String>,
    /// Third-party crates that the root manifest offers to members.
    offered: BTreeSet<String>,
}

#[derive(Clone)]
struct Resolved {
    name: String,
    version: String,
    license: Option<String>,
    member: bool,
    /// `None` for a path.
    source: Option<String>,
    from_crates_io: bool,
}

/// Prints each violation and each duplicate; fails when there is a violation.
pub fn run(workspace: &Workspace) -> Result<(), Failure> {
    let text = workspace.read("deny.toml")?;
    let path = workspace.root.join("deny.toml");
    let policy: Policy =
        toml::from_str(&text).map_err(|error| Failure::Format { path, message: error.to_string() })?;
    let dependencies = dependencies(workspace)?;
    for (name, versions) in duplicates(&dependencies) {
        println!("deny: note: {name} is resolved in {} versions: {}", versions.len(), versions.join(", "));
    }
    let violations = check(&dependencies, &policy, &reasons(&text));
    for violation in &violations {
        println!("deny: {violation}");
    }
    let third_party = dependencies.packages.iter().filter(|package| !package.member).count();
    println!("deny: {third_party} third-party crates, {} of them direct", dependencies.direct.len());
    match violations.len() {
        0 => Ok(()),
        count => Err(Failure::Violations { check: "deny", count }),
    }
}

fn dependencies(workspace: &Workspace) -> Result<Dependencies, Failure> {
    let metadata = workspace.metadata()?;
    let packages = metadata.packages.iter().map(|package| resolved(&metadata, package)).collect();
    let members = metadata.workspace_packages();
    let named = members.iter().flat_map(|member| &member.dependencies);
    let direct = named.filter(|dependency| dependency.path.is_none());
    let direct = direct.map(|dependency| dependency.name.clone()).collect();
    let manifest = workspace.manifest()?;
    let offered = manifest.get("workspace").and_then(|table| table.get("dependencies"));
    let offered = offered.and_then(toml::Value::as_table).into_iter().flatten();
    let offered = offered.filter(|(_, value)| value.get("path").is_none());
    let offered = offered.map(|(name, _)| name.clone()).collect();
    Ok(Dependencies { packages, direct, offered })
}

fn resolved(metadata: &Metadata, package: &Package) -> Resolved {
    Resolved {
        name: package.name.to_string(),
        version: package.version.to_string(),
        license: package.license.clone(),
        member: metadata.workspace_members.contains(&package.id),
        source: package.source.as_ref().map(|source| source.repr.clone()),
        from_crates_io: package.source.as_ref().is_some_and(cargo_metadata::Source::is_crates_io),
    }
}

/// The reason of each crate, from lines `# reason: NAME — TEXT`. A line without text gives none.
fn reasons(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("# reason:"));
    let pairs = lines.filter_map(|line| line.split_once('—'));
    let pairs = pairs.map(|(name, reason)| (name.trim().to_owned(), reason.trim().to_owned()));
    pairs.filter(|(_, reason)| !reason.is_empty()).collect()
}

fn check(dependencies: &Dependencies, policy: &Policy, reasons: &BTreeMap<String, String>) -> Vec<Violation> {
    let mut violations = licenses(dependencies, &policy.licenses);
    for package in &dependencies.packages {
        let name = package.name.clone();
        if let Some(ban) = policy.bans.deny.iter().find(|ban| ban.package == name) {
            violations.push(Violation::Banned { package: name.clone(), reason: ban.reason.clone() });
        }
        let git = package.source.as_ref().is_some_and(|source| source.starts_with("git+"));
        let level = if git { &policy.sources.unknown_git } else { &policy.sources.unknown_registry };
        if !package.member && !package.from_crates_io && *level == Level::Deny {
            let origin = package.source.clone().unwrap_or_else(|| "a path outside the workspace".to_owned());
            violations.push(Violation::Source { package: name, origin });
        }
    }
    for package in dependencies.direct.difference(&reasons.keys().cloned().collect()) {
        violations.push(Violation::NoReason { package: package.clone() });
    }
    for package in reasons.keys().filter(|name| !dependencies.direct.contains(*name)) {
        violations.push(Violation::StaleReason { package: package.clone() });
    }
    for package in dependencies.offered.difference(&dependencies.direct) {
        violations.push(Violation::Unused { package: package.clone() });
    }
    violations
}

fn licenses(dependencies: &Dependencies, policy: &Licenses) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut needed = BTreeSet::new();
    for package in &dependencies.packages {
        let name = format!("{} {}", package.name, package.version);
        let Some(license) = &package.license else {
            violations.push(Violation::NoLicense { package: name });
            continue;
        };
        let Some(expression) = Expression::parse(license) else {
            violations.push(Violation::UnreadableLicense { package: name, license: license.clone() });
            continue;
        };
        let exception = policy.exceptions.iter().find(|exception| exception.package == package.name);
        let also = exception.map_or(&[][..], |exception| &exception.allow);
        if expression.is_met_by(|license| policy.allow.iter().any(|allowed| allowed == license)) {
            continue;
        }
        let with_exception =
            |license: &str| policy.allow.iter().chain(also).any(|allowed| allowed == license);
        if expression.is_met_by(with_exception) {
            needed.insert(&package.name);
        } else {
            violations.push(Violation::License { package: name, license: license.clone() });
        }
    }
    let stale = policy.exceptions.iter().filter(|exception| !needed.contains(&exception.package));
    violations
        .extend(stale.map(|exception| Violation::StaleException { package: exception.package.clone() }));
    violations
}

fn duplicates(dependencies: &Dependencies) -> BTreeMap<&str, Vec<&str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &dependencies.packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    versions
}

#[cfg(test)]
mod tests;
