//! How an engine starts: the catalogue first, then the log from where each partition's checkpoint ends.

use super::{Engine, EngineConfig, Inner, Recovery};
use crate::{
    disk::{Disk, FileId},
    error::{OpenError, WalFailed},
    mistakes,
    partition::Partition,
    partitions::Partitions,
    runtime::Runtime,
    space::{CataloguedPartition, PageError, Pages},
    wal::{
        WalConfig,
        log::{Identity, Log},
        recovery::{Found, recover},
        segment::SegmentRing,
        writer,
    },
};
use std::{cell::RefCell, rc::Rc};

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// Reads the catalogue and the log behind it, opens a new segment and starts to write. Damage to anything that was
    /// acknowledged is an error; nothing on the disk is changed then.
    pub async fn open(disk: D, runtime: R, config: EngineConfig) -> Result<(Self, Recovery), OpenError> {
        config.wal.check()?;
        let (pages_config, config_limits) = (config.pages(), config.pages.limits);
        let EngineConfig { cluster, node, shard, wal, table_bytes_max, notes_ns, .. } = config;
        let run = if runtime.errs(mistakes::RUN_LEFT_OUT) { 0 } else { runtime.random() };
        let identity = Identity { cluster, node, shard, run };
        let (pages, opened) = Pages::open(disk.clone(), runtime.clone(), pages_config).await?;
        let mut partitions = Partitions::new(table_bytes_max, notes_ns);
        let log_frame = opened.catalogue.log_frame;
        for checkpoint in opened.catalogue.partitions {
            let state = read_state(&pages, &checkpoint).await?;
            partitions.insert(checkpoint.id, Partition::from_checkpoint(checkpoint, state));
        }
        let found = recover(&disk, &runtime, identity, wal.segment_bytes, &mut partitions).await?;
        check_junction(&found, opened.sequence, log_frame)?;
        let recovery = describe(&found, &mut partitions)?;
        let mut ring = ring_after(&found, &partitions, &wal);
        if let Some(file) = ring.wanted() {
            disk.create(file, wal.segment_bytes).await?;
            ring.prepared(file);
        }
        let log = Log::new(disk.clone(), wal, identity, ring, found.last, found.previous, opened.sequence);
        let started = log.commits.wait(found.last + 1);
        let log = Rc::new(RefCell::new(log));
        runtime.spawn(writer::run(disk, runtime.clone(), Rc::clone(&log)));
        let partitions = RefCell::new(partitions);
        let (upkeep, refusals, scrubbed) = Default::default();
        let limits = config_limits;
        let inner = Inner { runtime, log, partitions, pages, limits, upkeep, refusals, scrubbed };
        let engine = Engine { inner: Rc::new(inner) };
        match started.await {
            Ok(()) => Ok((engine, recovery)),
            Err(WalFailed::Disk(error)) => Err(error.into()),
            Err(WalFailed::Closed) => {
                Err(OpenError::Config { reason: "the executor ended while the log was opened" })
            }
        }
    }
}

pub(super) fn describe(found: &Found, partitions: &mut Partitions) -> Result<Recovery, OpenError> {
    let list = partitions.recovered().map_err(|orphan| {
        let segment = found.live.iter().find(|live| live.sequence == orphan.at.segment);
        OpenError::Corrupt {
            file: segment.map_or(FileId::Segment(0), |segment| segment.file),
            offset: 0,
            expected: orphan.expected.clone(),
            found: format!("{}, in frame {}", orphan.found, orphan.at.frame),
        }
    })?;
    Ok(Recovery {
        partitions: list,
        frames: found.frames,
        entries: partitions.entries_replayed,
        bytes: found.bytes,
        cut: found.cut.clone(),
        life: found.segment_next,
    })
}

/// The segments as recovery found them, with what is needed pinned.
fn ring_after(found: &Found, partitions: &Partitions, wal: &WalConfig) -> SegmentRing {
    // A start always gets a segment of its own, even on a full log: without it nothing could be dropped.
    let files = found.live.len() + found.leaving.len() + found.free.len();
    let extra = usize::from(found.free.is_empty());
    let files_max = wal.files_max().max(files + extra);
    let mut ring = SegmentRing::new(wal.segment_bytes, files_max, found.file_next, found.segment_next);
    found.live.iter().for_each(|&segment| ring.add_live(segment));
    found.free.iter().for_each(|&file| ring.add_free(file));
    found.leaving.iter().for_each(|&file| ring.add_leaving(found.last + 1, file));
    for partition in partitions.iter() {
        let needed = [partition.created_in, partition.oldest_records_in()];
        needed.into_iter().flatten().for_each(|segment| ring.pin(segment));
    }
    partitions.gone.iter().flat_map(|gone| &gone.segments).for_each(|&segment| ring.pin(segment));
    ring
}

/// What the owner of a partition knew at its checkpoint.
pub(super) async fn read_state<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    checkpoint: &CataloguedPartition,
) -> Result<Option<Vec<u8>>, OpenError> {
    let Some(state) = checkpoint.state else { return Ok(None) };
    let offset = state.page.extent.offset();
    match pages.read_from_device(state.page).await {
        Ok(page) => Ok(Some(page[..state.bytes as usize].to_vec())),
        Err(PageError::Disk(error)) => Err(error.into()),
        Err(corrupt) => Err(OpenError::Corrupt {
            file: FileId::Pages,
            offset,
            expected: format!("what partition {} knew at slot {}", checkpoint.id, checkpoint.applied),
            found: corrupt.to_string(),
        }),
    }
}

/// Log and page file each say how far the other one had come at least.
pub(super) fn check_junction(found: &Found, flip: u64, log_frame: u64) -> Result<(), OpenError> {
    let corrupt = |file, expected, found| Err(OpenError::Corrupt { file, offset: 0, expected, found });
    if found.flip > flip {
        let expected = format!("flip {} or a later one, which the log knows durable", found.flip);
        return corrupt(FileId::Pages, expected, format!("flip {flip}"));
    }
    if flip > 0 && found.frames == 0 {
        let expected = format!("the log of a shard with {flip} flips of its pages");
        return corrupt(FileId::Segment(0), expected, "no frame in any file".to_owned());
    }
    if log_frame > found.last {
        let file = found.live.last().map_or(FileId::Segment(0), |segment| segment.file);
        let expected = format!("frame {log_frame}, which flip {flip} knows durable");
        return corrupt(file, expected, format!("frame {} as the last one", found.last));
    }
    Ok(())
}
