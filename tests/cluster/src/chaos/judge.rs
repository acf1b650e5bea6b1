//! Whether a correct store could have shown the clients what they saw: the checkers of the simulator, on a history
//! of real processes.

use evenkeel_history::{History, Limits, Verdict, check, final_state, lines, reads};
use std::fs;
use std::io;
use std::path::Path;

/// Operations of a key that are shown for a person to begin with.
const SHOWN_MAX: usize = 40;

/// What is wrong with a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What, with the operations that show it.
    pub what: String,
    /// On which key.
    pub key: String,
}

/// All kinds of violations that there are, one of each.
pub fn judge(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(unchosen) = reads::unchosen(history).into_iter().next() {
        found.push(Violation { what: unchosen.to_string(), key: unchosen.read.key.to_string() });
    }
    if let Some(back) = reads::went_back(history).into_iter().next() {
        found.push(Violation { what: back.to_string(), key: back.later.key.to_string() });
    }
    if let Some(lost) =
        final_state::lost_writes(history, &final_state::last_reads(history)).into_iter().next()
    {
        found.push(Violation { what: lost.to_string(), key: lost.write.key.to_string() });
    }
    match check(history, Limits::default()) {
        Verdict::Linearizable { .. } => {}
        Verdict::Violation(explanation) => {
            found.push(Violation { what: explanation.to_string(), key: explanation.key.clone() });
        }
        Verdict::Undecided { keys } => {
            let what =
                "it is not known whether it is linearizable: the search took too many steps".to_owned();
            found.extend(keys.first().map(|key| Violation { what, key: key.to_string() }));
        }
    }
    found
}

/// The operations on a key, a line each, those last that ended last.
pub fn operations_of(history: &History, key: &str) -> Vec<String> {
    let all: Vec<_> = history.of_key(key).collect();
    let line = |operation: &&evenkeel_history::Operation| {
        let ended = operation.response.map_or("-".to_owned(), |(at, _)| at.to_string());
        let (id, client, began) = (operation.id, operation.client, operation.invoked);
        format!(
            "operation {id} of client {client}, {began}..{ended} us: {}: {}",
            operation.request,
            operation.outcome()
        )
    };
    all.iter().skip(all.len().saturating_sub(SHOWN_MAX)).map(line).collect()
}

/// Writes a history where a person can look at it.
///
/// # Errors
/// If the file cannot be written.
pub fn save(history: &History, file: &Path) -> io::Result<()> {
    lines::write(history, io::BufWriter::new(fs::File::create(file)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_history::{Consistency, Image, Outcome, Request};

    const STRONG: Request = Request::Get { consistency: Consistency::Strong };
    const NEAR: Request = Request::Get { consistency: Consistency::Eventual };
    const OK: Outcome = Outcome::Ok { returned: None };

    fn put(value: i64) -> Request {
        Request::Put { value }
    }

    fn saw(value: i64) -> Outcome {
        Outcome::Ok { returned: Some(Image::Value(value)) }
    }

    /// A history of one key: each operation with when it began and ended.
    fn history(operations: &[(u64, u64, Request, Outcome)]) -> History {
        let mut history = History::new();
        for (client, &(began, ended, request, outcome)) in operations.iter().enumerate() {
            let id = history.invoke(began, client as u64, "0-1", request);
            history.respond(ended, id, outcome).unwrap();
        }
        history
    }

    fn found(operations: &[(u64, u64, Request, Outcome)]) -> Vec<String> {
        judge(&history(operations)).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn what_a_correct_store_shows_is_no_violation() {
        let right = [
            (0, 1, put(10), OK),
            (2, 3, put(20), Outcome::Unknown),
            (4, 5, STRONG, saw(10)),
            (6, 7, NEAR, saw(10)),
            (8, 9, STRONG, saw(20)),
            (10, 11, NEAR, saw(10)),
        ];
        assert_eq!(found(&right), [""; 0]);
    }

    #[test]
    fn a_stale_strong_read_is_refused_with_key_and_operations() {
        let stale =
            [(0, 1, put(10), OK), (2, 3, put(20), OK), (4, 5, STRONG, saw(10)), (6, 7, STRONG, saw(20))];
        let violations = judge(&history(&stale));
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(violations[0].key == "0-1" && violations[0].what.contains("put 20"), "{violations:?}");
        let lines = operations_of(&history(&stale), "0-1");
        assert_eq!(lines[2], "operation 2 of client 2, 4..5 us: get: ok, 10");
    }

    #[test]
    fn a_lost_write_and_one_that_nobody_made_are_refused() {
        let lost = found(&[(0, 1, put(10), OK), (2, 3, put(20), OK), (4, 5, STRONG, saw(10))]);
        assert!(lost.iter().any(|what| what.contains("was acknowledged, and the end is 10")), "{lost:?}");
        let nobodys = found(&[(0, 1, put(10), OK), (2, 3, NEAR, saw(11)), (4, 5, STRONG, saw(10))]);
        assert!(nobodys.iter().any(|what| what.contains("saw 11, which nobody wrote")), "{nobodys:?}");
    }

    #[test]
    fn a_refused_write_that_happened_all_the_same_is_refused() {
        let happened = found(&[(0, 1, put(10), Outcome::Failed), (2, 3, STRONG, saw(10))]);
        assert!(!happened.is_empty());
    }

    #[test]
    fn a_history_is_saved_as_it_can_be_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("history.jsonl");
        let history = history(&[(0, 1, put(10), OK), (2, 3, STRONG, saw(10))]);
        save(&history, &file).unwrap();
        let again = lines::read(io::BufReader::new(fs::File::open(&file).unwrap())).unwrap();
        assert_eq!(again.operations(), history.operations());
    }
}
