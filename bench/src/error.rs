//! Why a bench could not measure, or measured something that is wrong.

use crate::certificates::CertificateError;
use crate::local::LocalError;
use std::io;
use std::path::{Path, PathBuf};

/// What the program of the other engines is built from.
pub(crate) const PEERS_MANIFEST: &str = "bench/peers/Cargo.toml";

/// Why a bench did not finish.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument that makes no sense.
    #[error("{flag}: {reason}")]
    Argument {
        /// The flag.
        flag: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No directory for the run's files.
    #[error("temporary directory under {}: {source}", path.display())]
    Directory {
        /// Under which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cluster did not start or stop.
    #[error(transparent)]
    Cluster(#[from] LocalError),
    /// The identities for the echo could not be made.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// A phase could not be run at all.
    #[error("{phase}: {reason}")]
    Phase {
        /// Which.
        phase: &'static str,
        /// Why.
        reason: String,
    },
    /// A step of an engine's bench could not be run.
    #[error("{engine}, step {step}: {reason}")]
    Engine {
        /// Which engine.
        engine: String,
        /// Which step.
        step: String,
        /// Why.
        reason: String,
    },
    /// Engines were asked for that have no program.
    #[error("NOT RUN: {}: {}, or leave them out by --engines", engines.join(", "), BenchError::build(file, PEERS_MANIFEST))]
    PeersMissing {
        /// Which.
        engines: Vec<String>,
        /// Where their program should be.
        file: PathBuf,
    },
    /// The check found figures that cannot be trusted.
    #[error("check failed: {}", faults.join("; "))]
    Check {
        /// All that is wrong.
        faults: Vec<String>,
    },
}

impl BenchError {
    /// What to do when a program of a package outside the workspace is not there.
    pub(crate) fn build(file: &Path, manifest: &str) -> String {
        let file = file.display();
        format!("{file} is not there; build it by `cargo build --release --manifest-path {manifest}`")
    }

    /// A function that names the phase in which something went wrong.
    pub(crate) fn in_phase<E: std::fmt::Display>(phase: &'static str) -> impl Fn(E) -> BenchError {
        move |error| BenchError::Phase { phase, reason: error.to_string() }
    }
}
