//! Three replicas of one group, through crashes, cuts, copies and repeated writes.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod world;

use evenkeel_expression::{Action, Comparator, Condition, ConditionView, Operand, Path, Test};
use evenkeel_expression::{Update, UpdateView};
use evenkeel_model::{AttributeValue, Attributes, ItemView, encode_item};
use evenkeel_partition::{Change, Outcome, RequestToken, Terms, WriteError};
use evenkeel_paxos::{Member, MemberId, MemberKind, Standing};
use evenkeel_storage::memory::Random;
use evenkeel_storage::{Mark, Runtime};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use world::*;

const SECOND: Duration = Duration::from_secs(1);

fn put(world: &mut World, core: usize, key: u8, value: &str) -> Option<Result<(), WriteError>> {
    let (partition, item) = (world.partition(core), item(value));
    world.run(5 * SECOND, async move { partition.put(&[key], &item).await })
}

fn get(world: &mut World, core: usize, key: u8) -> Option<Option<String>> {
    let partition = world.partition(core);
    let read = world.run(5 * SECOND, async move { partition.get(&[key]).await })?;
    Some(read.ok()?.as_deref().map(text))
}

#[test]
fn a_write_survives_the_crash_of_the_leader_that_acknowledged_it() {
    for seed in 0..20 {
        let mut world = World::new(seed, 1 << 20);
        let first = world.leader();
        put(&mut world, first, 11, "a").unwrap().unwrap();
        world.crash(first);
        let second = world.leader();
        assert_ne!(first, second);
        assert_eq!(get(&mut world, second, 11), Some(Some("a".to_owned())));
        put(&mut world, second, 12, "b").unwrap().unwrap();
        world.start(first);
        world.settle(&[0, 1, 2]);
        world.crash(second);
        let third = world.leader();
        assert_eq!(get(&mut world, third, 12), Some(Some("b".to_owned())));
    }
}

#[test]
fn a_follower_says_who_leads_and_answers_eventual_reads_only() {
    let mut world = World::new(1, 1 << 20);
    let leader = world.leader();
    put(&mut world, leader, 11, "a").unwrap().unwrap();
    world.settle(&[0, 1, 2]);
    let other = (leader + 1) % 3;
    let refused = put(&mut world, other, 11, "b").unwrap().unwrap_err();
    let WriteError::NotLeader(redirect) = refused else { panic!("{refused}") };
    assert_eq!(redirect.leader, Some(seat(leader).member.id));
    let seats: Vec<_> = redirect.members.seats().collect();
    assert_eq!(seats, [seat(0), seat(1), seat(2)]);
    assert_eq!(get(&mut world, other, 11), None);
    let partition = world.partition(other);
    let read = world.run(SECOND, async move { partition.get_eventual(&[11]).await }).unwrap();
    assert_eq!(text(&read.unwrap().unwrap()), "a");
}

#[test]
fn a_follower_catches_up_by_the_log_or_by_a_snapshot() {
    for (tail_bytes_max, by_snapshot) in [(1 << 20, false), (0, true)] {
        for faults in [0, 20] {
            let mut world = World::new(3, tail_bytes_max);
            let leader = world.leader();
            let behind = (leader + 1) % 3;
            put(&mut world, leader, 11, "before").unwrap().unwrap();
            world.settle(&[0, 1, 2]);
            world.crash(behind);
            for count in 0..300u32 {
                let key = 11 + (count % 8) as u8;
                put(&mut world, leader, key, &format!("{count} {}", "x".repeat(2000))).unwrap().unwrap();
            }
            world.start(behind);
            world.network.faults.set(faults);
            world.settle(&[0, 1, 2]);
            assert_eq!(world.network.snapshots.get() > 0, by_snapshot);
            // What it has copied it finds again.
            world.heal();
            world.crash(behind);
            world.start(behind);
            world.settle(&[0, 1, 2]);
            put(&mut world, leader, 11, "after").unwrap().unwrap();
            world.settle(&[0, 1, 2]);
        }
    }
}

