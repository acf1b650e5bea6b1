//! A whole cluster on this machine: what `evenkeel dev` runs and the benches measure.
//!
//! It writes the configuration files of nodes and router. Then it either calls the functions that their
//! processes call, all in this process, or starts and watches those processes. Nodes and router speak only
//! QUIC with each other, and durability is never relaxed. What differs from production is said in those
//! files: smaller log segments, threads that are not bound to processors, throw-away certificates, free ports.
//!
//! ```text
//! DIR/local.toml                 what the directory was made with
//! DIR/lock                       locked by the process that runs the cluster
//! DIR/certs/                     an authority's certificate and one identity a role
//! DIR/node-1/node.toml, data/    one directory a node
//! DIR/router.toml                the router's configuration
//! DIR/client.toml                what a native client needs to connect
//! DIR/users.key                  what the secrets of users are sealed under
//! DIR/node-1.pid, router.pid     where they are processes of their own: their ids
//! ```

mod layout;
mod processes;

pub use layout::ClientFile;

use crate::certificates::CertificateError;
use evenkeel_authentication::{KeyFileError, SealingKey};
use evenkeel_node::config::{NodeEntry, StorageSection};
use evenkeel_node::{NodeConfig, NodeError, NodeHandle};
use evenkeel_router::config::{AuthenticationMode, RouterConfig};
use evenkeel_router::{MetricsRenderer, RouterHandle};
use layout::{CLIENT_FILE, HOST, KEY_FILE, Made, ROUTER_FILE, node_file};
use processes::{Program, Watched};
use std::fs;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

/// How often other ports are tried when somebody else was faster.
const PORT_TRIES: usize = 5;

/// What cluster to run.
#[derive(Clone)]
pub struct LocalConfig {
    /// Its directory, made if it does not exist.
    pub data: PathBuf,
    /// Number of nodes; by default what the directory was made with, or three.
    pub nodes: Option<u16>,
    /// Shards of each node; by default what the directory was made with, or one.
    pub cores_per_node: Option<u16>,
    /// Where the DynamoDB API listens; port 0 for any free one.
    pub http: SocketAddr,
    /// Where the admin endpoint listens; port 0 for any free one.
    pub admin: SocketAddr,
    /// The zone of the router, whose replicas answer eventually consistent reads; nothing to have leaders answer.
    pub zone: Option<String>,
    /// Whether nodes and router are processes of their own.
    pub processes: bool,
    /// Whether the router verifies signatures.
    pub authentication: AuthenticationMode,
    /// Memory of all shards together, in MiB: one half for what is not in trees yet, one for pages of them.
    pub memory_mib: u32,
    /// What the admin endpoint shows, where the router is part of this process.
    pub metrics: MetricsRenderer,
}

/// Memory of all shards together unless told otherwise.
pub const MEMORY_MIB_DEFAULT: u32 = 1536;

impl LocalConfig {
    /// What benches measure: three nodes of one core on free ports, with nothing beside the requests.
    pub fn measured(data: PathBuf) -> LocalConfig {
        LocalConfig {
            data,
            nodes: Some(3),
            cores_per_node: Some(1),
            http: SocketAddr::new(HOST, 0),
            admin: SocketAddr::new(HOST, 0),
            zone: None,
            processes: false,
            authentication: AuthenticationMode::Off,
            memory_mib: MEMORY_MIB_DEFAULT,
            metrics: Arc::new(String::new),
        }
    }
}

