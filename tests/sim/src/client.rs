//! Clients: what they ask, how they retry, and what they write down.
//!
//! A client does one operation at a time. An attempt that is not answered in time is repeated, with the same
//! token, at another replica; one that is refused goes where the `evenkeel-caller` library says. An
//! operation ends as *unknown* if it may have been done and nobody said so, and as *failed* only if every
//! attempt of it was refused.

use crate::cluster::{Answer, Call, CallToken, Core, Place};
use crate::run::OPERATIONS_MIN;
use crate::world::{Occurrence, World};
use evenkeel_caller::{self as caller, BudgetPolicy, Decision, Effect, GiveUp, RetryBudget, RetryPolicy};
use evenkeel_history::{Consistency, History, Image, Outcome, Request};
use evenkeel_storage::memory::Random;
use std::collections::{BTreeSet, VecDeque};

/// How long an attempt is waited for before the next one.
const PATIENCE_NS: u64 = 150_000_000;
/// How long for some, so that the next one is under way at the same time; doubled after every eight.
const IMPATIENCE_NS: u64 = 1_000_000;
/// How long an operation takes at most, while things go wrong.
const DEADLINE_NS: u64 = 2_000_000_000;
/// And for those that never rest.
const RESTLESS_DEADLINE_NS: u64 = 6_000_000_000;
/// How long a client that has nothing to do waits at most before it looks again.
const IDLE_NS_MAX: u64 = 20_000_000;

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// The next operation.
    Next,
    /// An answer to this attempt of this operation.
    Patience {
        /// The operation.
        sequence: u64,
        /// The attempt.
        attempt: u32,
    },
    /// The time to begin this attempt of this operation.
    Retry {
        /// The operation.
        sequence: u64,
        /// The attempt.
        attempt: u32,
    },
    /// The end of this operation.
    Deadline {
        /// The operation.
        sequence: u64,
    },
}

/// What clients ask for in a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// How many clients there are.
    pub clients: u64,
    /// How many operations they do at least, all together; at most half as many more.
    pub operations: u64,
    /// How long a client thinks at most between two operations.
    pub think_ns_max: u64,
    /// One in so many operations is on one of the first two keys.
    pub hot_once_in: u64,
    /// One in so many attempts is repeated before it can have been answered.
    pub impatient_once_in: u64,
    /// All are, at any core: whoever comes to lead hears of what is under way, and again of what is over.
    pub restless: bool,
    /// Out of sixteen: reads, of which every fourth is eventual.
    pub reads: u64,
    /// Out of sixteen: conditional puts.
    pub conditional: u64,
    /// Out of sixteen: increments. The rest are puts and deletes.
    pub increments: u64,
}

impl Workload {
    /// What a seed asks for.
    pub fn draw(random: &mut Random) -> Workload {
        let restless = random.once_in(3);
        Workload {
            restless,
            clients: 8 + random.below(8),
            operations: OPERATIONS_MIN,
            think_ns_max: 10_000_000 << random.below(4),
            hot_once_in: 2 + random.below(6),
            impatient_once_in: 4 << random.below(4),
            reads: 4 + random.below(4),
            conditional: random.below(4),
            increments: if restless { 5 } else { random.below(4) },
        }
    }
}

/// All clients, and what they saw.
pub struct Clients {
    workload: Workload,
    clients: Vec<Client>,
    history: History,
    /// Operations that must be done, before which nobody rests; failing is no excuse.
    errands: VecDeque<(usize, Request)>,
    /// Errands begun and not done.
    errands_open: usize,
    resting: bool,
    begun: u64,
    /// What was last seen under each key, to expect it in conditions.
    last_seen: Vec<Image>,
    /// Who was last said to lead each partition.
    leaders: Vec<Place>,
}

struct Client {
    sequence: u64,
    budget: RetryBudget,
    running: Option<Running>,
}

