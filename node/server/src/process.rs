//! The node's threads: starts one core a shard, reports when all listen, stops them in order.

use crate::config::{ConfigError, NodeConfig};
use crate::identity::{Identity, IdentityError};
use crate::shard::{self, ShardError, ShardPlan};
use crate::store::{Store, StoreError};
use evenkeel_driver::{CoreConfig, CoreError, CoreHandle, Placement, raise_limits, run_core};
use evenkeel_model::{NodeId, ShardId};
use evenkeel_quic::BindError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use tokio::sync::watch;

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory was formatted with another number of shards.
    #[error(
        "{} holds {found} shards, but the configuration says {configured}; \
         the number of shards is fixed when a node is formatted", data.display()
    )]
    Shards {
        /// The data directory.
        data: PathBuf,
        /// Shards that are there.
        found: usize,
        /// Shards configured.
        configured: u16,
    },
    /// The data directory cannot be looked into.
    #[error("data directory {}: {source}", data.display())]
    Data {
        /// The data directory.
        data: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A core could not be started, or panicked.
    #[error("node {node}: {source}")]
    Core {
        /// The node.
        node: u32,
        /// What happened.
        source: CoreError,
    },
    /// A shard was told to stop before it had started.
    #[error("node {node} was stopped while it started")]
    Stopped {
        /// The node.
        node: u32,
    },
    /// A shard did not start, or stopped by itself.
    #[error("node {node}, shard {shard}: {source}")]
    Shard {
        /// The node.
        node: u32,
        /// The shard.
        shard: ShardId,
        /// What happened.
        source: Box<ShardError>,
    },
}

impl NodeError {
    /// Whether a UDP port of the node is taken by somebody else.
    pub fn is_address_in_use(&self) -> bool {
        let NodeError::Shard { source, .. } = self else { return false };
        let ShardError::Bind(BindError::Address { source, .. }) = &**source else { return false };
        source.kind() == std::io::ErrorKind::AddrInUse
    }
}

/// A running node.
pub struct NodeHandle {
    node: u32,
    stop: watch::Sender<bool>,
    /// Closed by the end of the first core, whatever its reason.
    ended: tokio::sync::mpsc::Receiver<()>,
    cores: Vec<(ShardId, CoreHandle<Result<(), ShardError>>)>,
}

/// Starts a node; returns when every shard has read its log and listens.
///
/// # Errors
/// See [`NodeError`]; what had been started is stopped again.
pub fn start(config: NodeConfig) -> Result<NodeHandle, NodeError> {
    config.check()?;
    let identity = Identity::load(NodeId(config.node.id), &config.tls)?;
    let store = open_store(&config)?;
    let limits = raise_limits();
    tracing::info!(node = config.node.id, ?limits, "node starts");
    let config = Arc::new(config);
    let incarnation = random();
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = tokio::sync::mpsc::channel(1);
    let mut handle = NodeHandle { node: config.node.id, stop, ended, cores: Vec::new() };
    let mut listening = Vec::new();
    for shard in (0..config.own().shards).map(ShardId) {
        let plan = ShardPlan {
            config: config.clone(),
            identity: identity.clone(),
            shard,
            incarnation,
            store,
            stop: stopped.clone(),
        };
        let (ready, is_ready) = mpsc::channel();
        match start_core(plan, ready, end.clone()) {
            Ok(core) => handle.cores.push((shard, core)),
            Err(source) => {
                let _ = handle.stop();
                return Err(NodeError::Core { node: config.node.id, source });
            }
        }
        listening.push(is_ready);
    }
    // A shard that ends before it listens drops its sender; why is said when it is joined.
    if listening.iter().all(|is_ready| is_ready.recv().is_ok()) {
        return Ok(handle);
    }
    let node = handle.node;
    handle.stop()?;
    Err(NodeError::Stopped { node })
}

fn start_core(
    plan: ShardPlan,
    ready: mpsc::Sender<()>,
    end: tokio::sync::mpsc::Sender<()>,
) -> Result<CoreHandle<Result<(), ShardError>>, CoreError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let placement = match plan.config.node.pin {
        true => Placement::Fixed(usize::from(plan.shard.0) % processors),
        false => Placement::Unbound,
    };
    let name = format!("node{}-{}", plan.config.node.id, plan.shard);
    run_core(CoreConfig { name, placement }, move |core| async move {
        let result = shard::run(core, plan, move || {
            // Whoever starts the node may have given up because another shard failed.
            let _ = ready.send(());
        })
        .await;
        let _ = end.try_send(());
        result
    })
}

impl NodeHandle {
    /// Resolves when a shard has ended; the node must then be stopped, which tells why.
    pub async fn ended(&mut self) {
        self.ended.recv().await;
    }

    /// Stops every shard in order: no new requests, what was acknowledged is durable, files are closed.
    ///
    /// # Errors
    /// The first shard that had failed.
    pub fn stop(self) -> Result<(), NodeError> {
        self.stop.send_replace(true);
        let node = self.node;
        let mut first = Ok(());
        for (shard, core) in self.cores {
            let ended = match core.join() {
                Ok(Ok(())) => Ok(()),
                Ok(Err(source)) => Err(NodeError::Shard { node, shard, source: Box::new(source) }),
                Err(source) => Err(NodeError::Core { node, source }),
            };
            first = first.and(ended);
        }
        first
    }
}

fn open_store(config: &NodeConfig) -> Result<Store, NodeError> {
    let data = &config.node.data;
    let fault = |source| NodeError::Data { data: data.clone(), source };
    evenkeel_driver::make_directory(data).map_err(fault)?;
    let mut found = 0;
    for entry in std::fs::read_dir(data).map_err(fault)? {
        found += usize::from(entry.map_err(fault)?.file_name().to_string_lossy().starts_with("shard-"));
    }
    let configured = config.own().shards;
    if found != 0 && found != usize::from(configured) {
        return Err(NodeError::Shards { data: data.clone(), found, configured });
    }
    Ok(Store::open(data, found != 0, random)?)
}

fn random() -> u64 {
    getrandom::u64().expect("the kernel's random source works on every supported kernel")
}
