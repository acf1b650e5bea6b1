//! `evenkeel node`: one storage node, as its configuration file says, until it is told to stop.

use crate::signals::{StopSignals, waiting_runtime};
use crate::telemetry;
use clap::Args;
use evenkeel_node::{NodeConfig, NodeError};
use std::path::PathBuf;

/// Arguments of `evenkeel node`.
#[derive(Args)]
pub struct NodeArguments {
    /// The node's configuration (TOML); `evenkeel dev` writes examples in its data directory.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop in order also when standard input ends, for whoever watches this process.
    #[arg(long)]
    attached: bool,
}

/// Why the node ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeCommandError {
    /// The node did not start, or stopped by itself.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Signals or threads could not be had.
    #[error("the process could not be set up: {0}")]
    Process(#[from] std::io::Error),
}

/// Runs the node.
///
/// # Errors
/// See [`NodeCommandError`].
pub fn run(arguments: &NodeArguments) -> Result<(), NodeCommandError> {
    let config = NodeConfig::load(&arguments.config).map_err(NodeError::from)?;
    telemetry::collect_metrics();
    let runtime = waiting_runtime()?;
    runtime.block_on(async {
        let mut signals = StopSignals::catch()?.and_end_of_input(arguments.attached);
        let mut node = evenkeel_node::start(config)?;
        println!("ready");
        tokio::select! {
            () = signals.received() => {}
            () = node.ended() => {}
        }
        Ok(node.stop()?)
    })
}
