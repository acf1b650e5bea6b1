//! The network of a run: each machine is a network namespace, and all of them hang on one bridge.
//!
//! A cut is one-way, and silent: in the sender's namespace the receiver's address is tied to a hardware address that
//! nobody has, so packets leave and arrive nowhere. No firewall is needed, and the sender learns nothing.
//!
//! It runs inside namespaces that `tests/cluster/chaos/run.sh` has made and that end with it, so nothing is
//! taken down here.

use super::ChaosError;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// A hardware address that nobody has; its second bit says that it was made up locally.
const NOWHERE: &str = "02:00:00:00:00:01";
const BRIDGE: &str = "hub";
const PORT: &str = "eth0";

/// Who may be cut off from whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// A machine with a node, counted from 0.
    Machine(usize),
    /// The machine with the router.
    Router,
    /// The clients, which are in this process.
    Clients,
}

impl End {
    /// Its address, of the range for tests of networks (RFC 2544).
    pub fn address(self) -> Ipv4Addr {
        match self {
            End::Machine(at) => Ipv4Addr::new(198, 18, 0, u8::try_from(at + 1).expect("there are few")),
            End::Router => Ipv4Addr::new(198, 18, 0, 100),
            End::Clients => Ipv4Addr::new(198, 18, 0, 200),
        }
    }

    /// The namespace; none for the one of this process.
    fn namespace(self) -> Option<String> {
        match self {
            End::Machine(at) => Some(format!("machine-{}", at + 1)),
            End::Router => Some("router".to_owned()),
            End::Clients => None,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Machine(at) => write!(f, "machine {}", at + 1),
            End::Router => f.write_str("the router"),
            End::Clients => f.write_str("the clients"),
        }
    }
}

/// Makes the namespaces of this many machines and of the router, if this process is alone in its own.
///
/// # Errors
/// If it is not, or they cannot be made.
pub fn make(machines: usize) -> Result<(), ChaosError> {
    let up = ip(None, &["-o", "link", "show", "up"])?;
    if !up.is_empty() {
        let reason = "this is a network that others use; start it by `cargo xtask long chaos`".to_owned();
        return Err(ChaosError::NotRun(reason));
    }
    ip(None, &["link", "set", "lo", "up"])?;
    ip(None, &["link", "add", BRIDGE, "type", "bridge"])?;
    ip(None, &["addr", "add", &format!("{}/24", End::Clients.address()), "dev", BRIDGE])?;
    ip(None, &["link", "set", BRIDGE, "up"])?;
    let ends = (0..machines).map(End::Machine).chain([End::Router]);
    for (at, end) in ends.enumerate() {
        let namespace = end.namespace().expect("only that of the clients is not made");
        let (port, inside) = (format!("port-{at}"), Some(namespace.as_str()));
        ip(None, &["netns", "add", &namespace])?;
        ip(None, &["link", "add", &port, "type", "veth", "peer", "name", PORT, "netns", &namespace])?;
        ip(None, &["link", "set", &port, "master", BRIDGE, "up"])?;
        ip(inside, &["link", "set", "lo", "up"])?;
        ip(inside, &["addr", "add", &format!("{}/24", end.address()), "dev", PORT])?;
        ip(inside, &["link", "set", PORT, "up"])?;
    }
    Ok(())
}

/// A command that runs a program on a machine; its process is the program itself.
pub fn on(end: End, program: &Path) -> Command {
    match end.namespace() {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &namespace]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// From now on nothing of what `from` sends reaches `to`.
///
/// # Errors
/// If the system refuses.
pub fn cut(from: End, to: End) -> Result<(), ChaosError> {
    let address = to.address().to_string();
    let words = ["neigh", "replace", &address, "lladdr", NOWHERE, "nud", "permanent", "dev", device(from)];
    ip(from.namespace().as_deref(), &words).map(|_| ())
}

/// Takes back a cut.
///
/// # Errors
/// If the system refuses.
pub fn heal(from: End, to: End) -> Result<(), ChaosError> {
    let address = to.address().to_string();
    ip(from.namespace().as_deref(), &["neigh", "del", &address, "dev", device(from)]).map(|_| ())
}

fn device(end: End) -> &'static str {
    if end == End::Clients { BRIDGE } else { PORT }
}

fn ip(namespace: Option<&str>, words: &[&str]) -> Result<String, ChaosError> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let fault = |reason: String| ChaosError::System { what: format!("ip {}", words.join(" ")), reason };
    let output = command.args(words).output().map_err(|error| fault(error.to_string()))?;
    if !output.status.success() {
        return Err(fault(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
