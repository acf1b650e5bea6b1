//! A cluster in this process that speaks the protocol over real QUIC, keeps items in memory, and can be
//! told to misbehave for chosen requests.

use bytes::Bytes;
use evenkeel_client::{Client, ClientConfig, tls};
use evenkeel_model::catalogue::{PartitionRow, Replica, TableRow, TableStatus, partition_key, table_key};
use evenkeel_model::key::even_bounds;
use evenkeel_model::{
    ClusterId, Generation, KeyAttribute, KeySchema, KeyType, NodeId, PartitionId, ShardId, Slot, TableId,
    encode_item,
};
use evenkeel_wire::message::{
    Changed, CreateTable, Delete, DeleteTable, Found, Get, Hello, NodeAddress, Page, PartitionCounts,
    PartitionStatistics, Put, Range, Row, ShardPlace, Table, Watch, Welcome, Written,
};
use evenkeel_wire::{
    Cutter, Frame, Kind, Message, PROTOCOL_VERSION, Refusal, RefusalCode, decode, encode, frame,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, SendStream};
use rustls::pki_types::PrivateKeyDer;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

pub const CLUSTER: ClusterId = ClusterId(77);

/// What to do with one request instead of answering it.
pub enum Action {
    Refuse(RefusalCode),
    CloseConnection,
    /// No answer; the request goes to the test, which may answer it later.
    Hold(mpsc::UnboundedSender<Held>),
    /// Bytes that are no frame.
    Garbage,
    /// The right answer with one bit changed.
    FlippedBit,
}

/// A request that waits for the test.
pub struct Held {
    request: Request,
}

struct FakePartition {
    row: PartitionRow,
    items: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct Data {
    partitions: HashMap<PartitionId, FakePartition>,
    nodes: Vec<NodeAddress>,
    actions: VecDeque<(Kind, Action)>,
    /// Kind, lane and body bytes of every request.
    seen: Vec<(Kind, u64, usize)>,
    /// Session and sequence of every put that arrived, whatever became of it.
    tokens: Vec<(u128, u64)>,
}

struct State {
    data: Mutex<Data>,
    applied: watch::Sender<u64>,
}

pub struct Cluster {
    state: Arc<State>,
    endpoints: Vec<Endpoint>,
    pub tls: Arc<rustls::ClientConfig>,
}

struct Request {
    state: Arc<State>,
    node: NodeId,
    connection: Connection,
    lane: mpsc::UnboundedSender<Bytes>,
    frame: Frame,
}

pub fn table_row(id: u64, name: &str, sort: Option<KeyType>) -> TableRow {
    let attribute = |name: &str, key_type| KeyAttribute { name: name.to_owned(), key_type };
    TableRow {
        id: TableId(id),
        name: name.to_owned(),
        schema: KeySchema {
            partition: attribute("pk", KeyType::S),
            sort: sort.map(|key_type| attribute("sk", key_type)),
        },
        status: TableStatus::Active,
        created_ms: 1,
        throughput: None,
        on_demand_since_ms: None,
        deletion_protection: false,
        tags: Default::default(),
    }
}

impl Cluster {
    /// Nodes 1 to `nodes`, with the catalogue on node 1.
    pub fn start(nodes: u32) -> Cluster {
        let made = rcgen::generate_simple_self_signed(vec!["node.evenkeel".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        server.alpn_protocols = vec![tls::ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(Arc::new(server)).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let state = Arc::new(State { data: Mutex::default(), applied: watch::Sender::new(1) });
        let mut cluster = Cluster {
            state,
            endpoints: Vec::new(),
            tls: tls::client_config(certificate.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap(),
        };
        for node in 1..=nodes {
            cluster.start_node(NodeId(node), config.clone());
        }
        cluster.own(PartitionRow::catalogue(vec![replica(NodeId(1))]));
        cluster
    }

    fn start_node(&mut self, id: NodeId, config: quinn::ServerConfig) {
        let endpoint = Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
        let port_base = endpoint.local_addr().unwrap().port();
        let host = "127.0.0.1".to_owned();
        let address = NodeAddress { id, zone: "a".to_owned(), host, port_base, shards: 1 };
        self.state.data.lock().unwrap().nodes.push(address);
        self.endpoints.push(endpoint.clone());
        let state = self.state.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(serve(state.clone(), id, incoming));
            }
        });
    }

    pub fn seed(&self, node: usize) -> String {
        self.endpoints[node].local_addr().unwrap().to_string()
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(vec![self.seed(0)], self.tls.clone());
        // Machines that run tests may be busy; what must be fast is not measured here.
        config.timeout = Duration::from_secs(30);
        config
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.config()).await.unwrap()
    }

