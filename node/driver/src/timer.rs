//! One timer that follows a moving deadline cheaply.
//!
//! A QUIC deadline moves with every packet, mostly later. The timer underneath is touched only when
//! the deadline comes earlier than what it is set to; otherwise it fires early once and is set again.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Later than anything one waits for; a deadline that never comes.
const NEVER: Duration = Duration::from_secs(3600);

/// A timer for a deadline that moves.
#[derive(Debug)]
pub struct Timer {
    timer: glommio::timer::Timer,
    set_for: Instant,
}

impl Default for Timer {
    fn default() -> Self {
        Timer::new()
    }
}

impl Timer {
    /// A timer of the core that calls.
    pub fn new() -> Timer {
        Timer { timer: glommio::timer::Timer::new(NEVER), set_for: Instant::now() + NEVER }
    }

    /// Ready when `deadline` has passed; otherwise the task is woken at the latest then, perhaps
    /// earlier, and asks again.
    pub fn poll_at(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        loop {
            if let Some(deadline) = deadline.filter(|deadline| *deadline < self.set_for) {
                let now = Instant::now();
                if deadline <= now {
                    return Poll::Ready(());
                }
                self.timer.reset(deadline - now);
                self.set_for = deadline;
            }
            if Pin::new(&mut self.timer).poll(context).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                // Set far ahead, so that the next deadline sets it anew.
                self.timer = glommio::timer::Timer::new(NEVER);
                self.set_for = now + NEVER;
                return Poll::Ready(());
            }
            let wait = deadline.map_or(NEVER, |deadline| deadline - now);
            self.timer = glommio::timer::Timer::new(wait);
            self.set_for = now + wait;
        }
    }
}
