//! Redis: a primary with one replica. Each put is a SET followed by a WAIT for the replica, sent together.
//!
//! WAIT is about what its connection has written, and holds that connection up, so each of the puts in flight has one
//! of its own. Both append to their file and flush it before they answer (`appendfsync always`).

use crate::process::{self, HOST, Process};
use crate::{Fault, Peer, Put};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long a put may wait for the replica.
const WAIT: Duration = Duration::from_secs(5);
const REPLICAS: i64 = 1;

pub struct Redis {
    port: u16,
    version: String,
    _processes: Vec<Process>,
}

/// One of the puts in flight.
pub struct Connection(MultiplexedConnection);

impl Peer for Redis {
    type Connection = Connection;

    async fn start(directory: &Path) -> Result<Redis, Fault> {
        let program = process::find("redis-server", Vec::new(), "redis-server")?;
        let [primary, replica] = process::free_ports()?;
        let mut processes = Vec::new();
        for (name, port) in [("primary", primary), ("replica", replica)] {
            let data = directory.join(name);
            std::fs::create_dir_all(&data)?;
            let mut command = Command::new(&program);
            command.args(["--bind", HOST, "--port", &port.to_string()]).arg("--dir").arg(data);
            command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
            command.args(["--repl-diskless-sync-delay", "0"]);
            if port == replica {
                command.args(["--replicaof", &format!("{HOST} {primary}")]);
            }
            processes.push(Process::start(name, directory, &mut command, libc::SIGKILL)?);
        }
        let version = process::until_ready(&mut processes, async || {
            let mut connection = connect(primary).await?;
            connection.put(b"ready", b"").await?;
            let info: redis::InfoDict =
                redis::cmd("INFO").arg("server").query_async(&mut connection.0).await?;
            info.get::<String>("redis_version").ok_or_else(|| "it has no version".into())
        });
        let version = version.await?;
        Ok(Redis { port: primary, version, _processes: processes })
    }

    fn about(&self) -> String {
        format!(
            "Redis {}: a primary and one replica (two copies), appendfsync always, SET and WAIT {REPLICAS} in one \
             round trip, a connection for each put in flight",
            self.version
        )
    }

    async fn connect(&self, connections: u32) -> Result<Vec<Connection>, Fault> {
        let mut connected = Vec::new();
        for _ in 0..connections {
            connected.push(connect(self.port).await?);
        }
        Ok(connected)
    }
}

async fn connect(port: u16) -> Result<Connection, Fault> {
    let info = ConnectionAddr::Tcp(HOST.to_owned(), port).into_connection_info()?;
    let client = Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?;
    // The answer to WAIT comes when that is over.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(2 * WAIT));
    Ok(Connection(client.get_multiplexed_async_connection_with_config(&config).await?))
}

impl Put for Connection {
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let mut both = redis::pipe();
        both.cmd("SET").arg(key).arg(value).ignore();
        both.cmd("WAIT").arg(REPLICAS).arg(WAIT.as_millis() as u64);
        let (replicas,): (i64,) = both.query_async(&mut self.0).await?;
        if replicas < REPLICAS {
            return Err(format!("no replica has it after {WAIT:?}").into());
        }
        Ok(())
    }
}
