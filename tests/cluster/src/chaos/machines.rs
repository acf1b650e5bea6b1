//! The machines of a run and what runs on them: a node each, and on one the router. They are configured by files
//! and told things by signals, as an operator would.
//!
//! A machine whose disk was emptied carries on under a fresh node id; so machines are counted, and nodes numbered.

use super::ChaosError;
use super::disk::SlowDisk;
use super::network::{self, End};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Machines with nodes.
pub const MACHINES: usize = 5;
/// Nodes that have a certificate: the first ones, and one for each disk that is emptied.
const NODES_MAX: u32 = 64;
/// The zones they are in, in turn.
const ZONES: [&str; 3] = ["a", "b", "c"];
/// Copies of the catalogue, on the first machines.
const CATALOGUE_COPIES: usize = 3;
const NODE_PORT: u16 = 7101;
const HTTP_PORT: u16 = 8000;
const ADMIN_PORT: u16 = 8001;
/// The zone of the router, whose eventually consistent reads go there.
const ROUTER_ZONE: &str = "b";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// An orderly stop takes no longer, whatever the others do.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
const SIGTERM: i32 = 15;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A process that we started.
struct Process {
    child: Child,
    /// Told when it has said that it is ready.
    ready: mpsc::Receiver<()>,
}

struct Machine {
    /// The node on it.
    node: u32,
    /// The node whose place that took, if one did.
    replaces: Option<u32>,
    process: Option<Process>,
    is_stopped: bool,
}

/// All machines.
pub struct Machines {
    evenkeel: PathBuf,
    data: PathBuf,
    cluster: String,
    machines: Vec<Machine>,
    router: Option<Process>,
    node_last: u32,
    is_formed: bool,
    slow_disk: SlowDisk,
    /// Processes that ended though nobody had told them to.
    pub ended: Vec<String>,
}

impl Machines {
    /// Machines with a new cluster; returns when the router answers.
    ///
    /// # Errors
    /// If they cannot be set up, or something does not become ready.
    pub fn start(evenkeel: &Path, data: &Path, cluster: u128) -> Result<Machines, ChaosError> {
        let machine = |node| Machine { node, replaces: None, process: None, is_stopped: false };
        let mut machines = Machines {
            evenkeel: evenkeel.to_owned(),
            data: data.to_owned(),
            cluster: format!("{cluster:032x}"),
            machines: (1..=MACHINES as u32).map(machine).collect(),
            router: None,
            node_last: MACHINES as u32,
            is_formed: false,
            slow_disk: SlowDisk::find(data),
            ended: Vec::new(),
        };
        let certificates = evenkeel_bench::certificates::make(&data.join("certs"), NODES_MAX);
        certificates.map_err(|error| ChaosError::NotRun(error.to_string()))?;
        for at in 0..MACHINES {
            machines.start_node(at)?;
        }
        for at in 0..MACHINES {
            let process = machines.machines[at].process.as_ref().expect("started above");
            await_ready(process, &End::Machine(at).to_string())?;
        }
        machines.is_formed = true;
        (0..MACHINES).try_for_each(|at| machines.write_node_file(at).map(|_| ()))?;
        machines.write_client_files()?;
        machines.start_router()?;
        await_ready(machines.router.as_ref().expect("started above"), "the router")?;
        Ok(machines)
    }

    /// What native clients are told.
    pub fn client_file(&self) -> PathBuf {
        self.data.join("client.toml")
    }

    /// `host:port` of the HTTP API.
    pub fn http_address() -> String {
        format!("{}:{HTTP_PORT}", End::Router.address())
    }

    /// How a slow disk is made slow.
    pub fn slow_disk(&self) -> &SlowDisk {
        &self.slow_disk
    }

    /// The node on a machine.
    pub fn node(&self, at: usize) -> u32 {
        self.machines[at].node
    }

