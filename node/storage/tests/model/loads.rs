//! Bulk loads, in the middle of everything else: of a new partition, and in the place of what one has.

use crate::{
    facts::{Fact, ModelPartition, meta},
    making::{Failure, Made},
    world::{End, World},
};
use evenkeel_model::{Ballot, PartitionId, Slot, Timestamp};
use evenkeel_storage::{NewPartition, Position};
use std::rc::Rc;

impl World {
    /// Loads a partition of a few items, unless it is there.
    pub fn load(&mut self, id: PartitionId) -> Result<(), End> {
        if self.newest.contains_key(&id) || self.is_stopped() || !self.write_everything() {
            return Ok(());
        }
        let mut partition = ModelPartition::new(self.next_generation());
        partition.last_slot = Slot(self.random.below(1_000));
        partition.items.extend(self.some_items());
        let checksum = u128::from(self.random.bits());
        let loading = self.loading(id, partition.clone(), checksum);
        self.checkpointed.insert(id);
        match self.make(Some(Fact::Made(None, vec![(id, partition.clone())])), loading)? {
            Made::Done => {
                self.sightings.loads += 1;
                self.applied.insert(id, partition.last_slot);
            }
            Made::Cut => self.sightings.loads_cut += 1,
            Made::Refused => {}
        }
        Ok(())
    }

    fn loading(
        &self,
        id: PartitionId,
        partition: ModelPartition,
        checksum: u128,
    ) -> impl Future<Output = Result<(), Failure>> + 'static {
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
            Ok(engine.load(new, async || items.next()).await?)
        }
    }

    /// Puts content in the place of what a partition has, as of a slot behind what is applied.
    pub fn install(&mut self, id: PartitionId) -> Result<(), End> {
        let Some(known) = self.newest.get(&id).cloned() else { return Ok(()) };
        if self.is_stopped() || !self.write_everything() {
            return Ok(());
        }
        let (applied, end) = (self.applied[&id], known.last_slot);
        let slot = Slot((applied.0 + self.random.below(end.0 - applied.0 + 4)).max(1));
        let continued = self.engine().position(id, slot).filter(|_| self.random.once_in(2));
        let (content, base) = match continued {
            // What is in the log behind the base goes on to be there.
            Some(base) => (self.at_slot(id, slot), base),
            None => {
                let mut other = ModelPartition::new(known.generation);
                other.last_slot = slot;
                other.items.extend(self.some_items());
                (other, Position { slot, checksum: u128::from(self.random.bits()) })
            }
        };
        let fact = continued.is_none().then(|| Fact::Made(Some(id), vec![(id, content.clone())]));
        let installing = self.installing(id, content, base);
        self.checkpointed.insert(id);
        match self.make(fact, installing)? {
            Made::Done => {
                self.sightings.installs += 1;
                self.sightings.installs_continued += u64::from(continued.is_some());
                self.applied.insert(id, slot);
            }
            Made::Cut => self.sightings.installs_cut += 1,
            Made::Refused => {}
        }
        Ok(())
    }

    fn installing(
        &self,
        id: PartitionId,
        content: ModelPartition,
        base: Position,
    ) -> impl Future<Output = Result<(), Failure>> + 'static {
        let engine = self.engine();
        async move {
            let state = meta(id, content.generation);
            let mut items = content.items.into_iter().map(|(key, image)| (Rc::from(key), Rc::from(image)));
            let loaded = engine.load_content(id, async || items.next()).await?;
            let prepared = engine.prepare(id, loaded, &state).await?;
            let installed = prepared.install(base, Timestamp(0))?;
            installed.until_durable().await.map_err(Failure::NotDurable)
        }
    }
}
