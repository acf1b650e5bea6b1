//! The systems that the bench compares three copies with: one of them in each process.
//!
//! `evenkeel-bench-replicated-peers SYSTEM DIRECTORY` starts etcd, redis or postgresql in the directory, puts every
//! item once, and then measures what `evenkeel bench replicated` asks for on standard input, a line of JSON each,
//! until that ends. What is said is described in `exchange`. Items, load and counts are those of the bench: its very
//! files are compiled here, so that all systems are given the same bytes and are measured in the same way.

mod etcd_system;
#[path = "../../src/replicated/exchange.rs"]
mod exchange;
#[path = "../../src/load.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the first put that fails ends all here; others go on"))]
mod load;
#[path = "../../src/machine.rs"]
mod machine;
#[path = "../../src/plain.rs"]
mod plain;
mod postgresql_system;
mod process;
mod puts;
mod redis_system;
#[path = "../../src/tally.rs"]
mod tally;

use exchange::{Load, Ready, System};
use load::Lasting;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tally::Measured;

/// Why something failed, in the system's own words.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Puts that are in flight while all items are put for the first time.
const FILLERS: u32 = 64;
/// How much longer than asked for a phase may take. Without a majority or a standby some puts are never answered.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What the bench asks of a system. Its processes end when it is dropped.
trait Peer: Sized {
    /// What one of the puts in flight uses.
    type Connection: Put + 'static;

    /// Starts it; it is ready for puts on return.
    async fn start(directory: &Path) -> Result<Self, Fault>;

    /// Its version and the settings that matter.
    fn about(&self) -> String;

    /// So many connections, ready for puts.
    async fn connect(&self, connections: u32) -> Result<Vec<Self::Connection>, Fault>;
}

/// A connection to a system.
trait Put {
    /// Puts an item; all copies that the system was set up for are durable on return.
    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault>;
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [system, directory] = &arguments[..] else {
        return Err("give a system and a directory".into());
    };
    std::fs::create_dir_all(directory)?;
    let directory = std::fs::canonicalize(directory)?;
    match system.parse()? {
        System::Etcd => serve::<etcd_system::Etcd>(&directory),
        System::Redis => serve::<redis_system::Redis>(&directory),
        System::Postgresql => serve::<postgresql_system::Postgresql>(&directory),
    }
}

/// Runs a system until standard input ends.
fn serve<P: Peer>(directory: &Path) -> Result<(), Fault> {
    let peer: P = load::runtime()?.block_on(P::start(directory))?;
    let filled = measure(&peer, FILLERS, Lasting::Operations(plain::ITEMS / FILLERS))?;
    if let Some(fault) = filled.faults().into_iter().next() {
        return Err(format!("putting all items: {fault}").into());
    }
    say(&Ready { about: peer.about() })?;
    for line in std::io::stdin().lines() {
        let Load { in_flight, seconds } = serde_json::from_str(&line?)?;
        say(&measure(&peer, in_flight, Lasting::Time(Duration::from_secs_f64(seconds)))?)?;
    }
    Ok(())
}

/// Measures puts. The runtime is of this phase alone, so that no connection of an earlier one stays.
fn measure<P: Peer>(peer: &P, in_flight: u32, lasting: Lasting) -> Result<Measured, Fault> {
    let within = match lasting {
        Lasting::Time(lasts) => lasts + STUCK_AFTER,
        Lasting::Operations(_) => STUCK_AFTER,
    };
    load::runtime()?.block_on(async {
        let measured = tokio::time::timeout(within, async {
            let connections = peer.connect(in_flight).await?;
            Ok(load::run(puts::of(connections), lasting).await)
        });
        measured.await.unwrap_or_else(|_| Err(format!("puts are not answered after {within:?}").into()))
    })
}

fn say(what: &impl Serialize) -> Result<(), Fault> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(what)?)?;
    Ok(output.flush()?)
}
