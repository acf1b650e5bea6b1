//! Messages between cores come back from their bytes as they were, and no bytes stop the reader.

use super::codec::*;
use evenkeel_model::{Ballot, Generation, NodeId, PartitionId, ShardId, Slot, Timestamp, hex::Hex, item};
use evenkeel_partition::{Body, CoreMessage, GroupMessage, Membership, Piece, Place, Seat, SnapshotEnd};
use evenkeel_paxos::{
    Anchor, Answer, Entry as Vote, EntryKind, Member, MemberId, MemberKind, Message, Support, Time,
};
use evenkeel_storage::{Entry, Operation};
use evenkeel_wire::message::peer::{self as wire};
use evenkeel_wire::{Frame, HEADER_BYTES, encode, frame};
use std::rc::Rc;

const BALLOT: Ballot = Ballot { round: 77, replica: 3 };

fn anchor(slot: u64) -> Anchor {
    Anchor { slot: Slot(slot), checksum: u128::from(slot) << 70 | 9 }
}

fn members() -> Membership {
    let seat = |id, kind, node| Seat {
        member: Member { id: MemberId(id), kind },
        place: Place { node: NodeId(node), shard: ShardId(2) },
    };
    let storage = MemberKind::Storage;
    Membership::first(&[seat(1, storage, 11), seat(2, storage, 12), seat(5, MemberKind::Log, 13)])
}

fn put(key: &[u8], bytes: usize) -> Operation {
    Operation::Put { key: Rc::from(key), image: Rc::from(vec![7; item::HEADER_BYTES + bytes]) }
}

fn entry(slot: u64, operations: Vec<Operation>) -> Entry {
    Entry {
        slot: Slot(slot),
        ballot: BALLOT,
        timestamp: Timestamp(123 + slot),
        operations,
        note: vec![slot as u8; 3],
        lasting: slot == 6,
        chosen: Slot(slot - 1),
    }
}

fn group(body: Body) -> GroupMessage {
    let (from, to) = (MemberId(1), MemberId(2));
    GroupMessage { partition: PartitionId(7), generation: Generation(4), from, to, body }
}

fn plain(message: Message) -> Body {
    Body::Consensus { message, votes: Vec::new(), entries: Vec::new(), end: 0, members: None }
}

/// Every kind of message.
fn bodies() -> Vec<Body> {
    let (ballot, generation) = (BALLOT, Generation(4));
    let (chosen, after, configuration) = (anchor(5), anchor(6), members().configuration);
    let small = [
        Message::Prepare { ballot, generation, chosen },
        Message::Accept { ballot, generation, after, chosen: Slot(5) },
        Message::Accepted { ballot, upto: Slot(9), epoch: 1 << 40 },
        Message::Behind { ballot, chosen: Slot(5) },
        Message::Nack { ballot, promised: Ballot { round: 78, replica: 1 } },
        Message::Commit { chosen },
        Message::Probe { ballot },
        Message::ProbeReply { ballot, leader: Ballot::default() },
        Message::Relinquish { ballot, to: Some(MemberId(2)) },
        Message::Relinquish { ballot, to: None },
        Message::Fetch { ballot, after, upto: Slot(12) },
        Message::Entries { ballot, after },
    ];
    let entries = vec![
        entry(6, vec![put(b"a", 10), Operation::Delete { key: Rc::from(*b"b") }]),
        entry(7, Vec::new()),
        entry(8, vec![put(b"c", 0)]),
    ];
    let vote = |kind| Vote { ballot, checksum: 3 << 100, kind };
    let votes =
        vec![vote(EntryKind::Command), vote(EntryKind::Noop), vote(EntryKind::Swap(members().configuration))];
    let accept = Message::Accept { ballot, generation, after, chosen: Slot(5) };
    let end = SnapshotEnd { timestamp: Timestamp(5), state: Rc::from(*b"state") };
    let piece = |last| Piece { base: chosen, number: 3, items: vec![put(b"a", 40), put(b"b", 0)], last };
    let mut all: Vec<Body> = small.into_iter().map(plain).collect();
    all.extend([
        Body::Consensus {
            message: Message::Promise { ballot, chosen, configuration, after },
            votes,
            entries: Vec::new(),
            end: 0,
            members: Some(members()),
        },
        Body::Consensus {
            message: Message::Begin { ballot, base: chosen, configuration },
            votes: Vec::new(),
            entries: Vec::new(),
            end: 0,
            members: Some(members()),
        },
        Body::Consensus { message: accept, votes: Vec::new(), entries, end: 8 << 90, members: None },
        Body::PieceWanted { base: None, number: 0, after: None },
        Body::PieceWanted { base: Some(Slot(5)), number: 2, after: Some(Rc::from(*b"last")) },
        Body::Piece(piece(None)),
        Body::Piece(piece(Some(end))),
    ]);
    all
}

