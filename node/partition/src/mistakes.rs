//! Mistakes that a replica could make, for the simulator to switch on one at a time ([`Runtime::errs`]): a
//! simulator that finds nothing proves little unless it finds each of these.
//!
//! [`Runtime::errs`]: evenkeel_storage::Runtime::errs

use evenkeel_storage::Mistake;

/// A read is not held against the lease again when its data has been read.
pub const LEASE_NOT_CHECKED_AGAIN: Mistake = Mistake("partition: the lease is not checked before the reply");
/// An eventually consistent read sees entries that are not chosen.
pub const EVENTUAL_READ_OF_ACCEPTED: Mistake =
    Mistake("partition: an eventual read sees accepted but unchosen state");
/// A repeated write is taken for a new one.
pub const DUPLICATE_APPLIED_TWICE: Mistake = Mistake("partition: a duplicate is applied twice");
/// A new leader does not look for tokens in the log that it adopts.
pub const PENDING_TOKENS_FORGOTTEN: Mistake =
    Mistake("partition: a new leader forgets the tokens of what it adopts");
/// A snapshot is handed over without the outcomes.
pub const TOKENS_LOST_IN_SNAPSHOT: Mistake = Mistake("partition: a snapshot goes without its tokens");
/// A checkpoint is made without the outcomes.
pub const TOKENS_LOST_IN_CHECKPOINT: Mistake = Mistake("partition: a checkpoint goes without its tokens");
/// A start does not take up the outcomes of entries in the log.
pub const TOKENS_LOST_AT_START: Mistake = Mistake("partition: a start forgets the tokens in the log");
/// That a condition failed is told before what it was held against is chosen.
pub const UNCHOSEN_REVEALED: Mistake = Mistake("partition: a failed condition reveals an unchosen write");
/// A write is acknowledged when it is proposed.
pub const ANSWERED_BEFORE_CHOSEN: Mistake = Mistake("partition: a write is answered before it is chosen");
/// A message leaves before the write that it vouches for is durable.
pub const SENT_BEFORE_DURABLE: Mistake = Mistake("partition: a message leaves before its record is durable");
/// Conditions and updates are held against what is applied.
pub const CONDITION_ON_APPLIED: Mistake =
    Mistake("partition: a condition is held against applied instead of proposed state");
/// Two writes of a key read it at the same time.
pub const LATCH_NOT_HELD: Mistake = Mistake("partition: the latch of a key is let go before the proposal");
