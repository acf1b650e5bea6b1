//! The native client, set up from the file that `evenkeel dev` writes.

use evenkeel_client::{Client, ClientConfig, tls};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    seeds: Vec<String>,
    cluster: Option<String>,
    /// What `evenkeel user` needs.
    #[serde(rename = "key_file")]
    _key_file: PathBuf,
    tls: TlsFiles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// The configuration in a `client.toml`.
pub fn config(path: &Path) -> ClientConfig {
    let read = |path: &Path| {
        std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    };
    let text = String::from_utf8(read(path)).expect("TOML is UTF-8");
    let file: ClientFile = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let pem = |relative: &Path| read(&path.with_file_name("").join(relative));
    let tls = tls::client_config(&pem(&file.tls.ca), &pem(&file.tls.certificate), &pem(&file.tls.key));
    let mut config = ClientConfig::new(file.seeds, tls.expect("dev writes usable certificates"));
    config.cluster = file.cluster.map(|text| text.parse().expect("a cluster id"));
    config
}

/// A connected client.
pub async fn connect(path: &Path) -> Client {
    Client::connect(config(path)).await.unwrap_or_else(|error| panic!("cannot connect: {error}"))
}
