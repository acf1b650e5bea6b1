//! Users of the API: made and changed by the control plane, followed by whoever verifies requests.
//!
//! Secrets pass through here sealed; this crate has no means to open them.

use crate::client::Client;
use crate::encoded::{Consistency, RangeRequest};
use crate::error::Error;
use crate::tables::control_requests;
use evenkeel_model::ItemView;
use evenkeel_model::catalogue::{UserRow, users_prefix};
use evenkeel_model::key::successor;
use evenkeel_wire::decode;
use evenkeel_wire::message::{self, Done};
use std::collections::HashMap;
use std::sync::Arc;

pub use evenkeel_wire::message::{NewAccessKey, UserAction};

/// An access key as the catalogue has it, with its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Whose it is.
    pub user: Arc<str>,
    /// Its secret, sealed.
    pub sealed_secret: Vec<u8>,
}

/// All users at one moment.
#[derive(Default)]
pub(crate) struct Users {
    by_key: HashMap<String, Arc<KnownKey>>,
    names: std::collections::HashSet<Arc<str>>,
}

impl Users {
    pub(crate) fn new(rows: Vec<UserRow>) -> Users {
        let mut users = Users::default();
        for row in rows {
            let user: Arc<str> = Arc::from(row.name);
            for key in row.keys {
                let known = KnownKey { user: user.clone(), sealed_secret: key.sealed_secret };
                users.by_key.insert(key.id, Arc::new(known));
            }
            users.names.insert(user);
        }
        users
    }
}

impl Client {
    /// Makes, changes or deletes a user. Routers know of it a moment later.
    ///
    /// # Errors
    /// [`Error::UserExists`], [`Error::UserNotFound`], [`Error::Invalid`], and the others of writes.
    pub async fn change_user(&self, name: &str, action: UserAction) -> Result<(), Error> {
        let request = message::ChangeUser { name: name.to_owned(), action };
        self.inner().call(&request, self.inner().deadline()).await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// Those of reads.
    pub async fn users(&self) -> Result<Vec<UserRow>, Error> {
        let prefix = users_prefix();
        let mut rest = RangeRequest {
            upper: successor(&prefix),
            lower: prefix,
            consistency: Consistency::Strong,
            reverse: false,
            items_max: u32::MAX,
            bytes_max: u32::MAX,
            filter: None,
        };
        let mut users = Vec::new();
        loop {
            let page = self.range_encoded(&self.inner().catalogue_table, &rest).await?;
            for (_, item) in page.rows() {
                let view = ItemView::parse(item).map_err(Error::internal)?;
                users.push(UserRow::from_attributes(&view.to_attributes()).map_err(Error::internal)?);
            }
            match page.last_key().filter(|_| page.more) {
                Some(last) => rest.lower = [last, &[0]].concat(),
                None => return Ok(users),
            }
        }
    }

    /// The access key of this id, if the client follows users (see
    /// [`ClientConfig::follow_users`](crate::ClientConfig::follow_users)). If it is not known, the
    /// catalogue is read once more, together with all others who miss something.
    ///
    /// # Errors
    /// Failures to read the catalogue.
    pub async fn access_key(&self, id: &str) -> Result<Option<Arc<KnownKey>>, Error> {
        if let Some(known) = self.known_access_key(id) {
            return Ok(Some(known));
        }
        self.inner().refresh_until(self.inner().deadline()).await?;
        Ok(self.known_access_key(id))
    }

    /// Whether there is a user of this name; one that is not known is looked for as in
    /// [`access_key`](Client::access_key).
    ///
    /// # Errors
    /// Failures to read the catalogue.
    pub async fn is_user(&self, name: &str) -> Result<bool, Error> {
        let known = || self.inner().follower.view().users.names.contains(name);
        if known() {
            return Ok(true);
        }
        self.inner().refresh_until(self.inner().deadline()).await?;
        Ok(known())
    }

    fn known_access_key(&self, id: &str) -> Option<Arc<KnownKey>> {
        self.inner().follower.view().users.by_key.get(id).cloned()
    }
}

control_requests!(message::ChangeUser => (), |frame| decode::<Done>(frame).map(drop););
