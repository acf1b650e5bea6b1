//! The executor: one thread, first come first served, on virtual time.

use super::{MemoryDisk, Random};
use crate::runtime::{Mistake, Runtime};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// Turns after which a future that is still not ready is taken to be stuck.
const TURNS_MAX: usize = 10_000_000;
/// The wall clock when a runtime is made, in nanoseconds since the Unix epoch.
const WALL_START_NS: u64 = 1_700_000_000_000_000_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Ready = Arc<Mutex<VecDeque<u64>>>;

struct Executor {
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Ready,
    /// By time, then by order of arming.
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    now_ns: Cell<u64>,
    wall_ahead_ns: Cell<i64>,
    next_id: Cell<u64>,
    random: RefCell<Random>,
    mistakes: Cell<&'static [Mistake]>,
}

/// A deterministic executor. A clone is the same one.
#[derive(Clone)]
pub struct TestRuntime {
    executor: Rc<Executor>,
}

struct TaskWaker {
    id: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().expect("no holder of this lock can panic");
        if !ready.contains(&self.id) {
            ready.push_back(self.id);
        }
    }
}

impl TestRuntime {
    /// An executor at time zero, whose random numbers come from `seed`.
    pub fn new(seed: u64) -> Self {
        TestRuntime {
            executor: Rc::new(Executor {
                tasks: RefCell::default(),
                ready: Ready::default(),
                timers: RefCell::default(),
                now_ns: Cell::new(0),
                wall_ahead_ns: Cell::new(0),
                next_id: Cell::new(0),
                random: RefCell::new(Random::new(seed)),
                mistakes: Cell::default(),
            }),
        }
    }

    /// Makes these mistakes from now on, and no others.
    pub fn set_mistakes(&self, mistakes: &'static [Mistake]) {
        self.executor.mistakes.set(mistakes);
    }

    /// Runs tasks until none is ready. Neither time nor the disk move.
    pub fn run_ready(&self) {
        loop {
            let next = self.executor.ready.lock().expect("no holder of this lock can panic").pop_front();
            let Some(id) = next else { return };
            let Some(mut task) = self.executor.tasks.borrow_mut().remove(&id) else { continue };
            let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.executor.ready) }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.executor.tasks.borrow_mut().insert(id, task);
            }
        }
    }

    /// Moves time to the next timer and fires it; returns whether there was one.
    pub fn next_timer(&self) -> bool {
        let Some(((at_ns, _), waker)) = self.executor.timers.borrow_mut().pop_first() else { return false };
        self.executor.now_ns.set(at_ns.max(self.executor.now_ns.get()));
        waker.wake();
        true
    }

    /// When the next timer fires, if there is one.
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.executor.timers.borrow().first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// Moves time to `now_ns`, unless it is later already, and fires every timer that is due by then.
    /// For a caller that keeps the clocks of many executors.
    pub fn advance_to(&self, now_ns: u64) {
        let now_ns = now_ns.max(self.executor.now_ns.get());
        while self.next_timer_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            self.next_timer();
        }
        self.executor.now_ns.set(now_ns);
    }

    /// Sets the wall clock forward, or back; the other clock does not notice.
    pub fn jump_wall(&self, by_ns: i64) {
        let ahead = &self.executor.wall_ahead_ns;
        ahead.set(ahead.get().saturating_add(by_ns));
    }

    /// Lets `duration` pass, running tasks and completing appends of `disk` on the way.
    pub fn pass(&self, disk: &MemoryDisk, duration: Duration) {
        let nap = self.sleep(duration);
        self.block_on(disk, nap);
    }

    /// Runs `future` to its end, with all tasks; completes appends of `disk` in order and moves time
    /// when there is nothing else to do.
    pub fn block_on<T>(&self, disk: &MemoryDisk, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let waker =
            Waker::from(Arc::new(TaskWaker { id: u64::MAX, ready: Arc::clone(&self.executor.ready) }));
        let mut context = Context::from_waker(&waker);
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return result;
            }
            self.run_ready();
            if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return result;
            }
            let idle = self.executor.ready.lock().expect("no holder of this lock can panic").is_empty();
            assert!(!idle || self.move_on(disk), "nothing can move and the future waits");
        }
        panic!("the future was not ready after {TURNS_MAX} turns");
    }

    /// With nothing ready: one completion of the disk, or else the next timer, or else what is slow.
    pub fn move_on(&self, disk: &MemoryDisk) -> bool {
        if disk.complete_oldest() {
            return true;
        }
        if self.next_timer() {
            disk.time_passed();
            return true;
        }
        disk.complete_slow()
    }

    /// Ends all tasks, as the end of the process would; those too that others spawn when they end.
    pub fn stop(&self) {
        loop {
            let tasks = std::mem::take(&mut *self.executor.tasks.borrow_mut());
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        self.executor.timers.borrow_mut().clear();
        self.executor.ready.lock().expect("no holder of this lock can panic").clear();
    }

    fn fresh_id(&self) -> u64 {
        let id = self.executor.next_id.get();
        self.executor.next_id.set(id + 1);
        id
    }
}

impl Runtime for TestRuntime {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.fresh_id();
        self.executor.tasks.borrow_mut().insert(id, Box::pin(task));
        self.executor.ready.lock().expect("no holder of this lock can panic").push_back(id);
    }

    fn now_ns(&self) -> u64 {
        self.executor.now_ns.get()
    }

    fn wall_ns(&self) -> u64 {
        (WALL_START_NS + self.now_ns()).saturating_add_signed(self.executor.wall_ahead_ns.get())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let key = (self.now_ns().saturating_add(nanos), self.fresh_id());
        Sleep { executor: Rc::clone(&self.executor), key }
    }

    fn random(&self) -> u64 {
        self.executor.random.borrow_mut().bits()
    }

    fn errs(&self, mistake: Mistake) -> bool {
        self.executor.mistakes.get().contains(&mistake)
    }
}

struct Sleep {
    executor: Rc<Executor>,
    key: (u64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now_ns.get() >= self.key.0 {
            return Poll::Ready(());
        }
        self.executor.timers.borrow_mut().insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.executor.timers.borrow_mut().remove(&self.key);
    }
}
