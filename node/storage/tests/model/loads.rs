//! Bulk loads, in the middle of everything else: done, or cut by a crash, which leaves nothing or all of it.

use crate::{
    facts::{Fact, ModelPartition, meta},
    weather::is_excused,
    world::{End, World, broken},
};
use evenkeel_model::{Ballot, PartitionId, Slot, Timestamp};
use evenkeel_storage::{LoadError, NewPartition, Position, Runtime};
use std::{rc::Rc, time::Duration};

/// Longer than the log takes to write what it was given.
const WRITTEN_WITHIN: Duration = Duration::from_millis(40);

impl World {
    /// Loads a partition of a few items, unless it is there.
    pub fn load(&mut self, id: PartitionId) -> Result<(), End> {
        if self.newest.contains_key(&id) || self.is_stopped() {
            return Ok(());
        }
        // A load writes nothing into the log: what was written before it is to be there before it.
        self.runtime.pass(&self.disk, WRITTEN_WITHIN);
        if *self.acknowledged.borrow() < self.facts.len() || self.is_stopped() {
            return Ok(());
        }
        let mut partition = ModelPartition::new(self.next_generation());
        partition.last_slot = Slot(self.random.below(1_000));
        for _ in 0..self.random.below(40) {
            let key = format!("k{}", self.random.below(40)).into_bytes();
            let bytes = if self.random.once_in(15) { 9000 } else { self.random.below(600) };
            partition.items.insert(key, vec![self.random.bits() as u8; bytes as usize]);
        }
        let checksum = u128::from(self.random.bits());
        let loading = self.loading(id, partition.clone(), checksum);
        self.checkpointed.insert(id);
        let fact = Fact::Made(None, vec![(id, partition.clone())]);
        if self.random.once_in(3) {
            self.runtime.spawn(async move { drop(loading.await) });
            self.sightings.loads_cut += 1;
            return self.cut(fact);
        }
        match self.runtime.block_on(&self.disk, loading) {
            Ok(()) => {
                self.sightings.loads += 1;
                self.applied.insert(id, partition.last_slot);
                self.learned(fact, std::future::ready(Ok::<(), LoadError>(())));
                Ok(())
            }
            Err(LoadError::NotDurable { reason, .. }) if is_excused(self.weather, &reason) => self.cut(fact),
            Err(LoadError::Checkpoint(error)) if self.may_fail(&error) => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }

    fn loading(
        &self,
        id: PartitionId,
        partition: ModelPartition,
        checksum: u128,
    ) -> impl Future<Output = Result<(), LoadError>> + 'static {
        let engine = self.engine();
        async move {
            let ModelPartition { generation, last_slot, items } = partition;
            let meta = meta(id, generation);
            let new = NewPartition {
                id,
                generation,
                meta: &meta,
                state: &meta,
                base: Position { slot: last_slot, checksum },
                timestamp: Timestamp(0),
                promised: Ballot::default(),
            };
            let mut items = items.into_iter().map(|(key, image)| (Rc::from(key), Rc::from(image)));
            engine.load(new, async || items.next()).await
        }
    }
}
