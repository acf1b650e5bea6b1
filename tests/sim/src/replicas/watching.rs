//! What leaves a core and what it answers, as the watch sees it: promises in messages are noted, and a read
//! of what is not applied is reported. And messages in words, for people.

use super::{Local, there};
use crate::cluster;
use crate::watch::Watch;
use evenkeel_model::ItemView;
use evenkeel_partition::{Body, CoreMessage, GroupMessage, Outbox, Place, ReadError};
use evenkeel_paxos::Message;
use std::fmt;
use std::rc::Rc;

/// A message, and the nodes that it is from and for: another node may be in the place by now.
#[derive(Clone, Debug)]
pub struct Addressed {
    pub from: Place,
    pub to: Place,
    pub message: CoreMessage,
}

/// The way out of a core.
pub struct Way {
    pub from: Place,
    pub outbox: cluster::Outbox<Addressed>,
}

impl Outbox for Way {
    fn send(&self, to: Place, message: CoreMessage) {
        note_promises(self.outbox.watch(), &message);
        self.outbox.send(there(to), Addressed { from: self.from, to, message });
    }
}

fn note_promises(watch: &Watch, message: &CoreMessage) {
    let CoreMessage::Group(GroupMessage { partition, from, to, body, .. }) = message else { return };
    let Body::Consensus { message, .. } = body else { return };
    let partition = usize::try_from(partition.0 - 1).expect("few partitions");
    let pair = |ballot: &evenkeel_model::Ballot| (ballot.round, ballot.replica);
    match message {
        Message::Accept { ballot, after, .. } => watch.replaces(partition, to.0, pair(ballot), after.slot.0),
        Message::Accepted { ballot, upto, .. } => watch.acknowledged(partition, from.0, pair(ballot), upto.0),
        Message::Promise { ballot, .. } => watch.promised(partition, from.0, pair(ballot)),
        _ => {}
    }
}

/// Reports an eventually consistent read that saw what the member has not applied.
pub fn check_applied(member: &Local, read: &Result<Option<Rc<[u8]>>, ReadError>, watch: &Watch) {
    let Ok(Some(image)) = read else { return };
    let slot = ItemView::check(image).expect("a stored item is whole").header().slot;
    if slot > member.applied() {
        let (member, applied) = (member.member(), member.applied());
        watch.report(format!(
            "an eventual read at member {member} saw slot {slot}, and only {applied} is applied there"
        ));
    }
}

impl fmt::Display for Addressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            CoreMessage::Support { support, chosen } => {
                write!(f, "support {support:?}")?;
                chosen.iter().try_for_each(|message| write!(f, "; {}", InWords(message)))
            }
            CoreMessage::Group(message) => InWords(message).fmt(f),
        }
    }
}

struct InWords<'a>(&'a GroupMessage);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GroupMessage { partition, from, to, body, .. } = self.0;
        write!(f, "partition {}, member {from} to {to}: ", partition.0 - 1)?;
        match body {
            Body::Consensus { message, votes, entries, .. } => {
                consensus(f, message)?;
                if let [first, .., last] | [first @ last] = &entries[..] {
                    write!(f, ", slots {} to {}", first.slot, last.slot)?;
                }
                if votes.is_empty() { Ok(()) } else { write!(f, ", {} votes", votes.len()) }
            }
            Body::PieceWanted { number, .. } => write!(f, "piece {number} is wanted"),
            Body::Piece(piece) => {
                let last = if piece.last.is_some() { ", the last" } else { "" };
                write!(f, "piece {} of the content at slot {}{last}", piece.number, piece.base.slot)
            }
        }
    }
}

fn consensus(f: &mut fmt::Formatter<'_>, message: &Message) -> fmt::Result {
    let name = |ballot: &evenkeel_model::Ballot| format!("{}.{}", ballot.round, ballot.replica);
    match message {
        Message::Prepare { ballot, chosen, .. } => {
            write!(f, "prepare {}, chosen to {}", name(ballot), chosen.slot)
        }
        Message::Promise { ballot, chosen, after, .. } => {
            write!(f, "promise {}, chosen to {}, behind {}", name(ballot), chosen.slot, after.slot)
        }
        Message::Accept { ballot, after, chosen, .. } => {
            write!(f, "accept {} behind {}, chosen to {chosen}", name(ballot), after.slot)
        }
        Message::Accepted { ballot, upto, epoch } => {
            write!(f, "accepted {} to {upto}, bound in epoch {epoch}", name(ballot))
        }
        Message::Behind { ballot, chosen } => write!(f, "behind {}, chosen to {chosen}", name(ballot)),
        Message::Nack { ballot, promised } => {
            write!(f, "no to {}, promised {}", name(ballot), name(promised))
        }
        Message::Commit { chosen } => write!(f, "chosen to {}", chosen.slot),
        Message::Probe { ballot } => write!(f, "do you reach the leader of {}?", name(ballot)),
        Message::ProbeReply { leader, .. } => write!(f, "I reach {}", name(leader)),
        Message::Relinquish { ballot, to } => match to {
            Some(to) => write!(f, "{} has stopped, for member {to}", name(ballot)),
            None => write!(f, "{} has stopped", name(ballot)),
        },
        Message::Fetch { after, upto, .. } => write!(f, "entries {} to {upto} are wanted", after.slot.0 + 1),
        Message::Entries { after, .. } => write!(f, "entries behind {}", after.slot),
        Message::Begin { base, .. } => write!(f, "the log begins behind {}", base.slot),
    }
}
