//! The partitions of one shard, and the life of the core that runs it: which groups have a member here,
//! what arrives for them, and the passing of time.

use crate::error::{CreateError, OpenError, RowFault, Stopped};
use crate::group::{Group, Places, anchor, first_image, kind_of, read_state};
use crate::hub::{CoreConfig, Hub};
use crate::journal::Journal;
use crate::mark::{Marks, is_mark};
use crate::message::{CoreMessage, GroupMessage};
use crate::mistakes;
use crate::partition::Partition;
use crate::place::{Charter, Membership, Place, Seat};
use crate::sessions::{Sessions, TokenNote};
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{Generation, ItemView, PartitionId, Slot};
use evenkeel_paxos::{Durable, Entry as Vote, Member, MemberId, MemberKind, Record, Replica, Time};
use evenkeel_storage::{
    Disk, Engine, EngineStatistics, MergeCounts, RecoveredPartition, Recovery, Runtime, ScrubCounts,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

/// The only member of a group with one.
const SOLE_MEMBER: Member = Member { id: MemberId(1), kind: MemberKind::Storage };

/// Pause before checkpoints that failed are tried again.
const CHECKPOINT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The partitions that share one engine, on one core.
pub struct Shard<D: Disk, R: Runtime> {
    core: Rc<Core<D, R>>,
}

struct Core<D: Disk, R: Runtime> {
    engine: Engine<D, R>,
    hub: Rc<Hub<R>>,
    journal: Rc<Journal<Partition<D, R>>>,
    partitions: RefCell<HashMap<PartitionId, Rc<Partition<D, R>>>>,
    /// The last frame that became durable, and when that was seen first.
    progress: Cell<(u64, Time)>,
}

impl<D: Disk, R: Runtime> Drop for Shard<D, R> {
    fn drop(&mut self) {
        self.core.journal.close();
        self.core.hub.close();
        self.core.engine.stop_checkpoints();
    }
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Takes up the partitions that recovery found.
    ///
    /// # Errors
    /// A partition whose recorded description is malformed: the log is of another version, or wrong.
    pub fn open(
        engine: Engine<D, R>,
        runtime: R,
        config: CoreConfig,
        recovery: &Recovery,
    ) -> Result<Shard<D, R>, OpenError> {
        // A log that held nothing is that of a core which never supported anybody.
        let unclean = recovery.frames > 0;
        let hub = Rc::new(Hub::new(runtime.clone(), config, recovery.life, unclean));
        let journal = Journal::new();
        runtime.spawn(journal.clone().run());
        let progress = Cell::new((0, hub.now()));
        let core = Core { engine, hub, journal, partitions: RefCell::default(), progress };
        let shard = Shard { core: Rc::new(core) };
        for found in &recovery.partitions {
            let partition = shard.core.take_up(found, true);
            let partition = partition.map_err(|fault| OpenError::from((found.id, fault)))?;
            shard.core.partitions.borrow_mut().insert(found.id, partition);
        }
        runtime.spawn(keep_time(Rc::downgrade(&shard.core), shard.core.hub.clone()));
        runtime.spawn(keep_room(Rc::downgrade(&shard.core), shard.core.engine.clone(), runtime.clone()));
        Ok(shard)
    }

    fn partition(&self, id: PartitionId, generation: Generation) -> Option<Rc<Partition<D, R>>> {
        self.core.partition(id, generation)
    }

    /// The partition, if it is here under this generation and not being dropped.
    pub fn serving(&self, id: PartitionId, generation: Generation) -> Option<Rc<Partition<D, R>>> {
        self.partition(id, generation).filter(|partition| !partition.is_closed())
    }

    /// How many partitions are here.
    pub fn partition_count(&self) -> usize {
        self.core.partitions.borrow().len()
    }

    /// How many of them are led from here.
    pub fn leader_count(&self) -> usize {
        self.core.partitions.borrow().values().filter(|partition| partition.group.borrow().leads()).count()
    }

    /// The engine's counters.
    pub fn statistics(&self) -> EngineStatistics {
        self.core.engine.statistics()
    }

    /// What checkpoints have done.
    pub fn checkpoints(&self) -> MergeCounts {
        self.core.engine.merge_counts()
    }

    /// What scrubs have done and found.
    pub fn scrub_counts(&self) -> ScrubCounts {
        self.core.engine.scrub_counts()
    }

    /// How often a page was not what it should be, since the start: the disk is not to be trusted.
    pub fn corrupt_pages(&self) -> u64 {
        self.core.engine.pages().cache_counts().corrupt_pages
    }

    /// Takes in a message of another core.
    pub fn receive(&self, from: Place, message: CoreMessage) {
        self.core.receive(from, message);
    }

    /// Creates a partition with one copy, here, as its stored catalogue row says; durable when it returns.
    /// One that is here already under this generation is left as it is.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn create(&self, id: PartitionId, stored_row: &[u8]) -> Result<(), CreateError> {
        let seat = Seat { member: SOLE_MEMBER, place: self.core.hub.config.place };
        self.create_member(id, stored_row, &[seat], SOLE_MEMBER).await
    }

    /// Creates a member of a group: one of its founders, or one that a swap is to bring in later. Durable when
    /// it returns. One that is here already under this generation is left as it is.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn create_member(
        &self,
        id: PartitionId,
        stored_row: &[u8],
        founders: &[Seat],
        member: Member,
    ) -> Result<(), CreateError> {
        let row = parse_row(stored_row).map_err(|fault| CreateError::from((id, fault)))?;
        if row.id != id {
            return Err(CreateError::Row {
                partition: id,
                reason: format!("it describes partition {}", row.id),
            });
        }
        let here = self.core.partitions.borrow().get(&id).map(|partition| partition.row().generation);
        match here {
            Some(here) if here == row.generation => return Ok(()),
            Some(here) if here > row.generation => {
                return Err(CreateError::Generation { partition: id, here, asked: row.generation });
            }
            _ => {}
        }
        let charter = Charter { member, founders: Membership::first(founders), row: stored_row.to_vec() };
        let (generation, meta) = (row.generation, charter.encode());
        let fresh = self.core.engine.generation(id).is_none();
        let created = self.core.engine.create_partition(id, generation, &meta);
        let found = RecoveredPartition { id, generation, meta, ..RecoveredPartition::default() };
        // What it writes first may share the frame of its creation.
        let submitted = fresh && self.core.engine.generation(id).is_some();
        let taken = submitted.then(|| self.core.take_up(&found, false));
        created.await?;
        let partition = taken.expect("what was created was submitted");
        let partition = partition.map_err(|fault| CreateError::from((id, fault)))?;
        self.core.partitions.borrow_mut().insert(id, partition);
        Ok(())
    }

    /// Drops a partition and what it holds; durable when it returns. One that is not here is gone already.
    ///
    /// # Errors
    /// As [`Shard::create`].
    pub async fn drop_partition(&self, id: PartitionId, generation: Generation) -> Result<(), CreateError> {
        let Some(partition) = self.partition(id, generation) else { return Ok(()) };
        // From here on it answers nobody, and writes that wait for a latch are turned away. Until the
        // drop is durable it stays in the map, so that a drop which the log refused can be repeated.
        partition.close();
        let dropped = self.core.engine.drop_partition(id, generation);
        if self.core.engine.generation(id).is_none() {
            partition.retire();
        }
        dropped.await?;
        self.core.partitions.borrow_mut().remove(&id);
        Ok(())
    }

    /// Hands leadership of every group over that has another member to take it; returns of how many.
    pub fn hand_over(&self) -> usize {
        self.core.all().iter().filter(|partition| partition.hand_over()).count()
    }

    /// Turns away what comes and lets every watcher go, so that requests under way end.
    pub fn close(&self) {
        self.core.partitions.borrow().values().for_each(|partition| partition.close());
    }

    /// Why the shard can go on no more, if so.
    pub fn failure(&self) -> Option<Stopped> {
        let engine = &self.core.engine;
        let log = engine.log_failure().map(Stopped::from);
        let pages = || engine.pages().failed().map(Stopped::from);
        let partitions = self.core.partitions.borrow();
        log.or_else(pages).or_else(|| partitions.values().find_map(|partition| partition.refused()))
    }
}