/// Writes without a pause until `over` says so.
async fn write_on(partition: Rc<TestPartition>, over: Rc<Cell<bool>>) {
    let item = item(&"x".repeat(1000));
    for count in 0u32.. {
        if over.get() {
            return;
        }
        partition.put(&[12, count as u8], &item).await.unwrap();
    }
}

#[test]
fn a_member_that_comes_back_under_load_copies_once_and_disturbs_nobody() {
    for seed in seeds(6) {
        println!("seed={seed}");
        let mut world = World::new(seed, 16 << 10);
        let leader = world.leader();
        let behind = (leader + 1) % 3;
        world.settle(&[0, 1, 2]);
        world.crash(behind);
        for count in 0..400u32 {
            let key = [11, count as u8, (count >> 8) as u8];
            let (partition, item) = (world.partition(leader), item(&"x".repeat(3000)));
            let put = async move { partition.put(&key, &item).await };
            world.run(5 * SECOND, put).unwrap().unwrap();
        }
        let ballot = world.partition(leader).report().ballot;
        let over: Rc<Cell<bool>> = Rc::default();
        world.runtime.spawn(write_on(world.partition(leader), over.clone()));
        world.start(behind);
        let is_level = |world: &World| {
            let (ahead, own) = (world.partition(leader).applied().0, world.partition(behind).applied().0);
            own > 0 && own + 10 > ahead
        };
        assert!(world.until(5 * SECOND, is_level), "{}, {}", world.describe(leader), world.describe(behind));
        assert_eq!(world.network.bases.borrow().len(), 1, "one copy is enough");
        assert_eq!(world.partition(leader).report().ballot, ballot, "nobody stands for election");
        over.set(true);
        world.settle(&[0, 1, 2]);
        // What was kept for the copy is let go: as many writes as the tail does not hold mean a copy again.
        world.pass(7 * SECOND);
        world.crash(behind);
        for key in 0..10u8 {
            put(&mut world, leader, 11 + key % 8, &"x".repeat(3000)).unwrap().unwrap();
        }
        world.start(behind);
        world.settle(&[0, 1, 2]);
        assert_eq!(world.network.bases.borrow().len(), 2);
    }
}

#[test]
fn a_crash_in_the_middle_of_a_copy_leaves_what_was_there() {
    for seed in seeds(12) {
        println!("seed={seed}");
        let mut world = World::new(seed, 0);
        let leader = world.leader();
        let behind = (leader + 2) % 3;
        world.crash(behind);
        for count in 0..200u32 {
            let key = [11 + (count % 8) as u8, count as u8];
            let (partition, item) = (world.partition(leader), item(&"x".repeat(3000)));
            let put = async move { partition.put(&key, &item).await };
            world.run(5 * SECOND, put).unwrap().unwrap();
        }
        world.start(behind);
        let before = world.content(behind);
        let (copied, stop) = (world.network.snapshots.get(), 1 + world.random.below(8));
        assert!(world.until(20 * SECOND, |world| world.network.snapshots.get() >= copied + stop));
        world.crash(behind);
        world.start(behind);
        let after = world.content(behind);
        assert!(after == before || after.1.len() >= 200, "all of it, or nothing");
        world.settle(&[0, 1, 2]);
    }
}

fn token(sequence: u64) -> RequestToken {
    RequestToken { session: 9, sequence, lowest: 0 }
}

/// `count` rises by one; yields it as it was after this write.
async fn count_up(partition: &TestPartition, key: &[u8], token: RequestToken) -> Result<u64, WriteError> {
    let mut update = Update::default();
    update.actions.push(Action::Add(Path::attribute("count"), AttributeValue::N(1.into())));
    let program = update.encode();
    let key_item = encode_item(&Attributes::from_iter([("pk", AttributeValue::N(11.into()))]));
    let change = Change::Update { program: UpdateView::check(&program).unwrap(), key_item: &key_item };
    let terms = Terms { return_new: true, token: Some(token), ..Terms::default() };
    match partition.write(key, change, terms).await? {
        Outcome::Written(written) => Ok(count_of(&written.new.unwrap())),
        Outcome::ConditionFailed { .. } => panic!("there is no condition"),
    }
}

