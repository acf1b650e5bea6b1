//! `evenkeel dev`: a real cluster on this machine, in one process or in one a node.
//!
//! The first line on standard output is `ready: http://ADDRESS`, printed when requests are answered;
//! what follows is for a person. SIGINT or SIGTERM stop it in order. Durability is that of production.

use crate::signals::{StopSignals, waiting_runtime};
use crate::{client_config, demo, telemetry, user};
use clap::Args;
use evenkeel_authentication::access_key::open_secret;
use evenkeel_authentication::{AccessKey, KeyFileError, SealError, SealingKey};
use evenkeel_bench::local::{LocalCluster, LocalConfig, LocalError, MEMORY_MIB_DEFAULT};
use evenkeel_client::{Client, UserAction};
use evenkeel_router::config::AuthenticationMode;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const DATA_DEFAULT: &str = "evenkeel-data";
const PORT_DEFAULT: u16 = 8000;
/// Whose access key is printed.
const USER: &str = "dev";

/// Arguments of `evenkeel dev`.
#[derive(Args)]
pub struct DevArguments {
    /// Directory of the cluster's data, made if it does not exist [default: ./evenkeel-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Port of the DynamoDB API on 127.0.0.1; 0 for any free one [default: 8000].
    #[arg(long)]
    port: Option<u16>,
    /// Port of the admin endpoint on 127.0.0.1, with /metrics, /livez and /readyz; 0 for any free one.
    #[arg(long, default_value_t = 0)]
    admin_port: u16,
    /// Number of storage nodes, each in a zone of its own; fixed when the directory is made [default: 3].
    #[arg(long)]
    nodes: Option<u16>,
    /// Cores of each node; fixed when the directory is made [default: 1].
    #[arg(long)]
    cores_per_node: Option<u16>,
    /// Run every node and the router as a process of its own, which is started again if it ends by itself; the
    /// process ids are in DIR/node-1.pid ... and DIR/router.pid.
    #[arg(long)]
    processes: bool,
    /// Zone of the router, a, b, c ...: eventually consistent reads go to the replica there. Without it the
    /// leaders of partitions answer them, so that applications under test see what they wrote.
    #[arg(long)]
    zone: Option<String>,
    /// Whether requests must be signed with an access key of the cluster: off, warn or enforce.
    #[arg(long, value_name = "MODE", default_value = "off")]
    authentication: AuthenticationMode,
    /// Memory of all shards together, in MiB: an eighth for buffers and the program, and of the rest one half for what
    /// is not in trees yet, one for pages of them.
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_MIB_DEFAULT)]
    memory_mib: u32,
    /// Show the whole path on a temporary cluster, then exit.
    #[arg(long, conflicts_with_all = ["data", "port"])]
    demo: bool,
}

/// Why `dev` ended.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The cluster did not start, or a node stopped by itself.
    #[error(transparent)]
    Cluster(#[from] LocalError),
    /// The demonstration failed.
    #[error("demonstration: {0}")]
    Demo(#[from] demo::DemoError),
    /// The client configuration just written cannot be used.
    #[error(transparent)]
    Client(#[from] client_config::ClientConfigError),
    /// The first user could not be made or found.
    #[error("user dev: {0}")]
    User(#[from] evenkeel_client::Error),
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The key file is not the one that the cluster's users were made with.
    #[error("the secret of user dev cannot be opened: {0}; put users.key back, or choose another directory")]
    Secret(#[from] SealError),
    /// Signals or threads could not be had.
    #[error("the process could not be set up: {0}")]
    Process(#[from] std::io::Error),
}

impl DevArguments {
    /// The cluster that is asked for, with its data in this directory.
    pub fn cluster(&self, data: PathBuf, port: u16, metrics: telemetry::Renderer) -> LocalConfig {
        LocalConfig {
            data,
            nodes: self.nodes,
            cores_per_node: self.cores_per_node,
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port)),
            zone: self.zone.clone(),
            processes: self.processes,
            authentication: self.authentication,
            memory_mib: self.memory_mib,
            metrics,
        }
    }
}

/// Runs the cluster until it is told to stop.
///
/// # Errors
/// See [`DevError`].
pub fn run(arguments: &DevArguments) -> Result<(), DevError> {
    let metrics = telemetry::collect_metrics();
    if arguments.demo {
        return Ok(demo::run(arguments, &metrics)?);
    }
    let data = arguments.data.clone().unwrap_or_else(|| DATA_DEFAULT.into());
    let runtime = waiting_runtime()?;
    runtime.block_on(async {
        let mut signals = StopSignals::catch()?;
        let began = Instant::now();
        let config = arguments.cluster(data.clone(), arguments.port.unwrap_or(PORT_DEFAULT), metrics);
        let mut cluster = LocalCluster::start(config)?;
        announce(&cluster, &data, began.elapsed());
        if let Err(error) = announce_access(&cluster, arguments.authentication).await {
            cluster.stop()?;
            return Err(error);
        }
        tokio::select! {
            () = signals.received() => eprintln!("stopping"),
            () = cluster.node_ended() => eprintln!("a node has stopped by itself; stopping the others"),
        }
        Ok(cluster.stop()?)
    })
}

fn announce(cluster: &LocalCluster, data: &std::path::Path, took: Duration) {
    let endpoint = format!("http://{}", cluster.endpoint());
    println!("ready: {endpoint}");
    println!("{} storage nodes and a router, ready after {} ms", cluster.node_count(), took.as_millis());
    println!("data:        {}", data.display());
    println!("admin:       http://{}/metrics", cluster.admin());
}

/// Tells how to use the cluster, with an access key of its first user.
async fn announce_access(cluster: &LocalCluster, mode: AuthenticationMode) -> Result<(), DevError> {
    let endpoint = format!("http://{}", cluster.endpoint());
    let key = first_user(cluster).await?;
    match mode {
        AuthenticationMode::Off => println!("signatures:  not verified, any credentials will do"),
        AuthenticationMode::Warn => println!("signatures:  verified and counted, any credentials will do"),
        AuthenticationMode::Enforce => println!("signatures:  verified; `evenkeel user` makes access keys"),
    }
    println!();
    println!("  export AWS_ENDPOINT_URL_DYNAMODB={endpoint}");
    println!(
        "  export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_DEFAULT_REGION=us-east-1",
        key.id, *key.secret
    );
    println!("  aws dynamodb list-tables");
    println!();
    if mode == AuthenticationMode::Enforce {
        return Ok(());
    }
    println!("  curl -s {endpoint} -H 'X-Amz-Target: DynamoDB_20120810.ListTables' \\");
    println!("    -H 'Content-Type: application/x-amz-json-1.0' -d '{{}}'");
    println!();
    Ok(())
}

/// The newest access key of the user that `dev` makes.
async fn first_user(cluster: &LocalCluster) -> Result<AccessKey, DevError> {
    let sealing = SealingKey::read(&cluster.key_file())?;
    let client = Client::connect(client_config::load(&cluster.client_file())?).await?;
    let known = client.users().await?.into_iter().find(|user| user.name == USER);
    let key = match known.as_ref().and_then(|user| user.keys.first()) {
        Some(row) => AccessKey {
            id: row.id.clone(),
            secret: open_secret(&sealing, USER, &row.id, &row.sealed_secret)?,
        },
        None => user::give_key(&client, &sealing, USER, UserAction::Create).await?,
    };
    client.close().await;
    Ok(key)
}
