//! What the disk in memory is doing: operations between submission and completion, and what each one
//! does to the files when it completes, faults included.

use super::{
    disk::Append,
    faults::{Damage, DamageKind, Fate, FaultState, Landing, Mood},
    media::{File, SECTOR_BYTES, Sectors, land, position},
};
use crate::disk::{BLOCK_BYTES, DiskError, FileId};
use std::{collections::BTreeMap, io, mem, rc::Rc, task::Waker};

#[derive(Debug)]
pub(super) enum Work {
    /// A write that is durable when it completes, by its index in the history.
    Append {
        index: usize,
        fate: Fate,
    },
    Write {
        file: FileId,
        offset: u64,
        bytes: Rc<[u8]>,
        fate: Fate,
    },
    Read {
        file: FileId,
        offset: u64,
        bytes: usize,
    },
    Sync {
        file: FileId,
        flushed: Sectors,
    },
    Create {
        file: FileId,
        bytes: u64,
    },
    Extend {
        file: FileId,
        from: u64,
        to: u64,
    },
}

/// What a completed operation gives back: the bytes read, if it was a read.
pub(super) type Outcome = Result<Vec<u8>, DiskError>;

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) work: Work,
    /// Turns of timers it still waits for.
    pub(super) slow: u64,
    pub(super) outcome: Option<Outcome>,
    pub(super) waker: Option<Waker>,
    /// Nobody waits for it any more.
    pub(super) abandoned: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) files: BTreeMap<FileId, File>,
    /// All appends since the disk was made.
    pub(super) history: Vec<Append>,
    /// By order of submission.
    pub(super) operations: BTreeMap<u64, Operation>,
    next_id: u64,
    pub(super) clock: u64,
    /// Appends complete by themselves, in order, each when it is waited for.
    pub(super) automatic: bool,
    /// Reads, plain writes and syncs take their time as well.
    pub(super) holds_all: bool,
    /// Appends resolve before they are durable, and syncs do nothing.
    pub(super) lying: bool,
    /// No file is made any more.
    pub(super) full: bool,
    /// Every append and sync fails.
    pub(super) broken: bool,
    pub(super) faults: FaultState,
}

impl State {
    pub(super) fn new(faults: FaultState) -> State {
        State {
            files: BTreeMap::new(),
            history: Vec::new(),
            operations: BTreeMap::new(),
            next_id: 0,
            clock: 0,
            automatic: false,
            holds_all: false,
            lying: false,
            full: false,
            broken: false,
            faults,
        }
    }