fn support() -> Support {
    let answer = Answer { incarnation: 4, asked: Time(99), epoch: 7 << 32 };
    Support { incarnation: 3, wish: Some(Time(1 << 50)), answer: Some(answer) }
}

fn commit(partition: u64) -> GroupMessage {
    let message = group(plain(Message::Commit { chosen: anchor(partition) }));
    GroupMessage { partition: PartitionId(partition), ..message }
}

#[test]
fn every_message_of_a_group_comes_back_as_it_was() {
    for body in bodies() {
        let message = group(body);
        let frame = frame::open(encode_group(&message)).unwrap();
        let CoreMessage::Group(found) = decode_message(&frame).unwrap() else { panic!("{message:?}") };
        assert_eq!(format!("{found:?}"), format!("{message:?}"));
    }
}

#[test]
fn support_comes_back_with_as_much_as_its_datagram_has_room_for() {
    for (count, bytes_max, fitting) in [(0, 1200, 0), (3, 1200, 3), (100, 1200, 20), (3, 0, 0)] {
        let chosen: Vec<GroupMessage> = (1..=count).map(commit).collect();
        let (bytes, rest) = encode_support(&support(), chosen, bytes_max);
        assert!(bytes.len() <= bytes_max.max(200), "{} bytes of {bytes_max}", bytes.len());
        let CoreMessage::Support { support: found, chosen } =
            decode_message(&frame::open(bytes).unwrap()).unwrap()
        else {
            panic!("support is what was sent")
        };
        assert_eq!(found, support());
        assert!(chosen.len() >= fitting.min(count as usize), "{} of {count}", chosen.len());
        assert_eq!(chosen.len() + rest.len(), count as usize);
        let all: Vec<String> = chosen.iter().chain(&rest).map(|message| format!("{message:?}")).collect();
        let expected: Vec<String> = (1..=count).map(|id| format!("{:?}", commit(id))).collect();
        assert_eq!(all, expected);
    }
}

#[test]
fn the_bytes_of_version_2_are_frozen() {
    let accept = Body::Consensus {
        message: Message::Accept {
            ballot: BALLOT,
            generation: Generation(4),
            after: anchor(6),
            chosen: Slot(5),
        },
        votes: Vec::new(),
        entries: vec![entry(7, vec![put(b"key", 1)])],
        end: 0x0123_4567_89ab_cdef,
        members: None,
    };
    let bytes = encode_group(&group(accept));
    let image = "07".repeat(33);
    let hex = Hex(&bytes[HEADER_BYTES..]).to_string();
    assert!(hex.contains(&image));
    assert_eq!(hex.replace(&image, "<image>"), GOLDEN_ACCEPT);
    let (bytes, _) = encode_support(&support(), vec![commit(1)], 1200);
    assert_eq!(Hex(&bytes[HEADER_BYTES..]).to_string(), GOLDEN_SUPPORT);
}

