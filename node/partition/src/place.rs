//! Who is where: members of a group, the cores they live on, and how both are written down.
//!
//! What is durable about a group stands in its log: its charter in the record that creates the partition,
//! its members in each swap and at the beginning of a log. The bytes are frozen by tests.
//!
//! ```text
//! membership   version u32, greatest member number u32, count u32, then for each member:
//!              number u32, kind u8 (1 storage, 2 log), 0, shard u16, node u32
//! charter      format 1 u32, own number u32, own kind u32, membership of the founders, catalogue row
//! ```

use crate::bytes::{Reader, Writer};
use evenkeel_model::{NodeId, ShardId};
use evenkeel_paxos::{Configuration, MEMBERS_MAX, Member, MemberId, MemberKind};
use std::fmt;

const CHARTER_FORMAT: u32 = 1;

/// A core of the cluster, by the shard that runs on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of node {}", self.shard, self.node)
    }
}

/// A member and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The member.
    pub member: Member,
    /// Its core.
    pub place: Place,
}

/// The members of a group between two swaps, and where they live: what a redirect carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The members.
    pub configuration: Configuration,
    /// Where they live, in their order.
    pub places: Vec<Place>,
}

/// What a replica is told when it is created, and finds again after each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charter {
    pub member: Member,
    pub founders: Membership,
    /// The catalogue's row of the partition, as it is stored.
    pub row: Vec<u8>,
}

impl Membership {
    /// The first members of a group.
    ///
    /// # Panics
    /// As [`Configuration::first`].
    pub fn first(seats: &[Seat]) -> Membership {
        let members: Vec<Member> = seats.iter().map(|seat| seat.member).collect();
        Membership {
            configuration: Configuration::first(&members),
            places: seats.iter().map(|seat| seat.place).collect(),
        }
    }

    /// The members with their places.
    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        self.configuration.members().zip(&self.places).map(|(member, &place)| Seat { member, place })
    }

    pub(crate) fn write(&self, to: &mut Writer) {
        to.u32(self.configuration.version);
        to.u32(self.configuration.id_max.0);
        to.u32(u32::try_from(self.places.len()).expect("a group has one to three members"));
        for Seat { member, place } in self.seats() {
            to.u32(member.id.0);
            to.u8(kind_number(member.kind));
            to.u8(0);
            to.u16(place.shard.0);
            to.u32(place.node.0);
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Option<Membership> {
        let (version, id_max, count) = (from.u32()?, MemberId(from.u32()?), from.u32()? as usize);
        if count > MEMBERS_MAX {
            return None;
        }
        let (mut members, mut places) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let id = MemberId(from.u32()?);
            let kind = kind(from.u8()?)?;
            from.u8()?;
            members.push(Member { id, kind });
            let (shard, node) = (ShardId(from.u16()?), NodeId(from.u32()?));
            places.push(Place { node, shard });
        }
        Some(Membership { configuration: Configuration::restore(version, id_max, &members)?, places })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        self.write(&mut to);
        to.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Membership> {
        let mut from = Reader::new(bytes);
        Self::read(&mut from).filter(|_| from.is_empty())
    }
}

impl Charter {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u32(CHARTER_FORMAT);
        to.u32(self.member.id.0);
        to.u32(kind_number(self.member.kind).into());
        self.founders.write(&mut to);
        to.raw(&self.row);
        to.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Charter> {
        let mut from = Reader::new(bytes);
        if from.u32()? != CHARTER_FORMAT {
            return None;
        }
        let id = MemberId(from.u32()?);
        let kind = kind(u8::try_from(from.u32()?).ok()?)?;
        let founders = Membership::read(&mut from)?;
        Some(Charter { member: Member { id, kind }, founders, row: from.rest().to_vec() })
    }
}

fn kind_number(kind: MemberKind) -> u8 {
    match kind {
        MemberKind::Storage => 1,
        MemberKind::Log => 2,
    }
}

fn kind(number: u8) -> Option<MemberKind> {
    match number {
        1 => Some(MemberKind::Storage),
        2 => Some(MemberKind::Log),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_charter_are_frozen() {
        let member = |id, kind| Member { id: MemberId(id), kind };
        let seat = |id, kind, node, shard| Seat {
            member: member(id, kind),
            place: Place { node: NodeId(node), shard: ShardId(shard) },
        };
        let founders = Membership::first(&[
            seat(1, MemberKind::Storage, 0x11, 0x21),
            seat(2, MemberKind::Log, 0x12, 0x22),
        ]);
        let charter = Charter { member: member(2, MemberKind::Log), founders, row: b"row".to_vec() };
        let bytes = charter.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "010000000200000002000000\
             000000000200000002000000\
             010000000100210011000000\
             020000000200220012000000\
             726f77"
        );
        assert_eq!(Charter::decode(&bytes), Some(charter));
        assert_eq!(Charter::decode(&bytes[..20]), None);
    }
}
