//! The floor under every request: frames echoed by a core's endpoint, asked by a quinn client.
//!
//! Nothing but the transport is measured: the core answers each frame at once and the client, on one
//! thread as the native client is, sends the next ones as soon as answers arrive. Frames are checked
//! on both sides, as they always are.

use crate::certificates::{self, IdentityFiles};
use crate::error::BenchError;
use crate::load;
use crate::machine;
use crate::tally::{Measured, Tally};
use bytes::Bytes;
use evenkeel_client::tls;
use evenkeel_driver::{Core, CoreConfig, CoreHandle, Placement, run_core};
use evenkeel_quic::{
    EchoHandler, Endpoint, EndpointConfig, EndpointLimits, SERVER_NAME, client_tls, server_tls,
};
use evenkeel_wire::{Cutter, HEADER_BYTES, Kind, frame};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{MtuDiscoveryConfig, RecvStream, SendStream, TransportConfig, VarInt};
use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const PHASE: &str = "echo";
/// Bytes of a request's body, about those of a get.
const ASKED_BYTES: usize = 128;
/// Bytes of an answer's body, about those of an item.
const ANSWER_BYTES: usize = 1024;
/// As the native client's connections.
const DATAGRAM_BYTES_MAX: u16 = 1452;
const CHUNKS_PER_READ: usize = 32;

struct Pem {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn load(directory: &Path, role: &str) -> Result<Pem, BenchError> {
        let IdentityFiles { ca, certificate, key } = certificates::files(directory, role);
        let read =
            |path: &Path| fs::read(path).map_err(|source| BenchError::File { path: path.to_owned(), source });
        Ok(Pem { ca: read(&ca)?, certificate: read(&certificate)?, key: read(&key)? })
    }
}

/// An echoing core and what is needed to ask it.
pub struct Echo {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    core: CoreHandle<Result<(), String>>,
    client: quinn::ClientConfig,
}

impl Echo {
    /// Starts the core; identities are made in `directory`.
    ///
    /// # Errors
    /// The core could not be started.
    pub fn start(directory: &Path) -> Result<Echo, BenchError> {
        certificates::make(directory, 1)?;
        let server = endpoint_config(&Pem::load(directory, &certificates::node(1))?)?;
        let client = client_config(&Pem::load(directory, "client")?)?;
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let config = CoreConfig { name: "bench-echo".to_owned(), placement: Placement::Unbound };
        let run = move |core: Core| serve(core, server, bound, stopped);
        let core = run_core(config, run).map_err(BenchError::in_phase(PHASE))?;
        match address.recv() {
            Ok(address) => Ok(Echo { address, stop, core, client }),
            // The sender is gone because the core ended, which says why.
            Err(_) => {
                let ended = core.join().map_err(BenchError::in_phase(PHASE))?;
                let reason = ended.err().unwrap_or_else(|| "the core ended early".to_owned());
                Err(BenchError::Phase { phase: PHASE, reason })
            }
        }
    }

    /// Measures echoes with so many in flight.
    ///
    /// # Errors
    /// The connection failed.
    pub fn measure(&self, in_flight: u64, lasts: Duration) -> Result<Measured, BenchError> {
        let fault = BenchError::in_phase(PHASE);
        let asked = async {
            let endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())
                .map_err(|error| error.to_string())?;
            let connecting = endpoint.connect_with(self.client.clone(), self.address, SERVER_NAME);
            let connecting = connecting.map_err(|error| error.to_string())?;
            let connection = connecting.await.map_err(|error| error.to_string())?;
            let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
            let measured = Asker::new(send, receive).run(in_flight, lasts).await;
            connection.close(VarInt::from_u32(0), b"");
            endpoint.wait_idle().await;
            Ok(measured)
        };
        load::runtime()
            .map_err(BenchError::in_phase(PHASE))?
            .block_on(asked)
            .map_err(|reason: String| fault(reason))
    }

    /// Ends the core.
    ///
    /// # Errors
    /// It had ended badly.
    pub fn stop(self) -> Result<(), BenchError> {
        // A core that has ended does not listen; joining it tells why.
        let _ = self.stop.send(());
        let ended = self.core.join().map_err(BenchError::in_phase(PHASE))?;
        ended.map_err(BenchError::in_phase(PHASE))
    }
}