fn count_of(image: &[u8]) -> u64 {
    match ItemView::check(image).unwrap().to_attributes().get("count") {
        Some(AttributeValue::N(count)) => count.to_string().parse().unwrap(),
        other => panic!("not an item of this test: {other:?}"),
    }
}

#[test]
fn a_repeated_write_is_applied_once_and_gives_the_first_outcome() {
    let mut world = World::new(5, 0);
    let first = world.leader();
    let repeat = |world: &mut World, core: usize, sequence| {
        let partition = world.partition(core);
        world.run(5 * SECOND, async move { count_up(&partition, &[11], token(sequence)).await })
    };
    let answers: Rc<RefCell<Vec<u64>>> = Rc::default();
    for _ in 0..3 {
        let (partition, answers) = (world.partition(first), answers.clone());
        world.runtime.spawn(async move {
            let count = count_up(&partition, &[11], token(1)).await.unwrap();
            answers.borrow_mut().push(count);
        });
    }
    assert!(world.until(SECOND, |_| answers.borrow().len() == 3));
    assert_eq!(*answers.borrow(), [1, 1, 1], "also while the first one is under way");
    assert_eq!(repeat(&mut world, first, 2).unwrap().unwrap(), 2);
    assert_eq!(repeat(&mut world, first, 1).unwrap().unwrap(), 1);
    // After a failover, and after one to a member that copied a snapshot.
    let behind = (first + 1) % 3;
    world.crash(behind);
    for sequence in 3..=5 {
        assert_eq!(repeat(&mut world, first, sequence).unwrap().unwrap(), sequence);
    }
    world.start(behind);
    world.settle(&[0, 1, 2]);
    assert!(world.network.snapshots.get() > 0);
    world.crash(first);
    let second = world.leader();
    for sequence in 1..=5 {
        assert_eq!(repeat(&mut world, second, sequence).unwrap().unwrap(), sequence);
    }
    world.start(first);
    world.settle(&[0, 1, 2]);
    let old = world.leader();
    world.partition(old).transfer(Some(seat(behind).member.id));
    world.pass(SECOND);
    let third = world.leader();
    assert_eq!(repeat(&mut world, third, 4).unwrap().unwrap(), 4);
    // And after all have crashed.
    (0..3).for_each(|core| world.crash(core));
    (0..3).for_each(|core| world.start(core));
    let last = world.leader();
    assert_eq!(repeat(&mut world, last, 3).unwrap().unwrap(), 3);
    assert_eq!(repeat(&mut world, last, 6).unwrap().unwrap(), 6);
}

#[test]
fn a_deposed_leader_answers_no_strong_read() {
    for seed in seeds(20) {
        println!("seed={seed}");
        let mut world = World::new(seed, 1 << 20);
        let old = world.leader();
        put(&mut world, old, 11, "old").unwrap().unwrap();
        world.cut_off(old, true);
        // Reads at the old leader for as long as anybody would.
        let written = Rc::new(Cell::new(false));
        let reads = Rc::new(Cell::new((0, 0)));
        let (partition, runtime) = (world.partition(old), world.runtime.clone());
        let (saw, count) = (written.clone(), reads.clone());
        world.runtime.spawn(async move {
            loop {
                let (answered, refused) = count.get();
                let before = saw.get();
                match partition.get(&[11]).await {
                    Ok(_) => {
                        assert!(!before, "a read that began after the next leader's write");
                        count.set((answered + 1, refused));
                    }
                    Err(_) => count.set((answered, refused + 1)),
                }
                runtime.sleep(Duration::from_millis(7)).await;
            }
        });
        let new = loop {
            world.pass(Duration::from_millis(50));
            let leads = |core: &usize| *core != old && world.partition(*core).standing() == Standing::Leader;
            if let Some(new) = (0..3).find(leads) {
                break new;
            }
        };
        put(&mut world, new, 11, "new").unwrap().unwrap();
        assert_eq!(get(&mut world, new, 11), Some(Some("new".to_owned())));
        written.set(true);
        world.pass(3 * SECOND);
        let (answered, refused) = reads.get();
        assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
        let lost = put(&mut world, old, 11, "lost").unwrap().unwrap_err();
        assert!(matches!(lost, WriteError::NotLeader(_)), "{lost}");
        world.heal();
        world.settle(&[0, 1, 2]);
        let leader = world.leader();
        assert_eq!(get(&mut world, leader, 11), Some(Some("new".to_owned())));
    }
}

