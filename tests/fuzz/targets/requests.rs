//! Bodies of every operation: refused with an error or read, and what is read can be stored and told.

#![no_main]

use evenkeel_dynamodb::request::{
    BatchGetItem, BatchWriteItem, CreateTable, DeleteItem, GetItem, PutItem, Query, Scan, UpdateItem,
    UpdateTable,
};
use evenkeel_model::{Attributes, ItemView, encode_item};
use libfuzzer_sys::fuzz_target;

fn stored_and_read_again(item: &Attributes) {
    let stored = encode_item(item);
    let view = ItemView::check(&stored).expect("what was accepted can be stored");
    assert_eq!(&view.to_attributes(), item);
}

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    match which % 10 {
        0 => drop(GetItem::parse(body)),
        1 => {
            if let Ok(request) = PutItem::parse(body) {
                stored_and_read_again(&request.item);
            }
        }
        2 => {
            if let Ok(request) = UpdateItem::parse(body) {
                stored_and_read_again(&request.key);
                evenkeel_expression::UpdateView::check(&request.update.encode())
                    .expect("a program that runs");
            }
        }
        3 => drop(DeleteItem::parse(body)),
        4 => drop(Query::parse(body)),
        5 => drop(Scan::parse(body)),
        6 => drop(BatchGetItem::parse(body)),
        7 => drop(BatchWriteItem::parse(body)),
        8 => drop(CreateTable::parse(body)),
        _ => drop(UpdateTable::parse(body)),
    }
});
