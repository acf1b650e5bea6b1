//! The executor of a core as the storage engine sees it.

use evenkeel_storage::Runtime;
use glommio::TaskQueueHandle;
use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

/// glommio's tasks and timers, the system's clocks and random source.
#[derive(Clone, Copy, Debug)]
pub struct GlommioRuntime {
    queue: TaskQueueHandle,
    /// When the core began: all runtimes of a core tell the same time.
    origin: Instant,
}

impl GlommioRuntime {
    pub(crate) fn new(queue: TaskQueueHandle, origin: Instant) -> Self {
        GlommioRuntime { queue, origin }
    }
}

impl Runtime for GlommioRuntime {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = glommio::spawn_local_into(task, self.queue);
        // The queue is made with the core and never removed.
        drop(task.expect("the core's task queue exists as long as its executor").detach());
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).expect("a process runs less than 584 years")
    }

    fn wall_ns(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        glommio::timer::sleep(duration)
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("the kernel's random source works on every supported kernel")
    }
}
