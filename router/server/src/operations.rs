//! The operations: a checked request becomes calls of the native client, their results an answer.

mod batch;
mod items;
mod tables;

use crate::answer::{Answer, api_error};
use bytes::Bytes;
use evenkeel_client::{Client, Consistency};
use evenkeel_dynamodb::{ApiError, Operation};
use evenkeel_model::catalogue::{TableRow, TableStatus};
use std::sync::Arc;

/// Room for most answers, so that their buffer is made once.
const ANSWER_BYTES: usize = 2048;

/// What an operation is carried out with.
pub struct Call<'a> {
    /// The way to the cluster.
    pub client: &'a Client,
    /// The region that the request was signed for.
    pub region: &'a str,
    /// The host that the request was sent to.
    pub host: &'a str,
    /// The request's body.
    pub body: &'a Bytes,
}

/// Carries out an operation.
///
/// # Errors
/// See [`ApiError`].
pub async fn run(operation: Operation, call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { client, region, host, body } = call;
    match operation {
        Operation::GetItem => items::get(client, body).await,
        Operation::PutItem => items::put(client, body).await,
        Operation::UpdateItem => items::update(client, body).await,
        Operation::DeleteItem => items::delete(client, body).await,
        Operation::BatchGetItem => batch::get(client, body).await,
        Operation::BatchWriteItem => batch::write(client, body).await,
        Operation::Query => items::query(client, body).await,
        Operation::Scan => items::scan(client, body).await,
        Operation::CreateTable => tables::create(client, region, body).await,
        Operation::DescribeTable => tables::describe(client, region, body).await,
        Operation::ListTables => tables::list(client, body).await,
        Operation::UpdateTable => tables::update(client, region, body).await,
        Operation::DeleteTable => tables::delete(client, region, body).await,
        Operation::TagResource => tables::tag(client, body).await,
        Operation::UntagResource => tables::untag(client, body).await,
        Operation::ListTagsOfResource => tables::list_tags(client, body).await,
        Operation::DescribeLimits => Ok(tables::describe_limits()),
        Operation::DescribeEndpoints => Ok(tables::describe_endpoints(host)),
        Operation::DescribeTimeToLive => tables::describe_time_to_live(client, body).await,
        Operation::DescribeContinuousBackups => tables::describe_continuous_backups(client, body).await,
    }
}

/// The row of a table that is open to requests. The cached row may be a moment old, so one that is not
/// ACTIVE is read again before the request is refused.
async fn active_table(client: &Client, name: &str) -> Result<Arc<TableRow>, ApiError> {
    let cached = client.table(name).await.map_err(api_error)?;
    if cached.status == TableStatus::Active {
        return Ok(cached);
    }
    let row = client.describe_table(name).await.map_err(api_error)?;
    match row.status {
        TableStatus::Active => Ok(Arc::new(row)),
        TableStatus::Creating | TableStatus::Deleting => Err(ApiError::table_not_found()),
    }
}

/// Of which moment a read that asks for `ConsistentRead`, or does not, is to be.
fn consistency(consistent: bool) -> Consistency {
    if consistent { Consistency::Strong } else { Consistency::Eventual }
}
