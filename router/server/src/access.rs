//! Who may ask: holds each request's signature against the access keys of the catalogue.
//!
//! A router has the sealed secrets and the key file's key; what it keeps between requests are keys for a
//! day. A secret is opened only to derive one, and forgotten.

use crate::beside::sized;
use crate::config::AuthenticationMode;
use bytes::Bytes;
use evenkeel_authentication::access_key::open_secret;
use evenkeel_authentication::{AuthenticationError, BodyHash, DayKeys, SealingKey, Session, SignedRequest};
use evenkeel_client::Client;
use evenkeel_dynamodb::{ApiError, ErrorKind};
use hyper::http::request::Parts;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What came of a request's signature, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is that of a user.
    Verified,
    /// There is none.
    Missing,
    /// It is there, and wrong.
    Wrong,
    /// It could not be checked.
    Unchecked,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 4] = [Verdict::Verified, Verdict::Missing, Verdict::Wrong, Verdict::Unchecked];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::Missing => "missing",
            Verdict::Wrong => "wrong",
            Verdict::Unchecked => "unchecked",
        }
    }
}

/// Checks the requests of one worker.
pub struct Access {
    mode: AuthenticationMode,
    key: Option<Arc<SealingKey>>,
    days: RefCell<DayKeys>,
    verdicts: [Cell<u64>; Verdict::ALL.len()],
}

/// Why a request is refused.
enum Refused {
    Signature(AuthenticationError),
    /// The catalogue or a secret could not be read.
    Unavailable(String),
}

impl From<AuthenticationError> for Refused {
    fn from(error: AuthenticationError) -> Refused {
        Refused::Signature(error)
    }
}

impl Access {
    /// Checks in this mode; `key` opens secrets, and is there unless the mode is off.
    pub fn new(mode: AuthenticationMode, key: Option<Arc<SealingKey>>) -> Access {
        Access { mode, key, days: RefCell::default(), verdicts: Default::default() }
    }

    /// How often each verdict was reached.
    pub fn verdicts(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().zip(self.verdicts.iter().map(Cell::get))
    }

    /// Lets a request pass, or not.
    ///
    /// # Errors
    /// What the client is told.
    pub async fn check(&self, client: &Client, parts: &Parts, body: &Bytes) -> Result<(), ApiError> {
        let Some(key) = self.key.as_ref().filter(|_| self.mode != AuthenticationMode::Off) else {
            return Ok(());
        };
        let result = self.verify(client, key, parts, body).await;
        let verdict = match &result {
            Ok(()) => Verdict::Verified,
            Err(Refused::Signature(AuthenticationError::Missing)) => Verdict::Missing,
            Err(Refused::Signature(_)) => Verdict::Wrong,
            Err(Refused::Unavailable(_)) => Verdict::Unchecked,
        };
        let count = &self.verdicts[verdict as usize];
        count.set(count.get() + 1);
        match result {
            Err(refused) if self.mode == AuthenticationMode::Enforce => Err(refused.into_api_error()),
            _ => Ok(()),
        }
    }

    async fn verify(
        &self,
        client: &Client,
        key: &SealingKey,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<(), Refused> {
        let signed = SignedRequest::read(parts)?;
        let now_s = now_s();
        signed.check(now_s)?;
        let id = signed.access_key_id();
        let owner = match signed.session_token() {
            Some(token) => Owner::Session(open_session(client, key, id, token, now_s).await?),
            None => match client.access_key(id).await {
                Ok(Some(known)) => Owner::User(known),
                Ok(None) => return Err(AuthenticationError::Unrecognized.into()),
                Err(error) => return Err(Refused::Unavailable(error.to_string())),
            },
        };
        let secret = || match &owner {
            Owner::Session(session) => Ok(session.key.secret.clone()),
            Owner::User(known) => open_secret(key, &known.user, id, &known.sealed_secret)
                .map_err(|error| Refused::Unavailable(format!("the secret of {id}: {error}"))),
        };
        let hashed = body.clone();
        let hash = sized(body.len(), move || BodyHash::of(&hashed)).await;
        let mut days = self.days.borrow_mut();
        let day = days.get(id, signed.date(), signed.region(), secret)?;
        Ok(signed.verify(day, &hash)?)
    }
}

/// Whose secret a request is signed with.
enum Owner {
    User(Arc<evenkeel_client::KnownKey>),
    Session(Session),
}

async fn open_session(
    client: &Client,
    key: &SealingKey,
    id: &str,
    token: &str,
    now_s: i64,
) -> Result<Session, Refused> {
    let session = Session::open(key, token).map_err(|_| AuthenticationError::Unrecognized)?;
    if session.key.id != id {
        return Err(AuthenticationError::Unrecognized.into());
    }
    if session.ends_s <= now_s {
        return Err(AuthenticationError::Expired.into());
    }
    match client.is_user(&session.user).await {
        Ok(true) => Ok(session),
        Ok(false) => Err(AuthenticationError::Unrecognized.into()),
        Err(error) => Err(Refused::Unavailable(error.to_string())),
    }
}

fn now_s() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

impl Refused {
    fn into_api_error(self) -> ApiError {
        match self {
            Refused::Signature(error) => {
                ApiError::new(ErrorKind::Authentication(error.type_name()), error.to_string())
            }
            Refused::Unavailable(reason) => {
                let text = format!("the signature cannot be verified: {reason}");
                ApiError::new(ErrorKind::ServiceUnavailable, text)
            }
        }
    }
}
