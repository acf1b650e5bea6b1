//! What a node's disk is known by: a number drawn when its data directory was formatted.
//!
//! A node whose disk was emptied has forgotten what it promised, so nobody may take it for the node it was.
//! The catalogue knows each node by this number, and refuses the node under another.

use evenkeel_driver::write_file;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "store.toml";

/// A formatted data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// Drawn when it was formatted.
    pub id: u128,
    /// Whether that was just now: nothing was ever promised from here.
    pub is_fresh: bool,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what was written there.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There are shards, and nothing that says whose.
    #[error(
        "{} holds shards but no store.toml; put the file back, or give the node a fresh id and an empty directory",
        data.display()
    )]
    Unnamed {
        /// The data directory.
        data: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreFile {
    store: String,
}

impl Store {
    /// Reads the number of a data directory, or draws one if it holds nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(data: &Path, holds_shards: bool, random: impl Fn() -> u64) -> Result<Store, StoreError> {
        let path = data.join(FILE);
        let malformed = |reason: String| StoreError::Malformed { path: path.clone(), reason };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let file: StoreFile = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
                let id = u128::from_str_radix(&file.store, 16);
                let id = id.map_err(|_| malformed("store must be hexadecimal digits".to_owned()))?;
                Ok(Store { id, is_fresh: false })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && holds_shards => {
                Err(StoreError::Unnamed { data: data.to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = u128::from(random()) << 64 | u128::from(random());
                let text = format!("store = \"{id:032x}\"\n");
                // Durable before anything else is written there.
                let written = write_file(&path, text.as_bytes(), 0o644);
                written.map_err(|source| StoreError::File { path, source })?;
                Ok(Store { id, is_fresh: true })
            }
            Err(source) => Err(StoreError::File { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_the_number_it_was_formatted_with() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path(), false, || 7).unwrap();
        assert_eq!(first, Store { id: 7 << 64 | 7, is_fresh: true });
        let again = Store::open(directory.path(), true, || 9).unwrap();
        assert_eq!(again, Store { is_fresh: false, ..first });
        fs::write(directory.path().join(FILE), "store = \"x\"").unwrap();
        let malformed = Store::open(directory.path(), true, || 9).unwrap_err();
        assert!(malformed.to_string().ends_with("store must be hexadecimal digits"), "{malformed}");
        fs::remove_file(directory.path().join(FILE)).unwrap();
        let unnamed = Store::open(directory.path(), true, || 9).unwrap_err();
        assert!(matches!(unnamed, StoreError::Unnamed { .. }), "{unnamed}");
    }
}
