//! What means "stop in order": two signals and, for a process that another one watches, the end of its standard
//! input.

use std::io::{self, Read};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, caught from when this is made.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// Of a process that is not watched it never says anything.
    input: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl StopSignals {
    /// Catches both signals; call it before anything is started that must be stopped in order.
    ///
    /// # Errors
    /// What the system said.
    pub fn catch() -> io::Result<StopSignals> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            input: None,
        })
    }

    /// The end of standard input counts too, if `attached`: it comes when whoever watches this process wants it
    /// to stop, and when that is gone itself.
    #[must_use]
    pub fn and_end_of_input(mut self, attached: bool) -> StopSignals {
        if attached {
            let (end, ended) = tokio::sync::oneshot::channel();
            // Reading blocks for as long as the process runs, so the thread is never waited for.
            std::thread::spawn(move || {
                let mut rest = [0; 64];
                while matches!(io::stdin().read(&mut rest), Ok(bytes) if bytes > 0) {}
                let _ = end.send(());
            });
            self.input = Some(ended);
        }
        self
    }

    /// Resolves when one of them arrives.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            Some(_) = async { Some(self.input.as_mut()?.await) } => {}
        }
    }
}

/// A runtime for waiting: one thread, timers and signals.
///
/// # Errors
/// What the system said.
pub fn waiting_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
