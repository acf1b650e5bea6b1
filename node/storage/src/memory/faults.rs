//! What goes wrong with a disk: how often each thing should happen, and how often it did.
//!
//! Everything is drawn from one seed, so that the same run gives the same faults. What was damaged is
//! kept in a list: a test can tell damage that was reported rightly from damage that was made up.
//!
//! This module decides; it knows nothing of files.

use super::Random;
use crate::disk::FileId;

/// What a probability is counted in: a fault with this number always happens.
pub const CERTAIN_PPM: u32 = 1_000_000;

/// Which faults a disk has. Probabilities are in millionths, per operation unless it says otherwise;
/// by default nothing goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Where the random numbers come from.
    pub seed: u64,
    /// At a power-off, of each write that is not durable: some of its sectors land and others do not.
    /// Without it a write lands whole or not at all.
    pub torn_write_ppm: u32,
    /// At a power-off, of each sector that lands: only its beginning does.
    pub torn_sector_ppm: u32,
    /// A write is reported as done, and nothing is written.
    pub lost_write_ppm: u32,
    /// A write goes to another place of its file.
    pub misdirected_write_ppm: u32,
    /// A bit of what is read has changed on the medium, for good.
    pub rot_ppm: u32,
    /// A read fails.
    pub read_error_ppm: u32,
    /// A write or append fails, and any of its sectors may be written.
    pub write_error_ppm: u32,
    /// A sync fails, and any of what it should have made durable may be lost.
    pub sync_error_ppm: u32,
    /// Making or growing a file finds no space.
    pub no_space_ppm: u32,
    /// Making or growing files beyond this many bytes altogether finds no space.
    pub capacity_bytes: Option<u64>,
    /// When an operation completes, it is not the oldest that could.
    pub reordered_ppm: u32,
    /// An operation completes only after other things, timers among them, had their turn.
    pub slow_ppm: u32,
}

impl Faults {
    /// What every device does: completions in any order, and writes that are torn when the power goes.
    pub fn crashes_only(seed: u64) -> Faults {
        Faults {
            seed,
            torn_write_ppm: CERTAIN_PPM / 2,
            torn_sector_ppm: CERTAIN_PPM / 50,
            reordered_ppm: CERTAIN_PPM / 2,
            slow_ppm: CERTAIN_PPM / 20,
            ..Faults::default()
        }
    }
}

/// How often each fault happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Power-offs.
    pub power_offs: u64,
    /// Sectors of completed writes that a power-off took out of the volatile cache.
    pub cache_sectors_lost: u64,
    /// Writes in flight at a power-off of which only a part landed.
    pub torn_writes: u64,
    /// Sectors of which only the beginning landed.
    pub torn_sectors: u64,
    /// Writes that were lost in silence.
    pub lost_writes: u64,
    /// Writes that went elsewhere.
    pub misdirected_writes: u64,
    /// Bits that changed on the medium.
    pub rotten_bits: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Files that could not be made or grown.
    pub no_space: u64,
    /// Completions out of order.
    pub reordered: u64,
    /// Operations that took long.
    pub slow: u64,
}

/// A kind of damage that nobody is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// A write was lost: the old content is there.
    Lost,
    /// A write that belongs elsewhere is there.
    Misdirected,
    /// A bit has changed.
    Rot,
}

/// Bytes of a file that are not what was written to them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What happened.
    pub kind: DamageKind,
    /// Where.
    pub file: FileId,
    /// Offset of the first byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// What becomes of a write, decided when it is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Normal,
    Lost,
    /// Goes to another offset, drawn from this number.
    Misdirected(u64),
    Failed,
}

/// How much of a sector lands at a power-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    Nothing,
    Whole,
    /// So many bytes from its beginning.
    Beginning(usize),
}

/// How the writes that are not durable fare at one power-off.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    NothingLands,
    EverythingLands,
    Mixed,
}

/// The faults of one disk.
#[derive(Clone, Debug)]
pub(super) struct FaultState {
    pub(super) config: Faults,
    pub(super) counts: FaultCounts,
    pub(super) damage: Vec<Damage>,
    pub(super) random: Random,
    /// What becomes of the next append and of the next other write.
    pub(super) next_append: Option<Fate>,
    pub(super) next_write: Option<Fate>,
}

impl FaultState {
    pub(super) fn new(config: Faults) -> Self {
        let random = Random::new(config.seed);
        let (counts, damage) = (FaultCounts::default(), Vec::new());
        FaultState { config, counts, damage, random, next_append: None, next_write: None }
    }

    pub(super) fn happens(&mut self, ppm: u32) -> bool {
        // No number is drawn for what is switched off: switching one fault on leaves the others alone.
        ppm > 0 && self.random.below(u64::from(CERTAIN_PPM)) < u64::from(ppm)
    }

    /// The fate of a write: an append, or another one.
    pub(super) fn fate(&mut self, append: bool) -> Fate {
        let chosen = if append { self.next_append.take() } else { self.next_write.take() };
        if let Some(fate) = chosen {
            match fate {
                Fate::Lost => self.counts.lost_writes += 1,
                Fate::Misdirected(_) => self.counts.misdirected_writes += 1,
                Fate::Failed => self.counts.write_errors += 1,
                Fate::Normal => {}
            }
            return fate;
        }
        let config = self.config;
        if self.happens(config.write_error_ppm) {
            self.counts.write_errors += 1;
            return Fate::Failed;
        }
        if self.happens(config.lost_write_ppm) {
            self.counts.lost_writes += 1;
            return Fate::Lost;
        }
        if self.happens(config.misdirected_write_ppm) {
            self.counts.misdirected_writes += 1;
            return Fate::Misdirected(self.random.bits());
        }
        Fate::Normal
    }

    /// Turns of timers that an operation submitted now waits for.
    pub(super) fn slowness(&mut self) -> u64 {
        if !self.happens(self.config.slow_ppm) {
            return 0;
        }
        self.counts.slow += 1;
        1 + self.random.below(4)
    }

    pub(super) fn mood(&mut self) -> Mood {
        match self.random.below(6) {
            0 => Mood::NothingLands,
            1 => Mood::EverythingLands,
            _ => Mood::Mixed,
        }
    }

    /// How the sectors of one write land that is not durable.
    pub(super) fn landings(&mut self, mood: Mood, sectors: usize, sector_bytes: usize) -> Vec<Landing> {
        let torn = matches!(mood, Mood::Mixed) && self.happens(self.config.torn_write_ppm);
        let whole = match mood {
            Mood::NothingLands => false,
            Mood::EverythingLands => true,
            Mood::Mixed => self.random.once_in(2),
        };
        let landings: Vec<Landing> = (0..sectors)
            .map(|_| {
                let lands = if torn { self.random.once_in(2) } else { whole };
                if !lands {
                    Landing::Nothing
                } else if matches!(mood, Mood::Mixed) && self.happens(self.config.torn_sector_ppm) {
                    self.counts.torn_sectors += 1;
                    Landing::Beginning(1 + self.random.below(sector_bytes as u64 - 1) as usize)
                } else {
                    Landing::Whole
                }
            })
            .collect();
        let landed = landings.iter().filter(|landing| **landing == Landing::Whole).count();
        self.counts.torn_writes += u64::from(landed > 0 && landed < sectors);
        landings
    }
}
