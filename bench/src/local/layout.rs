//! The files of a cluster on this machine: what it was made with, and what each process of it is told.

use super::{LocalConfig, LocalError};
use crate::certificates::{self, IdentityFiles};
use evenkeel_driver::{make_directory, write_file};
use evenkeel_node::NodeConfig;
use evenkeel_node::config::{ClusterSection, NodeEntry, NodeSection, StorageSection, TlsSection};
use evenkeel_router::config::{self as router, AdminSection, HttpSection, RouterConfig};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

const MADE_FILE: &str = "local.toml";
/// What writing it leaves behind when it is interrupted.
const MADE_TEMPORARY_FILE: &str = "local.tmp";
/// Locked for as long as the cluster runs.
const LOCK_FILE: &str = "lock";
pub const CLIENT_FILE: &str = "client.toml";
pub const ROUTER_FILE: &str = "router.toml";
const CERTIFICATES: &str = "certs";
pub const KEY_FILE: &str = "users.key";
/// Zones are named by letters.
const NODES_MAX: u16 = 9;
const CORES_PER_NODE_MAX: u16 = 16;
/// Where the UDP ports of nodes are looked for: below the range that the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Segments small enough that a fresh cluster is ready within a second.
const WAL_SEGMENT_BYTES: u64 = 8 << 20;
/// What a shard needs at least.
const SHARD_MEMORY_BYTES_MIN: u64 = 32 << 20;
/// One part in so many of a shard's memory is left to all else: frames, buffers, connections, the program.
const MEMORY_TO_REST: u64 = 8;
/// Space for the log of a shard.
const WAL_BYTES_MAX: u64 = 512 << 20;
/// Copies of partition 0, if there are as many zones.
const CATALOGUE_COPIES: usize = 3;

/// What a directory was made with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    cluster: String,
    pub nodes: u16,
    pub cores_per_node: u16,
    /// Whether all nodes have once been ready: they are then never formed again.
    #[serde(default)]
    pub formed: bool,
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

