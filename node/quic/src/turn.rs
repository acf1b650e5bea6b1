//! The endpoint's task: one turn after another.
//!
//! A turn receives one batch of datagrams, lets overdue timers fire, and then goes over the
//! connections with something to do: read what came, hand frames to the handler, write what was
//! answered, send. What other tasks queue wakes the task once and goes the same way. The clock is
//! read once a turn. No borrow is held while the handler is called.

use crate::{
    connection::{Connection, ConnectionState, Lane, Phase},
    endpoint::{EndpointPhase, EndpointState, Handler},
    limits::{
        CHUNK_BYTES_MAX, LANE_FRAMES_PER_TURN, ROUNDS_PER_TURN, TRANSMIT_BYTES_MAX, TRANSMITS_PER_TURN,
    },
    shared::count,
    tls::identity_of_peer,
    transport::CloseCode,
};
use bytes::BytesMut;
use evenkeel_driver::{Readiness, ReceiveBatch, Received, Timer, Transmit};
use evenkeel_wire::frame::{self, Frame, FrameError};
use quinn_proto::{
    DatagramEvent, Dir, EcnCodepoint, Event, Incoming, ReadError, StreamEvent, StreamId, VarInt, WriteError,
};
use std::{future::poll_fn, mem, rc::Rc, task::Poll, time::Instant};

pub struct Turner<H: Handler> {
    state: Rc<EndpointState>,
    handler: H,
    batch: ReceiveBatch,
    readiness: Readiness,
    timer: Timer,
    /// Not later than the earliest deadline of any connection.
    deadline: Option<Instant>,
    last_received: Option<Instant>,
    /// Connections of the round.
    round: Vec<Rc<ConnectionState>>,
    /// Frames read in the round and not yet handed over.
    frames: Vec<(Lane, Frame)>,
    buffer: Vec<u8>,
    /// A transmission, in `buffer`, that the socket had no room for.
    unsent: Option<quinn_proto::Transmit>,
}

impl<H: Handler> Turner<H> {
    pub fn new(state: Rc<EndpointState>, handler: H) -> Self {
        Turner {
            state,
            handler,
            batch: ReceiveBatch::new(),
            readiness: Readiness::default(),
            timer: Timer::new(),
            deadline: None,
            last_received: None,
            round: Vec::new(),
            frames: Vec::new(),
            buffer: Vec::with_capacity(2 * TRANSMIT_BYTES_MAX),
            unsent: None,
        }
    }

    pub async fn run(mut self) {
        loop {
            self.state.work.unregister();
            count(&self.state.work.counters.turns, 1);
            // While datagrams keep coming the executor does not look at the ring: completions of the
            // log, and with them answers, are picked up here.
            self.state.core.poll_completions();
            let now = self.state.core.now();
            let received = self.unsent.is_none() && self.readiness.is_ready() && self.receive(now);
            self.expire(now);
            if self.state.phase.get() == EndpointPhase::Closing {
                self.close_all();
            }
            self.work(now);
            if self.unsent.is_some() {
                self.state.socket.writable().await;
                self.resend();
            } else if self.state.phase.get() == EndpointPhase::Closing && self.state.work.is_empty() {
                return;
            } else if received || !self.state.work.is_empty() || self.polls(now) {
                // Every other ready task, in particular those that answer, gets its turn before.
                self.state.core.yield_now().await;
            } else {
                self.idle().await;
            }
        }
    }

    /// Whether to look again at once rather than to sleep.
    fn polls(&self, now: Instant) -> bool {
        self.last_received.is_some_and(|last| now - last < self.state.spin)
    }

    /// Waits for a datagram, a deadline, or work from other tasks.
    async fn idle(&mut self) {
        let Turner { state, readiness, timer, deadline, .. } = self;
        poll_fn(|context| {
            if !state.work.is_empty() || state.phase.get() == EndpointPhase::Closing {
                return Poll::Ready(());
            }
            state.work.register(context.waker().clone());
            if readiness.poll_ready(&state.socket, context).is_ready() {
                return Poll::Ready(());
            }
            timer.poll_at(context, *deadline)
        })
        .await;
    }