const GOLDEN_ACCEPT: &str = "07070707000000000000004d0000000000000003000000820000000000000006000000000000000100000000d4ffffff\
    030000006b6579<image>dcffffff0300000001d6ffffff2100000007000000000000000400000001000000020000000\
    0024d0000000000000003000000040000000600000000000000090000000000000080010000000000000500000000000\
    00000000000000000000000000045ffffff0000000040ffffff010000008dffffff01000000efcdab896745230100000\
    000000000000000000000000000000000000000000000";
const GOLDEN_SUPPORT: &str = "010000000000000004000000010000000200000001000000000000000900000000000000400000000000000003000000\
    010000000000000400010400000063000000000000000000000007000000b2ffffff01000000";

#[test]
fn cut_and_flipped_messages_never_stop_the_reader() {
    let mut frames: Vec<Frame> =
        bodies().into_iter().map(|body| frame::open(encode_group(&group(body))).unwrap()).collect();
    frames.push(frame::open(encode_support(&support(), vec![commit(1)], 1200).0).unwrap());
    for whole in frames {
        for at in 0..whole.body.len() {
            for flip in [1u8, 2, 0x80, 0xFF] {
                let mut body = whole.body.to_vec();
                body[at] ^= flip;
                let _ = decode_message(&Frame { header: whole.header, body: body.into() });
            }
            let _ = decode_message(&Frame { header: whole.header, body: whole.body.slice(..at) });
        }
    }
}

#[test]
fn what_no_group_can_say_is_refused() {
    let seat = |member| wire::Seat { member, keeps: wire::Keeps::Tree, node: NodeId(1), shard: ShardId(0) };
    let members = |id_max, ids: &[u32]| wire::Members {
        version: 1,
        id_max,
        seats: ids.iter().map(|&id| seat(id)).collect(),
    };
    let promise = wire::Consensus::Promise {
        ballot: BALLOT,
        chosen: wire::Anchor::default(),
        after: wire::Anchor::default(),
    };
    let plain = wire::Agreement {
        message: wire::Consensus::Probe { ballot: BALLOT },
        votes: Vec::new(),
        entries: Vec::new(),
        operations: Vec::new(),
        end: 0,
        members: None,
    };
    let operation = |key| wire::Operation { key, image: None };
    let with = |members| wire::Agreement { members: Some(members), ..plain.clone() };
    let short = wire::Operation { key: b"key", image: Some(b"short") };
    let long = [1; 100_000];
    let entry = |operations| wire::Entry {
        slot: Slot(1),
        ballot: BALLOT,
        timestamp: Timestamp(1),
        chosen: Slot(0),
        operations,
        lasting: false,
        note: b"",
    };
    let entries = |count, operations: Vec<_>| wire::Agreement {
        entries: vec![entry(count)],
        operations,
        ..plain.clone()
    };
    let cases = [
        ("a promise without members", wire::Agreement { message: promise, ..plain.clone() }),
        ("no members", with(members(3, &[]))),
        ("four members", with(members(9, &[1, 2, 3, 4]))),
        ("a member twice", with(members(9, &[1, 1]))),
        ("a number above the greatest", with(members(1, &[1, 2]))),
        ("an operation of no entry", entries(0, vec![operation(b"key")])),
        ("an entry without its operations", entries(u32::MAX, vec![])),
        ("an empty key", entries(1, vec![operation(b"")])),
        ("a long key", entries(1, vec![operation(&long)])),
        ("an item shorter than its header", entries(1, vec![short])),
    ];
    let head = wire::GroupHead { partition: PartitionId(1), generation: Generation(1), from: 1, to: 2 };
    for (name, agreement) in cases {
        let message = wire::Group { head, body: wire::GroupBody::Consensus(agreement) };
        let frame = frame::open(encode(&message, 0, 0)).unwrap();
        assert!(decode_message(&frame).is_err(), "{name}");
    }
}
