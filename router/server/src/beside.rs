//! Work that grows with a request or its answer: small at once, large beside the worker.
//!
//! A worker serves many connections on one thread. What takes it milliseconds, megabytes of JSON to read
//! or to write, would be a delay of every other connection; so it is done on a thread of the worker's
//! pool, by its size alone and never by how busy the worker is.

use bytes::Bytes;
use evenkeel_dynamodb::ApiError;
use std::panic::resume_unwind;

/// Most bytes that are worked on at once: some hundred microseconds.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;
/// Threads of a worker's pool; more large requests wait for one.
pub const THREADS: usize = 2;

/// Runs work on this many bytes.
pub async fn sized<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= AT_ONCE_BYTES_MAX {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Pools are never shut down under a request, so it can only have panicked.
        Err(error) => resume_unwind(error.into_panic()),
    }
}

/// Reads a request from its body.
///
/// # Errors
/// Those of `parse`.
pub async fn parsed<T: Send + 'static>(
    body: &Bytes,
    parse: fn(&[u8]) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let body = body.clone();
    sized(body.len(), move || parse(&body)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[tokio::test]
    async fn small_work_stays_and_large_work_goes_elsewhere() {
        let here = thread::current().id();
        assert_eq!(sized(AT_ONCE_BYTES_MAX, || thread::current().id()).await, here);
        assert_ne!(sized(AT_ONCE_BYTES_MAX + 1, || thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn a_panic_of_large_work_is_one_of_its_request() {
        let work = || sized(AT_ONCE_BYTES_MAX + 1, || panic!("as small work would"));
        let joined = tokio::spawn(async move { work().await }).await;
        assert!(joined.unwrap_err().is_panic());
    }
}
