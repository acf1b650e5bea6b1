//! Telling the cluster that this node is there.
//!
//! The shard 0 of a node asks those who hold partition 0 until one of them leads and has taken note. A node that
//! comes with another disk than it is known by is told so, and must not run.

use crate::control::ControlError;
use crate::limits::REGISTER_PAUSE;
use crate::service::Service;
use crate::shard::{ShardError, ShardPlan};
use evenkeel_model::{NodeId, ShardId};
use evenkeel_partition::Place;
use evenkeel_wire::message::{Redirect, RegisterNode};
use evenkeel_wire::{Frame, Kind, Refusal, RefusalCode, decode, encode, frame};

/// What came of one question.
enum Answer {
    Registered,
    Refused(String),
    /// Ask somebody else, if this says whom.
    Elsewhere(Option<Place>),
}

/// Registers the node, if this is its first shard; returns when that is done.
///
/// # Errors
/// The cluster refuses the node.
pub async fn register(plan: &ShardPlan, service: &Service) -> Result<(), ShardError> {
    if plan.shard != ShardId(0) {
        return Ok(());
    }
    let node = service.identity.nodes.get(service.identity.place.node);
    let message = RegisterNode {
        node: node.expect("a checked configuration lists the node itself"),
        store: plan.store.id,
        replaces: plan.config.node.replaces.map(NodeId),
    };
    let own = service.identity.place;
    let mut next = None;
    loop {
        let mut holders = service.catalogue();
        holders.sort_by_key(|holder| holder.node != own.node);
        let holders = holders.iter().map(|holder| Place { node: holder.node, shard: holder.shard });
        let asked: Vec<Place> = next.take().into_iter().chain(holders).collect();
        for place in asked {
            let answer = match place == own {
                true => register_here(service, &message).await,
                false => service.peers.ask(place, &message).await.map_or(Answer::Elsewhere(None), read),
            };
            match answer {
                Answer::Registered => return Ok(()),
                Answer::Refused(reason) => return Err(ShardError::Refused(reason)),
                Answer::Elsewhere(leader) => next = next.or(leader),
            }
            if next.is_some() {
                break;
            }
        }
        service.core.sleep(REGISTER_PAUSE).await;
    }
}

/// Asks the control plane beside this shard.
async fn register_here(service: &Service, message: &RegisterNode) -> Answer {
    let control = service.control.borrow().clone();
    let Some(control) = control else { return Answer::Elsewhere(None) };
    let frame = frame::open(encode(message, 0, 0)).expect("sealed in the same expression");
    let message = decode::<RegisterNode>(&frame).expect("encoded on the line above");
    match control.register_node(message).await {
        Ok(()) => Answer::Registered,
        Err(error @ (ControlError::OtherDisk(_) | ControlError::Invalid(_))) => {
            Answer::Refused(error.to_string())
        }
        Err(_) => Answer::Elsewhere(None),
    }
}

fn read(frame: Frame) -> Answer {
    let frame = &frame;
    match Kind::from_number(frame.header.kind) {
        Some(Kind::Done) => Answer::Registered,
        Some(Kind::Redirect) => Answer::Elsewhere(decode::<Redirect>(frame).ok().and_then(leader)),
        Some(Kind::Refusal) => match decode::<Refusal>(frame) {
            Ok(refusal) if is_final(refusal.code.into()) => Answer::Refused(refusal.message.to_string()),
            Ok(_) | Err(_) => Answer::Elsewhere(None),
        },
        _ => Answer::Elsewhere(None),
    }
}

fn is_final(code: u16) -> bool {
    matches!(RefusalCode::from_number(code), Some(RefusalCode::Forbidden | RefusalCode::Invalid))
}

fn leader(redirect: &evenkeel_wire::message::ArchivedRedirect) -> Option<Place> {
    let leader = redirect.leader.as_ref().map(|&leader| u32::from(leader))?;
    let seat = redirect.members.seats.iter().find(|seat| u32::from(seat.member) == leader)?;
    Some(Place { node: (&seat.node).into(), shard: (&seat.shard).into() })
}
