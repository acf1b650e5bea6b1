//! The dependency graph as far as the rules care, and how it is read from cargo and the sources.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata};

use super::rules;
use crate::failure::Failure;
use crate::source;
use crate::workspace::Workspace;

/// What cargo resolved. Keys are opaque and unique; names are not (two versions of one crate).
#[derive(Clone, Default)]
pub struct Graph {
    /// In the order of the root manifest.
    pub members: Vec<Member>,
    /// Directories that hold a manifest under a layer folder but are neither member nor excluded.
    pub unlisted: Vec<String>,
    pub packages: BTreeMap<String, Package>,
}

#[derive(Clone)]
pub struct Member {
    pub key: String,
    /// Relative to the workspace root, with `/`.
    pub directory: String,
    /// Which third-party crates the member's own code names in a path or a `use`.
    pub names: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Package {
    pub name: String,
    pub third_party: bool,
    pub edges: Vec<Edge>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Edge {
    pub to: String,
    pub kind: Kind,
}

/// Build dependencies count as normal ones: they run on the way to the same binary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Normal,
    Test,
}

impl Graph {
    pub fn name(&self, key: &str) -> &str {
        &self.packages[key].name
    }

    pub fn member(&self, key: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.key == key)
    }

    /// The keys that `start` reaches over normal edges, and over its own test edges if asked.
    /// Each comes with the key it was reached from, nearest first, so that a path can be told.
    pub fn reach(&self, start: &str, tests_too: bool) -> BTreeMap<String, String> {
        let mut reached = BTreeMap::new();
        let mut open = VecDeque::from([start.to_owned()]);
        while let Some(from) = open.pop_front() {
            for edge in &self.packages[&from].edges {
                let follow = edge.kind == Kind::Normal || (tests_too && from == start);
                if follow && edge.to != start && !reached.contains_key(&edge.to) {
                    reached.insert(edge.to.clone(), from.clone());
                    open.push_back(edge.to.clone());
                }
            }
        }
        reached
    }
}

/// Reads the graph of a workspace.
pub fn load(workspace: &Workspace) -> Result<Graph, Failure> {
    let metadata = workspace.metadata()?;
    let directories = member_list(workspace)?;
    let packages = packages(&metadata)?;
    let mut members = Vec::new();
    for directory in &directories {
        let manifest = workspace.root.join(directory).join("Cargo.toml");
        let package = metadata.packages.iter().find(|package| package.manifest_path == manifest);
        let Some(package) = package else {
            let message = format!("member {directory} is unknown to cargo");
            return Err(Failure::Format { path: workspace.root.join("Cargo.toml"), message });
        };
        let names = named_crates(&workspace.root.join(directory).join("src"))?;
        members.push(Member { key: package.id.repr.clone(), directory: directory.clone(), names });
    }
    let unlisted = unlisted(workspace, &directories)?;
    Ok(Graph { members, unlisted, packages })
}

fn member_list(workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let manifest = workspace.manifest()?;
    let members = manifest.get("workspace").and_then(|table| table.get("members"));
    let members = members.and_then(|members| members.clone().try_into::<Vec<String>>().ok());
    let path = workspace.root.join("Cargo.toml");
    let message = "no `workspace.members`".to_owned();
    members.ok_or(Failure::Format { path, message })
}

/// Directories that the root manifest says are no members.
fn excluded(workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let manifest = workspace.manifest()?;
    let excluded = manifest.get("workspace").and_then(|table| table.get("exclude")?.as_array());
    let directories = excluded.into_iter().flatten().filter_map(|directory| directory.as_str());
    Ok(directories.map(str::to_owned).collect())
}

fn packages(metadata: &Metadata) -> Result<BTreeMap<String, Package>, Failure> {
    let resolve = metadata.resolve.as_ref();
    let nodes = &resolve.ok_or_else(|| Failure::not_run("layers", "cargo resolved nothing"))?.nodes;
    let edges: BTreeMap<_, _> = nodes.iter().map(|node| (&node.id, &node.deps)).collect();
    let with_edges = metadata.packages.iter().map(|package| {
        let mut out = Vec::new();
        for dependency in edges.get(&package.id).into_iter().copied().flatten() {
            for kind in &dependency.dep_kinds {
                let kind = match kind.kind {
                    DependencyKind::Development => Kind::Test,
                    _ => Kind::Normal,
                };
                let edge = Edge { to: dependency.pkg.repr.clone(), kind };
                if !out.contains(&edge) {
                    out.push(edge);
                }
            }
        }
        let name = package.name.to_string();
        let third_party = package.source.is_some();
        (package.id.repr.clone(), Package { name, third_party, edges: out })
    });
    Ok(with_edges.collect())
}

/// The mandated crates that code under `directory` names as the head of a path or in a `use`.
fn named_crates(directory: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut named = BTreeSet::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).map_err(Failure::file(&directory))?;
        for entry in entries {
            let path = entry.map_err(Failure::file(&directory))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).map_err(Failure::file(&path))?;
                let masked = source::mask(&text);
                let mandated = rules::RULES.mandated.iter();
                named.extend(mandated.filter(|name| names_crate(&masked, name)).map(|name| name.to_string()));
            }
        }
    }
    Ok(named)
}

fn names_crate(masked: &str, package: &str) -> bool {
    let identifier = package.replace('-', "_");
    source::word_offsets(masked, &identifier).into_iter().any(|start| {
        let before = masked[..start].trim_end();
        let after = masked[start + identifier.len()..].trim_start();
        !before.ends_with("::") && (after.starts_with("::") || before.ends_with("use"))
    })
}

fn unlisted(workspace: &Workspace, listed: &[String]) -> Result<Vec<String>, Failure> {
    let excluded = excluded(workspace)?;
    let mut found = Vec::new();
    for folder in rules::RULES.folders {
        let path = workspace.root.join(folder);
        if !path.is_dir() {
            continue;
        }
        let mut candidates = vec![(*folder).to_owned()];
        for entry in std::fs::read_dir(&path).map_err(Failure::file(&path))? {
            let entry = entry.map_err(Failure::file(&path))?;
            candidates.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
        }
        candidates.retain(|candidate| {
            let known = listed.contains(candidate) || excluded.contains(candidate);
            !known && workspace.root.join(candidate).join("Cargo.toml").is_file()
        });
        found.append(&mut candidates);
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_named_by_a_path_or_a_use_and_by_nothing_else() {
        for (code, expected) in [
            ("use quinn;", true),
            ("use quinn as _;", true),
            ("use quinn::Endpoint;", true),
            ("pub use quinn::{A, B};", true),
            ("fn f(e: &quinn::Endpoint) {}", true),
            ("#[derive(Clone, quinn::Archive)]", true),
            ("use quinn_proto::Endpoint;", false),
            ("let quinn = 1;", false),
            ("use crate::quinn::A;", false),
            ("// use quinn::Endpoint;", false),
            ("let text = \"quinn::Endpoint\";", false),
        ] {
            assert_eq!(names_crate(&source::mask(code), "quinn"), expected, "{code}");
        }
        assert!(names_crate("use quinn_proto::Endpoint;", "quinn-proto"));
    }
}
