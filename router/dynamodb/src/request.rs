//! The requests, one type an operation: decoded from JSON, checked, with only what is there to be acted on.

mod items;
mod tables;

pub use items::{BatchWrite, BatchWriteItem, Capacity, DeleteItem, GetItem, PutItem, Query, ReadPage, Scan};
pub use tables::{CreateTable, DeleteTable, DescribeTable, ListTables};
