//! The messages, one struct a kind, borrowed where they are written and read in place where they arrive.

use crate::frame::{self, Frame, HEADER_BYTES};
use bytes::Bytes;
use evenkeel_model::{ClusterId, Generation, NodeId, PartitionId, ShardId, Slot};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::with::{InlineAsBox, Map};
use rkyv::{Archive, Portable, Serialize, rancor};

mod consensus;
mod control;
pub mod peer;
mod state;

pub use control::*;
pub use state::*;

/// What a frame holds. Answers have the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// [`Hello`], the first frame of a connection's first stream.
    Hello = 0x0001,
    /// [`Get`].
    Get = 0x0002,
    /// [`Put`].
    Put = 0x0003,
    /// [`Delete`].
    Delete = 0x0004,
    /// [`Range`].
    Range = 0x0005,
    /// [`Watch`].
    Watch = 0x0006,
    /// [`PartitionStatistics`].
    PartitionStatistics = 0x0007,
    /// [`Update`].
    Update = 0x0008,
    /// [`Ping`].
    Ping = 0x0009,
    /// [`PartitionState`].
    PartitionState = 0x000A,
    /// [`CreateTable`].
    CreateTable = 0x0010,
    /// [`DeleteTable`].
    DeleteTable = 0x0011,
    /// [`UpdateTable`].
    UpdateTable = 0x0012,
    /// [`ChangeUser`].
    ChangeUser = 0x0013,
    /// [`CreatePartition`].
    CreatePartition = 0x0020,
    /// [`DropPartition`].
    DropPartition = 0x0021,
    /// [`RegisterNode`].
    RegisterNode = 0x0022,
    /// [`SwapMember`].
    SwapMember = 0x0023,
    /// [`peer::Join`].
    Join = 0x0040,
    /// [`peer::CoreSupport`].
    CoreSupport = 0x0041,
    /// [`peer::Group`].
    Group = 0x0042,
    /// [`peer::Chunk`].
    Chunk = 0x0043,
    /// [`peer::ChunksTaken`].
    ChunksTaken = 0x0044,
    /// [`Welcome`].
    Welcome = 0x8001,
    /// [`Found`].
    Found = 0x8002,
    /// [`Written`], to put, delete and update.
    Written = 0x8003,
    /// [`ConditionFailed`], to put, delete and update.
    ConditionFailed = 0x8004,
    /// [`Page`].
    Page = 0x8005,
    /// [`Changed`].
    Changed = 0x8006,
    /// [`PartitionCounts`].
    PartitionCounts = 0x8007,
    /// [`ReplicaState`].
    ReplicaState = 0x800A,
    /// [`Table`], to create, update and delete table.
    Table = 0x8010,
    /// [`Done`], to change user, create and drop partition, register node and swap member.
    Done = 0x8020,
    /// [`peer::Joined`].
    Joined = 0x8040,
    /// [`Redirect`], to what only another member can answer.
    Redirect = 0xFFFE,
    /// [`crate::Refusal`], to anything.
    Refusal = 0xFFFF,
}

impl Kind {
    const ALL: [Kind; 36] = [
        Kind::Hello,
        Kind::Get,
        Kind::Put,
        Kind::Delete,
        Kind::Range,
        Kind::Watch,
        Kind::PartitionStatistics,
        Kind::Update,
        Kind::Ping,
        Kind::PartitionState,
        Kind::CreateTable,
        Kind::DeleteTable,
        Kind::UpdateTable,
        Kind::ChangeUser,
        Kind::CreatePartition,
        Kind::DropPartition,
        Kind::RegisterNode,
        Kind::SwapMember,
        Kind::Join,
        Kind::CoreSupport,
        Kind::Group,
        Kind::Chunk,
        Kind::ChunksTaken,
        Kind::Welcome,
        Kind::Found,
        Kind::Written,
        Kind::ConditionFailed,
        Kind::Page,
        Kind::Changed,
        Kind::PartitionCounts,
        Kind::ReplicaState,
        Kind::Table,
        Kind::Done,
        Kind::Joined,
        Kind::Redirect,
        Kind::Refusal,
    ];

