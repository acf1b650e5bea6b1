//! One operation on one partition: find the way, ask, and do what [`Call`] decides about the outcome.

use crate::catalogue::View;
use crate::client::Inner;
use crate::connection::LaneChoice;
use crate::encoded::Consistency;
use crate::error::Error;
use crate::limits::CONNECT_PATIENCE;
use crate::links::Link;
use crate::pending::lock;
use bytes::Bytes;
use evenkeel_caller::{Call, Decision, Effect, Outcome, Place, Replicas, TableRoutes};
use evenkeel_model::catalogue::TableRow;
use evenkeel_model::{NodeId, ShardId};
use evenkeel_wire::message::{ArchivedRedirect, Redirect};
use evenkeel_wire::{DecodeError, Frame, Kind, Refusal, RefusalCode, decode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A request to the shard that a view of the catalogue names.
pub(crate) trait Request {
    /// What the request takes from its route.
    type Route: Send;
    /// What its answer is read into.
    type Answer;
    /// Whether it may change something.
    const EFFECT: Effect;
    /// Which lane it takes.
    const LANE: LaneChoice;

    /// Whether any replica may answer it, from what it has.
    fn is_eventual(&self) -> bool {
        false
    }
    /// Where it goes.
    fn route<'a>(&self, view: &'a View) -> Result<(&'a Replicas, Self::Route), NoRoute>;
    /// The whole frame.
    fn encode(&self, route: &Self::Route, request_id: u64, timeout_us: u64) -> Bytes;
    /// The answer in a frame that is no refusal.
    fn read(&self, route: &Self::Route, frame: &Frame) -> Result<Self::Answer, DecodeError>;
}

/// Why a view has no route for a request.
pub(crate) enum NoRoute {
    /// The table is not in it.
    Table(String),
    /// The table cannot be used.
    NotReady(String),
    /// The catalogue was never found.
    NoCatalogue,
}

impl From<NoRoute> for Error {
    fn from(reason: NoRoute) -> Error {
        match reason {
            NoRoute::Table(table) => Error::TableNotFound { table },
            NoRoute::NotReady(message) => Error::TableInUse { message },
            NoRoute::NoCatalogue => {
                Error::Unavailable { message: "the catalogue was never found".to_owned() }
            }
        }
    }
}

/// The routes of a table, which is found by its identity: a table made again is another one.
pub(crate) fn routes<'a>(view: &'a View, table: &TableRow) -> Result<&'a TableRoutes, NoRoute> {
    view.map.table_by_id(table.id).ok_or_else(|| NoRoute::Table(table.name.clone()))
}

/// Why a table's routes cannot be used, as a reason not to send.
pub(crate) fn not_ready(table: &TableRow, fault: &evenkeel_caller::TableFault) -> NoRoute {
    NoRoute::NotReady(format!("table {}: {fault}", table.name))
}

/// Code and text of a refusal, if the frame is one.
pub(crate) fn refusal(frame: &Frame) -> Option<(Option<RefusalCode>, String)> {
    if frame.header.kind != Kind::Refusal as u16 {
        return None;
    }
    Some(match decode::<Refusal>(frame) {
        Ok(refusal) => (RefusalCode::from_number(refusal.code.into()), refusal.message.as_str().to_owned()),
        Err(error) => (None, error.to_string()),
    })
}

/// A number for jitter; not a secret.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// How an attempt failed.
struct Failure {
    outcome: Outcome,
    code: Option<RefusalCode>,
    message: String,
    /// Who was said to lead.
    leader: Option<Place>,
}

impl Failure {
    fn new(outcome: Outcome, code: Option<RefusalCode>, message: String) -> Failure {
        Failure { outcome, code, message, leader: None }
    }
}

/// Which replica the next attempt of a call goes to.
#[derive(Default)]
struct Aim {
    /// Who was said to lead.
    told: Option<Place>,
    /// Who did not answer, or sent the call on.
    left: Option<Place>,
}

