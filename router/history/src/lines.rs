//! Histories as JSON Lines: one [`Event`] a line, in any order that puts an operation's beginning before
//! its end.
//!
//! ```text
//! {"event":"invoke","time":10,"client":1,"id":7,"key":"a","request":{"put_if":{"expected":"absent","value":5}}}
//! {"event":"respond","time":14,"client":1,"id":7,"outcome":{"ok":{"returned":null}}}
//! {"event":"invoke","time":15,"client":2,"id":8,"key":"a","request":{"get":{"consistency":"strong"}}}
//! {"event":"respond","time":19,"client":2,"id":8,"outcome":{"ok":{"returned":{"value":5}}}}
//! ```
//!
//! A line that is not such an event, or does not fit to those before it, is an error with its number:
//! a history with a hole would be judged wrongly. Empty lines are such lines too.

use crate::event::Event;
use crate::history::{EventFault, History};
use std::io::{self, BufRead, Write};

/// Longest line read.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct LineError {
    /// Which, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    /// The source of the lines failed, or they are not text.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is longer than [`LINE_BYTES_MAX`].
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// It is not an event.
    #[error("it is not an event: {0}")]
    NoEvent(#[from] serde_json::Error),
    /// It is an event that cannot have happened after those before it.
    #[error("{0}")]
    Misplaced(#[from] EventFault),
}

/// Reads a history.
///
/// # Errors
/// At the first line that is not an event or does not fit.
pub fn read(mut source: impl BufRead) -> Result<History, LineError> {
    let mut history = History::new();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let mut limited = io::Read::take(&mut source, LINE_BYTES_MAX as u64 + 1);
        let bytes = limited.read_line(&mut text).map_err(|error| LineError { line, fault: error.into() })?;
        if bytes == 0 {
            break;
        }
        if bytes > LINE_BYTES_MAX {
            return Err(LineError { line, fault: LineFault::TooLong });
        }
        add(&mut history, &text).map_err(|fault| LineError { line, fault })?;
    }
    Ok(history)
}

/// Writes a history, by time.
///
/// # Errors
/// If the target fails.
pub fn write(history: &History, mut target: impl Write) -> io::Result<()> {
    for event in history.events() {
        serde_json::to_writer(&mut target, &event)?;
        target.write_all(b"\n")?;
    }
    target.flush()
}

fn add(history: &mut History, line: &str) -> Result<(), LineFault> {
    let event: Event = serde_json::from_str(line)?;
    history.push(event)?;
    Ok(())
}
