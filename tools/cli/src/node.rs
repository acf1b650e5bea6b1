//! `evenkeel node`: one storage node, as its configuration file says, until it is told to stop.

use crate::signals::{StopSignals, waiting_runtime};
use crate::telemetry;
use clap::Args;
use evenkeel_node::{NodeConfig, NodeError};
use evenkeel_router::admin::{self, Admin};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `evenkeel node`.
#[derive(Args)]
pub struct NodeArguments {
    /// The node's configuration (TOML); `evenkeel dev` writes examples in its data directory.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop in order also when standard input ends, for whoever watches this process.
    #[arg(long)]
    attached: bool,
}

/// Why the node ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeCommandError {
    /// The node did not start, or stopped by itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The admin endpoint's address cannot be had.
    #[error("admin.listen: cannot listen on {address}: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Signals or threads could not be had.
    #[error("the process could not be set up: {0}")]
    Process(#[from] io::Error),
}

/// Runs the node.
///
/// # Errors
/// See [`NodeCommandError`].
pub fn run(arguments: &NodeArguments) -> Result<(), NodeCommandError> {
    let config = NodeConfig::load(&arguments.config).map_err(NodeError::from)?;
    let (metrics, ready) = (telemetry::collect_metrics(), Arc::new(AtomicBool::new(false)));
    let listen = config.admin.as_ref().map(|admin| admin.listen);
    let admin =
        listen.map(|listen| serve_admin(listen, Admin { metrics, ready: ready.clone() })).transpose()?;
    let runtime = waiting_runtime()?;
    runtime.block_on(async {
        let mut signals = StopSignals::catch()?.and_end_of_input(arguments.attached);
        let mut node = evenkeel_node::start(config)?;
        ready.store(true, Ordering::Release);
        println!("ready");
        if let Some(admin) = admin {
            println!("admin: http://{admin}/metrics");
        }
        tokio::select! {
            () = signals.received() => {}
            () = node.ended() => {}
        }
        ready.store(false, Ordering::Release);
        Ok(node.stop()?)
    })
}

/// Shows operators the process on a thread of its own, which ends with the process: it answers while the node
/// starts and stops too. Yields where it listens.
fn serve_admin(address: SocketAddr, admin: Admin) -> Result<SocketAddr, NodeCommandError> {
    let fault = |source| NodeCommandError::Admin { address, source };
    let listener = TcpListener::bind(address).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    let listening = listener.local_addr().map_err(fault)?;
    let runtime = waiting_runtime()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(fault)?
    };
    let serve = admin::serve(listener, Arc::new(admin));
    std::thread::Builder::new().name("node-admin".to_owned()).spawn(move || runtime.block_on(serve))?;
    Ok(listening)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn operators_see_metrics_and_whether_the_node_is_ready() {
        let ready = Arc::new(AtomicBool::new(false));
        let metrics = Arc::new(|| "evenkeel_partitions 3\n".to_owned());
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve_admin(local, Admin { metrics, ready: ready.clone() }).unwrap();
        assert!(get(address, "/livez").starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 503"));
        ready.store(true, Ordering::Release);
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").ends_with("evenkeel_partitions 3\n"));
        let taken = serve_admin(address, Admin { metrics: Arc::new(String::new), ready });
        assert!(taken.unwrap_err().to_string().starts_with("admin.listen: cannot listen on 127.0.0.1"));
    }
}
