//! `layers` end to end: the real manifests in a temporary copy pass, and fail once a dependency
//! points up. Sources in the copy are empty but for a `use` of each dependency.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The checkout that this test was built from.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// A workspace with the real manifests and lock file, and sources that hold nothing.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(checkout().join(file), copy.path().join(file)).unwrap();
    }
    for member in members() {
        copy_member(&checkout().join(&member), &copy.path().join(&member));
    }
    copy
}

fn members() -> Vec<String> {
    let manifest: toml::Table =
        std::fs::read_to_string(checkout().join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["workspace"]["members"].clone().try_into().unwrap()
}

fn copy_member(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("src")).unwrap();
    std::fs::copy(from.join("Cargo.toml"), to.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = std::fs::read_to_string(from.join("Cargo.toml")).unwrap().parse().unwrap();
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(|table| table.keys());
    let uses: String = names.map(|name| format!("use {} as _;\n", name.replace('-', "_"))).collect();
    empty_sources(from, to);
    for root in ["src/lib.rs", "src/main.rs"] {
        if from.join(root).is_file() {
            std::fs::write(to.join(root), &uses).unwrap();
        }
    }
}

/// Targets are found by their files, or named in the manifest: each must exist.
fn empty_sources(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&copied).unwrap();
            empty_sources(&path, &copied);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            std::fs::write(copied, "").unwrap();
        }
    }
}

fn layers(workspace: &Path) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["layers", "--root"]).arg(workspace).env("CARGO_NET_OFFLINE", "true");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// Adds a line to a section of a member's manifest.
fn add(workspace: &Path, member: &str, section: &str, line: &str) {
    let path = workspace.join(member).join("Cargo.toml");
    let mut manifest = std::fs::read_to_string(&path).unwrap();
    let header = format!("[{section}]\n");
    match manifest.find(&header) {
        Some(at) => manifest.insert_str(at + header.len(), &format!("{line}\n")),
        None => manifest.push_str(&format!("\n{header}{line}\n")),
    }
    std::fs::write(path, manifest).unwrap();
}

#[test]
fn the_manifests_as_they_are_pass() {
    let copy = copy();
    let (output, text) = layers(copy.path());
    assert!(output.status.success(), "{text}");
    assert!(text.contains("third-party crates under `evenkeel`, limit 250"), "{text}");
}

#[test]
fn an_upward_dependency_fails() {
    for section in ["dependencies", "dev-dependencies"] {
        let copy = copy();
        add(copy.path(), "node/storage", section, "evenkeel-caller.workspace = true");
        let (output, text) = layers(copy.path());
        assert_eq!(output.status.code(), Some(1), "{section}: {text}");
        assert!(text.contains("evenkeel-storage → evenkeel-caller"), "{section}: {text}");
        assert!(text.contains("folder router lies above node"), "{section}: {text}");
    }
}

#[test]
fn a_crate_that_is_not_listed_fails() {
    let copy = copy();
    copy_member(&checkout().join("router/caller"), &copy.path().join("router/forgotten"));
    let (output, text) = layers(copy.path());
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("router/forgotten holds a manifest but is no member"), "{text}");
}
