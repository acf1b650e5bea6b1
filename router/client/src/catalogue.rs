//! The client's copy of the catalogue: read whole, replaced whole, followed by a watcher.
//!
//! All reading is done by one task, so requests for tables that do not exist, however many, cost at most
//! one reading per [`CATALOGUE_READ_INTERVAL`]. A second task keeps one Watch open on partition 0 and
//! asks for a reading when something has changed. Both end when the client does.

use crate::call::leader;
use crate::client::Inner;
use crate::connection::LaneChoice;
use crate::error::Error;
use crate::limits::{
    CATALOGUE_PAUSE_FIRST, CATALOGUE_PAUSE_MAX, CATALOGUE_READ_ATTEMPTS_MAX, CATALOGUE_READ_INTERVAL,
    CATALOGUE_READ_TIMEOUT, CONNECT_PATIENCE, RANGE_BYTES_MAX, WATCH_TIMEOUT,
};
use crate::page::Part;
use crate::users::Users;
use arc_swap::ArcSwap;
use evenkeel_caller::{Catalogue, Place, Replicas, RouteMap};
use evenkeel_model::catalogue::{
    self, NodeRow, PartitionRow, Replica, RowError, TableRow, TableStatus, UserRow, nodes_prefix,
    partitions_prefix, tables_prefix, users_prefix,
};
use evenkeel_model::key::successor;
use evenkeel_model::{Attributes, Generation, ItemView, PartitionId, Slot, TableId};
use evenkeel_wire::message::{Changed, NodeAddress, Page, Range, Redirect, Watch};
use evenkeel_wire::{Kind, Message, decode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The generation of partition 0, which never changes hands under another.
const CATALOGUE_GENERATION: Generation = Generation(1);

/// The catalogue at one moment.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) map: RouteMap,
    pub(crate) users: Users,
    nodes: Vec<NodeAddress>,
    applied: Slot,
}

/// How a reading ended.
#[derive(Clone, Default)]
struct Reading {
    number: u64,
    error: Option<Error>,
}

/// The newest view and the means to get a newer one.
pub(crate) struct Follower {
    view: ArcSwap<View>,
    wanted: Notify,
    begun: AtomicU64,
    ended: watch::Sender<Reading>,
}

impl View {
    /// The nodes of the cluster.
    pub(crate) fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// Where the catalogue is, if it was ever found.
    pub(crate) fn catalogue(&self) -> Option<&Replicas> {
        let routes = self.map.table_by_id(TableId::CATALOGUE)?.routes().ok()?;
        routes.first().map(|route| &route.replicas)
    }
}

impl Follower {
    pub(crate) fn new() -> Follower {
        Follower {
            view: ArcSwap::default(),
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(Reading::default()),
        }
    }

    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// Has the catalogue read, and waits for nothing.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits for a reading that begins after this call.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let number = self.begun.load(Ordering::SeqCst).saturating_add(1);
        let mut ended = self.ended.subscribe();
        self.wanted.notify_one();
        match ended.wait_for(|reading| reading.number >= number).await {
            Ok(reading) => reading.error.clone().map_or(Ok(()), Err),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Fails all refreshes from now on.
    pub(crate) fn close(&self) {
        self.ended.send_replace(Reading { number: u64::MAX, error: Some(Error::Closed) });
    }
}

/// The key schema of the catalogue as a table, so that its rows are read like items of any table.
pub(crate) fn catalogue_table() -> TableRow {
    TableRow {
        id: TableId::CATALOGUE,
        name: String::new(),
        schema: catalogue::schema(),
        status: TableStatus::Active,
        created_ms: 0,
        throughput: None,
        on_demand_since_ms: None,
        tags: Default::default(),
        deletion_protection: true,
    }
}

impl Inner {
    /// Reads the catalogue and replaces the view by what was found.
    pub(crate) async fn read_catalogue(&self) -> Result<(), Error> {
        self.counters.catalogue_reads.add(1);
        let old = self.follower.view.load_full();
        let known = match old.catalogue() {
            Some(replicas) => self.read_view(replicas).await,
            None => Err(Error::Unavailable { message: "the catalogue is not located yet".to_owned() }),
        };
        let view = match known {
            Ok(view) => view,
            Err(_) => {
                let catalogue = self.locate(&old.nodes).await?;
                self.read_view(&catalogue).await?
            }
        };
        view.map.inherit(&old.map);
        self.follower.view.store(Arc::new(view));
        Ok(())
    }

    async fn read_view(&self, replicas: &Replicas) -> Result<View, Error> {
        let late = |_| Error::Unavailable {
            message: format!("the catalogue was not read within {CATALOGUE_READ_TIMEOUT:?}"),
        };
        timeout(CATALOGUE_READ_TIMEOUT, self.read_view_whole(replicas)).await.map_err(late)?
    }

