//! Throw-away identities for a cluster on one machine: an authority that lives only while it signs, one
//! certificate a node and one a role.
//!
//! The authority's key is never written, so nobody can sign further identities with it; they are all
//! made when the cluster's directory is, those of nodes to come included.

use evenkeel_driver::{make_directory, write_file};
use evenkeel_model::NodeId;
use evenkeel_quic::{SERVER_NAME, node_name};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The roles besides nodes that get an identity; each is a file `<role>.pem` and `<role>.key`.
const ROLES: [&str; 3] = ["router", "client", "admin"];
/// Nodes that get one in a cluster on this machine, numbered from 1: `node-<number>.pem` and `node-<number>.key`.
pub const NODES: u32 = 16;
/// File of the authority's certificate.
const AUTHORITY: &str = "ca.pem";

/// Why the identities could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate could not be signed.
    #[error("certificate of {role}: {source}")]
    Sign {
        /// For whom.
        role: String,
        /// What is wrong.
        source: rcgen::Error,
    },
}

/// Files of one identity.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The identity's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The files of an identity under a directory: that of a role, or of a node by [`node`].
pub fn files(directory: &Path, role: &str) -> IdentityFiles {
    IdentityFiles {
        ca: directory.join(AUTHORITY),
        certificate: directory.join(format!("{role}.pem")),
        key: directory.join(format!("{role}.key")),
    }
}

/// What the identity of a node is called.
pub fn node(id: u32) -> String {
    format!("node-{id}")
}

/// Whether a directory holds the identities of [`NODES`] nodes that [`make`] makes.
pub fn are_made(directory: &Path) -> bool {
    // The authority's certificate is written last.
    directory.join(AUTHORITY).exists() && files(directory, &node(NODES)).key.exists()
}

/// Makes an authority and an identity for each role and for this many nodes, in files of a directory that only
/// their owner can read.
///
/// # Errors
/// See [`CertificateError`].
pub fn make(directory: &Path, nodes: u32) -> Result<(), CertificateError> {
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Write { path, source }
    };
    make_directory(directory).map_err(fault(directory))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(fault(directory))?;
    let (authority, issuer) =
        authority().map_err(|source| CertificateError::Sign { role: "authority".to_owned(), source })?;
    let roles = ROLES.iter().map(|role| (role.to_string(), vec![format!("{role}.evenkeel")]));
    let node_names = |id| vec![SERVER_NAME.to_owned(), node_name(NodeId(id))];
    let nodes = (1..=nodes).map(|id| (node(id), node_names(id)));
    for (role, names) in roles.chain(nodes) {
        let sign = |source| CertificateError::Sign { role: role.clone(), source };
        let key = KeyPair::generate().map_err(sign)?;
        let mut params = CertificateParams::new(names).map_err(sign)?;
        params.distinguished_name.push(DnType::CommonName, format!("evenkeel {role}"));
        let certificate = params.signed_by(&key, &issuer).map_err(sign)?;
        let paths = files(directory, &role);
        write(&paths.certificate, &certificate.pem(), 0o644)?;
        write(&paths.key, &key.serialize_pem(), 0o600)?;
    }
    write(&directory.join(AUTHORITY), &authority, 0o644)
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "evenkeel throw-away authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = params.self_signed(&key)?.pem();
    Ok((pem, Issuer::new(params, key)))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let fault = |source| CertificateError::Write { path: path.to_owned(), source };
    write_file(path, text.as_bytes(), mode).map_err(fault)
}
