//! The client: what its clones share, and its beginning and end.

use crate::call::random;
use crate::catalogue::{Follower, catalogue_table, run_reader, run_watcher};
use crate::config::ClientConfig;
use crate::connection::{Dialer, quic_config};
use crate::error::Error;
use crate::limits::DATAGRAM_RECEIVED_BYTES_MAX;
use crate::links::Links;
use crate::statistics::{ClientStatistics, Counters};
use crate::tokens::Tokens;
use evenkeel_caller::RetryBudget;
use evenkeel_model::catalogue::{TableRow, TableStatus};
use quinn::{Endpoint, EndpointConfig, TokioRuntime, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A client of one cluster. Clones share connections and the map of tables; when the last one is
/// dropped, its tasks and connections end.
///
/// Every operation ends within [`ClientConfig::timeout`], retries included. Dropping the future of an
/// operation abandons the answer: a write that was sent may still happen.
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

/// Ends the client when the last clone is gone.
struct Owner {
    inner: Arc<Inner>,
    tasks: [AbortHandle; 2],
}

/// What clones and tasks share.
pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    pub(crate) links: Links,
    pub(crate) follower: Follower,
    pub(crate) counters: Arc<Counters>,
    pub(crate) budget: Mutex<RetryBudget>,
    pub(crate) started: Instant,
    pub(crate) closed: AtomicBool,
    pub(crate) catalogue_table: TableRow,
    pub(crate) tokens: Tokens,
}

impl Client {
    /// Finds the cluster by its seeds and reads its catalogue.
    ///
    /// # Errors
    /// [`Error::Seeds`] with the failure of each seed; failures to read the catalogue.
    pub async fn connect(config: ClientConfig) -> Result<Client, Error> {
        let counters = Arc::new(Counters::default());
        let quic = quic_config(config.tls.clone()).map_err(Error::invalid)?;
        let endpoint = endpoint().map_err(|error| Error::Unavailable {
            message: format!("no UDP socket can be opened: {error}"),
        })?;
        let dialer = Dialer::new(endpoint, quic, config.cluster, random(), counters.clone());
        let inner = Arc::new(Inner {
            links: Links::new(Arc::new(dialer)),
            follower: Follower::new(),
            counters,
            budget: Mutex::new(RetryBudget::new(config.retry_budget, 0)),
            started: Instant::now(),
            closed: AtomicBool::new(false),
            catalogue_table: catalogue_table(),
            tokens: Tokens::new(u128::from(random()) << 64 | u128::from(random())),
            config,
        });
        if let Err(error) = inner.read_catalogue().await {
            inner.close();
            return Err(error);
        }
        let tasks = [tokio::spawn(run_reader(inner.clone())), tokio::spawn(run_watcher(inner.clone()))]
            .map(|task| task.abort_handle());
        Ok(Client { owner: Arc::new(Owner { inner, tasks }) })
    }

    /// The table of this name, being created or active. From the client's map; if it is not there, the
    /// catalogue is read once more, together with all others who miss a table.
    ///
    /// # Errors
    /// [`Error::TableNotFound`]; failures to read the catalogue.
    pub async fn table(&self, name: &str) -> Result<Arc<TableRow>, Error> {
        if let Some(row) = self.known_table(name) {
            return Ok(row);
        }
        self.inner().refresh_until(self.inner().deadline()).await?;
        self.known_table(name).ok_or_else(|| Error::TableNotFound { table: name.to_owned() })
    }

    fn known_table(&self, name: &str) -> Option<Arc<TableRow>> {
        let view = self.inner().follower.view();
        let row = view.map.table(name)?.row();
        // The catalogue's own table has an empty name, which nobody may ask for.
        (row.status != TableStatus::Deleting && !name.is_empty()).then(|| row.clone())
    }

    /// What the client has done so far.
    pub fn statistics(&self) -> ClientStatistics {
        self.inner().counters.snapshot()
    }

    /// Closes the client and all its clones, and waits until the nodes have been told. Operations under
    /// way fail.
    pub async fn close(&self) {
        self.owner.end();
        self.inner().links.dialer().endpoint().wait_idle().await;
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.owner.inner
    }
}

impl Inner {
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.follower.close();
        self.links.dialer().endpoint().close(VarInt::from_u32(0), b"");
    }
}

impl Owner {
    fn end(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.inner.close();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end();
    }
}

/// An endpoint on a socket for both families, or for IPv4 where there is no IPv6.
fn endpoint() -> io::Result<Endpoint> {
    let socket = socket(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_| socket(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into()))?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_RECEIVED_BYTES_MAX).expect("at least 1200 bytes");
    Endpoint::new(config, None, socket.into(), Arc::new(TokioRuntime))
}

fn socket(domain: Domain, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