struct Running {
    id: u64,
    errand: bool,
    key: usize,
    request: Request,
    call: caller::Call,
    attempt: u32,
    /// Attempts that may have done something.
    unanswered: BTreeSet<u32>,
    target: Place,
}

impl Clients {
    /// Clients that begin now.
    pub fn new<C: Core>(workload: Workload, world: &mut World<C>) -> Clients {
        for client in 0..workload.clients {
            let delay_ns = world.random.below(IDLE_NS_MAX);
            world.after(delay_ns, Occurrence::Client { client, timer: Timer::Next });
        }
        let budget = || RetryBudget::new(BudgetPolicy::default(), 0);
        let client = |_| Client { sequence: 0, budget: budget(), running: None };
        Clients {
            clients: (0..workload.clients).map(client).collect(),
            last_seen: vec![Image::Absent; world.shape.partitions * world.shape.keys],
            leaders: (0..world.shape.partitions).map(|partition| world.shape.members(partition)[0]).collect(),
            workload,
            history: History::new(),
            errands: VecDeque::new(),
            errands_open: 0,
            resting: false,
            begun: 0,
        }
    }

    /// What they saw so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Operations begun so far.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether they have done as much as the workload asks for.
    pub fn have_done_enough(&self) -> bool {
        self.begun >= self.workload.operations
    }

    /// Makes them do nothing more but errands.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    /// Makes them do an operation, and again until it is done.
    pub fn send_on_errand(&mut self, key: usize, request: Request) {
        self.errands.push_back((key, request));
    }

    /// How many errands are not done.
    fn errands_left(&self) -> usize {
        self.errands.len() + self.errands_open
    }

    /// Whether no operation is under way.
    pub fn are_idle(&self) -> bool {
        self.errands_left() == 0 && self.clients.iter().all(|client| client.running.is_none())
    }

    /// A number that nobody has written.
    pub fn fresh_value(&self) -> i64 {
        i64::try_from(self.begun + 1).expect("runs are short") * 1_000
    }

    /// A client's time has come.
    pub fn handle_timer<C: Core>(&mut self, world: &mut World<C>, client: u64, timer: Timer) {
        let index = usize::try_from(client).expect("there are few clients");
        let current = self.clients[index].sequence;
        let attempt = self.clients[index].running.as_ref().map(|running| running.attempt);
        match timer {
            Timer::Next => self.begin(world, client),
            Timer::Deadline { sequence } if sequence == current && attempt.is_some() => {
                self.fail_attempt(world, client, caller::Outcome::Timeout { sent: true }, None);
            }
            Timer::Retry { sequence, attempt: of } if sequence == current && attempt == Some(of) => {
                self.send(world, client);
            }
            Timer::Patience { sequence, attempt: of } if sequence == current && attempt == Some(of) => {
                self.next_attempt(world, client, None);
                self.send(world, client);
            }
            Timer::Deadline { .. } | Timer::Retry { .. } | Timer::Patience { .. } => {}
        }
    }

    /// A client is answered.
    pub fn handle_answer<C: Core>(
        &mut self,
        world: &mut World<C>,
        token: CallToken,
        attempt: u32,
        answer: Answer,
    ) {
        let client = &mut self.clients[usize::try_from(token.client).expect("there are few clients")];
        let Some(running) = client.running.as_mut().filter(|_| client.sequence == token.sequence) else {
            return;
        };
        match answer {
            // Conditions that failed are not remembered: another attempt may pass the condition yet.
            Answer::Settled(outcome @ Outcome::ConditionFailed { .. }) => {
                running.unanswered.remove(&attempt);
                if running.unanswered.is_empty() {
                    self.end(world, token.client, outcome);
                }
            }
            Answer::Settled(outcome) => self.end(world, token.client, outcome),
            Answer::Refused { code, leader } => {
                running.unanswered.remove(&attempt);
                let newest = attempt == running.attempt;
                if let Some(leader) = leader {
                    self.leaders[world.shape.partition_of(running.key)] = leader;
                }
                if newest {
                    let refusal = caller::Outcome::Refusal(code);
                    self.fail_attempt(world, token.client, refusal, leader);
                }
            }
        }
    }

