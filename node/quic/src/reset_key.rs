//! The secret by which a restarted endpoint is recognised.
//!
//! A peer that still sends to the life before gets a stateless reset (RFC 9000, section 10.3) and
//! connects anew at once, instead of waiting for its idle timeout. That needs a key that survives the
//! restart; without one a random key is used.

use crate::tls::{TlsError, private_key};
use quinn_proto::crypto::{CryptoError, HmacKey};
use rustls::crypto::{
    ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    tls13::{Hkdf, OkmBlock},
};

/// A secret for [`EndpointConfig::reset_key`](crate::EndpointConfig::reset_key) that lives as long as
/// the private key of the endpoint's certificate, from which it is derived (HKDF, RFC 5869). The key
/// is PEM text or DER bytes.
///
/// # Errors
/// When there is no private key in it.
pub fn reset_key(key: &[u8]) -> Result<[u8; 32], TlsError> {
    let derived = hkdf().extract_from_secret(None, private_key(key)?.secret_der());
    let mut secret = [0; 32];
    derived
        .expand_slice(&[b"evenkeel stateless reset"], &mut secret)
        .expect("HKDF-SHA-256 expands to 32 bytes");
    Ok(secret)
}

fn hkdf() -> &'static dyn Hkdf {
    TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 cipher suite is one of TLS 1.3").hkdf_provider
}

/// HMAC-SHA-256 with the endpoint's key.
pub struct ResetKey {
    key: OkmBlock,
    hkdf: &'static dyn Hkdf,
}

const SIGNATURE_BYTES: usize = 32;

impl ResetKey {
    pub fn new(key: &[u8; 32]) -> ResetKey {
        ResetKey { key: OkmBlock::new(key), hkdf: hkdf() }
    }

    /// The key of the connection ids that this endpoint gives out and knows again.
    pub fn connection_id_key(&self) -> u64 {
        let tag = self.hkdf.hmac_sign(&self.key, b"connection ids");
        u64::from_le_bytes(*tag.as_ref().first_chunk().expect("a tag has 32 bytes"))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.hkdf.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        SIGNATURE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Every byte is looked at, whichever differs.
        let tag = self.hkdf.hmac_sign(&self.key, data);
        let same_length = tag.as_ref().len() == signature.len();
        let difference = tag.as_ref().iter().zip(signature).fold(0, |bits, (a, b)| bits | (a ^ b));
        if same_length && difference == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_sign_alike_and_others_do_not() {
        let (key, same, other) = (ResetKey::new(&[1; 32]), ResetKey::new(&[1; 32]), ResetKey::new(&[2; 32]));
        let mut signature = [0; SIGNATURE_BYTES];
        key.sign(b"id", &mut signature);
        assert!(same.verify(b"id", &signature).is_ok());
        assert!(other.verify(b"id", &signature).is_err());
        assert!(key.verify(b"ie", &signature).is_err());
        assert!(key.verify(b"id", &signature[1..]).is_err());
        assert_eq!(key.connection_id_key(), same.connection_id_key());
    }

    #[test]
    fn the_secret_is_that_of_the_private_key() {
        let (one, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let secret = reset_key(one.serialize_pem().as_bytes()).unwrap();
        assert_eq!(secret, reset_key(&one.serialize_der()).unwrap());
        assert_ne!(secret, reset_key(other.serialize_pem().as_bytes()).unwrap());
        assert!(reset_key(b"").is_err());
    }
}
