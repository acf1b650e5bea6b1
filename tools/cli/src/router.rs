//! `evenkeel router`: one router, as its configuration file says, until it is told to stop.

use crate::signals::{StopSignals, waiting_runtime};
use crate::telemetry;
use clap::Args;
use evenkeel_router::RouterConfig;
use std::path::PathBuf;

/// Arguments of `evenkeel router`.
#[derive(Args)]
pub struct RouterArguments {
    /// The router's configuration (TOML); `evenkeel dev` writes an example in its data directory.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the admin endpoint listens, instead of what the file says.
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Stop in order also when standard input ends, for whoever watches this process.
    #[arg(long)]
    attached: bool,
}

/// Why the router ended.
#[derive(Debug, thiserror::Error)]
pub enum RouterCommandError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] evenkeel_router::ConfigError),
    /// The router did not start.
    #[error(transparent)]
    Start(#[from] evenkeel_router::StartError),
    /// Signals or threads could not be had.
    #[error("the process could not be set up: {0}")]
    Process(#[from] std::io::Error),
}

/// Runs the router.
///
/// # Errors
/// See [`RouterCommandError`].
pub fn run(arguments: &RouterArguments) -> Result<(), RouterCommandError> {
    let mut config = RouterConfig::load(&arguments.config)?;
    if let Some(port) = arguments.admin_port {
        config.admin.listen.set_port(port);
    }
    let metrics = telemetry::collect_metrics();
    let runtime = waiting_runtime()?;
    runtime.block_on(async {
        let mut signals = StopSignals::catch()?.and_end_of_input(arguments.attached);
        let router = evenkeel_router::start(config, metrics)?;
        println!("ready: http://{}", router.http_address);
        signals.received().await;
        router.shutdown();
        Ok(())
    })
}
