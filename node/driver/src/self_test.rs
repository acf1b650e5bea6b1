//! Which way of making a write durable is faster here and now.
//!
//! A write linked to an fdatasync and a write with `RWF_DSYNC` differ by a factor of thirty in either
//! direction, depending on the device and on how busy the processors are. So a starting node writes
//! a few blocks both ways, taking turns, and keeps the way with the better tail.

use crate::{
    disk::SyncStrategy,
    limits::{SELF_TEST_APPENDS, SELF_TEST_TIME_MS, ZERO_SLICE_BYTES},
    ring::{Ring, RingFile, WriteMode},
};
use evenkeel_storage::BLOCK_BYTES;
use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

/// What the self-test saw. Times are of durable appends of one block, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// The strategy kept.
    pub chosen: SyncStrategy,
    /// Appends made each way.
    pub appends: usize,
    /// Median and tail of [`SyncStrategy::Linked`].
    pub linked: Latency,
    /// Median and tail of [`SyncStrategy::Dsync`].
    pub dsync: Latency,
}

/// Latencies of one strategy in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The median.
    pub p50_ns: u64,
    /// The worst but one, so that a single hiccup does not decide.
    pub tail_ns: u64,
}

/// Fills the scratch file with zeros, then times appends into it.
pub async fn run(ring: &Rc<Ring>, scratch: &Rc<RingFile>) -> io::Result<SelfTest> {
    let start = Instant::now();
    let zeros = ring.pool().buffer(ZERO_SLICE_BYTES);
    let (written, mut buffer) = ring.write(scratch, 0, zeros, ZERO_SLICE_BYTES, WriteMode::Linked).await;
    written?;
    let mut samples: [Vec<u64>; 2] = std::array::from_fn(|_| Vec::with_capacity(SELF_TEST_APPENDS));
    for append in 0..SELF_TEST_APPENDS {
        if append > 0 && start.elapsed() > Duration::from_millis(SELF_TEST_TIME_MS) {
            break;
        }
        for (mode, samples) in [WriteMode::Linked, WriteMode::Dsync].into_iter().zip(&mut samples) {
            let offset = (append * BLOCK_BYTES % ZERO_SLICE_BYTES) as u64;
            let begin = Instant::now();
            let (written, back) = ring.write(scratch, offset, buffer, BLOCK_BYTES, mode).await;
            written?;
            buffer = back;
            samples.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    let appends = samples[0].len();
    let [linked, dsync] = samples.map(summary);
    let chosen = if dsync.tail_ns < linked.tail_ns { SyncStrategy::Dsync } else { SyncStrategy::Linked };
    Ok(SelfTest { chosen, appends, linked, dsync })
}

fn summary(mut samples: Vec<u64>) -> Latency {
    samples.sort_unstable();
    let tail = samples.len().saturating_sub(2);
    match samples.get(samples.len() / 2) {
        Some(median) => Latency { p50_ns: *median, tail_ns: samples[tail] },
        None => Latency::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hiccup_does_not_decide() {
        let mut samples = vec![90; 49];
        samples.push(4_000);
        assert_eq!(summary(samples), Latency { p50_ns: 90, tail_ns: 90 });
        assert_eq!(summary(vec![5]), Latency { p50_ns: 5, tail_ns: 5 });
    }
}