/// `text = VALUE`
fn text_is(value: &str) -> Vec<u8> {
    let mut condition = Condition::default();
    let value = Operand::Value(AttributeValue::S(value.to_owned()));
    condition.test(Test::Compare(Comparator::Equal, Operand::Path(Path::attribute("text")), value));
    condition.encode()
}

#[test]
fn a_failed_condition_waits_for_the_pending_write_it_was_held_against() {
    for comes_back in [true, false] {
        let mut world = World::new(8, 1 << 20);
        let leader = world.leader();
        put(&mut world, leader, 11, "a").unwrap().unwrap();
        world.cut_off(leader, true);
        let answers: Rc<RefCell<Vec<String>>> = Rc::default();
        for (value, wanted) in [("b", "a"), ("c", "a")] {
            let (partition, answers) = (world.partition(leader), answers.clone());
            world.runtime.spawn(async move {
                let condition = text_is(wanted);
                let condition = Some(ConditionView::check(&condition).unwrap());
                let terms = Terms { condition, ..Terms::default() };
                let answer = match partition.write(&[11], Change::Put(&item(value)), terms).await {
                    Ok(Outcome::Written(_)) => "written".to_owned(),
                    Ok(Outcome::ConditionFailed { .. }) => "failed".to_owned(),
                    Err(error) => format!("{error}"),
                };
                answers.borrow_mut().push(format!("{value} {answer}"));
            });
        }
        world.pass(Duration::from_millis(300));
        assert!(answers.borrow().is_empty(), "{:?}", answers.borrow());
        if comes_back {
            world.heal();
            assert!(world.until(5 * SECOND, |_| answers.borrow().len() == 2));
            assert_eq!(*answers.borrow(), ["b written", "c failed"]);
        } else {
            assert!(world.until(5 * SECOND, |_| answers.borrow().len() == 2));
            let told = answers.borrow().iter().any(|answer| answer == "c failed" || answer == "b written");
            assert!(!told, "what may be lost is not told: {:?}", answers.borrow());
        }
    }
}

#[test]
fn everything_acknowledged_survives_a_crash_of_everything() {
    for seed in seeds(20) {
        println!("seed={seed}");
        let mut world = World::new(seed, 1 << 20);
        let mut acknowledged = Vec::new();
        for round in 0..3u8 {
            let leader = world.leader();
            for key in 0..8 {
                let value = format!("{round} {key}");
                put(&mut world, leader, 11 + key, &value).unwrap().unwrap();
                acknowledged.push((11 + key, value));
            }
            // One under way.
            let (partition, item) = (world.partition(leader), item("lost"));
            world.runtime.spawn(async move { drop(partition.put(&[19], &item).await) });
            (0..world.random.below(6)).for_each(|_| world.turn());
            (0..3).for_each(|core| world.crash(core));
            (0..3).for_each(|core| world.start(core));
        }
        let leader = world.leader();
        for (key, value) in &acknowledged[16..] {
            assert_eq!(get(&mut world, leader, *key), Some(Some(value.clone())), "seed={seed}");
        }
        world.settle(&[0, 1, 2]);
    }
}

