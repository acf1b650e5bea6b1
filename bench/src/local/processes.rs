//! Nodes and router as processes of their own, watched by this one.
//!
//! Each has a file with its process id in the cluster's directory. One that ends by itself is started again
//! after a pause, as a service manager would. All of them stop in order when their standard input ends: when
//! they are told to, and when this process is gone, however it went.

use super::LocalError;
use super::layout;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Before a process that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long the processes of an earlier run may take to end.
const FORMER_PATIENCE: Duration = Duration::from_secs(15);
/// How long a process may take to stop before it is said whom everybody waits for.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a process has ended.
const STOP_LOOK_PAUSE: Duration = Duration::from_millis(5);

/// A process to be run.
pub struct Program {
    /// What it is called: `node-1`, `router`.
    pub name: String,
    /// The subcommand.
    pub command: &'static str,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its process id is written.
    pub pid_file: PathBuf,
}

impl Program {
    /// A program of the cluster in a directory.
    pub fn new(data: &Path, name: String, command: &'static str, config: PathBuf) -> Program {
        let pid_file = data.join(format!("{name}.pid"));
        Program { name, command, config, pid_file }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .arg(self.command)
            .arg("--config")
            .arg(&self.config)
            .arg("--attached")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What the terminal sends when its user stops this process is not for them.
            .process_group(0)
            .spawn()
    }

    /// Waits until the process that an earlier run has left behind, if any, has ended.
    pub fn await_former(&self) -> Result<(), LocalError> {
        let began = Instant::now();
        while let Some(pid) = self.former() {
            if began.elapsed() > FORMER_PATIENCE {
                return Err(LocalError::Former { name: self.name.clone(), pid });
            }
            thread::sleep(STOP_LOOK_PAUSE);
        }
        Ok(())
    }

    /// The id in the file, if a process of that id runs this program.
    fn former(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config.to_str()?.as_bytes();
        command.split(|&byte| byte == 0).any(|argument| argument == config).then_some(pid)
    }
}

/// A process that is watched.
pub struct Watched {
    name: String,
    pid_file: PathBuf,
    input: Arc<Mutex<Input>>,
    /// Dropped to end the pause before a restart.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// What keeps the process running.
#[derive(Default)]
struct Input {
    held: Option<ChildStdin>,
    stopping: bool,
}

/// Starts processes; returns when all of them are ready.
///
/// # Errors
/// The first one that could not be started or ended before it was ready; all are stopped again.
pub fn start(programs: Vec<Program>) -> Result<Vec<Watched>, LocalError> {
    let mut watched = Vec::new();
    let mut waiting = Vec::new();
    for program in programs {
        let (ready, is_ready) = mpsc::channel();
        watched.push(watch(program, ready));
        waiting.push(is_ready);
    }
    let first = waiting.into_iter().find_map(|is_ready| is_ready.recv().unwrap_or_else(|_| Ok(())).err());
    match first {
        None => Ok(watched),
        Some(error) => {
            stop(watched);
            Err(error)
        }
    }
}

/// Stops processes in order, all at the same time.
pub fn stop(watched: Vec<Watched>) {
    for process in &watched {
        let mut input = lock(&process.input);
        input.stopping = true;
        input.held = None;
    }
    for process in watched {
        let Watched { name, pid_file, stop, thread, .. } = process;
        drop(stop);
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < STOP_PATIENCE {
            thread::sleep(STOP_LOOK_PAUSE);
        }
        if !thread.is_finished() {
            let pid = fs::read_to_string(&pid_file).unwrap_or_default();
            eprintln!("{name} (process {}) has not stopped yet; `kill -9` ends it", pid.trim());
        }
        thread.join().expect("a watch does not panic");
    }
}

fn watch(program: Program, ready: mpsc::Sender<Result<(), LocalError>>) -> Watched {
    let (stop, stopped) = mpsc::channel();
    let input = Arc::new(Mutex::new(Input::default()));
    let (name, pid_file) = (program.name.clone(), program.pid_file.clone());
    let shared = Arc::clone(&input);
    let thread = thread::spawn(move || {
        run_until_stopped(&program, &shared, &stopped, ready);
        let _ = fs::remove_file(&program.pid_file);
    });
    Watched { name, pid_file, input, stop, thread }
}

fn run_until_stopped(
    program: &Program,
    input: &Mutex<Input>,
    stopped: &mpsc::Receiver<()>,
    ready: mpsc::Sender<Result<(), LocalError>>,
) {
    let mut ready = Some(ready);
    loop {
        let ended = run_once(program, input, &mut ready);
        if lock(input).stopping {
            return;
        }
        let reason = match ended {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if let Some(ready) = ready.take() {
            let name = program.name.clone();
            // Whoever starts the cluster may have given up because of another process.
            let _ = ready.send(Err(LocalError::Process { name, reason }));
            return;
        }
        eprintln!("{} has ended by itself ({reason}); it is started again", program.name);
        if stopped.recv_timeout(RESTART_PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Runs the process to its end.
fn run_once(
    program: &Program,
    input: &Mutex<Input>,
    ready: &mut Option<mpsc::Sender<Result<(), LocalError>>>,
) -> std::io::Result<ExitStatus> {
    let mut child = program.spawn()?;
    if let Err(error) = layout::write(&program.pid_file, &format!("{}\n", child.id())) {
        eprintln!("{}: {error}", program.name);
    }
    {
        let mut input = lock(input);
        input.held = child.stdin.take().filter(|_| !input.stopping);
    }
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        if output.read_line(&mut line)? > 0
            && let Some(ready) = ready.take()
        {
            let _ = ready.send(Ok(()));
        }
        // What else it says is for nobody, and ends with it.
        std::io::copy(&mut output.by_ref(), &mut std::io::sink())?;
    }
    child.wait()
}

fn lock(input: &Mutex<Input>) -> MutexGuard<'_, Input> {
    input.lock().unwrap_or_else(PoisonError::into_inner)
}
