//! The checker against a second implementation that is too simple to be wrong: it writes out every order
//! of every subset of the operations that is consistent with real time, and replays each on a plain
//! variable. It shares no code with the checker, neither the search nor the meaning of an operation.
//!
//! `EVENKEEL_SEED=n` gives other histories.

mod common;

use common::{Random, seed};
use evenkeel_history::{
    Consistency, Explanation, History, Image, Limits, Operation, Outcome, Request, Verdict, check,
};

const HISTORIES: u64 = 200_000;
const OPERATIONS_MAX: u64 = 7;

/// Whether some order explains the history of one key.
fn has_order(operations: &[Operation]) -> bool {
    let takes_part = |operation: &&Operation| operation.outcome() != Outcome::Failed;
    let parts: Vec<_> = operations.iter().filter(takes_part).collect();
    permute(&parts, &mut vec![false; parts.len()], &mut Vec::new())
}

fn permute(parts: &[&Operation], used: &mut [bool], order: &mut Vec<usize>) -> bool {
    let known = |index: usize| !matches!(parts[index].response, None | Some((_, Outcome::Unknown)));
    let complete = (0..parts.len()).all(|index| used[index] || !known(index));
    if complete && replays(parts, order) {
        return true;
    }
    for next in 0..parts.len() {
        let overtaken = |index: usize| {
            let over = parts[index].response.is_some_and(|(time, _)| time < parts[next].invoked);
            !used[index] && known(index) && over
        };
        if used[next] || (0..parts.len()).any(overtaken) {
            continue;
        }
        used[next] = true;
        order.push(next);
        let found = permute(parts, used, order);
        order.pop();
        used[next] = false;
        if found {
            return true;
        }
    }
    false
}

fn replays(parts: &[&Operation], order: &[usize]) -> bool {
    let mut there: Option<i64> = None;
    let as_option = |image: Image| match image {
        Image::Absent => None,
        Image::Value(value) => Some(value),
    };
    for &index in order {
        let before = there;
        let mut holds = true;
        match parts[index].request {
            Request::Get { .. } => {}
            Request::Put { value } => there = Some(value),
            Request::Delete => there = None,
            Request::PutIf { expected, value } => {
                holds = as_option(expected) == there;
                if holds {
                    there = Some(value);
                }
            }
            Request::Increment { by } => there = Some(there.unwrap_or(0) + by),
        }
        let increments = matches!(parts[index].request, Request::Increment { .. });
        let shown = if increments { there } else { before };
        let right = match parts[index].outcome() {
            Outcome::Ok { returned } => holds && returned.is_none_or(|image| as_option(image) == shown),
            Outcome::ConditionFailed { found } => {
                !holds && found.is_none_or(|image| as_option(image) == shown)
            }
            // An operation of unknown outcome that changes nothing might as well be left out.
            Outcome::Unknown => holds,
            Outcome::Failed => unreachable!("left out before"),
        };
        if !right {
            return false;
        }
    }
    true
}

fn request(random: &mut Random) -> Request {
    let value = random.below(3) as i64 + 1;
    let image = if random.once_in(3) { Image::Absent } else { Image::Value(random.below(3) as i64 + 1) };
    match random.below(10) {
        0..=3 => Request::Get { consistency: Consistency::Strong },
        4 | 5 => Request::Put { value },
        6 => Request::Delete,
        7 | 8 => Request::PutIf { expected: image, value },
        _ => Request::Increment { by: random.pick(&[1, 1, 2, -1]) },
    }
}

struct Running {
    client: u64,
    request: Request,
    id: u64,
    /// How it ended, once it took effect.
    applied: Option<Outcome>,
    /// Its client does not wait for it any more.
    abandoned: bool,
}

/// A history as a right store makes one: each operation is applied at a moment between its beginning and
/// its end; abandoned ones at any time or never.
fn right_history(random: &mut Random) -> History {
    let (mut history, mut there) = (History::new(), Image::Absent);
    let clients = 2 + random.below(2);
    let unknown_once_in = random.pick(&[2, 8, 8, 8]);
    let mut running: Vec<Running> = Vec::new();
    let mut left = 2 + random.below(OPERATIONS_MAX - 1);
    let mut time = 0;
    while left > 0 || running.iter().any(|running| !running.abandoned) {
        // Some events are at the same time, and so in no order.
        time += u64::from(!random.once_in(4));
        let client = random.below(clients);
        let busy = running.iter().position(|running| running.client == client && !running.abandoned);
        match busy {
            None if left > 0 => {
                let request = request(random);
                let id = history.invoke(time, client, "k", request);
                running.push(Running { client, request, id, applied: None, abandoned: false });
                left -= 1;
            }
            None => {}
            Some(index) => {
                let late = random.once_in(unknown_once_in);
                if advance(random, &mut history, &mut running[index], &mut there, (time, late)) {
                    running.remove(index);
                }
            }
        }
        let late = running.iter_mut().find(|running| running.abandoned && running.applied.is_none());
        if let Some(late) = late.filter(|_| random.once_in(3)) {
            late.applied = Some(apply(random, late.request, &mut there));
        }
    }
    history
}

