//! What a client is told by its application.

use crate::limits::TIMEOUT_DEFAULT;
use evenkeel_caller::{BudgetPolicy, RetryPolicy};
use evenkeel_model::ClusterId;
use std::sync::Arc;
use std::time::Duration;

/// How to reach a cluster and how patient to be with it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses (`host:port`) of shard 0 of one or more nodes; any one that answers is enough.
    pub seeds: Vec<String>,
    /// Whom to trust and how to prove oneself; see [`crate::tls::client_config`].
    pub tls: Arc<rustls::ClientConfig>,
    /// The cluster wanted; nothing to take the one that the seeds belong to.
    pub cluster: Option<ClusterId>,
    /// The availability zone of the application: reads that need not be of this moment go to a replica there.
    /// Nothing to have leaders answer them too.
    pub zone: Option<String>,
    /// How long one operation may take, retries included.
    pub timeout: Duration,
    /// How often and how fast one operation is tried again.
    pub retry: RetryPolicy,
    /// How many retries all operations together may cost.
    pub retry_budget: BudgetPolicy,
    /// Whether to know all users of the API, for whoever verifies requests.
    pub follow_users: bool,
}

impl ClientConfig {
    /// A configuration with these seeds and certificates, and defaults for everything else.
    pub fn new(seeds: Vec<String>, tls: Arc<rustls::ClientConfig>) -> ClientConfig {
        ClientConfig {
            seeds,
            tls,
            cluster: None,
            zone: None,
            timeout: TIMEOUT_DEFAULT,
            retry: RetryPolicy::default(),
            retry_budget: BudgetPolicy::default(),
            follow_users: false,
        }
    }
}
