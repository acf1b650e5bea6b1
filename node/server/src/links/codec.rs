//! Messages between cores as bytes, and back.
//!
//! What arrives was checked by its checksum and its structure when this reads it; here it is held against what
//! a message can mean: members that may stand together, operations that belong to their entries, keys and
//! images of allowed sizes. Whether entries are the ones that were chosen, the partition asks.

use bytes::Bytes;
use evenkeel_model::limits::{ENCODED_KEY_BYTES_MAX, STORED_ITEM_BYTES_MAX};
use evenkeel_model::{NodeId, ShardId, Slot, Timestamp, item};
use evenkeel_partition::{Body, CoreMessage, GroupMessage, Membership, Piece, Place, SnapshotEnd};
use evenkeel_paxos::{
    Anchor, Answer, Configuration, Entry as Vote, EntryKind, MEMBERS_MAX, Member, MemberId, MemberKind,
    Message, Support, Time,
};
use evenkeel_storage::{Entry, Operation};
use evenkeel_wire::message::peer as wire;
use evenkeel_wire::{Frame, Kind, decode, encode};
use std::rc::Rc;

/// Why a message of another core means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not the message.
    #[error(transparent)]
    Decode(#[from] evenkeel_wire::DecodeError),
    /// Members that cannot stand together.
    #[error("a message names members that no group can have")]
    Members,
    /// Operations that belong to no entry, or too few.
    #[error("a message carries {found} operations, and its entries have {expected}")]
    Operations {
        /// Those that are there.
        found: usize,
        /// Those the entries speak of.
        expected: u64,
    },
    /// A key or an image that no write can have made.
    #[error("a message carries a key or an item of a size that none can have")]
    Size,
    /// A kind that no link carries.
    #[error("frames of kind {0:#06x} are no messages between cores")]
    Kind(u16),
}

/// The frame of what one member says to another.
pub fn encode_group(message: &GroupMessage) -> Bytes {
    let head = head(message);
    match &message.body {
        Body::Consensus { message, votes, entries, end, members } => {
            let agreement = wire::Agreement {
                message: consensus(message),
                votes: votes.iter().map(vote).collect(),
                operations: entries.iter().flat_map(|entry| &entry.operations).map(operation).collect(),
                entries: entries.iter().map(entry).collect(),
                end: *end,
                members: members.as_ref().map(membership),
            };
            encode(&wire::Group { head, body: wire::GroupBody::Consensus(agreement) }, 0, 0)
        }
        Body::PieceWanted { base, number, after } => {
            let wanted = wire::PieceWanted { base: *base, number: *number, after: after.as_deref() };
            encode(&wire::Group { head, body: wire::GroupBody::PieceWanted(wanted) }, 0, 0)
        }
        Body::Piece(piece) => {
            let last =
                piece.last.as_ref().map(|end| wire::PieceEnd { timestamp: end.timestamp, state: &end.state });
            let piece = wire::Piece {
                base: anchor(&piece.base),
                number: piece.number,
                items: piece.items.iter().map(operation).collect(),
                last,
            };
            encode(&wire::Group { head, body: wire::GroupBody::Piece(piece) }, 0, 0)
        }
    }
}

/// The frame of support, with as much of what groups have chosen as fits into `bytes_max`; the rest is
/// yielded as messages of their groups.
pub fn encode_support(
    support: &Support,
    chosen: Vec<GroupMessage>,
    bytes_max: usize,
) -> (Bytes, Vec<GroupMessage>) {
    let mut fitting = Vec::with_capacity(chosen.len());
    let mut others = Vec::new();
    let room = bytes_max.saturating_sub(SUPPORT_BYTES) / size_of::<wire::ArchivedGroupChosen>();
    for message in chosen {
        match &message.body {
            Body::Consensus { message: Message::Commit { chosen }, .. } if fitting.len() < room => {
                fitting.push(wire::GroupChosen { group: head(&message), chosen: anchor(chosen) });
            }
            _ => others.push(message),
        }
    }
    let message = wire::CoreSupport {
        incarnation: support.incarnation,
        wish_ns: support.wish.map(|time| time.0),
        answer: support.answer.map(|answer| wire::SupportAnswer {
            incarnation: answer.incarnation,
            asked_ns: answer.asked.0,
            epoch: answer.epoch,
        }),
        chosen: fitting,
    };
    (encode(&message, 0, 0), others)
}

