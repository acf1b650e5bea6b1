//! Records of the log as bytes: refused, or written again as they were read.

#![no_main]

use evenkeel_storage::wal::record::{
    payload_bytes, read_payload, read_record, record_bytes, write_payload, write_record,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((operations, note)) = read_payload(data) {
        let mut again = vec![0; payload_bytes(&operations, note)];
        write_payload(&mut again, &operations, note);
        assert_eq!(read_payload(&again), Ok((operations, note)));
    }
    let Ok((record, taken)) = read_record(data) else { return };
    assert_eq!(taken, record_bytes(record.payload.len()));
    let mut again = vec![0; taken];
    write_record(&mut again, &record.header, record.checksum, record.payload.len(), |payload| {
        payload.copy_from_slice(record.payload);
    });
    assert_eq!(read_record(&again), Ok((record, taken)));
    let _ = read_payload(record.payload);
});
