//! An offline look at the files of a shard: what is there, and whether every byte that counts is right.
//!
//! It reads what a start reads, by the same functions, and beside that every page of every tree. It begins no
//! segment and heals no copy; the disk that it is given takes no writes, so a start's own are lost on it.
//!
//! Frames behind the end of the log that nothing knows durable are no fault: a start cuts them. A copy of the
//! superblock that is broken is one, although a start writes it again: unless power was lost in the middle of
//! a flip, something has changed what was written.

use super::open::{check_junction, describe, read_state};
use super::types::Recovery;
use crate::{
    disk::{BLOCK_BYTES, Disk, FileId},
    error::OpenError,
    partition::Partition,
    partitions::Partitions,
    runtime::Runtime,
    space::{
        CataloguedPartition, Pages, PagesConfig, SpaceUsed,
        anchor::{self, COPY_BLOCKS},
        superblock::{Superblock, SuperblockFault},
    },
    tree::verify::{Walk, Walked},
    wal::{log::Identity, recovery::recover},
};
use evenkeel_model::{ClusterId, NodeId, PartitionId, ShardId};

/// Limits of a page file that is only read: none.
const STEP_BYTES: u64 = 1 << 20;
const BYTES_MAX: u64 = 1 << 60;
/// Pages are walked past the cache.
const CACHE_BYTES: u64 = 1 << 20;

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    /// The cluster, node and shard that wrote the files.
    pub owner: Option<(ClusterId, NodeId, u32)>,
    /// Number of the last durable flip of the page file.
    pub flip: u64,
    /// Blocks of the page file.
    pub blocks_total: u64,
    /// Which of them are in use.
    pub space: SpaceUsed,
    /// Where the copies of the superblock are, in bytes.
    pub superblock_offsets: [u64; 4],
    /// Where the pieces of the catalogue are, in bytes.
    pub catalogue_offsets: Vec<u64>,
    /// Blocks of the catalogue.
    pub catalogue_blocks: u64,
    /// The partitions of the catalogue, and what a walk over their trees has seen.
    pub catalogue: Vec<(CataloguedPartition, Walked)>,
    /// Size of a segment of the log in bytes; 0 if there is none.
    pub segment_bytes: u64,
    /// Segments that hold the log, oldest first: their file, and their place in the order of the log.
    pub segments: Vec<(FileId, u32)>,
    /// Segments that hold nothing needed.
    pub segments_free: usize,
    /// What the log holds, if it can be read.
    pub log: Option<Recovery>,
    /// Everything that is wrong, each with file, offset and reason.
    pub faults: Vec<String>,
}

/// How far a look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of pages of a partition were walked.
    Pages(PartitionId, u64),
    /// The log is being read.
    Log,
}

/// Looks at the files of a shard; trees page by page if told to `verify`. Nothing may write to them meanwhile.
///
/// # Errors
/// The device failed. What is wrong with the files is among the faults instead.
pub async fn inspect<D: Disk, R: Runtime>(
    disk: D,
    runtime: R,
    verify: bool,
    mut progress: impl FnMut(Progress),
) -> Result<Inspection, OpenError> {
    let mut found = Inspection {
        owner: None,
        flip: 0,
        blocks_total: 0,
        space: SpaceUsed::default(),
        superblock_offsets: COPY_BLOCKS.map(|block| block * BLOCK_BYTES as u64),
        catalogue_offsets: Vec::new(),
        catalogue_blocks: 0,
        catalogue: Vec::new(),
        segment_bytes: segment_bytes(&disk).await?,
        segments: Vec::new(),
        segments_free: 0,
        log: None,
        faults: Vec::new(),
    };
    let Some(superblock) = look_at_superblock(&disk, &mut found).await? else { return Ok(found) };
    let config = PagesConfig {
        cluster: superblock.cluster,
        node: superblock.node,
        shard: ShardId(superblock.shard as u16),
        first_bytes: STEP_BYTES,
        step_bytes: STEP_BYTES,
        bytes_max: BYTES_MAX,
        cache_bytes: CACHE_BYTES,
    };
    let (pages, opened) = match Pages::open(disk.clone(), runtime.clone(), config).await {
        Ok(opened) => opened,
        Err(fault) => return fault_or_failure(found, fault),
    };
    (found.space, found.catalogue_blocks) = (pages.used(), pages.catalogue_blocks());
    let mut partitions = Partitions::new(u64::MAX, u64::MAX);
    let log_frame = opened.catalogue.log_frame;
    for checkpoint in opened.catalogue.partitions {
        let walked = match verify {
            true => walk(&pages, &checkpoint, &mut found.faults, &mut progress).await,
            false => Walked::default(),
        };
        let state = match read_state(&pages, &checkpoint).await {
            Ok(state) => state,
            Err(fault @ OpenError::Disk(_)) => return Err(fault),
            Err(fault) => {
                found.faults.push(fault.to_string());
                None
            }
        };
        found.catalogue.push((checkpoint.clone(), walked));
        partitions.insert(checkpoint.id, Partition::from_checkpoint(checkpoint, state));
    }
    progress(Progress::Log);
    let identity =
        Identity { cluster: config.cluster, node: config.node, shard: config.shard, run: runtime.random() };
    let log = match recover(&disk, &runtime, identity, found.segment_bytes, &mut partitions).await {
        Ok(log) => log,
        Err(fault) => return fault_or_failure(found, fault),
    };
    found.segments = log.live.iter().map(|segment| (segment.file, segment.sequence)).collect();
    found.segments_free = log.free.len() + log.leaving.len();
    let junction = check_junction(&log, opened.sequence, log_frame);
    found.faults.extend(junction.err().map(|fault| fault.to_string()));
    match describe(&log, &mut partitions) {
        Ok(recovery) => found.log = Some(recovery),
        Err(fault) => found.faults.push(fault.to_string()),
    }
    Ok(found)
}

