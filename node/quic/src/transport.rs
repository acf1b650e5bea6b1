//! How quinn-proto is set up, and the codes with which connections are closed.

use crate::{
    endpoint::BindError,
    limits::{
        CONNECTION_UNACKNOWLEDGED_BYTES_MAX, CONNECTION_WINDOW_BYTES, DATAGRAM_BYTES_MAX,
        DATAGRAMS_WAITING_BYTES_MAX, IDLE_TIMEOUT_MS, INITIAL_ROUND_TRIP_MS, INITIAL_WINDOW_BYTES,
        KEEP_ALIVE_MS, LANE_WINDOW_BYTES, LANES_MAX,
    },
    reset_key::ResetKey,
};
use quinn_proto::{
    ClientConfig, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use std::{sync::Arc, time::Duration};

/// Why a side closed a connection, as it stands in the closing frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCode {
    /// The endpoint shuts down; connect again later.
    Shutdown = 0,
    /// A frame was malformed or its checksum wrong.
    MalformedFrame = 1,
    /// The connection is not wanted any more.
    Unwanted = 2,
    /// The handler of frames refused to go on with this peer.
    Refused = 3,
}

impl CloseCode {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

fn transport(keep_alive: bool) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(LANES_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_UNACKNOWLEDGED_BYTES_MAX)
        .initial_rtt(Duration::from_millis(INITIAL_ROUND_TRIP_MS))
        .datagram_receive_buffer_size(Some(DATAGRAMS_WAITING_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAMS_WAITING_BYTES_MAX)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(cubic))
        .keep_alive_interval(keep_alive.then(|| Duration::from_millis(u64::from(KEEP_ALIVE_MS))));
    Arc::new(transport)
}

/// For connections that a peer opens.
pub fn server(tls: Arc<rustls::ServerConfig>) -> Result<Arc<ServerConfig>, BindError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| BindError::CipherSuite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(false));
    Ok(Arc::new(config))
}

/// For connections that this side opens, which keeps them alive.
pub fn client(tls: Arc<rustls::ClientConfig>) -> Result<ClientConfig, BindError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| BindError::CipherSuite)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(true));
    Ok(config)
}

/// For the endpoint as a whole.
pub fn endpoint(reset_key: Option<&[u8; 32]>) -> Arc<EndpointConfig> {
    let mut config = EndpointConfig::default();
    if let Some(key) = reset_key {
        let key = ResetKey::new(key);
        let connection_id_key = key.connection_id_key();
        config
            .reset_key(Arc::new(key))
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));
    }
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("at least 1200 bytes, as every path carries");
    Arc::new(config)
}
