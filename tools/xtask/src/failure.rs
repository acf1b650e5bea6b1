//! Why a command of `xtask` did not succeed, in words for the person who typed it.

use std::path::PathBuf;

/// The outcome of a command that did not succeed. Findings are printed where they are found; the
/// failure only counts them.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{check}: {count} {}", if *.count == 1 { "violation" } else { "violations" })]
    Violations { check: &'static str, count: usize },
    #[error("`{command}` failed: {status}")]
    Command { command: String, status: std::process::ExitStatus },
    #[error("NOT RUN: {what}: {reason}")]
    NotRun { what: String, reason: String },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Format { path: PathBuf, message: String },
    #[error("cargo metadata: {0}")]
    Metadata(#[from] cargo_metadata::Error),
}

impl Failure {
    /// For `map_err` on an operation on the file at `path`.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Failure {
        let path = path.into();
        move |source| Failure::File { path, source }
    }

    /// Something that should have run and could not; that is a failure, never a skip.
    pub fn not_run(what: impl Into<String>, reason: impl ToString) -> Failure {
        Failure::NotRun { what: what.into(), reason: reason.to_string() }
    }
}