    fn begin<C: Core>(&mut self, world: &mut World<C>, client: u64) {
        let errand = self.errands.pop_front();
        let Some((key, request)) = errand.or_else(|| self.draw(world)) else {
            world.after(IDLE_NS_MAX, Occurrence::Client { client, timer: Timer::Next });
            return;
        };
        self.errands_open += usize::from(errand.is_some());
        self.begun += 1;
        let now_ns = world.now_ns();
        let id = self.history.invoke(now_ns, client, &world.shape.key(key), request);
        let effect = if request.writes() { Effect::Write } else { Effect::Read };
        let deadline_ns = if self.workload.restless { RESTLESS_DEADLINE_NS } else { DEADLINE_NS };
        let deadline_us = (now_ns + deadline_ns) / 1_000;
        let target = self.pick_target(world, key);
        let state = &mut self.clients[usize::try_from(client).expect("there are few clients")];
        state.sequence += 1;
        state.running = Some(Running {
            id,
            errand: errand.is_some(),
            key,
            request,
            call: caller::Call::new(RetryPolicy::default(), effect, deadline_us),
            attempt: 1,
            unanswered: BTreeSet::new(),
            target,
        });
        let timer = Timer::Deadline { sequence: state.sequence };
        world.after(deadline_ns, Occurrence::Client { client, timer });
        self.send(world, client);
    }

    /// The next operation of the workload.
    fn draw<C: Core>(&self, world: &mut World<C>) -> Option<(usize, Request)> {
        if self.resting || self.begun >= self.workload.operations * 3 / 2 {
            return None;
        }
        let random = &mut world.random;
        let keys = self.last_seen.len() as u64;
        let keys = if random.once_in(self.workload.hot_once_in) { 2 } else { keys };
        let key = usize::try_from(random.below(keys)).expect("there are few keys");
        let value = self.fresh_value();
        let Workload { reads, conditional, increments, .. } = self.workload;
        let request = match random.below(16) {
            drawn if drawn < reads && random.once_in(4) => {
                Request::Get { consistency: Consistency::Eventual }
            }
            drawn if drawn < reads => Request::Get { consistency: Consistency::Strong },
            drawn if drawn < reads + conditional => Request::PutIf { expected: self.last_seen[key], value },
            drawn if drawn < reads + conditional + increments => Request::Increment { by: 1 },
            15 => Request::Delete,
            _ => Request::Put { value },
        };
        Some((key, request))
    }

    fn send<C: Core>(&mut self, world: &mut World<C>, client: u64) {
        let state = &mut self.clients[usize::try_from(client).expect("there are few clients")];
        let sequence = state.sequence;
        let running = state.running.as_mut().expect("only a running operation is sent");
        let attempt = running.attempt;
        running.unanswered.insert(attempt);
        let call = Call {
            token: CallToken { client, sequence },
            lowest_unanswered: sequence,
            attempt,
            partition: world.shape.partition_of(running.key),
            key: running.key,
            request: running.request,
        };
        world.call(running.target, call);
        let timer = Timer::Patience { sequence, attempt };
        let impatient = attempt < 4 && world.random.once_in(self.workload.impatient_once_in);
        let impatience_ns = IMPATIENCE_NS << (attempt / 8).min(7);
        let patience_ns =
            if impatient || self.workload.restless { impatience_ns.min(PATIENCE_NS) } else { PATIENCE_NS };
        world.after(patience_ns, Occurrence::Client { client, timer });
    }

    /// The leader as far as anybody knows, or somebody else, who may know better.
    fn pick_target<C: Core>(&self, world: &mut World<C>, key: usize) -> Place {
        if !world.random.once_in(if self.workload.restless { 2 } else { 4 }) {
            return self.leaders[world.shape.partition_of(key)];
        }
        let places: Vec<Place> = world.shape.places().collect();
        places[usize::try_from(world.random.below(places.len() as u64)).expect("it is below a usize")]
    }

