//! Calls from this shard to others, over connections that are made when first needed and made again
//! when lost. A call is one frame there and one back, matched by request id.

use crate::limits::PEER_CALL_TIMEOUT;
use evenkeel_driver::Core;
use evenkeel_model::{ClusterId, NodeId, ShardId};
use evenkeel_quic::{ConnectionId, Endpoint, Lane, SERVER_NAME};
use evenkeel_wire::message::{ArchivedWelcome, Hello, NodeAddress, Welcome};
use evenkeel_wire::refusal::Refusal;
use evenkeel_wire::{Frame, Kind, Message, PROTOCOL_VERSION, decode, encode};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::sync::oneshot;

/// Why a call to another shard was not answered as hoped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The shard is not one of the cluster.
    #[error("shard {shard} of node {node} is not part of the cluster's configuration")]
    Unknown {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
    },
    /// The connection could not be made, or was lost before the answer.
    #[error("shard {shard} of node {node} cannot be reached: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// What happened.
        reason: String,
    },
    /// The shard answered with a refusal.
    #[error("shard {shard} of node {node} refused: {message}")]
    Refused {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// What it said.
        message: String,
    },
}

/// The connections of one shard to others.
pub struct Peers {
    core: Core,
    endpoint: Endpoint,
    cluster: ClusterId,
    incarnation: u64,
    nodes: Vec<NodeAddress>,
    links: RefCell<HashMap<(NodeId, ShardId), Rc<Link>>>,
    next_request: Cell<u64>,
}

struct Link {
    connection: ConnectionId,
    lane: Lane,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Frame>>>,
}

impl Peers {
    /// Connections over this endpoint, none made yet.
    pub fn new(
        core: Core,
        endpoint: Endpoint,
        cluster: ClusterId,
        incarnation: u64,
        nodes: Vec<NodeAddress>,
    ) -> Peers {
        Peers {
            core,
            endpoint,
            cluster,
            incarnation,
            nodes,
            links: RefCell::default(),
            next_request: Cell::new(1),
        }
    }

    /// Sends a request to a shard and waits for an answer of the wanted kind.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<M: Message>(
        &self,
        node: NodeId,
        shard: ShardId,
        message: &M,
        wanted: Kind,
    ) -> Result<Frame, CallError> {
        let link = self.link(node, shard).await?;
        let frame = self.exchange(&link, message).await.map_err(|reason| {
            self.links.borrow_mut().remove(&(node, shard));
            CallError::Unreachable { node, shard, reason }
        })?;
        if frame.header.kind == wanted as u16 {
            return Ok(frame);
        }
        let message = match decode::<Refusal>(&frame) {
            Ok(refusal) => refusal.message.to_string(),
            Err(error) => error.to_string(),
        };
        Err(CallError::Refused { node, shard, message })
    }

    /// Takes an answer that arrived on a connection this shard opened.
    pub fn answered(&self, connection: ConnectionId, frame: Frame) {
        let links = self.links.borrow();
        let link = links.values().find(|link| link.connection == connection);
        let waiting = link.and_then(|link| link.waiting.borrow_mut().remove(&frame.header.request_id));
        if let Some(waiting) = waiting {
            // Whoever waited may have given up in the meantime.
            let _ = waiting.send(frame);
        }
    }

    /// Takes note that a connection is gone; who waits on it is told.
    pub fn closed(&self, connection: ConnectionId) {
        self.links.borrow_mut().retain(|_, link| {
            let keep = link.connection != connection;
            if !keep {
                link.waiting.borrow_mut().clear();
            }
            keep
        });
    }

    async fn link(&self, node: NodeId, shard: ShardId) -> Result<Rc<Link>, CallError> {
        if let Some(link) = self.links.borrow().get(&(node, shard)) {
            return Ok(link.clone());
        }
        let address = self.address(node, shard).ok_or(CallError::Unknown { node, shard })?;
        let unreachable = |reason: String| CallError::Unreachable { node, shard, reason };
        let connection = self.endpoint.connect(address, SERVER_NAME).await;
        let connection = connection.map_err(|error| unreachable(error.to_string()))?;
        let lane = connection.open_lane().map_err(|error| unreachable(error.to_string()))?;
        let link = Rc::new(Link { connection: connection.id(), lane, waiting: RefCell::default() });
        self.links.borrow_mut().insert((node, shard), link.clone());
        self.greet(&link, node, shard).await.map_err(|reason| {
            self.links.borrow_mut().remove(&(node, shard));
            unreachable(reason)
        })?;
        Ok(link)
    }

    async fn greet(&self, link: &Link, node: NodeId, shard: ShardId) -> Result<(), String> {
        let hello = Hello {
            cluster: Some(self.cluster),
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            incarnation: self.incarnation,
        };
        let frame = self.exchange(link, &hello).await?;
        let welcome: &ArchivedWelcome = decode::<Welcome>(&frame).map_err(|error| error.to_string())?;
        let found = (NodeId::from(&welcome.node), ShardId::from(&welcome.shard));
        if found != (node, shard) {
            return Err(format!("shard {} of node {} answers at its address", found.1, found.0));
        }
        Ok(())
    }

    async fn exchange<M: Message>(&self, link: &Link, message: &M) -> Result<Frame, String> {
        let request_id = self.next_request.replace(self.next_request.get() + 1);
        let (sender, receiver) = oneshot::channel();
        link.waiting.borrow_mut().insert(request_id, sender);
        let timeout_us = PEER_CALL_TIMEOUT.as_micros() as u64;
        let sent = link.lane.send(encode(message, request_id, timeout_us));
        let answer = match sent {
            Ok(()) => self.within_timeout(receiver).await,
            Err(error) => Err(error.to_string()),
        };
        link.waiting.borrow_mut().remove(&request_id);
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

    fn address(&self, node: NodeId, shard: ShardId) -> Option<SocketAddr> {
        let node = self.nodes.iter().find(|candidate| candidate.id == node)?;
        let port = node.port_base.checked_add(shard.0).filter(|_| shard.0 < node.shards)?;
        Some(SocketAddr::new(node.host.parse().ok()?, port))
    }
}
