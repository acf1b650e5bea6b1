//! Who is at the other end: mutual TLS and the roles that certificates carry.
//!
//! Both sides show a certificate of the cluster's authority, as servers and as clients, so a
//! certificate must allow both uses or name none. Its subject alternative names say what its owner
//! may be: `node.evenkeel`, `router.evenkeel`, `client.evenkeel`, `admin.evenkeel`. A node's certificate
//! also says which node it is, node 3 by the name `3.node.evenkeel`: with another node's certificate nobody
//! can pass for it.

use evenkeel_model::NodeId;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use std::{any::Any, fmt, sync::Arc};

/// The application protocol of this version; peers of another are refused in the handshake.
pub const ALPN: &[u8] = b"evenkeel/1";

/// The name that every node's certificate carries, and that is asked for when connecting to one.
pub const SERVER_NAME: &str = "node.evenkeel";

/// What the owner of a certificate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A storage node.
    Node,
    /// A router.
    Router,
    /// An application with the client library.
    Client,
    /// An operator's tool.
    Admin,
}

impl Role {
    const ALL: [Role; 4] = [Role::Node, Role::Router, Role::Client, Role::Admin];

    /// The name that stands for the role in a certificate.
    pub fn name(self) -> &'static str {
        match self {
            Role::Node => SERVER_NAME,
            Role::Router => "router.evenkeel",
            Role::Client => "client.evenkeel",
            Role::Admin => "admin.evenkeel",
        }
    }
}

/// The roles of a peer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Whether the peer may be this.
    pub fn contains(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }

    /// The roles in a certificate.
    fn of(certificate: &webpki::EndEntityCert<'_>) -> Roles {
        let carried = Role::ALL.into_iter().filter(|role| {
            let name = ServerName::try_from(role.name()).expect("the names of roles are valid names");
            certificate.verify_is_valid_for_subject_name(&name).is_ok()
        });
        carried.collect()
    }
}

/// The name in its certificate by which a node is asked for when it must be this one.
pub fn node_name(node: NodeId) -> String {
    format!("{node}.{SERVER_NAME}")
}

/// The node in a certificate, if it names exactly one.
fn node_of(certificate: &webpki::EndEntityCert<'_>) -> Option<NodeId> {
    let number = |name: &str| {
        let number = name.strip_suffix(SERVER_NAME)?.strip_suffix('.')?;
        number.parse().ok().filter(|parsed: &u32| parsed.to_string() == number)
    };
    let mut nodes = certificate.valid_dns_names().filter_map(number);
    let node = nodes.next()?;
    nodes.next().is_none().then_some(NodeId(node))
}

/// Roles and node in a certificate that its owner is about to show: PEM text, of which the first counts, or
/// DER bytes.
///
/// # Errors
/// See [`TlsError`].
pub fn certificate_identity(certificate: &[u8]) -> Result<(Roles, Option<NodeId>), TlsError> {
    let chain = certificates("certificate", certificate)?;
    Ok(chain.first().map(identity_in).unwrap_or_default())
}

/// Roles and node in what quinn-proto reports of a peer, whose certificates were verified.
pub(crate) fn identity_of_peer(identity: Option<Box<dyn Any>>) -> (Roles, Option<NodeId>) {
    let certificates = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    certificates.and_then(|chain| chain.first().map(identity_in)).unwrap_or_default()
}

/// One that cannot be read has neither.
fn identity_in(certificate: &CertificateDer<'_>) -> (Roles, Option<NodeId>) {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(certificate) => (Roles::of(&certificate), node_of(&certificate)),
        Err(_) => Default::default(),
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Roles(roles.into_iter().fold(0, |bits, role| bits | 1 << role as u8))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Role::ALL.iter().filter(|role| self.contains(**role))).finish()
    }
}

