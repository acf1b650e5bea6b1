//! A certificate authority, endpoints on one core, and a handler that lets a test wait for what comes.

use bytes::Bytes;
use evenkeel_driver::{Core, CoreConfig, Placement, run_core};
use evenkeel_quic::{
    Connection, ConnectionId, Endpoint, EndpointConfig, EndpointLimits, Frame, Handler, Lane, client_tls,
    server_tls,
};
use evenkeel_wire::frame::{HEADER_BYTES, seal};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

/// Signs certificates.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, with the authority that its owner trusts.
#[derive(Clone)]
pub struct Identity {
    authority: String,
    certificate: String,
    key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { authority: self.pem.clone(), certificate, key: key.serialize_pem() }
    }
}

impl Identity {
    /// The same, trusting another authority.
    pub fn trusting(mut self, authority: &Authority) -> Identity {
        self.authority = authority.pem.clone();
        self
    }

    pub fn config(&self) -> EndpointConfig {
        let (authority, certificate, key) =
            (self.authority.as_bytes(), self.certificate.as_bytes(), self.key.as_bytes());
        EndpointConfig {
            addr: "127.0.0.1:0".parse().unwrap(),
            server_tls: Some(server_tls(authority, certificate, key).unwrap()),
            client_tls: client_tls(authority, certificate, key).unwrap(),
            reset_key: None,
            spin: Duration::ZERO,
            limits: EndpointLimits::default(),
        }
    }
}

/// Everything that happened to an endpoint, in order.
#[derive(Debug, Default)]
pub struct Log {
    pub opened: Vec<Connection>,
    pub closed: Vec<ConnectionId>,
    pub lanes_closed: usize,
    pub frames: Vec<(Lane, Frame)>,
    pub datagrams: Vec<Frame>,
    waker: Option<Waker>,
}

type Answer = Rc<dyn Fn(&Lane, &Frame)>;

/// Writes a [`Log`] and answers as the test wishes.
#[derive(Clone)]
pub struct Recorder {
    log: Rc<RefCell<Log>>,
    answer: Answer,
}

impl Recorder {
    pub fn silent() -> Recorder {
        Recorder::answering(|_, _| {})
    }

    pub fn answering(answer: impl Fn(&Lane, &Frame) + 'static) -> Recorder {
        Recorder { log: Rc::default(), answer: Rc::new(answer) }
    }

    /// Sends every frame back.
    pub fn echoing() -> Recorder {
        Recorder::answering(|lane, frame| {
            lane.send(sealed(&frame.body, frame.header.request_id)).unwrap();
        })
    }

    fn note(&self, what: impl FnOnce(&mut Log)) {
        let mut log = self.log.borrow_mut();
        what(&mut log);
        if let Some(waker) = log.waker.take() {
            waker.wake();
        }
    }

    /// Waits until the log yields something.
    pub async fn until<T>(&self, mut look: impl FnMut(&mut Log) -> Option<T>) -> T {
        poll_fn(|context| {
            let mut log = self.log.borrow_mut();
            match look(&mut log) {
                Some(found) => Poll::Ready(found),
                None => {
                    log.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next so many frames.
    pub async fn frames(&self, frames: usize) -> Vec<(Lane, Frame)> {
        self.until(|log| (log.frames.len() >= frames).then(|| log.frames.drain(..frames).collect())).await
    }
}

impl Handler for Recorder {
    fn frame(&self, lane: &Lane, frame: Frame) {
        (self.answer)(lane, &frame);
        self.note(|log| log.frames.push((lane.clone(), frame)));
    }

    fn datagram(&self, _: &Connection, frame: Frame) {
        self.note(|log| log.datagrams.push(frame));
    }

    fn opened(&self, connection: &Connection) {
        self.note(|log| log.opened.push(connection.clone()));
    }

    fn lane_closed(&self, _: &Lane) {
        self.note(|log| log.lanes_closed += 1);
    }

    fn closed(&self, connection: ConnectionId) {
        self.note(|log| log.closed.push(connection));
    }
}

/// A frame around `body`.
pub fn sealed(body: &[u8], request_id: u64) -> Bytes {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend_from_slice(body);
    seal(&mut frame, 1, request_id, 0);
    frame.into()
}

/// Binds an endpoint and has the core serve it.
pub fn serve(core: &Core, config: EndpointConfig, recorder: &Recorder) -> Endpoint {
    let endpoint = Endpoint::bind(core, config).unwrap();
    core.spawn(endpoint.run(recorder.clone()));
    endpoint
}

pub fn on_a_core<Run: Future<Output = ()> + 'static>(test: impl FnOnce(Core) -> Run + Send + 'static) {
    let config = CoreConfig { name: "test".to_owned(), placement: Placement::Unbound };
    run_core(config, test).unwrap().join().unwrap();
}
