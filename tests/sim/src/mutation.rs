//! The mistakes that the simulator must find when they are switched on, one at a time.

use crate::world::IDENTITY_REUSED;
use evenkeel_partition::mistakes as partition;
use evenkeel_storage::{Mistake, mistakes as storage};

/// A mistake, the trap of the design's list that it is an instance of, and a seed that finds it: tried first, so
/// that the usual test is short.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The trap's number; 0 if it is none of these.
    pub trap: u8,
    /// What goes wrong.
    pub mistake: [Mistake; 1],
    /// A seed that shows it.
    pub seed: u64,
}

const fn row(trap: u8, mistake: Mistake, seed: u64) -> Row {
    Row { trap, mistake: [mistake], seed }
}

/// All of them.
pub static TABLE: [Row; 19] = [
    row(1, partition::SENT_BEFORE_DURABLE, 0),
    row(9, IDENTITY_REUSED, 2),
    row(16, partition::EVENTUAL_READ_OF_ACCEPTED, 0),
    row(17, partition::DUPLICATE_APPLIED_TWICE, 0),
    row(17, partition::PENDING_TOKENS_FORGOTTEN, 246),
    row(17, partition::TOKENS_LOST_IN_SNAPSHOT, 333),
    row(17, partition::TOKENS_LOST_IN_CHECKPOINT, 2),
    row(17, partition::TOKENS_LOST_AT_START, 2),
    row(2, partition::ANSWERED_BEFORE_CHOSEN, 0),
    row(17, partition::CONDITION_ON_APPLIED, 0),
    row(17, partition::LATCH_NOT_HELD, 1),
    row(16, partition::UNCHOSEN_REVEALED, 0),
    row(18, storage::INSTALLED_UNFLIPPED, 5),
    row(19, storage::DURABLE_MARK_IGNORED, 79),
    row(19, storage::CUT_TAKEN_FOR_DAMAGE, 17),
    row(21, storage::PAGE_UNCHECKED, 7),
    row(22, storage::FAILED_APPEND_PASSED_OVER, 24),
    row(1, storage::ACKNOWLEDGED_UNFLUSHED, 0),
    row(0, storage::MARK_OVERRUN, 0),
];