    /// Takes one batch from the socket; whether there may be more.
    fn receive(&mut self, now: Instant) -> bool {
        let mut batch = mem::take(&mut self.batch);
        let received = match self.state.socket.try_receive(&mut batch) {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "receiving failed");
                false
            }
        };
        for run in batch.iter().take(if received { usize::MAX } else { 0 }) {
            self.last_received = Some(now);
            self.datagrams(now, &run);
        }
        self.batch = batch;
        received
    }

    fn datagrams(&mut self, now: Instant, run: &Received<'_>) {
        let counters = &self.state.work.counters;
        count(&counters.bytes_received, run.bytes.len());
        // One copy for the whole run; datagrams and then frames are views of it.
        let mut rest = BytesMut::from(run.bytes);
        let ecn = run.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        while !rest.is_empty() {
            let datagram = rest.split_to(run.stride.min(rest.len()));
            count(&self.state.work.counters.datagrams_received, 1);
            self.buffer.clear();
            let event = self.state.proto.borrow_mut().handle(
                now,
                run.remote,
                run.local_ip,
                ecn,
                datagram,
                &mut self.buffer,
            );
            match event {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let connections = self.state.connections.borrow();
                    if let Some(connection) = &connections[handle.0] {
                        connection.quic.borrow_mut().handle_event(event);
                        self.state.work.add(connection);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming),
                Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
                None => {}
            }
        }
    }

    fn accept(&mut self, now: Instant, incoming: Incoming) {
        let state = &self.state;
        let full = state.connection_count.get() >= state.limits.connections_max;
        self.buffer.clear();
        if full || state.phase.get() != EndpointPhase::Open {
            count(&state.work.counters.connections_refused, 1);
            let refusal = state.proto.borrow_mut().refuse(incoming, &mut self.buffer);
            return self.respond(&refusal);
        }
        let accepted = state.proto.borrow_mut().accept(incoming, now, &mut self.buffer, None);
        match accepted {
            Ok((handle, quic)) => drop(state.add(handle, quic, false)),
            Err(error) => {
                tracing::debug!(cause = %error.cause, "connection not accepted");
                if let Some(response) = error.response {
                    self.respond(&response);
                }
            }
        }
    }

    /// Sends what belongs to no connection. If there is no room it is lost, like any datagram may be.
    fn respond(&self, transmit: &quinn_proto::Transmit) {
        self.state.socket.try_send(&on_the_wire(transmit, &self.buffer));
    }

    /// Lets the timers of connections fire whose deadline has passed.
    fn expire(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        let connections = self.state.connections.borrow();
        for connection in connections.iter().flatten() {
            match connection.deadline.get() {
                Some(deadline) if deadline <= now => {
                    connection.quic.borrow_mut().handle_timeout(now);
                    self.state.work.add(connection);
                }
                Some(deadline) => self.deadline = Some(earlier(self.deadline, deadline)),
                None => {}
            }
        }
    }

    fn close_all(&self) {
        self.state.proto.borrow_mut().set_server_config(None);
        let connections: Vec<_> = self.state.connections.borrow().iter().flatten().cloned().collect();
        for state in connections {
            Connection { state }.close(CloseCode::Shutdown, "the endpoint shuts down");
        }
    }

    /// Goes over the connections with something to do, and over those that this gives something to do.
    fn work(&mut self, now: Instant) {
        for _ in 0..ROUNDS_PER_TURN {
            let mut round = mem::take(&mut self.round);
            self.state.work.take(&mut round);
            for connection in &round {
                self.events(connection);
                self.read(connection);
            }
            self.deliver();
            for connection in round.drain(..) {
                connection.queued.set(false);
                self.write(&connection);
                self.transmit(&connection, now);
                if self.close(&connection, now) {
                    self.transmit(&connection, now);
                }
                if connection.has_work() {
                    self.state.work.add(&connection);
                }
            }
            self.round = round;
            if self.state.work.is_empty() || self.unsent.is_some() {
                return;
            }
        }
    }

    /// Has the connection and quinn-proto's endpoint tell each other what they must, and learns what
    /// happened.
    fn events(&self, connection: &Rc<ConnectionState>) {
        loop {
            let event = connection.quic.borrow_mut().poll();
            if let Some(event) = event {
                self.event(connection, event);
                continue;
            }
            let event = connection.quic.borrow_mut().poll_endpoint_events();
            let Some(event) = event else { return };
            let drained = event.is_drained();
            let answer = self.state.proto.borrow_mut().handle_event(connection.handle, event);
            if let Some(answer) = answer {
                connection.quic.borrow_mut().handle_event(answer);
            }
            if drained {
                self.state.remove(connection.handle);
            }
        }
    }

    fn event(&self, connection: &Rc<ConnectionState>, event: Event) {
        match event {
            Event::Connected => {
                let identity = connection.quic.borrow().crypto_session().peer_identity();
                let (roles, node) = identity_of_peer(identity);
                connection.roles.set(roles);
                connection.node.set(node);
                connection.phase.set(Phase::Open);
                count(&self.state.work.counters.connections_opened, 1);
                self.state.notify();
                self.handler.opened(&Connection { state: Rc::clone(connection) });
            }
            Event::ConnectionLost { reason } => self.lost(connection, &reason.to_string()),
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => loop {
                let stream = connection.quic.borrow_mut().streams().accept(Dir::Bi);
                let Some(stream) = stream else { return };
                connection.lane(stream).queue_read();
            },
            Event::Stream(StreamEvent::Readable { id }) => with_lane(connection, id, Lane::queue_read),
            Event::Stream(StreamEvent::Writable { id }) => with_lane(connection, id, Lane::queue_write),
            Event::Stream(StreamEvent::Stopped { id, .. }) => {
                with_lane(connection, id, |lane| self.end_lane(connection, lane));
            }
            Event::DatagramReceived => self.take_datagrams(connection),
            Event::Stream(_) | Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
        }
    }

    /// Hands on what came in datagrams; what is no whole frame is dropped as if it had been lost.
    fn take_datagrams(&self, connection: &Rc<ConnectionState>) {
        loop {
            let datagram = connection.quic.borrow_mut().datagrams().recv();
            let Some(bytes) = datagram else { return };
            match frame::open_whole(bytes) {
                Ok(frame) => {
                    count(&self.state.work.counters.frames_received, 1);
                    self.handler.datagram(&Connection { state: Rc::clone(connection) }, frame);
                }
                Err(error) => {
                    tracing::warn!(remote = %connection.remote, %error, "malformed datagram");
                    count(&self.state.work.counters.frames_malformed, 1);
                }
            }
        }
    }

    /// The connection has ended, for whatever reason; later reasons change nothing.
    fn lost(&self, connection: &ConnectionState, reason: &str) {
        let before = connection.phase.replace(Phase::Lost);
        if before == Phase::Lost {
            return;
        }
        *connection.lost.borrow_mut() = Some(reason.to_owned());
        // Lanes and their connection hold each other: untie them.
        let lanes = mem::take(&mut *connection.lanes.borrow_mut());
        lanes.values().for_each(Lane::close);
        connection.readable.borrow_mut().clear();
        connection.writable.borrow_mut().clear();
        connection.datagrams.borrow_mut().clear();
        self.state.notify();
        if before == Phase::Open {
            count(&self.state.work.counters.connections_lost, 1);
            self.handler.closed(connection.id);
        }
    }

    fn end_lane(&self, connection: &Rc<ConnectionState>, lane: &Lane) {
        let removed = connection.lanes.borrow_mut().remove(&lane.stream());
        if removed.is_none() {
            return;
        }
        lane.close();
        {
            let mut quic = connection.quic.borrow_mut();
            // Either half may be closed already; then there is nothing to tell the peer.
            let _ = quic.send_stream(lane.stream()).finish();
            let _ = quic.recv_stream(lane.stream()).stop(VarInt::from_u32(0));
        }
        self.handler.lane_closed(lane);
    }

    fn read(&mut self, connection: &Rc<ConnectionState>) {
        let lanes = mem::take(&mut *connection.readable.borrow_mut());
        for lane in &lanes {
            if lane.begin_read() {
                match self.read_lane(connection, lane) {
                    Ok(Read::Drained) => {}
                    Ok(Read::More) => lane.queue_read(),
                    Ok(Read::Ended) => self.end_lane(connection, lane),
                    Err(error) => self.malformed(connection, &error),
                }
            }
        }
        keep_memory(lanes, &mut connection.readable.borrow_mut());
    }

    fn read_lane(&mut self, connection: &ConnectionState, lane: &Lane) -> Result<Read, FrameError> {
        let mut quic = connection.quic.borrow_mut();
        let mut stream = quic.recv_stream(lane.stream());
        let Ok(mut chunks) = stream.read(true) else { return Ok(Read::Ended) };
        let mut cutter = lane.cutter().borrow_mut();
        let before = self.frames.len();
        let outcome = loop {
            if self.frames.len() - before >= LANE_FRAMES_PER_TURN {
                break Ok(Read::More);
            }
            let chunk = match chunks.next(CHUNK_BYTES_MAX) {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) | Err(ReadError::Reset(_)) => break Ok(Read::Ended),
                Err(ReadError::Blocked) => break Ok(Read::Drained),
            };
            let mut broken = None;
            let cut = cutter.push(chunk, |bytes| match frame::open(bytes) {
                Ok(frame) if broken.is_none() => self.frames.push((lane.clone(), frame)),
                Ok(_) => {}
                Err(error) => broken = broken.or(Some(error)),
            });
            if let Err(error) = broken.map_or(cut, Err) {
                break Err(error);
            }
        };
        // Whether the peer is to be told of new room is found out when the connection transmits.
        let _ = chunks.finalize();
        count(&self.state.work.counters.frames_received, self.frames.len() - before);
        outcome
    }

    fn malformed(&self, connection: &Rc<ConnectionState>, error: &FrameError) {
        tracing::warn!(remote = %connection.remote, %error, "connection closed after a malformed frame");
        count(&self.state.work.counters.frames_malformed, 1);
        let connection = Connection { state: Rc::clone(connection) };
        connection.close(CloseCode::MalformedFrame, &error.to_string());
    }

    fn deliver(&mut self) {
        let mut frames = mem::take(&mut self.frames);
        for (lane, frame) in frames.drain(..) {
            self.handler.frame(&lane, frame);
        }
        self.frames = frames;
    }

    /// Moves queued frames into their streams as far as the peer's windows allow.
    fn write(&self, connection: &Rc<ConnectionState>) {
        let lanes = mem::take(&mut *connection.writable.borrow_mut());
        for lane in &lanes {
            lane.begin_write();
            if self.write_lane(connection, lane).is_err() {
                self.end_lane(connection, lane);
            }
        }
        keep_memory(lanes, &mut connection.writable.borrow_mut());
        let mut datagrams = connection.datagrams.borrow_mut();
        for datagram in datagrams.drain(..) {
            // The oldest give way if there is no room; one that no path carries is lost.
            let _ = connection.quic.borrow_mut().datagrams().send(datagram, true);
        }
    }

    fn write_lane(&self, connection: &ConnectionState, lane: &Lane) -> Result<(), WriteError> {
        loop {
            let written = {
                let mut outgoing = lane.outgoing().borrow_mut();
                let (chunks, _) = outgoing.as_mut_slices();
                if chunks.is_empty() {
                    return Ok(());
                }
                let mut quic = connection.quic.borrow_mut();
                let written = match quic.send_stream(lane.stream()).write_chunks(chunks) {
                    Ok(written) => written,
                    // An event says when there is room.
                    Err(WriteError::Blocked) => return Ok(()),
                    Err(error) => return Err(error),
                };
                outgoing.drain(..written.chunks);
                written
            };
            lane.written(written.bytes);
        }
    }

    /// Closes the connection if that was asked for; what could be sent has been sent.
    fn close(&self, connection: &Rc<ConnectionState>, now: Instant) -> bool {
        let close = connection.close.borrow_mut().take();
        let Some((code, reason)) = close.filter(|_| connection.phase.get() != Phase::Lost) else {
            return false;
        };
        connection.quic.borrow_mut().close(now, code.code(), reason.clone().into());
        self.lost(connection, &reason);
        true
    }

    /// Sends what the connection has to send, and notes its next deadline.
    fn transmit(&mut self, connection: &Rc<ConnectionState>, now: Instant) {
        if self.unsent.is_some() {
            self.state.work.add(connection);
            return;
        }
        let mut quic = connection.quic.borrow_mut();
        let datagrams_max = (TRANSMIT_BYTES_MAX / usize::from(quic.current_mtu())).max(1);
        let datagrams_max = datagrams_max.min(self.state.socket.segments_max());
        for attempt in 0.. {
            if attempt == TRANSMITS_PER_TURN {
                self.state.work.add(connection);
                break;
            }
            self.buffer.clear();
            let Some(transmit) = quic.poll_transmit(now, datagrams_max, &mut self.buffer) else { break };
            let counters = &self.state.work.counters;
            count(&counters.bytes_sent, transmit.size);
            count(
                &counters.datagrams_sent,
                transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size)),
            );
            if !self.state.socket.try_send(&on_the_wire(&transmit, &self.buffer)) {
                self.unsent = Some(transmit);
                self.state.work.add(connection);
                break;
            }
        }
        let deadline = quic.poll_timeout();
        connection.deadline.set(deadline);
        if let Some(deadline) = deadline {
            self.deadline = Some(earlier(self.deadline, deadline));
        }
    }

    /// Sends again what the socket had no room for.
    fn resend(&mut self) {
        if let Some(transmit) = self.unsent.take()
            && !self.state.socket.try_send(&on_the_wire(&transmit, &self.buffer))
        {
            self.unsent = Some(transmit);
        }
    }
}

