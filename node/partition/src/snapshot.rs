//! Handing a partition's content to a member that is too far behind.
//!
//! Whoever lacks it asks for piece after piece (`copy.rs`); whoever has it pins its state for a while, keeps what is
//! written behind it, and answers.

use crate::hub::TailShare;
use crate::message::{Body, Piece, SnapshotEnd};
use crate::mistakes;
use crate::partition::Partition;
use evenkeel_model::Slot;
use evenkeel_paxos::{Anchor, MemberId, MemberKind};
use evenkeel_storage::{Disk, Operation, Pinned, Runtime};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How long a state stays pinned, and what was written since is kept, for a member that asks for neither.
const PIN_KEPT_NS: u64 = 5_000_000_000;
/// How often that is looked at.
const PINS_LOOKED_AT: Duration = Duration::from_secs(1);
/// A state younger than this serves whoever asks for a new one: the question was probably repeated.
const PIN_FRESH_NS: u64 = 2_000_000_000;
/// States pinned at the same time.
const PINS_MAX: usize = 2;

/// States that others are copying.
pub(crate) type Pins<D, R> = RefCell<Vec<Pin<D, R>>>;

pub(crate) struct Pin<D: Disk, R: Runtime> {
    to: MemberId,
    base: Anchor,
    pinned: Pinned<D, R>,
    end: SnapshotEnd,
    /// What is kept of the log behind it.
    tail: TailShare<R>,
    made_ns: u64,
    touched_ns: u64,
    /// All of it has been sent: who asks anew has no use for it.
    is_sent: bool,
}

impl<D: Disk, R: Runtime> Partition<D, R> {
    /// Answers with a piece of the content.
    pub(crate) fn send_piece(&self, to: MemberId, base: Option<Slot>, number: u64, after: Option<&[u8]>) {
        let now_ns = self.hub.runtime.now_ns();
        if base.is_none() {
            self.pin_for(to, now_ns);
        }
        let mut pins = self.pins.borrow_mut();
        let wanted = |pin: &&mut Pin<D, R>| pin.to == to && base.is_none_or(|slot| pin.base.slot == slot);
        let Some(pin) = pins.iter_mut().find(wanted) else { return };
        pin.touched_ns = now_ns;
        let (pinned, base, end) = (pin.pinned.clone(), pin.base, pin.end.clone());
        let mut lower = after.map(<[u8]>::to_vec).unwrap_or_default();
        if after.is_some() {
            lower.push(0);
        }
        let (this, piece_bytes) = (self.this(), self.hub.config.piece_bytes);
        self.hub.runtime.spawn(async move {
            // Whoever asked will ask again if a page could not be read.
            let Ok(page) = pinned.items_from(&lower, piece_bytes).await else { return };
            let items = page.items.into_iter().map(|(key, image)| Operation::Put { key, image }).collect();
            let last = (!page.more).then_some(end);
            let mut pins = this.pins.borrow_mut();
            let pin = pins.iter_mut().find(|pin| pin.to == to && pin.base == base);
            pin.into_iter().for_each(|pin| pin.is_sent |= last.is_some());
            drop(pins);
            this.send_body(&this.group.borrow(), to, Body::Piece(Piece { base, number, items, last }));
        });
    }

    /// Pins the present state for a member that begins to copy, and keeps the log behind it; the one pinned a
    /// moment ago will do if nothing came of it yet.
    fn pin_for(&self, to: MemberId, now_ns: u64) {
        let fresh = |pin: &Pin<D, R>| !pin.is_sent && pin.made_ns.saturating_add(PIN_FRESH_NS) > now_ns;
        self.unpin(|pin| pin.to == to && !fresh(pin));
        let mut pins = self.pins.borrow_mut();
        let group = self.group.borrow();
        let has_tree = group.replica.member().kind == MemberKind::Storage;
        if !has_tree || pins.len() >= PINS_MAX || pins.iter().any(|pin| pin.to == to) {
            return;
        }
        let Ok(pinned) = self.engine.pin(self.row().id) else { return };
        let state = group.state(!self.errs(mistakes::TOKENS_LOST_IN_SNAPSHOT));
        let end = SnapshotEnd { timestamp: self.last_timestamp(), state };
        let (base, tail) = (group.replica.chosen(), self.hub.take_tail());
        let (this, runtime) = (Rc::downgrade(&self.this()), self.hub.runtime.clone());
        self.hub.runtime.spawn(unpin_in_time(this, runtime, to, now_ns));
        pins.push(Pin { to, base, pinned, end, tail, made_ns: now_ns, touched_ns: now_ns, is_sent: false });
        self.keep_tail(&pins);
    }

    /// Takes note that a member has been sent what was written while it copied.
    pub(crate) fn goes_on(&self, to: MemberId) {
        let now_ns = self.hub.runtime.now_ns();
        self.pins.borrow_mut().iter_mut().filter(|pin| pin.to == to).for_each(|pin| pin.touched_ns = now_ns);
    }

    /// Lets go of some of the states, and of what was kept behind them.
    fn unpin(&self, which: impl Fn(&Pin<D, R>) -> bool) {
        let mut pins = self.pins.borrow_mut();
        let before = pins.len();
        pins.retain(|pin| !which(pin));
        if pins.len() < before {
            self.keep_tail(&pins);
        }
    }

    fn keep_tail(&self, pins: &[Pin<D, R>]) {
        let more: u64 = pins.iter().map(|pin| pin.tail.bytes).sum();
        self.engine.keep(self.row().id, self.hub.config.tail_bytes_max + more);
    }
}

/// Lets go of a state once nobody asks for it any more.
async fn unpin_in_time<D: Disk, R: Runtime>(
    partition: Weak<Partition<D, R>>,
    runtime: R,
    to: MemberId,
    made_ns: u64,
) {
    loop {
        runtime.sleep(PINS_LOOKED_AT).await;
        let Some(this) = partition.upgrade() else { return };
        let this_one = |pin: &Pin<D, R>| pin.to == to && pin.made_ns == made_ns;
        let now_ns = runtime.now_ns();
        this.unpin(|pin| this_one(pin) && pin.touched_ns.saturating_add(PIN_KEPT_NS) <= now_ns);
        if !this.pins.borrow().iter().any(this_one) {
            return;
        }
    }
}
