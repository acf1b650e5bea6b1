//! The smallest DynamoDB client: JSON in, JSON out, over one connection that is kept.

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;

/// A connection to the DynamoDB API.
pub struct DynamoDb {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

/// Why a request was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection could not be made or was lost.
    #[error("connection to {address}: {reason}")]
    Connection {
        /// Where to.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The service answered with an error.
    #[error("{operation} answered {status}: {body}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The answer.
        body: String,
    },
}

impl DynamoDb {
    /// Connects.
    ///
    /// # Errors
    /// If nothing listens there.
    pub async fn connect(address: SocketAddr) -> Result<DynamoDb, HttpError> {
        let fault = |reason: String| HttpError::Connection { address, reason };
        let stream =
            tokio::net::TcpStream::connect(address).await.map_err(|error| fault(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| fault(error.to_string()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| fault(error.to_string()))?;
        // It ends with the sender; what goes wrong on it is seen by the request under way.
        tokio::spawn(async move { drop(connection.await) });
        Ok(DynamoDb { sender, address })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn call(&mut self, operation: &'static str, body: &Value) -> Result<Value, HttpError> {
        let address = self.address;
        let fault = |reason: String| HttpError::Connection { address, reason };
        let request = Request::post("/")
            .header("host", address.to_string())
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header("content-type", "application/x-amz-json-1.0")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| fault(error.to_string()))?;
        let response = self.sender.send_request(request).await.map_err(|error| fault(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| fault(error.to_string()))?.to_bytes();
        let text = || String::from_utf8_lossy(&body).into_owned();
        if status != 200 {
            return Err(HttpError::Refused { operation, status, body: text() });
        }
        serde_json::from_slice(&body).map_err(|error| fault(format!("{error} in {}", text())))
    }
}
