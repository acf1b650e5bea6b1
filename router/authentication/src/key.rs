//! Keys for a day: what signatures are made with, derived from a secret that is not kept.

use ring::hmac;
use std::collections::HashMap;
use zeroize::Zeroizing;

/// The service that requests are signed for.
pub const SERVICE: &str = "dynamodb";
/// What ends the scope of a credential.
pub const TERMINATOR: &str = "aws4_request";

/// The key that signs the requests of one access key, on one day, in one region, to this service.
#[derive(Clone, Debug)]
pub struct DayKey(hmac::Key);

impl DayKey {
    /// Derives the key of a day (`YYYYMMDD`) from a secret access key.
    pub fn derive(secret: &str, date: &str, region: &str) -> DayKey {
        let first = Zeroizing::new([b"AWS4", secret.as_bytes()].concat());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &first);
        for part in [date, region, SERVICE, TERMINATOR] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        DayKey(key)
    }

    /// Whether `signature` is that of `text`; how long this takes does not depend on where they differ.
    pub fn is_signature(&self, text: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.0, text, signature).is_ok()
    }

    /// The signature of `text`.
    pub fn sign(&self, text: &[u8]) -> [u8; 32] {
        let mut signature = [0; 32];
        signature.copy_from_slice(hmac::sign(&self.0, text).as_ref());
        signature
    }
}

/// Day keys in use, so that secrets need not be at hand. Bounded: when it is full it begins anew.
#[derive(Debug, Default)]
pub struct DayKeys {
    keys: HashMap<String, DayKey>,
    /// Where the key of the map is put together.
    name: String,
}

impl DayKeys {
    /// Most keys that are kept.
    pub const MAX: usize = 4096;

    /// The day key of an access key; derived from what `secret` yields if it is not here.
    ///
    /// # Errors
    /// Those of `secret`.
    pub fn get<E>(
        &mut self,
        access_key_id: &str,
        date: &str,
        region: &str,
        secret: impl FnOnce() -> Result<Zeroizing<String>, E>,
    ) -> Result<&DayKey, E> {
        self.name.clear();
        for part in [date, "/", region, "/", access_key_id] {
            self.name.push_str(part);
        }
        if !self.keys.contains_key(&self.name) {
            let key = DayKey::derive(&secret()?, date, region);
            if self.keys.len() >= Self::MAX {
                self.keys.clear();
            }
            self.keys.insert(self.name.clone(), key);
        }
        Ok(&self.keys[&self.name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_asked_for_once_and_the_keys_kept_are_bounded() {
        let mut keys = DayKeys::default();
        let mut asked = 0;
        for id in 0..2 * DayKeys::MAX {
            for _ in 0..2 {
                let secret = || {
                    asked += 1;
                    Ok::<_, ()>(Zeroizing::new("secret".to_owned()))
                };
                keys.get(&id.to_string(), "20150830", "us-east-1", secret).unwrap();
            }
            assert!(keys.keys.len() <= DayKeys::MAX);
        }
        assert_eq!(asked, 2 * DayKeys::MAX);
        assert!(keys.get("new", "20150830", "us-east-1", || Err(())).is_err());
    }
}