    async fn read_view_whole(&self, replicas: &Replicas) -> Result<View, Error> {
        let mut attempts = 0;
        let (tables, partitions) = loop {
            attempts += 1;
            let tables = self.read_rows(replicas, tables_prefix(), TableRow::from_attributes).await?;
            let partitions =
                self.read_rows(replicas, partitions_prefix(), PartitionRow::from_attributes).await?;
            let is_consistent = tables.first == tables.last
                && partitions.first == partitions.last
                && tables.last == partitions.first;
            // A catalogue that never rests is taken as it is: each table is checked on its own, and the
            // watcher, told the oldest slot, comes back at once.
            if is_consistent || attempts == CATALOGUE_READ_ATTEMPTS_MAX {
                break (tables, partitions);
            }
        };
        let registered = self.read_rows(replicas, nodes_prefix(), NodeRow::from_attributes).await?;
        let nodes = merged(self.links.dialer().nodes(), registered.rows);
        let applied = tables.first.min(partitions.first).min(registered.first);
        let mut view = view(replicas, nodes, applied, tables.rows, partitions.rows);
        if self.config.follow_users {
            // Users stand for themselves: a change behind the slot above is told by the watcher.
            view.users =
                Users::new(self.read_rows(replicas, users_prefix(), UserRow::from_attributes).await?.rows);
        }
        Ok(view)
    }

    async fn read_rows<T>(
        &self,
        replicas: &Replicas,
        prefix: Vec<u8>,
        convert: impl Fn(&Attributes) -> Result<T, RowError>,
    ) -> Result<Rows<T>, Error> {
        let upper = successor(&prefix);
        let mut rows = Rows { rows: Vec::new(), first: Slot(u64::MAX), last: Slot(0) };
        let mut lower = prefix;
        loop {
            let range = Range {
                partition: PartitionId::CATALOGUE,
                generation: CATALOGUE_GENERATION,
                consistent: true,
                reverse: false,
                items_max: u32::MAX,
                bytes_max: RANGE_BYTES_MAX,
                lower: &lower,
                upper: upper.as_deref(),
                filter: None,
            };
            let frame =
                self.ask_catalogue(replicas, LaneChoice::Bulk, &range, CATALOGUE_READ_TIMEOUT).await?;
            let applied = Slot::from(&decode::<Page>(&frame).map_err(Error::internal)?.applied);
            let (part, more) = Part::read(&frame).map_err(Error::internal)?;
            rows.first = rows.first.min(applied);
            rows.last = rows.last.max(applied);
            rows.rows.extend(part.rows().filter_map(|(_, item)| row(item, &convert)));
            match part.rows().next_back() {
                Some((key, _)) if more => lower = [key, &[0]].concat(),
                None if more => {
                    return Err(Error::internal("a page of the catalogue is empty but not the last"));
                }
                _ => return Ok(rows),
            }
        }
    }

    /// One request to whoever leads the catalogue, or is near it; asked again while nobody does.
    async fn ask_catalogue<M: Message>(
        &self,
        replicas: &Replicas,
        choice: LaneChoice,
        message: &M,
        patience: Duration,
    ) -> Result<evenkeel_wire::Frame, Error> {
        let late =
            |_| Error::Expired { message: format!("the catalogue did not answer within {patience:?}") };
        timeout(patience, self.ask_until_answered(replicas, choice, message, patience)).await.map_err(late)?
    }

    async fn ask_until_answered<M: Message>(
        &self,
        replicas: &Replicas,
        choice: LaneChoice,
        message: &M,
        patience: Duration,
    ) -> Result<evenkeel_wire::Frame, Error> {
        let timeout_us = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let usable = |place: &Place| !self.links.link(place).is_suspected();
        let mut failures = 0;
        let mut place = replicas.pick(None, usable).clone();
        loop {
            let link = self.links.link(&place);
            let answer = async {
                let connection = timeout(CONNECT_PATIENCE, link.connection()).await;
                let connection = connection
                    .map_err(|_| format!("no connection within {CONNECT_PATIENCE:?}"))?
                    .map_err(|failure| failure.to_string())?;
                let encode = |id| evenkeel_wire::encode(message, id, timeout_us);
                connection.request(choice, encode, &mut false).await.map_err(|lost| lost.to_string())
            };
            match answer.await {
                Ok(frame) if frame.header.kind == Kind::Redirect as u16 => {
                    let leader = decode::<Redirect>(&frame).ok().and_then(leader);
                    let nodes = self.links.dialer().nodes();
                    let leader = leader.and_then(|(node, shard)| Place::find(&nodes, node, shard));
                    match leader.filter(|leader| *leader != place && usable(leader)) {
                        Some(leader) => place = leader,
                        None => {
                            sleep(pause(1, crate::call::random())).await;
                            place = replicas.pick(Some(&place), usable).clone();
                        }
                    }
                }
                Ok(frame) => {
                    replicas.prefer(&place);
                    return match crate::call::refusal(&frame) {
                        None => Ok(frame),
                        Some((code, message)) => Err(Error::refused(code, message)),
                    };
                }
                Err(message) => {
                    link.suspect();
                    failures += 1;
                    if failures >= replicas.places().len() {
                        let message = format!("the catalogue cannot be reached: {message}");
                        return Err(Error::Unavailable { message });
                    }
                    place = replicas.pick(Some(&place), usable).clone();
                }
            }
        }
    }

