//! `evenkeel import`: JSON lines into a table, by the native client.
//!
//! A thread reads and converts lines and deals them to lanes by their key; each lane puts one item at a
//! time. So many lanes, so many puts in flight, and yet two lines of one key are written in their order:
//! a second run leaves the table as the first did. Memory is bounded by the bytes of the items under way.
//!
//! A bad line is reported and skipped; a cluster or table that is gone stops everything. What is told to
//! be imported was acknowledged as durable, nothing else.

mod convert;
mod input;
mod lanes;

use crate::client_config::{self, ClientConfigError};
use convert::Format;
use evenkeel_client::{Client, CreateTable};
use evenkeel_model::catalogue::{TableRow, TableStatus};
use evenkeel_model::{KeyAttribute, KeySchema, KeyType};
use indicatif::{ProgressBar, ProgressStyle};
use input::Source;
use lanes::{Event, Feed, Origin, Stop};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a new table may take to become ACTIVE.
const TABLE_ACTIVE_SECONDS_MAX: u64 = 30;

/// Reads JSON lines into a table.
#[derive(clap::Args, Clone, Debug)]
pub struct ImportArguments {
    /// The table to write to.
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// Create the table first, unless it exists with the same keys.
    #[arg(long, requires = "partition_key")]
    pub create: bool,
    /// Partition key of the table to create; its type is S unless given.
    #[arg(long, value_name = "NAME[:S|N|B]", requires = "create", value_parser = key_attribute)]
    pub partition_key: Option<KeyAttribute>,
    /// Sort key of the table to create; its type is S unless given.
    #[arg(long, value_name = "NAME[:S|N|B]", requires = "create", value_parser = key_attribute)]
    pub sort_key: Option<KeyAttribute>,
    /// The cluster's client configuration, as `evenkeel dev` writes it in its data directory.
    #[arg(long, value_name = "FILE", default_value = "./evenkeel-data/client.toml")]
    pub cluster: PathBuf,
    /// How items are written; `auto` tells it for each file by its first object.
    #[arg(long, value_enum, default_value_t = FormatChoice::Auto)]
    pub format: FormatChoice,
    /// Puts in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Write FILE:LINE of each acknowledged item to this file.
    #[arg(long, value_name = "FILE")]
    pub acknowledged: Option<PathBuf>,
    /// Files of JSON lines, plain or gzip; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
}

/// The notation of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatChoice {
    /// Told by the first object of each file.
    Auto,
    /// JSON's own types.
    Plain,
    /// DynamoDB's typed JSON, bare or under `Item`.
    Dynamodb,
}

/// Why an import failed, or succeeded only in part.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The client's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ClientConfigError),
    /// The program's own surroundings failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// What the system says.
        source: io::Error,
    },
    /// The cluster cannot be reached, or not asked about the table.
    #[error("{action}: {source}")]
    Cluster {
        /// What was tried.
        action: &'static str,
        /// What the client says.
        source: evenkeel_client::Error,
    },
    /// There is no such table.
    #[error("table {0} does not exist; add --create --partition-key NAME[:TYPE] to create it")]
    TableNotFound(String),
    /// The table exists with other keys.
    #[error("table {table} exists with other keys: {found}, not {wanted}")]
    SchemaDiffers {
        /// Its name.
        table: String,
        /// Its keys.
        found: String,
        /// The keys of the command line.
        wanted: String,
    },
    /// The table did not become ACTIVE.
    #[error("table {table} is {status} after {seconds} s", status = status.name())]
    NotActive {
        /// Its name.
        table: String,
        /// Its status.
        status: TableStatus,
        /// How long that took.
        seconds: u64,
    },
    /// Everything was stopped.
    #[error("stopped, {acknowledged} items were acknowledged: {stop}; running the import again is safe")]
    Stopped {
        /// Items known to be durable.
        acknowledged: u64,
        /// Why.
        stop: Stop,
    },
    /// Some lines are no items.
    #[error("{bad} bad lines were not imported, {acknowledged} items were")]
    BadLines {
        /// Lines reported one by one before.
        bad: u64,
        /// Items known to be durable.
        acknowledged: u64,
    },
}

fn key_attribute(text: &str) -> Result<KeyAttribute, String> {
    let (name, type_name) = text.rsplit_once(':').unwrap_or((text, "S"));
    let key_type = KeyType::from_name(type_name)
        .ok_or_else(|| format!("key type {type_name:?} is not one of S, N and B"))?;
    let bytes_max = evenkeel_model::limits::KEY_ATTRIBUTE_NAME_BYTES_MAX;
    if !(1..=bytes_max).contains(&name.len()) {
        return Err(format!("the name of a key attribute has 1 to {bytes_max} bytes"));
    }
    Ok(KeyAttribute { name: name.to_owned(), key_type })
}

