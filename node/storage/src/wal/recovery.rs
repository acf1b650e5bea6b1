//! Reading the log at start: what is there, where it ends, and whether anything acknowledged is gone.
//!
//! Frames are chained by sequence and by the previous frame's checksum, over segments and runs. The
//! walk starts at the oldest segment that is needed and follows the chain. At frame N, the chain so
//! far ending in checksum C, it goes on with the first of these that exists:
//!
//! 1. the first frame of a *later run* that names N and C: an earlier start found the log to end here
//!    and cut what is behind, so whatever else claims N was never acknowledged;
//! 2. a whole frame in the place where N belongs, of the same run and segment;
//! 3. the first frame of a later segment of the same run that names N and C.
//!
//! Otherwise the log ends before N, or N is damaged. It is *damaged* if any whole frame outside the
//! chain says `durable` ≥ N: it was built when N had been acknowledged. One of the chain's own run says so
//! wherever it stands, for the disk may have put the very frame that says it over N. It is never said by mere
//! leftovers: frames of a segment's earlier life, and frames cut by an earlier start, say what was
//! durable before the chain's end. Otherwise N and all behind it were never acknowledged: at most
//! [`WRITES_IN_FLIGHT_MAX`](crate::limits::WRITES_IN_FLIGHT_MAX) frames. They are cut, and the next
//! run writes N again in a segment of its own, never behind or over them before its first frame, that
//! confirms the cut, is durable.
//!
//! Which segment is the oldest needed is said by each frame; those words only rise, and each is true
//! when its frame is built, so the newest segment's are taken. Files are overwritten only by the word
//! of a frame in the chain.
//!
//! Nothing is changed by recovery itself: a crash during it leaves all as it was.

use super::{
    frame::{self, Claim, FrameFault, FrameHeader},
    log::Identity,
    reader::Reader,
    record::{RecordFault, RecordView, read_record},
    segment::LiveSegment,
};
use crate::{
    disk::{BLOCK_BYTES, Disk, FileId},
    engine::Cut,
    error::OpenError,
    limits::{FRAME_BYTES_MAX, RECOVERY_READ_BYTES},
    mistakes,
    runtime::Runtime,
};

/// What the log looks like after its last whole frame.
#[derive(Debug)]
pub(crate) struct Found {
    /// Sequence of the last frame; 0 for a new log.
    pub(crate) last: u64,
    /// Its checksum.
    pub(crate) previous: u128,
    /// The segments that hold the log, oldest first.
    pub(crate) live: Vec<LiveSegment>,
    /// Files that may be overwritten at once.
    pub(crate) free: Vec<FileId>,
    /// Files that may be overwritten once the first frame of this run is durable.
    pub(crate) leaving: Vec<FileId>,
    /// The next segment's place in the order of the log.
    pub(crate) segment_next: u32,
    /// A file number that is not taken.
    pub(crate) file_next: u32,
    /// The unacknowledged tail.
    pub(crate) cut: Option<Cut>,
    /// Frames in the chain.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The last flip of the page file that a frame knows durable.
    pub(crate) flip: u64,
}

/// Where a record stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    /// The segment.
    pub(crate) segment: u32,
    /// Sequence of the frame.
    pub(crate) frame: u64,
}