/// What a frame of support takes besides what groups have chosen.
const SUPPORT_BYTES: usize = evenkeel_wire::HEADER_BYTES + size_of::<wire::ArchivedCoreSupport>();

/// The message in a frame.
///
/// # Errors
/// See [`CodecError`].
pub fn decode_message(frame: &Frame) -> Result<CoreMessage, CodecError> {
    match Kind::from_number(frame.header.kind) {
        Some(Kind::CoreSupport) => Ok(read_support(decode::<wire::CoreSupport>(frame)?)),
        Some(Kind::Group) => Ok(CoreMessage::Group(read_group(decode::<wire::Group>(frame)?)?)),
        _ => Err(CodecError::Kind(frame.header.kind)),
    }
}

fn head(message: &GroupMessage) -> wire::GroupHead {
    wire::GroupHead {
        partition: message.partition,
        generation: message.generation,
        from: message.from.0,
        to: message.to.0,
    }
}

fn anchor(anchor: &Anchor) -> wire::Anchor {
    wire::Anchor { slot: anchor.slot, checksum: anchor.checksum }
}

fn consensus(message: &Message) -> wire::Consensus {
    use wire::Consensus as To;
    match *message {
        Message::Prepare { ballot, generation, chosen } => {
            To::Prepare { ballot, generation, chosen: anchor(&chosen) }
        }
        Message::Promise { ballot, chosen, configuration: _, after } => {
            To::Promise { ballot, chosen: anchor(&chosen), after: anchor(&after) }
        }
        Message::Accept { ballot, generation, after, chosen } => {
            To::Accept { ballot, generation, after: anchor(&after), chosen }
        }
        Message::Accepted { ballot, upto, epoch } => To::Accepted { ballot, upto, epoch },
        Message::Behind { ballot, chosen } => To::Behind { ballot, chosen },
        Message::Nack { ballot, promised } => To::Nack { ballot, promised },
        Message::Commit { chosen } => To::Commit { chosen: anchor(&chosen) },
        Message::Probe { ballot } => To::Probe { ballot },
        Message::ProbeReply { ballot, leader } => To::ProbeReply { ballot, leader },
        Message::Relinquish { ballot, to } => To::Relinquish { ballot, to: to.map(|id| id.0) },
        Message::Fetch { ballot, after, upto } => To::Fetch { ballot, after: anchor(&after), upto },
        Message::Entries { ballot, after } => To::Entries { ballot, after: anchor(&after) },
        Message::Begin { ballot, base, configuration: _ } => To::Begin { ballot, base: anchor(&base) },
    }
}

fn vote(vote: &Vote) -> wire::Vote {
    let kind = match &vote.kind {
        EntryKind::Command => wire::VoteKind::Command,
        EntryKind::Noop => wire::VoteKind::Noop,
        EntryKind::Swap(configuration) => wire::VoteKind::Swap(members(configuration, &[])),
    };
    wire::Vote { ballot: vote.ballot, checksum: vote.checksum, kind }
}

fn members(configuration: &Configuration, places: &[Place]) -> wire::Members {
    let seat = |(at, member): (usize, Member)| {
        let place = places.get(at).copied().unwrap_or_default();
        let keeps = match member.kind {
            MemberKind::Storage => wire::Keeps::Tree,
            MemberKind::Log => wire::Keeps::Log,
        };
        wire::Seat { member: member.id.0, keeps, node: place.node, shard: place.shard }
    };
    wire::Members {
        version: configuration.version,
        id_max: configuration.id_max.0,
        seats: configuration.members().enumerate().map(seat).collect(),
    }
}

/// Members and places as they stand on the wire.
pub fn membership(membership: &Membership) -> wire::Members {
    members(&membership.configuration, &membership.places)
}

fn entry(entry: &Entry) -> wire::Entry<'_> {
    wire::Entry {
        slot: entry.slot,
        ballot: entry.ballot,
        timestamp: entry.timestamp,
        chosen: entry.chosen,
        operations: u32::try_from(entry.operations.len()).expect("an entry has less than 2^32 operations"),
        lasting: entry.lasting,
        note: &entry.note,
    }
}