#[test]
fn leadership_is_handed_over_without_a_wait() {
    let mut world = World::new(4, 1 << 20);
    let old = world.leader();
    let new = (old + 1) % 3;
    world.partition(old).transfer(Some(seat(new).member.id));
    let next = world.partition(new);
    let leads = |_: &World| next.standing() == Standing::Leader;
    assert!(world.until(Duration::from_millis(50), leads), "no support has to run out");
    put(&mut world, new, 11, "a").unwrap().unwrap();
    assert_eq!(get(&mut world, new, 11), Some(Some("a".to_owned())));
}

#[test]
fn a_member_is_swapped_for_a_new_one_that_copies_the_content() {
    for kind in [MemberKind::Storage, MemberKind::Log] {
        let mut world = World::new(6, 0);
        let leader = world.leader();
        for count in 0..40u8 {
            put(&mut world, leader, 11 + count % 8, &format!("{count}")).unwrap().unwrap();
        }
        let gone = (leader + 1) % 3;
        world.crash(gone);
        world.start(3);
        let add = evenkeel_partition::Seat { member: Member { id: MemberId(9), kind }, place: place(3) };
        world.create(3, add.member);
        world.partition(leader).swap(seat(gone).member.id, add).unwrap();
        let joined =
            |world: &World| world.partition(leader).redirect().members.seats().any(|seat| seat == add);
        assert!(world.until(10 * SECOND, joined));
        put(&mut world, leader, 11, "after").unwrap().unwrap();
        let kept = (leader + 2) % 3;
        if kind == MemberKind::Storage {
            world.settle(&[leader, kept, 3]);
        }
        // The new member counts: with it and one other, writes go on, also after restarts.
        world.crash(3);
        world.start(3);
        world.crash(leader);
        let next = world.leader();
        put(&mut world, next, 12, "later").unwrap().unwrap();
        assert_eq!(get(&mut world, next, 11), Some(Some("after".to_owned())));
        world.start(gone);
        let told = |world: &World| world.partition(gone).is_removed();
        assert!(world.until(20 * SECOND, told), "who was removed hears of it");
    }
}

/// One client, which owns a key: each write is repeated until it is acknowledged, and each read must see
/// what was.
struct Client {
    key: [u8; 2],
    session: u128,
    acknowledged: Cell<u64>,
    reads: Cell<u64>,
    stop: Cell<bool>,
}

async fn within<T>(runtime: &impl Runtime, patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut sleep) = (pin!(future), pin!(runtime.sleep(patience)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
    })
    .await
}

async fn live(client: Rc<Client>, network: Rc<Network>, runtime: evenkeel_storage::memory::TestRuntime) {
    let mut random = Random::new(client.session as u64);
    let patience = Duration::from_millis(400);
    let someone = |random: &mut Random| network.serving(random.below(3) as usize);
    while !client.stop.get() {
        let sequence = client.acknowledged.get() + 1;
        let token = RequestToken { session: client.session, sequence, lowest: sequence };
        loop {
            if let Some(partition) = someone(&mut random) {
                let write = count_up(&partition, &client.key, token);
                if let Some(Ok(count)) = within(&runtime, patience, write).await {
                    assert_eq!(count, sequence, "applied once, in order");
                    client.acknowledged.set(count);
                    break;
                }
            }
            runtime.sleep(Duration::from_millis(1 + random.below(20))).await;
        }
        if let Some(partition) = someone(&mut random) {
            let read = partition.get(&client.key);
            if let Some(Ok(found)) = within(&runtime, patience, read).await {
                let count = found.as_deref().map_or(0, count_of);
                assert_eq!(count, sequence, "a strongly consistent read is never old");
                client.reads.set(client.reads.get() + 1);
            }
        }
        runtime.sleep(Duration::from_millis(random.below(10))).await;
    }
}

