//! One shard on its core: opens what is on disk, then serves until it is told to stop.

use crate::config::NodeConfig;
use crate::control::{Control, ControlError};
use crate::identity::Identity;
use crate::peers::Peers;
use crate::report::Reporter;
use crate::service::{self, CoreShard, Service, ServiceHandle};
use crate::tables::Catalogue;
use evenkeel_driver::{Core, DiskConfig, GlommioRuntime, UringDisk};
use evenkeel_model::catalogue::PartitionRow;
use evenkeel_model::{NodeId, ShardId};
use evenkeel_partition::{CoreConfig, CreateError, OUTCOMES_KEPT_NS, Place, Shard, Stopped};
use evenkeel_quic::{Endpoint, EndpointConfig, EndpointLimits};
use evenkeel_storage::{Engine, EngineConfig, Limits, PageSettings, Recovery, Runtime, WalConfig, WalFailed};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;

/// The page file grows by this much.
const PAGE_FILE_STEP_BYTES: u64 = 16 << 20;

/// How often the counters are copied to the metrics, and the log's health is looked at.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for requests under way when the shard stops; longer than a call to another shard takes.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether they have ended.
const DRAIN_PAUSE: Duration = Duration::from_millis(1);

/// Why a shard did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The data directory could not be opened.
    #[error(transparent)]
    Disk(#[from] evenkeel_driver::OpenError),
    /// The log could not be opened.
    #[error("the log in {} does not open: {source}", directory.display())]
    Engine {
        /// The shard's directory.
        directory: PathBuf,
        /// What is wrong.
        source: evenkeel_storage::OpenError,
    },
    /// A partition in the log cannot be understood.
    #[error(transparent)]
    Partitions(#[from] evenkeel_partition::OpenError),
    /// The UDP port could not be had.
    #[error(transparent)]
    Bind(#[from] evenkeel_quic::BindError),
    /// The catalogue could not be created.
    #[error("the catalogue could not be created: {0}")]
    Catalogue(#[from] CreateError),
    /// The catalogue could not be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The shard has stopped while the node was running.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The log failed while the shard was being closed.
    #[error(transparent)]
    Log(#[from] WalFailed),
}

/// What a shard's thread is given.
pub struct ShardPlan {
    /// The node's configuration.
    pub config: Arc<NodeConfig>,
    /// The node's certificates.
    pub identity: Identity,
    /// Which shard.
    pub shard: ShardId,
    /// Drawn when the node started.
    pub incarnation: u64,
    /// Turns true when the shard shall stop.
    pub stop: watch::Receiver<bool>,
}

/// The directory of a shard.
pub fn directory(data: &Path, shard: ShardId) -> PathBuf {
    data.join(format!("shard-{:04}", shard.0))
}

/// Runs a shard on this core until it is told to stop; `ready` is called when it listens.
///
/// # Errors
/// See [`ShardError`].
pub async fn run(core: Core, plan: ShardPlan, ready: impl FnOnce()) -> Result<(), ShardError> {
    let (engine, recovery) = open_engine(&core, &plan).await?;
    let runtime = core.runtime();
    let place = Place { node: NodeId(plan.config.node.id), shard: plan.shard };
    let shard = Rc::new(Shard::open(engine.clone(), runtime, CoreConfig::alone(place), &recovery)?);
    drop(recovery);
    let endpoint = bind(&core, &plan)?;
    let peers = Rc::new(Peers::new(
        core.clone(),
        endpoint.clone(),
        plan.config.cluster_id().expect("checked when the configuration was read"),
        plan.incarnation,
        plan.config.addresses(),
    ));
    let control = open_control(&core, &plan, &shard, &peers).await?;
    let service = Rc::new(Service::new(identity(&plan), shard, peers, control.clone(), runtime));
    let mut serving = pin!(endpoint.run(ServiceHandle(service.clone())));
    let mut working = pin!(work(&core, &plan, &service, control, ready));
    // Serving ends when the endpoint is shut down, which happens below, after the work has ended.
    let ended = poll_fn(|context| {
        if serving.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        working.as_mut().poll(context)
    })
    .await;
    let mut stopping = pin!(async {
        drain(&core, &service).await;
        endpoint.shutdown().await;
    });
    poll_fn(|context| {
        let _ = serving.as_mut().poll(context);
        stopping.as_mut().poll(context)
    })
    .await;
    ended?;
    Ok(engine.close().await?)
}

/// Turns new requests away and waits for those under way: a task that outlived the core would keep its
/// files open and locked.
async fn drain(core: &Core, service: &Service) {
    service.shard.close();
    if let Some(control) = &service.control {
        control.close();
    }
    let idle = || service.counts.under_way() == 0 && service.control.as_ref().is_none_or(|c| c.is_idle());
    let mut waited = Duration::ZERO;
    while !idle() && waited < DRAIN_PATIENCE {
        core.sleep(DRAIN_PAUSE).await;
        waited += DRAIN_PAUSE;
    }
}

/// Reports until the shard shall stop, or its log has failed.
async fn work(
    core: &Core,
    plan: &ShardPlan,
    service: &Rc<Service>,
    control: Option<Rc<Control>>,
    ready: impl FnOnce(),
) -> Result<(), ShardError> {
    if let Some(control) = &control {
        control.resume().await?;
    }
    ready();
    let mut reporter = Reporter::new(plan.config.node.id, plan.shard);
    let mut stop = plan.stop.clone();
    loop {
        reporter.report(&service.shard, &service.counts);
        if let Some(failure) = service.shard.failure() {
            return Err(failure.into());
        }
        let mut pause = pin!(core.sleep(REPORT_EVERY));
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let over = poll_fn(|context| {
            // An error means that the node's handle is gone, and with it whoever could stop the shard.
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            pause.as_mut().poll(context).map(|()| false)
        });
        if over.await {
            return Ok(());
        }
    }
}

async fn open_engine(
    core: &Core,
    plan: &ShardPlan,
) -> Result<(Engine<UringDisk, GlommioRuntime>, Recovery), ShardError> {
    let directory = directory(&plan.config.node.data, plan.shard);
    let disk = core.open_disk(&directory, DiskConfig::default()).await?;
    let storage = &plan.config.storage;
    let config = EngineConfig {
        cluster: plan.config.cluster_id().expect("checked when the configuration was read"),
        node: NodeId(plan.config.node.id),
        shard: plan.shard,
        wal: WalConfig::new(storage.wal_segment_bytes, storage.wal_bytes_max),
        table_bytes_max: storage.table_bytes_max,
        pages: PageSettings {
            step_bytes: PAGE_FILE_STEP_BYTES,
            bytes_max: storage.page_bytes_max,
            cache_bytes: storage.page_cache_bytes,
            limits: Limits::default(),
        },
        notes_ns: OUTCOMES_KEPT_NS,
    };
    let runtime = core.runtime();
    let began_ns = runtime.now_ns();
    let opened = Engine::open(disk, runtime, config).await;
    let (engine, recovery) = opened.map_err(|source| ShardError::Engine { directory, source })?;
    tracing::info!(
        node = plan.config.node.id,
        shard = plan.shard.0,
        partitions = recovery.partitions.len(),
        entries = recovery.entries,
        log_bytes = recovery.bytes,
        milliseconds = (runtime.now_ns() - began_ns) / 1_000_000,
        "log read"
    );
    if let Some(cut) = &recovery.cut {
        tracing::info!(node = plan.config.node.id, shard = plan.shard.0, ?cut, "unacknowledged tail cut");
    }
    Ok((engine, recovery))
}

fn bind(core: &Core, plan: &ShardPlan) -> Result<Endpoint, ShardError> {
    let own = plan.config.own();
    let config = EndpointConfig {
        addr: SocketAddr::new(own.host, own.port + plan.shard.0),
        server_tls: Some(plan.identity.server.clone()),
        client_tls: plan.identity.client.clone(),
        reset_key: Some(plan.identity.reset_key),
        spin: Duration::ZERO,
        limits: EndpointLimits::default(),
    };
    Ok(Endpoint::bind(core, config)?)
}

async fn open_control(
    core: &Core,
    plan: &ShardPlan,
    shard: &Rc<CoreShard>,
    peers: &Rc<Peers>,
) -> Result<Option<Rc<Control>>, ShardError> {
    if !plan.config.holds_catalogue(plan.shard) {
        return Ok(None);
    }
    let own = (NodeId(plan.config.node.id), plan.shard);
    let catalogue = Catalogue::open(shard, &PartitionRow::catalogue(own.0, own.1)).await?;
    let control = Control::new(core.clone(), &plan.config, own, shard.clone(), catalogue, peers.clone());
    Ok(Some(Rc::new(control)))
}

fn identity(plan: &ShardPlan) -> service::Identity {
    service::Identity {
        cluster: plan.config.cluster_id().expect("checked when the configuration was read"),
        node: NodeId(plan.config.node.id),
        shard: plan.shard,
        incarnation: plan.incarnation,
        nodes: plan.config.addresses(),
        catalogue_node: NodeId(plan.config.cluster.catalogue_node),
    }
}