    /// The kind of this number, if this program knows it.
    pub fn from_number(number: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// A message of one kind.
pub trait Message: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, rancor::Panic>> {
    /// The kind that says so in the frame.
    const KIND: Kind;
}

/// The first request on a connection: who is there. Anything else before it is refused.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Hello {
    /// The cluster the sender wants or belongs to; nothing if it will take the one it finds.
    pub cluster: Option<ClusterId>,
    /// The lowest protocol version the sender speaks.
    pub version_min: u16,
    /// The highest protocol version the sender speaks.
    pub version_max: u16,
    /// Drawn at random when the sender started.
    pub incarnation: u64,
}

/// Where a node is: shard `n` listens on UDP port `port_base + n`.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node.
    pub id: NodeId,
    /// Its availability zone.
    pub zone: String,
    /// IP address or name.
    pub host: String,
    /// UDP port of shard 0.
    pub port_base: u16,
    /// How many shards it has.
    pub shards: u16,
}

/// The answer to [`Hello`]: where the sender is, and the way to the catalogue.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Welcome {
    /// The cluster.
    pub cluster: ClusterId,
    /// The protocol version both sides will speak.
    pub version: u16,
    /// The node that answers.
    pub node: NodeId,
    /// The shard that answers.
    pub shard: ShardId,
    /// Drawn at random when the node started.
    pub incarnation: u64,
    /// All nodes of the cluster.
    pub nodes: Vec<NodeAddress>,
    /// The shards that hold partition 0, as far as the node knows.
    pub catalogue: Vec<ShardPlace>,
}

/// A shard of a node.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The node.
    pub node: NodeId,
    /// The shard.
    pub shard: ShardId,
}

/// Reads one item.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Get<'a> {
    /// The partition that owns the key.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
    /// Whether it must be the item of this moment, which the leader tells; else any replica answers what it
    /// has.
    pub consistent: bool,
    /// The encoded key.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
}

/// The answer to [`Get`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Found<'a> {
    /// The stored item, if there is one.
    #[rkyv(with = Map<InlineAsBox>)]
    pub item: Option<&'a [u8]>,
}

/// Names a write, so that repeating it applies it once and gives the first outcome.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteToken {
    /// Drawn at random by whoever sends.
    pub session: u128,
    /// Rises from write to write.
    pub sequence: u64,
    /// The least sequence whose answer has not arrived: what is below never comes again.
    pub lowest: u64,
}

/// On what terms an item is written, and what the answer shall carry.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default)]
pub struct Terms<'a> {
    /// Whether the answer shall carry the item that was there before.
    pub return_old: bool,
    /// Whether the answer shall carry the item that is there now.
    pub return_new: bool,
    /// Whether the answer shall carry the item that is there if the condition does not hold for it.
    pub return_old_on_failure: bool,
    /// Names the write.
    pub token: Option<WriteToken>,
    /// What must hold for the item that is there, as `expression::Condition::encode` made it.
    #[rkyv(with = Map<InlineAsBox>)]
    pub condition: Option<&'a [u8]>,
}

/// Replaces one item.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Put<'a> {
    /// The partition that owns the key.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
    /// On what terms.
    pub terms: Terms<'a>,
    /// The encoded key.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    /// The item, as `model::encode_item` made it.
    #[rkyv(with = InlineAsBox)]
    pub item: &'a [u8],
}

/// Deletes one item; not an error if there is none.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Delete<'a> {
    /// The partition that owns the key.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
    /// On what terms.
    pub terms: Terms<'a>,
    /// The encoded key.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
}

/// Changes one item, or makes it.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Update<'a> {
    /// The partition that owns the key.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
    /// On what terms.
    pub terms: Terms<'a>,
    /// The encoded key.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    /// The key attributes, as `model::encode_item` made them: what an item is made from that is not there.
    #[rkyv(with = InlineAsBox)]
    pub key_item: &'a [u8],
    /// What is changed, as `expression::Update::encode` made it.
    #[rkyv(with = InlineAsBox)]
    pub program: &'a [u8],
}

