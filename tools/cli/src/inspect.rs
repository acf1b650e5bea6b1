//! `evenkeel inspect`: what is in the files of a node that does not run, and whether they are whole.
//!
//! Nothing is written. The directory may be that of `evenkeel dev`, of a node, or of one shard. Exit status 0
//! means that everything looked at is right; with `--verify` that is every byte that matters.

mod disk;

use crate::output::Output;
use clap::Args;
use disk::{LocalRuntime, ReadOnlyDisk};
use evenkeel_storage::engine::inspect::{Inspection, Progress, inspect};
use evenkeel_storage::{BLOCK_BYTES, OpenError};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

const LOCK: &str = "LOCK";
const SHARD_PREFIX: &str = "shard-";
const NODE_PREFIX: &str = "node-";
const DATA: &str = "data";

/// Arguments of `evenkeel inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArguments {
    /// Directory of `evenkeel dev`, of a node, or of a shard.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Read every page of every tree too, and check it against its place.
    #[arg(long)]
    verify: bool,
    /// Only the partition of this number.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u64>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Why the files could not be looked at, or what is wrong with them.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no data of a node there.
    #[error("{} holds no data of a node; give the directory of `evenkeel dev`, of a node, or of a shard", .0.display())]
    NoData(PathBuf),
    /// A directory or file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A node runs on it.
    #[error("{} is in use by a running node; stop it first", .0.display())]
    InUse(PathBuf),
    /// The device failed.
    #[error("{}: {source}", shard.display())]
    Device {
        /// The shard's directory.
        shard: PathBuf,
        /// What happened.
        source: OpenError,
    },
    /// Something is wrong with the files.
    #[error("{faults} faults in {}", data.display())]
    Faults {
        /// How many.
        faults: usize,
        /// Where.
        data: PathBuf,
    },
    /// The program's own surroundings failed.
    #[error("the process could not be set up: {0}")]
    Process(#[from] std::io::Error),
}

/// Looks at every shard below the directory.
///
/// # Errors
/// See [`InspectError`].
pub fn run(arguments: &InspectArguments) -> Result<(), InspectError> {
    let shards = shards(&arguments.data)?;
    let mut faults = 0;
    let mut found = Vec::new();
    for shard in shards {
        let inspection = look(&shard, arguments.verify)?;
        faults += inspection.faults.len();
        match arguments.output {
            Output::Table => print(&shard, &inspection, arguments),
            Output::Json => found.push(as_json(&shard, &inspection, arguments)),
        }
    }
    if arguments.output == Output::Json {
        println!("{}", Value::Array(found));
    }
    match faults {
        0 => Ok(()),
        faults => Err(InspectError::Faults { faults, data: arguments.data.clone() }),
    }
}

/// The directories of shards at or below a directory, in order.
fn shards(data: &Path) -> Result<Vec<PathBuf>, InspectError> {
    if data.join(LOCK).exists() && data.join("wal").is_dir() {
        return Ok(vec![data.to_owned()]);
    }
    let mut found = below(data, SHARD_PREFIX)?;
    found.extend(below(&data.join(DATA), SHARD_PREFIX).unwrap_or_default());
    for node in below(data, NODE_PREFIX)? {
        found.extend(below(&node.join(DATA), SHARD_PREFIX).unwrap_or_default());
    }
    if found.is_empty() {
        return Err(InspectError::NoData(data.to_owned()));
    }
    Ok(found)
}

