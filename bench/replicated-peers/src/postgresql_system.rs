//! PostgreSQL: a primary with one synchronous streaming standby. A put is an upsert by primary key, a transaction of
//! its own, with a statement that was prepared once for each connection.
//!
//! `synchronous_commit = on` waits until the standby has flushed the commit. A server refuses to run as root: there,
//! the directory is given to `postgres`, or else to `nobody`, and everything runs as that user.

use crate::process::{self, HOST, Process};
use crate::{Fault, Peer, Put};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_postgres::{Client, NoTls, Statement};

const PACKAGE: &str = "postgresql";
/// Where Debian has the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// More than puts in flight, by what replication and administration take.
const CONNECTIONS_MAX: u32 = 300;
const OWNER: &str = "evenkeel";
const TABLE: &str = "CREATE TABLE items (key bytea PRIMARY KEY, value bytea NOT NULL)";
const PUT: &str = "INSERT INTO items VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value";
const STANDBYS: &str = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'";

pub struct Postgresql {
    port: u16,
    version: String,
    _servers: Vec<Process>,
}

/// One of the puts in flight.
pub struct Connection {
    client: Client,
    put: Statement,
}

impl Peer for Postgresql {
    type Connection = Connection;

    async fn start(directory: &Path) -> Result<Postgresql, Fault> {
        let programs = Programs::find(directory)?;
        let [port, standby_port] = process::free_ports()?;
        let (primary, standby) = (directory.join("primary"), directory.join("standby"));
        let mut initdb = programs.command("initdb");
        initdb.args(["--username", OWNER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]);
        process::run(initdb.arg("--pgdata").arg(&primary))?;
        let mut servers = vec![programs.serve("primary", directory, &primary, port)?];
        let client = process::until_ready(&mut servers, async || connect(port).await).await?;
        let mut copy = programs.command("pg_basebackup");
        copy.args(["--host", HOST, "--port", &port.to_string(), "--username", OWNER]);
        copy.args(["--wal-method", "stream", "--checkpoint", "fast", "--write-recovery-conf"]);
        process::run(copy.arg("--pgdata").arg(&standby))?;
        servers.push(programs.serve("standby", directory, &standby, standby_port)?);
        let attached = process::until_ready(&mut servers, async || {
            let found = client.query_opt(STANDBYS, &[]).await?;
            found.ok_or_else(|| Fault::from("no standby is attached"))
        });
        attached.await?;
        client.batch_execute(TABLE).await?;
        let version = client.query_one("SHOW server_version", &[]).await?.try_get(0)?;
        Ok(Postgresql { port, version, _servers: servers })
    }

    fn about(&self) -> String {
        format!(
            "PostgreSQL {}: a primary and one synchronous standby (two copies), synchronous_commit on, upserts by a \
             prepared statement, a connection for each put in flight",
            self.version
        )
    }

    async fn connect(&self, connections: u32) -> Result<Vec<Connection>, Fault> {
        let mut connected = Vec::new();
        for _ in 0..connections {
            let client = connect(self.port).await?;
            let put = client.prepare(PUT).await?;
            connected.push(Connection { client, put });
        }
        Ok(connected)
    }
}

async fn connect(port: u16) -> Result<Client, Fault> {
    let mut config = tokio_postgres::Config::new();
    let (client, connection) =
        config.host(HOST).port(port).user(OWNER).dbname("postgres").connect(NoTls).await?;
    // What goes wrong with it, the client is told.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

impl Put for Connection {
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.client.execute(&self.put, &[&key, &value]).await?;
        Ok(())
    }
}

/// The programs of one version, and whom they run as.
struct Programs {
    place: PathBuf,
    account: Option<Account>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    user: u32,
    group: u32,
}

impl Programs {
    /// Those in the search path, or else of the newest version; gives the directory to whom they run as.
    fn find(directory: &Path) -> Result<Programs, Fault> {
        let initdb = process::find("initdb", installed(Path::new(VERSIONS)), PACKAGE)?;
        // Only the real place has them all.
        let place = fs::canonicalize(initdb)?.parent().ok_or("initdb is in no directory")?.to_owned();
        let account = Account::unprivileged()?;
        if let Some(Account { user, group }) = account {
            chown(directory, Some(user), Some(group))?;
        }
        Ok(Programs { place, account })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.place.join(program));
        if let Some(Account { user, group }) = self.account {
            command.uid(user).gid(group);
        }
        command.env("LC_ALL", "C");
        command
    }

    fn serve(&self, name: &str, directory: &Path, data: &Path, port: u16) -> Result<Process, Fault> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(data).args(["-p", &port.to_string(), "-N", &CONNECTIONS_MAX.to_string()]);
        let settings = [
            &format!("listen_addresses={HOST}"),
            "unix_socket_directories=",
            "fsync=on",
            "synchronous_commit=on",
            "synchronous_standby_names=*",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        // Ends at once, but with its children, and leaves no shared memory.
        Process::start(name, directory, &mut command, libc::SIGQUIT)
    }
}

/// Where the programs of installed versions are, newest first.
fn installed(versions: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(versions).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.iter().rev().map(|number| versions.join(number.to_string()).join("bin")).collect()
}

impl Account {
    /// Whom to run as instead of root; nothing if this is not root.
    fn unprivileged() -> Result<Option<Account>, Fault> {
        // SAFETY: the call has no arguments and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        let found = ["postgres", "nobody"].iter().find_map(|name| Account::named(name, &accounts));
        found.map(Some).ok_or_else(|| "it refuses to run as root, and there is no user nobody".into())
    }

    /// A line is `name:password:user:group:…`.
    fn named(name: &str, accounts: &str) -> Option<Account> {
        let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.into_iter().find(|fields| fields[0] == name)?;
        Some(Account { user: fields.get(2)?.parse().ok()?, group: fields.get(3)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts =
            "root:x:0:0:root:/:/bin/sh\npostgresql:x:7:8::/:\npostgres:x:101:104::/:/bin/sh\nbad:x:1\n";
        assert_eq!(Account::named("postgres", accounts), Some(Account { user: 101, group: 104 }));
        assert_eq!(Account::named("bad", accounts), None);
        assert_eq!(Account::named("nobody", accounts), None);
    }

    #[test]
    fn the_newest_version_comes_first() {
        let directory =
            std::env::temp_dir().join(format!("evenkeel-peers-test-versions-{}", std::process::id()));
        for version in ["9", "15", "100", "common"] {
            fs::create_dir_all(directory.join(version)).unwrap();
        }
        let places = installed(&directory);
        let expected: Vec<PathBuf> =
            ["100", "15", "9"].map(|version| directory.join(version).join("bin")).into();
        assert_eq!(places, expected);
        assert!(installed(&directory.join("none")).is_empty());
        fs::remove_dir_all(&directory).unwrap();
    }
}