impl<D: Disk, R: Runtime> Core<D, R> {
    fn partition(&self, id: PartitionId, generation: Generation) -> Option<Rc<Partition<D, R>>> {
        let partitions = self.partitions.borrow();
        partitions.get(&id).filter(|partition| partition.row().generation == generation).cloned()
    }

    /// All partitions, for a walk during which others may come and go.
    fn all(&self) -> Vec<Rc<Partition<D, R>>> {
        let mut all: Vec<_> = self.partitions.borrow().values().cloned().collect();
        all.sort_by_key(|partition| partition.row().id);
        all
    }

    /// A member as the log describes it.
    fn take_up(&self, found: &RecoveredPartition, restarted: bool) -> Result<Rc<Partition<D, R>>, RowFault> {
        let fault = |what: &str| RowFault(format!("{what} cannot be read"));
        let charter = Charter::decode(&found.meta).ok_or_else(|| fault("its charter"))?;
        let row = parse_row(&charter.row)?;
        let (mut membership, mut sessions) = match &found.begun {
            Some(state) => read_state(state).ok_or_else(|| fault("the state of its snapshot"))?,
            None => (charter.founders.clone(), Sessions::default()),
        };
        if let Some(state) = &found.state {
            membership = Membership::decode(state).ok_or_else(|| fault("its last swap"))?;
        }
        let forgets = self.hub.runtime.errs(mistakes::TOKENS_LOST_AT_START);
        let (marks, tokens): (Vec<_>, Vec<_>) = found.noted.iter().partition(|entry| is_mark(entry));
        // Nothing was frozen there.
        marks.iter().for_each(|_| self.engine.pass_mark());
        for entry in tokens.into_iter().filter(|_| !forgets) {
            let note = TokenNote::decode(&entry.note).ok_or_else(|| fault("the token of a write"))?;
            sessions.record(&note, entry.slot, entry.timestamp, first_image(entry));
        }
        let mut places = Places::default();
        places.learn_all(&self.hub, &charter.founders);
        places.learn_all(&self.hub, &membership);
        let mut votes = Vec::with_capacity(found.pending.len());
        for (entry, checksum) in &found.pending {
            let kind = kind_of(entry).ok_or_else(|| fault("a swap"))?;
            votes.push(Vote { ballot: entry.ballot, checksum: *checksum, kind });
            if let Some(next) = Membership::decode(&entry.note).filter(|_| entry.lasting) {
                places.learn_all(&self.hub, &next);
            }
        }
        let base = anchor(found.applied);
        let mut durable = Durable::begin(base, membership.configuration);
        durable.apply(&Record::Promise { ballot: found.promised }, &[]);
        if !votes.is_empty() {
            let record = Record::Accept { ballot: found.promised, after: base, chosen: base.slot };
            durable.apply(&record, &votes);
        }
        // What a group with one member has promised is in its own log.
        let sole = membership.configuration.ids() == [charter.member.id];
        let votes_from = if restarted && !sole { self.hub.votes_from } else { Time::default() };
        let replica = Replica::recover(charter.member, found.generation, &durable, votes_from);
        let is_changed = found.last_slot > Slot(0);
        let marks = Marks::begin(found.id, self.hub.now(), self.hub.config.mark_interval_ns, is_changed);
        let group = Group::new(replica, places, sessions, marks);
        let (engine, hub, journal) = (self.engine.clone(), self.hub.clone(), self.journal.clone());
        Ok(Partition::open(row, engine, hub, journal, group, found.last_timestamp))
    }