#[test]
fn random_faults_lose_nothing_repeat_nothing_and_leave_equal_replicas() {
    let mut total = (0, 0);
    for seed in seeds(12) {
        println!("seed={seed}");
        let mut world = World::new(seed, if seed % 2 == 0 { 0 } else { 64 << 10 });
        world.network.faults.set([0, 100, 20][seed as usize % 3]);
        let clients: Vec<Rc<Client>> = (0..4)
            .map(|number| {
                Rc::new(Client {
                    key: [11 + number, 1],
                    session: u128::from(seed * 100) + u128::from(number),
                    acknowledged: Cell::new(0),
                    reads: Cell::new(0),
                    stop: Cell::new(false),
                })
            })
            .collect();
        for client in &clients {
            let life = live(client.clone(), world.network.clone(), world.runtime.clone());
            world.runtime.spawn(life);
        }
        for _ in 0..12 {
            let span = 50 + world.random.below(1200);
            world.pass(Duration::from_millis(span));
            let core = world.random.below(3) as usize;
            match world.random.below(8) {
                0..=2 if world.is_up(core) => world.crash(core),
                3 => (0..3).filter(|&core| world.is_up(core)).collect::<Vec<_>>().iter().for_each(|&core| {
                    world.crash(core);
                }),
                4 => world.cut_off(core, true),
                5 => world.cut(core, (core + 1) % 3, true),
                6 if world.is_up(core) => world.partition(core).transfer(None),
                _ => {
                    let faults = world.network.faults.get();
                    world.heal();
                    world.network.faults.set(faults);
                    (0..3).for_each(|core| {
                        if !world.is_up(core) {
                            world.start(core);
                        }
                    });
                }
            }
            compare(&mut world);
        }
        world.heal();
        for core in 0..3 {
            if !world.is_up(core) {
                world.start(core);
            }
        }
        world.leader();
        world.pass(5 * SECOND);
        clients.iter().for_each(|client| client.stop.set(true));
        world.pass(SECOND);
        world.settle(&[0, 1, 2]);
        for client in &clients {
            assert!(client.acknowledged.get() > 0, "seed={seed}: a client made no progress");
            total = (total.0 + client.acknowledged.get(), total.1 + client.reads.get());
        }
    }
    println!("{} writes, {} reads", total.0, total.1);
}

/// Replicas that have applied the same slot hold the same.
fn compare(world: &mut World) {
    let up: Vec<usize> = (0..3).filter(|&core| world.is_up(core)).collect();
    let contents: Vec<_> = up.iter().map(|&core| world.content(core)).collect();
    for a in &contents {
        for b in contents.iter().filter(|b| b.0 == a.0) {
            assert!(a == b, "two replicas differ at slot {}", a.0);
        }
    }
}

#[test]
fn an_orderly_stop_hands_leadership_over_within_milliseconds() {
    for seed in seeds(4) {
        let mut world = World::new(seed, 1 << 20);
        let leader = world.leader();
        let reign = world.partition(leader).reign();
        assert!(reign.is_some(), "seed={seed}");
        world.are_disks_prompt = true;
        assert_eq!(world.shard(leader).hand_over(), 1, "seed={seed}");
        let asked = world.partition(leader);
        let led = async move { asked.until_led(Duration::from_millis(20)).await.leader };
        let next = world.run(Duration::from_millis(20), led).flatten();
        assert!(next.is_some_and(|id| id.0 as usize != leader + 1), "seed={seed}: {next:?}");
        assert_eq!(world.shard(leader).hand_over(), 0, "seed={seed}: it leads no more");
        assert_eq!(world.partition(leader).reign(), None, "seed={seed}");
    }
}