/// Takes the records of the log, in order.
pub(crate) trait Replay {
    /// One record. A fault names what this program does not know, or what cannot be.
    fn record(&mut self, at: RecordPlace, record: &RecordView<'_>) -> Result<(), ReplayFault>;
}

/// A record that cannot be replayed.
#[derive(Debug)]
pub(crate) enum ReplayFault {
    /// Its format is unknown.
    Unsupported(RecordFault),
    /// It does not follow from the records before.
    Corrupt { expected: String, found: String },
}

impl From<RecordFault> for ReplayFault {
    fn from(fault: RecordFault) -> Self {
        ReplayFault::Unsupported(fault)
    }
}

/// The whole frame at the beginning of a file.
#[derive(Clone, Copy, Debug)]
struct Head {
    file: FileId,
    header: FrameHeader,
}

/// Where the walk stands: the chain so far, and where the next frame is looked for.
#[derive(Clone, Copy, Debug)]
struct Position {
    head: Head,
    offset: u64,
    /// The next frame's sequence.
    sequence: u64,
    /// The last frame's checksum.
    previous: u128,
}

struct Recovery<D: Disk, R: Runtime> {
    runtime: R,
    identity: Identity,
    reader: Reader<D>,
    segment_bytes: u64,
    files: Vec<FileId>,
    /// Above the numbers of all files.
    file_next: u32,
    /// By rising segment.
    heads: Vec<Head>,
}

/// Reads the log of `disk` and hands its records to `replay`.
pub(crate) async fn recover<D: Disk, R: Runtime>(
    disk: &D,
    runtime: &R,
    identity: Identity,
    segment_bytes: u64,
    replay: &mut impl Replay,
) -> Result<Found, OpenError> {
    let mut files = Vec::new();
    let mut file_next = 0;
    for (file, bytes) in disk.files().await? {
        let FileId::Segment(number) = file else { continue };
        file_next = file_next.max(number + 1);
        if bytes != segment_bytes {
            return Err(OpenError::Config {
                reason: "there are segment files of another size than configured",
            });
        }
        files.push(file);
    }
    files.sort_unstable();
    let reader = Reader::new(disk.clone(), segment_bytes, RECOVERY_READ_BYTES);
    let runtime = runtime.clone();
    let mut recovery =
        Recovery { runtime, identity, reader, segment_bytes, files, file_next, heads: Vec::new() };
    recovery.read_heads().await?;
    let found = recovery.walk(replay).await?;
    // The last frames may be only in a volatile cache yet, if a process was killed rather than a
    // machine: they are made durable before anyone sees them.
    for segment in found.live.iter().rev().take(2) {
        disk.sync(segment.file).await?;
    }
    Ok(found)
}

impl<D: Disk, R: Runtime> Recovery<D, R> {
    /// Reads the first frame of each file.
    async fn read_heads(&mut self) -> Result<(), OpenError> {
        for file in self.files.clone() {
            if let Ok((header, _)) = self.frame(file, 0).await? {
                self.check_owner(file, &header)?;
                self.heads.push(Head { file, header });
            }
        }
        self.heads.sort_by_key(|head| head.header.segment);
        Ok(())
    }

    /// The frame at `offset`, if a whole one that belongs there is there.
    async fn frame(
        &mut self,
        file: FileId,
        offset: u64,
    ) -> Result<Result<(FrameHeader, u128), FrameFault>, OpenError> {
        let block = self.reader.piece(file, offset, BLOCK_BYTES).await?;
        match frame::claim(block, FRAME_BYTES_MAX).filter(|claim| u64::from(claim.offset) == offset) {
            Some(claim) => self.claimed(file, offset, &claim).await,
            None => Ok(Err(FrameFault::Absent)),
        }
    }

    /// The frame that is claimed to be at `offset`, if a whole one is there, whether it belongs there or not.
    async fn claimed(
        &mut self,
        file: FileId,
        offset: u64,
        claim: &Claim,
    ) -> Result<Result<(FrameHeader, u128), FrameFault>, OpenError> {
        if claim.frame_bytes as u64 > self.segment_bytes - offset {
            return Ok(Err(FrameFault::Absent));
        }
        let bytes = self.reader.piece(file, offset, claim.frame_bytes).await?;
        match frame::open(bytes) {
            Err(FrameFault::Unsupported { what, found }) => {
                Err(OpenError::Unsupported { file, offset, what, found })
            }
            other => Ok(other),
        }
    }

    fn check_owner(&self, file: FileId, header: &FrameHeader) -> Result<(), OpenError> {
        let identity = self.identity;
        if header.cluster != identity.cluster {
            return Err(OpenError::WrongCluster { file, expected: identity.cluster, found: header.cluster });
        }
        if header.node != identity.node {
            return Err(OpenError::WrongNode { file, expected: identity.node, found: header.node });
        }
        if header.shard != u32::from(identity.shard.0) {
            return Err(OpenError::WrongShard { file, expected: identity.shard, found: header.shard });
        }
        Ok(())
    }

    /// Follows the chain from the oldest segment needed to its end.
    async fn walk(&mut self, replay: &mut impl Replay) -> Result<Found, OpenError> {
        let mut found = Found {
            last: 0,
            previous: 0,
            live: Vec::new(),
            free: Vec::new(),
            leaving: Vec::new(),
            segment_next: self.heads.last().map_or(1, |head| head.header.segment + 1),
            file_next: self.file_next,
            cut: None,
            frames: 0,
            bytes: 0,
            flip: 0,
        };
        let Some(start) = self.oldest_needed().await? else {
            let files = self.files.clone();
            self.look_for_evidence(1, None, &files).await?;
            found.free = files;
            return Ok(found);
        };
        let mut at = Position {
            head: start,
            offset: 0,
            sequence: start.header.sequence,
            previous: start.header.previous,
        };
        found.live.push(start.segment());
        let mut oldest = 0;
        loop {
            if let Some(head) = self.next_run(&at) {
                at.enter(head);
                found.live.push(head.segment());
            } else if let Some((header, checksum)) = self.next_frame(&at).await? {
                self.replay_frame(&at, &header, replay).await?;
                oldest = oldest.max(header.oldest_segment);
                found.frames += 1;
                found.flip = found.flip.max(header.flip);
                found.bytes += u64::from(header.frame_bytes);
                at.pass(&header, checksum);
            } else if let Some(head) = self.next_segment(&at) {
                at.enter(head);
                found.live.push(head.segment());
            } else {
                break;
            }
        }
        found.last = at.sequence - 1;
        found.previous = at.previous;
        found.cut = self.check_end(&at, &found.live).await?;
        self.sort_files(oldest, &mut found);
        Ok(found)
    }