    fn own(&self, row: PartitionRow) {
        let id = row.id;
        let partition = FakePartition { row, items: BTreeMap::new() };
        self.state.data.lock().unwrap().partitions.insert(id, partition);
    }

    /// Adds a table of so many partitions, dealt over the nodes.
    pub fn add_table(&self, row: &TableRow, partitions: usize) {
        let lowers = even_bounds(partitions);
        for (index, lower) in lowers.iter().enumerate() {
            let id = PartitionId(row.id.0 * 100 + index as u64);
            let partition = PartitionRow {
                table: row.id,
                lower: lower.clone(),
                upper: lowers.get(index + 1).cloned(),
                id,
                generation: Generation(1),
                founders: Vec::new(),
                replicas: vec![replica(NodeId((index % self.endpoints.len()) as u32 + 1))],
                unmade: Vec::new(),
            };
            self.own(partition.clone());
            self.write_row(&partition_key(id), &partition.to_attributes());
        }
        self.write_row(&table_key(&row.name), &row.to_attributes());
    }

    fn write_row(&self, key: &[u8], attributes: &evenkeel_model::Attributes) {
        let mut data = self.state.data.lock().unwrap();
        let catalogue = data.partitions.get_mut(&PartitionId::CATALOGUE).unwrap();
        catalogue.items.insert(key.to_vec(), encode_item(attributes));
        drop(data);
        self.state.applied.send_modify(|applied| *applied += 1);
    }

    /// Moves a partition with its items to another node, under a new generation.
    pub fn move_partition(&self, id: PartitionId, node: NodeId) {
        let mut data = self.state.data.lock().unwrap();
        let partition = data.partitions.get_mut(&id).unwrap();
        partition.row.replicas = vec![replica(node)];
        partition.row.generation.0 += 1;
        let row = partition.row.clone();
        drop(data);
        self.write_row(&partition_key(id), &row.to_attributes());
    }

    /// For the next request of this kind that no earlier action takes.
    pub fn next(&self, kind: Kind, action: Action) {
        self.state.data.lock().unwrap().actions.push_back((kind, action));
    }

    /// Holds the next `count` requests of this kind.
    pub fn hold(&self, kind: Kind, count: usize) -> mpsc::UnboundedReceiver<Held> {
        let (sender, held) = mpsc::unbounded_channel();
        for _ in 0..count {
            self.next(kind, Action::Hold(sender.clone()));
        }
        held
    }

    /// Lanes on which requests of this kind have come.
    pub fn lanes_of(&self, kind: Kind) -> Vec<u64> {
        let data = self.state.data.lock().unwrap();
        data.seen.iter().filter(|seen| seen.0 == kind).map(|seen| seen.1).collect()
    }

    pub fn seen(&self, kind: Kind) -> usize {
        self.lanes_of(kind).len()
    }

    /// The tokens of all puts so far.
    pub fn tokens(&self) -> Vec<(u128, u64)> {
        self.state.data.lock().unwrap().tokens.clone()
    }

    pub fn open_connections(&self) -> usize {
        self.endpoints.iter().map(Endpoint::open_connections).sum()
    }

    /// Closes all connections and stops listening on one node.
    pub fn stop_node(&self, node: usize) {
        self.endpoints[node].close(0u32.into(), b"stopped");
    }
}

impl Held {
    pub async fn answer(self) {
        self.request.answer().await;
    }

