//! Links between cores over real QUIC on loopback.

use super::*;
use evenkeel_driver::{CoreConfig, Placement, run_core};
use evenkeel_model::{Ballot, ClusterId, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp, item};
use evenkeel_paxos::{Anchor, MemberId, Support, Time};
use evenkeel_quic::{Endpoint, EndpointConfig, EndpointLimits, Handler, SERVER_NAME, node_name};
use evenkeel_storage::{Entry, Operation};
use evenkeel_wire::message::{Hello, NodeAddress, Welcome};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;

const CLUSTER: ClusterId = ClusterId(7);
/// Who is said to hold the catalogue.
const HOLDER: Place = Place { node: NodeId(2), shard: ShardId(0) };

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn config(&self, address: SocketAddr, names: &[&str]) -> EndpointConfig {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap().pem();
        let (authority, key) = (self.pem.as_bytes(), key.serialize_pem());
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        EndpointConfig {
            addr: address,
            server_tls: Some(evenkeel_quic::server_tls(authority, certificate, key).unwrap()),
            client_tls: evenkeel_quic::client_tls(authority, certificate, key).unwrap(),
            reset_key: None,
            spin: Duration::ZERO,
            limits: EndpointLimits::default(),
        }
    }
}

/// One core with its links; what arrives is kept.
struct Side {
    place: Place,
    endpoint: Endpoint,
    nodes: Rc<Nodes>,
    peers: Rc<Peers>,
    links: Rc<Links>,
    arrived: Rc<RefCell<Vec<(Place, CoreMessage)>>>,
}

/// Answers greetings and joins as the service does.
#[derive(Clone)]
struct Answering {
    place: Place,
    nodes: Rc<Nodes>,
    peers: Rc<Peers>,
    links: Rc<Links>,
    arrived: Rc<RefCell<Vec<(Place, CoreMessage)>>>,
}

impl Handler for Answering {
    fn frame(&self, lane: &Lane, frame: Frame) {
        if frame.header.kind & 0x8000 != 0 {
            return self.peers.answered(lane.id().connection, frame);
        }
        let id = frame.header.request_id;
        let answer = match Kind::from_number(frame.header.kind) {
            Some(Kind::Hello) => encode(&self.welcome(&frame), id, 0),
            Some(Kind::Join) => match self.links.join(lane, &frame) {
                Ok(joined) => encode(&joined, id, 0),
                Err(refusal) => encode(&refusal, id, 0),
            },
            _ => return self.arrived.borrow_mut().extend(self.links.receive(&lane.connection(), frame)),
        };
        lane.send(answer).unwrap();
    }

    fn datagram(&self, connection: &Connection, frame: Frame) {
        self.arrived.borrow_mut().extend(self.links.receive(connection, frame));
    }

    fn opened(&self, _: &Connection) {}

    fn closed(&self, connection: ConnectionId) {
        self.links.lost(connection);
        self.peers.closed(connection);
    }
}

impl Answering {
    fn welcome(&self, frame: &Frame) -> Welcome {
        let hello = decode::<Hello>(frame).unwrap();
        Welcome {
            cluster: CLUSTER,
            version: hello.version_max.into(),
            node: self.place.node,
            shard: self.place.shard,
            incarnation: 1,
            nodes: self.nodes.all(),
            catalogue: Vec::new(),
        }
    }
}

fn place(node: u32) -> Place {
    Place { node: NodeId(node), shard: ShardId(0) }
}

impl Side {
    fn start(core: &Core, node: u32, config: EndpointConfig) -> Side {
        let place = place(node);
        let endpoint = Endpoint::bind(core, config).unwrap();
        let nodes = Rc::new(Nodes::new(Vec::new(), vec![HOLDER]));
        nodes.learn(address(node, endpoint.local_addr()));
        let peers = Rc::new(Peers::new(core.clone(), endpoint.clone(), CLUSTER, 1, nodes.clone()));
        let links = Links::new(core.clone(), place, peers.clone(), nodes.clone());
        let arrived = Rc::default();
        let side = Side { place, endpoint, nodes, peers, links, arrived };
        let handler = Answering {
            place,
            nodes: side.nodes.clone(),
            peers: side.peers.clone(),
            links: side.links.clone(),
            arrived: side.arrived.clone(),
        };
        core.spawn(side.endpoint.run(handler));
        side
    }

    fn knows(&self, other: &Side) {
        self.nodes.learn(address(other.place.node.0, other.endpoint.local_addr()));
    }

    fn send(&self, to: &Side, message: CoreMessage) {
        self.links.send(to.place, message);
    }
}

