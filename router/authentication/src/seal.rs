//! Secrets sealed under a key file: AES-256-GCM (NIST SP 800-38D), bound to whom they belong.
//!
//! A sealed text is `version (1) ‖ name of the key (4) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. The name
//! tells the wrong key file from damage. Nonces are random: with fewer than 2^32 texts a key, none
//! repeats in practice.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const NAME_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + NAME_BYTES + NONCE_LEN;

/// A key that seals and opens.
pub struct SealingKey {
    key: LessSafeKey,
    name: [u8; NAME_BYTES],
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", crate::canonical::hex(&self.name))
    }
}

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refused.
    #[error("key file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read or change it.
    #[error("key file {} can be read or changed by others (mode {mode:03o}); chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not what this program writes there.
    #[error("key file {} does not hold 64 lower-case hexadecimal digits", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Why a sealed text was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is too short, or of a version that this program does not know.
    #[error("it is no sealed secret of version {VERSION}")]
    Malformed,
    /// It was sealed with another key.
    #[error("it was sealed with another key file")]
    OtherKey,
    /// It was changed, or belongs to somebody else.
    #[error("it was changed, or belongs to somebody else")]
    Forged,
}

impl SealingKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> SealingKey {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("the key has the length that AES-256 needs");
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..NAME_BYTES]);
        SealingKey { key: LessSafeKey::new(key), name }
    }

    /// Reads a key file, which nobody but its owner may read.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn read(path: &Path) -> Result<SealingKey, KeyFileError> {
        let fault = |source| KeyFileError::File { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(fault)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Open { path: path.to_owned(), mode });
        }
        let bytes = Zeroizing::new(fs::read(path).map_err(fault)?);
        let key = std::str::from_utf8(&bytes).ok().and_then(|text| crate::canonical::unhex(text.trim_end()));
        match key.map(Zeroizing::new) {
            Some(key) => Ok(SealingKey::new(&key)),
            None => Err(KeyFileError::Malformed { path: path.to_owned() }),
        }
    }

    /// Makes a key file with a new key; one that is there is left alone and is an error. The file is there
    /// whole or not at all, and durable when this returns: what is sealed under it may be durable next.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create(path: &Path) -> Result<SealingKey, KeyFileError> {
        let fault = |source| KeyFileError::File { path: path.to_owned(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        random(&mut *key);
        let text = Zeroizing::new(crate::canonical::hex(&*key) + "\n");
        let mut mark = [0; 8];
        random(&mut mark);
        let temporary = path.with_extension(format!("{}.tmp", crate::canonical::hex(&mark)));
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&temporary);
        let written = file
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            // Unlike a rename, a link never takes the place of a file.
            .and_then(|()| fs::hard_link(&temporary, path));
        // Without it the key would be lying about; that it was never made is no fault.
        let _ = fs::remove_file(&temporary);
        written.map_err(fault)?;
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(fault)?;
        Ok(SealingKey::new(&key))
    }

    /// Seals a secret for `owner`; it opens only for the same.
    pub fn seal(&self, owner: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut text = Zeroizing::new(secret.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut text)
            .expect("a secret is far shorter than what AES-GCM can seal");
        [&[VERSION], &self.name[..], &nonce, &text, tag.as_ref()].concat()
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(&self, owner: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (head, text) = sealed.split_at_checked(HEAD_BYTES).ok_or(SealError::Malformed)?;
        if head[0] != VERSION {
            return Err(SealError::Malformed);
        }
        if head[1..=NAME_BYTES] != self.name {
            return Err(SealError::OtherKey);
        }
        let nonce =
            Nonce::try_assume_unique_for_key(&head[1 + NAME_BYTES..]).expect("the head is as long as it is");
        let mut text = Zeroizing::new(text.to_vec());
        let opened =
            self.key.open_in_place(nonce, Aad::from(owner), &mut text).map_err(|_| SealError::Forged)?.len();
        text.truncate(opened);
        Ok(text)
    }
}

/// Fills `bytes` from the kernel's random source.
pub(crate) fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random source works on every supported kernel");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_owner_only() {
        let (key, other) = (SealingKey::new(&[1; 32]), SealingKey::new(&[2; 32]));
        let sealed = key.seal("ann", b"secret");
        assert_eq!(key.open("ann", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key.open("bob", &sealed), Err(SealError::Forged));
        assert_eq!(other.open("ann", &sealed), Err(SealError::OtherKey));
        assert_ne!(key.seal("ann", b"secret"), sealed, "a nonce is used once");
    }

    #[test]
    fn a_sealed_text_that_was_changed_anywhere_does_not_open() {
        let key = SealingKey::new(&[1; 32]);
        let sealed = key.seal("ann", b"secret");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("ann", &changed).is_err(), "byte {at}");
            assert!(key.open("ann", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_read_by_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.key");
        let sealed = SealingKey::create(&path).unwrap().seal("ann", b"secret");
        assert_eq!(SealingKey::read(&path).unwrap().open("ann", &sealed).unwrap().as_slice(), b"secret");
        assert!(SealingKey::create(&path).unwrap_err().to_string().contains("File exists"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SealingKey::read(&path).unwrap_err().to_string().contains("mode 640"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short\n").unwrap();
        assert!(SealingKey::read(&path).unwrap_err().to_string().contains("64 lower-case"));
        let missing = SealingKey::read(&directory.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none: No such file"), "{missing}");
    }
}