    fn next_attempt<C: Core>(&mut self, world: &mut World<C>, client: u64, target: Option<Place>) {
        let index = usize::try_from(client).expect("there are few clients");
        let Some(key) = self.clients[index].running.as_ref().map(|running| running.key) else { return };
        let target = target.unwrap_or_else(|| self.pick_target(world, key));
        if let Some(running) = &mut self.clients[index].running {
            running.attempt += 1;
            running.target = target;
        }
    }

    /// The newest attempt was refused, perhaps with the name of who may do it, or the time is up.
    fn fail_attempt<C: Core>(
        &mut self,
        world: &mut World<C>,
        client: u64,
        outcome: caller::Outcome,
        leader: Option<Place>,
    ) {
        let index = usize::try_from(client).expect("there are few clients");
        let Client { sequence, budget, running } = &mut self.clients[index];
        let Some(running) = running else { return };
        let (sequence, attempt) = (*sequence, running.attempt + 1);
        let (now_us, random) = (world.now_ns() / 1_000, world.random.bits());
        match running.call.handle_outcome(outcome, budget, self.begun, now_us, random) {
            Decision::Retry { after_us, .. } => {
                self.next_attempt(world, client, leader);
                let timer = Timer::Retry { sequence, attempt };
                world.after(after_us * 1_000, Occurrence::Client { client, timer });
            }
            Decision::GiveUp(reason) => self.give_up(world, client, reason),
        }
    }

    /// Ends an operation that nobody settled.
    fn give_up<C: Core>(&mut self, world: &mut World<C>, client: u64, reason: GiveUp) {
        let state = &self.clients[usize::try_from(client).expect("there are few clients")];
        let Some(running) = &state.running else { return };
        let may_be_done = !running.unanswered.is_empty() || reason == GiveUp::OutcomeUnknown;
        let unknown = running.request.writes() && may_be_done;
        self.end(world, client, if unknown { Outcome::Unknown } else { Outcome::Failed });
    }

    fn end<C: Core>(&mut self, world: &mut World<C>, client: u64, outcome: Outcome) {
        let state = &mut self.clients[usize::try_from(client).expect("there are few clients")];
        let Some(running) = state.running.take() else { return };
        world.trace(|| format!("client {client} ends {}: {outcome}", running.request));
        let recorded = self.history.respond(world.now_ns(), running.id, outcome);
        recorded.expect("an operation ends once, as its answer was made for it");
        world.seen.note(match outcome {
            Outcome::Ok { .. } => "operation done",
            Outcome::ConditionFailed { .. } => "operation whose condition failed",
            Outcome::Failed => "operation refused",
            Outcome::Unknown => "operation of unknown outcome",
        });
        if let Some(image) = shown(running.request, outcome) {
            self.last_seen[running.key] = image;
        }
        if running.errand {
            self.errands_open -= 1;
            if !matches!(outcome, Outcome::Ok { .. }) {
                self.errands.push_back((running.key, running.request));
            }
        }
        let most_ns = if self.resting { IDLE_NS_MAX } else { self.workload.think_ns_max };
        let think_ns = world.random.below(most_ns);
        world.after(think_ns, Occurrence::Client { client, timer: Timer::Next });
    }
}

/// What a client knows of the key now.
fn shown(request: Request, outcome: Outcome) -> Option<Image> {
    match (request, outcome) {
        (Request::Put { value } | Request::PutIf { value, .. }, Outcome::Ok { .. }) => {
            Some(Image::Value(value))
        }
        (Request::Delete, Outcome::Ok { .. }) => Some(Image::Absent),
        (_, Outcome::Ok { returned: image } | Outcome::ConditionFailed { found: image }) => image,
        (_, Outcome::Failed | Outcome::Unknown) => None,
    }
}
