//! Support between pairs of cores: what leases rest on, at a constant cost, however many groups there are.
//!
//! Each core tells each other core that it shares a group with, once a period, "support me", and answers
//! the same from the other side. The asker counts what it is given from when it *sent* the wish, the
//! giver from when the wish *arrived*, and a little longer for clocks that run apart: so the asker's
//! count always ends first. Support that lapsed never revives: the next one is a new epoch, and groups
//! that were bound under the old epoch are not bound under the new one.
//!
//! It knows nothing of groups and ballots; what support means to a group is `lease.rs`.

#[cfg(feature = "traps")]
use crate::settings::Trap;
use crate::settings::{Grant, Time};

/// How long support lasts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SupportSettings {
    /// How long an asker may count on it, from when it asked.
    pub lease_ns: u64,
    /// How much longer the giver stands by it, from when the wish arrived: more than two clocks can drift
    /// apart within a lease.
    pub drift_ns: u64,
    /// How often wishes are sent.
    pub period_ns: u64,
    /// The mistake that is switched on.
    #[cfg(feature = "traps")]
    pub trap: Option<Trap>,
}

impl Default for SupportSettings {
    fn default() -> SupportSettings {
        SupportSettings {
            lease_ns: 1_000_000_000,
            drift_ns: 10_000_000,
            period_ns: 200_000_000,
            #[cfg(feature = "traps")]
            trap: None,
        }
    }
}

/// The message of one core to another, once a period. May be lost, repeated and reordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Support {
    /// The life of the sending core; greater after each start.
    pub incarnation: u32,
    /// When this was sent, on the sender's clock, if it wishes for support. A core whose log makes no
    /// progress does not.
    pub wish: Option<Time>,
    /// The answer to the newest wish that arrived.
    pub answer: Option<Answer>,
}

/// Support that the sender gives to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The life of the receiver in which it asked.
    pub incarnation: u32,
    /// When it asked, on its own clock.
    pub asked: Time,
    /// The stretch of uninterrupted support.
    pub epoch: u64,
}

/// The support between one core and its peers, which the shell numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Supports {
    settings: SupportSettings,
    incarnation: u32,
    epochs: u32,
    now: Time,
    /// When all support of former lives has ended, which this one knows nothing else of.
    former_until: Time,
    peers: Vec<Peer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    incarnation: u32,
    asked: Time,
    given: Grant,
    received: Grant,
}

impl Supports {
    /// A core that starts its `incarnation`th life, from 1, with this many peers. `former_until` is when all
    /// support of its former lives has ended: from then on its members vote.
    ///
    /// # Panics
    /// If `incarnation` is 0.
    pub fn new(settings: SupportSettings, incarnation: u32, peers: usize, former_until: Time) -> Supports {
        assert!(incarnation > 0, "lives are counted from 1");
        Supports {
            settings,
            incarnation,
            epochs: 0,
            now: Time::default(),
            former_until,
            peers: vec![Peer::default(); peers],
        }
    }

    /// One peer more; yields its number.
    pub fn add_peer(&mut self) -> usize {
        self.peers.push(Peer::default());
        self.peers.len() - 1
    }

    /// How long after an unclean start the core must not vote: it may have supported anybody.
    pub fn restart_wait_ns(settings: &SupportSettings) -> u64 {
        settings.lease_ns + settings.drift_ns
    }

    /// Until when this core supports anybody, its former lives included. An orderly stop records it durably; the next life on the same
    /// clock votes from then on, and need not wait a full lease. (A stop is not enough: its supporters'
    /// leases outlive it, and so would the votes that they rest on be forgotten.)
    pub fn given_until(&self) -> Time {
        self.peers.iter().map(|peer| peer.given.until).fold(self.former_until, Time::max)
    }

    /// Support that `peer` gives.
    pub fn received(&self, peer: usize) -> Grant {
        self.peers[peer].received
    }

    /// Support that this core gives to `peer`.
    pub fn given(&self, peer: usize) -> Grant {
        self.peers[peer].given
    }

    /// The message for `peer`; due once a period. `log_moves` says whether writes of this core complete.
    pub fn message(&mut self, now: Time, peer: usize, log_moves: bool) -> Support {
        let now = self.clock(now);
        let other = &self.peers[peer];
        let wishes = log_moves || self.trapped_stuck();
        Support {
            incarnation: self.incarnation,
            wish: wishes.then_some(now),
            answer: other.given.live(now).then_some(Answer {
                incarnation: other.incarnation,
                asked: other.asked,
                epoch: other.given.epoch,
            }),
        }
    }

    /// Takes a message in. Returns whether support began, in either direction: groups shared with this
    /// peer then want to hear of it.
    pub fn receive(&mut self, now: Time, peer: usize, message: &Support) -> bool {
        let now = self.clock(now);
        let received = self.receive_wish(now, peer, message);
        let given = message.answer.is_some_and(|answer| self.receive_answer(now, peer, answer));
        received || given
    }

    fn receive_wish(&mut self, now: Time, peer: usize, message: &Support) -> bool {
        let Some(asked) = message.wish else { return false };
        let other = self.peers[peer];
        if message.incarnation < other.incarnation {
            return false;
        }
        let reborn = message.incarnation > other.incarnation;
        let lapsed = !other.given.live(now) && !self.trapped_lapse(&other);
        let mut given = other.given;
        if reborn || lapsed {
            self.epochs = self.epochs.checked_add(1).expect("2^32 lapses outlast any process");
            given.epoch = u64::from(self.incarnation) << 32 | u64::from(self.epochs);
        }
        let counted_from = self.granters_start(now, asked);
        given.until = given.until.max(counted_from.after(self.settings.lease_ns + self.settings.drift_ns));
        let asked = if reborn { asked } else { asked.max(other.asked) };
        self.peers[peer] = Peer { incarnation: message.incarnation, asked, given, ..other };
        reborn || lapsed
    }

