//! Users of the API and their access keys, whose secrets are sealed before they come here.

use super::{Reader, RowError, USER, integer, row_key, text};
use crate::key::{KeyValue, collection_prefix};
use crate::value::{Attribute, AttributeValue, Attributes, sorted_by_name};

/// Most access keys of a user: the one in use, and the one before it while clients change over.
pub const ACCESS_KEYS_MAX: usize = 2;
/// Most characters of a user's name.
pub const USER_NAME_BYTES_MAX: usize = 64;
/// Most bytes of a sealed secret.
pub const SEALED_SECRET_BYTES_MAX: usize = 512;
/// Most bytes of an access key's id.
pub const ACCESS_KEY_ID_BYTES_MAX: usize = 128;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Its name.
    pub name: String,
    /// Its access keys, the newest first.
    pub keys: Vec<AccessKeyRow>,
}

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeyRow {
    /// Names it in requests.
    pub id: String,
    /// Its secret, encrypted under a key that the cluster does not hold.
    pub sealed_secret: Vec<u8>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// Key of a user's row.
pub fn user_key(name: &str) -> Vec<u8> {
    row_key(USER, name)
}

/// What the keys of all users' rows begin with; they sort by name.
pub fn users_prefix() -> Vec<u8> {
    collection_prefix(&KeyValue::S(USER.to_owned()))
}

/// Whether a user may be called this: 1 to 64 of `a-z A-Z 0-9 + = , . @ _ -`, as in IAM.
pub fn is_user_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    (1..=USER_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

impl AccessKeyRow {
    fn to_value(&self) -> AttributeValue {
        let pairs = [
            ("id", text(&self.id)),
            ("sealed_secret", AttributeValue::B(self.sealed_secret.clone())),
            ("created_ms", integer(self.created_ms)),
        ];
        let entry = |(name, value): (&str, AttributeValue)| Attribute { name: name.to_owned(), value };
        AttributeValue::M(sorted_by_name(pairs.into_iter().map(entry).collect()))
    }

    fn from_value(value: &AttributeValue) -> Result<AccessKeyRow, RowError> {
        let AttributeValue::M(entries) = value else { return Err(RowError { attribute: "keys" }) };
        let entries = Attributes::new(entries.clone());
        let row = Reader(&entries);
        Ok(AccessKeyRow {
            id: row.text("id")?,
            sealed_secret: row.binary("sealed_secret")?,
            created_ms: row.integer("created_ms")?,
        })
    }
}

impl UserRow {
    /// The row as an item.
    pub fn to_attributes(&self) -> Attributes {
        let keys = self.keys.iter().map(AccessKeyRow::to_value).collect();
        [("pk", text(USER)), ("sk", text(&self.name)), ("keys", AttributeValue::L(keys))]
            .into_iter()
            .collect()
    }

    /// The row that an item holds.
    ///
    /// # Errors
    /// The first attribute that is absent or malformed.
    pub fn from_attributes(attributes: &Attributes) -> Result<UserRow, RowError> {
        let Some(AttributeValue::L(keys)) = attributes.get("keys") else {
            return Err(RowError { attribute: "keys" });
        };
        let name = Reader(attributes).text("sk")?;
        Ok(UserRow { name, keys: keys.iter().map(AccessKeyRow::from_value).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_comes_back_from_its_item() {
        let key = |id: &str| AccessKeyRow { id: id.into(), sealed_secret: vec![0, 255], created_ms: 7 };
        for keys in [vec![], vec![key("a")], vec![key("b"), key("a")]] {
            let row = UserRow { name: "ann@sea".into(), keys };
            assert_eq!(UserRow::from_attributes(&row.to_attributes()), Ok(row));
        }
        assert_eq!(UserRow::from_attributes(&Attributes::default()), Err(RowError { attribute: "keys" }));
    }

    #[test]
    fn names_are_those_of_iam() {
        assert!(is_user_name("ann") && is_user_name("+=,.@_-9Z") && is_user_name(&"a".repeat(64)));
        for wrong in ["", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(!is_user_name(wrong), "{wrong}");
        }
    }
}
