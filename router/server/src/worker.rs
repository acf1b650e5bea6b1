//! A worker: one thread, one runtime, one listening socket, one client.

use crate::access::Access;
use crate::beside;
use crate::config::AuthenticationMode;
use crate::counts::{Counts, Reporter};
use crate::front::Front;
use crate::identity::RequestIds;
use evenkeel_authentication::SealingKey;
use evenkeel_client::{Client, ClientConfig};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Room for a request's head; a longer one is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a peer may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may take when the router stops.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Runs tasks on the worker's own thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

/// A listening socket that other workers may share the address of.
///
/// # Errors
/// What the system said.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What a worker is given.
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// Its listening socket.
    pub listener: std::net::TcpListener,
    /// How to reach the cluster.
    pub client: ClientConfig,
    /// Region in ARNs, where a request names none.
    pub region: String,
    /// Whether signatures are verified.
    pub mode: AuthenticationMode,
    /// What opens the secrets of users.
    pub key: Option<Arc<SealingKey>>,
    /// Turns true when the router stops.
    pub stop: watch::Receiver<bool>,
}

impl Worker {
    /// Connects to the cluster and answers requests until the router stops. `ready` is called with the
    /// client's error, or with none.
    pub fn run(self, ready: impl FnOnce(Result<(), String>)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = match builder.enable_all().max_blocking_threads(beside::THREADS).build() {
            Ok(runtime) => runtime,
            Err(error) => return ready(Err(format!("worker {}: {error}", self.index))),
        };
        LocalSet::new().block_on(&runtime, self.serve(ready));
    }

    async fn serve(mut self, ready: impl FnOnce(Result<(), String>)) {
        let opened = TcpListener::from_std(self.listener).map_err(|error| error.to_string());
        let connected = Client::connect(self.client).await.map_err(|error| error.to_string());
        let (listener, client) = match (opened, connected) {
            (Ok(listener), Ok(client)) => (listener, client),
            (Err(error), _) | (_, Err(error)) => return ready(Err(error)),
        };
        let front = Rc::new(Front {
            client,
            region: self.region,
            access: Access::new(self.mode, self.key),
            counts: Counts::default(),
            ids: RefCell::new(RequestIds::new()),
        });
        tokio::task::spawn_local(report(self.index, front.clone()));
        ready(Ok(()));
        let (drained, mut all_drained) = tokio::sync::mpsc::channel::<()>(1);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let connection = connection(stream, front.clone(), self.stop.clone(), drained.clone());
                        tokio::task::spawn_local(connection);
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        drop((listener, drained));
        self.stop.mark_unchanged();
        // Ends when every connection has dropped its half of the channel, or its time is up.
        let _ = tokio::time::timeout(DRAIN, all_drained.recv()).await;
        front.client.close().await;
    }
}

async fn report(worker: usize, front: Rc<Front>) {
    let reporter = Reporter::new(worker);
    let mut every = tokio::time::interval(REPORT_EVERY);
    loop {
        every.tick().await;
        reporter.report(&front.counts, &front.access);
    }
}

/// Serves one connection; on stop it finishes the request under way. `_drained` is dropped at its end.
async fn connection(
    stream: TcpStream,
    front: Rc<Front>,
    mut stop: watch::Receiver<bool>,
    _drained: tokio::sync::mpsc::Sender<()>,
) {
    // Without it, small answers wait for the peer's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut builder = auto::Builder::new(Local);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .pipeline_flush(true);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(HEAD_BYTES_MAX as u32);
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { front.handle(request).await }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // What goes wrong on a connection is its peer's to see.
        _ = serving.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => serving.as_mut().graceful_shutdown(),
    }
    drop(serving.await);
}
