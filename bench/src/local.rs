//! A whole cluster on this machine, in this process: what `evenkeel dev` runs and the benches measure.
//!
//! It writes the same configuration files that separate processes read, then calls the same functions
//! that they call. Nodes and router speak only QUIC with each other, and durability is never relaxed.
//! What differs from production is said in those files: smaller log segments, threads that are not
//! bound to processors, throw-away certificates, ports chosen at each start.
//!
//! ```text
//! DIR/local.toml                 what the directory was made with
//! DIR/lock                       locked by the process that runs the cluster
//! DIR/certs/                     an authority's certificate and one identity a role
//! DIR/node-1/node.toml, data/    one directory a node
//! DIR/router.toml                the router's configuration
//! DIR/client.toml                what a native client needs to connect
//! DIR/users.key                  what the secrets of users are sealed under
//! ```

use crate::certificates::{self, CertificateError, IdentityFiles};
use evenkeel_authentication::{KeyFileError, SealingKey};
use evenkeel_node::config::{ClusterSection, NodeConfig, NodeEntry, NodeSection, StorageSection, TlsSection};
use evenkeel_node::{NodeError, NodeHandle};
use evenkeel_router::config::{self as router, AdminSection, AuthenticationMode, HttpSection, RouterConfig};
use evenkeel_router::{MetricsRenderer, RouterHandle};
use serde::{Deserialize, Serialize};
use std::fs;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

const MADE_FILE: &str = "local.toml";
/// What writing it leaves behind when it is interrupted.
const MADE_TEMPORARY_FILE: &str = "local.tmp";
/// Locked for as long as the cluster runs.
const LOCK_FILE: &str = "lock";
const CLIENT_FILE: &str = "client.toml";
const ROUTER_FILE: &str = "router.toml";
const CERTIFICATES: &str = "certs";
const KEY_FILE: &str = "users.key";
/// Zones are named by letters.
const NODES_MAX: u16 = 9;
const CORES_PER_NODE_MAX: u16 = 16;
/// Where the UDP ports of nodes are looked for: below the range that the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Segments small enough that a fresh cluster is ready within a second.
const WAL_SEGMENT_BYTES: u64 = 8 << 20;
/// How often other ports are tried when somebody else was faster.
const PORT_TRIES: usize = 5;

/// What cluster to run.
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
    /// Whether the router verifies signatures.
    pub authentication: AuthenticationMode,
    /// Memory of all shards together, in MiB: one half for what is not in trees yet, one for pages of them.
    pub memory_mib: u32,
    /// What the admin endpoint shows.
    pub metrics: MetricsRenderer,
}

/// Memory of all shards together unless told otherwise.
pub const MEMORY_MIB_DEFAULT: u32 = 1536;
/// What a shard needs at least.
const SHARD_MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Space for the log of a shard.
const WAL_BYTES_MAX: u64 = 512 << 20;

impl LocalConfig {
    /// What benches measure: three nodes of one core on free ports, with nothing beside the requests.
    pub fn measured(data: PathBuf) -> LocalConfig {
        LocalConfig {
            data,
            nodes: Some(3),
            cores_per_node: Some(1),
            http: SocketAddr::new(HOST, 0),
            admin: SocketAddr::new(HOST, 0),
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
    #[error("no free UDP ports for {shards} shards between {} and {}", PORTS.start, PORTS.end)]
    Ports {
        /// How many were needed.
        shards: u16,
    },
    /// A node did not start, or stopped by itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The router did not start.
    #[error("router: {0}")]
    Router(String),
}

/// What a directory was made with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    cluster: String,
    nodes: u16,
    cores_per_node: u16,
}

/// What a native client needs to connect; the format of `client.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// `host:port` of any shard of any node.
    pub seeds: Vec<String>,
    /// 32 hexadecimal digits.
    pub cluster: String,
    /// What the secrets of users are sealed under, relative to the file.
    pub key_file: PathBuf,
    /// PEM files, relative to the file.
    pub tls: TlsSection,
}

/// A running cluster.
pub struct LocalCluster {
    data: PathBuf,
    nodes: Vec<NodeHandle>,
    router: RouterHandle,
    /// Given up with the process, whichever way it ends.
    _lock: fs::File,
}

impl LocalCluster {
    /// Starts a cluster; returns when the DynamoDB API answers.
    ///
    /// # Errors
    /// See [`LocalError`]; what had been started is stopped again.
    pub fn start(config: LocalConfig) -> Result<LocalCluster, LocalError> {
        check_flags(&config)?;
        refuse_foreign(&config.data)?;
        let lock = lock(&config.data)?;
        let made = prepare(&config)?;
        let key_file = config.data.join(KEY_FILE);
        if !key_file.exists() {
            SealingKey::create(&key_file)?;
        }
        let storage = storage_section(config.memory_mib, &made)?;
        let (entries, nodes) = start_nodes_on_free_ports(&config.data, &made, &storage)?;
        match start_router(&config, &made, &entries) {
            Ok(router) => Ok(LocalCluster { data: config.data, nodes, router, _lock: lock }),
            Err(error) => {
                nodes.into_iter().try_for_each(NodeHandle::stop)?;
                Err(error)
            }
        }
    }