    /// Starts the node of a machine, if it does not run.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_node(&mut self, at: usize) -> Result<(), ChaosError> {
        if self.machines[at].process.is_some() {
            return Ok(());
        }
        let file = self.write_node_file(at)?;
        let name = format!("node-{}", self.machines[at].node);
        let process = self.spawn(End::Machine(at), "node", &file, &name)?;
        self.machines[at].process = Some(process);
        self.machines[at].is_stopped = false;
        Ok(())
    }

    /// Starts the router, if it does not run.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_router(&mut self) -> Result<(), ChaosError> {
        if self.router.is_none() {
            self.router =
                Some(self.spawn(End::Router, "router", &self.data.join("router.toml"), "router")?);
        }
        Ok(())
    }

    /// Ends the node of a machine without warning.
    pub fn kill_node(&mut self, at: usize) {
        kill(self.machines[at].process.take());
    }

    /// Ends the router without warning.
    pub fn kill_router(&mut self) {
        kill(self.router.take());
    }

    /// Tells the node of a machine to stop; it goes on for as long as that takes.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn tell_to_stop(&mut self, at: usize) -> Result<(), ChaosError> {
        match &self.machines[at].process {
            Some(process) => signal("TERM", process.child.id()),
            None => Ok(()),
        }
    }

    /// Waits until a node that was told to stop has ended.
    ///
    /// # Errors
    /// [`ChaosError::Stuck`] if it does not, or ends with a fault.
    pub fn await_stopped(&mut self, at: usize) -> Result<(), ChaosError> {
        let node = self.machines[at].node;
        let Some(mut process) = self.machines[at].process.take() else { return Ok(()) };
        let what = format!("node {node}, which was told to stop");
        match wait(&mut process.child, STOPPED_WITHIN) {
            Some(status) if status.success() => Ok(()),
            // It had just been started, and did not catch signals yet.
            Some(status) if status.signal() == Some(SIGTERM) && process.ready.try_recv().is_err() => Ok(()),
            Some(status) => Err(ChaosError::Stuck { what, reason: format!("ended with {status}") }),
            None => {
                kill(Some(process));
                Err(ChaosError::Stuck { what, reason: format!("still ran after {STOPPED_WITHIN:?}") })
            }
        }
    }

    /// Stops the process of a machine where it stands, or has it go on (SIGSTOP, SIGCONT).
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn hold(&mut self, at: usize, stopped: bool) -> Result<(), ChaosError> {
        let machine = &mut self.machines[at];
        match &machine.process {
            Some(process) if machine.is_stopped != stopped => {
                machine.is_stopped = stopped;
                signal(if stopped { "STOP" } else { "CONT" }, process.child.id())
            }
            _ => Ok(()),
        }
    }

    /// Makes the disk of a machine slow, or fast again; whether a control group does it.
    pub fn slow(&mut self, at: usize, slow: bool) -> bool {
        let process = self.machines[at].process.as_ref().map(|process| process.child.id());
        process.is_none_or(|process| self.slow_disk.hold(process, slow))
    }

    /// Kills the node of a machine, empties its disk, and starts another node there that takes its place; yields
    /// the lost one.
    ///
    /// # Errors
    /// If files or processes refuse.
    pub fn replace(&mut self, at: usize) -> Result<u32, ChaosError> {
        self.kill_node(at);
        let lost = self.machines[at].node;
        let directory = self.data.join(format!("node-{lost}"));
        fs::remove_dir_all(&directory).map_err(system(&directory))?;
        self.node_last += 1;
        self.machines[at].node = self.node_last;
        self.machines[at].replaces = Some(lost);
        self.start_node(at)?;
        Ok(lost)
    }

    /// Whether there is a certificate for one more node.
    pub fn can_replace(&self) -> bool {
        self.node_last < NODES_MAX
    }

    /// Takes note of processes that have ended though nobody told them to, and starts them again, as a
    /// service manager would.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn look(&mut self, told_to_stop: impl Fn(usize) -> bool) -> Result<(), ChaosError> {
        for at in (0..MACHINES).filter(|&at| !told_to_stop(at)) {
            if let Some(status) = ended(&mut self.machines[at].process) {
                let node = self.machines[at].node;
                self.ended
                    .push(format!("node {node}: {status}; {}", self.last_words(&format!("node-{node}"))));
                self.start_node(at)?;
            }
        }
        if let Some(status) = ended(&mut self.router) {
            self.ended.push(format!("the router: {status}; {}", self.last_words("router")));
            self.start_router()?;
        }
        Ok(())
    }

    /// Stops everything in order, nodes all at the same time.
    ///
    /// # Errors
    /// The first node that does not stop.
    pub fn stop(&mut self) -> Result<(), ChaosError> {
        self.kill_router();
        (0..MACHINES).try_for_each(|at| self.tell_to_stop(at))?;
        (0..MACHINES).try_for_each(|at| self.await_stopped(at))
    }

    /// Which copies of partitions there are, as `evenkeel partition list` says; nothing if it cannot.
    pub fn ask_for_partitions(&self) -> Command {
        let mut command = network::on(End::Clients, &self.evenkeel);
        command.args(["partition", "list", "--output", "json", "--cluster"]).arg(self.client_file());
        command
    }

    fn last_words(&self, name: &str) -> String {
        let said = fs::read_to_string(self.log(name)).unwrap_or_default();
        said.lines().last().unwrap_or_default().to_owned()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.data.join(format!("{name}.log"))
    }

    fn spawn(&self, end: End, command: &str, file: &Path, name: &str) -> Result<Process, ChaosError> {
        let log = self.log(name);
        let log_file = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(system(&log))?;
        let mut child = network::on(end, &self.evenkeel)
            .args([command, "--attached", "--config"])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(system(&self.evenkeel))?;
        let output = child.stdout.take().expect("piped");
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || listen(output, &sender));
        Ok(Process { child, ready })
    }

    /// Writes what the node of a machine is told; yields the file.
    fn write_node_file(&self, at: usize) -> Result<PathBuf, ChaosError> {
        let Machine { node, replaces, .. } = self.machines[at];
        let ids: Vec<u32> = self.machines.iter().map(|machine| machine.node).collect();
        let replaces = replaces.map(|lost| format!("replaces = {lost}\n")).unwrap_or_default();
        let mut text = format!(
            "[node]\nid = {node}\ndata = \"data\"\npin = false\n{replaces}\n[cluster]\nid = \"{}\"\n\
             catalogue_nodes = {:?}\nform = {}\n",
            self.cluster,
            &ids[..CATALOGUE_COPIES],
            !self.is_formed,
        );
        for (at, id) in ids.iter().enumerate() {
            let (zone, host) = (ZONES[at % ZONES.len()], End::Machine(at).address());
            text += &format!(
                "\n[[cluster.nodes]]\nid = {id}\nzone = \"{zone}\"\nhost = \"{host}\"\nport = {NODE_PORT}\nshards = 1\n"
            );
        }
        text += &tls("../certs", &format!("node-{node}"));
        text += "\n[storage]\nwal_segment_bytes = 8388608\nwal_bytes_max = 134217728\n\
                 table_bytes_max = 33554432\npage_cache_bytes = 16777216\n";
        let directory = self.data.join(format!("node-{node}"));
        fs::create_dir_all(&directory).map_err(system(&directory))?;
        write(&directory.join("node.toml"), &text)
    }

    fn write_client_files(&self) -> Result<(), ChaosError> {
        let seeds: Vec<String> =
            (0..MACHINES).map(|at| format!("{}:{NODE_PORT}", End::Machine(at).address())).collect();
        let cluster = &self.cluster;
        let client = format!(
            "seeds = {seeds:?}\ncluster = \"{cluster}\"\nkey_file = \"users.key\"\n{}",
            tls("certs", "client")
        );
        write(&self.client_file(), &client)?;
        let host = End::Router.address();
        let router = format!(
            "[http]\nlisten = \"{host}:{HTTP_PORT}\"\nregion = \"us-east-1\"\nworkers = 2\n\n[admin]\n\
             listen = \"{host}:{ADMIN_PORT}\"\n\n[cluster]\nid = \"{cluster}\"\nseeds = {seeds:?}\n\
             zone = \"{ROUTER_ZONE}\"\n\n[authentication]\nmode = \"off\"\n{}",
            tls("certs", "router")
        );
        write(&self.data.join("router.toml"), &router).map(|_| ())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.kill_router();
        (0..MACHINES).for_each(|at| self.kill_node(at));
    }
}