impl ImportArguments {
    fn schema_to_create(&self) -> Option<KeySchema> {
        let partition = self.partition_key.clone().filter(|_| self.create)?;
        Some(KeySchema { partition, sort: self.sort_key.clone() })
    }

    fn given_format(&self) -> Option<Format> {
        match self.format {
            FormatChoice::Auto => None,
            FormatChoice::Plain => Some(Format::Plain),
            FormatChoice::Dynamodb => Some(Format::Dynamodb),
        }
    }
}

/// Imports the files, reports bad lines on standard error, and prints one summary line.
///
/// # Errors
/// What stopped the import, or the number of bad lines.
pub fn run(arguments: ImportArguments) -> Result<(), ImportError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ImportError::System { action: "start the runtime".to_owned(), source })?;
    runtime.block_on(import(arguments))
}

async fn import(arguments: ImportArguments) -> Result<(), ImportError> {
    let config = client_config::load(&arguments.cluster)?;
    let acknowledged = arguments.acknowledged.as_ref().map(create_file).transpose()?;
    let failed = |action| move |source| ImportError::Cluster { action, source };
    let client = Client::connect(config).await.map_err(failed("cannot connect to the cluster"))?;
    let table = open_table(&client, &arguments).await?;
    let sources: Vec<Source> = arguments.files.iter().map(|file| Source::from(file.as_str())).collect();
    let mut report = Report::new(&sources, acknowledged);
    let feed = Feed { sources, format: arguments.given_format(), table: Arc::new(table) };
    let mut events = lanes::start(client, feed, arguments.concurrency, report.bar.clone());
    while let Some(event) = events.recv().await {
        if let Some(stop) = report.take(event) {
            // What other lanes had acknowledged by now is counted, nothing more is sent.
            events.close();
            while let Ok(event) = events.try_recv() {
                report.take(event);
            }
            report.stop.get_or_insert(stop);
        }
    }
    report.finish()
}

fn create_file(path: &PathBuf) -> Result<BufWriter<File>, ImportError> {
    let failed = |source| ImportError::System { action: format!("create {}", path.display()), source };
    Ok(BufWriter::new(File::create(path).map_err(failed)?))
}

