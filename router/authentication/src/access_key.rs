//! Access keys of users, and temporary ones of sessions.
//!
//! A session's token holds everything about it, sealed: its user, its secret, its end. No place keeps
//! it, and every router can open it; it dies with its user.

use crate::seal::{SealError, SealingKey, random};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

const PERMANENT_PREFIX: &str = "AKEV";
const TEMPORARY_PREFIX: &str = "ASEV";
/// What a session's token is sealed for.
const TOKEN_OWNER: &str = "session";
/// Letters and digits of RFC 4648's base32.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Names it in requests: 20 letters and digits.
    pub id: String,
    /// Signs them: 40 characters.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

impl AccessKey {
    /// A new access key.
    pub fn generate() -> AccessKey {
        AccessKey::of_kind(PERMANENT_PREFIX)
    }

    fn of_kind(prefix: &str) -> AccessKey {
        let mut bytes = Zeroizing::new([0; 46]);
        random(&mut *bytes);
        let (id, secret) = bytes.split_at(16);
        let id = id.iter().map(|byte| char::from(BASE32[usize::from(byte & 31)]));
        AccessKey { id: prefix.chars().chain(id).collect(), secret: Zeroizing::new(BASE64.encode(secret)) }
    }

    /// The secret, sealed for this access key of this user.
    pub fn seal(&self, key: &SealingKey, user: &str) -> Vec<u8> {
        key.seal(&owner(user, &self.id), self.secret.as_bytes())
    }
}

/// What an access key's secret is sealed for.
fn owner(user: &str, access_key_id: &str) -> String {
    format!("{access_key_id} {user}")
}

/// Opens the secret that [`AccessKey::seal`] sealed.
///
/// # Errors
/// See [`SealError`].
pub fn open_secret(
    key: &SealingKey,
    user: &str,
    access_key_id: &str,
    sealed: &[u8],
) -> Result<Zeroizing<String>, SealError> {
    let secret = key.open(&owner(user, access_key_id), sealed)?;
    let text = std::str::from_utf8(&secret).map_err(|_| SealError::Malformed)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A temporary access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub user: String,
    /// Its access key.
    pub key: AccessKey,
    /// When it ends, in seconds since the Unix epoch.
    pub ends_s: i64,
}

impl Session {
    /// A new session.
    pub fn begin(user: &str, ends_s: i64) -> Session {
        Session { user: user.to_owned(), key: AccessKey::of_kind(TEMPORARY_PREFIX), ends_s }
    }

    /// The token that stands for it.
    pub fn token(&self, key: &SealingKey) -> String {
        let text = format!("{}\n{}\n{}\n{}", self.ends_s, self.key.id, *self.key.secret, self.user);
        BASE64.encode(key.seal(TOKEN_OWNER, Zeroizing::new(text).as_bytes()))
    }

    /// The session that a token stands for, over or not.
    ///
    /// # Errors
    /// If the token is none of ours.
    pub fn open(key: &SealingKey, token: &str) -> Result<Session, SealError> {
        let sealed = BASE64.decode(token).map_err(|_| SealError::Malformed)?;
        let bytes = key.open(TOKEN_OWNER, &sealed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SealError::Malformed)?;
        let mut lines = text.splitn(4, '\n');
        let mut next = || lines.next().ok_or(SealError::Malformed);
        let ends_s = next()?.parse().map_err(|_| SealError::Malformed)?;
        let (id, secret) = (next()?.to_owned(), Zeroizing::new(next()?.to_owned()));
        Ok(Session { user: next()?.to_owned(), key: AccessKey { id, secret }, ends_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing_key() -> SealingKey {
        let directory = tempfile::tempdir().unwrap();
        SealingKey::create(&directory.path().join("key")).unwrap()
    }

    #[test]
    fn access_keys_have_the_form_that_tools_expect_and_differ() {
        let keys: Vec<AccessKey> = (0..100).map(|_| AccessKey::generate()).collect();
        for key in &keys {
            assert!(key.id.starts_with("AKEV") && key.id.len() == 20 && key.secret.len() == 40, "{key:?}");
            assert!(key.id.bytes().all(|byte| BASE32.contains(&byte)), "{key:?}");
            assert!(!format!("{key:?}").contains(key.secret.as_str()), "a secret is never shown");
        }
        let ids: std::collections::HashSet<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids.len(), keys.len());
    }

    #[test]
    fn a_sealed_secret_opens_for_its_user_and_key_only() {
        let (key, access) = (sealing_key(), AccessKey::generate());
        let sealed = access.seal(&key, "ann");
        assert_eq!(open_secret(&key, "ann", &access.id, &sealed), Ok(access.secret.clone()));
        assert_eq!(open_secret(&key, "bob", &access.id, &sealed), Err(SealError::Forged));
        assert_eq!(open_secret(&key, "ann", "AKEVOTHER", &sealed), Err(SealError::Forged));
    }

    #[test]
    fn a_session_comes_back_from_its_token() {
        let (key, session) = (sealing_key(), Session::begin("ann\nof the sea", 1_700_000_000));
        let token = session.token(&key);
        assert_eq!(Session::open(&key, &token), Ok(session));
        assert_eq!(Session::open(&sealing_key(), &token), Err(SealError::OtherKey));
        assert_eq!(Session::open(&key, "not base64!"), Err(SealError::Malformed));
        let sealed = AccessKey::generate().seal(&key, "ann");
        assert_eq!(Session::open(&key, &BASE64.encode(sealed)), Err(SealError::Forged));
    }
}
