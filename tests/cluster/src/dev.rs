//! `evenkeel dev` in a process of its own: started, waited for, stopped or killed.
//!
//! The process is killed by its own handle when the test forgets it, so no test leaves one behind.

use crate::binary;
use crate::http::Http;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far more than starting takes on a busy machine; times are asserted in benches only.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const READY: &str = "ready: http://";

/// A running `evenkeel dev`.
pub struct Dev {
    child: Child,
    data: PathBuf,
    address: String,
    ready_after: Duration,
    said: Arc<Mutex<String>>,
    /// Disconnected when both pipes have been closed by the other side.
    silent: mpsc::Receiver<Infallible>,
}

/// How a process ended, and everything that it had said.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// Standard output and standard error.
    pub said: String,
}

/// A new directory for the data of a cluster, beside the build: direct IO needs a real file system.
pub fn data_directory() -> TempDir {
    let test = std::env::current_exe().expect("the running test has a path");
    let target = test.ancestors().nth(3).expect("target/<profile>/deps/<test>");
    let parent = target.join("tmp");
    std::fs::create_dir_all(&parent).expect("cargo wrote here before");
    tempfile::Builder::new().prefix("evenkeel-").tempdir_in(parent).expect("cargo wrote here before")
}

impl Dev {
    /// Starts on this data directory and a free port, and waits until it is ready.
    pub fn start(data: &Path) -> Dev {
        Dev::try_start(data, &[]).unwrap_or_else(|exit| panic!("dev ended: {exit:?}"))
    }

    /// Starts with more arguments.
    ///
    /// # Errors
    /// How it ended, if it did so before it was ready.
    pub fn try_start(data: &Path, arguments: &[&str]) -> Result<Dev, Exit> {
        let started = Instant::now();
        let mut child = Command::new(binary::evenkeel())
            .args(["dev", "--port", "0", "--data"])
            .arg(data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (ready, is_ready) = mpsc::channel();
        let (speaking, silent) = mpsc::channel();
        listen(child.stdout.take().expect("piped"), said.clone(), speaking.clone(), Some(ready));
        listen(child.stderr.take().expect("piped"), said.clone(), speaking, None);
        let heard = is_ready.recv_timeout(READY_WITHIN);
        let mut dev = Dev {
            child,
            data: data.to_owned(),
            address: heard.clone().unwrap_or_default(),
            ready_after: started.elapsed(),
            said,
            silent,
        };
        match heard {
            Ok(_) => Ok(dev),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(dev.wait()),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("not ready after 60 s: {}", dev.said()),
        }
    }

    /// `host:port` of the HTTP endpoint.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From the start of the process to its line `ready:`.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The client configuration that it wrote.
    pub fn client_file(&self) -> PathBuf {
        self.data.join("client.toml")
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no listener panics").clone()
    }

    /// A new HTTP/1.1 connection.
    pub async fn http(&self) -> Http {
        Http::connect(&self.address).await.expect("the endpoint takes connections")
    }

    /// Kills it without warning and waits until it is gone.
    pub fn kill(mut self) -> Exit {
        self.child.kill().expect("it runs");
        self.wait()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(self) -> Exit {
        self.signal("TERM")
    }

    /// Sends a signal that ends it, and waits.
    pub fn signal(mut self, name: &str) -> Exit {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
        assert!(sent.success(), "{kill}: {sent}");
        self.wait()
    }

    fn wait(&mut self) -> Exit {
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.silent.recv_timeout(STOPPED_WITHIN) {
            panic!("still running after 60 s: {}", self.said());
        }
        let status = self.child.wait().expect("it is our child");
        Exit { status, said: self.said() }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("dev had said:\n{}", self.said());
        }
    }
}

/// Collects what is said, and passes on the address of the line `ready:`.
fn listen(
    pipe: impl Read + Send + 'static,
    said: Arc<Mutex<String>>,
    speaking: mpsc::Sender<Infallible>,
    ready: Option<mpsc::Sender<String>>,
) {
    std::thread::spawn(move || {
        let _speaking = speaking;
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let (Some(ready), Some(address)) = (&ready, line.strip_prefix(READY)) {
                // Nobody waits for a second one.
                let _ = ready.send(address.trim_end_matches('/').to_owned());
            }
            let mut said = said.lock().expect("no listener panics");
            said.push_str(&line);
            said.push('\n');
        }
    });
}
