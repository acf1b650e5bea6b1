//! The node's certificates, read once at start.

use crate::config::TlsSection;
use evenkeel_model::NodeId;
use evenkeel_quic::{
    Role, SERVER_NAME, TlsError, certificate_identity, client_tls, node_name, reset_key, server_tls,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("{key} = {}: {source}", path.display())]
    Read {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate is another's.
    #[error("tls.certificate = {} is not that of node {node}: it must carry the names {SERVER_NAME} and {}", path.display(), node_name(*.node))]
    Other {
        /// The file.
        path: PathBuf,
        /// The node that was to show it.
        node: NodeId,
    },
    /// The files are not certificates and a key that belong together.
    #[error("certificates: {0}")]
    Tls(#[from] TlsError),
}

/// What the node shows to those who connect, and to those it connects to.
#[derive(Clone)]
pub struct Identity {
    /// For connections that others open.
    pub server: Arc<rustls::ServerConfig>,
    /// For connections that this node opens.
    pub client: Arc<rustls::ClientConfig>,
    /// By which those connected before a restart learn of it at once.
    pub reset_key: [u8; 32],
}

impl Identity {
    /// Reads the files that the configuration of a node names.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(node: NodeId, section: &TlsSection) -> Result<Identity, IdentityError> {
        let ca = read("tls.ca", &section.ca)?;
        let certificate = read("tls.certificate", &section.certificate)?;
        let key = read("tls.key", &section.key)?;
        let (roles, named) = certificate_identity(&certificate)?;
        if !roles.contains(Role::Node) || named != Some(node) {
            return Err(IdentityError::Other { path: section.certificate.clone(), node });
        }
        Ok(Identity {
            server: server_tls(&ca, &certificate, &key)?,
            client: client_tls(&ca, &certificate, &key)?,
            reset_key: reset_key(&key)?,
        })
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read { key, path: path.to_owned(), source })
}