/// The table, created where that was asked for, once it is ACTIVE.
async fn open_table(client: &Client, arguments: &ImportArguments) -> Result<TableRow, ImportError> {
    use evenkeel_client::Error;
    let failed = |action| move |source| ImportError::Cluster { action, source };
    let wanted = arguments.schema_to_create();
    if let Some(schema) = wanted.clone() {
        let request = CreateTable::new(&arguments.table, schema);
        match client.create_table(request).await {
            Ok(_) | Err(Error::TableExists { .. }) => {}
            Err(error) => return Err(failed("cannot create the table")(error)),
        }
    }
    let started = Instant::now();
    loop {
        let row = match client.describe_table(&arguments.table).await {
            Ok(row) => row,
            Err(Error::TableNotFound { .. }) => {
                return Err(ImportError::TableNotFound(arguments.table.clone()));
            }
            Err(error) => return Err(failed("cannot look up the table")(error)),
        };
        if let Some(wanted) = wanted.as_ref().filter(|wanted| **wanted != row.schema) {
            let (found, wanted) = (describe_keys(&row.schema), describe_keys(wanted));
            return Err(ImportError::SchemaDiffers { table: row.name, found, wanted });
        }
        if row.status == TableStatus::Active {
            return Ok(row);
        }
        let seconds = started.elapsed().as_secs();
        if row.status == TableStatus::Deleting || seconds >= TABLE_ACTIVE_SECONDS_MAX {
            return Err(ImportError::NotActive { table: row.name, status: row.status, seconds });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn describe_keys(schema: &KeySchema) -> String {
    let describe = |key: &KeyAttribute| format!("{}:{}", key.name, key.key_type.name());
    let sort = schema.sort.as_ref().map(|key| format!(", sort key {}", describe(key)));
    format!("partition key {}{}", describe(&schema.partition), sort.unwrap_or_default())
}

/// What is told while and after importing.
struct Report {
    names: Vec<String>,
    bar: ProgressBar,
    acknowledged_file: Option<BufWriter<File>>,
    started: Instant,
    items: u64,
    bytes: u64,
    bad: u64,
    stop: Option<Stop>,
}

impl Report {
    fn new(sources: &[Source], acknowledged_file: Option<BufWriter<File>>) -> Report {
        let names = sources.iter().map(Source::name).collect();
        Report {
            names,
            bar: progress_bar(sources),
            acknowledged_file,
            started: Instant::now(),
            items: 0,
            bytes: 0,
            bad: 0,
            stop: None,
        }
    }

    /// Counts an event; yields what stops the import at once.
    fn take(&mut self, event: Event) -> Option<Stop> {
        match event {
            Event::Acknowledged { origin, item_bytes } => {
                self.items += 1;
                self.bytes += item_bytes;
                if self.items.is_multiple_of(64) {
                    self.bar.set_message(format!("{} items", self.items));
                }
                return self.note_acknowledged(origin).err();
            }
            Event::Bad { origin, reason } => {
                self.bad += 1;
                let place = self.place(origin);
                self.bar.suspend(|| eprintln!("{place}: {reason}"));
            }
            // Lines read before are still written; the lanes end when they are.
            Event::Stopped(stop @ Stop::Read { .. }) => self.stop = Some(stop),
            Event::Stopped(stop) => return Some(stop),
        }
        None
    }

    fn place(&self, origin: Origin) -> String {
        format!("{}:{}", self.names[origin.source], origin.line)
    }

    fn note_acknowledged(&mut self, origin: Origin) -> Result<(), Stop> {
        let place = self.place(origin);
        let Some(file) = &mut self.acknowledged_file else { return Ok(()) };
        writeln!(file, "{place}").map_err(Stop::Acknowledged)
    }

    fn finish(mut self) -> Result<(), ImportError> {
        self.bar.finish_and_clear();
        if let Some(Err(error)) = self.acknowledged_file.as_mut().map(Write::flush) {
            self.stop.get_or_insert(Stop::Acknowledged(error));
        }
        let acknowledged = self.items;
        if let Some(stop) = self.stop {
            return Err(ImportError::Stopped { acknowledged, stop });
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = self.items as f64 / seconds.max(1e-9);
        println!("imported {} items, {} bytes, {seconds:.1} s, {rate:.0} items/s", self.items, self.bytes);
        match self.bad {
            0 => Ok(()),
            bad => Err(ImportError::BadLines { bad, acknowledged }),
        }
    }
}

/// Over the bytes to read where they are known, else a spinner; drawn only on a terminal.
fn progress_bar(sources: &[Source]) -> ProgressBar {
    let total: Option<u64> = sources.iter().map(Source::bytes).sum();
    let (bar, template) = match total {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {bytes}/{total_bytes} {msg} eta {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well formed"));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        import: ImportArguments,
    }

    fn parse(line: &str) -> Result<ImportArguments, clap::Error> {
        Command::try_parse_from(line.split(' ')).map(|command| command.import)
    }

    #[test]
    fn keys_are_given_with_their_types() {
        let arguments = parse("import --table t --create --partition-key a:b --sort-key s:N f -");
        assert!(arguments.is_err(), "b is no type");
        let arguments = parse("import --table t --create --partition-key a --sort-key s:y:N f -").unwrap();
        let schema = arguments.schema_to_create().unwrap();
        assert_eq!(describe_keys(&schema), "partition key a:S, sort key s:y:N");
        assert_eq!(arguments.files, ["f", "-"]);
    }

    #[test]
    fn a_command_line_that_makes_no_sense_is_a_usage_error() {
        let cases = [
            "import f",
            "import --table t",
            "import --table t --create f",
            "import --table t --partition-key a f",
            "import --table t --create --partition-key :S f",
            "import --table t --concurrency 0 f",
            "import --table t --format xml f",
        ];
        for line in cases {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn events_are_counted_and_only_a_lost_cluster_stops_at_once() {
        let mut report = Report::new(&[Source::StandardInput], None);
        let origin = Origin { source: 0, line: 7 };
        let read = Stop::Read { name: "-".into(), line: 9, source: io::Error::other("cut") };
        assert!(report.take(Event::Acknowledged { origin, item_bytes: 5 }).is_none());
        assert!(report.take(Event::Bad { origin, reason: "no item".into() }).is_none());
        assert!(report.take(Event::Stopped(read)).is_none());
        assert!(report.take(Event::Stopped(Stop::Acknowledged(io::Error::other("full")))).is_some());
        assert_eq!((report.items, report.bytes, report.bad), (1, 5, 1));
        let error = report.finish().unwrap_err().to_string();
        assert!(error.contains("1 items were acknowledged") && error.contains("-:9"), "{error}");
    }
}
