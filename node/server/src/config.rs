//! What a node is told: a TOML file, checked as a whole before anything is started.
//!
//! ```toml
//! [node]
//! id = 1                    # this node, one of those below
//! data = "data"             # directory, relative to this file
//! pin = true                # one processor a shard; false lets the scheduler choose
//! replaces = 4              # optional: the node whose copies this one takes over, for good
//!
//! [cluster]
//! id = "0123456789abcdef0123456789abcdef"
//! catalogue_nodes = [1]     # hold partition 0 when the cluster is formed, on their shards 0: one node or three
//! form = false              # true for the first start of a new cluster's nodes, and never again
//!
//! [[cluster.nodes]]
//! id = 1
//! zone = "a"
//! host = "127.0.0.1"
//! port = 7101               # UDP port of shard 0; shard n listens on port + n
//! shards = 1                # fixed when the node is formatted
//!
//! [tls]                     # PEM files, relative to this file
//! ca = "ca.pem"
//! certificate = "node.pem"   # must carry the names node.evenkeel and 1.node.evenkeel
//! key = "node.key"
//!
//! [storage]                 # optional, as is each line
//! wal_segment_bytes = 67108864
//! wal_bytes_max = 4294967296
//! table_bytes_max = 1073741824
//! page_bytes_max = 4398046511104
//! page_cache_bytes = 1073741824
//! scrub_bytes_per_second = 4194304   # 0 switches the scrub off
//!
//! [admin]                   # optional: /metrics, /livez and /readyz over HTTP
//! listen = "127.0.0.1:9101"
//! ```

use evenkeel_model::catalogue::Replica;
use evenkeel_model::{ClusterId, NodeId, ShardId};
use evenkeel_storage::limits::SEGMENT_BYTES_MIN;
use evenkeel_wire::message::NodeAddress;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything a node is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node.
    pub node: NodeSection,
    /// The cluster it belongs to.
    pub cluster: ClusterSection,
    /// Its identity.
    pub tls: TlsSection,
    /// Budgets of each shard.
    #[serde(default)]
    pub storage: StorageSection,
    /// Where operators may look, if anywhere; serving it is for whoever runs the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminSection>,
}

/// The admin endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// Where it listens; port 0 for any free one.
    pub listen: SocketAddr,
}

/// This node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Which of the cluster's nodes this is.
    pub id: u32,
    /// Directory of its data; a relative path is relative to the file.
    pub data: PathBuf,
    /// Whether each shard's thread is bound to a processor of its own.
    #[serde(default = "yes")]
    pub pin: bool,
    /// The node whose copies this one takes over, because its disk is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u32>,
}

/// The cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// 32 hexadecimal digits, drawn when the cluster was formed.
    pub id: String,
    /// The nodes that hold partition 0 when the cluster is formed, on their shards 0; the first should lead.
    pub catalogue_nodes: Vec<u32>,
    /// Whether the cluster is being formed: its catalogue nodes, and only they, then found partition 0. To say
    /// so once more with an emptied disk would found it again and forget what was promised.
    #[serde(default)]
    pub form: bool,
    /// All nodes.
    pub nodes: Vec<NodeEntry>,
}

/// One node of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its id, not 0.
    pub id: u32,
    /// Its availability zone.
    pub zone: String,
    /// IP address.
    pub host: std::net::IpAddr,
    /// UDP port of shard 0.
    pub port: u16,
    /// Number of its shards.
    pub shards: u16,
}

/// PEM files; relative paths are relative to the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Certificate of the authority that signs all identities of the cluster.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Budgets of each shard, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSection {
    /// Size of a log segment; fixed when the node is formatted.
    pub wal_segment_bytes: u64,
    /// Space for the log; writes are refused beyond it.
    pub wal_bytes_max: u64,
    /// Memory for tables; writes are refused beyond it.
    pub table_bytes_max: u64,
    /// Space for the trees of tables; writes are refused some time after it is full.
    pub page_bytes_max: u64,
    /// Memory for pages of trees.
    pub page_cache_bytes: u64,
    /// How fast everything stored is read again and again, to find what has gone bad; 0: it is not.
    pub scrub_bytes_per_second: u64,
}

impl Default for StorageSection {
    fn default() -> Self {
        StorageSection {
            wal_segment_bytes: 64 << 20,
            wal_bytes_max: 4 << 30,
            table_bytes_max: 1 << 30,
            page_bytes_max: 4 << 40,
            page_cache_bytes: 1 << 30,
            scrub_bytes_per_second: 4 << 20,
        }
    }
}

