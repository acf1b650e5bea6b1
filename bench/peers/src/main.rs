//! The engines that the bench compares ours with, one step of one of them in each process.
//!
//! `evenkeel-bench-peers REQUEST`, a request being JSON as `evenkeel bench engine` writes it, prints the
//! outcome as one line of JSON. Requests, outcomes and items are those of the bench: its very file is compiled
//! here, so that all engines store the same bytes and are measured in the same way.

mod fjall_engine;
mod lmdb_engine;
mod redb_engine;
mod rocksdb_engine;
mod rocksdb_ffi;
#[path = "../../src/engine/steps.rs"]
mod steps;
mod work;

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use steps::{Outcome, Request, Step};

/// Why something failed, in the engine's own words.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Items that are loaded together.
pub type Batch = [([u8; steps::KEY_BYTES], Vec<u8>)];

/// What the bench asks of an engine. Calls come from many threads at a time.
pub trait Peer: Send + Sync {
    /// Puts an item; it is durable on return.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Fault>;

    /// Shows the value of a key to `take`, or that there is none.
    fn get(&self, key: &[u8], take: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault>;

    /// Shows all items in order.
    fn scan(&self, take: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Fault>;

    /// Puts many items, which need not be durable yet.
    fn load(&self, batch: &Batch) -> Result<(), Fault>;

    /// Makes what was loaded durable, and waits for the end of background work.
    fn settle(&self) -> Result<(), Fault>;

    /// Does what its background work does, once over all data; false if it has no background work.
    fn merge(&self) -> Result<bool, Fault>;

    /// What a reader of the figures should know.
    fn notes(&self) -> Vec<String>;
}

fn main() -> ExitCode {
    let performed = std::env::args().nth(1).ok_or_else(|| "give a request".into()).and_then(perform);
    let code = match performed {
        Ok(line) => {
            println!("{line}");
            0
        }
        Err(fault) => {
            eprintln!("{fault}");
            1
        }
    };
    // What cannot be written cannot be told either.
    let _ = std::io::stdout().flush();
    // Without closing anything, as if it was killed.
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

fn perform(request: String) -> Result<String, Fault> {
    let request: Request = serde_json::from_str(&request)?;
    steps::enter_group(&request)?;
    std::fs::create_dir_all(&request.directory)?;
    drop_cached(&request.directory)?;
    let began = Instant::now();
    let peer = open(&request)?;
    peer.get(&steps::key(0), &mut |_| ())?;
    let mut outcome = Outcome { open_ms: began.elapsed().as_secs_f64() * 1000.0, ..Outcome::default() };
    work::perform(&*peer, &request, &mut outcome)?;
    outcome.notes = peer.notes();
    outcome.take_stock(&request.directory);
    Ok(serde_json::to_string(&outcome)?)
}

fn open(request: &Request) -> Result<Box<dyn Peer>, Fault> {
    let is_load = matches!(request.step, Step::Load);
    Ok(match request.engine.as_str() {
        "rocksdb" => Box::new(rocksdb_engine::RocksDb::open(&request.directory, request.memory_bytes)?),
        "lmdb" => Box::new(lmdb_engine::Lmdb::open(&request.directory, is_load)?),
        "redb" => Box::new(redb_engine::Redb::open(&request.directory, request.memory_bytes)?),
        "fjall" => Box::new(fjall_engine::Fjall::open(&request.directory, request.memory_bytes)?),
        other => return Err(format!("there is no engine {other} here").into()),
    })
}

/// Has the kernel drop what it has cached of the files, after writing what was not.
fn drop_cached(directory: &Path) -> Result<(), Fault> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_cached(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        file.sync_all()?;
        // SAFETY: the descriptor is open; the call changes nothing but the kernel's cache.
        let code = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if code != 0 {
            return Err(std::io::Error::from_raw_os_error(code).into());
        }
    }
    Ok(())
}
