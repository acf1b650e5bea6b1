//! Every kind of wrong answer is found, its right neighbour is not, and both are explained.

mod common;

use common::{ABSENT, GET, OK, add, history, put, saw};
use evenkeel_history::{
    Consistency, History, Image, Limits, Outcome, Request, Verdict, check, final_state, reads,
};

type Line = (u64, u64, u64, Request, Outcome);

const FAILED: Outcome = Outcome::Failed;
const UNKNOWN: Outcome = Outcome::Unknown;
const INCREMENT: Request = Request::Increment { by: 1 };

fn put_if(expected: Option<i64>, value: i64) -> Request {
    Request::PutIf { expected: expected.map_or(Image::Absent, Image::Value), value }
}

fn refused(found: Option<i64>) -> Outcome {
    Outcome::ConditionFailed { found: Some(found.map_or(Image::Absent, Image::Value)) }
}

fn violates(operations: &[Line]) -> bool {
    match check(&history(operations), Limits::default()) {
        Verdict::Linearizable { .. } => false,
        Verdict::Violation(_) => true,
        Verdict::Undecided { .. } => panic!("a small history is decided"),
    }
}

#[test]
fn every_kind_of_violation_is_found_and_its_right_neighbour_is_not() {
    let cases: &[(&str, &[Line], &[Line])] = &[
        (
            "stale read",
            &[(1, 0, 1, put(1), OK), (1, 2, 3, put(2), OK), (2, 4, 5, GET, saw(1))],
            &[(1, 0, 1, put(1), OK), (1, 2, 5, put(2), OK), (2, 4, 5, GET, saw(1))],
        ),
        (
            "two reads that disagree about the order of two writes",
            &[
                (1, 0, 9, put(1), OK),
                (2, 0, 9, put(2), OK),
                (3, 0, 1, GET, saw(1)),
                (3, 2, 3, GET, saw(2)),
                (3, 4, 5, GET, saw(1)),
            ],
            &[
                (1, 0, 9, put(1), OK),
                (2, 0, 9, put(2), OK),
                (3, 0, 1, GET, ABSENT),
                (3, 2, 3, GET, saw(2)),
                (3, 4, 5, GET, saw(1)),
            ],
        ),
        (
            "lost acknowledged write",
            &[(1, 0, 1, put(1), OK), (2, 2, 3, GET, ABSENT)],
            &[(1, 0, 1, put(1), UNKNOWN), (2, 2, 3, GET, ABSENT)],
        ),
        (
            "lost acknowledged delete",
            &[(1, 0, 1, put(1), OK), (1, 2, 3, Request::Delete, OK), (2, 4, 5, GET, saw(1))],
            &[(1, 0, 1, put(1), OK), (1, 2, 3, Request::Delete, FAILED), (2, 4, 5, GET, saw(1))],
        ),
        (
            "read of a failed write",
            &[(1, 0, 1, put(1), FAILED), (2, 2, 3, GET, saw(1))],
            &[(1, 0, 1, put(1), UNKNOWN), (2, 2, 3, GET, saw(1))],
        ),
        (
            "read of a write whose condition failed",
            &[(1, 0, 1, put(7), OK), (1, 2, 3, put_if(None, 8), refused(Some(7))), (2, 4, 5, GET, saw(8))],
            &[(1, 0, 1, put(7), OK), (1, 2, 3, put_if(Some(7), 8), OK), (2, 4, 5, GET, saw(8))],
        ),
        (
            "retried increment applied twice",
            &[(1, 0, 1, INCREMENT, saw(1)), (1, 2, 3, INCREMENT, saw(3)), (2, 4, 5, GET, saw(3))],
            &[(1, 0, 1, INCREMENT, UNKNOWN), (1, 2, 3, INCREMENT, saw(2)), (2, 4, 5, GET, saw(2))],
        ),
        (
            "increment of unknown outcome applied twice",
            &[(1, 0, 1, INCREMENT, UNKNOWN), (2, 2, 3, GET, saw(1)), (2, 4, 5, GET, saw(2))],
            &[
                (1, 0, 1, INCREMENT, UNKNOWN),
                (3, 0, 1, INCREMENT, UNKNOWN),
                (2, 2, 3, GET, saw(1)),
                (2, 4, 5, GET, saw(2)),
            ],
        ),
        (
            "increment of unknown outcome taken back",
            &[(1, 0, 1, INCREMENT, UNKNOWN), (2, 2, 3, GET, saw(1)), (2, 4, 5, GET, ABSENT)],
            &[(1, 0, 1, INCREMENT, UNKNOWN), (2, 2, 3, GET, ABSENT), (2, 4, 5, GET, saw(1))],
        ),
        (
            "failed condition that revealed uncommitted state",
            &[
                (1, 0, 3, put(1), FAILED),
                (2, 1, 2, put_if(None, 2), refused(Some(1))),
                (3, 4, 5, GET, ABSENT),
            ],
            &[
                (1, 0, 3, put(1), UNKNOWN),
                (2, 1, 2, put_if(None, 2), refused(Some(1))),
                (3, 4, 5, GET, saw(1)),
            ],
        ),
        (
            "failed condition that held",
            &[(1, 0, 1, put_if(None, 1), Outcome::ConditionFailed { found: None })],
            &[(1, 0, 1, put_if(Some(4), 1), Outcome::ConditionFailed { found: None })],
        ),
        (
            "condition passed by two",
            &[(1, 0, 5, put_if(None, 1), OK), (2, 0, 5, put_if(None, 2), OK)],
            &[(1, 0, 5, put_if(None, 1), OK), (2, 0, 5, put_if(None, 2), UNKNOWN), (3, 6, 7, GET, saw(1))],
        ),
        (
            "old image that was not there",
            &[(1, 0, 1, put(1), OK), (1, 2, 3, put(2), saw(4))],
            &[(1, 0, 1, put(1), OK), (1, 2, 3, put(2), saw(1))],
        ),
        (
            "write of unknown outcome that took effect before it began",
            &[(2, 0, 1, GET, saw(1)), (1, 2, 3, put(1), UNKNOWN)],
            &[(2, 0, 2, GET, saw(1)), (1, 2, 3, put(1), UNKNOWN)],
        ),
    ];
    for (name, wrong, right) in cases {
        assert!(violates(wrong), "{name} is not found");
        assert!(!violates(right), "{name}: the right neighbour is taken for wrong");
    }
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_long_after() {
    let line = [
        (1, 0, 1, put(1), UNKNOWN),
        (2, 2, 3, put(2), OK),
        (2, 4, 5, GET, saw(2)),
        (2, 100, 101, GET, saw(1)),
        (2, 102, 103, GET, saw(1)),
    ];
    assert!(!violates(&line));
    let twice = [line[0], line[1], line[3], (2, 110, 111, put(3), OK), (2, 112, 113, GET, saw(1))];
    assert!(violates(&twice), "but it takes effect once only");
}

#[test]
fn eventual_and_session_reads_are_not_held_to_real_time() {
    for consistency in [Consistency::Eventual, Consistency::Session] {
        let get = Request::Get { consistency };
        assert!(!violates(&[(1, 0, 1, put(1), OK), (2, 2, 3, get, ABSENT)]));
    }
}

#[test]
fn keys_are_checked_apart_and_the_wrong_one_is_named() {
    let mut history = History::new();
    for key in ["a", "b", "c"] {
        let seen = if key == "b" { ABSENT } else { saw(1) };
        add(&mut history, key, &[(1, 0, 1, put(1), OK), (2, 2, 3, GET, seen)]);
    }
    let Verdict::Violation(explanation) = check(&history, Limits::default()) else { panic!("it is wrong") };
    assert_eq!(explanation.key, "b");
}

#[test]
fn without_steps_nothing_is_decided_and_nothing_is_wrong() {
    let wrong = history(&[(1, 0, 1, put(1), OK), (2, 2, 3, GET, ABSENT)]);
    let verdict = check(&wrong, Limits { steps_per_key: 1 });
    assert_eq!(verdict, Verdict::Undecided { keys: vec!["k".into()] });
    assert!(matches!(check(&wrong, Limits { steps_per_key: 10 }), Verdict::Violation(_)));
}

#[test]
fn an_explanation_shows_the_few_operations_that_contradict_each_other() {
    let mut lines: Vec<Line> = Vec::new();
    for time in 0..50 {
        lines.push((time % 3, 10 * time, 10 * time + 5, put(time as i64), OK));
        lines.push((3, 10 * time + 6, 10 * time + 9, GET, saw(time as i64)));
    }
    lines[71].4 = saw(34);
    let Verdict::Violation(explanation) = check(&history(&lines), Limits::default()) else {
        panic!("it is wrong")
    };
    let text = explanation.to_string();
    assert_eq!(explanation.culprit.id, 71, "{text}");
    let core: Vec<u64> = explanation.core.iter().map(|operation| operation.id).collect();
    assert_eq!(core, [68, 70, 71], "the put that was seen, the put that was not, the read\n{text}");
    let after: Vec<Image> = explanation.prefix.iter().map(|placed| placed.after).collect();
    assert_eq!(after.last(), Some(&Image::Value(35)), "{text}");
    for line in ["key \"k\"", "put 34", "put 35", "get: ok, 34", "whatever the 97 others did"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.lines().count() < 25, "{text}");
}

#[test]
fn an_acknowledged_write_that_the_end_does_not_know_is_lost() {
    let state = |image: Option<i64>| {
        let named = image.map(|value| ("k".to_owned(), Image::Value(value)));
        final_state::FinalState::from_iter(named)
    };
    let two = [(1, 0, 1, put(1), OK), (2, 2, 5, put(2), OK), (3, 3, 4, put(3), OK)];
    let unknown = [two[0], two[1], (3, 0, 1, put(9), UNKNOWN)];
    let deleted = [two[0], two[1], (3, 4, 9, Request::Delete, OK)];
    let counted = [(1, 0, 1, INCREMENT, saw(1)), (2, 2, 3, INCREMENT, saw(2))];
    let cases: [(&[Line], Option<i64>, bool); 13] = [
        (&two, Some(2), false),
        (&two, Some(3), false),
        (&two, Some(1), true),
        (&two, None, true),
        (&unknown, Some(9), false),
        (&unknown, Some(2), false),
        (&unknown, None, true),
        (&deleted, None, false),
        (&deleted, Some(2), false),
        (&deleted, Some(1), true),
        (&counted, Some(2), false),
        (&counted, Some(1), true),
        (&[(1, 0, 1, put(1), UNKNOWN)], None, false),
    ];
    for (lines, image, expected) in cases {
        let history = history(lines);
        let lost = final_state::lost_writes(&history, &state(image));
        assert_eq!(!lost.is_empty(), expected, "{lines:?} and then {image:?}: {lost:?}");
        let whole = final_state::with_final_reads(&history, &state(image));
        let verdict = check(&whole, Limits::default());
        assert_eq!(!verdict.is_linearizable(), expected, "{lines:?} and then {image:?}: {verdict:?}");
    }
}

#[test]
fn a_key_that_nobody_wrote_must_be_absent_at_the_end() {
    let state = final_state::FinalState::from([("other".to_owned(), Image::Value(1))]);
    let whole = final_state::with_final_reads(&history(&[(1, 0, 1, put(1), UNKNOWN)]), &state);
    assert!(matches!(check(&whole, Limits::default()), Verdict::Violation(_)));
}

#[test]
fn an_eventual_read_sees_only_what_somebody_may_have_written() {
    let get = Request::Get { consistency: Consistency::Eventual };
    let cases: &[(&[Line], bool)] = &[
        (&[(1, 0, 1, put(1), OK), (2, 2, 3, get, saw(1))], true),
        (&[(1, 0, 1, put(1), OK), (1, 2, 3, put(2), OK), (2, 4, 5, get, saw(1))], true),
        (&[(1, 0, 1, put(1), OK), (2, 2, 3, get, ABSENT)], true),
        (&[(1, 0, 1, put(1), UNKNOWN), (2, 2, 3, get, saw(1))], true),
        (&[(2, 2, 3, get, saw(1)), (1, 0, 1, put(1), UNKNOWN)], true),
        (&[(1, 0, 1, put(1), FAILED), (2, 2, 3, get, saw(1))], false),
        (&[(1, 0, 1, put_if(Some(3), 1), refused(None)), (2, 2, 3, get, saw(1))], false),
        (&[(2, 2, 3, get, saw(1)), (1, 4, 5, put(1), OK)], false),
        (&[(1, 0, 1, INCREMENT, saw(1)), (1, 2, 3, INCREMENT, saw(2)), (2, 4, 5, get, saw(2))], true),
        (&[(1, 0, 1, INCREMENT, saw(1)), (1, 2, 3, INCREMENT, saw(2)), (2, 4, 5, get, saw(3))], false),
        (&[(1, 0, 1, INCREMENT, OK), (1, 2, 3, INCREMENT, UNKNOWN), (2, 4, 5, get, saw(2))], true),
        (&[(1, 0, 1, INCREMENT, OK), (1, 2, 3, INCREMENT, UNKNOWN), (2, 4, 5, get, saw(3))], false),
    ];
    for (lines, right) in cases {
        let unchosen = reads::unchosen(&history(lines));
        assert_eq!(unchosen.is_empty(), *right, "{lines:?}: {unchosen:?}");
    }
}

#[test]
fn a_session_never_goes_back() {
    let session = Request::Get { consistency: Consistency::Session };
    let eventual = Request::Get { consistency: Consistency::Eventual };
    let writes = [(1, 0, 1, put(1), OK), (1, 2, 3, put(2), OK)];
    let reads = |first: Line, second: Line| {
        let mut lines = writes.to_vec();
        lines.extend([first, second]);
        reads::went_back(&history(&lines))
    };
    assert!(reads((2, 4, 5, session, saw(1)), (2, 6, 7, session, saw(2))).is_empty());
    assert!(reads((2, 4, 5, session, saw(2)), (3, 6, 7, session, saw(1))).is_empty(), "another session");
    assert!(reads((2, 4, 7, session, saw(2)), (2, 6, 9, session, saw(1))).is_empty(), "at the same time");
    assert!(reads((2, 4, 5, session, saw(2)), (2, 6, 7, eventual, saw(1))).is_empty(), "nothing promised");
    let back = reads((2, 4, 5, session, saw(2)), (2, 6, 7, session, saw(1)));
    let text = "key \"k\": client 2 saw 2 in operation 2 and older, 1, in operation 3";
    assert_eq!(back.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
    assert_eq!(reads((2, 4, 5, GET, saw(2)), (2, 6, 7, session, saw(1))).len(), 1, "after a strong read");
    assert_eq!(reads((2, 4, 5, session, saw(1)), (2, 6, 7, session, ABSENT)).len(), 0, "times begin at 0");
    assert_eq!(reads((2, 4, 5, session, saw(2)), (2, 6, 7, session, ABSENT)).len(), 1);
}
