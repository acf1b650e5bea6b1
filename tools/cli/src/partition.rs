//! `evenkeel partition`: where the copies of partitions are, who leads, and how far each copy is.
//!
//! Each copy is asked itself; one that cannot be asked says why. Nothing is changed.

use crate::client_config::{self, ClientConfigError};
use crate::output::{Output, columns};
use clap::{Args, Subcommand};
use evenkeel_client::{Client, PartitionDescription, ReplicaDescription, ReplicaReport};
use evenkeel_model::PartitionId;
use evenkeel_model::hex::Hex;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `evenkeel partition`.
#[derive(Args, Clone, Debug)]
pub struct PartitionArguments {
    #[command(subcommand)]
    command: PartitionCommand,
    /// The cluster's client configuration, as `evenkeel dev` writes it in its data directory.
    #[arg(long, global = true, value_name = "FILE", default_value = "./evenkeel-data/client.toml")]
    cluster: PathBuf,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand, Clone, Debug)]
enum PartitionCommand {
    /// List partitions: table, leader, copies, and how many slots the slowest copy has still to apply.
    List {
        /// Only those of this table.
        #[arg(long)]
        table: Option<String>,
    },
    /// Show one partition: its range, and ballot, slots, lag and content of each copy.
    Describe {
        /// Its number; 0 is the catalogue.
        partition: u64,
    },
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The client's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ClientConfigError),
    /// The cluster said no, or nothing.
    #[error(transparent)]
    Cluster(#[from] evenkeel_client::Error),
    /// There is no such table.
    #[error("table {0} does not exist")]
    NoTable(String),
    /// There is no such partition.
    #[error("partition {0} does not exist; `evenkeel partition list` shows those that do")]
    NoPartition(PartitionId),
    /// The program's own surroundings failed.
    #[error("the process could not be set up: {0}")]
    Process(#[from] std::io::Error),
}

/// Runs the command.
///
/// # Errors
/// See [`PartitionError`].
pub fn run(arguments: &PartitionArguments) -> Result<(), PartitionError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut partitions = runtime.block_on(async {
        let client = Client::connect(client_config::load(&arguments.cluster)?).await?;
        let partitions = client.partitions().await;
        client.close().await;
        Ok::<_, PartitionError>(partitions?)
    })?;
    match &arguments.command {
        PartitionCommand::List { table } => {
            if let Some(table) = table {
                partitions.retain(|partition| partition.table == *table);
                if partitions.is_empty() {
                    return Err(PartitionError::NoTable(table.clone()));
                }
            }
            match arguments.output {
                Output::Table => print!("{}", list(&partitions)),
                Output::Json => println!("{}", Value::Array(partitions.iter().map(as_json).collect())),
            }
        }
        PartitionCommand::Describe { partition } => {
            let id = PartitionId(*partition);
            let found = partitions.iter().find(|partition| partition.partition == id);
            let found = found.ok_or(PartitionError::NoPartition(id))?;
            match arguments.output {
                Output::Table => print!("{}", describe(found)),
                Output::Json => println!("{}", as_json(found)),
            }
        }
    }
    Ok(())
}

fn place(replica: &ReplicaDescription) -> String {
    format!("{}/{}", replica.node, replica.shard)
}

/// The copy that leads and is sure to, as it says itself.
fn leader(partition: &PartitionDescription) -> Option<(&ReplicaDescription, &ReplicaReport)> {
    let reports =
        partition.replicas.iter().filter_map(|replica| Some((replica, replica.state.as_ref().ok()?)));
    reports.filter(|(_, report)| report.leads).max_by_key(|(_, report)| (report.leased, report.ballot))
}

fn list(partitions: &[PartitionDescription]) -> String {
    let row = |partition: &PartitionDescription| {
        let lag = |replica: &ReplicaDescription| match &replica.state {
            Ok(report) => partition.lag(report).to_string(),
            Err(_) => "?".to_owned(),
        };
        [
            partition.partition.to_string(),
            table_name(partition).to_owned(),
            partition.generation.to_string(),
            leader(partition).map_or("none".to_owned(), |(replica, _)| place(replica)),
            partition.replicas.iter().map(place).collect::<Vec<_>>().join(" "),
            partition.replicas.iter().map(lag).collect::<Vec<_>>().join(" "),
        ]
    };
    let rows: Vec<_> = partitions.iter().map(row).collect();
    columns(["PARTITION", "TABLE", "GENERATION", "LEADER", "REPLICAS", "LAG"], &rows)
}

fn table_name(partition: &PartitionDescription) -> &str {
    if partition.partition == PartitionId::CATALOGUE { "(catalogue)" } else { &partition.table }
}

fn describe(partition: &PartitionDescription) -> String {
    let bound = |key: &[u8]| if key.is_empty() { "-".to_owned() } else { Hex(key).to_string() };
    let head = format!(
        "partition {} of table {}, generation {}\nencoded keys from {} to {}\n\n",
        partition.partition,
        table_name(partition),
        partition.generation,
        bound(&partition.lower),
        partition.upper.as_deref().map_or("-".to_owned(), bound),
    );
    let row = |replica: &ReplicaDescription| {
        let place = [place(replica), replica.zone.clone()];
        let report = match &replica.state {
            Err(reason) => {
                let unknown = std::array::from_fn::<String, 9, _>(|_| "?".to_owned());
                return join(place, [&[format!("away: {reason}")][..], &unknown].concat());
            }
            Ok(report) => report,
        };
        let says = vec![
            role(report).to_owned(),
            report.member.to_string(),
            ballot(report),
            report.applied.to_string(),
            report.end.to_string(),
            report.mark.map_or("-".to_owned(), |(slot, _)| slot.to_string()),
            report.mark.map_or("-".to_owned(), |(_, hash)| format!("{hash:032x}")),
            partition.lag(report).to_string(),
            report.items.to_string(),
            report.bytes.to_string(),
        ];
        join(place, says)
    };
    let rows: Vec<[String; 12]> = partition.replicas.iter().map(row).collect();
    let place = ["REPLICA", "ZONE"];
    let says = ["ROLE", "MEMBER", "BALLOT", "APPLIED", "END", "MARK", "CONTENT", "LAG", "ITEMS", "BYTES"];
    head + &columns(join(place, says.into()), &rows)
}

fn join<T: Default>(place: [T; 2], says: Vec<T>) -> [T; 12] {
    let mut cells = place.into_iter().chain(says);
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

fn role(report: &ReplicaReport) -> &'static str {
    match (report.leads, report.leased) {
        (true, true) => "leader",
        (true, false) => "leader without lease",
        (false, _) => "follower",
    }
}

fn ballot(report: &ReplicaReport) -> String {
    format!("{}.{}", report.ballot.round, report.ballot.replica)
}

fn as_json(partition: &PartitionDescription) -> Value {
    let replica = |replica: &ReplicaDescription| {
        let mut row = json!({ "node": replica.node.0, "shard": replica.shard.0, "zone": replica.zone });
        let says = match &replica.state {
            Err(reason) => json!({ "away": reason }),
            Ok(report) => json!({
                "role": role(report),
                "member": report.member,
                "ballot": ballot(report),
                "applied": report.applied.0,
                "end": report.end.0,
                "mark": report.mark.map(|(slot, _)| slot.0),
                "content": report.mark.map(|(_, hash)| format!("{hash:032x}")),
                "lag": partition.lag(report),
                "items": report.items,
                "bytes": report.bytes,
            }),
        };
        let says = says.as_object().cloned().unwrap_or_default();
        row.as_object_mut().expect("made as an object above").extend(says);
        row
    };
    json!({
        "partition": partition.partition.0,
        "table": partition.table,
        "generation": partition.generation.0,
        "lower": Hex(&partition.lower).to_string(),
        "upper": partition.upper.as_deref().map(|upper| Hex(upper).to_string()),
        "leader": leader(partition).map(|(replica, _)| json!({ "node": replica.node.0, "shard": replica.shard.0 })),
        "replicas": partition.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}
