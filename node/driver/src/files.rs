//! The data directory of one shard: names, locks, complete and incomplete files.
//!
//! | path | what it is |
//! |---|---|
//! | `LOCK` | locked by the process that has the directory open; holds its process id |
//! | `wal/segment-00000001.log` | one file of the log, complete and durable |
//! | `pages.dat` | superblock and pages |
//! | `*.tmp`, `wal/*.tmp` | a file that was being made; removed at start |
//!
//! Every one of these files is locked as well, by the very descriptor that is written through. The kernel keeps
//! such a lock until the last write under way is done, even if the process was killed: whoever holds
//! the lock knows that nothing of an earlier process is still on its way to the file.
//!
//! All functions here block; none is on the path of a request.

use crate::{
    disk::OpenError,
    durable::{make_directory, sync_directory},
    system,
};
use evenkeel_storage::FileId;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long the last writes of a killed process are waited for.
const EARLIER_WRITES_WAIT: Duration = Duration::from_secs(10);

const TEMPORARY: &str = "tmp";
const PAGES: &str = "pages.dat";

/// Makes the directory if need be and locks it for this process.
pub fn open_directory(directory: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { directory: directory.to_owned(), source };
    make_directory(&wal(directory)).map_err(failed)?;
    let mut options = OpenOptions::new();
    let mut lock = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("LOCK"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only to tell the user; who it is changes nothing.
            let _ = lock.read_to_string(&mut holder);
            return Err(OpenError::Locked {
                directory: directory.to_owned(),
                process: holder.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    remove_temporary(directory).map_err(failed)?;
    lock.set_len(0).map_err(failed)?;
    lock.rewind().map_err(failed)?;
    writeln!(lock, "{}", std::process::id()).map_err(failed)?;
    // An earlier process may have made the directories and been killed before that was durable.
    sync_directory(directory).map_err(failed)?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent).map_err(failed)?;
    }
    if system::is_memory_backed(directory) {
        tracing::warn!(directory = %directory.display(), "data is kept in memory only: it is lost with the power");
    }
    Ok(lock)
}

/// Removes what an earlier process had begun to make.
fn remove_temporary(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(wal(directory))?.chain(fs::read_dir(directory)?) {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Complete files with their lengths.
pub fn list(directory: &Path) -> io::Result<Vec<(FileId, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(wal(directory))?.chain(fs::read_dir(directory)?) {
        let entry = entry?;
        let named = parse(&entry.file_name().to_string_lossy());
        if let Some(file) = named.filter(|file| path(directory, *file) == entry.path()) {
            files.push((file, entry.metadata()?.len()));
        }
    }
    Ok(files)
}

/// Opens a complete file for direct IO, once no earlier process writes to it any more.
pub fn open(directory: &Path, file: FileId) -> io::Result<OwnedFd> {
    let opened = direct(OpenOptions::new().read(true).write(true)).open(path(directory, file))?;
    let start = Instant::now();
    loop {
        match opened.try_lock() {
            Ok(()) => return Ok(opened.into()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if start.elapsed() > EARLIER_WRITES_WAIT => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "writes of an earlier process are still under way, or another process has locked the file",
                ));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Makes a file under its temporary name, with its blocks reserved.
pub fn create_temporary(directory: &Path, file: FileId, bytes: u64) -> io::Result<OwnedFd> {
    if path(directory, file).exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let created = create_scratch(&path(directory, file).with_added_extension(TEMPORARY), bytes)?;
    created.try_lock()?;
    Ok(created.into())
}

/// Makes a file for direct IO that is removed at the next start.
pub fn create_scratch(path: &Path, bytes: u64) -> io::Result<File> {
    let created = direct(OpenOptions::new().read(true).write(true).create(true).truncate(true)).open(path)?;
    match system::allocate(&created, bytes) {
        // A file system that cannot reserve finds blocks as they are written.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(created),
    }
}

/// Gives a finished file its name, durably.
pub fn publish(directory: &Path, file: FileId) -> io::Result<()> {
    let name = path(directory, file);
    fs::rename(name.with_added_extension(TEMPORARY), &name)?;
    sync_directory(name.parent().expect("every file is in a directory"))
}

/// Reserves blocks up to `bytes` for a file that grows.
pub fn reserve(directory: &Path, file: FileId, bytes: u64) -> io::Result<()> {
    match system::allocate(&OpenOptions::new().write(true).open(path(directory, file))?, bytes) {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

/// The directory of the log files.
pub fn wal(directory: &Path) -> PathBuf {
    directory.join("wal")
}

fn direct(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(libc::O_DIRECT)
}

fn path(directory: &Path, file: FileId) -> PathBuf {
    match file {
        FileId::Segment(number) => wal(directory).join(format!("segment-{number:08}.log")),
        FileId::Pages => directory.join(PAGES),
    }
}

fn parse(name: &str) -> Option<FileId> {
    if name == PAGES {
        return Some(FileId::Pages);
    }
    let number = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let all_digits = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { number.parse().ok().map(FileId::Segment) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_file_only_if_the_file_has_that_name() {
        let directory = Path::new("d");
        for number in [0, 1, 99_999_999, 100_000_000, u32::MAX] {
            let path = path(directory, FileId::Segment(number));
            assert_eq!(parse(path.file_name().unwrap().to_str().unwrap()), Some(FileId::Segment(number)));
        }
        let pages = path(directory, FileId::Pages);
        assert_eq!(parse(pages.file_name().unwrap().to_str().unwrap()), Some(FileId::Pages));
        for name in
            ["segment-1.log", "segment-00000001.log.tmp", "segment-0000000x.log", "segment-99999999999.log"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