    /// Where the DynamoDB API listens.
    pub fn endpoint(&self) -> SocketAddr {
        self.router.http_address
    }

    /// Where the admin endpoint listens.
    pub fn admin(&self) -> SocketAddr {
        self.router.admin_address
    }

    /// The file that a native client needs to connect.
    pub fn client_file(&self) -> PathBuf {
        self.data.join(CLIENT_FILE)
    }

    /// The file with the key that the secrets of users are sealed under.
    pub fn key_file(&self) -> PathBuf {
        self.data.join(KEY_FILE)
    }

    /// How many nodes run.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Resolves when a node has stopped by itself; [`LocalCluster::stop`] then tells why.
    pub async fn node_ended(&mut self) {
        let mut ended: Vec<_> = self.nodes.iter_mut().map(|node| Box::pin(node.ended())).collect();
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
        self.router.shutdown();
        let stopped: Vec<_> = self.nodes.into_iter().map(NodeHandle::stop).collect();
        Ok(stopped.into_iter().collect::<Result<(), NodeError>>()?)
    }
}

fn check_flags(config: &LocalConfig) -> Result<(), LocalError> {
    let flags = [
        ("--nodes", config.nodes, NODES_MAX),
        ("--cores-per-node", config.cores_per_node, CORES_PER_NODE_MAX),
    ];
    for (flag, value, max) in flags {
        if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
            return Err(LocalError::Flag { flag, value, max });
        }
    }
    Ok(())
}

/// Makes the directory; nothing is written to one that holds what is not ours.
fn refuse_foreign(data: &Path) -> Result<(), LocalError> {
    fs::create_dir_all(data).map_err(file_error(data))?;
    if data.join(MADE_FILE).exists() {
        return Ok(());
    }
    // What a crash leaves before the file that says what the directory was made with.
    let ours = [LOCK_FILE, CERTIFICATES, MADE_TEMPORARY_FILE];
    let mut entries = fs::read_dir(data).map_err(file_error(data))?;
    if entries.any(|entry| entry.is_ok_and(|entry| !ours.iter().any(|ours| entry.file_name() == *ours))) {
        return Err(LocalError::Foreign { data: data.to_owned() });
    }
    Ok(())
}

/// Makes sure that no other process runs the cluster of this directory, before anything in it is
/// touched.
fn lock(data: &Path) -> Result<fs::File, LocalError> {
    let path = data.join(LOCK_FILE);
    let file = fs::File::create(&path).map_err(file_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LocalError::InUse { data: data.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(LocalError::File { path, source }),
    }
}

/// Makes the directory, or reads what it was made with and compares.
fn prepare(config: &LocalConfig) -> Result<Made, LocalError> {
    let certs = config.data.join(CERTIFICATES);
    if !certificates::are_made(&certs) {
        certificates::make(&certs)?;
    }
    let file = config.data.join(MADE_FILE);
    if !file.exists() {
        return make(config, &file);
    }
    let made: Made = read_toml(&file)?;
    for (flag, asked, made) in [
        ("--nodes", config.nodes, made.nodes),
        ("--cores-per-node", config.cores_per_node, made.cores_per_node),
    ] {
        if let Some(asked) = asked.filter(|asked| *asked != made) {
            return Err(LocalError::Made { data: config.data.clone(), flag, made, asked });
        }
    }
    Ok(made)
}

fn make(config: &LocalConfig, file: &Path) -> Result<Made, LocalError> {
    let random: [u64; 2] = [random_u64(), random_u64()];
    let made = Made {
        cluster: format!("{:016x}{:016x}", random[0], random[1]),
        nodes: config.nodes.unwrap_or(3),
        cores_per_node: config.cores_per_node.unwrap_or(1),
    };
    write_toml(file, &made)?;
    Ok(made)
}

fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel's random source works on every supported kernel")
}

/// Starts the nodes, on other ports if another process took one between the choice and the start.
fn start_nodes_on_free_ports(
    data: &Path,
    made: &Made,
    storage: &StorageSection,
) -> Result<(Vec<NodeEntry>, Vec<NodeHandle>), LocalError> {
    let mut tries = 0;
    loop {
        let entries = choose_entries(made)?;
        for entry in &entries {
            write_toml(&node_file(data, entry.id), &node_config(made, &entries, entry.id, storage))?;
        }
        tries += 1;
        match start_nodes(data, &entries) {
            Ok(nodes) => return Ok((entries, nodes)),
            Err(error) if tries < PORT_TRIES && error.is_address_in_use() => {}
            Err(error) => return Err(error.into()),
        }
    }
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
            nodes.into_iter().for_each(|node| drop(node.stop()));
            Err(error)
        }
    }
}