fn endpoint_config(pem: &Pem) -> Result<EndpointConfig, BenchError> {
    let fault = BenchError::in_phase(PHASE);
    Ok(EndpointConfig {
        addr: (Ipv4Addr::LOCALHOST, 0).into(),
        server_tls: Some(server_tls(&pem.ca, &pem.certificate, &pem.key).map_err(&fault)?),
        client_tls: client_tls(&pem.ca, &pem.certificate, &pem.key).map_err(&fault)?,
        reset_key: None,
        spin: Duration::ZERO,
        limits: EndpointLimits::default(),
    })
}

fn client_config(pem: &Pem) -> Result<quinn::ClientConfig, BenchError> {
    let tls = tls::client_config(&pem.ca, &pem.certificate, &pem.key).map_err(BenchError::in_phase(PHASE))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(BenchError::in_phase(PHASE))?;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX);
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(Some(discovery)).datagram_receive_buffer_size(None);
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

async fn serve(
    core: Core,
    config: EndpointConfig,
    bound: mpsc::Sender<SocketAddr>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let endpoint = Endpoint::bind(&core, config).map_err(|error| error.to_string())?;
    core.spawn(endpoint.run(EchoHandler { body_bytes: ANSWER_BYTES }));
    bound.send(endpoint.local_addr()).map_err(|error| error.to_string())?;
    // Stopped by a message, or by the end of who could send one.
    let _ = stopped.await;
    endpoint.shutdown().await;
    Ok(())
}

/// Asks on one stream and counts the answers, which come in order.
struct Asker {
    send: SendStream,
    receive: RecvStream,
    tally: Tally,
    /// When those in flight were sent, and their ids.
    sent: VecDeque<(u64, Instant)>,
    next_id: u64,
}

impl Asker {
    fn new(send: SendStream, receive: RecvStream) -> Asker {
        Asker { send, receive, tally: Tally::new(), sent: VecDeque::new(), next_id: 1 }
    }

    async fn run(mut self, in_flight: u64, lasts: Duration) -> Measured {
        let before = machine::now();
        let start = Instant::now();
        if let Err(reason) = self.exchange(in_flight, start + lasts).await {
            for _ in 0..self.sent.len().max(1) {
                self.tally.error(&reason);
            }
        }
        self.tally.measure(start.elapsed(), before.and_then(machine::Moment::until_now))
    }

    async fn exchange(&mut self, in_flight: u64, until: Instant) -> Result<(), String> {
        let mut cutter = Cutter::default();
        let mut chunks: [Bytes; CHUNKS_PER_READ] = std::array::from_fn(|_| Bytes::new());
        let mut frames = Vec::new();
        self.ask(in_flight).await?;
        while !self.sent.is_empty() {
            let read = self.receive.read_chunks(&mut chunks).await.map_err(|error| error.to_string())?;
            let count = read.ok_or("the stream ended")?;
            for chunk in chunks.iter_mut().take(count) {
                let cut = cutter.push(std::mem::take(chunk), |frame| frames.push(frame));
                cut.map_err(|error| error.to_string())?;
            }
            let answered = frames.len() as u64;
            for frame in frames.drain(..) {
                self.answered(frame)?;
            }
            if Instant::now() < until {
                self.ask(answered).await?;
            }
        }
        Ok(())
    }

    async fn ask(&mut self, count: u64) -> Result<(), String> {
        if count == 0 {
            return Ok(());
        }
        let mut requests = Vec::new();
        let now = Instant::now();
        for _ in 0..count {
            let mut request = [0; HEADER_BYTES + ASKED_BYTES];
            frame::seal(&mut request, Kind::Get as u16, self.next_id, 0);
            requests.extend_from_slice(&request);
            self.tally.attempt();
            self.sent.push_back((self.next_id, now));
            self.next_id += 1;
        }
        self.send.write_all(&requests).await.map_err(|error| error.to_string())
    }

    fn answered(&mut self, bytes: Bytes) -> Result<(), String> {
        let frame = frame::open(bytes).map_err(|error| error.to_string())?;
        let (id, began) = self.sent.pop_front().ok_or("an answer to nothing")?;
        if frame.header.request_id == id && frame.body.len() == ANSWER_BYTES {
            self.tally.success(began);
        } else {
            self.tally.wrong(format_args!("request {id}: {:?}", frame.header));
        }
        Ok(())
    }
}
