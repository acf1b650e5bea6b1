//! What the disk does to a run, and which failures that explains.

use evenkeel_storage::{
    CheckpointError, TreeError,
    memory::{CERTAIN_PPM, Faults},
    space::{PageError, SpaceError},
};

/// What goes wrong in a run beside crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing: everything acknowledged is found, and nothing is reported.
    Calm,
    /// Reads, writes and flushes fail, and there is no space: the same, once the engine is opened again.
    Errors,
    /// Writes are lost or go elsewhere, and bits change, behind everybody's back: that is repaired or reported.
    Damage,
    /// Nothing but crashes, one soon after the other, over a log that is hardly written: what one start leaves the
    /// next finds.
    Storm,
    /// The device says that it flushed, and did not. Only to see that the model notices.
    Lies,
}

impl Weather {
    /// The weather of a seed.
    pub fn of(seed: u64) -> Weather {
        match seed % 4 {
            0 | 1 => Weather::Calm,
            2 => Weather::Errors,
            _ => Weather::Damage,
        }
    }

    /// What the disk does while the engine is open.
    pub fn faults(self, seed: u64) -> Faults {
        let crashes = Faults::crashes_only(seed);
        match self {
            Weather::Calm | Weather::Storm => crashes,
            Weather::Lies => Faults::default(),
            Weather::Errors => Faults {
                read_error_ppm: CERTAIN_PPM / 50,
                write_error_ppm: CERTAIN_PPM / 300,
                sync_error_ppm: CERTAIN_PPM / 200,
                no_space_ppm: CERTAIN_PPM / 5,
                ..crashes
            },
            Weather::Damage => Faults {
                lost_write_ppm: CERTAIN_PPM / 200,
                misdirected_write_ppm: CERTAIN_PPM / 200,
                rot_ppm: CERTAIN_PPM / 50,
                ..crashes
            },
        }
    }
}

/// Whether a checkpoint, a flip or a split may fail like this.
pub fn is_excused(weather: Weather, error: &CheckpointError) -> bool {
    match error {
        CheckpointError::Tree(TreeError::Page(PageError::Corrupt { .. })) => weather == Weather::Damage,
        CheckpointError::Tree(
            TreeError::Page(PageError::Disk(_)) | TreeError::Space(SpaceError::Failed(_)),
        )
        | CheckpointError::Space(SpaceError::Failed(_) | SpaceError::Full { .. })
        | CheckpointError::Tree(TreeError::Space(SpaceError::Full { .. }))
        | CheckpointError::Log(_) => weather == Weather::Errors,
        _ => false,
    }
}