    fn receive_answer(&mut self, now: Time, peer: usize, answer: Answer) -> bool {
        let lease_ns = self.settings.lease_ns;
        let counted_from = self.holders_start(now, answer.asked);
        let received = &mut self.peers[peer].received;
        if answer.incarnation != self.incarnation || answer.epoch < received.epoch {
            return false;
        }
        let began = answer.epoch > received.epoch || !received.live(now);
        let until = counted_from.after(lease_ns);
        if answer.epoch > received.epoch {
            *received = Grant { epoch: answer.epoch, until };
        } else {
            received.until = received.until.max(until);
        }
        began
    }

    /// Time never goes backwards.
    fn clock(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }
}

/// What the mistakes of the list change here.
#[cfg(feature = "traps")]
impl Supports {
    /// Goes on without the mistake.
    pub fn switch_off(&mut self) {
        self.settings.trap = None;
    }

    fn trapped(&self, trap: Trap) -> bool {
        self.settings.trap == Some(trap)
    }

    fn trapped_stuck(&self) -> bool {
        self.trapped(Trap::StuckDiskRenews)
    }

    fn trapped_lapse(&self, other: &Peer) -> bool {
        self.trapped(Trap::LapseForgotten) && other.given.epoch != 0
    }

    fn granters_start(&self, now: Time, asked: Time) -> Time {
        if self.trapped(Trap::SupportFromSending) { asked } else { now }
    }

    fn holders_start(&self, now: Time, asked: Time) -> Time {
        if self.trapped(Trap::LeaseFromArrival) { now } else { asked }
    }
}

#[cfg(not(feature = "traps"))]
impl Supports {
    fn trapped_stuck(&self) -> bool {
        false
    }

    fn trapped_lapse(&self, _other: &Peer) -> bool {
        false
    }

    fn granters_start(&self, now: Time, _asked: Time) -> Time {
        now
    }

    fn holders_start(&self, _now: Time, asked: Time) -> Time {
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [Supports; 2] {
        let settings =
            SupportSettings { lease_ns: 100, drift_ns: 10, period_ns: 20, ..SupportSettings::default() };
        [
            Supports::new(settings.clone(), 1, 1, Time::default()),
            Supports::new(settings, 1, 1, Time::default()),
        ]
    }

    /// One exchange: the first core asks at `asked`, the second answers at `answered`, on its own clock,
    /// and the answer arrives at `arrived`.
    fn exchange(pair: &mut [Supports; 2], asked: u64, answered: u64, arrived: u64) {
        let wish = pair[0].message(Time(asked), 0, true);
        pair[1].receive(Time(answered), 0, &wish);
        let answer = pair[1].message(Time(answered), 0, true);
        pair[0].receive(Time(arrived), 0, &answer);
    }

    #[test]
    fn the_asker_counts_from_sending_and_the_giver_from_arrival() {
        let mut pair = pair();
        exchange(&mut pair, 1000, 5030, 1060);
        assert_eq!(pair[0].received(0).until, Time(1100));
        assert_eq!(pair[1].given(0).until, Time(5140));
        assert_eq!(pair[0].received(0).epoch, pair[1].given(0).epoch);
    }

    #[test]
    fn support_that_lapsed_comes_back_as_another_epoch() {
        let mut pair = pair();
        exchange(&mut pair, 1000, 5000, 1010);
        let first = pair[0].received(0).epoch;
        exchange(&mut pair, 1090, 5109, 1095);
        assert_eq!(pair[0].received(0).epoch, first);
        exchange(&mut pair, 1200, 5219, 1210);
        assert!(pair[0].received(0).epoch > first);
    }

    #[test]
    fn a_core_that_was_started_again_is_supported_anew() {
        let mut pair = pair();
        exchange(&mut pair, 1000, 5000, 1010);
        let first = pair[1].given(0).epoch;
        let stale = pair[0].message(Time(1020), 0, true);
        pair[0] = Supports::new(pair[0].settings.clone(), 2, 1, Time::default());
        exchange(&mut pair, 1030, 5030, 1040);
        let second = pair[1].given(0).epoch;
        assert!(second > first);
        pair[1].receive(Time(5040), 0, &stale);
        assert_eq!(pair[1].given(0).epoch, second, "a wish of its former life is ignored");
    }

    #[test]
    fn a_core_whose_log_is_stuck_asks_for_nothing() {
        let mut pair = pair();
        assert_eq!(pair[0].message(Time(1), 0, false).wish, None);
        let mistaken = SupportSettings { trap: Some(Trap::StuckDiskRenews), ..SupportSettings::default() };
        assert!(Supports::new(mistaken, 1, 1, Time::default()).message(Time(1), 0, false).wish.is_some());
    }

    #[test]
    fn what_a_former_life_gave_is_remembered_through_every_stop() {
        let settings = SupportSettings::default();
        let second = Supports::new(settings.clone(), 2, 1, Time(500));
        assert_eq!(second.given_until(), Time(500), "it has given nothing itself");
        let third = Supports::new(settings, 3, 1, second.given_until());
        assert_eq!(third.given_until(), Time(500));
    }

    #[test]
    fn a_clock_that_goes_backwards_prolongs_nothing() {
        let mut pair = pair();
        exchange(&mut pair, 1000, 5000, 1010);
        assert_eq!(pair[0].message(Time(900), 0, true).wish, Some(Time(1010)));
    }
}
