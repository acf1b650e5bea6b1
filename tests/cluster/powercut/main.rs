//! Power cuts under the real node; see `run.sh`, which calls this in name spaces of its own.
//!
//! `powercut NAME DIRECTORY` records a workload, cuts it at random points, starts the node on each disk that is
//! left, and looks for all that was acknowledged before the cut. The last line is `N kept, M lost`.

mod recording;
mod stack;
mod workload;

use evenkeel_cluster_tests::{Dev, Random};
use recording::Recording;
use stack::{Mounted, Recorder};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;
use workload::{Acknowledged, MARK, count_in};

const CUTS: usize = 40;
/// One node of one core, with so little memory that its tables go into trees while it is recorded.
const NODE: [&str; 6] = ["--nodes", "1", "--cores-per-node", "1", "--memory-mib", "48"];

type Failure = Box<dyn Error>;

/// Cuts behind which everything was found, and the others.
#[derive(Default)]
struct Counts {
    kept: usize,
    lost: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory] = &arguments[..] else { return Err("powercut NAME DIRECTORY".into()) };
    let mut counts = Counts::default();
    for mut random in seeds()? {
        let directory = tempfile::tempdir_in(directory)?;
        let acknowledged = record(directory.path(), &mut random).await?;
        cut(name, directory.path(), &acknowledged, &mut random, &mut counts).await?;
    }
    println!("{} kept, {} lost", counts.kept, counts.lost);
    Ok(())
}

/// A sequence for each seed of `EVENKEEL_SEEDS=A..B`, or one.
fn seeds() -> Result<Vec<Random>, Failure> {
    let Ok(range) = std::env::var("EVENKEEL_SEEDS") else { return Ok(vec![Random::from_environment()]) };
    let (first, end) = range.split_once("..").ok_or("EVENKEEL_SEEDS is a range A..B")?;
    Ok((first.parse::<u64>()?..end.parse()?)
        .map(|seed| {
            println!("seed={seed}");
            Random::from_seed(seed)
        })
        .collect())
}

/// Records the workload; what is left is the recording in `directory`.
async fn record(directory: &Path, random: &mut Random) -> Result<Acknowledged, Failure> {
    let recorder = Recorder::start(directory)?;
    let mounted = Mounted::new(&recorder.export, &directory.join("recorded"), true)?;
    let root = directory.join("recorded");
    let dev = Dev::try_start(&root.join("data"), &NODE).map_err(|exit| format!("{exit:?}"))?;
    let acknowledged = workload::write(&dev, &root.join("marker"), random).await?;
    dev.kill();
    mounted.unmount()?;
    recorder.stop()?;
    Ok(acknowledged)
}

/// Cuts the power at random points behind the first mark.
async fn cut(
    name: &str,
    directory: &Path,
    acknowledged: &Acknowledged,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let recording = Recording::open(&directory.join("recording"))?;
    let marks = recording.marked(MARK)?;
    let first = marks.first().ok_or("the marker was not recorded")?.0;
    let entries = recording.len();
    println!(
        "{} acknowledgements, {} marks, {entries} recorded writes and flushes",
        acknowledged.len(),
        marks.len()
    );
    let mut cuts: Vec<usize> =
        (0..CUTS).map(|_| first + 1 + random.below((entries - first) as u64) as usize).collect();
    cuts.sort_unstable();
    let [flushed, image] = ["flushed", "cut"].map(|name| directory.join(name));
    fs::remove_file(directory.join("export"))?;
    let disk = OpenOptions::new().create_new(true).read(true).write(true).open(&flushed)?;
    disk.set_len(fs::metadata(directory.join("disk"))?.len())?;
    let mut replayed = 0;
    for at in cuts {
        let durable = recording.flushed(at);
        recording.replay(replayed..durable, &disk)?;
        replayed = durable;
        copy(&flushed, &image)?;
        let fates = recording.tear(durable..at, &File::options().write(true).open(&image)?, random)?;
        let promised =
            marks.iter().take_while(|(index, _)| *index < at).last().map_or(0, |(_, block)| count_in(block));
        let found = find(&image, &directory.join("found"), acknowledged, promised).await;
        let said = found.as_ref().map_or_else(|fault| format!("LOST: {fault}"), |()| "all found".to_owned());
        println!("{name}: cut behind {at}, {promised} acknowledged, {fates:?}: {said}");
        match found {
            Ok(()) => counts.kept += 1,
            Err(_) => counts.lost += 1,
        }
    }
    Ok(())
}

/// A copy that leaves holes holes.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let status = Command::new("cp").arg("--sparse=always").args([from, to]).status()?;
    if status.success() { Ok(()) } else { Err(format!("cp: {status}").into()) }
}

/// Starts the node on what a cut has left, and looks for all that was promised.
async fn find(image: &Path, at: &Path, acknowledged: &Acknowledged, promised: usize) -> Result<(), String> {
    let mounted = Mounted::new(image, at, false).map_err(|error| error.to_string())?;
    let dev = Dev::try_start(&at.join("data"), &NODE);
    let found = match dev {
        Ok(dev) => {
            let found = acknowledged.look_for(promised, &dev).await;
            dev.kill();
            found
        }
        Err(exit) => Err(format!("the node did not start: {}: {}", exit.status, exit.said)),
    };
    mounted.unmount().map_err(|error| error.to_string())?;
    found
}