/// The answer to [`Put`], [`Delete`] and [`Update`]: the write is durable.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Written<'a> {
    /// Where the write stands in its partition's log.
    pub slot: Slot,
    /// The item that was there before, if it was asked for and there was one.
    #[rkyv(with = Map<InlineAsBox>)]
    pub old: Option<&'a [u8]>,
    /// The item that is there now, if it was asked for and there is one.
    #[rkyv(with = Map<InlineAsBox>)]
    pub new: Option<&'a [u8]>,
}

/// The answer to a write whose condition does not hold: nothing was written.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct ConditionFailed<'a> {
    /// The item that is there, if it was asked for and there is one.
    #[rkyv(with = Map<InlineAsBox>)]
    pub old: Option<&'a [u8]>,
}

/// Reads a page of consecutive items.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Range<'a> {
    /// The partition that owns the range.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
    /// As [`Get::consistent`].
    pub consistent: bool,
    /// Whether to begin at the upper end.
    pub reverse: bool,
    /// Most items wanted.
    pub items_max: u32,
    /// Most data wanted, by DynamoDB's item sizes; the item that reaches it is the last one.
    pub bytes_max: u32,
    /// The least encoded key wanted.
    #[rkyv(with = InlineAsBox)]
    pub lower: &'a [u8],
    /// The least encoded key behind the range; nothing for no end.
    #[rkyv(with = Map<InlineAsBox>)]
    pub upper: Option<&'a [u8]>,
    /// What must hold for an item to be in the page, as `expression::Condition::encode` made it. Limits
    /// count items whether it holds for them or not.
    #[rkyv(with = Map<InlineAsBox>)]
    pub filter: Option<&'a [u8]>,
}

/// One item of a [`Page`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Row<'a> {
    /// The encoded key.
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    /// The stored item.
    #[rkyv(with = InlineAsBox)]
    pub item: &'a [u8],
}

/// The answer to [`Range`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Page<'a> {
    /// The slot up to which the partition had applied its log when it read.
    pub applied: Slot,
    /// Whether the range holds more behind what was looked at.
    pub more: bool,
    /// How many items were looked at.
    pub scanned: u32,
    /// Their size by DynamoDB's rules, in bytes.
    pub scanned_bytes: u64,
    /// The encoded key of the item looked at last, if there was one.
    #[rkyv(with = Map<InlineAsBox>)]
    pub last: Option<&'a [u8]>,
    /// The items in the order asked for.
    pub rows: Vec<Row<'a>>,
}

/// Waits until the partition has applied more than a slot, or half of the time given has passed.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Watch {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation, as the sender knows it.
    pub generation: Generation,
    /// What the sender has seen.
    pub after: Slot,
}

/// The answer to [`Watch`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Changed {
    /// The slot applied last; not above `after` if nothing has changed.
    pub applied: Slot,
}

macro_rules! kinds {
    ($($message:ty => $kind:ident),* $(,)?) => {
        $(impl Message for $message {
            const KIND: Kind = Kind::$kind;
        })*
    };
}

kinds!(
    Hello => Hello, Welcome => Welcome,
    Get<'_> => Get, Found<'_> => Found,
    Put<'_> => Put, Delete<'_> => Delete, Update<'_> => Update, Written<'_> => Written,
    ConditionFailed<'_> => ConditionFailed,
    Range<'_> => Range, Page<'_> => Page,
    Watch => Watch, Changed => Changed,
    PartitionStatistics => PartitionStatistics, PartitionCounts => PartitionCounts,
    PartitionState => PartitionState, ReplicaState => ReplicaState,
    Ping => Ping, Redirect => Redirect,
    RegisterNode => RegisterNode, SwapMember => SwapMember,
    CreateTable => CreateTable, UpdateTable => UpdateTable, DeleteTable => DeleteTable,
    ChangeUser => ChangeUser,
    Table<'_> => Table,
    CreatePartition<'_> => CreatePartition, DropPartition => DropPartition, Done => Done,
    peer::Join => Join, peer::Joined => Joined,
    peer::CoreSupport => CoreSupport, peer::Group<'_> => Group,
    peer::Chunk<'_> => Chunk, peer::ChunksTaken => ChunksTaken,
);

