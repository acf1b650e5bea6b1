//! The secret by which a restarted endpoint is recognised.
//!
//! A peer that still sends to the life before gets a stateless reset (RFC 9000, section 10.3) and
//! connects anew at once, instead of waiting for its idle timeout. That needs a key that survives the
//! restart; without one a random key is used.

use quinn_proto::crypto::{CryptoError, HmacKey};
use rustls::crypto::{
    ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    tls13::{Hkdf, OkmBlock},
};

/// HMAC-SHA-256 with the endpoint's key.
pub struct ResetKey {
    key: OkmBlock,
    hkdf: &'static dyn Hkdf,
}

const SIGNATURE_BYTES: usize = 32;

impl ResetKey {
    pub fn new(key: &[u8; 32]) -> ResetKey {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 cipher suite is one of TLS 1.3");
        ResetKey { key: OkmBlock::new(key), hkdf: suite.hkdf_provider }
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
}