#[test]
fn who_follows_a_lost_leader_names_none_until_there_is_another() {
    for seed in seeds(4) {
        let mut world = World::new(seed, 1 << 20);
        let leader = world.leader();
        let follower = world.partition((leader + 1) % 3);
        assert_eq!(follower.redirect().leader, Some(seat(leader).member.id), "seed={seed}");
        world.crash(leader);
        let asked = follower.clone();
        let unknown = world.until(Duration::from_millis(1100), move |_| asked.redirect().leader.is_none());
        assert!(unknown, "seed={seed}");
        let led = async move { follower.until_led(Duration::from_secs(5)).await.leader };
        let next = world.run(Duration::from_secs(5), led).flatten();
        assert!(next.is_some_and(|id| id != seat(leader).member.id), "seed={seed}: {next:?}");
    }
}

#[test]
fn a_write_bound_to_a_reign_is_not_made_in_another() {
    let mut world = World::new(3, 1 << 20);
    let leader = world.leader();
    let partition = world.partition(leader);
    let reign = partition.reign();
    let write = move |partition: Rc<TestPartition>| async move {
        let terms = Terms { reign, ..Terms::default() };
        partition.write(&[11], Change::Put(&item("x")), terms).await.map(drop)
    };
    let made = world.run(Duration::from_secs(5), write(partition.clone())).unwrap();
    assert!(made.is_ok(), "{made:?}");
    // It is deposed, and elected again.
    world.shard(leader).hand_over();
    world.leader();
    let others: Vec<usize> = (0..3).filter(|&core| core != leader).collect();
    let back = world.until(Duration::from_secs(30), |world| {
        others.iter().for_each(|&core| world.partition(core).transfer(Some(seat(leader).member.id)));
        world.partition(leader).reign().is_some()
    });
    assert!(back);
    let refused = world.run(Duration::from_secs(5), write(partition)).unwrap();
    assert!(matches!(refused, Err(WriteError::NotLeader(_))), "{refused:?}");
}

/// The mark at which the last merges of all members have ended, if it is the same one.
fn common_mark(world: &World) -> Option<Mark> {
    let marks = [0, 1, 2].map(|core| world.partition(core).report().mark);
    let first =
        marks[0].filter(|first| marks.iter().all(|mark| mark.is_some_and(|mark| mark.slot == first.slot)))?;
    assert!(marks.iter().all(|mark| *mark == Some(first)), "the same slot, and other content: {marks:?}");
    Some(first)
}

#[test]
fn merges_of_all_members_end_at_the_same_marks_with_the_same_content() {
    for seed in 0..10 {
        let mut world = World::new(seed, 16 << 10);
        let leader = world.leader();
        for key in 10..20 {
            put(&mut world, leader, key, "a").unwrap().unwrap();
        }
        assert!(world.until(3 * MARK_INTERVAL, |world| common_mark(world).is_some()));
        let first = common_mark(&world).unwrap();
        world.settle(&[0, 1, 2]);
        let quiet = world.partition(leader).applied();
        world.pass(3 * MARK_INTERVAL);
        assert_eq!(world.partition(leader).applied(), quiet, "without writes there is nothing to mark");

        // A member that stands still while the others mark the log merges there when it comes to it.
        let behind = (leader + 1) % 3;
        world.cut_off(behind, true);
        put(&mut world, leader, 15, "b").unwrap().unwrap();
        world.pass(2 * MARK_INTERVAL);
        assert_eq!(world.partition(behind).report().mark, Some(first));
        world.cut_off(behind, false);
        let later = |world: &World| common_mark(world).is_some_and(|mark| mark.slot > first.slot);
        assert!(world.until(3 * MARK_INTERVAL, later), "{}", world.describe(behind));
        let second = common_mark(&world).unwrap();
        assert_ne!(second.content_hash, first.content_hash);

        // What is marked and was not merged is passed over by a start; the log goes on.
        put(&mut world, leader, 16, "c").unwrap().unwrap();
        world.crash(behind);
        world.start(behind);
        let leader = world.leader();
        put(&mut world, leader, 17, "d").unwrap().unwrap();
        let later = |world: &World| common_mark(world).is_some_and(|mark| mark.slot > second.slot);
        assert!(world.until(4 * MARK_INTERVAL, later), "{}", world.describe(behind));
    }
}
