//! Marks, in the middle of everything else: a merge that ends at one has the content of its slot and no other.

use crate::{
    facts::ModelPartition,
    world::{End, World},
};
use evenkeel_model::PartitionId;
use evenkeel_storage::Mark;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// The sum of the hashes of what a partition holds.
fn content_hash(partition: &ModelPartition) -> u128 {
    let each = partition.items.iter().map(|(key, image)| xxh3_128_with_seed(image, xxh3_64(key)));
    each.fold(0, u128::wrapping_add)
}

impl World {
    /// Has the next merge of a partition end where it is applied to now.
    pub fn mark(&mut self, id: PartitionId) {
        let Some(generation) = self.newest.get(&id).map(|partition| partition.generation) else { return };
        let state = self.state(id, generation);
        if self.engine().mark(id, &state).is_err() {
            self.sightings.marks_passed += 1;
            return;
        }
        let slot = self.applied[&id];
        let content_hash = content_hash(&self.at_slot(id, slot));
        self.checkpointed.insert(id);
        self.marks.insert(id, (generation, Mark { slot, content_hash }));
    }

    /// Compares what merges that have ended at marks have made with what partitions held there.
    pub fn compare_marks(&mut self) -> Result<(), End> {
        let engine = self.engine();
        let ended = |(id, (generation, mark)): (&PartitionId, &(_, Mark))| {
            let same_life = engine.generation(*id) == Some(*generation);
            let last = engine.last_mark(*id).filter(|last| same_life && last.slot == mark.slot)?;
            Some((*id, *mark, last))
        };
        let ended: Vec<_> = self.marks.iter().filter_map(ended).collect();
        for (id, mark, last) in ended {
            self.marks.remove(&id);
            self.sightings.marks += 1;
            if mark != last {
                return Err(End::Broken(format!(
                    "partition {id} is {last:?} after a merge, and was {mark:?}"
                )));
            }
        }
        Ok(())
    }
}