fn address(node: u32, at: SocketAddr) -> NodeAddress {
    let (zone, host) = ("a".to_owned(), at.ip().to_string());
    NodeAddress { id: NodeId(node), zone, host, port_base: at.port(), shards: 1 }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn start(core: &Core, authority: &Authority, node: u32) -> Side {
    let name = node_name(NodeId(node));
    Side::start(core, node, authority.config(any_port(), &[SERVER_NAME, &name]))
}

fn support() -> CoreMessage {
    let support = Support { incarnation: 1, wish: Some(Time(5)), answer: None };
    CoreMessage::Support { support, chosen: Vec::new() }
}

/// An accept whose entry's slot tells it apart.
fn accept(partition: u64, slot: u64, bytes: usize) -> CoreMessage {
    let ballot = Ballot { round: 1, replica: 1 };
    let image = Rc::from(vec![slot as u8; item::HEADER_BYTES + bytes]);
    let entry = Entry {
        slot: Slot(slot),
        ballot,
        timestamp: Timestamp(slot),
        operations: vec![Operation::Put { key: Rc::from(*b"key"), image }],
        ..Entry::default()
    };
    let after = Anchor { slot: Slot(slot - 1), checksum: 1 };
    let generation = Generation(1);
    let message = Message::Accept { ballot, generation, after, chosen: Slot(0) };
    let (votes, entries, members) = (Vec::new(), vec![entry], None);
    CoreMessage::Group(GroupMessage {
        partition: PartitionId(partition),
        generation,
        from: MemberId(1),
        to: MemberId(2),
        body: Body::Consensus { message, votes, entries, end: 3, members },
    })
}

/// Partition, slot and bytes of what arrived; nothing for support.
fn seen(arrived: &[(Place, CoreMessage)]) -> Vec<(u64, u64, usize)> {
    let one = |(_, message): &(Place, CoreMessage)| match message {
        CoreMessage::Group(GroupMessage { partition, body: Body::Consensus { entries, .. }, .. }) => {
            let Operation::Put { image, .. } = &entries[0].operations[0] else { panic!("a put was sent") };
            Some((partition.0, entries[0].slot.0, image.len() - item::HEADER_BYTES))
        }
        _ => None,
    };
    arrived.iter().filter_map(one).collect()
}

/// Repeats what is said until `over`: links drop what is said while they are down.
async fn repeat(core: &Core, mut say: impl FnMut(), over: impl Fn() -> bool) {
    for _ in 0..2000 {
        if over() {
            return;
        }
        say();
        core.sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to that within ten seconds");
}

async fn joined(core: &Core, one: &Side, other: &Side) {
    let both = || one.links.up_count() > 0 && other.links.up_count() > 0;
    repeat(core, || (one.send(other, support()), other.send(one, support())).0, both).await;
}

fn on_a_core<Run: Future<Output = ()> + 'static>(test: impl FnOnce(Core) -> Run + Send + 'static) {
    let config = CoreConfig { name: "links".to_owned(), placement: Placement::Unbound };
    run_core(config, test).unwrap().join().unwrap();
}

#[test]
fn messages_of_every_size_arrive_both_ways_over_one_connection() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (one, two) = (start(&core, &authority, 1), start(&core, &authority, 2));
        one.knows(&two);
        joined(&core, &one, &two).await;
        for (from, to) in [(&one, &two), (&two, &one)] {
            to.arrived.borrow_mut().clear();
            let sizes = [10, 1000, 20_000, 5, 900_000, 16, 3_000_000, 7];
            let mut expected = Vec::new();
            for partition in 1..=3 {
                for (slot, &bytes) in sizes.iter().enumerate() {
                    from.send(to, accept(partition, slot as u64 + 1, bytes));
                    expected.push((partition, slot as u64 + 1, bytes));
                }
            }
            let all = || seen(&to.arrived.borrow()).len() == expected.len();
            repeat(&core, || {}, all).await;
            let arrived = seen(&to.arrived.borrow());
            for partition in 1..=3 {
                let of = |all: &[(u64, u64, usize)]| {
                    all.iter().filter(|seen| seen.0 == partition).copied().collect::<Vec<_>>()
                };
                assert_eq!(of(&arrived), of(&expected), "messages of a group keep their order");
            }
            assert!(to.arrived.borrow().iter().all(|(place, _)| *place == from.place));
        }
        assert_eq!((one.endpoint.connections(), two.endpoint.connections()), (1, 1));
        assert_eq!(two.nodes.address(one.place), Some(one.endpoint.local_addr()), "it said where it is");
    });
}

#[test]
fn a_small_message_does_not_wait_for_large_ones_of_other_groups() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (one, two) = (start(&core, &authority, 1), start(&core, &authority, 2));
        one.knows(&two);
        joined(&core, &one, &two).await;
        for partition in 1..=6 {
            one.send(&two, accept(partition, 1, 3_500_000));
        }
        one.send(&two, accept(7, 1, 10));
        repeat(&core, || {}, || seen(&two.arrived.borrow()).len() == 7).await;
        assert_eq!(seen(&two.arrived.borrow())[0], (7, 1, 10));
    });
}

