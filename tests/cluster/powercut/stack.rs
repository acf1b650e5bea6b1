//! The disk under the node: ext4 on a loop device on a file that `qemu-storage-daemon` exports through FUSE, and
//! whose every write and flush it records.
//!
//! Everything is taken down by `Drop`, in the order that it needs: mount, device, daemon.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Of the disk: sparse, and far more than is written.
const DISK_BYTES: u64 = 2 << 30;
/// Of the recording, sparse as well.
const RECORDING_BYTES: u64 = 6 << 30;
/// Far more than the daemon takes to start and to end.
const DAEMON_WITHIN: Duration = Duration::from_secs(30);
/// Far more than the files of a process outlive it.
const GONE_WITHIN: Duration = Duration::from_secs(30);

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{program} {}: {} {said}", arguments.join(" "), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of this test are ASCII")
}

/// A file system on a file.
pub struct Mounted {
    at: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// Mounts the file system in `image`, made anew if `is_new`, at `at`.
    pub fn new(image: &Path, at: &Path, is_new: bool) -> io::Result<Mounted> {
        fs::create_dir_all(at)?;
        // Direct IO is off: with it the export refuses some writes of the file system.
        let device = run("losetup", &["--find", "--show", "--direct-io=off", text(image)])?;
        let made =
            if is_new { run("mkfs.ext4", &["-q", "-F", "-b", "4096", &device]) } else { Ok(String::new()) };
        let mounted = made.and_then(|_| run("mount", &["-t", "ext4", &device, text(at)]));
        // From here on the device goes with the mount; without one, now.
        let detached = run("losetup", &["--detach", &device]);
        mounted?;
        let mounted = Mounted { at: at.to_owned(), is_mounted: true };
        detached?;
        Ok(mounted)
    }

    /// Takes it down.
    pub fn unmount(mut self) -> io::Result<()> {
        self.is_mounted = false;
        // The kernel holds the files of a killed process until the last of its io_uring is gone.
        let begin = Instant::now();
        loop {
            match run("umount", &[text(&self.at)]) {
                Err(_) if begin.elapsed() < GONE_WITHIN => std::thread::yield_now(),
                result => return result.map(drop),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            // On the way out with another error: once it is idle, if it is not yet.
            let _ = run("umount", &["--lazy", text(&self.at)]);
        }
    }
}

/// A recorder and its export.
pub struct Recorder {
    daemon: Child,
    /// What acts as the disk.
    pub export: PathBuf,
    /// Where everything is recorded.
    pub recording: PathBuf,
}

impl Recorder {
    /// Starts to record, in `directory`.
    pub fn start(directory: &Path) -> io::Result<Recorder> {
        let [disk, recording, export] = ["disk", "recording", "export"].map(|name| directory.join(name));
        File::create(&disk)?.set_len(DISK_BYTES)?;
        File::create(&recording)?.set_len(RECORDING_BYTES)?;
        File::create(&export)?;
        let nodes = [
            format!("driver=file,node-name=disk,filename={}", text(&disk)),
            format!("driver=file,node-name=recording,filename={}", text(&recording)),
            "driver=blklogwrites,node-name=recorded,file=disk,log=recording,log-sector-size=512".to_owned(),
        ];
        let mut command = Command::new("qemu-storage-daemon");
        for node in &nodes {
            command.args(["--blockdev", node]);
        }
        let fuse = format!("type=fuse,id=export,node-name=recorded,mountpoint={},writable=on", text(&export));
        let daemon = command.args(["--export", &fuse]).stdin(Stdio::null()).spawn()?;
        let mut recorder = Recorder { daemon, export, recording };
        let begin = Instant::now();
        while fs::metadata(&recorder.export)?.len() != DISK_BYTES {
            if let Some(status) = recorder.daemon.try_wait()? {
                return Err(io::Error::other(format!("qemu-storage-daemon ended: {status}")));
            }
            if begin.elapsed() > DAEMON_WITHIN {
                return Err(io::Error::other("qemu-storage-daemon exports nothing"));
            }
            std::thread::yield_now();
        }
        Ok(recorder)
    }

    /// Ends the daemon; the recording stays.
    pub fn stop(mut self) -> io::Result<PathBuf> {
        run("kill", &["-TERM", &self.daemon.id().to_string()])?;
        let status = self.daemon.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("qemu-storage-daemon ended: {status}")));
        }
        Ok(self.recording.clone())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