    pub fn close_connection(self) {
        self.request.connection.close(0u32.into(), b"told to");
    }
}

async fn serve(state: Arc<State>, node: NodeId, incoming: quinn::Incoming) {
    let Ok(connection) = incoming.await else { return };
    while let Ok((send, mut receive)) = connection.accept_bi().await {
        let (lane, outgoing) = mpsc::unbounded_channel();
        tokio::spawn(write_lane(send, outgoing));
        let (state, connection) = (state.clone(), connection.clone());
        tokio::spawn(async move {
            let index = receive.id().index();
            let mut cutter = Cutter::default();
            while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
                let mut frames = Vec::new();
                cutter.push(chunk.bytes, |bytes| frames.push(frame::open(bytes).unwrap())).unwrap();
                for frame in frames {
                    let (state, connection, lane) = (state.clone(), connection.clone(), lane.clone());
                    let request = Request { state, node, connection, lane, frame };
                    request.see(index);
                    tokio::spawn(request.handle());
                }
            }
        });
    }
}

async fn write_lane(mut stream: SendStream, mut outgoing: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(bytes) = outgoing.recv().await {
        if stream.write_chunk(bytes).await.is_err() {
            return;
        }
    }
}

impl Request {
    fn kind(&self) -> Kind {
        Kind::from_number(self.frame.header.kind).unwrap()
    }

    fn see(&self, lane: u64) {
        let mut data = self.state.data.lock().unwrap();
        data.seen.push((self.kind(), lane, self.frame.body.len()));
        if self.kind() == Kind::Put {
            let put = decode::<Put>(&self.frame).unwrap();
            let token = put.terms.token.as_ref().expect("every write is named");
            data.tokens.push((token.session.into(), token.sequence.into()));
        }
    }

    async fn handle(self) {
        let action = {
            let mut data = self.state.data.lock().unwrap();
            let at = data.actions.iter().position(|(kind, _)| *kind == self.kind());
            at.and_then(|at| data.actions.remove(at)).map(|(_, action)| action)
        };
        match action {
            None => self.answer().await,
            Some(Action::Refuse(code)) => self.send(self.refuse(code)),
            Some(Action::CloseConnection) => self.connection.close(0u32.into(), b"told to"),
            Some(Action::Hold(sender)) => drop(sender.send(Held { request: self })),
            Some(Action::Garbage) => self.send(Bytes::from_static(&[0xAB; 100])),
            Some(Action::FlippedBit) => {
                let mut bytes = self.right_answer().await.to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                self.send(bytes.into());
            }
        }
    }

    fn send(&self, bytes: Bytes) {
        let _ = self.lane.send(bytes);
    }

    async fn answer(self) {
        let bytes = self.right_answer().await;
        self.send(bytes);
    }

    fn reply<M: Message>(&self, message: &M) -> Bytes {
        encode(message, self.frame.header.request_id, 0)
    }

    fn refuse(&self, code: RefusalCode) -> Bytes {
        self.reply(&Refusal::new(code, format!("{code:?} by the fake")))
    }

    async fn right_answer(&self) -> Bytes {
        match self.kind() {
            Kind::Hello => self.hello(),
            Kind::Get => self.get(),
            Kind::Put => self.put(),
            Kind::Delete => self.delete(),
            Kind::Range => self.range(),
            Kind::Watch => self.watch().await,
            Kind::PartitionStatistics => self.statistics(),
            Kind::CreateTable => self.create_table(),
            Kind::DeleteTable => self.delete_table(),
            _ => self.refuse(RefusalCode::Unsupported),
        }
    }

    fn hello(&self) -> Bytes {
        let hello = decode::<Hello>(&self.frame).unwrap();
        if hello.cluster.as_ref().is_some_and(|wanted| u128::from(wanted.0) != CLUSTER.0) {
            return self.refuse(RefusalCode::Mismatch);
        }
        self.reply(&Welcome {
            cluster: CLUSTER,
            version: PROTOCOL_VERSION,
            node: self.node,
            shard: ShardId(0),
            incarnation: 1,
            nodes: self.state.data.lock().unwrap().nodes.clone(),
            catalogue: vec![ShardPlace { node: NodeId(1), shard: ShardId(0) }],
        })
    }

    fn on_partition(
        &self,
        id: PartitionId,
        generation: Generation,
        use_it: impl FnOnce(&mut FakePartition) -> Bytes,
    ) -> Bytes {
        let mut data = self.state.data.lock().unwrap();
        match data.partitions.get_mut(&id) {
            Some(partition)
                if (partition.row.replicas[0].node, partition.row.generation) == (self.node, generation) =>
            {
                use_it(partition)
            }
            _ => self.refuse(RefusalCode::WrongPartition),
        }
    }

