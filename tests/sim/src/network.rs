//! The links between machines: what becomes of a message is drawn when it is sent.

use crate::swarm::Swarm;
use evenkeel_storage::memory::Random;
use std::collections::BTreeSet;

/// What a message takes at least and at most when nothing is wrong.
const USUAL_NS: std::ops::Range<u64> = 50_000..500_000;
/// Messages between cores of one node take this.
const WITHIN_NODE_NS: u64 = 5_000;
const MILLION: u64 = 1_000_000;

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// A node.
    Node(usize),
    /// All clients.
    Clients,
}

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The link is cut, or it was lost.
    Lost,
    /// It arrives, after so many nanoseconds.
    Arrives(u64),
    /// It arrives twice.
    Twice(u64, u64),
}

/// All links.
#[derive(Clone, Default, Debug)]
pub struct Network {
    /// Directions in which nothing gets through.
    cut: BTreeSet<(End, End)>,
}

impl Network {
    /// Cuts one direction.
    pub fn cut(&mut self, from: End, to: End) {
        self.cut.insert((from, to));
    }

    /// Mends one direction.
    pub fn mend(&mut self, from: End, to: End) {
        self.cut.remove(&(from, to));
    }

    /// Mends everything.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Draws the fate of a message.
    pub fn send(&self, from: End, to: End, swarm: &Swarm, random: &mut Random) -> Fate {
        if self.cut.contains(&(from, to)) {
            return Fate::Lost;
        }
        if from == to {
            return Fate::Arrives(WITHIN_NODE_NS);
        }
        if random.below(MILLION) < swarm.drop {
            return Fate::Lost;
        }
        // A client's stream carries each frame once; links between cores begin anew and repeat themselves.
        let streamed = from == End::Clients || to == End::Clients;
        let twice = !streamed && random.below(MILLION) < swarm.duplicate;
        let mut delay_ns = || {
            let usual = USUAL_NS.start + random.below(USUAL_NS.end - USUAL_NS.start);
            let delayed = random.below(MILLION) < swarm.delay;
            if delayed { usual + random.below(swarm.delay_ns_max) } else { usual }
        };
        if twice { Fate::Twice(delay_ns(), delay_ns()) } else { Fate::Arrives(delay_ns()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_holds_in_one_direction_until_it_is_mended() {
        let (mut network, mut random) = (Network::default(), Random::new(1));
        let (one, other) = (End::Node(0), End::Node(1));
        network.cut(one, other);
        for _ in 0..100 {
            assert_eq!(network.send(one, other, &Swarm::calm(), &mut random), Fate::Lost);
            assert_ne!(network.send(other, one, &Swarm::calm(), &mut random), Fate::Lost);
        }
        network.mend(one, other);
        assert_ne!(network.send(one, other, &Swarm::calm(), &mut random), Fate::Lost);
    }

    #[test]
    fn losses_repeats_and_delays_are_as_frequent_as_they_should_be() {
        let mut random = Random::new(1);
        let swarm = Swarm {
            drop: 100_000,
            duplicate: 200_000,
            delay: 300_000,
            delay_ns_max: 1_000_000_000,
            ..Swarm::calm()
        };
        let fates: Vec<_> = (0..10_000)
            .map(|_| Network::default().send(End::Node(0), End::Node(1), &swarm, &mut random))
            .collect();
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
        assert!((800..1_200).contains(&count(|fate| *fate == Fate::Lost)));
        assert!((1_600..2_000).contains(&count(|fate| matches!(fate, Fate::Twice(..)))));
        let late = |fate: &Fate| matches!(fate, Fate::Arrives(delay) if *delay > 1_000_000);
        assert!((1_900..2_400).contains(&count(late)));
    }
}
