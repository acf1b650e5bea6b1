//! What must hold after every move.

use crate::node::Node;
use crate::world::{Violation, World};
use evenkeel_model::Slot;
use evenkeel_paxos::{Anchor, Configuration, EntryKind, MemberKind, Standing};

impl World {
    /// A replica says that its log is chosen up to here. Agreement: no other entry was ever said to be
    /// chosen there. The index never goes back. What a leader chooses is on a quorum's disks.
    pub fn committed(&mut self, at: usize, chosen: Anchor) -> Result<(), Violation> {
        let id = self.nodes[at].id();
        let before = self.nodes[at].committed;
        if chosen.slot < before {
            return Err(Violation(format!(
                "commit index of {id} went from {before} back to {}",
                chosen.slot
            )));
        }
        for slot in (before.0.max(self.nodes[at].view.base().0.slot.0) + 1)..=chosen.slot.0 {
            let slot = Slot(slot);
            let Some(entry) = self.nodes[at].view.anchor(slot) else {
                return Err(Violation(format!("{id} has slot {slot} chosen and not in its log")));
            };
            let known = *self.chosen.entry(slot).or_insert(entry.checksum);
            if known != entry.checksum {
                return Err(Violation(format!("Agreement: {id} has another entry chosen in slot {slot}")));
            }
            self.check_chain(slot, known)?;
        }
        if self.chosen.get(&chosen.slot).is_some_and(|&checksum| checksum != chosen.checksum) {
            return Err(Violation(format!("Agreement: {id} names another entry in slot {}", chosen.slot)));
        }
        self.nodes[at].committed = chosen.slot;
        if self.nodes[at].replica.standing() == Standing::Leader {
            self.acknowledged = self.acknowledged.max(chosen.slot);
            self.check_durable(at, chosen)?;
        }
        Ok(())
    }

    /// A chosen write stands behind the entry that it was proposed behind.
    fn check_chain(&self, slot: Slot, checksum: u128) -> Result<(), Violation> {
        let parent = self.parents.get(&checksum);
        let before = self.chosen.get(&Slot(slot.0 - 1));
        match (parent, before) {
            (Some(parent), Some(before)) if parent != before => {
                Err(Violation(format!("Chain: slot {slot} does not follow slot {}", slot.0 - 1)))
            }
            _ => Ok(()),
        }
    }

    /// Nothing acknowledged is lost with less than a quorum of disks. PrefixOnSwap: what a swap chooses
    /// is, with everything before it, on a quorum of the old and of the new members.
    fn check_durable(&mut self, at: usize, chosen: Anchor) -> Result<(), Violation> {
        let id = self.nodes[at].id();
        let configuration = *self.nodes[at].replica.configuration();
        let on_disk = |configuration: &Configuration| {
            configuration.quorum(|id| {
                let disk = &self.nodes[id.0 as usize - 1].disk;
                disk.base().0.slot > chosen.slot || disk.anchor(chosen.slot) == Some(chosen)
            })
        };
        if !on_disk(&configuration) {
            return Err(Violation(format!(
                "Durable: {id} has slot {} chosen and it is not on a quorum's disks",
                chosen.slot
            )));
        }
        if let Some(swap) = self.swap_at(at, chosen.slot) {
            if !on_disk(&self.configuration_before(at, chosen.slot)) || !on_disk(&swap) {
                return Err(Violation(format!(
                    "PrefixOnSwap: the swap in slot {} is not on a quorum of the old and of the new members",
                    chosen.slot
                )));
            }
            self.note("swap chosen");
        }
        Ok(())
    }

    fn swap_at(&self, at: usize, slot: Slot) -> Option<Configuration> {
        let view = &self.nodes[at].view;
        let index = usize::try_from(slot.0.checked_sub(view.base().0.slot.0 + 1)?).ok()?;
        match view.entries().get(index)?.kind {
            EntryKind::Swap(configuration) => Some(configuration),
            EntryKind::Command | EntryKind::Noop => None,
        }
    }

    fn configuration_before(&self, at: usize, slot: Slot) -> Configuration {
        let (base, configuration) = self.nodes[at].view.base();
        let mut swaps = (base.slot.0 + 1..slot.0).filter_map(|slot| self.swap_at(at, Slot(slot)));
        swaps.next_back().unwrap_or(configuration)
    }

    /// LeaseExclusion: one member at most may serve reads at a time, it has the tree, and it knows of
    /// everything that was ever acknowledged.
    pub fn check_reads(&self) -> Result<(), Violation> {
        let mut reader: Option<&Node> = None;
        for (at, node) in self.nodes.iter().enumerate() {
            if !self.may_read(at) {
                continue;
            }
            if let Some(other) = reader {
                return Err(Violation(format!(
                    "LeaseExclusion: {} and {} serve reads",
                    other.id(),
                    node.id()
                )));
            }
            reader = Some(node);
            if node.replica.member().kind == MemberKind::Log {
                return Err(Violation(format!("{} serves reads and has no tree", node.id())));
            }
            if node.replica.chosen().slot < self.acknowledged {
                return Err(Violation(format!(
                    "StaleRead: {} serves reads at slot {} and slot {} was acknowledged",
                    node.id(),
                    node.replica.chosen().slot,
                    self.acknowledged
                )));
            }
        }
        Ok(())
    }

    /// The records of a replica describe the log that it has in memory.
    pub fn check_log(&self, at: usize) -> Result<(), Violation> {
        let node = &self.nodes[at];
        let (view, replica) = (&node.view, &node.replica);
        let end = replica.end();
        let same = (replica.chosen().slot.0..=end.slot.0).all(|slot| {
            view.anchor(Slot(slot)).map(|anchor| anchor.checksum) == replica.checksum(Slot(slot))
        });
        if !same || view.anchor(Slot(end.slot.0 + 1)).is_some() || view.promised() != replica.promised() {
            return Err(Violation(format!(
                "the records of {} do not describe its log: {view:?}, {replica:?}",
                node.id()
            )));
        }
        Ok(())
    }
}
