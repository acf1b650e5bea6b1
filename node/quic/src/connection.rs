//! Connections and lanes, as handlers and other tasks of the core hold them.
//!
//! Nothing here sends: handles queue what is wanted and tell the endpoint's task. No borrow of a
//! connection's state outlives a method of this module, so handlers may call any of them.

use crate::{
    shared::{Work, count},
    tls::Roles,
    transport::CloseCode,
};
use bytes::Bytes;
use evenkeel_model::NodeId;
use evenkeel_wire::Cutter;
use quinn_proto::{ConnectionHandle, Dir, StreamId};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::Instant,
};

/// Names a connection of one endpoint; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Names a lane of one endpoint; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneId {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its stream within the connection.
    pub stream: u64,
}

/// The connection or the lane is closed; nothing more will be sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    Open,
    Lost,
}

pub struct ConnectionState {
    pub id: ConnectionId,
    pub handle: ConnectionHandle,
    pub remote: SocketAddr,
    pub outgoing: bool,
    pub quic: RefCell<quinn_proto::Connection>,
    pub phase: Cell<Phase>,
    pub roles: Cell<Roles>,
    /// The node that the peer's certificate names.
    pub node: Cell<Option<NodeId>>,
    /// Datagrams to be sent.
    pub datagrams: RefCell<Vec<Bytes>>,
    pub lanes: RefCell<HashMap<StreamId, Lane>>,
    /// Lanes that may have something to read.
    pub readable: RefCell<Vec<Lane>>,
    /// Lanes with something to write.
    pub writable: RefCell<Vec<Lane>>,
    pub close: RefCell<Option<(CloseCode, String)>>,
    /// Why it ended, once it has.
    pub lost: RefCell<Option<String>>,
    pub deadline: Cell<Option<Instant>>,
    /// In the list of work.
    pub queued: Cell<bool>,
    pub work: Rc<Work>,
    pub lane_outgoing_bytes_max: usize,
}

impl ConnectionState {
    /// Whether lanes are still to be read or written.
    pub fn has_work(&self) -> bool {
        !(self.readable.borrow().is_empty() && self.writable.borrow().is_empty())
    }

    /// The lane of a stream, made now if it is new.
    pub fn lane(self: &Rc<Self>, stream: StreamId) -> Lane {
        let make = || Lane {
            state: Rc::new(LaneState {
                connection: Rc::clone(self),
                stream,
                cutter: RefCell::default(),
                outgoing: RefCell::default(),
                outgoing_bytes: Cell::new(0),
                in_readable: Cell::new(false),
                in_writable: Cell::new(false),
                unread: Cell::new(false),
                held: Cell::new(false),
                closed: Cell::new(false),
            }),
        };
        self.lanes.borrow_mut().entry(stream).or_insert_with(make).clone()
    }
}

/// A handle of one connection.
#[derive(Clone)]
pub struct Connection {
    pub(crate) state: Rc<ConnectionState>,
}

impl Connection {
    /// Its name.
    pub fn id(&self) -> ConnectionId {
        self.state.id
    }

    /// The peer's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.state.remote
    }

    /// What the peer's certificate lets it be.
    pub fn roles(&self) -> Roles {
        self.state.roles.get()
    }

    /// The node that the peer's certificate says it is.
    pub fn node(&self) -> Option<NodeId> {
        self.state.node.get()
    }

    /// Most bytes of a datagram, if the peer takes any.
    pub fn datagram_bytes_max(&self) -> Option<usize> {
        self.state.quic.borrow_mut().datagrams().max_size()
    }

    /// Queues a whole frame that travels by itself: it may be lost, and waits for nothing that was sent
    /// before. One that is too large for the path is lost for certain.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn send_datagram(&self, frame: Bytes) -> Result<(), Closed> {
        if self.state.phase.get() == Phase::Lost {
            return Err(Closed);
        }
        self.state.datagrams.borrow_mut().push(frame);
        count(&self.state.work.counters.frames_sent, 1);
        self.state.work.add(&self.state);
        Ok(())
    }

    /// Whether this side opened the connection.
    pub fn is_outgoing(&self) -> bool {
        self.state.outgoing
    }

    /// Whether frames can be exchanged.
    pub fn is_open(&self) -> bool {
        self.state.phase.get() == Phase::Open
    }

    /// Why the connection ended, once it has.
    pub fn lost(&self) -> Option<String> {
        self.state.lost.borrow().clone()
    }

    /// Opens a lane. The peer sees it when the first frame is sent.
    ///
    /// # Errors
    /// The connection is closed, or has as many lanes as the peer allows.
    pub fn open_lane(&self) -> Result<Lane, Closed> {
        if self.state.phase.get() == Phase::Lost {
            return Err(Closed);
        }
        let stream = self.state.quic.borrow_mut().streams().open(Dir::Bi).ok_or(Closed)?;
        Ok(self.state.lane(stream))
    }

    /// Closes the connection. Frames queued just before may be lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        if self.state.phase.get() != Phase::Lost {
            self.state.close.borrow_mut().get_or_insert_with(|| (code, reason.to_owned()));
            self.state.work.add(&self.state);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Connection");
        debug.field("id", &self.state.id.0).field("remote", &self.state.remote);
        debug.field("roles", &self.roles()).field("phase", &self.state.phase.get()).finish()
    }
}