/// Checks the flags against limits.
pub fn check_flags(config: &LocalConfig) -> Result<(), LocalError> {
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
pub fn refuse_foreign(data: &Path) -> Result<(), LocalError> {
    make_directory(data).map_err(file_error(data))?;
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
pub fn lock(data: &Path) -> Result<fs::File, LocalError> {
    let path = data.join(LOCK_FILE);
    let file = fs::File::create(&path).map_err(file_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LocalError::InUse { data: data.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(LocalError::File { path, source }),
    }
}

/// Makes the directory, or reads what it was made with and compares.
pub fn prepare(config: &LocalConfig) -> Result<Made, LocalError> {
    let certs = config.data.join(CERTIFICATES);
    if !certificates::are_made(&certs) {
        certificates::make(&certs, certificates::NODES)?;
    }
    let file = config.data.join(MADE_FILE);
    if !file.exists() {
        return make(config);
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

fn make(config: &LocalConfig) -> Result<Made, LocalError> {
    let random: [u64; 2] = [random_u64(), random_u64()];
    let made = Made {
        cluster: format!("{:016x}{:016x}", random[0], random[1]),
        nodes: config.nodes.unwrap_or(3),
        cores_per_node: config.cores_per_node.unwrap_or(1),
        formed: false,
    };
    write_toml(&config.data.join(MADE_FILE), &made)?;
    Ok(made)
}

fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel's random source works on every supported kernel")
}

/// Takes note that all nodes are ready, and tells them that there is nothing to form any more.
pub fn formed(
    data: &Path,
    made: &mut Made,
    entries: &[NodeEntry],
    storage: &StorageSection,
) -> Result<(), LocalError> {
    if !made.formed {
        made.formed = true;
        write_toml(&data.join(MADE_FILE), made)?;
        write_nodes(data, made, entries, storage)?;
    }
    Ok(())
}

/// Where the nodes listen: where they did before, if those ports are free.
pub fn former_entries(data: &Path, made: &Made) -> Option<Vec<NodeEntry>> {
    let config: NodeConfig = read_toml(&node_file(data, 1)).ok()?;
    let nodes = config.cluster.nodes;
    let is_free = |node: &NodeEntry| {
        node.port
            .checked_add(node.shards)
            .is_some_and(|end| (node.port..end).all(|port| UdpSocket::bind((node.host, port)).is_ok()))
    };
    (nodes.len() == usize::from(made.nodes) && nodes.iter().all(is_free)).then_some(nodes)
}

/// Chooses free ports for the nodes.
pub fn choose_entries(made: &Made) -> Result<Vec<NodeEntry>, LocalError> {
    let shards = made.nodes * made.cores_per_node;
    let span = PORTS.end - PORTS.start - shards;
    let free = |base: u16| (base..base + shards).all(|port| UdpSocket::bind((HOST, port)).is_ok());
    let bases = (0..64).map(|_| PORTS.start + (random_u64() % u64::from(span)) as u16);
    let base = bases.into_iter().find(|base| free(*base)).ok_or(LocalError::Ports {
        shards,
        first: PORTS.start,
        last: PORTS.end - 1,
    })?;
    let entry = |index: u16| NodeEntry {
        id: u32::from(index) + 1,
        zone: char::from(b'a' + index as u8).to_string(),
        host: HOST,
        port: base + index * made.cores_per_node,
        shards: made.cores_per_node,
    };
    Ok((0..made.nodes).map(entry).collect())
}

/// The configuration file of a node.
pub fn node_file(data: &Path, id: u32) -> PathBuf {
    data.join(format!("node-{id}")).join("node.toml")
}

/// Writes what each node is told.
pub fn write_nodes(
    data: &Path,
    made: &Made,
    entries: &[NodeEntry],
    storage: &StorageSection,
) -> Result<(), LocalError> {
    entries.iter().try_for_each(|entry| {
        write_toml(&node_file(data, entry.id), &node_config(made, entries, entry.id, storage))
    })
}

fn node_config(made: &Made, entries: &[NodeEntry], id: u32, storage: &StorageSection) -> NodeConfig {
    let copies = if entries.len() < CATALOGUE_COPIES { 1 } else { CATALOGUE_COPIES };
    NodeConfig {
        node: NodeSection { id, data: "data".into(), pin: false, replaces: None },
        cluster: ClusterSection {
            id: made.cluster.clone(),
            catalogue_nodes: entries[..copies].iter().map(|entry| entry.id).collect(),
            form: !made.formed,
            nodes: entries.to_vec(),
        },
        tls: tls_section(Path::new("../certs"), &certificates::node(id)),
        storage: storage.clone(),
        admin: None,
    }
}

/// The budgets of each shard.
pub fn storage_section(memory_mib: u32, made: &Made) -> Result<StorageSection, LocalError> {
    let shards = u64::from(made.nodes) * u64::from(made.cores_per_node);
    let of_shard = (u64::from(memory_mib) << 20) / shards;
    if of_shard < SHARD_MEMORY_BYTES_MIN {
        return Err(LocalError::Memory {
            mib: memory_mib,
            least_mib: (shards * SHARD_MEMORY_BYTES_MIN) >> 20,
        });
    }
    let rest = (of_shard / MEMORY_TO_REST).min(of_shard - SHARD_MEMORY_BYTES_MIN);
    let half = (of_shard - rest) / 2;
    Ok(StorageSection {
        wal_segment_bytes: WAL_SEGMENT_BYTES,
        wal_bytes_max: WAL_BYTES_MAX,
        table_bytes_max: half,
        page_cache_bytes: half,
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

/// Writes what native clients and the router are told; yields the router's file.
pub fn write_clients(
    config: &LocalConfig,
    made: &Made,
    entries: &[NodeEntry],
) -> Result<PathBuf, LocalError> {
    let client = ClientFile {
        seeds: seeds(entries),
        cluster: made.cluster.clone(),
        key_file: KEY_FILE.into(),
        tls: tls_section(Path::new(CERTIFICATES), "client"),
    };
    write_toml(&config.data.join(CLIENT_FILE), &client)?;
    let file = config.data.join(ROUTER_FILE);
    write_toml(&file, &router_config(config, made, entries))?;
    Ok(file)
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
        cluster: router::ClusterSection {
            id: made.cluster.clone(),
            seeds: seeds(entries),
            zone: config.zone.clone(),
        },
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

fn write_toml<T: Serialize>(path: &Path, value: &T) -> Result<(), LocalError> {
    let text = toml::to_string(value)
        .map_err(|error| LocalError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    write(path, &text)
}

/// Writes a file so that a crash, of the machine too, leaves the old one or the new one.
pub fn write(path: &Path, text: &str) -> Result<(), LocalError> {
    if let Some(parent) = path.parent() {
        make_directory(parent).map_err(file_error(parent))?;
    }
    write_file(path, text.as_bytes(), 0o644).map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::File { path, source }
}
