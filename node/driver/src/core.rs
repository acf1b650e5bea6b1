//! A core: one thread, one executor, one ring.
//!
//! [`run_core`] starts the thread and hands a [`Core`] to the future that runs on it. When that
//! future ends, the thread ends: other tasks are dropped, and operations still under way are waited
//! for before their memory is freed. Errors of the start name the setting that is in the way.

use crate::{
    awake,
    disk::{DiskConfig, OpenError, UringDisk},
    limits::{EXECUTOR_MEMORY_BYTES, EXECUTOR_RING_ENTRIES, MEMLOCK_BYTES_MIN},
    ring::Ring,
    runtime::GlommioRuntime,
    system,
    udp::UdpSocket,
};
use evenkeel_storage::Runtime;
use glommio::{Latency, LocalExecutor, LocalExecutorBuilder, Shares, TaskQueueHandle};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

/// Pause before the one repetition of a start that failed for memory: the kernel gives back the
/// locked memory of rings that were closed a moment ago asynchronously.
const MEMORY_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// glommio's preemption timer, set so that it never fires. When it fires between glommio's look at its
/// rings and its run of the ready tasks, glommio takes a core with ready tasks for idle and puts it to
/// sleep until something else happens; a thread that loses its processor for a moment is enough. What
/// the timer is for, a look at rings and timers while tasks keep coming, [`Core::yield_now`] does.
const PREEMPT_NEVER: Duration = Duration::from_secs(24 * 3600);

/// How often an idle core wakes up for nothing. It bounds what the fault above may cost when another
/// thread's wake-up arrives at that moment instead of the timer.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Where a core's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Wherever the scheduler puts it.
    Unbound,
    /// On this processor only.
    Fixed(usize),
}

/// How to start a core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The thread's name; the kernel shows its first 15 bytes.
    pub name: String,
    /// Where it runs.
    pub placement: Placement,
}

/// Why a core could not be started, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// io_uring is switched off.
    #[error("io_uring is not available ({source}){}; {}", switch(*disabled), IO_URING_ADVICE)]
    IoUringUnavailable {
        /// The value of `kernel.io_uring_disabled`, if there is one.
        disabled: Option<u32>,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Too little memory may be locked.
    #[error(
        "only {soft_bytes} bytes of memory may be locked, {MEMLOCK_BYTES_MIN} are needed; raise the limit \
         (ulimit -l, LimitMEMLOCK= of a systemd unit)"
    )]
    Memlock {
        /// The soft limit.
        soft_bytes: u64,
    },
    /// The executor could not be made.
    #[error("core {name} could not be started: {reason}")]
    Start {
        /// The core's name.
        name: String,
        /// What was said.
        reason: String,
    },
    /// A task of the core panicked.
    #[error("core {name} panicked: {message}")]
    Panicked {
        /// The core's name.
        name: String,
        /// The panic's message.
        message: String,
    },
}

const IO_URING_ADVICE: &str = "set kernel.io_uring_disabled=0, and in a container allow the io_uring system \
     calls (for example docker run --security-opt seccomp=unconfined)";

fn switch(disabled: Option<u32>) -> String {
    disabled.map_or_else(String::new, |value| format!(", kernel.io_uring_disabled is {value}"))
}

/// What runs on a core's thread can reach the kernel through this.
#[derive(Clone, Debug)]
pub struct Core {
    ring: Rc<Ring>,
    foreground: TaskQueueHandle,
    background: TaskQueueHandle,
    origin: Instant,
}

impl Core {
    /// Tasks on the path of requests.
    pub fn runtime(&self) -> GlommioRuntime {
        GlommioRuntime::new(self.foreground, self.origin)
    }

    /// Tasks that get a small share of the core while requests want it.
    pub fn background(&self) -> GlommioRuntime {
        GlommioRuntime::new(self.background, self.origin)
    }

    /// Runs a task on the path of requests until it ends or the core does.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.runtime().spawn(task);
    }

    /// Opens the data directory of one shard, which is made if it does not exist.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_disk(&self, directory: &Path, config: DiskConfig) -> Result<UringDisk, OpenError> {
        UringDisk::open(Rc::clone(&self.ring), self.background(), directory, config).await
    }

    /// A UDP socket whose readiness this core awaits.
    ///
    /// # Errors
    /// What the system said, for example that the address is in use.
    pub fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind(Rc::clone(&self.ring), address)
    }

    /// Delivers completions that have arrived, without a system call if there are none. For loops that
    /// poll for a while before they sleep.
    pub fn poll_completions(&self) -> bool {
        self.ring.turn()
    }

    /// Gives every other ready task its turn, and now and then the executor's timers and the
    /// background. A task that runs on and on must call it, or they never get theirs.
    pub async fn yield_now(&self) {
        self.ring.yield_now().await;
    }

    /// Resolves when `duration` has passed.
    pub async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    /// The time, of the clock that QUIC uses. Read it once a turn.
    pub fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A started core.
#[derive(Debug)]
pub struct CoreHandle<T> {
    name: String,
    thread: thread::JoinHandle<Result<T, CoreError>>,
}

impl<T> CoreHandle<T> {
    /// Waits for the core to end and returns what its future returned.
    ///
    /// # Errors
    /// Why it did not start, or that it panicked.
    pub fn join(self) -> Result<T, CoreError> {
        self.thread.join().unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(CoreError::Panicked { name: self.name, message: message.unwrap_or_default() })
        })
    }

    /// Whether the core has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts a thread with an executor and a ring, and runs the future that `make` makes on it.
