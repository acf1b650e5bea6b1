//! etcd: three members. Puts go to the member that leads, all over one HTTP/2 connection.
//!
//! A member's log is flushed before its answer counts; that is etcd's default and is not changed. Its clients
//! speak without TLS, and so do its members.

use crate::process::{self, HOST, Process};
use crate::{Fault, Peer, Put};
use etcd_client::{Client, KvClient};
use std::path::Path;
use std::process::Command;

const MEMBERS: usize = 3;
/// Every version of every item stays until somebody compacts; the usual 2 GiB would end a long run.
const QUOTA_BYTES: u64 = 8 << 30;

pub struct Etcd {
    endpoints: Vec<String>,
    version: String,
    _members: Vec<Process>,
}

impl Peer for Etcd {
    type Connection = KvClient;

    async fn start(directory: &Path) -> Result<Etcd, Fault> {
        let program = process::find("etcd", Vec::new(), "etcd-server")?;
        let ports: [u16; 2 * MEMBERS] = process::free_ports()?;
        let urls: Vec<String> = ports.iter().map(|port| format!("http://{HOST}:{port}")).collect();
        let (clients, peers) = urls.split_at(MEMBERS);
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(at, peer)| format!("{}={peer}", name(at))).collect();
        let mut members = Vec::new();
        for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let mut command = Command::new(&program);
            command.arg("--name").arg(name(at)).arg("--data-dir").arg(directory.join(name(at)));
            command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
            command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
            command.args(["--initial-cluster", &cluster.join(","), "--logger", "zap", "--log-level", "warn"]);
            command.args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()]);
            members.push(Process::start(&name(at), directory, &mut command, libc::SIGKILL)?);
        }
        let version = process::until_ready(&mut members, async || {
            let mut leader = leader(clients).await?;
            Ok(leader.status().await?.version().to_owned())
        });
        let version = version.await?;
        Ok(Etcd { endpoints: clients.to_vec(), version, _members: members })
    }

    fn about(&self) -> String {
        format!(
            "etcd {}: three members, each flushes its log; one HTTP/2 connection to the leader",
            self.version
        )
    }

    async fn connect(&self, connections: u32) -> Result<Vec<KvClient>, Fault> {
        let leader = leader(&self.endpoints).await?;
        Ok((0..connections).map(|_| leader.kv_client()).collect())
    }
}

impl Put for KvClient {
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        KvClient::put(self, key, value, None).await?;
        Ok(())
    }
}

fn name(member: usize) -> String {
    format!("member-{member}")
}

/// A client of the member that leads; all members must know it.
async fn leader(endpoints: &[String]) -> Result<Client, Fault> {
    let mut leader = None;
    for endpoint in endpoints {
        let mut client = Client::connect([endpoint], None).await?;
        let status = client.status().await?;
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            leader = Some(client);
        }
    }
    leader.ok_or_else(|| "no member leads".into())
}
