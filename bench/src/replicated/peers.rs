//! Other systems, each run by a process of the package `bench/replicated-peers`, measured in turn with ours.
//!
//! A system that cannot be run, or fails later, is left out from then on and says why; ours are measured anyway.

use super::exchange::{Load, Ready, System};
use crate::error::BenchError;
use crate::tally::Measured;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// How to build the program.
const MANIFEST: &str = "bench/replicated-peers/Cargo.toml";

/// All systems there are: those that run, and why others do not.
pub(super) struct Peers(Vec<(System, Result<Peer, String>)>);

impl Peers {
    /// Starts all that can be, in directories of their names.
    pub(super) fn start(program: &Path, directory: &Path) -> Peers {
        Peers::of(|system| match program.is_file() {
            true => Peer::start(program, system, &directory.join(system.to_string())),
            false => Err(BenchError::build(program, MANIFEST)),
        })
    }

    fn of(start: impl Fn(System) -> Result<Peer, String>) -> Peers {
        Peers(System::ALL.into_iter().map(|system| (system, start(system))).collect())
    }

    /// Measures puts; nothing if the system does not run, or not any more.
    pub(super) fn measure(&mut self, system: System, load: Load) -> Option<Measured> {
        let (_, peer) = self.0.iter_mut().find(|(other, _)| *other == system)?;
        match peer.as_mut().ok()?.measure(load) {
            Ok(measured) => Some(measured),
            Err(reason) => {
                *peer = Err(reason);
                None
            }
        }
    }

    /// Ends them; says how each was set up, or why it was not.
    pub(super) fn stop(self) -> Vec<(System, Result<String, String>)> {
        let about =
            |(system, peer): (System, Result<Peer, String>)| (system, peer.map(|peer| peer.about.clone()));
        self.0.into_iter().map(about).collect()
    }
}

/// A system that runs; it ends when this is dropped.
struct Peer {
    about: String,
    process: Process,
}

impl Peer {
    fn start(program: &Path, system: System, directory: &Path) -> Result<Peer, String> {
        let mut command = Command::new(program);
        let mut process = Process::start(command.arg(system.to_string()).arg(directory))?;
        let Ready { about } = process.hear()?;
        Ok(Peer { about, process })
    }

    fn measure(&mut self, load: Load) -> Result<Measured, String> {
        let measured: Measured = self.process.ask(load)?;
        match measured.faults().into_iter().next() {
            None => Ok(measured),
            Some(fault) => Err(fault),
        }
    }
}

/// A process that is spoken with in lines of JSON.
struct Process {
    child: Child,
    /// Its end is what ends the process.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Process, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What the terminal sends when its user stops the bench is not for it: it ends in order.
            .process_group(0)
            .spawn();
        let mut child = spawned.map_err(|error| format!("{program}: {error}"))?;
        let output = child.stdout.take().expect("it was asked for");
        let input = child.stdin.take();
        Ok(Process { child, input, output: BufReader::new(output) })
    }

    fn ask<T: DeserializeOwned>(&mut self, load: Load) -> Result<T, String> {
        let line = serde_json::to_string(&load).map_err(|error| error.to_string())?;
        let input = self.input.as_mut().expect("it is held until the end");
        match writeln!(input, "{line}") {
            Ok(()) => self.hear(),
            Err(error) => Err(self.last_words(&error.to_string())),
        }
    }

    fn hear<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(self.last_words("it ended")),
            Ok(_) => serde_json::from_str(&line).map_err(|error| format!("{}: {error}", line.trim_end())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What it said about its end, or else what was seen of it.
    fn last_words(&mut self, seen: &str) -> String {
        self.input = None;
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            // Whatever was understood of it is what there is to tell.
            let _ = errors.read_to_string(&mut said);
        }
        match said.trim() {
            "" => seen.to_owned(),
            said => said.to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // It ends by itself; there is nobody to tell how.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;
    use std::time::{Duration, Instant};

    fn shell(script: &str) -> Result<Peer, String> {
        let mut process = Process::start(Command::new("sh").args(["-c", script]))?;
        let Ready { about } = process.hear()?;
        Ok(Peer { about, process })
    }

    fn measured() -> String {
        let mut tally = Tally::new();
        tally.attempt();
        tally.success(Instant::now());
        serde_json::to_string(&tally.measure(Duration::from_secs(1), None)).unwrap()
    }

    #[test]
    fn a_system_answers_each_load_and_ends_with_its_input() {
        let script = format!(
            r#"echo '{{"about":"one"}}'; while read load; do case "$load" in *'"in_flight":7,'*) echo '{}';; esac; done"#,
            measured()
        );
        let mut peers = Peers::of(|_| shell(&script));
        for _ in 0..2 {
            let measured = peers.measure(System::Redis, Load { in_flight: 7, seconds: 0.5 }).unwrap();
            assert_eq!((measured.successes, measured.per_second), (1, 1.0));
        }
        let about = peers.stop();
        assert_eq!(about[0], (System::Etcd, Ok("one".to_owned())));
    }

    #[test]
    fn a_system_that_fails_is_left_out_and_says_why() {
        let load = Load { in_flight: 1, seconds: 0.1 };
        let mut peers = Peers::of(|system| match system {
            System::Etcd => shell("echo no such program >&2; exit 1"),
            System::Redis => shell(r#"echo '{"about":""}'; read load; echo the disk is full >&2; exit 1"#),
            System::Postgresql => shell(r#"echo '{"about":""}'; read load; echo nonsense; read load"#),
        });
        for system in System::ALL {
            assert!(peers.measure(system, load).is_none());
            assert!(peers.measure(system, load).is_none());
        }
        let reasons: Vec<String> = peers.stop().into_iter().map(|(_, peer)| peer.unwrap_err()).collect();
        assert_eq!(reasons[..2], ["no such program", "the disk is full"]);
        assert!(reasons[2].starts_with("nonsense: "), "{reasons:?}");
    }

    #[test]
    fn without_the_program_all_say_how_to_build_it() {
        let peers = Peers::start(Path::new("not-built"), Path::new("unused"));
        for (_, peer) in peers.stop() {
            let reason = peer.unwrap_err();
            assert!(reason.contains("not-built") && reason.contains(MANIFEST), "{reason}");
        }
    }
}
