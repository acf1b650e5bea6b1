//! redb. All memory goes to its cache; below that, its file is read through the page cache.

use crate::{Batch, Fault, Peer};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;

const ITEMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("items");
const FILE: &str = "items.redb";

pub struct Redb {
    database: Database,
}

impl Redb {
    /// Opens it.
    pub fn open(directory: &Path, memory_bytes: u64) -> Result<Redb, Fault> {
        let mut builder = Database::builder();
        builder.set_cache_size(usize::try_from(memory_bytes)?);
        let database = builder.create(directory.join(FILE))?;
        let transaction = database.begin_write()?;
        transaction.open_table(ITEMS)?;
        transaction.commit()?;
        Ok(Redb { database })
    }

    fn write(&self, batch: &[(&[u8], &[u8])], durability: Durability) -> Result<(), Fault> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        let mut table = transaction.open_table(ITEMS)?;
        for (key, value) in batch {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }
}

impl Peer for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.write(&[(key, value)], Durability::Immediate)
    }

    fn get(&self, key: &[u8], take: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        let table = self.database.begin_read()?.open_table(ITEMS)?;
        let found = table.get(key)?;
        take(found.as_ref().map(|value| value.value()));
        Ok(())
    }

    fn scan(&self, take: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        let table = self.database.begin_read()?.open_table(ITEMS)?;
        for item in table.iter()? {
            let (key, value) = item?;
            take(key.value(), value.value());
        }
        Ok(())
    }

    fn load(&self, batch: &Batch) -> Result<(), Fault> {
        let batch: Vec<(&[u8], &[u8])> = batch.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        self.write(&batch, Durability::None)
    }

    fn settle(&self) -> Result<(), Fault> {
        self.write(&[], Durability::Immediate)
    }

    fn merge(&self) -> Result<bool, Fault> {
        Ok(false)
    }

    fn notes(&self) -> Vec<String> {
        vec!["durability Immediate; all memory is its cache; page cache below".to_owned()]
    }
}
