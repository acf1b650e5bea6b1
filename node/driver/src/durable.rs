//! Small files and directories that outlive a power cut once they are made: configurations, identities, marks.
//!
//! A file is there as it was or as it shall be, never in part. All functions here block; none is on the path of a
//! request.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// What a file that is being made is called: one that is left by a crash is in nobody's way.
const TEMPORARY: &str = "tmp";

/// Makes a directory and those above it, as far as they are not there.
///
/// # Errors
/// What the system said.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    let is_named = |directory: &&Path| !directory.as_os_str().is_empty();
    let missing = directory.ancestors().filter(is_named).take_while(|ancestor| !ancestor.exists()).count();
    fs::create_dir_all(directory)?;
    directory.ancestors().take(missing).try_for_each(sync_parent)
}

/// Writes a file whose permission bits are `mode`, in the place of one that may be there. Nobody else writes a file
/// of the same name, whatever its extension, at the same time.
///
/// # Errors
/// What the system said; then the file is as it was.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_no_permission_of_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        make_directory(&deep).unwrap();
        make_directory(&deep).unwrap();
        let path = deep.join("file.toml");
        fs::write(deep.join("file.tmp"), "left by a crash, and longer than what comes").unwrap();
        for (text, mode) in [("one", 0o644), ("two", 0o600)] {
            write_file(&path, text.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
        assert!(write_file(&deep.join("missing/file"), b"", 0o644).is_err());
    }
}
