//! Where logs and metrics of the process go: set up once, here, and handed down.

use metrics_exporter_prometheus::PrometheusBuilder;
use std::io::IsTerminal;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Renders the metrics of the process as Prometheus text.
pub type Renderer = Arc<dyn Fn() -> String + Send + Sync>;

/// The variable that chooses what is logged.
const FILTER_VARIABLE: &str = "EVENKEEL_LOG";

/// Sends logs to standard error.
pub fn log_to_standard_error() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Collects the metrics of the process and yields what renders them as Prometheus text.
///
/// # Panics
/// If called twice: there is one recorder a process.
pub fn collect_metrics() -> Renderer {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).expect("the recorder is installed once, at the start");
    Arc::new(move || {
        handle.run_upkeep();
        handle.render()
    })
}
