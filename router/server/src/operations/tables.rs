//! Operations on tables: the control plane changes them, the catalogue tells what they are like.

use super::ANSWER_BYTES;
use crate::answer::{Answer, api_error};
use crate::beside::parsed;
use bytes::Bytes;
use evenkeel_client::{Client, CreateTable, Error, TableChange};
use evenkeel_dynamodb::reply;
use evenkeel_dynamodb::request;
use evenkeel_dynamodb::{ApiError, ErrorKind};
use evenkeel_model::catalogue::{TableRow, TableStatus};

/// CreateTable.
pub async fn create(client: &Client, region: &str, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::CreateTable::parse).await?;
    let name = request.table.clone();
    let table = CreateTable {
        name: request.table,
        schema: request.schema,
        throughput: request.throughput,
        deletion_protection: request.deletion_protection,
        tags: request.tags,
    };
    let row = client.create_table(table).await.map_err(|error| match error {
        Error::TableExists { .. } => in_use(format!("Table already exists: {name}")),
        other => changing(&name, other),
    })?;
    Ok(table_answer("TableDescription", region, &row, (0, 0)))
}

/// DeleteTable.
pub async fn delete(client: &Client, region: &str, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::DeleteTable::parse).await?;
    let name = &request.table;
    let row = client.delete_table(name).await.map_err(|error| match error {
        Error::Protected { .. } => ApiError::validation(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.",
        ),
        other => changing(name, other),
    })?;
    Ok(table_answer("TableDescription", region, &row, (0, 0)))
}

/// UpdateTable.
pub async fn update(client: &Client, region: &str, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::UpdateTable::parse).await?;
    let name = &request.table;
    let before = named_row(client, name).await?;
    let change = TableChange {
        throughput: request.throughput_of(&before)?,
        deletion_protection: request.deletion_protection,
        ..TableChange::default()
    };
    let row = client.update_table(name, change).await.map_err(|error| changing(name, error))?;
    let counts = client.table_counts(&row).await.map_err(api_error)?;
    Ok(table_answer("TableDescription", region, &row, counts))
}

/// The error of a change to the table of this name.
fn changing(name: &str, error: Error) -> ApiError {
    match error {
        Error::TableNotFound { .. } => not_found(name),
        Error::TableInUse { .. } => in_use(format!(
            "Attempt to change a resource which is still in use: Table is being changed: {name}"
        )),
        other => api_error(other),
    }
}

/// The table's row as it is now, whatever its status.
async fn named_row(client: &Client, name: &str) -> Result<TableRow, ApiError> {
    client.describe_table(name).await.map_err(|error| match error {
        Error::TableNotFound { .. } => not_found(name),
        other => api_error(other),
    })
}

/// TagResource.
pub async fn tag(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::TagResource::parse).await?;
    let change = TableChange { tags_set: request.tags, ..TableChange::default() };
    let missing = format!("Requested resource not found: ResourcArn: {} not found", request.arn);
    change_tags(client, &request.table, change, missing).await
}

/// UntagResource.
pub async fn untag(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::UntagResource::parse).await?;
    let change = TableChange { tags_removed: request.keys, ..TableChange::default() };
    change_tags(client, &request.table, change, "Requested resource not found".to_owned()).await
}

/// Changes tags; both operations answer with an empty body. `missing` is said of a table that is not there.
async fn change_tags(
    client: &Client,
    table: &str,
    change: TableChange,
    missing: String,
) -> Result<Answer, ApiError> {
    match client.update_table(table, change).await {
        Ok(_) => Ok(Answer::done(Vec::new())),
        Err(Error::TableNotFound { .. }) => Err(ApiError::new(ErrorKind::ResourceNotFound, missing)),
        Err(error) => Err(changing(table, error)),
    }
}

/// ListTagsOfResource.
pub async fn list_tags(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::ListTagsOfResource::parse).await?;
    let row = client.describe_table(&request.table).await.map_err(|error| match error {
        // The service does not tell strangers which tables there are.
        Error::TableNotFound { .. } => ApiError::new(
            ErrorKind::AccessDenied,
            format!(
                "User: arn:aws:iam::000000000000:root is not authorized to perform: dynamodb:ListTagsOfResource on resource: {}",
                request.arn
            ),
        ),
        other => api_error(other),
    })?;
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_tags(&mut out, &row);
    Ok(Answer::done(out))
}

/// DescribeLimits.
pub fn describe_limits() -> Answer {
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_limits(&mut out);
    Answer::done(out)
}

/// DescribeEndpoints.
pub fn describe_endpoints(host: &str) -> Answer {
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_endpoints(&mut out, host);
    Answer::done(out)
}

/// DescribeTimeToLive.
pub async fn describe_time_to_live(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::DescribeOfTable::parse).await?;
    named_row(client, &request.table).await?;
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_time_to_live(&mut out);
    Ok(Answer::done(out))
}

/// DescribeContinuousBackups.
pub async fn describe_continuous_backups(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::DescribeOfTable::parse).await?;
    let missing = || ApiError::new(ErrorKind::TableNotFound, format!("Table not found: {}", request.table));
    client.describe_table(&request.table).await.map_err(|error| match error {
        Error::TableNotFound { .. } => missing(),
        other => api_error(other),
    })?;
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_continuous_backups(&mut out);
    Ok(Answer::done(out))
}

/// DescribeTable.
pub async fn describe(client: &Client, region: &str, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::DescribeTable::parse).await?;
    let row = named_row(client, &request.table).await?;
    let counts = match row.status {
        TableStatus::Active => client.table_counts(&row).await.map_err(api_error)?,
        TableStatus::Creating | TableStatus::Deleting => (0, 0),
    };
    Ok(table_answer("Table", region, &row, counts))
}

/// ListTables.
pub async fn list(client: &Client, body: &Bytes) -> Result<Answer, ApiError> {
    let request = parsed(body, request::ListTables::parse).await?;
    let (names, more) =
        client.list_tables(request.after.as_deref(), request.limit).await.map_err(api_error)?;
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_list_tables(&mut out, &names, more);
    Ok(Answer::done(out))
}

fn table_answer(member: &str, region: &str, row: &TableRow, counts: (u64, u64)) -> Answer {
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    reply::write_table(&mut out, member, region, row, counts.0, counts.1);
    Answer::done(out)
}

fn in_use(message: String) -> ApiError {
    ApiError::new(ErrorKind::ResourceInUse, message)
}

fn not_found(name: &str) -> ApiError {
    ApiError::new(
        ErrorKind::ResourceNotFound,
        format!("Requested resource not found: Table: {name} not found"),
    )
}
