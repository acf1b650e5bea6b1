//! QUIC on a core: connections of long-lived, framed streams between proven identities.
//!
//! quinn-proto is the protocol, a pure state machine; this crate turns its crank inside a core's
//! thread. One task per core, [`Endpoint::run`], receives datagrams in batches, cuts streams into
//! [frames](evenkeel_wire::frame), hands them to a [`Handler`], and sends what the handler and other
//! tasks have answered, at the end of the same turn.
//!
//! - A **connection** is between two certificates of one authority; the names in them are its roles.
//! - A **lane** is one bidirectional stream of frames, for as long as the connection lives. Frames of
//!   one lane arrive in order; lanes do not wait for each other.
//! - A **datagram** is one frame by itself: it may be lost, and waits for nothing.
//! - A frame whose checksum is wrong ends its connection: nothing behind it can be found.
//!
//! It knows nothing of what frames mean.

mod connection;
mod echo;
mod endpoint;
pub mod limits;
mod reset_key;
mod shared;
mod tls;
mod transport;
mod turn;

pub use connection::{Closed, Connection, ConnectionId, Lane, LaneId};
pub use echo::EchoHandler;
pub use endpoint::{BindError, ConnectError, Endpoint, EndpointConfig, Handler};
pub use evenkeel_wire::frame::{Frame, FrameHeader};
pub use limits::EndpointLimits;
pub use reset_key::reset_key;
pub use shared::EndpointStatistics;
pub use tls::{
    ALPN, Role, Roles, SERVER_NAME, TlsError, certificate_identity, client_tls, node_name, server_tls,
};
pub use transport::CloseCode;
