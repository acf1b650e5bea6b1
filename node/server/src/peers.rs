//! Calls from this shard to others, over connections that are made when first needed and made again
//! when lost. A call is one frame there and one back, matched by request id.

use crate::limits::PEER_CALL_TIMEOUT;
use crate::nodes::{Nodes, read_address};
use evenkeel_driver::Core;
use evenkeel_model::{ClusterId, NodeId};
use evenkeel_partition::Place;
use evenkeel_quic::{CloseCode, ConnectionId, Endpoint, Lane, node_name};
use evenkeel_storage::Runtime;
use evenkeel_wire::message::{ArchivedWelcome, Hello, Welcome};
use evenkeel_wire::refusal::Refusal;
use evenkeel_wire::{Frame, Kind, Message, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, decode, encode, frame};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::sync::oneshot;

/// Why a call to another shard was not answered as hoped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody has said where the shard is.
    #[error("{place} is not known to be part of the cluster")]
    Unknown {
        /// The shard.
        place: Place,
    },
    /// The connection could not be made, or was lost before the answer.
    #[error("{place} cannot be reached: {reason}")]
    Unreachable {
        /// The shard.
        place: Place,
        /// What happened.
        reason: String,
    },
    /// The shard answered with a refusal.
    #[error("{place} refused: {message}")]
    Refused {
        /// The shard.
        place: Place,
        /// What it said.
        message: String,
    },
}

/// The connections of one shard to others, and who waits for an answer on any connection it has opened.
pub struct Peers {
    core: Core,
    endpoint: Endpoint,
    cluster: ClusterId,
    incarnation: u64,
    nodes: Rc<Nodes>,
    links: RefCell<HashMap<Place, Lane>>,
    waiting: RefCell<HashMap<u64, (ConnectionId, oneshot::Sender<Frame>)>>,
    next_request: Cell<u64>,
}

impl Peers {
    /// Connections over this endpoint, none made yet.
    pub fn new(
        core: Core,
        endpoint: Endpoint,
        cluster: ClusterId,
        incarnation: u64,
        nodes: Rc<Nodes>,
    ) -> Peers {
        Peers {
            core,
            endpoint,
            cluster,
            incarnation,
            nodes,
            links: RefCell::default(),
            waiting: RefCell::default(),
            next_request: Cell::new(1),
        }
    }

    /// Sends a request to a shard and waits for the answer, whatever it says.
    ///
    /// # Errors
    /// [`CallError::Unknown`] and [`CallError::Unreachable`].
    pub async fn ask<M: Message>(&self, place: Place, message: &M) -> Result<Frame, CallError> {
        let lane = self.lane(place).await?;
        self.exchange(&lane, message).await.map_err(|reason| {
            self.links.borrow_mut().remove(&place);
            CallError::Unreachable { place, reason }
        })
    }

