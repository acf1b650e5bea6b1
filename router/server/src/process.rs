//! The router's threads: starts workers and the admin endpoint, stops them in order.

use crate::admin::{self, Admin};
use crate::config::{AuthenticationMode, AuthenticationSection, ConfigError, RouterConfig};
use crate::worker::{self, Worker};
use evenkeel_authentication::{KeyFileError, SealingKey};
use evenkeel_client::{ClientConfig, tls};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// Renders all metrics of the process as Prometheus text.
pub type MetricsRenderer = Arc<dyn Fn() -> String + Send + Sync>;

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or key cannot be read.
    #[error("{key} = {}: {source}", path.display())]
    Read {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files are not certificates and a key that belong together.
    #[error("certificates: {0}")]
    Tls(#[from] tls::TlsError),
    /// The secrets of users could not be opened.
    #[error("authentication.{0}")]
    KeyFile(#[from] KeyFileError),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}; choose another port")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("thread: {0}")]
    Thread(io::Error),
    /// The cluster cannot be reached.
    #[error("the cluster cannot be reached: {0}")]
    Cluster(String),
}

/// A running router.
pub struct RouterHandle {
    /// Where the DynamoDB API listens.
    pub http_address: SocketAddr,
    /// Where the admin endpoint listens.
    pub admin_address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts a router; returns when every worker answers requests.
///
/// # Errors
/// See [`StartError`]; what had been started is stopped again.
pub fn start(config: RouterConfig, metrics: MetricsRenderer) -> Result<RouterHandle, StartError> {
    config.check()?;
    let mode = config.authentication.mode;
    let key = sealing_key(&config.authentication)?;
    let client = client_config(&config)?;
    check_free("http.listen", config.http.listen)?;
    let first = listen("http.listen", config.http.listen)?;
    let admin = listen("admin.listen", config.admin.listen)?;
    let address = |key, listener: &std::net::TcpListener, asked| {
        listener.local_addr().map_err(|source| StartError::Listen { key, address: asked, source })
    };
    let http_address = address("http.listen", &first, config.http.listen)?;
    let admin_address = address("admin.listen", &admin, config.admin.listen)?;
    let mut listeners = vec![first];
    for _ in 1..config.http.workers {
        listeners.push(listen("http.listen", http_address)?);
    }
    let (stop, stopped) = watch::channel(false);
    let ready = Arc::new(AtomicBool::new(false));
    let mut handle = RouterHandle { http_address, admin_address, ready, stop, threads: Vec::new() };
    let (report, reports) = mpsc::channel();
    for (index, listener) in listeners.into_iter().enumerate() {
        let worker = Worker {
            index,
            listener,
            client: client.clone(),
            region: config.http.region.clone(),
            mode,
            key: key.clone(),
            stop: stopped.clone(),
        };
        let report = report.clone();
        // Whoever waits for the report is gone only if another worker failed.
        let run = move || worker.run(|result| drop(report.send(result)));
        handle.spawn(format!("router-{index}"), run)?;
    }
    drop(report);
    let admin_state = Arc::new(Admin { metrics, ready: handle.ready.clone() });
    handle.spawn("router-admin".to_owned(), move || run_admin(admin, admin_state, stopped))?;
    for _ in 0..config.http.workers {
        let report = reports.recv().unwrap_or_else(|_| Err("a worker ended before it was ready".to_owned()));
        if let Err(reason) = report {
            handle.shutdown();
            return Err(StartError::Cluster(reason));
        }
    }
    handle.ready.store(true, Ordering::Release);
    tracing::info!(%http_address, %admin_address, "router ready");
    Ok(handle)
}

impl RouterHandle {
    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Stops in order: no new connections, requests under way are answered.
    pub fn shutdown(self) {
        self.ready.store(false, Ordering::Release);
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the router panicked");
            }
        }
    }
}

fn run_admin(listener: std::net::TcpListener, admin: Arc<Admin>, mut stop: watch::Receiver<bool>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!("admin endpoint: {error}"),
    };
    runtime.block_on(async {
        match tokio::net::TcpListener::from_std(listener) {
            Err(error) => tracing::error!("admin endpoint: {error}"),
            Ok(listener) => tokio::select! {
                () = admin::serve(listener, admin) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            },
        }
    });
}

fn listen(key: &'static str, address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    worker::listen(address).map_err(|source| StartError::Listen { key, address, source })
}

/// Workers share their address, and another router on it would go unnoticed; so it is tried alone first.
fn check_free(key: &'static str, address: SocketAddr) -> Result<(), StartError> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(StartError::Listen { key, address, source }),
    }
}

/// The key that opens the secrets of users, unless nobody asks for them.
fn sealing_key(section: &AuthenticationSection) -> Result<Option<Arc<SealingKey>>, StartError> {
    match &section.key_file {
        Some(file) if section.mode != AuthenticationMode::Off => Ok(Some(Arc::new(SealingKey::read(file)?))),
        _ => Ok(None),
    }
}

fn client_config(config: &RouterConfig) -> Result<ClientConfig, StartError> {
    let tls = tls::client_config(
        &read("tls.ca", &config.tls.ca)?,
        &read("tls.certificate", &config.tls.certificate)?,
        &read("tls.key", &config.tls.key)?,
    )?;
    let mut client = ClientConfig::new(config.cluster.seeds.clone(), tls);
    client.cluster = Some(config.cluster_id()?);
    client.zone.clone_from(&config.cluster.zone);
    client.follow_users = config.authentication.mode != AuthenticationMode::Off;
    Ok(client)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::Read { key, path: path.to_owned(), source })
}
