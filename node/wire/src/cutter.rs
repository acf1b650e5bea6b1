//! Cuts the bytes of one stream into frames.
//!
//! A frame that lies in one chunk is handed on as a slice of it, without a copy. One that arrives in
//! pieces is put together in memory that grows with what has arrived: a header that announces much
//! costs nothing until the bytes come.

use crate::frame::{BODY_BYTES_MAX, FrameError, HEADER_BYTES, parse_header};
use bytes::{Bytes, BytesMut};
use std::mem;

/// Memory reserved for a frame that arrives in pieces, before the pieces have arrived.
pub const FRAME_RESERVED_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(FRAME_RESERVED_BYTES_MAX <= BODY_BYTES_MAX + HEADER_BYTES);

/// The state of one stream between two chunks.
#[derive(Debug, Default)]
pub struct Cutter {
    partial: BytesMut,
    /// Bytes of the whole frame in `partial`, once its header is complete.
    announced: Option<usize>,
}

impl Cutter {
    /// Hands every frame that `chunk` completes to `frame`, header and body, unchecked.
    ///
    /// # Errors
    /// A header that cannot be one; the stream is useless from there on.
    pub fn push(&mut self, mut chunk: Bytes, mut frame: impl FnMut(Bytes)) -> Result<(), FrameError> {
        while !chunk.is_empty() {
            if self.partial.is_empty() {
                let announced = frame_bytes(&chunk)?;
                if let Some(bytes) = announced.filter(|bytes| *bytes <= chunk.len()) {
                    frame(chunk.split_to(bytes));
                    continue;
                }
                self.announced = announced;
                self.partial.reserve(announced.unwrap_or(HEADER_BYTES).min(FRAME_RESERVED_BYTES_MAX));
            }
            let wanted = self.announced.unwrap_or(HEADER_BYTES) - self.partial.len();
            self.partial.extend_from_slice(&chunk.split_to(wanted.min(chunk.len())));
            if self.announced.is_none() {
                self.announced = frame_bytes(&self.partial)?;
            }
            if self.announced == Some(self.partial.len()) {
                self.announced = None;
                frame(mem::take(&mut self.partial).freeze());
            }
        }
        Ok(())
    }
}

/// Bytes of the frame that begins here, if its header is complete.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    Ok(Some(HEADER_BYTES + parse_header(header)?.body_bytes as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{open, seal};

    fn sealed(body: &[u8], request_id: u64) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(body);
        seal(&mut frame, 1, request_id, 0);
        frame
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let bodies: Vec<Vec<u8>> = [0, 1, 47, 48, 49, 1000, 3].map(|bytes| vec![bytes as u8; bytes]).to_vec();
        let stream: Bytes = bodies
            .iter()
            .enumerate()
            .flat_map(|(id, body)| sealed(body, id as u64))
            .collect::<Vec<_>>()
            .into();
        for step in (1..=stream.len()).filter(|step| *step < 200 || *step == stream.len()) {
            let mut cutter = Cutter::default();
            let mut found = Vec::new();
            let mut rest = stream.clone();
            while !rest.is_empty() {
                let chunk = rest.split_to(step.min(rest.len()));
                cutter.push(chunk, |bytes| found.push(open(bytes).unwrap())).unwrap();
            }
            assert!(cutter.partial.is_empty(), "step {step}");
            let found: Vec<_> =
                found.iter().map(|frame| (frame.header.request_id, frame.body.to_vec())).collect();
            let expected: Vec<_> =
                bodies.iter().cloned().enumerate().map(|(id, body)| (id as u64, body)).collect();
            assert_eq!(found, expected, "step {step}");
        }
    }

    #[test]
    fn a_frame_within_a_chunk_is_not_copied() {
        let chunk: Bytes = sealed(&[7; 100], 1).into();
        let start = chunk.as_ptr();
        let mut frames = Vec::new();
        Cutter::default().push(chunk, |frame| frames.push(frame)).unwrap();
        assert_eq!(frames[0].as_ptr(), start);
    }

    #[test]
    fn what_is_announced_costs_no_memory_before_it_arrives() {
        let mut frame = vec![0; HEADER_BYTES + BODY_BYTES_MAX];
        seal(&mut frame, 1, 1, 0);
        let mut cutter = Cutter::default();
        cutter.push(frame[..HEADER_BYTES + 1].to_vec().into(), |_| panic!("no frame is complete")).unwrap();
        assert!(cutter.partial.capacity() <= 2 * FRAME_RESERVED_BYTES_MAX);
    }

    #[test]
    fn a_stream_that_is_not_frames_is_refused_at_its_header() {
        for step in [1, 7, HEADER_BYTES] {
            let mut cutter = Cutter::default();
            let noise = [0xAB; HEADER_BYTES];
            let refused = noise
                .chunks(step)
                .find_map(|chunk| cutter.push(chunk.to_vec().into(), |_| panic!("noise is no frame")).err());
            assert!(matches!(refused, Some(FrameError::Magic { .. })), "step {step}");
        }
    }
}
