//! The processes of a system: found, started, watched until the system is ready, and ended.

use crate::Fault;
use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where all of them listen.
pub const HOST: &str = "127.0.0.1";
/// How long a system may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a process may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A process that ends with this one, or when it is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    signal: i32,
}

impl Process {
    /// Starts it; what it says goes to a file of its name in the directory. The signal is what ends it.
    pub fn start(name: &str, directory: &Path, command: &mut Command, signal: i32) -> Result<Process, Fault> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let dies_too = move || {
            // SAFETY: the call changes nothing but which signal this process gets when its parent is gone.
            match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec it does nothing but one system call.
        let command = unsafe { command.pre_exec(dies_too) };
        let child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        Ok(Process { name: name.to_owned(), child, log, signal })
    }

    /// Whether it still runs; if not, with what last words it ended.
    fn check(&mut self) -> Result<(), Fault> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let said = fs::read(&self.log)?;
        Err(format!("{} ended, {status}: {}", self.name, last_line(&String::from_utf8_lossy(&said))).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // SAFETY: the process has not been waited for, so its id is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), self.signal) };
        let began = Instant::now();
        while began.elapsed() < END_WITHIN {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(LOOK_PAUSE),
                _ => return,
            }
        }
        // It has been told; one that cannot even be killed is told nothing more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().next_back().unwrap_or("it said nothing")
}

/// Looks again and again until there is an answer, as long as all processes run.
pub async fn until_ready<T>(
    processes: &mut [Process],
    mut look: impl AsyncFnMut() -> Result<T, Fault>,
) -> Result<T, Fault> {
    let began = Instant::now();
    loop {
        for process in &mut *processes {
            process.check()?;
        }
        match look().await {
            Ok(found) => return Ok(found),
            Err(fault) if began.elapsed() > READY_WITHIN => {
                return Err(format!("not ready after {READY_WITHIN:?}: {fault}").into());
            }
            Err(_) => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<(), Fault> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}, {}: {}", output.status, last_line(&String::from_utf8_lossy(&output.stderr)))
        .into())
}

/// A program in the search path, or else in one of these directories.
pub fn find(program: &str, others: Vec<PathBuf>, package: &str) -> Result<PathBuf, Fault> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).chain(others).map(|place| place.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| {
        format!("{program} is not there; install it by `sudo apt-get install {package}`").into()
    })
}

/// Ports that nobody uses.
pub fn free_ports<const PORTS: usize>() -> io::Result<[u16; PORTS]> {
    let mut ports = [0; PORTS];
    // All are held until all are known, so that none is given twice.
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_early_leaves_its_last_words() {
        let directory = env::temp_dir().join(format!("evenkeel-peers-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let process = Process::start("early", &directory, &mut command, libc::SIGTERM).unwrap();
        let runtime = crate::load::runtime().unwrap();
        let never = async || Err::<(), Fault>("not yet".into());
        let ready = runtime.block_on(until_ready(&mut [process], never));
        assert_eq!(ready.unwrap_err().to_string(), "early ended, exit status: 3: two");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_process_that_is_dropped_is_gone() {
        let directory = env::temp_dir().join(format!("evenkeel-peers-test-drop-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("sleep");
        let process = Process::start("sleep", &directory, command.arg("600"), libc::SIGTERM).unwrap();
        let place = PathBuf::from(format!("/proc/{}", process.child.id()));
        assert!(place.exists());
        drop(process);
        assert!(!place.exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_program_is_found_in_other_places_or_named_with_its_package() {
        assert_eq!(find("stat", vec!["/proc/self".into()], "none").unwrap().file_name().unwrap(), "stat");
        let missing =
            find("no-such-program", vec!["/proc/self".into()], "a-package").unwrap_err().to_string();
        assert!(
            missing.contains("no-such-program") && missing.contains("apt-get install a-package"),
            "{missing}"
        );
    }

    #[test]
    fn free_ports_differ() {
        let [one, two, three] = free_ports().unwrap();
        assert!(one != two && two != three && one != three);
    }
}
