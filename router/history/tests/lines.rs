//! The file format: what is written is read again, and nothing malformed is read at all.

mod common;

use common::{ABSENT, GET, OK, history, put, saw};
use evenkeel_history::{Consistency, Image, Outcome, Request, lines};

const BEGIN: &str = r#"{"event":"invoke","time":10,"client":1,"id":7,"key":"a","request":{"put_if":{"expected":"absent","value":5}}}"#;
const END: &str = r#"{"event":"respond","time":14,"client":1,"id":7,"outcome":{"ok":{"returned":null}}}"#;

#[test]
fn the_format_does_not_change_unnoticed() {
    let history = lines::read([BEGIN, "\n", END].concat().as_bytes()).unwrap();
    let operation = &history.operations()[0];
    assert_eq!(operation.request, Request::PutIf { expected: Image::Absent, value: 5 });
    assert_eq!(operation.response, Some((14, OK)));
    let mut written = Vec::new();
    lines::write(&history, &mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), format!("{BEGIN}\n{END}\n"));
}

#[test]
fn every_request_and_outcome_is_written_and_read_again() {
    let session = Request::Get { consistency: Consistency::Session };
    let eventual = Request::Get { consistency: Consistency::Eventual };
    let conditional = Request::PutIf { expected: Image::Value(i64::MIN), value: i64::MAX };
    let before = history(&[
        (1, 0, 1, GET, ABSENT),
        (2, 0, 1, session, saw(-1)),
        (u64::MAX, 1, 1, eventual, saw(1)),
        (1, 2, 3, put(1), Outcome::Failed),
        (1, 4, 5, Request::Delete, Outcome::Unknown),
        (1, 6, 7, conditional, Outcome::ConditionFailed { found: Some(Image::Absent) }),
        (1, 8, u64::MAX, Request::Increment { by: -1 }, saw(1)),
    ]);
    let mut written = Vec::new();
    lines::write(&before, &mut written).unwrap();
    let after = lines::read(written.as_slice()).unwrap();
    assert_eq!(before.events(), after.events());
    assert_eq!(after.operations().len(), 7);
}

#[test]
fn every_malformed_line_is_an_error_with_its_number() {
    let end = |from: &str, to: &str| END.replace(from, to);
    let long = format!("{}{}", " ".repeat(lines::LINE_BYTES_MAX), END);
    let cases: &[(&str, &str)] = &[
        ("", "not an event"),
        ("{", "not an event"),
        ("7", "not an event"),
        (r#"{"event":"restart","time":1}"#, "unknown variant `restart`"),
        (&end("\"time\":14,", ""), "missing field `time`"),
        (&end("\"time\":14", "\"time\":-1"), "not an event"),
        (&end("\"time\":14", "\"time\":14,\"more\":1"), "unknown field `more`"),
        (&end("\"returned\":null", "\"returned\":null,\"more\":1"), "unknown field `more`"),
        (&format!("{END} {END}"), "trailing characters"),
        (&end("\"id\":7", "\"id\":8"), "operation 8 ends and never began"),
        (&end("\"client\":1", "\"client\":2"), "operation 7 of client 1 is answered to client 2"),
        (&end("\"time\":14", "\"time\":9"), "operation 7 began at 10 and ended earlier, at 9"),
        (BEGIN, "operation 7 began before"),
        (&long, "longer than 65536 bytes"),
    ];
    for (line, expected) in cases {
        let text = format!("{BEGIN}\n{line}\n{END}\n");
        let error = lines::read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 2: ") && error.contains(expected), "{line}: {error}");
    }
    let twice = lines::read([BEGIN, "\n", END, "\n", END].concat().as_bytes()).unwrap_err().to_string();
    assert_eq!(twice, "line 3: operation 7 ended before");
    let get =
        BEGIN.replace(r#"{"put_if":{"expected":"absent","value":5}}"#, r#"{"get":{"consistency":"strong"}}"#);
    let blind = lines::read([&get, "\n", END].concat().as_bytes()).unwrap_err().to_string();
    assert_eq!(blind, "line 2: operation 7, get, cannot end as: ok");
    let bytes = [BEGIN.as_bytes(), b"\n\xFF\n"].concat();
    let error = lines::read(bytes.as_slice()).unwrap_err().to_string();
    assert!(error.starts_with("line 2: it cannot be read"), "{error}");
}
