//! Pages of trees as bytes whose checksum is right: refused, or every entry can be reached and stays inside.

#![no_main]

use evenkeel_storage::tree::{
    inner::InnerView,
    leaf::LeafView,
    page::{KIND_INNER, KIND_LEAF, PAGE_MAGIC, PAGE_VERSION},
};
use libfuzzer_sys::fuzz_target;

const BLOCK_BYTES: usize = 4096;

/// A page of a kind, with the fields that the fuzzer would only have to guess.
fn page(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    bytes[0..4].copy_from_slice(&PAGE_MAGIC.to_le_bytes());
    bytes[4..6].copy_from_slice(&PAGE_VERSION.to_le_bytes());
    bytes[6] = kind;
    bytes[16..20].fill(0);
    bytes[30..32].fill(0);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let _ = LeafView::open(data).map(drop);
    let _ = InnerView::open(data).map(drop);
    let leaf = page(KIND_LEAF, data);
    if let Ok((_, view)) = LeafView::open(&leaf) {
        for index in 0..view.count() {
            let (prefix, rest, _) = view.item(index);
            let key = [prefix, rest].concat();
            assert!(view.first_at(&key) <= view.count());
            let _ = view.get(&key);
        }
    }
    let inner = page(KIND_INNER, data);
    if let Ok((_, view)) = InnerView::open(&inner) {
        for index in 0..view.count() {
            let _ = view.child(index).page.extent.bytes();
            let key = view.separator(index).unwrap_or_default();
            assert!(view.find(&key) < view.count() && view.find_before(&key) < view.count());
        }
    }
});
