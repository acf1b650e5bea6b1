//! Mutual TLS 1.3 with the nodes of a cluster, from PEM.

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The application protocol; nodes of another version refuse it in the handshake.
pub const ALPN: &[u8] = b"evenkeel/1";
/// The name that every node's certificate carries.
pub const SERVER_NAME: &str = "node.evenkeel";

/// Why certificates and key cannot be used. The text names the one at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing of the wanted kind in it.
    #[error("the {what} cannot be read: {source}")]
    Pem {
        /// Which of the inputs.
        what: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// PEM without what is wanted.
    #[error("the {what} holds no certificate")]
    NoCertificate {
        /// Which of the inputs.
        what: &'static str,
    },
    /// An authority that cannot be trusted with anything.
    #[error("the certificate authority cannot be used: {0}")]
    Authority(rustls::Error),
    /// A certificate and a key that do not belong together, or that TLS 1.3 cannot use.
    #[error("the certificate and its key cannot be used together: {0}")]
    Certificate(rustls::Error),
}

/// What [`crate::ClientConfig`] needs: trusts `ca_pem` and shows the chain of `cert_pem`.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(ca_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("certificate authority", ca_pem)? {
        roots.add(authority).map_err(TlsError::Authority)?;
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|source| TlsError::Pem { what: "private key", source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("certificate", cert_pem)?, key)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { what }),
        Ok(found) => Ok(found),
        Err(source) => Err(TlsError::Pem { what, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_input_is_named() {
        let made = rcgen::generate_simple_self_signed(vec!["client.evenkeel".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["client.evenkeel".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other_key = other.signing_key.serialize_pem();
        assert!(client_config(certificate.as_bytes(), certificate.as_bytes(), key.as_bytes()).is_ok());
        let cases = [
            ("", &*certificate, &*key, "the certificate authority holds no certificate"),
            (&*certificate, "noise", &*key, "the certificate holds no certificate"),
            (&*certificate, &*certificate, "", "the private key cannot be read"),
            (
                &*certificate,
                &*certificate,
                &*other_key,
                "the certificate and its key cannot be used together",
            ),
        ];
        for (authority, certificate, key, expected) in cases {
            let error = client_config(authority.as_bytes(), certificate.as_bytes(), key.as_bytes());
            let text = error.expect_err("the input is unusable").to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