/// A fault of the files ends the look and is told; one of the device is the caller's.
fn fault_or_failure(mut found: Inspection, fault: OpenError) -> Result<Inspection, OpenError> {
    if matches!(fault, OpenError::Disk(_)) {
        return Err(fault);
    }
    found.faults.push(fault.to_string());
    Ok(found)
}

/// How long segments are: all are as long as the first one.
async fn segment_bytes<D: Disk>(disk: &D) -> Result<u64, OpenError> {
    let files = disk.files().await?;
    Ok(files
        .iter()
        .find_map(|(file, bytes)| matches!(file, FileId::Segment(_)).then_some(*bytes))
        .unwrap_or(0))
}

/// Reads the four copies; each one that is not whole is a fault.
async fn look_at_superblock<D: Disk>(
    disk: &D,
    found: &mut Inspection,
) -> Result<Option<Superblock>, OpenError> {
    let files = disk.files().await?;
    let pages = files.iter().find(|(file, _)| *file == FileId::Pages).map_or(0, |(_, bytes)| *bytes);
    if pages < (COPY_BLOCKS[3] + 1) * BLOCK_BYTES as u64 {
        let fault = format!("{}: expected a page file with a superblock, found {pages} bytes", FileId::Pages);
        found.faults.push(fault);
        return Ok(None);
    }
    for block in COPY_BLOCKS {
        let offset = block * BLOCK_BYTES as u64;
        let copy = disk.read(FileId::Pages, offset, disk.page_buffer(BLOCK_BYTES)).await?;
        if let Err(fault) = Superblock::decode(&copy) {
            found.faults.push(OpenError::from_copy(offset, &fault).to_string());
        }
    }
    match anchor::read(disk).await {
        Ok(Some(anchored)) => {
            let superblock = anchored.superblock;
            found.owner = Some((superblock.cluster, superblock.node, superblock.shard));
            found.catalogue_offsets = superblock.pieces.iter().map(|piece| piece.extent.offset()).collect();
            (found.flip, found.blocks_total) = (superblock.sequence, superblock.blocks_total);
            Ok(Some(superblock))
        }
        Ok(None) => {
            found.faults.push(format!("{} has no superblock that counts", FileId::Pages));
            Ok(None)
        }
        Err(fault @ OpenError::Disk(_)) => Err(fault),
        Err(fault) => {
            found.faults.push(fault.to_string());
            Ok(None)
        }
    }
}

impl OpenError {
    /// What is wrong with one copy of the superblock.
    fn from_copy(offset: u64, fault: &SuperblockFault) -> OpenError {
        let found = match fault {
            SuperblockFault::Absent => "no superblock".to_owned(),
            SuperblockFault::Broken { expected, found } => {
                format!("checksum {found:032x} instead of {expected:032x}")
            }
            SuperblockFault::Unsupported { what, found } => format!("{what} {found}"),
        };
        let expected = "a copy of the superblock".to_owned();
        OpenError::Corrupt { file: FileId::Pages, offset, expected, found }
    }
}

/// Looks at every page of a partition's tree.
async fn walk<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    checkpoint: &CataloguedPartition,
    faults: &mut Vec<String>,
    progress: &mut impl FnMut(Progress),
) -> Walked {
    let Some(root) = &checkpoint.root else { return Walked::default() };
    let mut walk = Walk::new(pages.clone(), root);
    while let Some((page, looked)) = walk.step().await {
        if let Err(fault) = looked {
            let offset = page.extent.offset();
            faults.push(format!(
                "{} at offset {offset}, of partition {}: {fault}",
                FileId::Pages,
                checkpoint.id
            ));
        }
        progress(Progress::Pages(checkpoint.id, walk.walked().bytes));
    }
    walk.walked()
}
