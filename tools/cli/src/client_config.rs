//! The file that tells a native client where a cluster is and how to prove itself: `client.toml`.
//!
//! ```toml
//! seeds = ["127.0.0.1:7101"]
//! cluster = "00112233445566778899aabbccddeeff"
//! key_file = "users.key"     # seals the secrets of users; only `evenkeel user` needs it
//!
//! [tls]
//! ca = "certs/ca.pem"
//! certificate = "certs/client.pem"
//! key = "certs/client.key"
//! ```
//!
//! Paths are relative to the file. Unknown keys are refused. This module writes nothing.

use evenkeel_client::{ClientConfig, tls};
use evenkeel_model::ClusterId;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    seeds: Vec<String>,
    cluster: Option<String>,
    key_file: Option<PathBuf>,
    tls: TlsFiles,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// Why a client configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; is this the directory of a running cluster? `evenkeel dev` writes client.toml in its data directory", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML, or not these keys.
    #[error("{path}: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// No address to begin with.
    #[error("{path}: seeds is empty; it needs at least one \"host:port\"", path = path.display())]
    NoSeeds {
        /// The file.
        path: PathBuf,
    },
    /// Not a cluster id.
    #[error("{path}: cluster {text:?} is not an id of 32 hexadecimal digits", path = path.display())]
    Cluster {
        /// The file.
        path: PathBuf,
        /// What stands there.
        text: String,
    },
    /// The certificates cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tls::TlsError,
    },
}

/// Reads a client configuration and the certificates that it names.
///
/// # Errors
/// The first file that cannot be read or used, by its path.
pub fn load(path: &Path) -> Result<ClientConfig, ClientConfigError> {
    let file = read_file(path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let certificates =
        |relative: &Path| -> Result<Vec<u8>, ClientConfigError> { read(&directory.join(relative)) };
    let tls = tls::client_config(
        &certificates(&file.tls.ca)?,
        &certificates(&file.tls.certificate)?,
        &certificates(&file.tls.key)?,
    )
    .map_err(|source| ClientConfigError::Tls { path: path.to_owned(), source })?;
    let mut config = ClientConfig::new(file.seeds, tls);
    config.cluster = file.cluster.map(|text| cluster_id(path, text)).transpose()?;
    Ok(config)
}

/// The key file that a client configuration names.
///
/// # Errors
/// As [`load`].
pub fn key_file(path: &Path) -> Result<Option<PathBuf>, ClientConfigError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    Ok(read_file(path)?.key_file.map(|file| directory.join(file)))
}

fn read_file(path: &Path) -> Result<ClientFile, ClientConfigError> {
    parse(path, &String::from_utf8_lossy(&read(path)?))
}

fn parse(path: &Path, text: &str) -> Result<ClientFile, ClientConfigError> {
    let file: ClientFile = toml::from_str(text).map_err(|error| ClientConfigError::Syntax {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })?;
    if file.seeds.is_empty() {
        return Err(ClientConfigError::NoSeeds { path: path.to_owned() });
    }
    Ok(file)
}

fn cluster_id(path: &Path, text: String) -> Result<ClusterId, ClientConfigError> {
    let well_formed = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.parse() {
        Ok(id) if well_formed => Ok(id),
        _ => Err(ClientConfigError::Cluster { path: path.to_owned(), text }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClientConfigError> {
    std::fs::read(path).map_err(|source| ClientConfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        seeds = ["127.0.0.1:7101"]
        cluster = "00112233445566778899aabbccddeeff"
        [tls]
        ca = "certs/ca.pem"
        certificate = "certs/client.pem"
        key = "certs/client.key"
    "#;

    #[test]
    fn a_whole_file_is_read() {
        let path = Path::new("client.toml");
        let file = parse(path, WHOLE).unwrap();
        assert_eq!(file.seeds, ["127.0.0.1:7101"]);
        assert_eq!(file.tls.key, Path::new("certs/client.key"));
        let id = cluster_id(path, file.cluster.unwrap()).unwrap();
        assert_eq!(id, ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_file() {
        let cases = [
            (WHOLE.replace("ca =", "cacert ="), "unknown field `cacert`"),
            (WHOLE.replace("seeds", "seed"), "unknown field `seed`"),
            (WHOLE.replace("\"127.0.0.1:7101\"", ""), "seeds is empty"),
            (WHOLE.replace("[tls]", "[tls"), "TOML parse error"),
        ];
        for (text, expected) in cases {
            let error = parse(Path::new("a/client.toml"), &text).unwrap_err().to_string();
            assert!(error.starts_with("a/client.toml: ") && error.contains(expected), "{error}");
        }
        for text in ["", "77", "zz112233445566778899aabbccddeeff", "+0112233445566778899aabbccddeeff"] {
            assert!(cluster_id(Path::new("client.toml"), text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let error = load(Path::new("/nowhere/client.toml")).expect_err("no such file").to_string();
        assert!(error.contains("/nowhere/client.toml") && error.contains("evenkeel dev"), "{error}");
    }
}
