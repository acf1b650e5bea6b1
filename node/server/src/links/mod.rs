//! Links between the cores that share groups: one connection a pair, for all groups.
//!
//! - The core with the lesser place opens the connection, and opens it again with growing pauses for as long
//!   as somebody has something to say. The other one waits to be joined, but not for ever: it may have moved, and
//!   then only it can say where to. Where a node is that is not known yet, those who hold the catalogue know.
//! - Support goes in datagrams, so it waits behind nothing. What groups say goes on one lane; large messages
//!   are cut, and take turns (`chunks.rs`). Copies of content and old entries go on a second lane of lower
//!   priority.
//! - Nothing is kept for a link that is down, and what waits on one that is up is bounded: consensus sends
//!   again what matters.
//! - Whoever joins must show a node's certificate, and be the node that it says. Two that do not understand
//!   each other's log entries do not join.
//!
//! What messages mean, this does not know.

mod chunks;
mod codec;
#[cfg(test)]
mod codec_tests;
mod limits;
#[cfg(test)]
mod tests;

pub use codec::{membership, read_members};

use crate::nodes::{Nodes, read_address};
use crate::peers::{CallError, Peers, refusal_text};
use chunks::{Incoming, Outgoing};
use codec::{CodecError, decode_message, encode_group, encode_support};
use evenkeel_driver::Core;
use evenkeel_partition::{Body, CoreMessage, GroupMessage, Outbox, Place};
use evenkeel_paxos::Message;
use evenkeel_quic::{CloseCode, Connection, ConnectionId, Lane, Role};
use evenkeel_storage::{LOG_VERSION, Runtime};
use evenkeel_wire::message::peer::{Chunk, ChunksTaken, Join, Joined};
use evenkeel_wire::{Frame, Kind, Refusal, RefusalCode, decode, encode};
use limits::{
    BULK_PRIORITY, CONNECT_TIMEOUT, JOIN_PATIENCE, LANE_BYTES_MAX, RECONNECT_FIRST, RECONNECT_MAX,
    SILENCE_MAX,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

/// The links of one core.
pub struct Links {
    this: Weak<Links>,
    core: Core,
    own: Place,
    peers: Rc<Peers>,
    nodes: Rc<Nodes>,
    links: RefCell<HashMap<Place, Rc<Link>>>,
    joined: RefCell<HashMap<ConnectionId, Rc<Link>>>,
    closed: Cell<bool>,
    counts: LinkCounts,
}

/// What the links of a core have done since it started.
#[derive(Default)]
pub struct LinkCounts {
    /// Messages handed to a connection.
    pub sent: Cell<u64>,
    /// Messages taken in.
    pub received: Cell<u64>,
    /// Messages that were dropped because a link was down or full.
    pub dropped: Cell<u64>,
    /// Links made, by either side.
    pub made: Cell<u64>,
}

/// The way to another core.
struct Link {
    to: Place,
    up: RefCell<Option<Up>>,
    making: Cell<bool>,
    failures: Cell<u32>,
    try_at_ns: Cell<u64>,
    /// Since when somebody has had something to say and the link was down.
    wanted_since_ns: Cell<Option<u64>>,
    /// Why it could not be made, as it was logged last.
    reported: RefCell<String>,
}

/// A link that is up.
struct Up {
    connection: Connection,
    lane: Lane,
    bulk: Lane,
    outgoing: Outgoing,
    incoming: Incoming,
    heard_ns: u64,
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// Whether a message may wait behind all others.
fn is_bulk(body: &Body) -> bool {
    matches!(body, Body::Piece(_) | Body::Consensus { message: Message::Entries { .. }, .. })
}

impl Links {
    /// No links yet.
    pub fn new(core: Core, own: Place, peers: Rc<Peers>, nodes: Rc<Nodes>) -> Rc<Links> {
        Rc::new_cyclic(|this| Links {
            this: this.clone(),
            core,
            own,
            peers,
            nodes,
            links: RefCell::default(),
            joined: RefCell::default(),
            closed: Cell::new(false),
            counts: LinkCounts::default(),
        })
    }

    /// What they have done so far.
    pub fn counts(&self) -> &LinkCounts {
        &self.counts
    }

    /// How many are up.
    pub fn up_count(&self) -> usize {
        self.joined.borrow().len()
    }

    /// Makes none any more.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// Whether frames of this kind are for links.
    pub fn takes(kind: u16) -> bool {
        (Kind::CoreSupport as u16..=Kind::ChunksTaken as u16).contains(&kind)
    }

    /// Takes a frame of a joined connection; yields the message in it, and from whom it is.
    pub fn receive(&self, connection: &Connection, frame: Frame) -> Option<(Place, CoreMessage)> {
        let link = self.joined.borrow().get(&connection.id()).cloned()?;
        match self.read(&link, frame) {
            Ok(message) => {
                let message = message?;
                add(&self.counts.received);
                Some((link.to, message))
            }
            Err(reason) => {
                tracing::warn!(peer = %link.to, reason, "link closed after a message that makes no sense");
                connection.close(CloseCode::MalformedFrame, &reason);
                None
            }
        }
    }

    fn read(&self, link: &Link, frame: Frame) -> Result<Option<CoreMessage>, String> {
        let mut up = link.up.borrow_mut();
        let Some(up) = up.as_mut() else { return Ok(None) };
        up.heard_ns = self.core.runtime().now_ns();
        let text = |error: CodecError| error.to_string();
        let malformed = |error: evenkeel_wire::DecodeError| error.to_string();
        let frame = match Kind::from_number(frame.header.kind) {
            Some(Kind::Chunk) => {
                let chunk = decode::<Chunk>(&frame).map_err(malformed)?;
                let whole = up.incoming.push(chunk).map_err(|error| error.to_string())?;
                if let Some(bytes) = up.incoming.untold() {
                    // If the lane is closed, nobody needs to know.
                    let _ = up.lane.send(encode(&ChunksTaken { bytes }, 0, 0));
                }
                let Some(whole) = whole else { return Ok(None) };
                whole
            }
            Some(Kind::ChunksTaken) => {
                up.outgoing.taken(decode::<ChunksTaken>(&frame).map_err(malformed)?.bytes.into());
                up.pump();
                return Ok(None);
            }
            _ => frame,
        };
        decode_message(&frame).map(Some).map_err(text)
    }

    /// Another core joins: from now on the connection carries what both have to say.
    ///
    /// # Errors
    /// Why it must not.
    pub fn join(&self, lane: &Lane, frame: &Frame) -> Result<Joined, Refusal> {
        let connection = lane.connection();
        let mismatch = |message: String| Refusal::new(RefusalCode::Mismatch, message);
        let join =
            decode::<Join>(frame).map_err(|error| Refusal::new(RefusalCode::Invalid, error.to_string()))?;
        let node = read_address(&join.node);
        let from = Place { node: node.id, shard: (&join.shard).into() };
        if !connection.roles().contains(Role::Node) || connection.node() != Some(from.node) {
            let message = format!("the certificate shown is not that of node {}", from.node);
            return Err(Refusal::new(RefusalCode::Forbidden, message));
        }
        let wanted = Place { node: (&join.wanted_node).into(), shard: (&join.wanted_shard).into() };
        if wanted != self.own || from == self.own {
            return Err(mismatch(format!("this is {}, not {wanted}", self.own)));
        }
        let (lowest, written) = (u16::from(join.log_version_min), u16::from(join.log_version));
        if !(lowest..=written).contains(&LOG_VERSION) {
            return Err(mismatch(log_mismatch(lowest, written)));
        }
        self.nodes.learn(node);
        self.install(&self.link(from), lane.clone()).map_err(mismatch)?;
        Ok(Joined { node: self.own_address()?, log_version: LOG_VERSION })
    }

    fn own_address(&self) -> Result<evenkeel_wire::message::NodeAddress, Refusal> {
        let unknown = || Refusal::new(RefusalCode::Mismatch, "this node does not know its own address");
        self.nodes.get(self.own.node).ok_or_else(unknown)
    }

    /// A connection is gone.
    pub fn lost(&self, connection: ConnectionId) {
        let Some(link) = self.joined.borrow_mut().remove(&connection) else { return };
        let is_present = link.up.borrow().as_ref().is_some_and(|up| up.connection.id() == connection);
        if is_present {
            link.up.replace(None);
            tracing::debug!(peer = %link.to, "link lost");
            self.make(&link);
        }
    }

    fn link(&self, to: Place) -> Rc<Link> {
        if let Some(link) = self.links.borrow().get(&to) {
            return link.clone();
        }
        let link = Rc::new(Link {
            to,
            up: RefCell::default(),
            making: Cell::new(false),
            failures: Cell::new(0),
            try_at_ns: Cell::new(0),
            wanted_since_ns: Cell::new(None),
            reported: RefCell::default(),
        });
        self.links.borrow_mut().insert(to, link.clone());
        link
    }

    fn install(&self, link: &Rc<Link>, lane: Lane) -> Result<(), String> {
        let connection = lane.connection();
        let bulk = connection.open_lane().map_err(|error| error.to_string())?;
        bulk.set_priority(BULK_PRIORITY);
        let heard_ns = self.core.runtime().now_ns();
        let (outgoing, incoming) = (Outgoing::default(), Incoming::default());
        let up = Up { connection: connection.clone(), lane, bulk, outgoing, incoming, heard_ns };
        self.joined.borrow_mut().insert(connection.id(), link.clone());
        let before = link.up.replace(Some(up));
        if let Some(before) = before {
            self.joined.borrow_mut().remove(&before.connection.id());
            before.connection.close(CloseCode::Unwanted, "there is a newer link");
        }
        link.failures.set(0);
        link.wanted_since_ns.set(None);
        link.reported.borrow_mut().clear();
        add(&self.counts.made);
        tracing::debug!(peer = %link.to, "link made");
        Ok(())
    }

    /// Opens a connection, if that is for this side to do and it is time to.
    fn make(&self, link: &Rc<Link>) {
        let now_ns = self.core.runtime().now_ns();
        let since_ns = link.wanted_since_ns.get().unwrap_or(now_ns);
        link.wanted_since_ns.set(Some(since_ns));
        let is_joined =
            self.own > link.to && now_ns.saturating_sub(since_ns) < JOIN_PATIENCE.as_nanos() as u64;
        if is_joined || link.making.get() || now_ns < link.try_at_ns.get() || self.closed.get() {
            return;
        }
        link.making.set(true);
        let (links, link) = (self.this.upgrade().expect("whoever calls a method holds it"), link.clone());
        self.core.runtime().spawn(async move {
            let made = links.open(&link).await;
            link.making.set(false);
            if let Err(reason) = made {
                links.failed(&link, reason);
            }
        });
    }

    fn failed(&self, link: &Link, reason: String) {
        let runtime = self.core.runtime();
        let failures = link.failures.get().saturating_add(1);
        link.failures.set(failures);
        let pause = pause(failures, runtime.random());
        tracing::debug!(peer = %link.to, failures, reason, "link not made");
        link.try_at_ns.set(runtime.now_ns() + pause.as_nanos() as u64);
        let mut reported = link.reported.borrow_mut();
        if *reported != reason && !self.closed.get() {
            tracing::info!(peer = %link.to, reason, "a link cannot be made");
            *reported = reason;
        }
    }

    async fn open(&self, link: &Rc<Link>) -> Result<(), String> {
        let mut joining = pin!(self.open_and_join(link.to));
        let mut timeout = pin!(self.core.sleep(CONNECT_TIMEOUT));
        let lane = poll_fn(|context| {
            if let Poll::Ready(lane) = joining.as_mut().poll(context) {
                return Poll::Ready(lane);
            }
            timeout.as_mut().poll(context).map(|()| Err(format!("no answer within {CONNECT_TIMEOUT:?}")))
        })
        .await?;
        self.install(link, lane)
    }

    async fn open_and_join(&self, to: Place) -> Result<Lane, String> {
        let opened = self.peers.open(to).await;
        if matches!(opened, Err(CallError::Unknown { .. })) {
            self.peers.look_for(to.node);
        }
        let lane = opened.map_err(|error| error.to_string())?;
        let joined = self.join_over(&lane, to).await;
        if let Err(reason) = &joined {
            lane.connection().close(CloseCode::Unwanted, reason);
        }
        joined.map(|()| lane)
    }

    async fn join_over(&self, lane: &Lane, to: Place) -> Result<(), String> {
        let join = Join {
            node: self.own_address().map_err(|refusal| refusal.message)?,
            shard: self.own.shard,
            wanted_node: to.node,
            wanted_shard: to.shard,
            log_version_min: LOG_VERSION,
            log_version: LOG_VERSION,
        };
        let frame = self.peers.exchange(lane, &join).await?;
        if frame.header.kind != Kind::Joined as u16 {
            return Err(format!("{to} refused: {}", refusal_text(&frame)));
        }
        let joined = decode::<Joined>(&frame).map_err(|error| error.to_string())?;
        let written = u16::from(joined.log_version);
        if written != LOG_VERSION {
            return Err(log_mismatch(written, written));
        }
        let node = read_address(&joined.node);
        if node.id == to.node {
            self.nodes.learn(node);
        }
        Ok(())
    }

    fn send_support(&self, up: &mut Up, support: &evenkeel_paxos::Support, chosen: Vec<GroupMessage>) {
        let room = up.connection.datagram_bytes_max().unwrap_or(0);
        let (frame, rest) = encode_support(support, chosen, room);
        // If the connection is closed, it is made again.
        let _ = match frame.len() <= room {
            true => up.connection.send_datagram(frame),
            false => up.lane.send(frame),
        };
        add(&self.counts.sent);
        rest.iter().for_each(|message| self.send_group(up, message));
    }

    fn send_group(&self, up: &mut Up, message: &GroupMessage) {
        let lane = if is_bulk(&message.body) { &up.bulk } else { &up.lane };
        if lane.outgoing_bytes() > LANE_BYTES_MAX {
            return add(&self.counts.dropped);
        }
        let frame = encode_group(message);
        add(&self.counts.sent);
        if is_bulk(&message.body) {
            let _ = up.bulk.send(frame);
            return;
        }
        if let Some(frame) = up.outgoing.offer(message.partition, frame) {
            let _ = up.lane.send(frame);
        }
        up.pump();
    }
}

impl Up {
    /// Hands to the lane what may leave of the large messages.
    fn pump(&mut self) {
        while let Some(frame) = self.outgoing.next() {
            let _ = self.lane.send(frame);
        }
    }
}

impl Outbox for Links {
    fn send(&self, to: Place, message: CoreMessage) {
        let link = self.link(to);
        let mut up = link.up.borrow_mut();
        let Some(up) = up.as_mut().filter(|up| up.connection.is_open()) else {
            drop(up);
            add(&self.counts.dropped);
            return self.make(&link);
        };
        match message {
            CoreMessage::Group(message) => self.send_group(up, &message),
            CoreMessage::Support { support, chosen } => {
                let silent_ns = self.core.runtime().now_ns().saturating_sub(up.heard_ns);
                if silent_ns > SILENCE_MAX.as_nanos() as u64 {
                    // A fresh connection gets through at once where this one would still wait for answers.
                    up.connection.close(CloseCode::Unwanted, "nothing was heard for too long");
                }
                self.send_support(up, &support, chosen);
            }
        }
    }
}

fn log_mismatch(lowest: u16, written: u16) -> String {
    format!(
        "log entries of versions {lowest} to {written} are understood there, of version {LOG_VERSION} here; \
         run programs that share one"
    )
}

/// The pause after so many failures in a row: it doubles up to a limit, and half of it is jitter.
fn pause(failures: u32, random: u64) -> Duration {
    let doubled = RECONNECT_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let half_us = doubled.min(RECONNECT_MAX).as_micros() as u64 / 2;
    Duration::from_micros(half_us + random % (half_us + 1))
}