    /// Waits until partition 0 has changed since the view was read, or a while has passed.
    async fn watch_catalogue(&self) -> Result<bool, Error> {
        let view = self.follower.view.load_full();
        let Some(replicas) = view.catalogue() else { return Ok(true) };
        let watch = Watch {
            partition: PartitionId::CATALOGUE,
            generation: CATALOGUE_GENERATION,
            after: view.applied,
        };
        let frame = self.ask_catalogue(replicas, LaneChoice::BySize, &watch, WATCH_TIMEOUT).await?;
        let changed = decode::<Changed>(&frame).map_err(Error::internal)?;
        Ok(Slot::from(&changed.applied) > view.applied)
    }
}

/// Rows read, and the least and greatest slot that their pages were read at.
struct Rows<T> {
    rows: Vec<T>,
    first: Slot,
    last: Slot,
}

/// The row in an item. One that cannot be read is left out: its table is unusable, others are not.
fn row<T>(item: &[u8], convert: &impl Fn(&Attributes) -> Result<T, RowError>) -> Option<T> {
    let read = ItemView::parse(item).map_err(|error| error.to_string());
    match read.and_then(|view| convert(&view.to_attributes()).map_err(|error| error.to_string())) {
        Ok(row) => Some(row),
        Err(reason) => {
            tracing::warn!(reason, "a row of the catalogue cannot be read");
            None
        }
    }
}

/// All nodes: where they are, the word of a node counts, which is newer than what is registered of others.
fn merged(mut nodes: Vec<NodeAddress>, registered: Vec<NodeRow>) -> Vec<NodeAddress> {
    for row in registered {
        if !nodes.iter().any(|node| node.id == row.id) {
            let NodeRow { id, zone, host, port_base, shards, .. } = row;
            nodes.push(NodeAddress { id, zone, host, port_base, shards });
        }
    }
    nodes
}

fn view(
    replicas: &Replicas,
    nodes: Vec<NodeAddress>,
    applied: Slot,
    mut tables: Vec<TableRow>,
    mut partitions: Vec<PartitionRow>,
) -> View {
    if !partitions.iter().any(|row| row.table == TableId::CATALOGUE) {
        let replica = |place: &Place| Replica { member: 0, node: place.node, shard: place.shard };
        partitions.push(PartitionRow::catalogue(replicas.places().iter().map(replica).collect()));
    }
    tables.push(catalogue_table());
    let map = RouteMap::new(Catalogue { tables, partitions, nodes: nodes.clone() });
    let view = View { map, users: Users::default(), nodes, applied };
    if let Some(catalogue) = view.catalogue() {
        catalogue.prefer(replicas.first());
    }
    view
}

/// Reads the catalogue whenever somebody wants it, at a bounded rate.
pub(crate) async fn run_reader(inner: Arc<Inner>) {
    let follower = &inner.follower;
    let mut next = Instant::now();
    loop {
        follower.wanted.notified().await;
        sleep_until(next).await;
        next = Instant::now() + CATALOGUE_READ_INTERVAL;
        let number = follower.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let error = inner.read_catalogue().await.err();
        follower.ended.send_modify(|reading| {
            if reading.number != u64::MAX {
                *reading = Reading { number, error };
            }
        });
    }
}

/// Wants a reading whenever the catalogue has changed.
pub(crate) async fn run_watcher(inner: Arc<Inner>) {
    let mut failures = 0u32;
    loop {
        let begun = Instant::now();
        let result = match inner.watch_catalogue().await {
            Ok(false) => Ok(()),
            Ok(true) => inner.follower.refresh().await,
            Err(_) => inner.follower.refresh().await,
        };
        match result {
            Ok(()) => {
                failures = 0;
                sleep_until(begun + CATALOGUE_READ_INTERVAL).await;
            }
            Err(error) => {
                failures += 1;
                let pause = pause(failures, crate::call::random());
                tracing::warn!(%error, pause_ms = pause.as_millis(), "the catalogue cannot be followed");
                sleep(pause).await;
            }
        }
    }
}

/// The pause after so many failures in a row: it doubles up to a limit, and half of it is jitter.
fn pause(failures: u32, random: u64) -> Duration {
    let doubled = CATALOGUE_PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let half_us = doubled.min(CATALOGUE_PAUSE_MAX).as_micros() as u64 / 2;
    Duration::from_micros(half_us + random % (half_us + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_half_is_jitter() {
        let cases = [(1, 0, 10), (1, 10_000, 20), (3, 0, 40), (9, 0, 500), (99, 500_000, 1000)];
        for (failures, random, expected_ms) in cases {
            assert_eq!(pause(failures, random), Duration::from_millis(expected_ms), "{failures} {random}");
        }
    }
}