    /// The head of the oldest segment that is needed, by the word of the newest one.
    async fn oldest_needed(&mut self) -> Result<Option<Head>, OpenError> {
        let Some(&newest) = self.heads.last() else { return Ok(None) };
        let mut at = Position {
            head: newest,
            offset: 0,
            sequence: newest.header.sequence,
            previous: newest.header.previous,
        };
        let mut oldest = newest.header.oldest_segment;
        let mut said_at = 0;
        while let Some((header, checksum)) = self.next_frame(&at).await? {
            if header.oldest_segment > oldest {
                (oldest, said_at) = (header.oldest_segment, at.offset);
            }
            at.pass(&header, checksum);
        }
        let corrupt = |expected: String, found: &str| OpenError::Corrupt {
            file: newest.file,
            offset: said_at,
            expected,
            found: found.to_owned(),
        };
        let twice = |pair: &[Head]| pair[0].header.segment == pair[1].header.segment;
        if self.heads.windows(2).any(|pair| pair[0].header.segment >= oldest && twice(pair)) {
            return Err(corrupt(
                "one file for each segment".into(),
                "two files that begin with the same segment",
            ));
        }
        let first = self.heads.iter().find(|head| head.header.segment == oldest).copied();
        first.map(Some).ok_or_else(|| {
            corrupt(
                format!("a file with segment {oldest}, which this frame needs"),
                "none that begins with it",
            )
        })
    }

    /// The newest run that an earlier start began at this point of the chain.
    fn next_run(&self, at: &Position) -> Option<Head> {
        self.heads.iter().rev().find(|head| head.header.run_start && self.leads_to(at, head)).copied()
    }

    /// The next segment of the same run.
    fn next_segment(&self, at: &Position) -> Option<Head> {
        let same_run = |head: &&Head| !head.header.run_start && head.header.run == at.head.header.run;
        self.heads.iter().filter(same_run).find(|head| self.leads_to(at, head)).copied()
    }

    /// Whether the chain goes on with the segment of `head`.
    fn leads_to(&self, at: &Position, head: &Head) -> bool {
        head.header.segment > at.head.header.segment && self.follows(at, &head.header)
    }

    /// Whether a frame is the next one of the chain.
    fn follows(&self, at: &Position, header: &FrameHeader) -> bool {
        let chains = header.previous == at.previous || self.runtime.errs(mistakes::CHAIN_IGNORED);
        header.sequence == at.sequence && chains
    }

    /// The next frame, if it is whole and in the place where it belongs.
    async fn next_frame(&mut self, at: &Position) -> Result<Option<(FrameHeader, u128)>, OpenError> {
        if at.offset >= self.segment_bytes {
            return Ok(None);
        }
        let Ok((header, checksum)) = self.frame(at.head.file, at.offset).await? else { return Ok(None) };
        let belongs = header.run == at.head.header.run
            && header.segment == at.head.header.segment
            && self.follows(at, &header);
        if !belongs {
            return Ok(None);
        }
        self.check_owner(at.head.file, &header)?;
        Ok(Some((header, checksum)))
    }

    async fn replay_frame(
        &mut self,
        at: &Position,
        header: &FrameHeader,
        replay: &mut impl Replay,
    ) -> Result<(), OpenError> {
        let (file, offset) = (at.head.file, at.offset);
        let bytes = self.reader.piece(file, offset, header.frame_bytes as usize).await?;
        let mut rest = &bytes[frame::FRAME_HEADER_BYTES..][..header.records_bytes as usize];
        let place = RecordPlace { segment: header.segment, frame: header.sequence };
        let mut count = 0u64;
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            result = read_record(rest).map_err(ReplayFault::from).and_then(|(record, taken)| {
                rest = &rest[taken..];
                count += 1;
                replay.record(place, &record)
            });
        }
        if result.is_ok() && count != u64::from(header.record_count) {
            result = Err(RecordFault { what: "record count", found: header.record_count.into() }.into());
        }
        result.map_err(|fault| match fault {
            ReplayFault::Unsupported(RecordFault { what, found }) => {
                OpenError::Unsupported { file, offset, what, found }
            }
            ReplayFault::Corrupt { expected, found } => OpenError::Corrupt { file, offset, expected, found },
        })
    }

