//! The client's copy of the catalogue: read whole, replaced whole, followed by a watcher.
//!
//! All reading is done by one task, so requests for tables that do not exist, however many, cost at most
//! one reading per [`CATALOGUE_READ_INTERVAL`]. A second task keeps one Watch open on partition 0 and
//! asks for a reading when something has changed. Both end when the client does.

use crate::client::Inner;
use crate::connection::LaneChoice;
use crate::error::Error;
use crate::limits::{
    CATALOGUE_PAUSE_FIRST, CATALOGUE_PAUSE_MAX, CATALOGUE_READ_ATTEMPTS_MAX, CATALOGUE_READ_INTERVAL,
    CATALOGUE_READ_TIMEOUT, RANGE_BYTES_MAX, WATCH_TIMEOUT,
};
use crate::page::Part;
use crate::users::Users;
use arc_swap::ArcSwap;
use evenkeel_caller::{Catalogue, Place, RouteMap};
use evenkeel_model::catalogue::{
    self, PartitionRow, RowError, TableRow, TableStatus, UserRow, partitions_prefix, tables_prefix,
    users_prefix,
};
use evenkeel_model::key::successor;
use evenkeel_model::{Attributes, Generation, ItemView, PartitionId, Slot, TableId};
use evenkeel_wire::message::{Changed, NodeAddress, Page, Range, Watch};
use evenkeel_wire::{Message, decode};
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
    pub(crate) catalogue: Option<Place>,
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
        let known = match &old.catalogue {
            Some(place) => self.read_view(place).await,
            None => Err(Error::Unavailable { message: "the catalogue is not located yet".to_owned() }),
        };
        let view = match known {
            Ok(view) => view,
            Err(_) => {
                let catalogue = self.locate(&old.nodes).await?;
                self.read_view(&catalogue).await?
            }
        };
        self.follower.view.store(Arc::new(view));
        Ok(())
    }

    async fn read_view(&self, place: &Place) -> Result<View, Error> {
        let late = |_| Error::Unavailable {
            message: format!("the catalogue was not read within {CATALOGUE_READ_TIMEOUT:?}"),
        };
        timeout(CATALOGUE_READ_TIMEOUT, self.read_view_whole(place)).await.map_err(late)?
    }

    async fn read_view_whole(&self, place: &Place) -> Result<View, Error> {
        let link = self.links.link(place);
        let unavailable = |failure: crate::connection::ConnectFailure| Error::Unavailable {
            message: format!("the catalogue cannot be reached: {failure}"),
        };
        let nodes = link.connection().await.map_err(unavailable)?.greeting().nodes.clone();
        let mut attempts = 0;
        let (tables, partitions) = loop {
            attempts += 1;
            let tables = self.read_rows(place, tables_prefix(), TableRow::from_attributes).await?;
            let partitions =
                self.read_rows(place, partitions_prefix(), PartitionRow::from_attributes).await?;
            let is_consistent = tables.first == tables.last
                && partitions.first == partitions.last
                && tables.last == partitions.first;
            // A catalogue that never rests is taken as it is: each table is checked on its own, and the
            // watcher, told the oldest slot, comes back at once.
            if is_consistent || attempts == CATALOGUE_READ_ATTEMPTS_MAX {
                break (tables, partitions);
            }
        };
        let mut view = view(place, nodes, tables.first.min(partitions.first), tables.rows, partitions.rows);
        if self.config.follow_users {
            // Users stand for themselves: a change behind the slot above is told by the watcher.
            view.users =
                Users::new(self.read_rows(place, users_prefix(), UserRow::from_attributes).await?.rows);
        }
        Ok(view)
    }

    async fn read_rows<T>(
        &self,
        place: &Place,
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
                reverse: false,
                items_max: u32::MAX,
                bytes_max: RANGE_BYTES_MAX,
                lower: &lower,
                upper: upper.as_deref(),
                filter: None,
            };
            let frame = self.exchange(place, LaneChoice::Bulk, &range, CATALOGUE_READ_TIMEOUT).await?;
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

    /// One request to a place outside the route map, without retries.
    async fn exchange<M: Message>(
        &self,
        place: &Place,
        choice: LaneChoice,
        message: &M,
        patience: Duration,
    ) -> Result<evenkeel_wire::Frame, Error> {
        let timeout_us = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let exchange = async {
            let unavailable = |message: String| Error::Unavailable { message };
            let link = self.links.link(place);
            let connection = link.connection().await.map_err(|failure| unavailable(failure.to_string()))?;
            let encode = |id| evenkeel_wire::encode(message, id, timeout_us);
            let answer = connection.request(choice, encode, &mut false).await;
            answer.map_err(|lost| unavailable(lost.to_string()))
        };
        let late =
            |_| Error::Expired { message: format!("the catalogue did not answer within {patience:?}") };
        let frame = timeout(patience, exchange).await.map_err(late)??;
        match crate::call::refusal(&frame) {
            None => Ok(frame),
            Some((code, message)) => Err(Error::refused(code, message)),
        }
    }

    /// Waits until partition 0 has changed since the view was read, or a while has passed.
    async fn watch_catalogue(&self) -> Result<bool, Error> {
        let view = self.follower.view.load_full();
        let Some(place) = &view.catalogue else { return Ok(true) };
        let watch = Watch {
            partition: PartitionId::CATALOGUE,
            generation: CATALOGUE_GENERATION,
            after: view.applied,
        };
        let frame = self.exchange(place, LaneChoice::BySize, &watch, WATCH_TIMEOUT).await?;
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

fn view(
    place: &Place,
    nodes: Vec<NodeAddress>,
    applied: Slot,
    mut tables: Vec<TableRow>,
    mut partitions: Vec<PartitionRow>,
) -> View {
    partitions.retain(|row| row.table != TableId::CATALOGUE);
    partitions.push(PartitionRow::catalogue(place.node, place.shard));
    tables.push(catalogue_table());
    let map = RouteMap::new(Catalogue { tables, partitions, nodes: nodes.clone() });
    View { map, catalogue: Some(place.clone()), users: Users::default(), nodes, applied }
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