fn tls(directory: &str, role: &str) -> String {
    format!(
        "\n[tls]\nca = \"{directory}/ca.pem\"\ncertificate = \"{directory}/{role}.pem\"\nkey = \"{directory}/{role}.key\"\n"
    )
}

fn write(path: &Path, text: &str) -> Result<PathBuf, ChaosError> {
    fs::write(path, text).map_err(system(path))?;
    Ok(path.to_owned())
}

fn system(path: &Path) -> impl FnOnce(std::io::Error) -> ChaosError {
    let what = path.display().to_string();
    move |error| ChaosError::System { what, reason: error.to_string() }
}

/// Passes on that the process is ready, and reads the rest, which is for nobody.
fn listen(output: impl Read, ready: &mpsc::Sender<()>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if line.starts_with("ready") {
            // Only the first start of all is waited for.
            let _ = ready.send(());
        }
    }
}

fn await_ready(process: &Process, what: &str) -> Result<(), ChaosError> {
    let heard = process.ready.recv_timeout(READY_WITHIN);
    heard.map_err(|_| ChaosError::NotRun(format!("{what} is not ready after {READY_WITHIN:?}, or has ended")))
}

fn ended(process: &mut Option<Process>) -> Option<ExitStatus> {
    let status = process.as_mut()?.child.try_wait().ok()??;
    *process = None;
    Some(status)
}

fn wait(child: &mut Child, at_most: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < at_most {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(LOOK_PAUSE);
    }
    None
}

fn kill(process: Option<Process>) {
    if let Some(mut process) = process {
        // Both fail only where it has ended already.
        let _ = process.child.kill();
        let _ = process.child.wait();
    }
}

fn signal(name: &str, process: u32) -> Result<(), ChaosError> {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    match sent {
        Ok(status) if status.success() => Ok(()),
        // It has ended by itself, which is seen at the next look.
        Ok(_) => Ok(()),
        Err(error) => Err(ChaosError::System { what: "kill".to_owned(), reason: error.to_string() }),
    }
}
