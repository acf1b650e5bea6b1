//! The workspace a check looks at: its root, its manifest, what cargo and git say about it.
//!
//! Nothing here judges; the checks do.

use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

use crate::failure::Failure;

/// A checkout. Commands run in its root, whatever directory `xtask` was started in.
pub struct Workspace {
    pub root: PathBuf,
}

impl Workspace {
    /// The workspace at `root`, or the one around the current directory.
    pub fn open(root: Option<PathBuf>) -> Result<Workspace, Failure> {
        let root = match root {
            Some(root) => root,
            None => {
                let current = std::env::current_dir().map_err(Failure::file("."))?;
                let is_root = |path: &&Path| path.join("Cargo.lock").is_file();
                let found = current.ancestors().find(is_root);
                found.map(Path::to_path_buf).ok_or_else(|| {
                    Failure::not_run("xtask", "no Cargo.lock here or in a folder above: run it in a checkout")
                })?
            }
        };
        Ok(Workspace { root })
    }

    pub fn read(&self, path: &str) -> Result<String, Failure> {
        let path = self.root.join(path);
        std::fs::read_to_string(&path).map_err(Failure::file(path))
    }

    /// What cargo resolved, for this machine's target only (no Windows crates).
    pub fn metadata(&self) -> Result<Metadata, Failure> {
        let target = host_target()?;
        let mut command = MetadataCommand::new();
        command.manifest_path(self.root.join("Cargo.toml"));
        command.other_options(vec!["--filter-platform".to_owned(), target]);
        Ok(command.exec()?)
    }

    /// The root manifest as a TOML table.
    pub fn manifest(&self) -> Result<toml::Table, Failure> {
        let text = self.read("Cargo.toml")?;
        let path = self.root.join("Cargo.toml");
        text.parse().map_err(|error: toml::de::Error| Failure::Format { path, message: error.to_string() })
    }

    /// Files that git tracks or would track, relative to the root, sorted.
    pub fn files(&self) -> Result<Vec<String>, Failure> {
        let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output = Command::new("git").args(arguments).current_dir(&self.root).output();
        let output = output.map_err(|error| Failure::not_run("git ls-files", error))?;
        if !output.status.success() {
            return Err(Failure::not_run("git ls-files", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let listing = String::from_utf8_lossy(&output.stdout);
        let mut files: Vec<String> =
            listing.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        files.retain(|name| self.root.join(name).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }
}

fn host_target() -> Result<String, Failure> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| Failure::not_run("rustc -vV", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::not_run("rustc -vV", "it names no host"))
}
