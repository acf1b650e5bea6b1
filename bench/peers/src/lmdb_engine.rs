//! LMDB, by heed. Its memory is the page cache: it is bounded by the control group, if there is one.

use crate::{Batch, Fault, Peer};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};
use std::path::Path;

const MAP_BYTES: usize = 1 << 40;
/// One for each thread that reads.
const READERS_MAX: u32 = 256;

pub struct Lmdb {
    env: &'static Env,
    items: Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    /// Opens it; without a flush at each commit while items are loaded.
    pub fn open(directory: &Path, is_load: bool) -> Result<Lmdb, Fault> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX);
        // The kernel's read-ahead of mapped files reads 128 KiB for every item.
        let flags = if is_load { EnvFlags::NO_SYNC } else { EnvFlags::NO_READ_AHEAD };
        // SAFETY: NO_SYNC gives up durability until `settle`, and nothing is asked of it before.
        unsafe { options.flags(flags) };
        // SAFETY: the directory is this run's own; no other process changes the file while it is mapped.
        let env = unsafe { options.open(directory)? };
        // It is open for as long as the process lives.
        let env: &'static Env = Box::leak(Box::new(env));
        let made = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
            let items = opener.create_database(transaction, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(items))
        })?;
        Ok(Lmdb { env, items: made.unwrap_commit() })
    }
}

impl Peer for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let mut transaction = self.env.write_txn()?;
        self.items.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8], take: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        let transaction = self.env.read_txn()?;
        take(self.items.get(&transaction, key)?);
        Ok(())
    }

    fn scan(&self, take: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        let transaction = self.env.read_txn()?;
        for item in self.items.iter(&transaction)? {
            let (key, value) = item?;
            take(key, value);
        }
        Ok(())
    }

    fn load(&self, batch: &Batch) -> Result<(), Fault> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in batch {
            self.items.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn settle(&self) -> Result<(), Fault> {
        Ok(self.env.force_sync()?)
    }

    fn merge(&self) -> Result<bool, Fault> {
        Ok(false)
    }

    fn notes(&self) -> Vec<String> {
        vec!["a commit flushes; mapped file through the page cache, without read-ahead".to_owned()]
    }
}
