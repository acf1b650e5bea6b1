//! Users of the API: made, changed and deleted by the control plane, one at a time with all its changes.
//!
//! It keeps sealed secrets, and has no means to open them.

use crate::control::{Control, ControlError};
use evenkeel_model::catalogue::{
    ACCESS_KEY_ID_BYTES_MAX, ACCESS_KEYS_MAX, AccessKeyRow, SEALED_SECRET_BYTES_MAX, UserRow, is_user_name,
};
use evenkeel_wire::message::{ArchivedChangeUser, ArchivedNewAccessKey, ArchivedUserAction};

impl Control {
    /// Makes, changes or deletes a user; durable when it returns.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn change_user(&self, asked: &ArchivedChangeUser) -> Result<(), ControlError> {
        let name = asked.name.as_str();
        if !is_user_name(name) {
            let text = "a user's name has 1 to 64 of a-z, A-Z, 0-9, +, =, comma, ., @, _ and -";
            return Err(ControlError::Invalid(text.to_owned()));
        }
        let now_ms = self.now_ms();
        let turn = self.turn().await?;
        let present = self.catalogue().user(name).await?;
        match &asked.action {
            ArchivedUserAction::Create(key) => {
                if present.is_some() {
                    return Err(ControlError::UserExists(name.to_owned()));
                }
                let keys = vec![access_key(key, now_ms)?];
                self.catalogue().put_user(turn.reign, &UserRow { name: name.to_owned(), keys }).await
            }
            ArchivedUserAction::Rotate(key) => {
                let mut user = present.ok_or_else(|| ControlError::UserNotFound(name.to_owned()))?;
                user.keys.insert(0, access_key(key, now_ms)?);
                user.keys.truncate(ACCESS_KEYS_MAX);
                self.catalogue().put_user(turn.reign, &user).await
            }
            ArchivedUserAction::Replace(key) => {
                let mut user = present.ok_or_else(|| ControlError::UserNotFound(name.to_owned()))?;
                user.keys = vec![access_key(key, now_ms)?];
                self.catalogue().put_user(turn.reign, &user).await
            }
            ArchivedUserAction::Delete => match present {
                Some(_) => self.catalogue().delete_user(turn.reign, name).await,
                None => Err(ControlError::UserNotFound(name.to_owned())),
            },
        }
    }
}

fn access_key(asked: &ArchivedNewAccessKey, created_ms: u64) -> Result<AccessKeyRow, ControlError> {
    let id = asked.id.as_str();
    let is_id = (1..=ACCESS_KEY_ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_id {
        let text = format!("an access key's id has 1 to {ACCESS_KEY_ID_BYTES_MAX} letters and digits");
        return Err(ControlError::Invalid(text));
    }
    if asked.sealed_secret.len() > SEALED_SECRET_BYTES_MAX {
        let text = format!("a sealed secret has at most {SEALED_SECRET_BYTES_MAX} bytes");
        return Err(ControlError::Invalid(text));
    }
    Ok(AccessKeyRow { id: id.to_owned(), sealed_secret: asked.sealed_secret.to_vec(), created_ms })
}
