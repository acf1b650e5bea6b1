//! The task that writes the log: group commit without a timer.
//!
//! An append wakes the task; it runs when the core has handled the other tasks that are ready, so
//! everything that arrived in one turn of the event loop shares a frame. While as many frames are
//! under way as may be, records gather in the next one: a busy log batches exactly as much as the
//! device's latency makes it. The only timer is the one that covers the last frame of an idle log.

use super::log::{Log, Write};
use crate::{
    disk::{BLOCK_BYTES, Disk, DiskError, FileId},
    error::WalFailed,
    mistakes,
    runtime::Runtime,
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// Pause before a segment file that could not be made is tried again.
const PREPARE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Writes `log` until it is closed or fails.
pub(crate) async fn run<D: Disk, R: Runtime>(disk: D, runtime: R, log: Rc<RefCell<Log<D>>>) {
    let (even, odd) = (pin!(None), pin!(None));
    let mut lanes = [even, odd];
    let mut timer = pin!(None);
    let mut timer_at_ns = 0;
    let mut woken: Vec<Waker> = Vec::new();
    let submit = |write: Write<D::Buffer>| {
        disk.append(write.place.file, write.place.offset, write.buffer, write.bytes)
    };
    let passes_over = runtime.errs(mistakes::FAILED_APPEND_PASSED_OVER);
    let pass_over = || passes_over.then(|| disk.buffer(BLOCK_BYTES));
    let sleep = |pause| runtime.sleep(pause);
    poll_fn(|context| {
        log.borrow_mut().set_writer(context.waker());
        loop {
            drive(&mut lanes, &log, &mut woken, || runtime.now_ns(), submit, pass_over, context);
            prepare_segment(&disk, &runtime, &log);
            if log.borrow().ended() {
                return Poll::Ready(());
            }
            let (now_ns, wanted_ns) = (runtime.now_ns(), log.borrow().idle_at_ns());
            if wanted_ns <= now_ns {
                // Due, and something else is under way: the log is not idle.
                log.borrow_mut().postpone_idle(now_ns);
            } else if poll_timer(&mut timer, &mut timer_at_ns, wanted_ns, now_ns, sleep, context).is_pending()
            {
                return Poll::Pending;
            }
        }
    })
    .await;
    log.borrow_mut().finish(&mut woken);
    woken.drain(..).for_each(Waker::wake);
}

/// Takes completions and submits what may leave, until nothing moves.
fn drive<D: Disk, F: Future<Output = Result<D::Buffer, DiskError>>>(
    lanes: &mut [Pin<&mut Option<F>>; 2],
    log: &RefCell<Log<D>>,
    woken: &mut Vec<Waker>,
    now_ns: impl Fn() -> u64,
    submit: impl Fn(Write<D::Buffer>) -> F,
    pass_over: impl Fn() -> Option<D::Buffer>,
    context: &mut Context<'_>,
) {
    loop {
        let mut progress = false;
        for (lane, slot) in lanes.iter_mut().enumerate() {
            let Some(write) = slot.as_mut().as_pin_mut() else { continue };
            let Poll::Ready(result) = write.poll(context) else { continue };
            slot.set(None);
            progress = true;
            match result.or_else(|error| pass_over().ok_or(error)) {
                Ok(buffer) => log.borrow_mut().written(lane, buffer, woken),
                Err(error) => log.borrow_mut().fail(WalFailed::Disk(error), woken),
            }
        }
        loop {
            let Some(write) = log.borrow_mut().next_write(now_ns()) else { break };
            let lane = write.lane;
            assert!(lanes[lane].is_none(), "a lane carries one write at a time");
            lanes[lane].set(Some(submit(write)));
            progress = true;
        }
        // Woken with the log released: a task that ends may drop handles of the engine.
        woken.drain(..).for_each(Waker::wake);
        if !progress {
            return;
        }
    }
}

/// Ready once `wanted_ns` may have come. A timer that is armed for an earlier time stays: a busy log
/// makes no timer a frame, but looks again when the old one fires.
fn poll_timer<F: Future<Output = ()>>(
    timer: &mut Pin<&mut Option<F>>,
    timer_at_ns: &mut u64,
    wanted_ns: u64,
    now_ns: u64,
    sleep: impl Fn(Duration) -> F,
    context: &mut Context<'_>,
) -> Poll<()> {
    if timer.is_none() || wanted_ns < *timer_at_ns {
        *timer_at_ns = wanted_ns;
        timer.set(Some(sleep(Duration::from_nanos(wanted_ns - now_ns))));
    }
    if let Some(sleeping) = timer.as_mut().as_pin_mut() {
        std::task::ready!(sleeping.poll(context));
    }
    timer.set(None);
    Poll::Ready(())
}

/// Makes the next segment file in the background, if there is none.
fn prepare_segment<D: Disk, R: Runtime>(disk: &D, runtime: &R, log: &Rc<RefCell<Log<D>>>) {
    let wanted = log.borrow_mut().wanted_file();
    if let Some(file) = wanted {
        runtime.spawn(make_segment(disk.clone(), runtime.clone(), Rc::clone(log), file));
    }
}

async fn make_segment<D: Disk, R: Runtime>(disk: D, runtime: R, log: Rc<RefCell<Log<D>>>, file: FileId) {
    let bytes = log.borrow().config().segment_bytes;
    while let Err(error) = disk.create(file, bytes).await {
        let mut woken = Vec::new();
        {
            let mut log = log.borrow_mut();
            log.ring.preparation_failed();
            if log.closing() {
                // What waits to be written would wait for ever; what is only to be covered stays uncovered.
                if log.has_queued() {
                    log.fail(WalFailed::Disk(error), &mut woken);
                }
                log.wake_writer();
            }
        }
        woken.drain(..).for_each(Waker::wake);
        if log.borrow().ended() {
            return;
        }
        runtime.sleep(PREPARE_AGAIN_AFTER).await;
    }
    let mut log = log.borrow_mut();
    log.ring.prepared(file);
    log.wake_writer();
}