fn below(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>, InspectError> {
    let failed = |source| InspectError::File { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if named && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn look(shard: &Path, verify: bool) -> Result<Inspection, InspectError> {
    let _lock = lock(shard)?;
    let bar = progress_bar(shard);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let looking =
        inspect(ReadOnlyDisk::new(shard), LocalRuntime(Instant::now()), verify, |progress| match progress {
            Progress::Pages(partition, bytes) => {
                bar.set_message(format!("partition {partition}, {} MiB of pages", bytes >> 20));
            }
            Progress::Log => bar.set_message("log"),
        });
    let found = tokio::task::LocalSet::new().block_on(&runtime, looking);
    bar.finish_and_clear();
    found.map_err(|source| InspectError::Device { shard: shard.to_owned(), source })
}

/// Keeps nodes from starting on the shard, and finds out whether one runs on it.
fn lock(shard: &Path) -> Result<File, InspectError> {
    let path = shard.join(LOCK);
    let failed = |source| InspectError::File { path: path.clone(), source };
    let file = File::open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(InspectError::InUse(shard.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Shown on a terminal only.
fn progress_bar(shard: &Path) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_prefix(shard.display().to_string());
    bar.with_style(ProgressStyle::with_template("{spinner} {prefix}: {msg}").expect("the template is right"))
}

fn print(shard: &Path, found: &Inspection, arguments: &InspectArguments) {
    println!("{}", shard.display());
    if let Some((cluster, node, number)) = &found.owner {
        println!("  owner      cluster {cluster}, node {node}, shard {number}");
    }
    let mib = |blocks: u64| (blocks * BLOCK_BYTES as u64) as f64 / f64::from(1 << 20);
    println!(
        "  pages      flip {}, {:.1} MiB: {:.1} in use, {:.1} free, catalogue {:.1}",
        found.flip,
        mib(found.blocks_total),
        mib(found.space.used_blocks),
        mib(found.space.free_blocks),
        mib(found.catalogue_blocks),
    );
    if let Some(log) = &found.log {
        println!(
            "  log        {} segments of {} bytes ({} more are free), {} frames, {} entries, {} bytes",
            found.segments.len(),
            found.segment_bytes,
            found.segments_free,
            log.frames,
            log.entries,
            log.bytes,
        );
        for (file, sequence) in &found.segments {
            println!("    segment {sequence} in {file}");
        }
        if let Some(cut) = &log.cut {
            println!(
                "    unacknowledged tail from {} at offset {}, which a start cuts",
                cut.file, cut.offset
            );
        }
    }
    for partition in partitions(found, arguments) {
        println!("  partition  {}", line(&partition));
    }
    for fault in &found.faults {
        println!("  FAULT      {fault}");
    }
    if found.faults.is_empty() {
        println!(
            "  {}",
            if arguments.verify { "verified" } else { "no fault; --verify looks at every page" }
        );
    }
}

fn line(partition: &Value) -> String {
    let fields = partition.as_object().expect("made as an object");
    let shown = fields.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={value}")
    });
    shown.collect::<Vec<_>>().join("  ")
}

/// What is known of each partition: by the catalogue, by its tree, and by the log behind it.
fn partitions(found: &Inspection, arguments: &InspectArguments) -> Vec<Value> {
    let wanted = |id: u64| arguments.partition.is_none_or(|only| only == id);
    let replayed = found.log.iter().flat_map(|log| &log.partitions);
    let mut rows = Vec::new();
    for partition in replayed.filter(|partition| wanted(partition.id.0)) {
        let in_tree = found.catalogue.iter().find(|(catalogued, _)| catalogued.id == partition.id);
        let mut row = json!({
            "partition": partition.id.0,
            "generation": partition.generation.0,
            "applied": partition.applied.slot.0,
            "last": partition.last_slot.0,
            "ballot": format!("{}.{}", partition.promised.round, partition.promised.replica),
        });
        let fields = row.as_object_mut().expect("made as an object above");
        if let Some((catalogued, walked)) = in_tree {
            fields.insert("checkpoint".to_owned(), json!(catalogued.applied.0));
            let root = catalogued.root.as_ref();
            fields.insert("root_offset".to_owned(), json!(root.map(|root| root.page.extent.offset())));
            fields.insert("tree_items".to_owned(), json!(root.map_or(0, |root| root.item_count)));
            fields.insert("tree_bytes".to_owned(), json!(root.map_or(0, |root| root.item_bytes)));
            fields.insert(
                "content".to_owned(),
                json!(format!("{:032x}", root.map_or(0, |root| root.content_hash))),
            );
            if arguments.verify {
                fields.insert("leaves".to_owned(), json!(walked.leaves));
                fields.insert("inner_pages".to_owned(), json!(walked.inner_pages));
                fields.insert("page_bytes".to_owned(), json!(walked.bytes));
            }
        }
        rows.push(row);
    }
    rows
}

fn as_json(shard: &Path, found: &Inspection, arguments: &InspectArguments) -> Value {
    let owner = found.owner.as_ref().map(
        |(cluster, node, number)| json!({ "cluster": cluster.to_string(), "node": node.0, "shard": number }),
    );
    let log = found.log.as_ref().map(|log| {
        json!({
            "segment_bytes": found.segment_bytes,
            "segments": found.segments.iter().map(|(file, sequence)| json!({ "segment": sequence, "file": file.to_string() })).collect::<Vec<_>>(),
            "segments_free": found.segments_free,
            "frames": log.frames,
            "entries": log.entries,
            "bytes": log.bytes,
            "cut": log.cut.as_ref().map(|cut| json!({ "file": cut.file.to_string(), "offset": cut.offset })),
        })
    });
    json!({
        "shard": shard.display().to_string(),
        "owner": owner,
        "pages": {
            "flip": found.flip,
            "blocks": found.blocks_total,
            "blocks_used": found.space.used_blocks,
            "blocks_free": found.space.free_blocks,
            "superblock_offsets": found.superblock_offsets,
            "catalogue_offsets": found.catalogue_offsets,
            "catalogue_blocks": found.catalogue_blocks,
        },
        "log": log,
        "partitions": partitions(found, arguments),
        "verified": arguments.verify && found.faults.is_empty(),
        "faults": found.faults,
    })
}