    /// Decides whether the chain ends here, or is damaged here.
    async fn check_end(&mut self, at: &Position, live: &[LiveSegment]) -> Result<Option<Cut>, OpenError> {
        let corrupt = |found: String| OpenError::Corrupt {
            file: at.head.file,
            offset: at.offset,
            expected: format!("frame {}", at.sequence),
            found,
        };
        let newer = |head: &&Head| head.header.run_start && head.header.segment > at.head.header.segment;
        if let Some(head) = self.heads.iter().find(newer) {
            let (file, sequence) = (head.file, head.header.sequence);
            return Err(corrupt(format!(
                "a run in {file} that begins with frame {sequence}, behind another frame"
            )));
        }
        let unread: Vec<FileId> = self
            .files
            .iter()
            .copied()
            .filter(|file| live.iter().all(|segment| segment.file != *file))
            .collect();
        let behind = self.look_for_evidence(at.sequence, Some(at), &unread).await?;
        if behind.whole > 0 && self.runtime.errs(mistakes::CUT_TAKEN_FOR_DAMAGE) {
            return Err(corrupt("a cut that is taken for damage".to_owned()));
        }
        let cut = Cut {
            file: at.head.file,
            offset: at.offset,
            frame_sequence: at.sequence,
            frames_whole: behind.whole,
        };
        Ok((behind.whole > 0 || behind.torn).then_some(cut))
    }

    /// Looks behind the end of the chain, and into the files outside it, for whole frames that say
    /// `sequence` was durable.
    async fn look_for_evidence(
        &mut self,
        sequence: u64,
        end: Option<&Position>,
        unread: &[FileId],
    ) -> Result<Behind, OpenError> {
        let mut behind = Behind::default();
        let last = end.map(|at| (at.head.file, at.offset));
        for (file, from) in last.into_iter().chain(unread.iter().map(|&file| (file, 0))) {
            let mut offset = from;
            while offset < self.segment_bytes {
                let block = self.reader.piece(file, offset, BLOCK_BYTES).await?;
                let claim = frame::claim(block, FRAME_BYTES_MAX);
                offset += self.weigh(sequence, end, file, offset, claim, &mut behind).await?;
            }
        }
        Ok(behind)
    }

    /// Weighs what claims to be a frame; returns how far to go on.
    async fn weigh(
        &mut self,
        sequence: u64,
        end: Option<&Position>,
        file: FileId,
        offset: u64,
        claim: Option<Claim>,
        behind: &mut Behind,
    ) -> Result<u64, OpenError> {
        let step = BLOCK_BYTES as u64;
        let Some(claim) = claim else { return Ok(step) };
        let same_run = end.is_some_and(|at| claim.run == at.head.header.run);
        let in_place = u64::from(claim.offset) == offset;
        let cut = in_place && same_run && claim.sequence >= sequence;
        let speaks = claim.durable >= sequence && (in_place || same_run);
        if !cut && !speaks {
            return Ok(step);
        }
        let Ok((header, _)) = self.claimed(file, offset, &claim).await? else {
            behind.torn |= cut;
            return Ok(step);
        };
        let same = header.cluster == self.identity.cluster
            && header.node == self.identity.node
            && header.shard == u32::from(self.identity.shard.0);
        if same && header.durable >= sequence && !self.runtime.errs(mistakes::DURABLE_MARK_IGNORED) {
            let (broken, broken_at) = end.map_or((file, 0), |at| (at.head.file, at.offset));
            return Err(OpenError::Corrupt {
                file: broken,
                offset: broken_at,
                expected: format!("frame {sequence}"),
                found: format!(
                    "nothing whole, though frame {} in {file} at offset {offset} says it was durable",
                    header.sequence
                ),
            });
        }
        behind.whole += u64::from(same && cut);
        Ok(u64::from(header.frame_bytes))
    }

    /// Decides which files may be overwritten, and when.
    fn sort_files(&self, oldest: u32, found: &mut Found) {
        for &file in &self.files {
            if found.live.iter().any(|segment| segment.file == file) {
                continue;
            }
            let head = self.heads.iter().find(|head| head.file == file);
            match head {
                Some(head) if head.header.segment >= oldest => found.leaving.push(file),
                _ => found.free.push(file),
            }
        }
    }
}

/// What is left behind the end of the chain.
#[derive(Clone, Copy, Debug, Default)]
struct Behind {
    whole: u64,
    torn: bool,
}

impl Head {
    fn segment(&self) -> LiveSegment {
        LiveSegment { sequence: self.header.segment, file: self.file }
    }
}

impl Position {
    fn enter(&mut self, head: Head) {
        self.head = head;
        self.offset = 0;
    }

    fn pass(&mut self, header: &FrameHeader, checksum: u128) {
        self.offset += u64::from(header.frame_bytes);
        self.sequence += 1;
        self.previous = checksum;
    }
}
