//! What a member sends to others, and what it takes from them.
//!
//! Consensus knows entries by their checksums; here they get their payloads, and what arrives is checked:
//! entries must chain to what the message says they follow, and there must be room for them.

use super::{Group, anchor, kind_of};
use crate::message::{Body, CoreMessage, GroupMessage};
use crate::partition::Partition;
use crate::place::Place;
use evenkeel_model::Slot;
use evenkeel_paxos::{Anchor, Entry as Vote, Input, MemberId, Message, Output};
use evenkeel_storage::{Disk, Entry, Operation, Runtime};

/// Payload bytes in one message, about: more goes in several.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

impl<D: Disk, R: Runtime> Partition<D, R> {
    pub(super) fn send(&self, group: &Group, to: MemberId, message: &Message, votes: &[Vote]) {
        match *message {
            Message::Accept { after, .. } | Message::Entries { after, .. } if !votes.is_empty() => {
                self.send_entries(group, to, message, after, votes);
            }
            Message::Promise { configuration, .. } | Message::Begin { configuration, .. } => {
                let members = Some(group.places.membership(&configuration));
                let votes = votes.to_vec();
                let body = Body::Consensus { message: *message, votes, entries: Vec::new(), end: 0, members };
                self.send_body(group, to, body);
            }
            message => self.send_body(group, to, plain(message)),
        }
    }

    /// Sends entries with their payloads, a message after the other if they are large. Accepts may be cut
    /// anywhere; what was asked for may be answered in part.
    fn send_entries(&self, group: &Group, to: MemberId, message: &Message, first: Anchor, votes: &[Vote]) {
        let (mut after, mut entries, mut bytes) = (first, Vec::new(), 0);
        let mut at = first;
        for vote in votes {
            // What was dropped or trimmed meanwhile is not sent; it is asked for again if need be.
            let held = self.engine.entry(self.row().id, at.slot.next());
            let Some((entry, _)) = held.filter(|(_, checksum)| *checksum == vote.checksum) else { break };
            bytes += payload_bytes(&entry);
            at = Anchor { slot: entry.slot, checksum: vote.checksum };
            entries.push(entry);
            if bytes >= MESSAGE_BYTES_MAX {
                let entries = std::mem::take(&mut entries);
                self.send_body(group, to, carrying(message, after, entries, at.checksum));
                (after, bytes) = (at, 0);
                if matches!(message, Message::Entries { .. }) {
                    return;
                }
            }
        }
        if !entries.is_empty() {
            self.send_body(group, to, carrying(message, after, entries, at.checksum));
        }
    }

    pub(crate) fn send_body(&self, group: &Group, to: MemberId, body: Body) {
        let Some(place) = group.places.place(to) else { return };
        self.hub.config.outbox.send(place, CoreMessage::Group(self.message(group, to, body)));
    }

    fn message(&self, group: &Group, to: MemberId, body: Body) -> GroupMessage {
        let row = self.row();
        let from = group.replica.member().id;
        GroupMessage { partition: row.id, generation: row.generation, from, to, body }
    }

    /// Hands older entries of the log to consensus, which will send them.
    pub(super) fn load(&self, group: &mut Group, to: MemberId, after: Slot, upto: Slot, out: &mut Output) {
        let id = self.row().id;
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        let Some(begins) = self.engine.position(id, after) else {
            let (base, configuration) = (group.replica.chosen(), *group.replica.configuration());
            group.replica.step(now, Input::Trimmed { to, base, configuration }, &facts, out);
            return;
        };
        let (mut votes, mut bytes) = (Vec::new(), 0);
        for slot in after.0 + 1..=upto.0 {
            let Some((entry, checksum)) = self.engine.entry(id, Slot(slot)) else { break };
            let Some(kind) = kind_of(&entry) else { break };
            bytes += payload_bytes(&entry);
            votes.push(Vote { ballot: entry.ballot, checksum, kind });
            if bytes >= MESSAGE_BYTES_MAX {
                break;
            }
        }
        self.goes_on(to);
        let loaded = Input::Loaded { to, after: anchor(begins), entries: &votes };
        group.replica.step(now, loaded, &facts, out);
    }

    /// What a leader has chosen lately, for the member on a core.
    pub(crate) fn announcement(&self, core: usize) -> Option<GroupMessage> {
        let group = self.group.borrow();
        let message = group.replica.announcement().filter(|_| group.announcements > 0)?;
        let to = group.member_on(core)?;
        Some(self.message(&group, to, plain(message)))
    }

    /// Takes a message in, if what it carries is what it says.
    pub(crate) fn receive(&self, place: Place, from: MemberId, to: MemberId, body: Body) {
        {
            let mut group = self.group.borrow_mut();
            if to != group.replica.member().id || self.halted.get() || group.is_paused() {
                return;
            }
            group.places.learn(&self.hub, from, place);
        }
        match body {
            Body::Consensus { message, votes, entries, end, members } => {
                if let Some(members) = members {
                    self.group.borrow_mut().places.learn_all(&self.hub, &members);
                }
                if entries.is_empty() {
                    self.tell(Input::Message { from, message, entries: &votes });
                } else {
                    self.receive_entries(from, message, entries, end);
                }
            }
            Body::PieceWanted { base, number, after } => {
                self.send_piece(from, base, number, after.as_deref())
            }
            Body::Piece(piece) => self.take_piece(from, piece),
        }
    }

    /// Entries to be appended: they must chain to what the message says they follow, and there must be room.
    fn receive_entries(&self, from: MemberId, message: Message, entries: Vec<Entry>, end: u128) {
        let (ballot, after) = match message {
            Message::Accept { ballot, after, .. } | Message::Entries { ballot, after } => (ballot, after),
            _ => return,
        };
        let row = self.row();
        let (mut votes, mut before) = (Vec::with_capacity(entries.len()), after);
        for entry in &entries {
            let Some(kind) = kind_of(entry).filter(|_| entry.slot == before.slot.next()) else { return };
            let checksum = entry.checksum(row.id, row.generation, before.checksum);
            votes.push(Vote { ballot, checksum, kind });
            before = Anchor { slot: entry.slot, checksum };
        }
        let known = self.applied();
        let new = entries.iter().filter(|entry| entry.slot > known);
        if before.checksum != end || self.engine.admits(row.id, new).is_err() {
            // It is sent again.
            return;
        }
        let mut group = self.group.borrow_mut();
        let group = &mut *group;
        group.incoming.clear();
        group.incoming.extend(entries.into_iter().map(Some));
        group.incoming_from = after.slot.next();
        let now = self.now(&group.replica);
        let facts = self.surroundings(&group.places);
        let input = Input::Message { from, message, entries: &votes };
        group.replica.step(now, input, &facts, &mut group.out);
        self.perform(group);
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    let each = |operation: &Operation| match operation {
        Operation::Put { key, image } => key.len() + image.len(),
        Operation::Delete { key } => key.len(),
    };
    64 + entry.note.len() + entry.operations.iter().map(each).sum::<usize>()
}

fn plain(message: Message) -> Body {
    Body::Consensus { message, votes: Vec::new(), entries: Vec::new(), end: 0, members: None }
}

fn carrying(message: &Message, after: Anchor, entries: Vec<Entry>, end: u128) -> Body {
    let message = match *message {
        Message::Accept { ballot, generation, chosen, .. } => {
            Message::Accept { ballot, generation, after, chosen }
        }
        Message::Entries { ballot, .. } => Message::Entries { ballot, after },
        other => other,
    };
    Body::Consensus { message, votes: Vec::new(), entries, end, members: None }
}