    fn receive(&self, from: Place, message: CoreMessage) {
        match message {
            CoreMessage::Group(message) => self.deliver(from, message),
            CoreMessage::Support { support, chosen } => {
                if let Some(core) = self.hub.supported(from, &support) {
                    self.all().iter().for_each(|partition| partition.on_liveness(core));
                }
                chosen.into_iter().for_each(|message| self.deliver(from, message));
            }
        }
    }

    fn deliver(&self, place: Place, message: GroupMessage) {
        let GroupMessage { partition, generation, from, to, body } = message;
        if let Some(partition) = self.partition(partition, generation) {
            partition.receive(place, from, to, body);
        }
    }

    /// Does what is due.
    fn tick(&self) {
        for core in self.hub.lapsed() {
            self.all().iter().for_each(|partition| partition.on_liveness(core));
        }
        for id in self.hub.due() {
            let partition = self.partitions.borrow().get(&id).cloned();
            if let Some(partition) = partition {
                partition.on_alarm();
            }
        }
        if self.hub.may_mark() {
            let now = self.hub.now();
            self.all().iter().for_each(|partition| partition.mark_if_due(now));
        }
        let sent = self.hub.send_support(self.log_moves(), |core| {
            let announcing = self.hub.announcing().into_iter();
            let here = announcing.filter_map(|id| self.partitions.borrow().get(&id).cloned());
            here.filter_map(|partition| partition.announcement(core)).collect()
        });
        if sent {
            self.announced();
        }
    }