struct LaneState {
    connection: Rc<ConnectionState>,
    stream: StreamId,
    cutter: RefCell<Cutter>,
    outgoing: RefCell<VecDeque<Bytes>>,
    outgoing_bytes: Cell<usize>,
    in_readable: Cell<bool>,
    in_writable: Cell<bool>,
    /// There may be something to read, but it is not wanted now.
    unread: Cell<bool>,
    held: Cell<bool>,
    closed: Cell<bool>,
}

/// A handle of one bidirectional stream of frames.
#[derive(Clone)]
pub struct Lane {
    state: Rc<LaneState>,
}

impl Lane {
    /// Its name.
    pub fn id(&self) -> LaneId {
        LaneId {
            connection: self.state.connection.id,
            stream: self.state.stream.index() << 1 | self.initiator(),
        }
    }

    fn initiator(&self) -> u64 {
        u64::from(self.state.stream.initiator() == quinn_proto::Side::Server)
    }

    /// The connection it belongs to.
    pub fn connection(&self) -> Connection {
        Connection { state: Rc::clone(&self.state.connection) }
    }

    /// What the peer's certificate lets it be.
    pub fn roles(&self) -> Roles {
        self.state.connection.roles.get()
    }

    /// Queues a whole frame, header and body. It leaves at the end of this turn of the core, together
    /// with what other tasks have queued by then.
    ///
    /// A frame is always taken while the lane is open. What bounds the queue is that a lane with too
    /// much waiting is not read, so no more requests come in.
    ///
    /// # Errors
    /// The lane or its connection is closed.
    pub fn send(&self, frame: Bytes) -> Result<(), Closed> {
        let connection = &self.state.connection;
        if self.is_closed() {
            return Err(Closed);
        }
        self.state.outgoing_bytes.set(self.state.outgoing_bytes.get() + frame.len());
        self.state.outgoing.borrow_mut().push_back(frame);
        count(&connection.work.counters.frames_sent, 1);
        self.queue_write();
        connection.work.add(connection);
        Ok(())
    }

    /// Bytes queued and not yet handed to the connection.
    pub fn outgoing_bytes(&self) -> usize {
        self.state.outgoing_bytes.get()
    }

    /// How soon the lane's bytes leave compared with those of other lanes of the connection: greater goes
    /// first, and 0 is what a lane begins with.
    pub fn set_priority(&self, priority: i32) {
        let connection = &self.state.connection;
        if !self.is_closed() {
            // A stream that has ended needs none.
            let _ = connection.quic.borrow_mut().send_stream(self.state.stream).set_priority(priority);
        }
    }

    /// Stops reading the lane, for example because enough requests of it are under way. Frames that
    /// were received in this turn still come.
    pub fn hold(&self) {
        self.state.held.set(true);
    }

    /// Goes on reading the lane.
    pub fn resume(&self) {
        if self.state.held.replace(false) {
            self.read_again();
        }
    }

    /// Whether nothing more can be sent.
    pub fn is_closed(&self) -> bool {
        self.state.closed.get() || self.state.connection.phase.get() == Phase::Lost
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.state.stream
    }

    pub(crate) fn cutter(&self) -> &RefCell<Cutter> {
        &self.state.cutter
    }

    pub(crate) fn outgoing(&self) -> &RefCell<VecDeque<Bytes>> {
        &self.state.outgoing
    }

    /// Notes that the lane has something to read.
    pub(crate) fn queue_read(&self) {
        if !self.state.in_readable.replace(true) {
            self.state.connection.readable.borrow_mut().push(self.clone());
        }
    }

    /// The lane was taken from the readable ones; whether it is to be read now.
    pub(crate) fn begin_read(&self) -> bool {
        self.state.in_readable.set(false);
        let full = self.outgoing_bytes() > self.state.connection.lane_outgoing_bytes_max;
        let wanted = !full && !self.state.held.get() && !self.state.closed.get();
        self.state.unread.set(!wanted);
        wanted
    }

    /// Notes that the lane has something to write, or room to.
    pub(crate) fn queue_write(&self) {
        if !self.state.in_writable.replace(true) {
            self.state.connection.writable.borrow_mut().push(self.clone());
        }
    }

    pub(crate) fn begin_write(&self) {
        self.state.in_writable.set(false);
    }

    /// So many queued bytes are on their way.
    pub(crate) fn written(&self, bytes: usize) {
        let before = self.outgoing_bytes();
        self.state.outgoing_bytes.set(before - bytes);
        let limit = self.state.connection.lane_outgoing_bytes_max;
        if before > limit && before - bytes <= limit {
            self.read_again();
        }
    }

    fn read_again(&self) {
        if self.state.unread.replace(false) {
            self.queue_read();
            self.state.connection.work.add(&self.state.connection);
        }
    }

    /// Ends the lane on this side: what is queued is dropped.
    pub(crate) fn close(&self) {
        self.state.closed.set(true);
        self.state.outgoing.borrow_mut().clear();
        self.state.outgoing_bytes.set(0);
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Lane");
        debug.field("id", &self.id()).field("outgoing_bytes", &self.outgoing_bytes());
        debug.field("held", &self.state.held.get()).field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