/// Why a frame's body is not the message wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another kind of message.
    #[error("message of kind {found:#06x}, expected {expected:?}")]
    Kind {
        /// The kind found.
        found: u16,
        /// The kind wanted.
        expected: Kind,
    },
    /// The archive is malformed.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// A whole frame holding the message.
///
/// # Panics
/// If the message exceeds [`frame::BODY_BYTES_MAX`]; senders keep their own limits.
pub fn encode<M: Message>(message: &M, request_id: u64, timeout_us: u64) -> Bytes {
    // Large enough for most messages, so that the buffer grows at most once more for a large item.
    let mut buffer = Vec::with_capacity(HEADER_BYTES + 2048);
    buffer.resize(HEADER_BYTES, 0);
    let result: Result<Vec<u8>, rancor::Panic> = rkyv::api::high::to_bytes_in(message, buffer);
    let Ok(mut bytes) = result;
    frame::seal(&mut bytes, M::KIND as u16, request_id, timeout_us);
    bytes.into()
}

/// The message in a frame, validated, read in place.
///
/// # Errors
/// Another kind, or an archive that is not valid.
pub fn decode<M>(frame: &Frame) -> Result<&M::Archived, DecodeError>
where
    M: Message + Archive,
    M::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    if frame.header.kind != M::KIND as u16 {
        return Err(DecodeError::Kind { found: frame.header.kind, expected: M::KIND });
    }
    rkyv::access::<M::Archived, rancor::Error>(&frame.body)
        .map_err(|error| DecodeError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Refusal, RefusalCode};

    #[test]
    fn a_put_is_read_in_place_as_it_was_written() {
        let put = Put {
            partition: PartitionId(7),
            generation: Generation(2),
            terms: Terms { return_old: true, ..Terms::default() },
            key: b"key",
            item: &[9; 1000],
        };
        let frame = frame::open(encode(&put, 5, 0)).unwrap();
        let read = decode::<Put>(&frame).unwrap();
        assert_eq!((&*read.key, &*read.item, read.terms.return_old), (&b"key"[..], &[9u8; 1000][..], true));
        assert_eq!(PartitionId::from(&read.partition), PartitionId(7));
        assert_eq!(
            decode::<Get>(&frame).err(),
            Some(DecodeError::Kind { found: Kind::Put as u16, expected: Kind::Get })
        );
    }

    #[test]
    fn messages_of_version_2_are_frozen() {
        let get = Get { partition: PartitionId(7), generation: Generation(2), consistent: true, key: b"key" };
        let refusal = Refusal::new(RefusalCode::Overloaded, "later");
        let hex = |bytes: Bytes| evenkeel_model::hex::Hex(&bytes[HEADER_BYTES..]).to_string();
        assert_eq!(hex(encode(&get, 1, 0)), "6b657907000000000000000200000001f0ffffff03000000");
        assert_eq!(hex(encode(&refusal, 1, 0)), "02006c61746572ffffff");
    }

    #[test]
    fn a_truncated_or_flipped_archive_never_panics() {
        let rows = vec![Row { key: b"a", item: b"b" }, Row { key: b"c", item: b"d" }];
        let whole = frame::open(encode(
            &Page { applied: Slot(1), more: false, scanned: 2, scanned_bytes: 2, last: Some(b"c"), rows },
            1,
            0,
        ))
        .unwrap();
        for at in 0..whole.body.len() {
            for flip in [1u8, 0x80, 0xFF] {
                let mut body = whole.body.to_vec();
                body[at] ^= flip;
                let flipped = Frame { header: whole.header, body: body.into() };
                if let Ok(page) = decode::<Page>(&flipped) {
                    let _ = page.rows.iter().map(|row| row.item.len()).sum::<usize>();
                }
            }
            let cut = Frame { header: whole.header, body: whole.body.slice(..at) };
            let _ = decode::<Page>(&cut);
        }
    }

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as u16), Some(kind));
        }
    }
}
