//! Disks that are slow, as far as the system allows it.
//!
//! Where control groups of block devices can be made, a process is held to few writes a second. Elsewhere it is
//! stopped and continued in short turns, which is slower in everything and not in its disk alone; which of
//! them it was is part of the report.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Writes a second of a slow disk: a frame of the log waits for tens of milliseconds.
const WRITES_PER_SECOND: u32 = 25;
const V1: &str = "/sys/fs/cgroup/blkio";
const V2: &str = "/sys/fs/cgroup";

/// How a disk is made slow.
#[derive(Debug)]
pub enum SlowDisk {
    /// By a control group.
    Group {
        /// The group that slow processes are moved into.
        slow: PathBuf,
        /// Where they come from and go back to.
        home: PathBuf,
    },
    /// By stopping the process again and again.
    Stutter {
        /// Why no control group does it.
        reason: String,
    },
}

impl SlowDisk {
    /// What is possible for processes with their data in this directory, whose name no other run has.
    pub fn find(data: &Path) -> SlowDisk {
        let name = data.file_name().unwrap_or_default().to_string_lossy();
        let group = |root: &str, file: &str, line: &str| {
            let home = PathBuf::from(root);
            let slow = home.join(&*name);
            fs::create_dir_all(&slow)?;
            if let Err(error) = fs::write(slow.join(file), line) {
                // What is left behind is an empty group.
                let _ = fs::remove_dir(&slow);
                return Err(error);
            }
            Ok(SlowDisk::Group { slow, home })
        };
        let tried = fs::metadata(data).and_then(|found| {
            let device = device(found.dev());
            group(V1, "blkio.throttle.write_iops_device", &format!("{device} {WRITES_PER_SECOND}"))
                .or_else(|_| group(V2, "io.max", &format!("{device} wiops={WRITES_PER_SECOND}")))
        });
        tried.unwrap_or_else(|error| SlowDisk::Stutter { reason: error.to_string() })
    }

    /// Moves a process to where its disk is slow, or back; whether that could be done.
    pub fn hold(&self, process: u32, slow: bool) -> bool {
        let SlowDisk::Group { slow: group, home } = self else { return false };
        let group = if slow { group } else { home };
        fs::write(group.join("cgroup.procs"), process.to_string()).is_ok()
    }
}

impl std::fmt::Display for SlowDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SlowDisk::Group { .. } => {
                write!(f, "a disk is slow by a control group, {WRITES_PER_SECOND} writes a second")
            }
            SlowDisk::Stutter { reason } => {
                write!(
                    f,
                    "a disk is slow by stopping its process in turns, for no control group does it: {reason}"
                )
            }
        }
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        if let SlowDisk::Group { slow, .. } = self {
            // Processes that are left in it end with their namespace, and the empty group harms nobody.
            let _ = fs::remove_dir(slow);
        }
    }
}

/// `major:minor`, as the kernel packs them into what programs see.
fn device(number: u64) -> String {
    let major = (number >> 8) & 0xfff | (number >> 32) & !0xfff;
    let minor = number & 0xff | (number >> 12) & !0xff;
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_taken_apart_as_the_kernel_puts_them_together() {
        assert_eq!(device(0xfe00), "254:0");
        assert_eq!(device(0x0801), "8:1");
        assert_eq!(device(0x0010_3005), "48:261");
    }
}