#[test]
fn a_link_is_made_again_when_the_peer_comes_back() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (one, two) = (start(&core, &authority, 1), start(&core, &authority, 2));
        one.knows(&two);
        joined(&core, &one, &two).await;
        let at = two.endpoint.local_addr();
        two.links.close();
        two.endpoint.shutdown().await;
        repeat(&core, || one.send(&two, support()), || one.links.up_count() == 0).await;
        one.send(&two, accept(1, 1, 10));
        assert!(one.links.counts().dropped.get() > 0, "nothing is kept for a link that is down");
        drop(two);
        let name = node_name(NodeId(2));
        let again = Side::start(&core, 2, authority.config(at, &[SERVER_NAME, &name]));
        joined(&core, &one, &again).await;
        assert!(one.links.counts().made.get() >= 2);
    });
}

#[test]
fn a_core_that_has_moved_joins_those_that_should_join_it() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (one, two) = (start(&core, &authority, 1), start(&core, &authority, 2));
        two.knows(&one);
        joined(&core, &one, &two).await;
        assert_eq!(one.nodes.address(two.place), Some(two.endpoint.local_addr()), "it said where it is");
        assert_eq!((one.endpoint.connections(), two.endpoint.connections()), (1, 1));
    });
}

#[test]
fn a_core_that_nobody_has_heard_of_is_looked_for() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (one, fresh) = (start(&core, &authority, 1), start(&core, &authority, 3));
        let holder = start(&core, &authority, HOLDER.node.0);
        one.knows(&holder);
        holder.knows(&fresh);
        joined(&core, &one, &fresh).await;
        assert_eq!(one.nodes.address(fresh.place), Some(fresh.endpoint.local_addr()));
    });
}

#[test]
fn whoever_does_not_prove_to_be_the_node_it_says_is_refused() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let two = start(&core, &authority, 2);
        let third = node_name(NodeId(3));
        let cases: [(&str, &[&str], &str); 4] = [
            ("a router", &["router.evenkeel"], "the certificate shown is not that of node 1"),
            ("any node", &[SERVER_NAME], "the certificate shown is not that of node 1"),
            ("another node", &[SERVER_NAME, &third], "the certificate shown is not that of node 1"),
            ("no role", &["1.node.evenkeel"], "the certificate shown is not that of node 1"),
        ];
        for (name, names, expected) in cases {
            let impostor = Side::start(&core, 1, authority.config(any_port(), names));
            impostor.knows(&two);
            let refused = impostor.links.open_and_join(two.place).await.err().unwrap();
            assert!(refused.contains(expected), "{name}: {refused}");
            assert_eq!(two.links.up_count(), 0, "{name}");
        }
        // Nor does anybody take another for the node it wants.
        let one = start(&core, &authority, 1);
        one.nodes.learn(address(3, two.endpoint.local_addr()));
        let refused = one.links.open_and_join(place(3)).await.err().unwrap();
        assert!(refused.contains("cannot be reached"), "{refused}");
    });
}

#[test]
fn cores_that_want_another_or_write_another_log_do_not_join() {
    on_a_core(|core| async move {
        let authority = Authority::new();
        let (one, two) = (start(&core, &authority, 1), start(&core, &authority, 2));
        one.knows(&two);
        let lane = one.peers.open(two.place).await.unwrap();
        let join = |wanted: u32, lowest, written| Join {
            node: address(1, one.endpoint.local_addr()),
            shard: ShardId(0),
            wanted_node: NodeId(wanted),
            wanted_shard: ShardId(0),
            log_version_min: lowest,
            log_version: written,
        };
        let next = LOG_VERSION + 1;
        let cases = [
            (join(5, LOG_VERSION, LOG_VERSION), "this is shard 0 of node 2, not shard 0 of node 5"),
            (join(2, next, next), "log entries of versions 3 to 3 are understood there, of version 2 here"),
            (join(2, 1, 1), "log entries of versions 1 to 1 are understood there, of version 2 here"),
        ];
        for (join, expected) in cases {
            let answer = one.peers.exchange(&lane, &join).await.unwrap();
            let text = refusal_text(&answer);
            assert!(text.starts_with(expected), "{text}");
        }
        let answer = one.peers.exchange(&lane, &join(2, 1, next)).await.unwrap();
        assert_eq!(answer.header.kind, Kind::Joined as u16, "one that reads both versions may join");
    });
}

#[test]
fn pauses_double_up_to_their_limit_and_half_is_jitter() {
    let cases = [(1, 0, 10), (1, 10_000, 20), (3, 0, 40), (9, 0, 500), (99, 500_000, 1000)];
    for (failures, random, expected_ms) in cases {
        assert_eq!(pause(failures, random), Duration::from_millis(expected_ms), "{failures} {random}");
    }
}
