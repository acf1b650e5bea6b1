//! fjall. Half of the memory goes to its cache, half to memtables; files are read through the page cache.

use crate::{Batch, Fault, Peer};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::time::Duration;

/// Its own least.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;
/// Memtables that a keyspace may have: the one written to, and one being flushed.
const MEMTABLES: u64 = 2;
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Without background work in so many looks in a row it has ended.
const QUIET_LOOKS: u32 = 10;

pub struct Fjall {
    database: Database,
    items: Keyspace,
}

impl Fjall {
    /// Opens it.
    pub fn open(directory: &Path, memory_bytes: u64) -> Result<Fjall, Fault> {
        let half = memory_bytes / 2;
        let database = Database::builder(directory)
            .cache_size(half)
            .max_journaling_size((4 * half).max(JOURNAL_BYTES_MIN))
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(half / MEMTABLES);
        let items = database.keyspace("items", options)?;
        Ok(Fjall { database, items })
    }
}

impl Peer for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.items.insert(key, value)?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn get(&self, key: &[u8], take: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        let found = self.items.get(key)?;
        take(found.as_deref());
        Ok(())
    }

    fn scan(&self, take: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        for item in self.items.iter() {
            let (key, value) = item.into_inner()?;
            take(&key, &value);
        }
        Ok(())
    }

    fn load(&self, batch: &Batch) -> Result<(), Fault> {
        for (key, value) in batch {
            self.items.insert(key, &value[..])?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<(), Fault> {
        self.database.persist(PersistMode::SyncAll)?;
        self.items.rotate_memtable_and_wait()?;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            std::thread::sleep(LOOK_PAUSE);
            let works = self.database.active_compactions() > 0 || self.database.outstanding_flushes() > 0;
            quiet = if works { 0 } else { quiet + 1 };
        }
        Ok(())
    }

    fn merge(&self) -> Result<bool, Fault> {
        self.items.major_compact()?;
        Ok(true)
    }

    fn notes(&self) -> Vec<String> {
        vec!["persist SyncData after each put; half cache, half memtables; page cache below".to_owned()]
    }
}