fn operation(operation: &Operation) -> wire::Operation<'_> {
    match operation {
        Operation::Put { key, image } => wire::Operation { key, image: Some(image) },
        Operation::Delete { key } => wire::Operation { key, image: None },
    }
}

fn read_support(support: &wire::ArchivedCoreSupport) -> CoreMessage {
    let answer = support.answer.as_ref().map(|answer| Answer {
        incarnation: answer.incarnation.into(),
        asked: Time(answer.asked_ns.into()),
        epoch: answer.epoch.into(),
    });
    let wish = support.wish_ns.as_ref().map(|&wish_ns| Time(wish_ns.into()));
    let chosen = support.chosen.iter().map(|chosen| {
        let message = Message::Commit { chosen: read_anchor(&chosen.chosen) };
        read_head(&chosen.group, plain(message))
    });
    CoreMessage::Support {
        support: Support { incarnation: support.incarnation.into(), wish, answer },
        chosen: chosen.collect(),
    }
}

fn plain(message: Message) -> Body {
    Body::Consensus { message, votes: Vec::new(), entries: Vec::new(), end: 0, members: None }
}

fn read_head(head: &wire::ArchivedGroupHead, body: Body) -> GroupMessage {
    GroupMessage {
        partition: (&head.partition).into(),
        generation: (&head.generation).into(),
        from: MemberId(head.from.into()),
        to: MemberId(head.to.into()),
        body,
    }
}

fn read_group(group: &wire::ArchivedGroup<'_>) -> Result<GroupMessage, CodecError> {
    let body = match &group.body {
        wire::ArchivedGroupBody::Consensus(agreement) => read_agreement(agreement)?,
        wire::ArchivedGroupBody::PieceWanted(wanted) => Body::PieceWanted {
            base: wanted.base.as_ref().map(Slot::from),
            number: wanted.number.into(),
            after: wanted.after.as_ref().map(|after| read_key(after)).transpose()?,
        },
        wire::ArchivedGroupBody::Piece(piece) => {
            let last = piece.last.as_ref().map(|end| SnapshotEnd {
                timestamp: Timestamp::from(&end.timestamp),
                state: Rc::from(&*end.state),
            });
            Body::Piece(Piece {
                base: read_anchor(&piece.base),
                number: piece.number.into(),
                items: piece.items.iter().map(read_operation).collect::<Result<_, _>>()?,
                last,
            })
        }
    };
    Ok(read_head(&group.head, body))
}

fn read_agreement(agreement: &wire::ArchivedAgreement<'_>) -> Result<Body, CodecError> {
    let members = agreement.members.as_ref().map(read_members).transpose()?;
    let message = read_consensus(&agreement.message, members.as_ref())?;
    Ok(Body::Consensus {
        message,
        votes: agreement.votes.iter().map(read_vote).collect::<Result<_, _>>()?,
        entries: read_entries(agreement)?,
        end: agreement.end.into(),
        members,
    })
}

fn read_entries(agreement: &wire::ArchivedAgreement<'_>) -> Result<Vec<Entry>, CodecError> {
    let expected: u64 = agreement.entries.iter().map(|entry| u64::from(u32::from(entry.operations))).sum();
    let found = agreement.operations.len();
    if found as u64 != expected {
        return Err(CodecError::Operations { found, expected });
    }
    let mut operations = agreement.operations.iter();
    let mut entries = Vec::with_capacity(agreement.entries.len());
    for entry in agreement.entries.iter() {
        let own = operations.by_ref().take(u32::from(entry.operations) as usize);
        entries.push(Entry {
            slot: (&entry.slot).into(),
            ballot: (&entry.ballot).into(),
            timestamp: (&entry.timestamp).into(),
            operations: own.map(read_operation).collect::<Result<_, _>>()?,
            note: entry.note.to_vec(),
            lasting: entry.lasting,
            chosen: (&entry.chosen).into(),
        });
    }
    Ok(entries)
}

fn read_key(key: &[u8]) -> Result<Rc<[u8]>, CodecError> {
    if key.is_empty() || key.len() > ENCODED_KEY_BYTES_MAX {
        return Err(CodecError::Size);
    }
    Ok(Rc::from(key))
}

