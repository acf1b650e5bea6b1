//! The partitions of one shard: which are here, created and dropped durably.

use crate::error::{CreateError, OpenError, RowFault};
use crate::partition::Partition;
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{Generation, ItemView, PartitionId, Slot, Timestamp};
use evenkeel_storage::{Disk, Engine, EngineStatistics, Recovery, Runtime, WalFailed};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The partitions that share one engine, on one core.
pub struct Shard<D: Disk, R: Runtime> {
    engine: Engine<D, R>,
    runtime: R,
    partitions: RefCell<HashMap<PartitionId, Rc<Partition<D, R>>>>,
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Takes up the partitions that recovery found.
    ///
    /// # Errors
    /// A partition whose recorded row is malformed: the log is of another version, or wrong.
    pub fn open(engine: Engine<D, R>, runtime: R, recovery: &Recovery) -> Result<Shard<D, R>, OpenError> {
        let mut partitions = HashMap::new();
        for found in &recovery.partitions {
            let row = parse_row(&found.meta).map_err(|fault| OpenError::from((found.id, fault)))?;
            let partition =
                Partition::open(row, engine.clone(), runtime.clone(), found.last_slot, found.last_timestamp);
            partitions.insert(found.id, Rc::new(partition));
        }
        Ok(Shard { engine, runtime, partitions: RefCell::new(partitions) })
    }

    fn partition(&self, id: PartitionId, generation: Generation) -> Option<Rc<Partition<D, R>>> {
        let partitions = self.partitions.borrow();
        partitions.get(&id).filter(|partition| partition.row().generation == generation).cloned()
    }

    /// The partition, if it is here under this generation and not being dropped.
    pub fn serving(&self, id: PartitionId, generation: Generation) -> Option<Rc<Partition<D, R>>> {
        self.partition(id, generation).filter(|partition| !partition.is_closed())
    }

    /// How many partitions are here.
    pub fn partition_count(&self) -> usize {
        self.partitions.borrow().len()
    }

    /// The engine's counters.
    pub fn statistics(&self) -> EngineStatistics {
        self.engine.statistics()
    }

    /// Creates a partition as its stored catalogue row says; durable when it returns. One that is here
    /// already under this generation is left as it is.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn create(&self, id: PartitionId, stored_row: &[u8]) -> Result<(), CreateError> {
        let row = parse_row(stored_row).map_err(|fault| CreateError::from((id, fault)))?;
        if row.id != id {
            return Err(CreateError::Row {
                partition: id,
                reason: format!("it describes partition {}", row.id),
            });
        }
        let here = self.partitions.borrow().get(&id).map(|partition| partition.row().generation);
        match here {
            Some(here) if here == row.generation => return Ok(()),
            Some(here) if here > row.generation => {
                return Err(CreateError::Generation { partition: id, here, asked: row.generation });
            }
            _ => {}
        }
        self.engine.create_partition(id, row.generation, stored_row).await?;
        let partition =
            Partition::open(row, self.engine.clone(), self.runtime.clone(), Slot(0), Timestamp(0));
        self.partitions.borrow_mut().insert(id, Rc::new(partition));
        Ok(())
    }

    /// Drops a partition and what it holds; durable when it returns. One that is not here is gone already.
    ///
    /// # Errors
    /// As [`Shard::create`].
    pub async fn drop_partition(&self, id: PartitionId, generation: Generation) -> Result<(), CreateError> {
        let Some(partition) = self.partition(id, generation) else { return Ok(()) };
        // From here on it answers nobody, and writes that wait for a latch are turned away. Until the
        // drop is durable it stays in the map, so that a drop which the log refused can be repeated.
        partition.close();
        self.engine.drop_partition(id, generation).await?;
        self.partitions.borrow_mut().remove(&id);
        Ok(())
    }

    /// Turns away what comes and lets every watcher go, so that requests under way end.
    pub fn close(&self) {
        self.partitions.borrow().values().for_each(|partition| partition.close());
    }

    /// Why the log has stopped, if it has.
    pub fn log_failure(&self) -> Option<WalFailed> {
        self.engine.log_failure()
    }
}

fn parse_row(stored: &[u8]) -> Result<PartitionRow, RowFault> {
    let attributes = ItemView::check(stored)?.to_attributes();
    Ok(PartitionRow::from_attributes(&attributes)?)
}
