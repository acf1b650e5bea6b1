//! Counters of a client: plain atomics, added to on the path of requests and read by anyone.

use crate::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a client has done since it connected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ClientStatistics {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ClientStatistics {
                ClientStatistics { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters!(
    /// Requests begun, each counted once whatever its number of attempts. A range is a request a page of
    /// each partition; readings of the catalogue are counted apart.
    requests,
    /// Attempts after the first.
    retries,
    /// Connections made.
    connections,
    /// Connections lost.
    connections_lost,
    /// Connections that could not be made.
    connections_failed,
    /// Frames from nodes that were malformed; each ends its connection.
    malformed_frames,
    /// Answers that came when nobody waited for them any more.
    late_answers,
    /// Readings of the catalogue.
    catalogue_reads,
    /// Requests that failed because the cluster was too busy or full.
    errors_overloaded,
    /// Requests that failed because their time was up.
    errors_expired,
    /// Writes whose outcome is unknown.
    errors_outcome_unknown,
    /// Requests that failed because the cluster could not be reached.
    errors_unavailable,
    /// Requests that were refused for what they asked.
    errors_refused,
    /// Requests that failed by a fault of Evenkeel.
    errors_internal,
);

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn failed(&self, error: &Error) {
        let counter = match error {
            Error::Overloaded { .. } => &self.errors_overloaded,
            Error::Expired { .. } => &self.errors_expired,
            Error::OutcomeUnknown { .. } => &self.errors_outcome_unknown,
            Error::Unavailable { .. } | Error::Seeds { .. } | Error::Closed => &self.errors_unavailable,
            Error::Damaged { .. } | Error::Internal { .. } => &self.errors_internal,
            _ => &self.errors_refused,
        };
        counter.add(1);
    }
}