/// The member that a redirect says leads.
pub(crate) fn leader(redirect: &ArchivedRedirect) -> Option<(NodeId, ShardId)> {
    let leader = redirect.leader.as_ref().map(|&leader| u32::from(leader))?;
    let seat = redirect.members.seats.iter().find(|seat| u32::from(seat.member) == leader)?;
    Some(((&seat.node).into(), (&seat.shard).into()))
}

impl Inner {
    /// When an operation that begins now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.timeout
    }

    /// The consistency of a read that is asked for: without a zone no replica is nearer than the leader.
    pub(crate) fn offered(&self, asked: Consistency) -> Consistency {
        if self.config.zone.is_some() { asked } else { Consistency::Strong }
    }

    /// Carries out a request, with retries, until the deadline.
    pub(crate) async fn call<Q: Request>(&self, request: &Q, deadline: Instant) -> Result<Q::Answer, Error> {
        self.counters.requests.add(1);
        let result = self.call_until_settled(request, deadline).await;
        if let Err(error) = &result {
            self.counters.failed(error);
        }
        result
    }

    async fn call_until_settled<Q: Request>(
        &self,
        request: &Q,
        deadline: Instant,
    ) -> Result<Q::Answer, Error> {
        let mut call = Call::new(self.config.retry, Q::EFFECT, self.microseconds(deadline));
        let mut aim = Aim::default();
        loop {
            let (link, route) = match self.find(request, &aim) {
                Ok(found) => found,
                Err(_) => {
                    self.refresh_until(deadline).await?;
                    self.find(request, &aim)?
                }
            };
            let failure = match self.attempt(request, &link, &route, deadline).await {
                Ok(frame) => {
                    if aim.told.is_some() || aim.left.is_some() {
                        self.prefer(request, link.place());
                    }
                    return read(request, &route, &frame);
                }
                Err(failure) => failure,
            };
            if self.closed.load(Ordering::Relaxed)
                && matches!(failure.outcome, Outcome::ConnectionLost { sent: false })
            {
                return Err(Error::Closed);
            }
            let outcome = self.take_aim(request, &mut aim, &link, &failure);
            match self.decide(&mut call, outcome) {
                Decision::GiveUp(reason) => {
                    return Err(Error::gave_up(reason, failure.code, failure.message));
                }
                Decision::Retry { after_us, refresh_route } => {
                    self.counters.retries.add(1);
                    if after_us > 0 {
                        sleep(Duration::from_micros(after_us)).await;
                    }
                    if refresh_route {
                        // If this fails, the old route is tried again, and refused again.
                        let _ = self.refresh_until(deadline).await;
                    }
                }
            }
        }
    }

    /// Aims the next attempt at another replica, if the failure is one of the replica that was asked.
    fn take_aim<Q: Request>(&self, request: &Q, aim: &mut Aim, link: &Link, failure: &Failure) -> Outcome {
        let asked = link.place();
        match failure.outcome {
            Outcome::Redirect { .. } => {
                let leader = failure.leader.clone();
                let leader = leader.filter(|told| told != asked && !self.links.link(told).is_suspected());
                if let Some(leader) = &leader
                    && !self.prefer(request, leader)
                {
                    // The members have changed since the catalogue was read.
                    self.follower.want();
                }
                *aim = Aim { told: leader, left: Some(asked.clone()) };
                Outcome::Redirect { known: aim.told.is_some() }
            }
            Outcome::ConnectionLost { .. } => {
                link.suspect();
                *aim = Aim { told: None, left: Some(asked.clone()) };
                failure.outcome
            }
            // One that is not there, or not yet, may be the only one that is missing.
            Outcome::Refusal(RefusalCode::Failed | RefusalCode::Damaged | RefusalCode::WrongPartition) => {
                *aim = Aim { told: None, left: Some(asked.clone()) };
                failure.outcome
            }
            outcome => outcome,
        }
    }

    /// Takes note of who leads; returns whether it is one of the replicas known.
    fn prefer<Q: Request>(&self, request: &Q, leader: &Place) -> bool {
        let view = self.follower.view();
        let Ok((replicas, _)) = request.route(&view) else { return false };
        replicas.prefer(leader);
        replicas.places().contains(leader)
    }

    fn find<Q: Request>(&self, request: &Q, aim: &Aim) -> Result<(Arc<Link>, Q::Route), NoRoute> {
        let view = self.follower.view();
        let (replicas, route) = request.route(&view)?;
        let usable = |place: &Place| !self.links.link(place).is_suspected();
        let near = || match &self.config.zone {
            Some(zone) if request.is_eventual() && aim.left.is_none() => replicas.near(zone, usable),
            _ => None,
        };
        let place = match &aim.told {
            Some(told) => told,
            None => near().unwrap_or_else(|| replicas.pick(aim.left.as_ref(), usable)),
        };
        Ok((self.links.link(place), route))
    }

    async fn attempt<Q: Request>(
        &self,
        request: &Q,
        link: &Arc<Link>,
        route: &Q::Route,
        deadline: Instant,
    ) -> Result<Frame, Failure> {
        let mut sent = false;
        let asking = async {
            let connection = timeout(CONNECT_PATIENCE, link.connection()).await;
            let connection = connection
                .map_err(|_| Arc::from(format!("no connection within {CONNECT_PATIENCE:?}")))?
                .map_err(|failure| failure.0)?;
            let encode = |request_id| request.encode(route, request_id, microseconds_until(deadline));
            connection.request(Q::LANE, encode, &mut sent).await.map_err(|lost| lost.0)
        };
        let answer = timeout_at(deadline, asking).await;
        match answer {
            Ok(Ok(frame)) if frame.header.kind == Kind::Redirect as u16 => Err(self.redirected(&frame)),
            Ok(Ok(frame)) => match refusal(&frame) {
                None => Ok(frame),
                Some((code, message)) => {
                    let outcome = code.map_or(Outcome::UnknownRefusal, Outcome::Refusal);
                    Err(Failure::new(outcome, code, message))
                }
            },
            Ok(Err(reason)) => Err(Failure::new(Outcome::ConnectionLost { sent }, None, reason.to_string())),
            Err(_) => {
                let message = format!("no answer within {:?}", self.config.timeout);
                Err(Failure::new(Outcome::Timeout { sent }, None, message))
            }
        }
    }

    fn redirected(&self, frame: &Frame) -> Failure {
        match decode::<Redirect>(frame) {
            Ok(redirect) => {
                let view = self.follower.view();
                let at = |(node, shard)| Place::find(view.nodes(), node, shard);
                let leader = leader(redirect).and_then(at);
                let message = "the partition has no leader at the moment".to_owned();
                Failure { leader, ..Failure::new(Outcome::Redirect { known: false }, None, message) }
            }
            Err(error) => Failure::new(Outcome::UnknownRefusal, None, error.to_string()),
        }
    }

    fn decide(&self, call: &mut Call, outcome: Outcome) -> Decision {
        let requests_total = self.counters.requests.get();
        let now_us = self.microseconds(Instant::now());
        call.handle_outcome(outcome, &mut lock(&self.budget), requests_total, now_us, random())
    }

    /// Waits for a newer view of the catalogue, but not beyond the deadline.
    pub(crate) async fn refresh_until(&self, deadline: Instant) -> Result<(), Error> {
        let late = |_| Error::Expired { message: "the catalogue was not read in time".to_owned() };
        timeout_at(deadline, self.follower.refresh()).await.map_err(late)?
    }

    /// Microseconds from the client's start to an instant.
    fn microseconds(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Time left, at least 1: 0 means that none was given.
fn microseconds_until(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// An answer that cannot be read leaves open whether a write happened.
fn read<Q: Request>(request: &Q, route: &Q::Route, frame: &Frame) -> Result<Q::Answer, Error> {
    request.read(route, frame).map_err(|error| match Q::EFFECT {
        Effect::Read => Error::internal(error),
        Effect::Write | Effect::RepeatableWrite => Error::OutcomeUnknown { message: error.to_string() },
    })
}
