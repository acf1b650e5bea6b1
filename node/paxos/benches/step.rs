//! What a step of the state machine costs, and that in steady state it allocates nothing.
//!
//! Three replicas in one thread, disks and links that cost nothing: a write is its proposal, two accepts,
//! three completed writes and two answers. `cargo bench -p evenkeel-paxos`.

#![expect(unsafe_code, reason = "a counting allocator hands every call on to the system's")]

use evenkeel_model::{Generation, Slot};
use evenkeel_paxos::{
    Action, Anchor, Configuration, Entry, EntryKind, Facts, Grant, Input, Member, MemberId, MemberKind,
    Output, Replica, Settings, Standing, Time,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Surroundings(Settings);

impl Facts for Surroundings {
    fn settings(&self) -> &Settings {
        &self.0
    }

    fn received(&self, _member: MemberId) -> Grant {
        Grant { epoch: 1, until: Time(u64::MAX) }
    }

    fn given(&self, _member: MemberId) -> Grant {
        Grant { epoch: 1, until: Time(u64::MAX) }
    }

    fn seal(&self, previous: Anchor, _kind: &EntryKind) -> u128 {
        previous.checksum.wrapping_mul(31) + 1
    }
}

/// Three replicas, and one buffer for each place in the loop that fills one.
struct Group {
    replicas: Vec<Replica>,
    facts: Surroundings,
    proposed: Output,
    answered: Output,
    rest: Output,
    steps: u64,
}

impl Group {
    fn new() -> Group {
        let members = [1, 2, 3].map(|id| Member { id: MemberId(id), kind: MemberKind::Storage });
        let founders = Configuration::first(&members);
        let replicas =
            members.iter().map(|member| Replica::first(member.id, Generation(1), founders)).collect();
        Group {
            replicas,
            facts: Surroundings(Settings::default()),
            proposed: Output::default(),
            answered: Output::default(),
            rest: Output::default(),
            steps: 0,
        }
    }

    fn step(&mut self, at: usize, input: Input<'_>) -> Output {
        let mut out = std::mem::take(&mut self.answered);
        out.clear();
        self.replicas[at].step(Time(1), input, &self.facts, &mut out);
        self.steps += 1;
        out
    }

    /// Carries out everything, for the election.
    fn settle(&mut self, at: usize, out: &Output) {
        for action in &out.actions {
            let (to, input) = match action {
                Action::Persist { token, .. } => (at, Input::Persisted { token: *token }),
                Action::Send { to, message, entries, .. } => {
                    let from = MemberId(at as u32 + 1);
                    let entries = out.span(entries);
                    (to.0 as usize - 1, Input::Message { from, message: *message, entries })
                }
                _ => continue,
            };
            let mut out = Output::default();
            self.replicas[to].step(Time(1), input, &self.facts, &mut out);
            self.settle(to, &out);
        }
    }

    /// One write, from proposal to chosen, on all three.
    fn write(&mut self, checksum: u128) {
        let mut proposed = std::mem::take(&mut self.proposed);
        proposed.clear();
        self.replicas[0]
            .propose(Time(1), &[checksum], &self.facts, &mut proposed)
            .expect("the first replica leads");
        self.steps += 1;
        for action in &proposed.actions {
            match action {
                Action::Persist { token, .. } => {
                    self.answered = self.step(0, Input::Persisted { token: *token });
                }
                Action::Send { to, message, entries, .. } => {
                    let input = Input::Message {
                        from: MemberId(1),
                        message: *message,
                        entries: proposed.span(entries),
                    };
                    self.follow(to.0 as usize - 1, input);
                }
                _ => {}
            }
        }
        self.proposed = proposed;
    }

    fn follow(&mut self, at: usize, input: Input<'_>) {
        let answered = self.step(at, input);
        for action in &answered.actions {
            let (to, input) = match action {
                Action::Persist { token, .. } => (at, Input::Persisted { token: *token }),
                Action::Send { message, .. } => {
                    let from = MemberId(at as u32 + 1);
                    (0, Input::Message { from, message: *message, entries: &[] })
                }
                _ => continue,
            };
            self.rest.clear();
            self.replicas[to].step(Time(1), input, &self.facts, &mut self.rest);
            self.steps += 1;
        }
        self.answered = answered;
    }
}

fn main() {
    let mut group = Group::new();
    let mut out = Output::default();
    group.replicas[0].step(Time(1), Input::Campaign, &group.facts, &mut out);
    group.settle(0, &out);
    assert_eq!(group.replicas[0].standing(), Standing::Leader);
    (1..10_000u128).for_each(|checksum| group.write(checksum));

    const WRITES: u64 = 1_000_000;
    let mut best_ns = f64::MAX;
    for round in 0..5u64 {
        let (allocations, steps) = (ALLOCATIONS.load(Ordering::Relaxed), group.steps);
        let start = Instant::now();
        for write in 0..WRITES {
            group.write(black_box(u128::from(round * WRITES + write) + (1 << 64)));
        }
        let spent_ns = start.elapsed().as_nanos() as f64;
        let steps = (group.steps - steps) as f64;
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
        assert_eq!(allocated, 0, "a step in steady state allocates nothing");
        best_ns = best_ns.min(spent_ns / steps);
        println!(
            "write: {:.0} ns for {:.1} steps on three replicas, {:.1} ns a step, {allocated} allocations",
            spent_ns / WRITES as f64,
            steps / WRITES as f64,
            spent_ns / steps
        );
    }
    assert_eq!(group.replicas[0].chosen().slot, Slot(5 * WRITES + 10_000));

    let start = Instant::now();
    for _ in 0..WRITES {
        black_box(group.replicas[0].may_read(black_box(Time(1)), &group.facts));
    }
    println!("may_read: {:.1} ns", start.elapsed().as_nanos() as f64 / WRITES as f64);

    for replica in &mut group.replicas {
        replica.rest();
        println!("idle: {} bytes, {:?}", replica.memory_bytes(), replica.standing());
        assert!(replica.memory_bytes() < 1024, "an idle group is under 1 KiB");
    }
    println!("entry: {} bytes, replica: {} bytes", size_of::<Entry>(), size_of::<Replica>());
    println!("best: {best_ns:.1} ns a step");
}
