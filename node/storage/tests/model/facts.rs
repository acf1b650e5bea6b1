//! The model: what partitions hold, as a list of what has come to be makes it.

use evenkeel_model::{Generation, PartitionId, Slot};
use std::collections::BTreeMap;

/// What has come to be: a record of the log, or what a flip has made durable.
#[derive(Clone, Debug)]
pub enum Fact {
    Created(PartitionId, Generation),
    Dropped(PartitionId),
    Appended(PartitionId, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// Partitions have come whole, in the place of one or of none.
    Made(Option<PartitionId>, Vec<(PartitionId, ModelPartition)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPartition {
    pub generation: Generation,
    pub last_slot: Slot,
    pub items: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl ModelPartition {
    pub fn new(generation: Generation) -> Self {
        ModelPartition { generation, last_slot: Slot(0), items: BTreeMap::new() }
    }

    /// What a split at `key` leaves to each child.
    pub fn split(&self, key: &[u8], generations: [Generation; 2]) -> [ModelPartition; 2] {
        let mut left = self.items.clone();
        let right = left.split_off(key);
        let [one, other] = generations;
        [(one, left), (other, right)].map(|(generation, items)| ModelPartition {
            generation,
            last_slot: self.last_slot,
            items,
        })
    }

    pub fn change(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        self.last_slot = self.last_slot.next();
        for (key, image) in changes {
            match image {
                Some(image) => drop(self.items.insert(key.clone(), image.clone())),
                None => drop(self.items.remove(key)),
            }
        }
    }
}

pub type Model = BTreeMap<PartitionId, ModelPartition>;

pub fn learn(model: &mut Model, fact: &Fact) {
    match fact {
        Fact::Created(id, generation) => {
            assert!(model.insert(*id, ModelPartition::new(*generation)).is_none());
        }
        Fact::Dropped(id) => assert!(model.remove(id).is_some()),
        Fact::Made(replaced, made) => {
            if let Some(replaced) = replaced {
                assert!(model.remove(replaced).is_some());
            }
            for (id, partition) in made {
                assert!(model.insert(*id, partition.clone()).is_none());
            }
        }
        Fact::Appended(id, changes) => model.get_mut(id).expect("the partition exists").change(changes),
    }
}

/// What its owner wants to know of a partition.
pub fn meta(id: PartitionId, generation: Generation) -> Vec<u8> {
    format!("partition {id} generation {generation}").into_bytes()
}
