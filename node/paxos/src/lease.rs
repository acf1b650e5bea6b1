//! The lease: whether a leader may serve strongly consistent reads at this moment.
//!
//! Support is between cores, promises are per group, and the lease is where they meet. A member's support
//! counts once that member has acknowledged this leader's ballot, under the epoch of support it named
//! when it did. From then on, while its core supports that epoch, the member promises nobody else a
//! ballot (`acceptor.rs`). So while a quorum supports the leader there is no quorum for another one; and
//! a lapse ends the epoch, so that support renewed afterwards, by a core that does not know what its
//! groups have promised meanwhile, counts for nothing until the member acknowledges again.

use crate::configuration::MemberId;
use crate::replica::{Replica, Role, Step};
use crate::settings::{Facts, Time, trap};
use evenkeel_model::Slot;

impl Replica {
    /// Whether a strongly consistent read may be answered from everything applied here. To be asked again
    /// when the data has been read, just before the answer leaves.
    pub fn may_read(&self, now: Time, facts: &impl Facts) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let opened = leading.opened != Slot(0) && self.log.chosen().slot >= leading.opened;
        (opened || trap!(facts, ReadBeforeNoop)) && self.supported(self.clock(now, facts), facts)
    }

    fn clock(&self, now: Time, facts: &impl Facts) -> Time {
        if trap!(facts, TimeGoesBack) { now } else { self.now.max(now) }
    }

    pub(crate) fn holds_lease<F: Facts>(&self, step: &Step<'_, F>) -> bool {
        self.supported(step.now, step.facts)
    }

    /// Whether a quorum is bound to this leader and supports it; while a swap is under way, a quorum of the
    /// old and of the new members.
    fn supported(&self, now: Time, facts: &impl Facts) -> bool {
        let supports = |id| self.supports(now, facts, id);
        self.log.configuration().quorum(supports)
            && self.log.pending().is_none_or(|pending| pending.quorum(supports))
    }

    fn supports(&self, now: Time, facts: &impl Facts, id: MemberId) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        if id == self.id() {
            return true;
        }
        let received = facts.received(id);
        let bound = leading.peer(id).is_some_and(|peer| peer.epoch != 0 && peer.epoch == received.epoch);
        received.live(now) && (bound || trap!(facts, SupportWithoutBinding))
    }
}