    /// A round of announcements has been made.
    fn announced(&self) {
        for id in self.hub.announcing() {
            let partition = self.partitions.borrow().get(&id).cloned();
            if !partition.is_some_and(|partition| partition.announced()) {
                self.hub.announced(id);
            }
        }
    }

    /// Whether the log of this core makes progress: with a stuck disk it must not ask for support.
    fn log_moves(&self) -> bool {
        let statistics = self.engine.statistics();
        let (now, (durable, since)) = (self.hub.now(), self.progress.get());
        let waits = statistics.writes_in_flight > 0 || statistics.frames_queued > 0;
        if !waits || statistics.frame_durable != durable {
            self.progress.set((statistics.frame_durable, now));
            return self.engine.log_failure().is_none();
        }
        now < since.after(self.hub.config.support.lease_ns / 2)
    }
}

/// Looks at the time whenever something is due, until the shard is gone.
async fn keep_time<D: Disk, R: Runtime>(core: Weak<Core<D, R>>, hub: Rc<Hub<R>>) {
    while !hub.is_closed() {
        let due = hub.next_due();
        let pause_ns = due.0.saturating_sub(hub.now().0);
        if pause_ns == 0 {
            let Some(core) = core.upgrade() else { return };
            core.tick();
            continue;
        }
        let mut sleep = pin!(hub.runtime.sleep(Duration::from_nanos(pause_ns)));
        poll_fn(|context| {
            hub.set_keeper(context);
            if hub.is_before(due) { Poll::Ready(()) } else { sleep.as_mut().poll(context) }
        })
        .await;
    }
}

/// Checkpoints partitions when tables or log want it, until the shard is gone.
async fn keep_room<D: Disk, R: Runtime>(core: Weak<Core<D, R>>, engine: Engine<D, R>, runtime: R) {
    while let Some(due) = engine.checkpoints_due().await {
        let mut failed = false;
        for id in due {
            let Some(core) = core.upgrade() else { return };
            let partition = core.partitions.borrow().get(&id).cloned();
            // One that is being created or dropped is looked at again.
            let Some(partition) = partition else { continue };
            let checkpoint = engine.checkpoint(id, &partition.state());
            drop((core, partition));
            failed |= checkpoint.await.is_err();
        }
        failed |= engine.flip().await.is_err();
        if failed {
            runtime.sleep(CHECKPOINT_AGAIN_AFTER).await;
        }
    }
}

fn parse_row(stored: &[u8]) -> Result<PartitionRow, RowFault> {
    let attributes = ItemView::check(stored)?.to_attributes();
    Ok(PartitionRow::from_attributes(&attributes)?)
}