/// Applies or ends an operation, too late for its client to hear of it or not; returns whether it is over
/// for good.
fn advance(
    random: &mut Random,
    history: &mut History,
    running: &mut Running,
    there: &mut Image,
    (time, late): (u64, bool),
) -> bool {
    if running.applied.is_none() && !random.once_in(10) {
        running.applied = Some(apply(random, running.request, there));
        return false;
    }
    let outcome = match running.applied {
        Some(outcome) if !late => outcome,
        None if random.once_in(2) => Outcome::Failed,
        _ => Outcome::Unknown,
    };
    running.abandoned = outcome == Outcome::Unknown;
    if !running.abandoned || random.once_in(2) {
        history.respond(time, running.id, outcome).expect("it ends once");
    }
    !running.abandoned
}

fn apply(random: &mut Random, request: Request, there: &mut Image) -> Outcome {
    let before = *there;
    let asked = random.once_in(3);
    let old = asked.then_some(before);
    let number = |image: Image| if let Image::Value(value) = image { value } else { 0 };
    match request {
        Request::Get { .. } => return Outcome::Ok { returned: Some(before) },
        Request::Put { value } => *there = Image::Value(value),
        Request::Delete => *there = Image::Absent,
        Request::PutIf { expected, .. } if expected != before => {
            return Outcome::ConditionFailed { found: old };
        }
        Request::PutIf { value, .. } => *there = Image::Value(value),
        Request::Increment { by } => {
            *there = Image::Value(number(before) + by);
            return Outcome::Ok { returned: asked.then_some(*there) };
        }
    }
    Outcome::Ok { returned: old }
}

/// The same history with some answers, times or operations changed.
fn mutated(random: &mut Random, history: &History) -> History {
    let mut changed = History::new();
    let victim = random.below(history.operations().len() as u64) as usize;
    for (index, operation) in history.operations().iter().enumerate() {
        let Operation { client, request, invoked, .. } = *operation;
        let hit = index == victim || random.once_in(6);
        if hit && random.once_in(8) {
            continue;
        }
        let id = changed.invoke(invoked, client, "k", request);
        let Some((time, outcome)) = operation.response else { continue };
        let (time, outcome) = match random.below(3) {
            _ if !hit => (time, outcome),
            0 => (invoked + random.below(time - invoked + 1), outcome),
            _ => (time, changed_outcome(random, request, outcome)),
        };
        changed.respond(time, id, outcome).expect("it ends once");
    }
    changed
}

fn changed_outcome(random: &mut Random, request: Request, outcome: Outcome) -> Outcome {
    let image = if random.once_in(4) { Image::Absent } else { Image::Value(random.below(4) as i64) };
    match (request, outcome) {
        (Request::Get { .. }, _) => Outcome::Ok { returned: Some(image) },
        (Request::PutIf { .. }, Outcome::Ok { .. }) => Outcome::ConditionFailed { found: None },
        (Request::PutIf { .. }, Outcome::ConditionFailed { .. }) if random.once_in(2) => {
            Outcome::Ok { returned: None }
        }
        (Request::PutIf { .. }, _) => Outcome::ConditionFailed { found: Some(image) },
        (_, Outcome::Ok { .. }) if random.once_in(2) => Outcome::Failed,
        _ => Outcome::Ok { returned: Some(image) },
    }
}

/// The history, but writes outside of the core may happen at any time or never, and what else is outside is
/// gone; so is what began when it was too late to explain the culprit.
fn weakened(history: &History, explanation: &Explanation) -> History {
    let until = explanation.culprit.ended().expect("an answer breaks a history");
    let mut weak = History::new();
    for operation in history.operations() {
        let &Operation { client, request, invoked, .. } = operation;
        if explanation.core.contains(operation) {
            let id = weak.invoke(invoked, client, "k", request);
            if let Some((time, outcome)) = operation.response {
                weak.respond(time, id, outcome).expect("it ends once");
            }
        } else if operation.may_have_written() && invoked <= until {
            weak.invoke(0, client, "k", request);
        }
    }
    weak
}

#[test]
fn the_checker_and_the_search_of_all_orders_agree() {
    let seed = seed(1);
    let (mut right, mut wrong, mut unknown, mut shortened) = (0, 0, 0, 0);
    for number in 0..HISTORIES {
        let mut random = Random(seed.wrapping_mul(0x2545_F491_4F6C_DD1D).wrapping_add(number));
        let mut history = right_history(&mut random);
        let untouched = random.once_in(3);
        if !untouched {
            history = mutated(&mut random, &history);
        }
        let expected = has_order(history.operations());
        assert!(expected || !untouched, "seed={seed} number={number}: the generator is wrong");
        let verdict = check(&history, Limits::default());
        let agree = match &verdict {
            Verdict::Linearizable { .. } => expected,
            Verdict::Violation(explanation) => {
                assert!(
                    !has_order(weakened(&history, explanation).operations()),
                    "seed={seed} number={number}: the core is no contradiction\n{explanation}"
                );
                shortened += usize::from(explanation.core.len() < history.operations().len());
                !expected
            }
            Verdict::Undecided { .. } => false,
        };
        assert!(
            agree,
            "seed={seed} number={number}: expected {expected}, got {verdict:#?}\n{:#?}",
            history.operations()
        );
        if expected {
            right += 1
        } else {
            wrong += 1
        }
        unknown += usize::from(history.operations().iter().any(|op| op.outcome() == Outcome::Unknown));
    }
    println!("{right} right, {wrong} wrong ({shortened} shortened), {unknown} with unknown outcomes");
    assert!(right > HISTORIES / 4 && wrong > HISTORIES / 4, "both kinds are common");
    assert!(unknown > HISTORIES as usize / 8, "unknown outcomes are common");
}