/// Why a cluster did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A flag contradicts a limit.
    #[error("{flag} {value}: must be between 1 and {max}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What it was.
        value: u16,
        /// Most that is allowed.
        max: u16,
    },
    /// The shards need more memory.
    #[error("--memory-mib {mib}: this many shards need at least {least_mib}")]
    Memory {
        /// What it was.
        mib: u32,
        /// What is needed.
        least_mib: u64,
    },
    /// A flag contradicts what the directory was made with.
    #[error("{} was made with {flag} {made}, not {asked}; leave the flag out, or choose another directory", data.display())]
    Made {
        /// The directory.
        data: PathBuf,
        /// The flag.
        flag: &'static str,
        /// What it was made with.
        made: u16,
        /// What was asked for.
        asked: u16,
    },
    /// The directory is not empty and was not made by this program.
    #[error("{} is not empty and holds no local.toml; choose another directory", data.display())]
    Foreign {
        /// The directory.
        data: PathBuf,
    },
    /// Another process runs the cluster of this directory.
    #[error("{} is in use by another process; stop it, or choose another directory", data.display())]
    InUse {
        /// The directory.
        data: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what was written there.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key file could not be made.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The identities could not be made.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// No ports could be had.
    #[error("no free UDP ports for {shards} shards between {first} and {last}")]
    Ports {
        /// How many were needed.
        shards: u16,
        /// The first one that was looked at.
        first: u16,
        /// The last one.
        last: u16,
    },
    /// No port for HTTP could be had.
    #[error("{address}: {source}")]
    Listen {
        /// Where the router was to listen.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process of an earlier run is still there.
    #[error("{name} of an earlier run, process {pid}, has not ended; end it first")]
    Former {
        /// What it is called.
        name: String,
        /// Its id.
        pid: u32,
    },
    /// A process did not become ready.
    #[error("{name} ended before it was ready ({reason})")]
    Process {
        /// What it is called.
        name: String,
        /// How it ended.
        reason: String,
    },
    /// A node did not start, or stopped by itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The router did not start.
    #[error("router: {0}")]
    Router(String),
}

/// A running cluster.
pub struct LocalCluster {
    data: PathBuf,
    node_count: usize,
    http: SocketAddr,
    admin: SocketAddr,
    parts: Parts,
    /// Given up with the process, whichever way it ends.
    _lock: fs::File,
}

/// What a cluster consists of.
enum Parts {
    /// Threads of this process.
    Threads { nodes: Vec<NodeHandle>, router: RouterHandle },
    /// Processes that this one watches.
    Processes { nodes: Vec<Watched>, router: Vec<Watched> },
}

impl LocalCluster {
    /// Starts a cluster; returns when the DynamoDB API answers.
    ///
    /// # Errors
    /// See [`LocalError`]; what had been started is stopped again.
    pub fn start(config: LocalConfig) -> Result<LocalCluster, LocalError> {
        layout::check_flags(&config)?;
        layout::refuse_foreign(&config.data)?;
        let lock = layout::lock(&config.data)?;
        let made = layout::prepare(&config)?;
        let key_file = config.data.join(KEY_FILE);
        if !key_file.exists() {
            SealingKey::create(&key_file)?;
        }
        let storage = layout::storage_section(config.memory_mib, &made)?;
        programs(&config.data, made.nodes).iter().try_for_each(Program::await_former)?;
        let Started { http, admin, parts } = match config.processes {
            true => start_processes(&config, made, &storage)?,
            false => start_threads(&config, made, &storage)?,
        };
        let node_count = match &parts {
            Parts::Threads { nodes, .. } => nodes.len(),
            Parts::Processes { nodes, .. } => nodes.len(),
        };
        Ok(LocalCluster { data: config.data, node_count, http, admin, parts, _lock: lock })
    }

    /// Where the DynamoDB API listens.
    pub fn endpoint(&self) -> SocketAddr {
        self.http
    }

    /// Where the admin endpoint listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The file that a native client needs to connect.
    pub fn client_file(&self) -> PathBuf {
        self.data.join(CLIENT_FILE)
    }

    /// The file with the key that the secrets of users are sealed under.
    pub fn key_file(&self) -> PathBuf {
        self.data.join(KEY_FILE)
    }

    /// The file with a node's process id, where nodes are processes.
    pub fn pid_file(&self, node: u32) -> PathBuf {
        self.data.join(format!("node-{node}.pid"))
    }

    /// How many nodes run.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// Resolves when a node of this process has stopped by itself; [`LocalCluster::stop`] then tells why.
    /// Nodes that are processes are started again instead.
    pub async fn node_ended(&mut self) {
        let Parts::Threads { nodes, .. } = &mut self.parts else { return std::future::pending().await };
        let mut ended: Vec<_> = nodes.iter_mut().map(|node| Box::pin(node.ended())).collect();
        poll_fn(|context| match ended.iter_mut().any(|node| node.as_mut().poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Stops router and nodes in order.
    ///
    /// # Errors
    /// The first node that had failed.
    pub fn stop(self) -> Result<(), LocalError> {
        match self.parts {
            Parts::Threads { nodes, router } => {
                router.shutdown();
                stop_nodes(nodes)?;
            }
            Parts::Processes { nodes, router } => {
                processes::stop(router);
                processes::stop(nodes);
            }
        }
        Ok(())
    }
}

/// What has been started.
struct Started {
    http: SocketAddr,
    admin: SocketAddr,
    parts: Parts,
}

/// Starts nodes and router as threads, on other ports if another process took one between choice and start.
fn start_threads(
    config: &LocalConfig,
    mut made: Made,
    storage: &StorageSection,
) -> Result<Started, LocalError> {
    let mut tries = 0;
    let mut former = layout::former_entries(&config.data, &made);
    let (entries, nodes) = loop {
        let entries = former.take().map_or_else(|| layout::choose_entries(&made), Ok)?;
        layout::write_nodes(&config.data, &made, &entries, storage)?;
        tries += 1;
        match start_nodes(&config.data, &entries) {
            Ok(nodes) => break (entries, nodes),
            Err(error) if tries < PORT_TRIES && error.is_address_in_use() => {}
            Err(error) => return Err(error.into()),
        }
    };
    let router = layout::formed(&config.data, &mut made, &entries, storage)
        .and_then(|()| start_router(config, &made, &entries));
    match router {
        Ok(router) => {
            let (http, admin) = (router.http_address, router.admin_address);
            Ok(Started { http, admin, parts: Parts::Threads { nodes, router } })
        }
        Err(error) => {
            stop_nodes(nodes)?;
            Err(error)
        }
    }
}

/// Starts nodes and router as processes.
fn start_processes(
    config: &LocalConfig,
    mut made: Made,
    storage: &StorageSection,
) -> Result<Started, LocalError> {
    let former = layout::former_entries(&config.data, &made);
    let entries = former.map_or_else(|| layout::choose_entries(&made), Ok)?;
    layout::write_nodes(&config.data, &made, &entries, storage)?;
    let mut programs = programs(&config.data, made.nodes);
    let router = programs.split_off(entries.len());
    let nodes = processes::start(programs)?;
    let starting = layout::formed(&config.data, &mut made, &entries, storage).and_then(|()| {
        // A router that is started again must listen where it did.
        let (http, admin) = (listening_address(config.http)?, listening_address(config.admin)?);
        let config = LocalConfig { http, admin, ..config.clone() };
        layout::write_clients(&config, &made, &entries)?;
        Ok((http, admin, processes::start(router)?))
    });
    match starting {
        Ok((http, admin, router)) => Ok(Started { http, admin, parts: Parts::Processes { nodes, router } }),
        Err(error) => {
            processes::stop(nodes);
            Err(error)
        }
    }
}

/// The processes of a cluster: its nodes, and the router last.
fn programs(data: &Path, nodes: u16) -> Vec<Program> {
    let node = |id: u32| Program::new(data, format!("node-{id}"), "node", node_file(data, id));
    let router = Program::new(data, "router".to_owned(), "router", data.join(ROUTER_FILE));
    (1..=u32::from(nodes)).map(node).chain([router]).collect()
}

/// The address itself, or, if its port is 0, one with a port that is free.
fn listening_address(address: SocketAddr) -> Result<SocketAddr, LocalError> {
    if address.port() != 0 {
        return Ok(address);
    }
    let listening = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    listening.map_err(|source| LocalError::Listen { address, source })
}

fn start_router(
    config: &LocalConfig,
    made: &Made,
    entries: &[NodeEntry],
) -> Result<RouterHandle, LocalError> {
    let file = layout::write_clients(config, made, entries)?;
    let fault = |reason: String| LocalError::Router(reason);
    let router_config = RouterConfig::load(&file).map_err(|error| fault(error.to_string()))?;
    evenkeel_router::start(router_config, config.metrics.clone()).map_err(|error| fault(error.to_string()))
}

/// All nodes stop at the same time: none of them waits for another to take over.
fn stop_nodes(nodes: Vec<NodeHandle>) -> Result<(), NodeError> {
    std::thread::scope(|scope| {
        let stopping: Vec<_> = nodes.into_iter().map(|node| scope.spawn(|| node.stop())).collect();
        let ended = stopping.into_iter().map(|thread| thread.join().expect("stopping a node does not panic"));
        ended.fold(Ok(()), Result::and)
    })
}

/// All nodes read their logs at the same time.
fn start_nodes(data: &Path, entries: &[NodeEntry]) -> Result<Vec<NodeHandle>, NodeError> {
    let files: Vec<PathBuf> = entries.iter().map(|entry| node_file(data, entry.id)).collect();
    let started: Vec<Result<NodeHandle, NodeError>> = std::thread::scope(|scope| {
        let starting: Vec<_> =
            files.iter().map(|file| scope.spawn(|| evenkeel_node::start(NodeConfig::load(file)?))).collect();
        let joined =
            starting.into_iter().map(|thread| thread.join().expect("starting a node does not panic"));
        joined.collect()
    });
    let mut nodes = Vec::new();
    let mut fault = None;
    for result in started {
        match result {
            Ok(node) => nodes.push(node),
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    match fault {
        None => Ok(nodes),
        Some(error) => {
            // The fault that is reported is the first one; those of stopping would hide it.
            let _ = stop_nodes(nodes);
            Err(error)
        }
    }
}