fn read_operation(operation: &wire::ArchivedOperation<'_>) -> Result<Operation, CodecError> {
    let key = read_key(&operation.key)?;
    let Some(image) = operation.image.as_ref() else { return Ok(Operation::Delete { key }) };
    if !(item::HEADER_BYTES..=STORED_ITEM_BYTES_MAX).contains(&image.len()) {
        return Err(CodecError::Size);
    }
    Ok(Operation::Put { key, image: Rc::from(&**image) })
}

fn read_anchor(anchor: &wire::ArchivedAnchor) -> Anchor {
    Anchor { slot: (&anchor.slot).into(), checksum: anchor.checksum.into() }
}

fn read_vote(vote: &wire::ArchivedVote) -> Result<Vote, CodecError> {
    let kind = match &vote.kind {
        wire::ArchivedVoteKind::Command => EntryKind::Command,
        wire::ArchivedVoteKind::Noop => EntryKind::Noop,
        wire::ArchivedVoteKind::Swap(members) => EntryKind::Swap(read_members(members)?.configuration),
    };
    Ok(Vote { ballot: (&vote.ballot).into(), checksum: vote.checksum.into(), kind })
}

/// Members and places from the wire.
///
/// # Errors
/// [`CodecError::Members`].
pub fn read_members(members: &wire::ArchivedMembers) -> Result<Membership, CodecError> {
    if members.seats.len() > MEMBERS_MAX {
        return Err(CodecError::Members);
    }
    let member = |seat: &wire::ArchivedSeat| {
        let kind = match seat.keeps {
            wire::ArchivedKeeps::Tree => MemberKind::Storage,
            wire::ArchivedKeeps::Log => MemberKind::Log,
        };
        Member { id: MemberId(seat.member.into()), kind }
    };
    let found: Vec<Member> = members.seats.iter().map(member).collect();
    let id_max = MemberId(members.id_max.into());
    let configuration = Configuration::restore(members.version.into(), id_max, &found);
    let place = |seat: &wire::ArchivedSeat| Place {
        node: NodeId::from(&seat.node),
        shard: ShardId::from(&seat.shard),
    };
    Ok(Membership {
        configuration: configuration.ok_or(CodecError::Members)?,
        places: members.seats.iter().map(place).collect(),
    })
}

fn read_consensus(
    message: &wire::ArchivedConsensus,
    members: Option<&Membership>,
) -> Result<Message, CodecError> {
    use wire::ArchivedConsensus as From;
    let configuration = || members.map(|members| members.configuration).ok_or(CodecError::Members);
    Ok(match message {
        From::Prepare { ballot, generation, chosen } => Message::Prepare {
            ballot: ballot.into(),
            generation: generation.into(),
            chosen: read_anchor(chosen),
        },
        From::Promise { ballot, chosen, after } => Message::Promise {
            ballot: ballot.into(),
            chosen: read_anchor(chosen),
            configuration: configuration()?,
            after: read_anchor(after),
        },
        From::Accept { ballot, generation, after, chosen } => Message::Accept {
            ballot: ballot.into(),
            generation: generation.into(),
            after: read_anchor(after),
            chosen: chosen.into(),
        },
        From::Accepted { ballot, upto, epoch } => {
            Message::Accepted { ballot: ballot.into(), upto: upto.into(), epoch: (*epoch).into() }
        }
        From::Behind { ballot, chosen } => Message::Behind { ballot: ballot.into(), chosen: chosen.into() },
        From::Nack { ballot, promised } => Message::Nack { ballot: ballot.into(), promised: promised.into() },
        From::Commit { chosen } => Message::Commit { chosen: read_anchor(chosen) },
        From::Probe { ballot } => Message::Probe { ballot: ballot.into() },
        From::ProbeReply { ballot, leader } => {
            Message::ProbeReply { ballot: ballot.into(), leader: leader.into() }
        }
        From::Relinquish { ballot, to } => {
            Message::Relinquish { ballot: ballot.into(), to: to.as_ref().map(|&id| MemberId(id.into())) }
        }
        From::Fetch { ballot, after, upto } => {
            Message::Fetch { ballot: ballot.into(), after: read_anchor(after), upto: upto.into() }
        }
        From::Entries { ballot, after } => {
            Message::Entries { ballot: ballot.into(), after: read_anchor(after) }
        }
        From::Begin { ballot, base } => {
            Message::Begin { ballot: ballot.into(), base: read_anchor(base), configuration: configuration()? }
        }
    })
}
