//! Messages to the control plane, and from it to the shards: tables and partitions come, change and go.

use super::NodeAddress;
use super::peer::Seat;
use evenkeel_model::{Generation, KeySchema, NodeId, PartitionId};
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

/// Asks the control plane, beside partition 0, to make a table.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct CreateTable {
    /// The table's name.
    pub name: String,
    /// What identifies its items.
    pub schema: KeySchema,
    /// How its use is paid for.
    pub billing: Billing,
    /// Whether DeleteTable shall be refused.
    pub deletion_protection: bool,
    /// Keys and values of its tags.
    pub tags: Vec<(String, String)>,
}

/// How the use of a table is paid for.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// By what was used.
    OnDemand,
    /// By what was set aside: read and write capacity units a second.
    Provisioned(u64, u64),
}

/// Asks the control plane to change what a table is like; what is not named stays.
#[derive(Archive, Serialize, Clone, Debug, Default)]
pub struct UpdateTable {
    /// The table's name.
    pub name: String,
    /// How its use is to be paid for.
    pub billing: Option<Billing>,
    /// Whether DeleteTable shall be refused.
    pub deletion_protection: Option<bool>,
    /// Tags to be set, by key and value.
    pub tags_set: Vec<(String, String)>,
    /// Keys of tags to be removed; those that are not there are ignored.
    pub tags_removed: Vec<String>,
}

/// Asks the control plane to delete a table.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct DeleteTable {
    /// The table's name.
    pub name: String,
}

impl ArchivedCreateTable {
    /// Keys and values of its tags.
    pub fn tags(&self) -> impl Iterator<Item = (String, String)> {
        self.tags.iter().map(|tag| (tag.0.as_str().to_owned(), tag.1.as_str().to_owned()))
    }
}

impl ArchivedUpdateTable {
    /// Tags to be set, by key and value.
    pub fn tags_set(&self) -> impl Iterator<Item = (String, String)> {
        self.tags_set.iter().map(|tag| (tag.0.as_str().to_owned(), tag.1.as_str().to_owned()))
    }
}

/// The answer to [`CreateTable`], [`UpdateTable`] and [`DeleteTable`].
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Table<'a> {
    /// The table's row of the catalogue, as a stored item.
    #[rkyv(with = InlineAsBox)]
    pub row: &'a [u8],
}

/// Asks the control plane to make, change or delete a user of the API.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct ChangeUser {
    /// The user's name.
    pub name: String,
    /// What to do.
    pub action: UserAction,
}

/// What is done to a user.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum UserAction {
    /// It is made, with this access key.
    Create(NewAccessKey),
    /// It gets this access key; the one before it stays good.
    Rotate(NewAccessKey),
    /// It gets this access key, and all others end.
    Replace(NewAccessKey),
    /// It is gone, with its access keys.
    Delete,
}

/// An access key as the cluster knows it.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct NewAccessKey {
    /// Names it in requests.
    pub id: String,
    /// Its secret, encrypted under a key that the cluster does not hold.
    pub sealed_secret: Vec<u8>,
}

/// Tells a shard to hold a member of a partition's group; done already is done.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct CreatePartition<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: Generation,
    /// Which member.
    pub member: u32,
    /// What was drawn when the disk of the node was formatted that shall hold it.
    pub store: u128,
    /// The partition's row of the catalogue, as a stored item.
    #[rkyv(with = InlineAsBox)]
    pub row: &'a [u8],
}

/// A node says that it is there. One that comes with another disk than the one it is known by is refused.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct RegisterNode {
    /// Which node, and where it listens.
    pub node: NodeAddress,
    /// What was drawn when its disk was formatted.
    pub store: u128,
    /// The node in whose place it comes.
    pub replaces: Option<NodeId>,
}

/// Tells the leader of a partition's group to put a new member, which has been made, in the place of another.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct SwapMember {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: Generation,
    /// Whose place is taken.
    pub remove: u32,
    /// Who takes it.
    pub add: Seat,
}

/// Tells a shard to forget a partition and what it holds; done already is done.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct DropPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: Generation,
}

/// The answer to [`ChangeUser`], [`CreatePartition`], [`DropPartition`] and [`RegisterNode`]: it is durable. To
/// [`SwapMember`] it says that the swap has begun.
#[derive(Archive, Serialize, Clone, Debug)]
pub struct Done {}