/// Why certificates and keys cannot be used. The text names the one at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Text that looks like PEM but is not.
    #[error("the {what} is not valid PEM: {source}")]
    Pem {
        /// Which of the inputs.
        what: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// Nothing usable in it.
    #[error("the {what} is empty or of an unknown kind")]
    Empty {
        /// Which of the inputs.
        what: &'static str,
    },
    /// A certificate authority that cannot be trusted with anything.
    #[error("the certificate authority cannot be used: {0}")]
    Authority(rustls::Error),
    /// The verifier of clients could not be made.
    #[error("clients cannot be verified with the certificate authority: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// A certificate and a key that do not belong together, or that TLS 1.3 cannot use.
    #[error("the certificate and its key cannot be used together: {0}")]
    Certificate(rustls::Error),
}

/// What a node needs to accept connections. Each argument is PEM text or DER bytes; `certificate`
/// may be a chain in PEM.
///
/// # Errors
/// See [`TlsError`].
pub fn server_tls(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider()).build()?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("certificate", certificate)?, private_key(key)?)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection proves its identity anew.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a node or a client needs to connect to a node; arguments as for [`server_tls`].
///
/// # Errors
/// See [`TlsError`].
pub fn client_tls(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?;
    let mut config = builder
        .with_root_certificates(roots(authority)?)
        .with_client_auth_cert(certificates("certificate", certificate)?, private_key(key)?)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authority", authority)? {
        roots.add(certificate).map_err(TlsError::Authority)?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if bytes.is_empty() {
        return Err(TlsError::Empty { what });
    }
    if !is_pem(bytes) {
        return Ok(vec![CertificateDer::from(bytes.to_vec())]);
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() { Err(TlsError::Empty { what }) } else { Ok(found) }
}

pub(crate) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    if is_pem(bytes) {
        return PrivateKeyDer::from_pem_slice(bytes).map_err(|source| TlsError::Pem { what, source });
    }
    PrivateKeyDer::try_from(bytes.to_vec()).map_err(|_| TlsError::Empty { what })
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(b"-----BEGIN".len()).any(|window| window == b"-----BEGIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.der().to_vec(), made.signing_key.serialize_der())
    }

    #[test]
    fn roles_and_node_are_the_names_in_a_certificate() {
        type Case = (&'static [&'static str], &'static [Role], Option<u32>);
        let cases: [Case; 9] = [
            (&["node.evenkeel"], &[Role::Node], None),
            (&["node.evenkeel", "12.node.evenkeel"], &[Role::Node], Some(12)),
            (&["12.node.evenkeel"], &[], Some(12)),
            (&["node.evenkeel", "1.node.evenkeel", "2.node.evenkeel"], &[Role::Node], None),
            (&["node.evenkeel", "012.node.evenkeel", "a.node.evenkeel"], &[Role::Node], None),
            (&["node.evenkeel", "99999999999.node.evenkeel"], &[Role::Node], None),
            (&["router.evenkeel", "client.evenkeel"], &[Role::Router, Role::Client], None),
            (&["example.com", "admin.evenkeel"], &[Role::Admin], None),
            (&["node.evenkeel.example.com", "127.0.0.1", "3.node.evenkeel.example.com"], &[], None),
        ];
        for (names, roles, node) in cases {
            let found = identity_in(&CertificateDer::from(certificate(names).0));
            assert_eq!(found, (roles.iter().copied().collect(), node.map(NodeId)), "{names:?}");
        }
        assert_eq!(node_name(NodeId(12)), "12.node.evenkeel");
    }

    #[test]
    fn unusable_input_is_named() {
        let (der, key) = certificate(&["node.evenkeel"]);
        let cases = [
            (&b""[..], &der[..], &key[..], "the certificate authority is empty"),
            (&der, b"-----BEGIN CERTIFICATE-----\nnot base64", &key, "the certificate is"),
            (&der, &der, b"", "the private key is empty"),
            (b"noise", &der, &key, "the certificate authority cannot be used"),
        ];
        for (authority, certificate, key, expected) in cases {
            for error in
                [server_tls(authority, certificate, key).err(), client_tls(authority, certificate, key).err()]
            {
                let text = error.expect("the input is unusable").to_string();
                assert!(text.starts_with(expected), "{text}");
            }
        }
    }
}
