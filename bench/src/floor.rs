//! The floor under every durable write: frames appended to a log file through the driver's own disk.
//!
//! The file is filled with zeros first, as the log's segments are, and written with the strategy that
//! the disk's self-test chooses, as a node's log is. Nothing here knows the log's format.

use crate::error::BenchError;
use crate::machine;
use crate::tally::{Measured, Tally};
use evenkeel_driver::{Core, CoreConfig, DiskConfig, Placement, SyncStrategy, UringDisk, run_core};
use evenkeel_storage::{Disk, FileId};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PHASE: &str = "log floor";
const SEGMENT: FileId = FileId::Segment(1);
/// As large as the segments of the cluster that is measured beside it.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Measures appends of frames of one size, one at a time. Without a strategy, the self-test chooses.
///
/// # Errors
/// The core or the disk could not be had.
pub fn measure(
    directory: PathBuf,
    frame_bytes: usize,
    lasts: Duration,
    strategy: Option<SyncStrategy>,
) -> Result<(Measured, SyncStrategy), BenchError> {
    let fault = BenchError::in_phase(PHASE);
    let config = CoreConfig { name: "bench-floor".to_owned(), placement: Placement::Unbound };
    let run = move |core: Core| async move {
        let opened = core.open_disk(&directory, DiskConfig { strategy }).await;
        let disk = opened.map_err(|error| error.to_string())?;
        if disk.files().await.map_err(|error| error.to_string())?.is_empty() {
            disk.create(SEGMENT, SEGMENT_BYTES).await.map_err(|error| error.to_string())?;
        }
        Ok((append(&disk, frame_bytes, lasts).await, disk.strategy()))
    };
    let core = run_core(config, run).map_err(BenchError::in_phase(PHASE))?;
    core.join().map_err(BenchError::in_phase(PHASE))?.map_err(|reason: String| fault(reason))
}

async fn append(disk: &UringDisk, frame_bytes: usize, lasts: Duration) -> Measured {
    let mut tally = Tally::new();
    let mut buffer = disk.buffer(frame_bytes);
    buffer.fill(0x5a);
    let mut offset = 0;
    let before = machine::now();
    let start = Instant::now();
    while start.elapsed() < lasts {
        let began = Instant::now();
        tally.attempt();
        match disk.append(SEGMENT, offset, buffer, frame_bytes).await {
            Ok(back) => {
                tally.success(began);
                buffer = back;
            }
            Err(error) => {
                tally.error(error);
                break;
            }
        }
        offset += frame_bytes as u64;
        if offset + frame_bytes as u64 > SEGMENT_BYTES {
            offset = 0;
        }
    }
    tally.measure(start.elapsed(), before.and_then(machine::Moment::until_now))
}
