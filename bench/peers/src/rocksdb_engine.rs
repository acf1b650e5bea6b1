//! RocksDB, by its C API. Half of the memory goes to its block cache, half to memtables; tables are read and
//! written by direct IO.
//!
//! What is opened lives as long as the process, so nothing is ever destroyed but slices and iterators.

use crate::rocksdb_ffi::*;
use crate::{Batch, Fault, Peer};
use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::slice;
use std::time::Duration;

const MEMTABLES: usize = 4;
const BACKGROUND_JOBS: i32 = 2;
const BLOOM_BITS: f64 = 10.0;
const NO_COMPRESSION: i32 = 0;
const SCAN_READ_AHEAD_BYTES: usize = 2 << 20;
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Properties that are all zero when background work has ended.
const WORK: [&CStr; 4] = [
    c"rocksdb.num-running-compactions",
    c"rocksdb.num-running-flushes",
    c"rocksdb.compaction-pending",
    c"rocksdb.mem-table-flush-pending",
];

pub struct RocksDb {
    db: *mut Db,
    durable: *mut WriteOptions,
    loading: *mut WriteOptions,
    reads: *mut ReadOptions,
    scans: *mut ReadOptions,
    flushes: *mut FlushOptions,
}

// SAFETY: RocksDB's database and the options, which do not change once made, may be used by all threads.
unsafe impl Send for RocksDb {}
// SAFETY: as above.
unsafe impl Sync for RocksDb {}

impl RocksDb {
    /// Opens it.
    pub fn open(directory: &Path, memory_bytes: u64) -> Result<RocksDb, Fault> {
        let half = usize::try_from(memory_bytes / 2)?;
        let name = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: constructors and setters take what other constructors returned, and numbers; `name` ends with a zero.
        unsafe {
            let table = rocksdb_block_based_options_create();
            rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(half));
            rocksdb_block_based_options_set_filter_policy(
                table,
                rocksdb_filterpolicy_create_bloom(BLOOM_BITS),
            );
            rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
            rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            rocksdb_options_set_write_buffer_size(options, half / MEMTABLES);
            rocksdb_options_set_max_write_buffer_number(options, i32::try_from(MEMTABLES)?);
            rocksdb_options_set_max_background_jobs(options, BACKGROUND_JOBS);
            rocksdb_options_set_use_direct_reads(options, 1);
            rocksdb_options_set_use_direct_io_for_flush_and_compaction(options, 1);
            rocksdb_options_set_compression(options, NO_COMPRESSION);
            rocksdb_options_set_block_based_table_factory(options, table);
            let db = checked(|fault| rocksdb_open(options, name.as_ptr(), fault))?;
            let durable = rocksdb_writeoptions_create();
            rocksdb_writeoptions_set_sync(durable, 1);
            let loading = rocksdb_writeoptions_create();
            rocksdb_writeoptions_disable_WAL(loading, 1);
            let scans = rocksdb_readoptions_create();
            rocksdb_readoptions_set_readahead_size(scans, SCAN_READ_AHEAD_BYTES);
            let (reads, flushes) = (rocksdb_readoptions_create(), rocksdb_flushoptions_create());
            Ok(RocksDb { db, durable, loading, reads, scans, flushes })
        }
    }

    fn write(&self, options: *const WriteOptions, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let (key_at, value_at) = (key.as_ptr().cast(), value.as_ptr().cast());
        // SAFETY: database and options are open; key and value are memory of their lengths, and are copied.
        checked(|fault| unsafe {
            rocksdb_put(self.db, options, key_at, key.len(), value_at, value.len(), fault)
        })
    }
}

impl Peer for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.write(self.durable, key, value)
    }

    fn get(&self, key: &[u8], take: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        let key_at = key.as_ptr().cast();
        // SAFETY: database and options are open; the key is memory of its length.
        let found =
            checked(|fault| unsafe { rocksdb_get_pinned(self.db, self.reads, key_at, key.len(), fault) })?;
        if found.is_null() {
            take(None);
            return Ok(());
        }
        let mut bytes = 0;
        // SAFETY: the slice was returned above; its memory lives until it is destroyed below.
        unsafe {
            let value = rocksdb_pinnableslice_value(found, &mut bytes);
            take(Some(memory(value, bytes)));
            rocksdb_pinnableslice_destroy(found);
        }
        Ok(())
    }

    fn scan(&self, take: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        // SAFETY: database and options are open; the iterator is used until it is destroyed below, and key and
        // value only until it moves on.
        unsafe {
            let iter = rocksdb_create_iterator(self.db, self.scans);
            rocksdb_iter_seek_to_first(iter);
            while rocksdb_iter_valid(iter) != 0 {
                let (mut key_bytes, mut value_bytes) = (0, 0);
                let key = rocksdb_iter_key(iter, &mut key_bytes);
                let value = rocksdb_iter_value(iter, &mut value_bytes);
                take(memory(key, key_bytes), memory(value, value_bytes));
                rocksdb_iter_next(iter);
            }
            let ended = checked(|fault| rocksdb_iter_get_error(iter, fault));
            rocksdb_iter_destroy(iter);
            ended
        }
    }

    fn load(&self, batch: &Batch) -> Result<(), Fault> {
        batch.iter().try_for_each(|(key, value)| self.write(self.loading, key, value))
    }

    fn settle(&self) -> Result<(), Fault> {
        // SAFETY: database and options are open.
        checked(|fault| unsafe { rocksdb_flush(self.db, self.flushes, fault) })?;
        loop {
            let mut works = false;
            for name in WORK {
                let mut value = 0;
                // SAFETY: the database is open, the name ends with a zero, and there is room for the value.
                let code = unsafe { rocksdb_property_int(self.db, name.as_ptr(), &mut value) };
                if code != 0 {
                    return Err(format!("it has no property {name:?}").into());
                }
                works |= value > 0;
            }
            if !works {
                return Ok(());
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn merge(&self) -> Result<bool, Fault> {
        // SAFETY: the database is open; null stands for no bound.
        unsafe { rocksdb_compact_range(self.db, ptr::null(), 0, ptr::null(), 0) };
        Ok(true)
    }

    fn notes(&self) -> Vec<String> {
        vec![
            "sync writes; half block cache, half memtables; direct IO, no compression, bloom filters"
                .to_owned(),
        ]
    }
}

/// Calls what may set a fault.
fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, Fault> {
    let mut fault: *mut c_char = ptr::null_mut();
    let value = call(&mut fault);
    if fault.is_null() {
        return Ok(value);
    }
    // SAFETY: a fault that was set ends with a zero.
    let text = unsafe { CStr::from_ptr(fault) }.to_string_lossy().into_owned();
    // SAFETY: it is ours to free, once.
    unsafe { rocksdb_free(fault.cast()) };
    Err(text.into())
}

/// Memory of RocksDB.
///
/// # Safety
/// There are so many bytes at `at`, and they stay while the slice is used.
unsafe fn memory<'a>(at: *const c_char, bytes: usize) -> &'a [u8] {
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts(at.cast(), bytes) }
}
