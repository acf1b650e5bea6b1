//! Writers that know what was acknowledged, and a marker that says so on the recorded disk itself.
//!
//! The marker's block is written after the acknowledgements that it counts have arrived: at a cut behind it all of
//! them must be there. It is written by direct IO over blocks that exist, and never flushed, so that it makes
//! nothing else durable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evenkeel_cluster_tests::{Dev, Http, Random};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use tokio::task::JoinSet;

const TABLE: &str = "power";
const WRITERS: usize = 12;
const WRITES_PER_WRITER: u64 = 400;
const BLOCK_BYTES: usize = 4096;
/// What a marker's block begins with; a count of acknowledgements follows.
pub const MARK: &[u8; 16] = b"acknowledged so ";

/// A write: by whom, of which key, which version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    writer: usize,
    key: u64,
    version: u64,
}

impl Write {
    fn name(&self) -> String {
        format!("writer {} key {}", self.writer, self.key)
    }

    /// The one item of this write: mostly small, some as large as many pages.
    fn item(&self) -> Value {
        let mut random = Random::from_seed(self.version << 32 | (self.writer as u64) << 24 | self.key);
        let bytes = if random.below(25) == 0 { 200_000 } else { 3_000 };
        let length = random.below(bytes) as usize;
        json!({
            "pk": { "S": self.name() },
            "version": { "N": self.version.to_string() },
            "body": { "B": BASE64.encode(random.bytes(length)) },
        })
    }
}

/// Acknowledged writes, in the order that their acknowledgements arrived.
#[derive(Default)]
pub struct Acknowledged(Vec<Write>);

/// Writes over `dev`, with a mark in `marker` whenever something was acknowledged.
pub async fn write(dev: &Dev, marker: &Path, random: &mut Random) -> io::Result<Acknowledged> {
    dev.http().await.create_table(TABLE, &[("pk", "S")]).await;
    let marker = Marker::make(marker)?;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let (tell, told) = mpsc::channel();
    let marking = std::thread::spawn(move || marker.mark(&told));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (http, random) = (dev.http().await, Random::from_seed(random.draw()));
        writers.spawn(write_one(writer, http, random, Arc::clone(&acknowledged), tell.clone()));
    }
    drop(tell);
    writers.join_all().await;
    marking.join().expect("the marker does not panic")?;
    Ok(std::mem::take(&mut *acknowledged.lock().expect("no writer panics")))
}

async fn write_one(
    writer: usize,
    mut http: Http,
    mut random: Random,
    acknowledged: Arc<Mutex<Acknowledged>>,
    tell: mpsc::Sender<usize>,
) {
    let mut keys = 0;
    for version in 1..=WRITES_PER_WRITER {
        let key = if keys > 0 && random.below(3) == 0 { random.below(keys) } else { keys };
        keys = keys.max(key + 1);
        let write = Write { writer, key, version };
        http.call("PutItem", json!({ "TableName": TABLE, "Item": write.item() })).await;
        let count = {
            let mut acknowledged = acknowledged.lock().expect("no writer panics");
            acknowledged.0.push(write);
            acknowledged.0.len()
        };
        // Only a marker that failed does not listen; its error is what is reported.
        let _ = tell.send(count);
    }
}

/// The file with the mark.
struct Marker {
    file: File,
    /// Twice as long as a block, which is somewhere in it, aligned.
    memory: Vec<u8>,
}

impl Marker {
    fn make(path: &Path) -> io::Result<Marker> {
        let file = File::create(path)?;
        file.write_all_at(&[0; BLOCK_BYTES], 0)?;
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        Ok(Marker { file, memory: vec![0; 2 * BLOCK_BYTES] })
    }

    /// Marks each count that it is told of, or a later one.
    fn mark(mut self, told: &mpsc::Receiver<usize>) -> io::Result<()> {
        let start = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        let block = &mut self.memory[start..start + BLOCK_BYTES];
        while let Ok(count) = told.recv() {
            let count = told.try_iter().fold(count, usize::max);
            block[..16].copy_from_slice(MARK);
            block[16..24].copy_from_slice(&(count as u64).to_le_bytes());
            self.file.write_all_at(block, 0)?;
        }
        Ok(())
    }
}

/// The count of acknowledgements in a marker's block.
pub fn count_in(block: &[u8]) -> usize {
    let count = u64::from_le_bytes(block[16..24].try_into().expect("eight bytes"));
    usize::try_from(count).expect("it was written as one")
}

impl Acknowledged {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Looks for the first `count` of them: what is wrong, if anything is.
    pub async fn look_for(&self, count: usize, dev: &Dev) -> Result<(), String> {
        let mut least = BTreeMap::new();
        for write in &self.0[..count] {
            least.insert(write.name(), *write);
        }
        let mut readers = JoinSet::new();
        let wanted: Vec<Write> = least.into_values().collect();
        for part in wanted.chunks(wanted.len().div_ceil(WRITERS).max(1)) {
            let (part, mut http) = (part.to_vec(), dev.http().await);
            readers.spawn(async move {
                for write in part {
                    find(&mut http, write).await?;
                }
                Ok(())
            });
        }
        readers.join_all().await.into_iter().collect()
    }
}

/// The key's item must be the one of this write, or of one that came later.
async fn find(http: &mut Http, least: Write) -> Result<(), String> {
    let name = least.name();
    let request = json!({ "TableName": TABLE, "Key": { "pk": { "S": name } }, "ConsistentRead": true });
    let answer = http.try_call("GetItem", &request).await.map_err(|error| format!("{name}: {error}"))?;
    if !answer.status.is_success() {
        return Err(format!("{name}: {}", answer.text()));
    }
    let item = &answer.json()["Item"];
    let version = item["version"]["N"].as_str().and_then(|text| text.parse().ok());
    match version {
        Some(version) if version >= least.version && *item == (Write { version, ..least }).item() => Ok(()),
        Some(version) if version >= least.version => Err(format!("{name}: version {version} is not whole")),
        Some(version) => Err(format!("{name}: version {version} instead of {}", least.version)),
        None => Err(format!("{name}: gone, version {} was acknowledged", least.version)),
    }
}