    /// Begins an operation. All but appends are done at once, unless everything is held.
    pub(super) fn submit(&mut self, work: Work) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let at_once = !self.holds_all && !matches!(work, Work::Append { .. });
        let slow = self.faults.slowness();
        self.operations.insert(id, Operation { work, slow, outcome: None, waker: None, abandoned: false });
        if at_once {
            self.finish(id);
        }
        id
    }

    /// Operations that could complete now, oldest first; the slow ones only if nothing else can.
    pub(super) fn ready(&self, slow_too: bool) -> Vec<u64> {
        let open = |operation: &Operation| operation.outcome.is_none() && (slow_too || operation.slow == 0);
        self.operations.iter().filter(|(_, operation)| open(operation)).map(|(&id, _)| id).collect()
    }

    /// Completes an operation.
    pub(super) fn finish(&mut self, id: u64) {
        let operation = self.operations.get_mut(&id).expect("operations under way are kept");
        assert!(operation.outcome.is_none(), "an operation completes once");
        let work = mem::replace(&mut operation.work, Work::Create { file: FileId::Pages, bytes: 0 });
        let outcome = self.carry_out(work);
        let operation = self.operations.get_mut(&id).expect("it was there");
        operation.outcome = Some(outcome);
        if let Some(waker) = operation.waker.take() {
            waker.wake();
        }
        if operation.abandoned {
            self.operations.remove(&id);
        }
    }

    fn carry_out(&mut self, work: Work) -> Outcome {
        match work {
            Work::Append { index, fate } => {
                self.clock += 1;
                let append = &mut self.history[index];
                assert!(append.completed.replace(self.clock).is_none(), "an append completes once");
                let append = append.clone();
                self.land(append.file, append.offset, &append.bytes, fate, true)
            }
            Work::Write { file, offset, bytes, fate } => self.land(file, offset, &bytes, fate, false),
            Work::Read { file, offset, bytes } => self.read(file, offset, bytes),
            Work::Sync { file, flushed } => self.sync(file, &flushed),
            Work::Create { file, bytes } => {
                self.find_space("create", file, bytes, bytes)?;
                let zeros = vec![0; position(bytes)];
                if self.files.contains_key(&file) {
                    return Err(failure("create", file, 0, io::ErrorKind::AlreadyExists));
                }
                self.files.insert(file, File::durable(zeros));
                Ok(Vec::new())
            }
            Work::Extend { file, from, to } => {
                let length = self.file("extend", file, from)?.durable.len() as u64;
                assert!(from <= length && from <= to, "a file grows without holes");
                self.find_space("extend", file, from, to.saturating_sub(length))?;
                self.file("extend", file, from)?.extend(from, to);
                Ok(Vec::new())
            }
        }
    }

    /// A write reaches its file, or does not.
    fn land(&mut self, file: FileId, offset: u64, bytes: &[u8], fate: Fate, through: bool) -> Outcome {
        let operation = if through { "append" } else { "write" };
        let room = self.file(operation, file, offset)?.durable.len() as u64 - bytes.len() as u64;
        let mut to = offset;
        match fate {
            Fate::Normal => {}
            Fate::Lost => {
                self.damaged(DamageKind::Lost, file, offset, bytes.len());
                return Ok(Vec::new());
            }
            Fate::Misdirected(random) => {
                to = random % (room / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64;
                if to != offset {
                    self.damaged(DamageKind::Lost, file, offset, bytes.len());
                    self.damaged(DamageKind::Misdirected, file, to, bytes.len());
                }
            }
            Fate::Failed => {
                let sectors = bytes.len() / SECTOR_BYTES;
                let landings = self.faults.landings(Mood::Mixed, sectors, SECTOR_BYTES);
                let found = self.file(operation, file, offset)?;
                let mut whole = vec![0; bytes.len()];
                found.read(position(offset), &mut whole);
                land(&mut whole, 0, bytes, &landings);
                found.cache(offset, &whole);
                return Err(failure(operation, file, offset, io::ErrorKind::Other));
            }
        }
        let found = self.file(operation, file, offset)?;
        if through {
            found.write_through(to, bytes)
        } else {
            found.cache(to, bytes)
        }
        Ok(Vec::new())
    }

    fn read(&mut self, file: FileId, offset: u64, bytes: usize) -> Outcome {
        let length = self.file("read", file, offset)?.durable.len() as u64;
        if offset + bytes as u64 > length {
            return Err(failure("read", file, offset, io::ErrorKind::UnexpectedEof));
        }
        if self.faults.happens(self.faults.config.read_error_ppm) {
            self.faults.counts.read_errors += 1;
            return Err(failure("read", file, offset, io::ErrorKind::Other));
        }
        if self.faults.happens(self.faults.config.rot_ppm) {
            let at = offset + self.faults.random.below(bytes as u64);
            let bit = self.faults.random.below(8) as u32;
            self.rot(file, at, bit);
        }
        let mut content = vec![0; bytes];
        self.file("read", file, offset)?.read(position(offset), &mut content);
        Ok(content)
    }

    pub(super) fn rot(&mut self, file: FileId, at: u64, bit: u32) {
        self.faults.counts.rotten_bits += 1;
        self.damaged(DamageKind::Rot, file, at, 1);
        self.files.get_mut(&file).expect("only files that exist rot").flip(at, bit);
    }

    fn sync(&mut self, file: FileId, flushed: &Sectors) -> Outcome {
        self.file("sync", file, 0)?;
        if self.broken {
            return Err(failure("sync", file, 0, io::ErrorKind::Other));
        }
        if self.lying {
            return Ok(Vec::new());
        }
        if !self.faults.happens(self.faults.config.sync_error_ppm) {
            self.file("sync", file, 0)?.flush(flushed);
            return Ok(Vec::new());
        }
        // What the device could not flush may be there, may still be cached, and may be gone.
        self.faults.counts.sync_errors += 1;
        let (mut durable, mut gone) = (Sectors::new(), Vec::new());
        for (sector, bytes) in flushed {
            match self.faults.random.below(3) {
                0 => drop(durable.insert(*sector, Rc::clone(bytes))),
                1 => gone.push(*sector),
                _ => {}
            }
        }
        let found = self.file("sync", file, 0)?;
        found.flush(&durable);
        for sector in gone {
            found.cached.remove(&sector);
        }
        Err(failure("sync", file, 0, io::ErrorKind::Other))
    }

    fn find_space(
        &mut self,
        operation: &'static str,
        file: FileId,
        at: u64,
        bytes: u64,
    ) -> Result<(), DiskError> {
        let used: u64 = self.files.values().map(|file| file.durable.len() as u64).sum();
        let over = self.faults.config.capacity_bytes.is_some_and(|capacity| used + bytes > capacity);
        if self.full || over || self.faults.happens(self.faults.config.no_space_ppm) {
            self.faults.counts.no_space += 1;
            return Err(failure(operation, file, at, io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn file(&mut self, operation: &'static str, id: FileId, offset: u64) -> Result<&mut File, DiskError> {
        self.files.get_mut(&id).ok_or_else(|| failure(operation, id, offset, io::ErrorKind::NotFound))
    }

    fn damaged(&mut self, kind: DamageKind, file: FileId, offset: u64, bytes: usize) {
        self.faults.damage.push(Damage { kind, file, offset, bytes: bytes as u64 });
    }

    /// Writes that have not completed, in the order of their submission.
    pub(super) fn writes_in_flight(&self) -> Vec<Append> {
        let open = self.operations.values().filter(|operation| operation.outcome.is_none());
        let write = |operation: &Operation| match &operation.work {
            Work::Append { index, .. } => Some(self.history[*index].clone()),
            Work::Write { file, offset, bytes, .. } => Some(unfinished(*file, *offset, Rc::clone(bytes))),
            _ => None,
        };
        open.filter_map(write).collect()
    }

    /// The files after a power cut: what is durable, and of each write that is in flight or cached
    /// what `landings` says.
    pub(super) fn files_after_power_off(
        &self,
        mut landings: impl FnMut(&Append, bool) -> Vec<Landing>,
    ) -> BTreeMap<FileId, File> {
        let mut files = self.files.clone();
        for (&id, file) in &mut files {
            for (sector, bytes) in mem::take(&mut file.cached) {
                let write = unfinished(id, (sector * SECTOR_BYTES) as u64, bytes);
                let landings = landings(&write, true);
                land(&mut file.durable, write.offset, &write.bytes, &landings);
            }
        }
        for write in self.writes_in_flight() {
            if let Some(file) = files.get_mut(&write.file) {
                let landings = landings(&write, false);
                land(&mut file.durable, write.offset, &write.bytes, &landings);
            }
        }
        files
    }

    /// The files that a new process finds: of each write in flight what `landings` says is cached.
    pub(super) fn files_after_kill(
        &self,
        mut landings: impl FnMut(&Append) -> Vec<Landing>,
    ) -> BTreeMap<FileId, File> {
        let mut files = self.files.clone();
        for write in self.writes_in_flight() {
            let Some(file) = files.get_mut(&write.file) else { continue };
            let mut content = vec![0; write.bytes.len()];
            file.read(position(write.offset), &mut content);
            land(&mut content, 0, &write.bytes, &landings(&write));
            file.cache(write.offset, &content);
        }
        files
    }

    /// Growth under way when the power goes leaves any length in between.
    pub(super) fn growth_in_flight(&self) -> Vec<(FileId, u64, u64)> {
        let open = self.operations.values().filter(|operation| operation.outcome.is_none());
        let growth = |operation: &Operation| match operation.work {
            Work::Extend { file, from, to } => Some((file, from, to)),
            _ => None,
        };
        open.filter_map(growth).collect()
    }
}

fn unfinished(file: FileId, offset: u64, bytes: Rc<[u8]>) -> Append {
    Append { file, offset, bytes, submitted: 0, completed: None }
}

pub(super) fn failure(operation: &'static str, file: FileId, offset: u64, kind: io::ErrorKind) -> DiskError {
    DiskError::new(operation, Some(file), offset, &io::Error::from(kind))
}