    /// Sends a request to a shard and waits for an answer of the wanted kind.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<M: Message>(
        &self,
        place: Place,
        message: &M,
        wanted: Kind,
    ) -> Result<Frame, CallError> {
        let frame = self.ask(place, message).await?;
        if frame.header.kind == wanted as u16 {
            return Ok(frame);
        }
        Err(CallError::Refused { place, message: refusal_text(&frame) })
    }

    /// Takes an answer that arrived on a connection this shard opened.
    pub fn answered(&self, connection: ConnectionId, frame: Frame) {
        let mut waiting = self.waiting.borrow_mut();
        let request_id = frame.header.request_id;
        if waiting.get(&request_id).is_some_and(|(asked, _)| *asked == connection)
            && let Some((_, waiting)) = waiting.remove(&request_id)
        {
            // Whoever waited may have given up in the meantime.
            let _ = waiting.send(frame);
        }
    }

    /// Takes note that a connection is gone; who waits on it is told.
    pub fn closed(&self, connection: ConnectionId) {
        self.links.borrow_mut().retain(|_, lane| lane.id().connection != connection);
        self.waiting.borrow_mut().retain(|_, (asked, _)| *asked != connection);
    }

    async fn lane(&self, place: Place) -> Result<Lane, CallError> {
        if let Some(lane) = self.links.borrow().get(&place) {
            return Ok(lane.clone());
        }
        let lane = self.open_in_time(place).await?;
        self.links.borrow_mut().insert(place, lane.clone());
        Ok(lane)
    }

    /// A handshake by itself is given up much later.
    async fn open_in_time(&self, place: Place) -> Result<Lane, CallError> {
        let mut opening = pin!(self.open(place));
        let mut timeout = pin!(self.core.sleep(PEER_CALL_TIMEOUT));
        poll_fn(|context| {
            if let Poll::Ready(opened) = opening.as_mut().poll(context) {
                return Poll::Ready(opened);
            }
            let reason = || format!("no connection within {PEER_CALL_TIMEOUT:?}");
            timeout.as_mut().poll(context).map(|()| Err(CallError::Unreachable { place, reason: reason() }))
        })
        .await
    }

    /// Opens a connection of its own to a shard, greets it, and yields its first lane.
    ///
    /// # Errors
    /// [`CallError::Unknown`] and [`CallError::Unreachable`].
    pub async fn open(&self, place: Place) -> Result<Lane, CallError> {
        let address = self.nodes.address(place).ok_or(CallError::Unknown { place })?;
        let unreachable = |reason: String| CallError::Unreachable { place, reason };
        let connection = self.endpoint.connect(address, &node_name(place.node)).await;
        let connection = connection.map_err(|error| unreachable(error.to_string()))?;
        let lane = connection.open_lane().map_err(|error| unreachable(error.to_string()))?;
        match self.greet(&lane, place).await {
            Ok(()) => Ok(lane),
            Err(reason) => {
                connection.close(CloseCode::Unwanted, &reason);
                Err(unreachable(reason))
            }
        }
    }

    /// Says who this is, and takes note of what the other side says of the cluster.
    async fn greet(&self, lane: &Lane, place: Place) -> Result<(), String> {
        let hello = Hello {
            cluster: Some(self.cluster),
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            incarnation: self.incarnation,
        };
        let frame = self.exchange(lane, &hello).await?;
        if frame.header.kind == Kind::Refusal as u16 {
            return Err(refusal_text(&frame));
        }
        let welcome: &ArchivedWelcome = decode::<Welcome>(&frame).map_err(|error| error.to_string())?;
        let found = Place { node: (&welcome.node).into(), shard: (&welcome.shard).into() };
        let version = u16::from(welcome.version);
        if !frame::versions().contains(&version) {
            return Err(format!("it settled on protocol version {version}, which was not offered"));
        }
        if found != place {
            return Err(format!("{found} answers at its address"));
        }
        welcome.nodes.iter().for_each(|node| self.nodes.hear_of(read_address(node)));
        for holder in welcome.catalogue.iter() {
            let holder = Place { node: (&holder.node).into(), shard: (&holder.shard).into() };
            self.nodes.hear_of_holder(holder);
        }
        Ok(())
    }

    /// Asks those who hold the catalogue where a node is; what they say is known when they have answered.
    pub fn look_for(self: &Rc<Self>, node: NodeId) {
        tracing::debug!(%node, "looked for");
        let own = self.endpoint.local_addr();
        for holder in self.nodes.holders() {
            if self.nodes.address(holder).is_none_or(|address| address == own) {
                continue;
            }
            let peers = Rc::clone(self);
            self.core.runtime().spawn(async move {
                // One that does not answer says nothing; there are others.
                if let Ok(lane) = peers.lane(holder).await {
                    let _ = peers.greet(&lane, holder).await;
                }
            });
        }
    }

    /// Sends a request on a lane that this shard has opened, and waits for the answer.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub async fn exchange<M: Message>(&self, lane: &Lane, message: &M) -> Result<Frame, String> {
        let request_id = self.next_request.replace(self.next_request.get() + 1);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(request_id, (lane.id().connection, sender));
        let timeout_us = PEER_CALL_TIMEOUT.as_micros() as u64;
        let sent = lane.send(encode(message, request_id, timeout_us));
        let answer = match sent {
            Ok(()) => self.within_timeout(receiver).await,
            Err(error) => Err(error.to_string()),
        };
        self.waiting.borrow_mut().remove(&request_id);
        answer
    }

    async fn within_timeout(&self, receiver: oneshot::Receiver<Frame>) -> Result<Frame, String> {
        let mut receiver = pin!(receiver);
        let mut timeout = pin!(self.core.sleep(PEER_CALL_TIMEOUT));
        poll_fn(|context| {
            if let Poll::Ready(answer) = receiver.as_mut().poll(context) {
                return Poll::Ready(answer.map_err(|_| "the connection was lost".to_owned()));
            }
            timeout.as_mut().poll(context).map(|()| Err(format!("no answer within {PEER_CALL_TIMEOUT:?}")))
        })
        .await
    }
}

/// What a frame that is not the answer hoped for says.
pub fn refusal_text(frame: &Frame) -> String {
    match decode::<Refusal>(frame) {
        Ok(refusal) => refusal.message.to_string(),
        Err(error) => error.to_string(),
    }
}
