//! `evenkeel user`: who may use the DynamoDB API, and with which access keys.
//!
//! Secrets are made here and sealed under the key file before they leave; they are shown once and are
//! nowhere else in the clear.

use crate::client_config::{self, ClientConfigError};
use crate::output::Output;
use clap::{Args, Subcommand};
use evenkeel_authentication::{AccessKey, KeyFileError, SealingKey, Session};
use evenkeel_client::{Client, NewAccessKey, UserAction};
use evenkeel_model::catalogue::UserRow;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `evenkeel user`.
#[derive(Args, Clone, Debug)]
pub struct UserArguments {
    #[command(subcommand)]
    command: UserCommand,
    /// The cluster's client configuration, as `evenkeel dev` writes it in its data directory.
    #[arg(long, global = true, value_name = "FILE", default_value = "./evenkeel-data/client.toml")]
    cluster: PathBuf,
    /// The key file that secrets are sealed under, if the client configuration names none.
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand, Clone, Debug)]
enum UserCommand {
    /// Make a user and its access key.
    Create {
        /// 1 to 64 of a-z, A-Z, 0-9 and +=,.@_-
        name: String,
    },
    /// List users and their access keys.
    List,
    /// Delete a user, its access keys and its sessions.
    Delete {
        /// The user.
        name: String,
    },
    /// Give a user a new access key; the one before it stays good until the next time.
    Rotate {
        /// The user.
        name: String,
        /// End all other access keys of the user at once.
        #[arg(long)]
        replace: bool,
    },
    /// Make a temporary access key with a session token.
    Session {
        /// The user.
        name: String,
        /// How long it is good for.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=2160))]
        minutes: u32,
    },
    /// Make a key file, for the nodes' operators and the routers; keep it safe and apart from backups.
    Key {
        /// The file, which must not be there yet.
        file: PathBuf,
    },
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The client's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ClientConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// No key file is named.
    #[error("{} names no key_file; add it, or give --key-file", .0.display())]
    NoKeyFile(PathBuf),
    /// The cluster said no, or nothing.
    #[error(transparent)]
    Cluster(#[from] evenkeel_client::Error),
    /// There is no such user.
    #[error("user {0} does not exist")]
    NotFound(String),
    /// The program's own surroundings failed.
    #[error("the process could not be set up: {0}")]
    Process(#[from] std::io::Error),
}

/// Runs the command.
///
/// # Errors
/// See [`UserError`].
pub fn run(arguments: &UserArguments) -> Result<(), UserError> {
    if let UserCommand::Key { file } = &arguments.command {
        SealingKey::create(file)?;
        println!("{}", file.display());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let printed = runtime.block_on(async {
        let client = Client::connect(client_config::load(&arguments.cluster)?).await?;
        let printed = carry_out(arguments, &client).await;
        client.close().await;
        printed
    })?;
    print(arguments.output, &printed);
    Ok(())
}

async fn carry_out(arguments: &UserArguments, client: &Client) -> Result<Vec<Value>, UserError> {
    let key = || sealing_key(arguments);
    match &arguments.command {
        UserCommand::Create { name } => change(client, &key()?, name, UserAction::Create).await,
        UserCommand::Rotate { name, replace: false } => {
            change(client, &key()?, name, UserAction::Rotate).await
        }
        UserCommand::Rotate { name, replace: true } => {
            change(client, &key()?, name, UserAction::Replace).await
        }
        UserCommand::Delete { name } => {
            client.change_user(name, UserAction::Delete).await?;
            Ok(Vec::new())
        }
        UserCommand::List => Ok(client.users().await?.iter().flat_map(listed).collect()),
        UserCommand::Session { name, minutes } => {
            if !client.users().await?.iter().any(|user| user.name == *name) {
                return Err(UserError::NotFound(name.clone()));
            }
            let session = Session::begin(name, now_s() + i64::from(*minutes) * 60);
            Ok(vec![json!({
                "UserName": name,
                "AccessKeyId": session.key.id,
                "SecretAccessKey": session.key.secret.as_str(),
                "SessionToken": session.token(&key()?),
                "Expiration": session.ends_s,
            })])
        }
        UserCommand::Key { .. } => Ok(Vec::new()),
    }
}

/// Gives a user a new access key.
///
/// # Errors
/// Those of the cluster.
pub async fn give_key(
    client: &Client,
    sealing: &SealingKey,
    user: &str,
    action: impl FnOnce(NewAccessKey) -> UserAction,
) -> Result<AccessKey, evenkeel_client::Error> {
    let key = AccessKey::generate();
    let sealed = NewAccessKey { id: key.id.clone(), sealed_secret: key.seal(sealing, user) };
    client.change_user(user, action(sealed)).await?;
    Ok(key)
}

async fn change(
    client: &Client,
    sealing: &SealingKey,
    user: &str,
    action: impl FnOnce(NewAccessKey) -> UserAction,
) -> Result<Vec<Value>, UserError> {
    let key = give_key(client, sealing, user, action).await?;
    let (id, secret) = (key.id.as_str(), key.secret.as_str());
    Ok(vec![json!({ "UserName": user, "AccessKeyId": id, "SecretAccessKey": secret })])
}

/// A line for each access key.
fn listed(user: &UserRow) -> Vec<Value> {
    let line = |key: &evenkeel_model::catalogue::AccessKeyRow| json!({ "UserName": user.name, "AccessKeyId": key.id, "CreateDate": key.created_ms / 1000 });
    user.keys.iter().map(line).collect()
}

fn sealing_key(arguments: &UserArguments) -> Result<SealingKey, UserError> {
    let named = match &arguments.key_file {
        Some(file) => Some(file.clone()),
        None => client_config::key_file(&arguments.cluster)?,
    };
    let file = named.ok_or_else(|| UserError::NoKeyFile(arguments.cluster.clone()))?;
    Ok(SealingKey::read(&file)?)
}

fn now_s() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

fn print(output: Output, rows: &[Value]) {
    if output == Output::Json {
        println!("{}", Value::Array(rows.to_vec()));
        return;
    }
    for row in rows {
        let fields = row.as_object().expect("rows are objects");
        let line: Vec<String> = fields
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        println!("{}", line.join("  "));
    }
}
