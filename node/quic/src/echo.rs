//! A handler that answers every frame at once: the floor under every latency measured through QUIC.

use crate::{
    connection::{Connection, ConnectionId, Lane},
    endpoint::Handler,
};
use bytes::Bytes;
use evenkeel_wire::frame::{self, Frame, HEADER_BYTES};

/// Answers each frame with one of the same kind and request id and a body of fixed size.
#[derive(Clone, Copy, Debug)]
pub struct EchoHandler {
    /// Bytes of every answer's body.
    pub body_bytes: usize,
}

impl Handler for EchoHandler {
    fn frame(&self, lane: &Lane, frame: Frame) {
        let mut answer = vec![0; HEADER_BYTES + self.body_bytes];
        frame::seal(&mut answer, frame.header.kind, frame.header.request_id, 0);
        // A lane that closed meanwhile has nobody to answer to.
        let _ = lane.send(Bytes::from(answer));
    }

    fn opened(&self, _: &Connection) {}

    fn closed(&self, _: ConnectionId) {}
}
