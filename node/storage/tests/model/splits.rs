//! Splits, in the middle of everything else: done, or cut by a crash, which leaves the parent or both children.

use crate::{
    common::Appends,
    facts::{Fact, ModelPartition, meta},
    making::{Failure, Made},
    world::{End, PARTITIONS, World, broken},
};
use evenkeel_model::PartitionId;
use evenkeel_storage::Child;

impl World {
    /// Applies and merges all that a partition has, makes that durable and splits it, if it is there and ids are
    /// free.
    pub fn split(&mut self, parent: PartitionId) -> Result<(), End> {
        let free = PARTITIONS.into_iter().filter(|id| !self.newest.contains_key(id));
        let &[left, right] = &free.take(2).collect::<Vec<_>>()[..] else { return Ok(()) };
        let Some(known) = self.newest.get(&parent).cloned() else { return Ok(()) };
        if self.is_stopped() || !self.settle(parent)? {
            return Ok(());
        }
        let key = format!("k{}", self.random.below(40)).into_bytes();
        let [one, other] = known.split(&key, [self.next_generation(), self.next_generation()]);
        let children = [(left, one), (right, other)];
        let splitting = self.splitting(parent, key, &children);
        self.checkpointed.extend([left, right]);
        match self.make(Some(Fact::Made(Some(parent), children.to_vec())), splitting)? {
            Made::Done => {
                self.sightings.splits += 1;
                self.applied.remove(&parent);
                self.applied.extend(children.map(|(id, child)| (id, child.last_slot)));
            }
            Made::Cut => self.sightings.splits_cut += 1,
            Made::Refused => {}
        }
        Ok(())
    }

    fn splitting(
        &self,
        parent: PartitionId,
        key: Vec<u8>,
        children: &[(PartitionId, ModelPartition); 2],
    ) -> impl Future<Output = Result<(), Failure>> + 'static {
        let engine = self.engine();
        let known =
            children.each_ref().map(|(id, child)| (*id, child.generation, meta(*id, child.generation)));
        async move {
            let children = known.each_ref().map(|(id, generation, meta)| Child {
                id: *id,
                generation: *generation,
                meta,
                state: meta,
            });
            Ok(engine.split(parent, &key, children).await?)
        }
    }

    /// Leaves nothing to apply and to merge; yields whether it could be done.
    fn settle(&mut self, id: PartitionId) -> Result<bool, End> {
        let last = self.newest[&id].last_slot;
        self.engine().apply_to(id, last);
        self.applied.insert(id, last);
        let (engine, state) = (self.engine(), meta(id, self.newest[&id].generation));
        self.checkpointed.insert(id);
        let settling = async {
            engine.checkpoint(id, &state).await?;
            engine.flip().await
        };
        match self.runtime.block_on(&self.disk, settling) {
            Ok(()) => Ok(true),
            Err(error) if self.may_fail(&error) => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }
}
