//! The processes that steps run in: this program for our engine, that of `bench/peers` for the others.

use super::OWN;
use super::steps::{Data, Outcome, Request, Step, VALUE_BYTES_MIN};
use crate::error::{BenchError, PEERS_MANIFEST};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PHASE: &str = "engine";
/// What a control group lets a process have, page cache included, as a multiple of what its engine is given:
/// allocators waste some, and a process that has more is killed.
const GROUP_TO_MEMORY: u64 = 2;
/// And this much more, for what a process takes whatever its engine is given.
const GROUP_BASE_BYTES: u64 = 64 << 20;
/// Where the kernel keeps control groups of memory (version 1).
const GROUPS: &str = "/sys/fs/cgroup/memory";
const MEMORY_BYTES_MIN: u64 = 8 << 20;

/// What all steps of an engine have in common.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Settings {
    pub(crate) memory_bytes: u64,
    pub(crate) data: Data,
    pub(crate) leaf_bytes: usize,
}

impl Settings {
    /// As many items as take `times` the memory.
    pub(crate) fn new(
        memory_bytes: u64,
        times: u64,
        value_bytes: usize,
        leaf_bytes: usize,
    ) -> Result<Settings, BenchError> {
        let refuse = |flag, reason| Err(BenchError::Argument { flag, reason });
        if memory_bytes < MEMORY_BYTES_MIN {
            return refuse("--memory-mib", format!("at least {} are needed", MEMORY_BYTES_MIN >> 20));
        }
        if !(VALUE_BYTES_MIN..=evenkeel_model::limits::ITEM_BYTES_MAX).contains(&value_bytes) {
            let max = evenkeel_model::limits::ITEM_BYTES_MAX;
            return refuse(
                "--value-bytes",
                format!("{value_bytes} is not between {VALUE_BYTES_MIN} and {max}"),
            );
        }
        if !(4096..=256 << 10).contains(&leaf_bytes) || !leaf_bytes.is_multiple_of(4096) {
            return refuse("--leaf-bytes", format!("{leaf_bytes} is no multiple of 4096 up to 262144"));
        }
        let items = times * memory_bytes / value_bytes as u64;
        Ok(Settings { memory_bytes, data: Data { items, value_bytes }, leaf_bytes })
    }
}

/// One engine, and how its steps are run.
pub(crate) struct Child {
    pub(crate) engine: String,
    program: PathBuf,
    arguments: &'static [&'static str],
    directory: PathBuf,
    settings: Settings,
    epoch: u32,
    group: Option<Group>,
}

/// Prepares these engines; yields also those that have no program.
pub(super) fn start(
    engines: &[String],
    peers: &Path,
    directory: &Path,
    settings: Settings,
) -> Result<(Vec<Child>, Vec<String>), BenchError> {
    let (mut children, mut missing) = (Vec::new(), Vec::new());
    for engine in engines {
        if engine == OWN {
            children.push(Child::own(directory.join(engine), settings)?);
        } else if peers.is_file() {
            children.push(Child::peer(engine, peers.to_owned(), directory.join(engine), settings));
        } else {
            println!("{engine}: NOT RUN, {}", BenchError::build(peers, PEERS_MANIFEST));
            missing.push(engine.clone());
        }
    }
    Ok((children, missing))
}

impl Child {
    /// Our own engine. Nothing of it is in the page cache, so it needs no control group.
    pub(crate) fn own(directory: PathBuf, settings: Settings) -> Result<Child, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::in_phase(PHASE))?;
        let engine = OWN.to_owned();
        Ok(Child {
            engine,
            program,
            arguments: &["bench", "step"],
            directory,
            settings,
            epoch: 0,
            group: None,
        })
    }

    fn peer(engine: &str, program: PathBuf, directory: PathBuf, settings: Settings) -> Child {
        let group = Group::make(engine, GROUP_TO_MEMORY * settings.memory_bytes + GROUP_BASE_BYTES);
        Child { engine: engine.to_owned(), program, arguments: &[], directory, settings, epoch: 0, group }
    }

    /// Whether its memory is bounded, page cache included.
    pub(super) fn is_bounded(&self) -> bool {
        self.group.is_some()
    }

    /// Runs a step.
    pub(crate) fn perform(&mut self, step: Step) -> Result<Outcome, BenchError> {
        let name = format!("{step:?}").chars().take_while(char::is_ascii_alphabetic).collect::<String>();
        self.epoch += 1;
        // Nothing of a load is measured, and a load in random order takes hours in little memory.
        let group = self.group.as_ref().filter(|_| !matches!(step, Step::Load)).map(|group| group.0.clone());
        let request = Request {
            engine: self.engine.clone(),
            directory: self.directory.clone(),
            step,
            data: self.settings.data,
            memory_bytes: self.settings.memory_bytes,
            leaf_bytes: self.settings.leaf_bytes,
            epoch: self.epoch,
            group,
        };
        let request = serde_json::to_string(&request).map_err(BenchError::in_phase(PHASE))?;
        let output = Command::new(&self.program).args(self.arguments).arg(request).output();
        let output = output.map_err(|source| BenchError::File { path: self.program.clone(), source })?;
        let fault =
            |reason: String| BenchError::Engine { engine: self.engine.clone(), step: name.clone(), reason };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(fault(format!("{}: {}", output.status, said.trim())));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| fault(error.to_string()))
    }
}

/// A control group of the kernel that bounds memory; it is removed when this is dropped.
struct Group(PathBuf);

impl Group {
    /// None if this process may not make one.
    fn make(name: &str, bytes: u64) -> Option<Group> {
        let path = Path::new(GROUPS).join(format!("evenkeel-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Group(path);
        fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // An empty group that stays is in nobody's way.
        let _ = fs::remove_dir(&self.0);
    }
}