///
/// # Errors
/// That no thread could be made. Everything else is reported by [`CoreHandle::join`].
pub fn run_core<T, Make, Run>(config: CoreConfig, make: Make) -> Result<CoreHandle<T>, CoreError>
where
    T: Send + 'static,
    Make: FnOnce(Core) -> Run + Send + 'static,
    Run: Future<Output = T> + 'static,
{
    let name = config.name.clone();
    let thread = thread::Builder::new().name(config.name.clone()).spawn(move || {
        let (ring, executor) = start(&config)?;
        Ok(executor.run(async move {
            let core = Core {
                ring: Rc::clone(&ring),
                foreground: glommio::executor().current_task_queue(),
                background: glommio::executor().create_task_queue(
                    Shares::Static(50),
                    Latency::NotImportant,
                    "background",
                ),
                origin: Instant::now(),
            };
            let reactor = glommio::spawn_local(Rc::clone(&ring).run());
            let least =
                glommio::executor().create_task_queue(Shares::Static(1), Latency::NotImportant, "awake");
            let watcher = glommio::spawn_local_into(awake::watch(Rc::clone(&ring)), least);
            let watcher = watcher.expect("its task queue was just made");
            let heartbeat = glommio::spawn_local(async {
                loop {
                    glommio::timer::sleep(HEARTBEAT).await;
                }
            });
            let result = make(core).await;
            heartbeat.cancel().await;
            ring.stop();
            watcher.await;
            reactor.await;
            result
        }))
    });
    match thread {
        Ok(thread) => Ok(CoreHandle { name, thread }),
        Err(error) => Err(CoreError::Start { name, reason: error.to_string() }),
    }
}

fn start(config: &CoreConfig) -> Result<(Rc<Ring>, LocalExecutor), CoreError> {
    system::forgo_huge_pages();
    let soft_bytes = system::memlock_bytes();
    if soft_bytes < MEMLOCK_BYTES_MIN {
        return Err(CoreError::Memlock { soft_bytes });
    }
    let ring =
        with_retry(Ring::new, |error| error.raw_os_error() == Some(OUT_OF_MEMORY)).map_err(|source| {
            match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                    CoreError::IoUringUnavailable { disabled: system::io_uring_disabled(), source }
                }
                _ => CoreError::Start { name: config.name.clone(), reason: refusal(&source) },
            }
        })?;
    let placement = match config.placement {
        Placement::Unbound => glommio::Placement::Unbound,
        Placement::Fixed(cpu) => glommio::Placement::Fixed(cpu),
    };
    let make = || {
        LocalExecutorBuilder::new(placement.clone())
            .name(&config.name)
            .io_memory(EXECUTOR_MEMORY_BYTES)
            .ring_depth(EXECUTOR_RING_ENTRIES)
            .preempt_timer(PREEMPT_NEVER)
            .make()
    };
    let out_of_memory = |error: &glommio::GlommioError<()>| matches!(error, glommio::GlommioError::IoError(error) if error.raw_os_error() == Some(OUT_OF_MEMORY));
    let executor = with_retry(make, out_of_memory).map_err(|error| {
        let reason = match &error {
            glommio::GlommioError::IoError(error) => refusal(error),
            other => other.to_string(),
        };
        CoreError::Start { name: config.name.clone(), reason }
    })?;
    Ok((ring, executor))
}

/// `ENOMEM`.
const OUT_OF_MEMORY: i32 = 12;

fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(OUT_OF_MEMORY) => {
            format!("{error}; raise the limit for locked memory (ulimit -l) or run fewer cores")
        }
        _ => error.to_string(),
    }
}

fn with_retry<T, E>(make: impl Fn() -> Result<T, E>, out_of_memory: impl Fn(&E) -> bool) -> Result<T, E> {
    match make() {
        Err(error) if out_of_memory(&error) => {
            thread::sleep(MEMORY_RETRY_PAUSE);
            make()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn config(name: &str) -> CoreConfig {
        CoreConfig { name: name.to_owned(), placement: Placement::Unbound }
    }

    #[test]
    fn a_core_returns_what_its_future_returns() {
        let core = run_core(config("returns"), |core| async move {
            let runtime = core.runtime();
            let before = runtime.now_ns();
            assert!(core.background().now_ns() >= before, "all runtimes of a core tell the same time");
            runtime.sleep(Duration::from_millis(1)).await;
            let done = Rc::new(Cell::new(false));
            runtime.spawn({
                let done = Rc::clone(&done);
                async move { done.set(true) }
            });
            core.yield_now().await;
            (core.runtime().now_ns() - before, done.get())
        });
        let (slept_ns, spawned) = core.unwrap().join().unwrap();
        assert!(slept_ns >= 1_000_000 && spawned, "slept {slept_ns} ns, spawned {spawned}");
    }

    #[test]
    fn timers_fire_while_a_task_runs_on_and_on() {
        let core = run_core(config("busy"), |core| async move {
            let done = Rc::new(Cell::new(false));
            core.spawn({
                let (core, done) = (core.clone(), Rc::clone(&done));
                async move {
                    core.sleep(Duration::from_millis(3)).await;
                    done.set(true);
                }
            });
            while !done.get() {
                core.yield_now().await;
            }
        });
        core.unwrap().join().unwrap();
    }

    #[test]
    fn a_panic_is_reported_with_its_message() {
        let core = run_core(config("panics"), |_| async { panic!("no way on from here") });
        let error = core.unwrap().join().unwrap_err();
        assert!(matches!(error, CoreError::Panicked { .. }), "{error}");
    }

    #[test]
    fn many_cores_one_after_another_leave_no_rings_behind() {
        for _ in 0..20 {
            run_core(config("short"), |_| async {}).unwrap().join().unwrap();
        }
    }
}