impl<H: Handler> Drop for Turner<H> {
    /// Whether it ended or was dropped: nobody waits for it any more.
    fn drop(&mut self) {
        let connections = mem::take(&mut *self.state.connections.borrow_mut());
        for connection in connections.iter().flatten() {
            self.lost(connection, "the endpoint has ended");
        }
        self.state.connection_count.set(0);
        self.state.work.take(&mut Vec::new());
        self.state.phase.set(EndpointPhase::Closed);
        self.state.notify();
    }
}

/// How far a lane was read.
enum Read {
    Drained,
    More,
    Ended,
}

fn with_lane(connection: &ConnectionState, stream: StreamId, act: impl FnOnce(&Lane)) {
    let lane = connection.lanes.borrow().get(&stream).cloned();
    if let Some(lane) = lane {
        act(&lane);
    }
}

/// Puts a list that was worked off back in place, under what was queued meanwhile.
fn keep_memory(mut done: Vec<Lane>, list: &mut Vec<Lane>) {
    done.clear();
    done.append(list);
    *list = done;
}

fn earlier(a: Option<Instant>, b: Instant) -> Instant {
    a.map_or(b, |a| a.min(b))
}

fn on_the_wire<'a>(transmit: &quinn_proto::Transmit, buffer: &'a [u8]) -> Transmit<'a> {
    Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| evenkeel_driver::EcnCodepoint::from_bits(ecn as u8)),
        contents: &buffer[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}
