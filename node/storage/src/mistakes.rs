//! Mistakes that this crate could make ([`Runtime::errs`](crate::Runtime::errs)): what switches a promise of
//! the formats off, so that the tests show that they would notice. `docs/internals/engine-proof.md` has what
//! they found.

use crate::runtime::Mistake;

/// An entry is acknowledged when it is submitted, not when it is flushed.
pub const ACKNOWLEDGED_UNFLUSHED: Mistake = Mistake("an entry is acknowledged before it is flushed");

/// Every start has the same run: the checksums of its frames are no others than those of the starts before.
pub const RUN_LEFT_OUT: Mistake = Mistake("the run is no part of the checksum");

/// A frame follows another by its sequence alone, whatever checksum it names.
pub const CHAIN_IGNORED: Mistake = Mistake("the checksum of the frame before is not compared");

/// Recovery does not ask which frames were known durable.
pub const DURABLE_MARK_IGNORED: Mistake = Mistake("the durable mark is ignored");

/// The superblock leaves before the catalogue and the pages that it leads to are flushed.
pub const SUPERBLOCK_FIRST: Mistake = Mistake("the superblock is written before catalogue and pages");

/// Only one pair of the superblock's copies is written.
pub const ONE_PAIR: Mistake = Mistake("the superblock is written as one pair");

/// A page is taken for what its parent says it is.
pub const PAGE_UNCHECKED: Mistake = Mistake("the checksum in the parent is not compared");

/// An owner hears that content has taken a partition's place before a flip has made that durable.
pub const INSTALLED_UNFLIPPED: Mistake = Mistake("content is installed before a flip is durable");

/// A merge that must end at a mark takes in what was applied behind it.
pub const MARK_OVERRUN: Mistake = Mistake("a merge takes in what came behind its mark");

/// A tail that a crash has cut is taken for damage.
pub const CUT_TAKEN_FOR_DAMAGE: Mistake = Mistake("a torn tail is taken for damage");

/// The log goes on after an append that failed, as if it had been repeated with success.
pub const FAILED_APPEND_PASSED_OVER: Mistake = Mistake("a failed flush is retried");
