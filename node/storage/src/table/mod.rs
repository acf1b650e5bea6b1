//! The in-memory table of a partition.
use std::rc::Rc;

/// A state of a table that later changes do not touch.
#[derive(Clone, Debug)]
pub struct Pinned {}

impl Pinned {
    /// The items in key order from `lower` (inclusive).
    pub fn iter_from(&self, _lower: &[u8]) -> impl Iterator<Item = (Rc<[u8]>, Rc<[u8]>)> + '_ {
        std::iter::empty()
    }
}
