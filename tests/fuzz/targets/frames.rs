//! Frames and messages from the network: refused, or read in place.

#![no_main]

use bytes::Bytes;
use evenkeel_wire::message::{
    ChangeUser, ConditionFailed, CreatePartition, CreateTable, Delete, DeleteTable, Found, Get, Hello, Page,
    Put, Range, Update, UpdateTable, Welcome, Written,
};
use evenkeel_wire::{HEADER_BYTES, Message, Refusal, decode, frame};
use libfuzzer_sys::fuzz_target;

/// The message as its sender would have sealed these bytes; a checksum hides nothing from the fuzzer.
fn decode_as<M>(data: &[u8])
where
    M: Message + rkyv::Archive,
    M::Archived: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::Error>>,
{
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend_from_slice(data);
    frame::seal(&mut bytes, M::KIND as u16, 1, 2);
    let frame = frame::open(Bytes::from(bytes)).expect("sealed above");
    let _ = decode::<M>(&frame);
}

macro_rules! decode_each {
    ($data:expr, $($message:ty),*) => {
        $(decode_as::<$message>($data);)*
    };
}

fuzz_target!(|data: &[u8]| {
    if let Some(head) = data.first_chunk::<HEADER_BYTES>() {
        let _ = frame::parse_header(head);
    }
    decode_each!(
        data,
        Hello,
        Welcome,
        Get<'_>,
        Found<'_>,
        Put<'_>,
        Delete<'_>,
        Update<'_>,
        Written<'_>,
        ConditionFailed<'_>,
        Range<'_>,
        Page<'_>,
        CreateTable,
        UpdateTable,
        DeleteTable,
        ChangeUser,
        CreatePartition<'_>,
        Refusal
    );
});
