//! What a router is told: a TOML file, checked as a whole before anything is started.
//!
//! ```toml
//! [http]
//! listen = "127.0.0.1:8000"
//! region = "us-east-1"      # in ARNs, where a request names none; optional
//! workers = 2               # threads; optional, by default one a processor, at most 4
//!
//! [admin]
//! listen = "127.0.0.1:8001"
//!
//! [cluster]
//! id = "0123456789abcdef0123456789abcdef"
//! seeds = ["127.0.0.1:7101"]   # any shard of any node
//! zone = "a"                # where the router is: eventually consistent reads go to replicas there;
//!                           # optional, without it leaders answer them too
//!
//! [authentication]
//! mode = "enforce"          # or "warn", "off"; optional
//! key_file = "users.key"    # opens the secrets of users, relative to this file; none if the mode is off
//!
//! [tls]                     # PEM files, relative to this file
//! ca = "ca.pem"
//! certificate = "router.pem"
//! key = "router.key"
//! ```

use evenkeel_model::ClusterId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// More workers than this only compete with the nodes of a small machine.
const WORKERS_DEFAULT_MAX: usize = 4;
const WORKERS_MAX: usize = 1024;

/// Everything a router is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// The DynamoDB API.
    pub http: HttpSection,
    /// The admin endpoint.
    pub admin: AdminSection,
    /// The cluster behind it.
    pub cluster: ClusterSection,
    /// Who may ask.
    #[serde(default)]
    pub authentication: AuthenticationSection,
    /// Its identity towards the cluster.
    pub tls: TlsSection,
}

/// The DynamoDB API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSection {
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
    /// Region in ARNs, where a request names none.
    #[serde(default = "region_default")]
    pub region: String,
    /// Threads.
    #[serde(default = "workers_default")]
    pub workers: usize,
}

/// The admin endpoint: `/metrics`, `/livez`, `/readyz`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
}

/// The cluster behind a router.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// 32 hexadecimal digits.
    pub id: String,
    /// `host:port` of shards of nodes; one that answers is enough.
    pub seeds: Vec<String>,
    /// The availability zone of the router: reads that need not be of this moment go to replicas there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Who may ask.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticationSection {
    /// Whether signatures are verified.
    #[serde(default)]
    pub mode: AuthenticationMode,
    /// The file with the key that opens the secrets of users; none if the mode is off.
    pub key_file: Option<PathBuf>,
}

/// Whether signatures are verified, and what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationMode {
    /// They are not looked at.
    Off,
    /// They are verified and counted, and every request is answered.
    Warn,
    /// Requests without a good one are refused.
    #[default]
    Enforce,
}

impl std::str::FromStr for AuthenticationMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AuthenticationMode, &'static str> {
        match text {
            "off" => Ok(AuthenticationMode::Off),
            "warn" => Ok(AuthenticationMode::Warn),
            "enforce" => Ok(AuthenticationMode::Enforce),
            _ => Err("must be off, warn or enforce"),
        }
    }
}

/// PEM files; relative paths are relative to the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Certificate of the cluster's authority.
    pub ca: PathBuf,
    /// The router's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

fn region_default() -> String {
    "us-east-1".to_owned()
}

/// One a processor, up to a few.
pub fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_DEFAULT_MAX)
}

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not the TOML expected.
    #[error("configuration {}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A value breaks a rule.
    #[error("configuration: {key}: {reason}")]
    Value {
        /// The key, as a dotted path.
        key: &'static str,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
}

impl RouterConfig {
    /// Reads a file, makes its paths absolute by the file's directory, and checks it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<RouterConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: RouterConfig = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })?;
        let base = path.parent().unwrap_or(Path::new(""));
        for file in [&mut config.tls.ca, &mut config.tls.certificate, &mut config.tls.key] {
            *file = base.join(&*file);
        }
        if let Some(file) = &mut config.authentication.key_file {
            *file = base.join(&*file);
        }
        config.check()?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value found wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fault = |key, reason| Err(ConfigError::Value { key, reason });
        self.cluster_id()?;
        if self.cluster.seeds.is_empty() {
            return fault("cluster.seeds", "must name at least one host:port");
        }
        if !(1..=WORKERS_MAX).contains(&self.http.workers) {
            return fault("http.workers", "must be between 1 and 1024");
        }
        let AuthenticationSection { mode, key_file } = &self.authentication;
        if *mode != AuthenticationMode::Off && key_file.is_none() {
            let reason = "must name the file that opens the secrets of users, as made by `evenkeel user key`; \
                          or set authentication.mode to \"off\"";
            return fault("authentication.key_file", reason);
        }
        let region = &self.http.region;
        if region.is_empty() || !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return fault("http.region", "must be letters, digits and -");
        }
        Ok(())
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// If it is not 32 hexadecimal digits.
    pub fn cluster_id(&self) -> Result<ClusterId, ConfigError> {
        let wrong = || ConfigError::Value { key: "cluster.id", reason: "must be 32 hexadecimal digits" };
        if self.cluster.id.len() != 32 {
            return Err(wrong());
        }
        self.cluster.id.parse().map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [http]
        listen = "127.0.0.1:8000"
        [admin]
        listen = "127.0.0.1:8001"
        [cluster]
        id = "0123456789abcdef0123456789abcdef"
        seeds = ["127.0.0.1:7101"]
        [authentication]
        key_file = "users.key"
        [tls]
        ca = "ca.pem"
        certificate = "router.pem"
        key = "router.key"
    "#;

    fn load(text: &str) -> Result<RouterConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("router.toml");
        std::fs::write(&path, text).unwrap();
        RouterConfig::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_file_is_read_with_defaults_and_paths_relative_to_it() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.http.region, "us-east-1");
        assert!(config.http.workers >= 1 && config.tls.key.is_absolute());
        assert_eq!(config.authentication.mode, AuthenticationMode::Enforce);
        assert!(config.authentication.key_file.unwrap().is_absolute());
    }

    #[test]
    fn each_wrong_value_is_named() {
        let cases = [
            ("[\"127.0.0.1:7101\"]", "[]", "cluster.seeds"),
            ("0123456789abcdef0123456789abcdef", "short", "cluster.id"),
            ("127.0.0.1:8000\"", "127.0.0.1:8000\"\nworkers = 0", "http.workers"),
            ("127.0.0.1:8000\"", "127.0.0.1:8000\"\nregion = \"\"", "http.region"),
            ("127.0.0.1:8000\"", "nowhere\"", "invalid socket address"),
            ("key_file = \"users.key\"", "", "authentication.key_file"),
            ("key_file = \"users.key\"", "mode = \"maybe\"", "unknown variant `maybe`"),
            ("[tls]", "[tls]\ncolour = 1", "unknown field `colour`"),
        ];
        for (from, to, named) in cases {
            let error = load(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
