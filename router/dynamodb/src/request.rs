//! The requests, one type an operation: decoded from JSON, checked, with only what is there to be acted on.

mod batch;
mod items;
mod resources;
mod tables;
mod update_table;

pub use batch::{BatchGetItem, BatchKeys, BatchWrite, BatchWriteItem};
pub use items::{Capacity, DeleteItem, GetItem, PutItem, Query, ReadPage, Scan};
pub use resources::{DescribeOfTable, ListTagsOfResource, TagResource, UntagResource};
pub use tables::{CreateTable, DeleteTable, DescribeTable, ListTables};
pub use update_table::UpdateTable;
