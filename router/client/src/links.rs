//! One link a shard: its connection, made when first wanted and made again after a loss.
//!
//! Whoever needs a connection that is not there starts making it, unless someone has started already,
//! and all wait for the same result. The making is a task of its own: it goes on when those who wait
//! give up.

use crate::connection::{ConnectFailure, Connection, Dialer};
use crate::limits::SUSPICION;
use crate::pending::lock;
use arc_swap::{ArcSwap, ArcSwapOption};
use evenkeel_caller::Place;
use evenkeel_model::{NodeId, ShardId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::watch;

type Made = Option<Result<Arc<Connection>, ConnectFailure>>;
type LinkTable = HashMap<(NodeId, ShardId), Arc<Link>>;

/// The links of a client.
pub(crate) struct Links {
    dialer: Arc<Dialer>,
    runtime: Handle,
    table: ArcSwap<LinkTable>,
}

/// The way to one shard.
pub(crate) struct Link {
    place: Place,
    dialer: Arc<Dialer>,
    runtime: Handle,
    connection: ArcSwapOption<Connection>,
    /// Until when the shard is asked last, in microseconds of the dialer's clock.
    suspected_until_us: AtomicU64,
    making: Mutex<Option<watch::Receiver<Made>>>,
}

impl Links {
    /// No links yet; connections will run on the current tokio runtime.
    pub(crate) fn new(dialer: Arc<Dialer>) -> Links {
        Links { dialer, runtime: Handle::current(), table: ArcSwap::default() }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The link to a place.
    pub(crate) fn link(&self, place: &Place) -> Arc<Link> {
        let key = (place.node, place.shard);
        if let Some(link) = self.table.load().get(&key).filter(|link| link.place.address == place.address) {
            return link.clone();
        }
        self.insert(place, None)
    }

    /// Keeps a connection that was made without a link.
    pub(crate) fn adopt(&self, place: &Place, connection: Connection) {
        self.insert(place, Some(Arc::new(connection)));
    }

    fn insert(&self, place: &Place, connection: Option<Arc<Connection>>) -> Arc<Link> {
        let made = Arc::new(Link {
            place: place.clone(),
            dialer: self.dialer.clone(),
            runtime: self.runtime.clone(),
            connection: ArcSwapOption::new(connection),
            suspected_until_us: AtomicU64::new(0),
            making: Mutex::default(),
        });
        let mut kept = made.clone();
        self.table.rcu(|table| {
            let mut table = LinkTable::clone(table);
            let found = table.get(&(place.node, place.shard));
            let is_same = |link: &&Arc<Link>| link.place.address == place.address;
            // Someone else may have made the same link in the meantime.
            match found.filter(is_same).filter(|link| link.is_up() || !made.is_up()) {
                Some(link) => kept = link.clone(),
                None => {
                    kept = made.clone();
                    table.insert((place.node, place.shard), made.clone());
                }
            }
            table
        });
        kept
    }
}

impl Link {
    fn up(&self) -> Option<Arc<Connection>> {
        self.connection.load_full().filter(|connection| !connection.is_lost())
    }

    fn is_up(&self) -> bool {
        self.up().is_some()
    }

    /// Where it leads.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The shard did not answer: for a while others are asked before it.
    pub(crate) fn suspect(&self) {
        let until = self.dialer.clock_us().saturating_add(SUSPICION.as_micros() as u64);
        self.suspected_until_us.store(until, Ordering::Relaxed);
    }

    /// Whether the shard did not answer lately, and no connection to it has been made since.
    pub(crate) fn is_suspected(&self) -> bool {
        let until = self.suspected_until_us.load(Ordering::Relaxed);
        until > 0 && until > self.dialer.clock_us() && !self.is_up()
    }

    /// The connection, made if need be.
    pub(crate) async fn connection(self: &Arc<Link>) -> Result<Arc<Connection>, ConnectFailure> {
        if let Some(connection) = self.up() {
            return Ok(connection);
        }
        let mut made = {
            let mut making = lock(&self.making);
            if let Some(connection) = self.up() {
                return Ok(connection);
            }
            match &*making {
                Some(made) => made.clone(),
                None => {
                    let (sender, made) = watch::channel(None);
                    *making = Some(made.clone());
                    self.runtime.spawn(self.clone().make(sender));
                    made
                }
            }
        };
        match made.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for"),
            Err(_) => Err(ConnectFailure("the client's runtime has ended".into())),
        }
    }

    async fn make(self: Arc<Link>, result: watch::Sender<Made>) {
        let dialed = self.dialer.dial(&self.place.address).await.and_then(|connection| {
            let (node, shard) = (connection.greeting().node, connection.greeting().shard);
            if (node, shard) == (self.place.node, self.place.shard) {
                return Ok(Arc::new(connection));
            }
            let address = &self.place.address;
            Err(ConnectFailure(format!("node {node}, shard {shard} answers at {address}").into()))
        });
        let described = dialed.map_err(|failure| {
            let Place { node, shard, address, .. } = &self.place;
            ConnectFailure(format!("node {node}, shard {shard} at {address}: {failure}").into())
        });
        if let Ok(connection) = &described {
            self.connection.store(Some(connection.clone()));
            self.suspected_until_us.store(0, Ordering::Relaxed);
        }
        *lock(&self.making) = None;
        result.send_replace(Some(described));
    }
}