fn yes() -> bool {
    true
}

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not the TOML expected.
    #[error("configuration {}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A value contradicts a limit or another value.
    #[error("configuration: {key}: {reason}")]
    Value {
        /// The key, as a dotted path.
        key: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}

fn fault(key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), reason: reason.into() }
}

impl NodeConfig {
    /// Reads a file, makes its paths absolute by the file's directory, and checks it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: NodeConfig = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })?;
        let base = path.parent().unwrap_or(Path::new(""));
        for file in
            [&mut config.node.data, &mut config.tls.ca, &mut config.tls.certificate, &mut config.tls.key]
        {
            *file = base.join(&*file);
        }
        config.check()?;
        Ok(config)
    }

    /// Checks every value and every relation between two of them.
    ///
    /// # Errors
    /// The first value found wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.cluster_id()?;
        self.check_nodes()?;
        let has = |id: u32| self.cluster.nodes.iter().any(|node| node.id == id);
        if !has(self.node.id) {
            return Err(fault("node.id", format!("node {} is not in cluster.nodes", self.node.id)));
        }
        let founders = &self.cluster.catalogue_nodes;
        if let Some(stranger) = founders.iter().find(|&&id| !has(id)) {
            return Err(fault("cluster.catalogue_nodes", format!("node {stranger} is not in cluster.nodes")));
        }
        let is_twice = |at: usize| founders[..at].contains(&founders[at]);
        if ![1, 3].contains(&founders.len()) || (0..founders.len()).any(is_twice) {
            return Err(fault("cluster.catalogue_nodes", "must be one node or three"));
        }
        if self.node.replaces == Some(self.node.id) {
            return Err(fault("node.replaces", "must be another node: a lost disk's node never comes back"));
        }
        let storage = &self.storage;
        if storage.wal_segment_bytes < SEGMENT_BYTES_MIN || !storage.wal_segment_bytes.is_multiple_of(4096) {
            let reason = format!("must be a multiple of 4096 and at least {SEGMENT_BYTES_MIN}");
            return Err(fault("storage.wal_segment_bytes", reason));
        }
        if storage.wal_segment_bytes > 1 << 30 {
            return Err(fault("storage.wal_segment_bytes", "must be at most 1073741824"));
        }
        if storage.wal_bytes_max < 4 * storage.wal_segment_bytes {
            return Err(fault("storage.wal_bytes_max", "must be at least four times wal_segment_bytes"));
        }
        if storage.table_bytes_max < 16 << 20 {
            return Err(fault("storage.table_bytes_max", "must be at least 16777216"));
        }
        if storage.page_bytes_max < 64 << 20 || !storage.page_bytes_max.is_multiple_of(4096) {
            return Err(fault("storage.page_bytes_max", "must be a multiple of 4096 and at least 67108864"));
        }
        if storage.page_cache_bytes < 1 << 20 {
            return Err(fault("storage.page_cache_bytes", "must be at least 1048576"));
        }
        if (1..4096).contains(&storage.scrub_bytes_per_second) {
            return Err(fault("storage.scrub_bytes_per_second", "must be 0 or at least 4096"));
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), ConfigError> {
        let mut ids = HashSet::new();
        let mut addresses = HashSet::new();
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let key = |field: &str| format!("cluster.nodes[{index}].{field}");
            if node.id == 0 || !ids.insert(node.id) {
                return Err(fault(key("id"), "must be a number above 0 that no other node has"));
            }
            if node.zone.is_empty() {
                return Err(fault(key("zone"), "must not be empty"));
            }
            if node.shards == 0 || node.shards > 1024 {
                return Err(fault(key("shards"), "must be between 1 and 1024"));
            }
            if node.port == 0 || node.port.checked_add(node.shards - 1).is_none() {
                return Err(fault(key("port"), "must leave room for one port a shard, between 1 and 65535"));
            }
            for port in node.port..=node.port + (node.shards - 1) {
                if !addresses.insert((node.host, port)) {
                    return Err(fault(key("port"), format!("port {port} of {} is given twice", node.host)));
                }
            }
        }
        Ok(())
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// If it is not 32 hexadecimal digits.
    pub fn cluster_id(&self) -> Result<ClusterId, ConfigError> {
        let wrong = || fault("cluster.id", "must be 32 hexadecimal digits");
        if self.cluster.id.len() != 32 {
            return Err(wrong());
        }
        self.cluster.id.parse().map_err(|_| wrong())
    }

    /// This node's own entry.
    ///
    /// # Panics
    /// If [`NodeConfig::check`] was not passed.
    pub fn own(&self) -> &NodeEntry {
        let own = self.cluster.nodes.iter().find(|node| node.id == self.node.id);
        own.expect("a checked configuration lists the node itself")
    }

    /// The nodes as messages name them.
    pub fn addresses(&self) -> Vec<NodeAddress> {
        let address = |node: &NodeEntry| NodeAddress {
            id: NodeId(node.id),
            zone: node.zone.clone(),
            host: node.host.to_string(),
            port_base: node.port,
            shards: node.shards,
        };
        self.cluster.nodes.iter().map(address).collect()
    }

    /// The members that partition 0 is founded with.
    pub fn catalogue(&self) -> Vec<Replica> {
        let replica = |(at, &node): (usize, &u32)| {
            let member = u32::try_from(at + 1).expect("there are at most three");
            Replica { member, node: NodeId(node), shard: ShardId(0) }
        };
        self.cluster.catalogue_nodes.iter().enumerate().map(replica).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [node]
        id = 1
        data = "data"
        [cluster]
        id = "0123456789abcdef0123456789abcdef"
        catalogue_nodes = [1]
        [[cluster.nodes]]
        id = 1
        zone = "a"
        host = "127.0.0.1"
        port = 7101
        shards = 2
        [[cluster.nodes]]
        id = 2
        zone = "b"
        host = "127.0.0.1"
        port = 7103
        shards = 1
        [tls]
        ca = "ca.pem"
        certificate = "node.pem"
        key = "node.key"
    "#;

    fn load(text: &str) -> Result<NodeConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        NodeConfig::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_file_is_read_and_its_paths_are_relative_to_it() {
        let config = load(GOOD).unwrap();
        assert!(config.tls.ca.is_absolute() && config.node.data.ends_with("data"));
        assert_eq!(config.addresses()[0].shards, 2);
        assert_eq!(config.catalogue(), [Replica { member: 1, node: NodeId(1), shard: ShardId(0) }]);
        assert!(!config.cluster.form && config.node.replaces.is_none());
        assert!(config.node.pin && config.admin.is_none());
        let watched = load(&format!("{GOOD}\n[admin]\nlisten = \"127.0.0.1:9101\"")).unwrap();
        assert_eq!(watched.admin.unwrap().listen.port(), 9101);
    }

    #[test]
    fn each_wrong_value_is_named() {
        let cases = [
            ("id = 2\n        zone", "id = 1\n        zone", "cluster.nodes[1].id"),
            ("port = 7103", "port = 7102", "port 7102 of 127.0.0.1 is given twice"),
            ("port = 7103", "port = 0", "cluster.nodes[1].port"),
            ("shards = 1", "shards = 0", "cluster.nodes[1].shards"),
            ("[1]", "[9]", "cluster.catalogue_nodes: node 9 is not in cluster.nodes"),
            ("[1]", "[1, 2]", "cluster.catalogue_nodes: must be one node or three"),
            ("[1]", "[1, 2, 1]", "cluster.catalogue_nodes: must be one node or three"),
            ("data = \"data\"", "data = \"data\"\nreplaces = 1", "node.replaces"),
            ("[node]\n        id = 1", "[node]\n        id = 3", "node.id: node 3"),
            ("0123456789abcdef0123456789abcdef", "xyz", "cluster.id: must be 32 hexadecimal digits"),
            ("zone = \"b\"", "zone = \"\"", "cluster.nodes[1].zone"),
            ("[tls]", "[storage]\nwal_segment_bytes = 1\n[tls]", "storage.wal_segment_bytes"),
            ("[tls]", "[storage]\nwal_bytes_max = 1\n[tls]", "storage.wal_bytes_max"),
            ("[tls]", "[storage]\ntable_bytes_max = 1\n[tls]", "storage.table_bytes_max"),
            ("[tls]", "[storage]\npage_bytes_max = 67108865\n[tls]", "storage.page_bytes_max"),
            ("[tls]", "[storage]\npage_cache_bytes = 0\n[tls]", "storage.page_cache_bytes"),
            ("[tls]", "[storage]\nscrub_bytes_per_second = 1\n[tls]", "storage.scrub_bytes_per_second"),
            ("[tls]", "[tls]\ncolour = 1", "unknown field `colour`"),
            ("[tls]", "[admin]\nlisten = \"9101\"\n[tls]", "invalid socket address"),
        ];
        for (from, to, named) in cases {
            assert!(GOOD.contains(from), "{from}");
            let error = load(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
