//! What is used of RocksDB's C API (`rocksdb/c.h` of Debian's librocksdb-dev), declared by hand.

use std::ffi::{c_char, c_double, c_int, c_uchar, c_void};

macro_rules! opaque {
    ($($name:ident),*) => {
        $(
            /// Known to RocksDB only.
            #[repr(C)]
            pub struct $name([u8; 0]);
        )*
    };
}

opaque!(Db, Options, Cache, TableOptions, FilterPolicy, WriteOptions, ReadOptions, FlushOptions, Slice, Iter);

unsafe extern "C" {
    pub fn rocksdb_options_create() -> *mut Options;
    pub fn rocksdb_options_set_create_if_missing(options: *mut Options, on: c_uchar);
    pub fn rocksdb_options_set_write_buffer_size(options: *mut Options, bytes: usize);
    pub fn rocksdb_options_set_max_write_buffer_number(options: *mut Options, number: c_int);
    pub fn rocksdb_options_set_max_background_jobs(options: *mut Options, number: c_int);
    pub fn rocksdb_options_set_use_direct_reads(options: *mut Options, on: c_uchar);
    pub fn rocksdb_options_set_use_direct_io_for_flush_and_compaction(options: *mut Options, on: c_uchar);
    pub fn rocksdb_options_set_compression(options: *mut Options, kind: c_int);
    pub fn rocksdb_options_set_block_based_table_factory(options: *mut Options, table: *mut TableOptions);
    pub fn rocksdb_cache_create_lru(bytes: usize) -> *mut Cache;
    pub fn rocksdb_block_based_options_create() -> *mut TableOptions;
    pub fn rocksdb_block_based_options_set_block_cache(table: *mut TableOptions, cache: *mut Cache);
    pub fn rocksdb_block_based_options_set_filter_policy(table: *mut TableOptions, policy: *mut FilterPolicy);
    pub fn rocksdb_block_based_options_set_cache_index_and_filter_blocks(
        table: *mut TableOptions,
        on: c_uchar,
    );
    pub fn rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(
        table: *mut TableOptions,
        on: c_uchar,
    );
    pub fn rocksdb_filterpolicy_create_bloom(bits_per_key: c_double) -> *mut FilterPolicy;
    pub fn rocksdb_open(options: *const Options, name: *const c_char, fault: *mut *mut c_char) -> *mut Db;
    pub fn rocksdb_writeoptions_create() -> *mut WriteOptions;
    pub fn rocksdb_writeoptions_set_sync(options: *mut WriteOptions, on: c_uchar);
    pub fn rocksdb_writeoptions_disable_WAL(options: *mut WriteOptions, disable: c_int);
    pub fn rocksdb_readoptions_create() -> *mut ReadOptions;
    pub fn rocksdb_readoptions_set_readahead_size(options: *mut ReadOptions, bytes: usize);
    pub fn rocksdb_put(
        db: *mut Db,
        options: *const WriteOptions,
        key: *const c_char,
        key_bytes: usize,
        value: *const c_char,
        value_bytes: usize,
        fault: *mut *mut c_char,
    );
    pub fn rocksdb_get_pinned(
        db: *mut Db,
        options: *const ReadOptions,
        key: *const c_char,
        key_bytes: usize,
        fault: *mut *mut c_char,
    ) -> *mut Slice;
    pub fn rocksdb_pinnableslice_value(slice: *const Slice, bytes: *mut usize) -> *const c_char;
    pub fn rocksdb_pinnableslice_destroy(slice: *mut Slice);
    pub fn rocksdb_flushoptions_create() -> *mut FlushOptions;
    pub fn rocksdb_flush(db: *mut Db, options: *const FlushOptions, fault: *mut *mut c_char);
    pub fn rocksdb_property_int(db: *mut Db, name: *const c_char, value: *mut u64) -> c_int;
    pub fn rocksdb_compact_range(
        db: *mut Db,
        start: *const c_char,
        start_bytes: usize,
        end: *const c_char,
        end_bytes: usize,
    );
    pub fn rocksdb_create_iterator(db: *mut Db, options: *const ReadOptions) -> *mut Iter;
    pub fn rocksdb_iter_seek_to_first(iter: *mut Iter);
    pub fn rocksdb_iter_valid(iter: *const Iter) -> c_uchar;
    pub fn rocksdb_iter_next(iter: *mut Iter);
    pub fn rocksdb_iter_key(iter: *const Iter, bytes: *mut usize) -> *const c_char;
    pub fn rocksdb_iter_value(iter: *const Iter, bytes: *mut usize) -> *const c_char;
    pub fn rocksdb_iter_get_error(iter: *const Iter, fault: *mut *mut c_char);
    pub fn rocksdb_iter_destroy(iter: *mut Iter);
    pub fn rocksdb_free(memory: *mut c_void);
}
