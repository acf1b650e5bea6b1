//! The requests, one type an operation: decoded from JSON, checked, with only what is there to be acted on.

mod batch;
mod reads;
mod resources;
mod tables;
mod update_table;
mod writes;

use crate::constraint::Constraints;
use crate::error::ApiError;

pub use batch::{AskedProjection, BatchGetItem, BatchKeys, BatchWrite, BatchWriteItem};
pub use reads::{GetItem, Query, ReadPage, Scan, Segment};
pub use resources::{DescribeOfTable, ListTagsOfResource, TagResource, UntagResource};
pub use tables::{CreateTable, DeleteTable, DescribeTable, ListTables};
pub use update_table::UpdateTable;
pub use writes::{DeleteItem, PutItem, ReturnValues, UpdateItem, WriteRequest};

/// A request, or why it is none.
type Outcome<T> = Result<T, ApiError>;

/// Whether and how consumed capacity is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Not at all.
    None,
    /// In total.
    Total,
    /// In total and for the table by itself.
    Indexes,
}

impl Capacity {
    fn parse(constraints: &mut Constraints, text: Option<&str>) -> Capacity {
        constraints.one_of("returnConsumedCapacity", text, &["INDEXES", "TOTAL", "NONE"]);
        match text {
            Some("TOTAL") => Capacity::Total,
            Some("INDEXES") => Capacity::Indexes,
            _ => Capacity::None,
        }
    }
}
