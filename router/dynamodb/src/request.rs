//! The requests, one type an operation: decoded from JSON, checked, with only what is there to be acted on.

mod items;
mod resources;
mod tables;
mod update_table;

pub use items::{BatchWrite, BatchWriteItem, Capacity, DeleteItem, GetItem, PutItem, Query, ReadPage, Scan};
pub use resources::{DescribeOfTable, ListTagsOfResource, TagResource, UntagResource};
pub use tables::{CreateTable, DeleteTable, DescribeTable, ListTables};
pub use update_table::UpdateTable;
