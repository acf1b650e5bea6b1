//! Why a bench could not measure, or measured something that is wrong.

use crate::certificates::CertificateError;
use crate::local::LocalError;
use std::io;
use std::path::PathBuf;

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
    /// The check found figures that cannot be trusted.
    #[error("check failed: {}", faults.join("; "))]
    Check {
        /// All that is wrong.
        faults: Vec<String>,
    },
}

impl BenchError {
    /// A function that names the phase in which something went wrong.
    pub(crate) fn in_phase<E: std::fmt::Display>(phase: &'static str) -> impl Fn(E) -> BenchError {
        move |error| BenchError::Phase { phase, reason: error.to_string() }
    }
}
