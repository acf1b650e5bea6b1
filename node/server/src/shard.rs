//! One shard on its core: opens what is on disk, then serves until it is told to stop.

use crate::config::NodeConfig;
use crate::control::{member, seats};
use crate::identity::Identity;
use crate::limits::HAND_OVER_PATIENCE;
use crate::links::Links;
use crate::nodes::Nodes;
use crate::peers::Peers;
use crate::registration::register;
use crate::report::Reporter;
use crate::service::{self, CATALOGUE_GENERATION, CoreShard, Service, ServiceHandle};
use crate::store::Store;
use evenkeel_driver::{Core, DiskConfig, GlommioRuntime, UringDisk};
use evenkeel_model::catalogue::{PartitionRow, Replica};
use evenkeel_model::{NodeId, ShardId, encode_item};
use evenkeel_partition::{CoreConfig, CreateError, OUTCOMES_KEPT_NS, Place, Shard, Stopped};
use evenkeel_quic::{Endpoint, EndpointConfig, EndpointLimits};
use evenkeel_storage::{
    Engine, EngineConfig, Limits, PageSettings, Recovery, Runtime, ScrubFault, WalConfig, WalFailed,
};
use evenkeel_wire::message::ShardPlace;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::{Rc, Weak};
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
    /// The cluster does not take the node in.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
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
    /// What the node's disk is known by.
    pub store: Store,
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
    let endpoint = bind(&core, &plan)?;
    let founders = plan.config.catalogue();
    let holders = founders.iter().map(|founder| Place { node: founder.node, shard: founder.shard });
    let nodes = Rc::new(Nodes::new(plan.config.addresses(), holders.collect()));
    let cluster = plan.config.cluster_id().expect("checked when the configuration was read");
    let peers = Peers::new(core.clone(), endpoint.clone(), cluster, plan.incarnation, nodes.clone());
    let peers = Rc::new(peers);
    let links = Links::new(core.clone(), place, peers.clone(), nodes.clone());
    let config = CoreConfig::new(place, links.clone());
    let shard = Rc::new(Shard::open(engine.clone(), runtime, config, &recovery)?);
    drop(recovery);
    found_catalogue(&plan, &shard).await?;
    let scrub = begin_scrub(&core, &plan, &engine);
    let identity = identity(&plan, nodes);
    let service = Rc::new(Service::new(identity, shard, peers, links, core.clone()));
    service.start_control();
    let mut serving = pin!(endpoint.run(ServiceHandle(service.clone())));
    let mut working = pin!(work(&core, &plan, &service, ready));
    // Serving ends when the endpoint is shut down, which happens below, after the work has ended.
    let ended = poll_fn(|context| {
        if serving.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        working.as_mut().poll(context)
    })
    .await;
    let mut stopping = pin!(async {
        hand_over(&core, &service).await;
        drain(&core, &service).await;
        endpoint.shutdown().await;
    });
    poll_fn(|context| {
        let _ = serving.as_mut().poll(context);
        stopping.as_mut().poll(context)
    })
    .await;
    ended?;
    let closed = engine.close().await;
    // A task that outlived the core would keep its files open and locked.
    while scrub.strong_count() > 0 {
        core.sleep(DRAIN_PAUSE).await;
    }
    Ok(closed?)
}

/// Has others lead what this shard leads, so that clients wait for nothing; requests that come meanwhile are told
/// whom to ask.
async fn hand_over(core: &Core, service: &Service) {
    if service.shard.failure().is_some() {
        return;
    }
    let mut waited = Duration::ZERO;
    while service.shard.hand_over() > 0 && waited < HAND_OVER_PATIENCE {
        core.sleep(DRAIN_PAUSE).await;
        waited += DRAIN_PAUSE;
    }
    // What was asked of this shard as leader is answered by now, or told to ask again.
    core.sleep(DRAIN_PAUSE).await;
}

/// Turns new requests away and waits for those under way: a task that outlived the core would keep its
/// files open and locked.
async fn drain(core: &Core, service: &Service) {
    service.shard.close();
    service.links.close();
    let control = service.control.borrow().clone();
    if let Some(control) = &control {
        control.close();
    }
    let idle = || service.counts.under_way() == 0 && control.as_ref().is_none_or(|c| c.is_idle());
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
    ready: impl FnOnce(),
) -> Result<(), ShardError> {
    let mut registering = pin!(register(plan, service));
    let mut registered = false;
    // Nothing is asked of a new node before the cluster has taken it in.
    let waits = plan.store.is_fresh;
    let mut ready = Some(ready);
    let mut reporter = Reporter::new(plan.config.node.id, plan.shard);
    let mut stop = plan.stop.clone();
    loop {
        if registered || !waits {
            ready.take().into_iter().for_each(|ready| ready());
        }
        reporter.report(&service.shard, &service.counts, &service.links);
        if let Some(failure) = service.shard.failure() {
            return Err(failure.into());
        }
        let mut pause = pin!(core.sleep(REPORT_EVERY));
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let over = poll_fn(|context| {
            if !registered && let Poll::Ready(result) = registering.as_mut().poll(context) {
                registered = true;
                return Poll::Ready(result.map(|()| false));
            }
            // An error means that the node's handle is gone, and with it whoever could stop the shard.
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(true));
            }
            pause.as_mut().poll(context).map(|()| Ok(false))
        });
        if over.await? {
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

/// Begins to look for damage in the background, if the configuration has it; ended when nobody holds on to what is
/// returned.
fn begin_scrub(core: &Core, plan: &ShardPlan, engine: &Engine<UringDisk, GlommioRuntime>) -> Weak<()> {
    let (bytes_per_second, engine) = (plan.config.storage.scrub_bytes_per_second, engine.clone());
    let (node, shard, under_way) = (plan.config.node.id, plan.shard.0, Rc::new(()));
    let ended = Rc::downgrade(&under_way);
    if bytes_per_second > 0 {
        core.background().spawn(async move {
            let report = |fault: &ScrubFault| tracing::error!(node, shard, "damage on the disk: {fault}");
            engine.scrub(bytes_per_second, report).await;
            drop((engine, under_way));
        });
    }
    ended
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

/// Founds partition 0 if the cluster is being formed and this shard is to hold it.
async fn found_catalogue(plan: &ShardPlan, shard: &CoreShard) -> Result<(), ShardError> {
    let own = Place { node: NodeId(plan.config.node.id), shard: plan.shard };
    let founders = plan.config.catalogue();
    let row = PartitionRow::catalogue(founders.clone());
    let here = shard.serving(row.id, CATALOGUE_GENERATION).is_some();
    let founder = founders.iter().find(|replica| (replica.node, replica.shard) == (own.node, own.shard));
    let Some(founder) = founder.filter(|_| plan.config.cluster.form && !here) else { return Ok(()) };
    let stored = encode_item(&row.to_attributes());
    Ok(shard.create_member(row.id, &stored, &seats(&founders), member(founder.member)).await?)
}

fn identity(plan: &ShardPlan, nodes: Rc<Nodes>) -> service::Identity {
    let founders = plan.config.catalogue();
    let of = |replica: &Replica| ShardPlace { node: replica.node, shard: replica.shard };
    service::Identity {
        cluster: plan.config.cluster_id().expect("checked when the configuration was read"),
        place: Place { node: NodeId(plan.config.node.id), shard: plan.shard },
        store: plan.store.id,
        incarnation: plan.incarnation,
        nodes,
        catalogue: founders.iter().map(of).collect(),
    }
}