fn choose_entries(made: &Made) -> Result<Vec<NodeEntry>, LocalError> {
    let shards = made.nodes * made.cores_per_node;
    let span = PORTS.end - PORTS.start - shards;
    let free = |base: u16| (base..base + shards).all(|port| UdpSocket::bind((HOST, port)).is_ok());
    let bases = (0..64).map(|_| PORTS.start + (random_u64() % u64::from(span)) as u16);
    let base = bases.into_iter().find(|base| free(*base)).ok_or(LocalError::Ports { shards })?;
    let entry = |index: u16| NodeEntry {
        id: u32::from(index) + 1,
        zone: char::from(b'a' + index as u8).to_string(),
        host: HOST,
        port: base + index * made.cores_per_node,
        shards: made.cores_per_node,
    };
    Ok((0..made.nodes).map(entry).collect())
}

fn node_file(data: &Path, id: u32) -> PathBuf {
    data.join(format!("node-{id}")).join("node.toml")
}

fn node_config(made: &Made, entries: &[NodeEntry], id: u32, storage: &StorageSection) -> NodeConfig {
    NodeConfig {
        node: NodeSection { id, data: "data".into(), pin: false },
        cluster: ClusterSection {
            id: made.cluster.clone(),
            catalogue_node: entries[0].id,
            nodes: entries.to_vec(),
        },
        tls: tls_section(Path::new("../certs"), &certificates::node(id)),
        storage: storage.clone(),
    }
}

/// The budgets of each shard.
fn storage_section(memory_mib: u32, made: &Made) -> Result<StorageSection, LocalError> {
    let shards = u64::from(made.nodes) * u64::from(made.cores_per_node);
    let of_shard = (u64::from(memory_mib) << 20) / shards;
    if of_shard < SHARD_MEMORY_BYTES_MIN {
        return Err(LocalError::Memory {
            mib: memory_mib,
            least_mib: (shards * SHARD_MEMORY_BYTES_MIN) >> 20,
        });
    }
    Ok(StorageSection {
        wal_segment_bytes: WAL_SEGMENT_BYTES,
        wal_bytes_max: WAL_BYTES_MAX,
        table_bytes_max: of_shard / 2,
        page_cache_bytes: of_shard / 2,
        ..StorageSection::default()
    })
}

fn tls_section(directory: &Path, role: &str) -> TlsSection {
    let IdentityFiles { ca, certificate, key } = certificates::files(directory, role);
    TlsSection { ca, certificate, key }
}

/// Any shard tells where the others are; one of each node, so that one may be away.
fn seeds(entries: &[NodeEntry]) -> Vec<String> {
    entries.iter().map(|entry| SocketAddr::new(entry.host, entry.port).to_string()).collect()
}

fn start_router(
    config: &LocalConfig,
    made: &Made,
    entries: &[NodeEntry],
) -> Result<RouterHandle, LocalError> {
    let client = ClientFile {
        seeds: seeds(entries),
        cluster: made.cluster.clone(),
        key_file: KEY_FILE.into(),
        tls: tls_section(Path::new(CERTIFICATES), "client"),
    };
    write_toml(&config.data.join(CLIENT_FILE), &client)?;
    let file = config.data.join(ROUTER_FILE);
    write_toml(&file, &router_config(config, made, entries))?;
    let fault = |reason: String| LocalError::Router(reason);
    let router_config = RouterConfig::load(&file).map_err(|error| fault(error.to_string()))?;
    evenkeel_router::start(router_config, config.metrics.clone()).map_err(|error| fault(error.to_string()))
}

fn router_config(config: &LocalConfig, made: &Made, entries: &[NodeEntry]) -> RouterConfig {
    let TlsSection { ca, certificate, key } = tls_section(Path::new(CERTIFICATES), "router");
    RouterConfig {
        http: HttpSection {
            listen: config.http,
            region: "us-east-1".to_owned(),
            workers: evenkeel_router::config::workers_default(),
        },
        admin: AdminSection { listen: config.admin },
        cluster: router::ClusterSection { id: made.cluster.clone(), seeds: seeds(entries) },
        authentication: router::AuthenticationSection {
            mode: config.authentication,
            key_file: Some(KEY_FILE.into()),
        },
        tls: router::TlsSection { ca, certificate, key },
    }
}

fn read_toml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, LocalError> {
    let text = fs::read_to_string(path).map_err(file_error(path))?;
    toml::from_str(&text)
        .map_err(|error| LocalError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// Writes a file so that a crash leaves the old one or the new one.
fn write_toml<T: Serialize>(path: &Path, value: &T) -> Result<(), LocalError> {
    let text = toml::to_string(value)
        .map_err(|error| LocalError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(file_error(parent))?;
    }
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary).map_err(file_error(&temporary))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(file_error(&temporary))?;
    fs::rename(&temporary, path).map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::File { path, source }
}