    fn get(&self) -> Bytes {
        let get = decode::<Get>(&self.frame).unwrap();
        self.on_partition((&get.partition).into(), (&get.generation).into(), |partition| {
            assert!(partition.row.owns(&get.key));
            self.reply(&Found { item: partition.items.get(&*get.key).map(Vec::as_slice) })
        })
    }

    fn put(&self) -> Bytes {
        let put = decode::<Put>(&self.frame).unwrap();
        self.on_partition((&put.partition).into(), (&put.generation).into(), |partition| {
            assert!(partition.row.owns(&put.key));
            let old =
                partition.items.insert(put.key.to_vec(), put.item.to_vec()).filter(|_| put.terms.return_old);
            self.reply(&Written { slot: Slot(1), old: old.as_deref(), new: None })
        })
    }

    fn delete(&self) -> Bytes {
        let delete = decode::<Delete>(&self.frame).unwrap();
        self.on_partition((&delete.partition).into(), (&delete.generation).into(), |partition| {
            let old = partition.items.remove(&*delete.key).filter(|_| delete.terms.return_old);
            self.reply(&Written { slot: Slot(1), old: old.as_deref(), new: None })
        })
    }

    fn range(&self) -> Bytes {
        let range = decode::<Range>(&self.frame).unwrap();
        let applied = Slot(*self.state.applied.borrow());
        self.on_partition((&range.partition).into(), (&range.generation).into(), |partition| {
            let wanted =
                |key: &[u8]| *range.lower <= *key && range.upper.as_ref().is_none_or(|upper| *key < **upper);
            let mut all: Vec<_> = partition.items.iter().filter(|(key, _)| wanted(key)).collect();
            if range.reverse {
                all.reverse();
            }
            let mut rows = Vec::new();
            let mut bytes = 0;
            for (key, item) in &all {
                if rows.len() == u32::from(range.items_max) as usize || bytes >= range.bytes_max.into() {
                    break;
                }
                bytes += u32::from_le_bytes(item[4..8].try_into().unwrap());
                rows.push(Row { key, item });
            }
            self.reply(&Page {
                applied,
                more: rows.len() < all.len(),
                scanned: rows.len() as u32,
                scanned_bytes: bytes.into(),
                last: rows.last().map(|row| row.key),
                rows,
            })
        })
    }

    async fn watch(&self) -> Bytes {
        let after = Slot::from(&decode::<Watch>(&self.frame).unwrap().after);
        let mut applied = self.state.applied.subscribe();
        let patience = Duration::from_micros(self.frame.header.timeout_us) / 2;
        let _ = tokio::time::timeout(patience, applied.wait_for(|applied| *applied > after.0)).await;
        let applied = Slot(*self.state.applied.borrow());
        self.reply(&Changed { applied })
    }

    fn statistics(&self) -> Bytes {
        let asked = decode::<PartitionStatistics>(&self.frame).unwrap();
        self.on_partition((&asked.partition).into(), (&asked.generation).into(), |partition| {
            let sizes =
                partition.items.values().map(|item| u32::from_le_bytes(item[4..8].try_into().unwrap()));
            let bytes = sizes.map(u64::from).sum();
            self.reply(&PartitionCounts { items: partition.items.len() as u64, bytes })
        })
    }

    fn create_table(&self) -> Bytes {
        let create = decode::<CreateTable>(&self.frame).unwrap();
        let row = TableRow { status: TableStatus::Creating, ..table_row(9, create.name.as_str(), None) };
        self.reply(&Table { row: &encode_item(&row.to_attributes()) })
    }

    fn delete_table(&self) -> Bytes {
        let delete = decode::<DeleteTable>(&self.frame).unwrap();
        match delete.name.as_str() {
            "protected" => self.refuse(RefusalCode::Protected),
            _ => self.refuse(RefusalCode::TableNotFound),
        }
    }
}

/// The sole replica of a partition.
fn replica(node: NodeId) -> Replica {
    Replica { member: 1, node, shard: ShardId(0) }
}
