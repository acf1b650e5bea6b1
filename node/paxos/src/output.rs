//! What a step asks the shell to do.
//!
//! The caller owns the buffer and uses it again, so that a step allocates nothing once the buffer has
//! grown to its usual size.

use crate::configuration::{Configuration, MemberId};
use crate::entry::{Anchor, Entry};
use crate::message::Message;
use evenkeel_model::{Ballot, Slot};
use std::ops::Range;

/// Names a log write of one group. Writes complete in the order of their tokens; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Entries in [`Output::entries`].
pub type Span = Range<u32>;

/// A record of the group's log. Written in order; a crash may keep any prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Nothing below `ballot` is accepted from now on.
    Promise {
        /// The promised ballot.
        ballot: Ballot,
    },
    /// Everything up to `after` is accepted under `ballot`; the entries of the record, if there are any,
    /// replace what stands behind it. May be cut between entries.
    Accept {
        /// The ballot, promised by this too.
        ballot: Ballot,
        /// The entry before the record's first one.
        after: Anchor,
        /// Up to where the log is known to be chosen.
        chosen: Slot,
    },
    /// The log begins anew behind a chosen entry.
    Begin {
        /// That entry.
        base: Anchor,
        /// The members as of it.
        configuration: Configuration,
    },
}

/// One thing for the shell to do. They may be done in any order, except that records are written in the
/// order they come, and a message waits for its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write a record, then say [`Input::Persisted`](crate::Input::Persisted).
    Persist {
        /// The name of this write.
        token: Token,
        /// What to write.
        record: Record,
        /// Its entries.
        entries: Span,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
        /// Its entries; the shell adds their payloads.
        entries: Span,
        /// The write that must be durable before it may leave.
        after: Token,
    },
    /// The log is chosen up to here; the slots behind the last such action may be applied.
    Committed {
        /// The last chosen entry.
        chosen: Anchor,
    },
    /// The replica leads, follows, or stands for election; see [`Standing`](crate::Standing).
    Leadership {
        /// Under which ballot.
        ballot: Ballot,
        /// Whether it leads. What it may serve is asked of it when it is served.
        leads: bool,
    },
    /// Read entries behind `after` from the log and hand them back as
    /// [`Input::Loaded`](crate::Input::Loaded), or say that the log begins later
    /// ([`Input::Trimmed`](crate::Input::Trimmed)).
    Load {
        /// For whom; handed back.
        to: MemberId,
        /// The slot before the first one wanted.
        after: Slot,
        /// The last slot wanted; fewer may be given.
        upto: Slot,
    },
    /// The replica is too far behind: fetch the partition's snapshot, install it, and say
    /// [`Input::Installed`](crate::Input::Installed).
    NeedSnapshot {
        /// Who has one.
        from: MemberId,
        /// The least that is of use.
        base: Anchor,
    },
    /// Others reach the leader and this replica does not, for too long; tell the control plane.
    Blocked {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// The replica is no member any more, by a chosen swap; it may be dropped.
    Removed,
}

/// The buffer a step fills. Cleared by the caller, between steps or not.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// What to do.
    pub actions: Vec<Action>,
    /// The entries that the actions speak of.
    pub entries: Vec<Entry>,
}

impl Output {
    /// Forgets what is in it, and keeps its memory.
    pub fn clear(&mut self) {
        self.actions.clear();
        self.entries.clear();
    }

    /// The entries of an action.
    pub fn span(&self, span: &Span) -> &[Entry] {
        &self.entries[span.start as usize..span.end as usize]
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn hold(&mut self, entries: impl IntoIterator<Item = Entry>) -> Span {
        let start = self.entries.len();
        self.entries.extend(entries);
        let bound = |at: usize| u32::try_from(at).expect("a step speaks of less than 2^32 entries");
        bound(start)..bound(self.entries.len())
    }
}
