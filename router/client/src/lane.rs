//! One lane: a bidirectional stream that carries frames of many requests.
//!
//! Whoever has a frame to send puts it in the queue and writes the queue out himself, if nobody else is
//! at it, so a frame needs no hop to another task. When the stream takes no more, the lane is blocked:
//! those who come then wait before they queue anything, and the lane's writer task goes on when the
//! stream moves again. So the queue holds at most one frame of each request under way.

use crate::connection::Shared;
use crate::limits::CHUNKS_PER_READ;
use crate::pending::lock;
use bytes::Bytes;
use evenkeel_wire::{Cutter, Frame, FrameError, frame};
use quinn::{RecvStream, SendStream, WriteError};
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// The sending half of a lane.
pub(crate) struct Lane {
    queue: Mutex<Vec<Bytes>>,
    writer: Mutex<Writer>,
    blocked: AtomicBool,
    unblocked: Notify,
    writer_wanted: Notify,
}

struct Writer {
    stream: SendStream,
    /// Frames taken from the queue; those before `written` are empty.
    batch: Vec<Bytes>,
    written: usize,
}

/// Who writes a lane out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A request on its way, which does not wait for the stream.
    Sender,
    /// The lane's own task, which does.
    WriterTask,
}

impl Lane {
    pub(crate) fn new(stream: SendStream) -> Lane {
        Lane {
            queue: Mutex::default(),
            writer: Mutex::new(Writer { stream, batch: Vec::new(), written: 0 }),
            blocked: AtomicBool::new(false),
            unblocked: Notify::new(),
            writer_wanted: Notify::new(),
        }
    }

    /// Waits until the stream takes more.
    pub(crate) async fn ready(&self) {
        while self.blocked.load(Ordering::Acquire) {
            let mut unblocked = pin!(self.unblocked.notified());
            unblocked.as_mut().enable();
            if self.blocked.load(Ordering::Acquire) {
                unblocked.await;
            }
        }
    }

    /// Sends a frame, or leaves it to whoever is writing.
    pub(crate) fn send(&self, frame: Bytes) -> Result<(), WriteError> {
        lock(&self.queue).push(frame);
        match self.write_out(&mut Context::from_waker(Waker::noop()), Role::Sender) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                self.writer_wanted.notify_one();
                Ok(())
            }
        }
    }

    /// Writes the queue to the stream. Whoever holds the writer looks at the queue once more after letting
    /// it go, so a frame queued by someone who found the writer held is never left behind.
    fn write_out(&self, context: &mut Context<'_>, role: Role) -> Poll<Result<(), WriteError>> {
        loop {
            let Some(mut writer) = self.writer(role) else { return Poll::Ready(Ok(())) };
            if role == Role::Sender && self.blocked.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            match writer.write_out(&self.queue, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.unblock();
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.blocked.store(true, Ordering::Release);
                    return Poll::Pending;
                }
            }
            if role == Role::WriterTask {
                self.unblock();
            }
            drop(writer);
            if lock(&self.queue).is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn writer(&self, role: Role) -> Option<MutexGuard<'_, Writer>> {
        if role == Role::WriterTask {
            return Some(lock(&self.writer));
        }
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn unblock(&self) {
        self.blocked.store(false, Ordering::Release);
        self.unblocked.notify_waiters();
    }

    /// Goes on writing whenever the lane is blocked; ends with the connection.
    pub(crate) async fn run_writer(self: Arc<Lane>, shared: Arc<Shared>) {
        loop {
            tokio::select! {
                () = self.writer_wanted.notified() => {}
                _ = shared.quic.closed() => break,
            }
            if let Err(error) = poll_fn(|context| self.write_out(context, Role::WriterTask)).await {
                shared.lose(&error);
                break;
            }
        }
        self.unblock();
    }
}

impl Writer {
    fn write_out(
        &mut self,
        queue: &Mutex<Vec<Bytes>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        loop {
            if self.written == self.batch.len() {
                self.batch.clear();
                self.written = 0;
                mem::swap(&mut self.batch, &mut lock(queue));
                if self.batch.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            // Nothing is written by a future that is pending, so it can be made anew each time.
            let writing = pin!(self.stream.write_chunks(&mut self.batch[self.written..]));
            match writing.poll(context) {
                Poll::Ready(Ok(written)) => self.written += written.chunks,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Reads a lane and hands answers to those who wait; ends with the connection.
pub(crate) async fn run_reader(mut stream: RecvStream, shared: Arc<Shared>) {
    let mut chunks: [Bytes; CHUNKS_PER_READ] = std::array::from_fn(|_| Bytes::new());
    let mut cutter = Cutter::default();
    let mut frames = Vec::new();
    let mut wakers = Vec::new();
    loop {
        let count = match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => return shared.lose("the node ended a lane"),
            Err(error) => return shared.lose(&error),
        };
        for chunk in &mut chunks[..count] {
            if let Err(error) = cut(&mut cutter, mem::take(chunk), &mut frames) {
                return shared.malformed(&error);
            }
        }
        let late = shared.pending.answer(frames.drain(..), &mut wakers);
        if late > 0 {
            shared.counters.late_answers.add(late);
        }
    }
}

fn cut(cutter: &mut Cutter, chunk: Bytes, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
    let mut opened = Ok(());
    cutter.push(chunk, |bytes| match (frame::open(bytes), &opened) {
        (Ok(frame), Ok(())) => frames.push(frame),
        (Err(error), Ok(())) => opened = Err(error),
        (_, Err(_)) => {}
    })?;
    opened
}
