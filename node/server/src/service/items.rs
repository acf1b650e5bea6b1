//! Requests for items: what a partition is asked, and what it answers.
//!
//! A member that does not lead says who does. While nobody does, a request waits here for whoever comes to, as
//! long as its time allows: an election then costs one answer more, and no storm of questions.

use super::answers::{Unanswered, bad_program, malformed, redirect_of, reply, write_reply};
use super::{CorePartition, Service};
use crate::limits::{LEADER_PATIENCE_MAX, PAGE_ITEMS_MAX, WATCH_PATIENCE_MAX};
use bytes::Bytes;
use evenkeel_expression::{ConditionView, UpdateView};
use evenkeel_model::limits::PAGE_BYTES_MAX;
use evenkeel_model::{Generation, PartitionId, Slot};
use evenkeel_partition::{Change, Outcome, RangeRequest, ReadError, RequestToken, Terms, WriteError};
use evenkeel_wire::message::{
    ArchivedRange, ArchivedTerms, Changed, Delete, Found, Get, Page, PartitionCounts, PartitionState,
    PartitionStatistics, Put, Range, ReplicaState, Row, Update, Watch,
};
use evenkeel_wire::{Frame, FrameHeader, RefusalCode, decode};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How long a request with this header may wait for a leader: whoever asked needs the rest to ask it.
fn leader_patience(header: &FrameHeader) -> Duration {
    let given = Duration::from_micros(header.timeout_us);
    if given.is_zero() { LEADER_PATIENCE_MAX } else { (given / 2).min(LEADER_PATIENCE_MAX) }
}

impl Service {
    fn partition(&self, id: PartitionId, generation: Generation) -> Result<Rc<CorePartition>, Unanswered> {
        self.shard.serving(id, generation).ok_or_else(|| {
            let message = format!("partition {id} of generation {generation} is not on this shard");
            Unanswered::new(RefusalCode::WrongPartition, message)
        })
    }

    /// Asks a partition, and once more when it has come to lead while nobody else did.
    async fn led<T, E, Ask, Asking>(
        &self,
        partition: &CorePartition,
        header: &FrameHeader,
        ask: Ask,
    ) -> Result<T, Unanswered>
    where
        Ask: Fn() -> Asking,
        Asking: Future<Output = Result<T, E>>,
        E: Into<Unanswered>,
    {
        let first = match ask().await.map_err(E::into) {
            Err(Unanswered::Elsewhere(redirect)) if redirect.leader.is_none() => redirect,
            settled => return settled,
        };
        let redirect = partition.until_led(leader_patience(header)).await;
        match redirect.leader {
            None => Err(Unanswered::Elsewhere(first)),
            Some(leader) if leader == partition.member() => ask().await.map_err(E::into),
            Some(_) => Err(Unanswered::Elsewhere(Box::new(redirect))),
        }
    }

    pub(super) async fn get(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let get = decode::<Get>(frame).map_err(malformed)?;
        let partition = self.partition((&get.partition).into(), (&get.generation).into())?;
        let image = match get.consistent {
            true => self.led(&partition, &frame.header, || partition.get(&get.key)).await?,
            false => partition.get_eventual(&get.key).await?,
        };
        Ok(reply(&frame.header, &Found { item: image.as_deref() }))
    }

    async fn write(
        &self,
        header: &FrameHeader,
        partition: &CorePartition,
        key: &[u8],
        change: Change<'_>,
        asked: &ArchivedTerms<'_>,
    ) -> Result<Bytes, Unanswered> {
        let terms = terms(asked)?;
        let write = || async move {
            let written: Result<Outcome, WriteError> = partition.write(key, change, terms).await;
            written
        };
        Ok(write_reply(header, &self.led(partition, header, write).await?))
    }

    pub(super) async fn put(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let put = decode::<Put>(frame).map_err(malformed)?;
        let partition = self.partition((&put.partition).into(), (&put.generation).into())?;
        self.write(&frame.header, &partition, &put.key, Change::Put(&put.item), &put.terms).await
    }

    pub(super) async fn delete(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let delete = decode::<Delete>(frame).map_err(malformed)?;
        let partition = self.partition((&delete.partition).into(), (&delete.generation).into())?;
        self.write(&frame.header, &partition, &delete.key, Change::Delete, &delete.terms).await
    }

    pub(super) async fn update(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let update = decode::<Update>(frame).map_err(malformed)?;
        let partition = self.partition((&update.partition).into(), (&update.generation).into())?;
        let program = UpdateView::check(&update.program).map_err(bad_program)?;
        let change = Change::Update { program, key_item: &update.key_item };
        self.write(&frame.header, &partition, &update.key, change, &update.terms).await
    }

    pub(super) async fn range(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let range = decode::<Range>(frame).map_err(malformed)?;
        let partition = self.partition((&range.partition).into(), (&range.generation).into())?;
        let request = range_request(range)?;
        let page = match range.consistent {
            true => {
                let read = || async {
                    let page: Result<_, ReadError> = partition.range(request.clone()).await;
                    page
                };
                self.led(&partition, &frame.header, read).await?
            }
            false => partition.range_eventual(request).await?,
        };
        let rows = page.items.iter().map(|(key, item)| Row { key, item }).collect();
        let answer = Page {
            applied: page.applied,
            more: page.more,
            scanned: u32::try_from(page.scanned).expect("a page has at most 2^32 items"),
            scanned_bytes: page.scanned_bytes,
            last: page.last.as_deref(),
            rows,
        };
        Ok(reply(&frame.header, &answer))
    }

    pub(super) async fn watch(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let watch = decode::<Watch>(frame).map_err(malformed)?;
        let partition = self.partition((&watch.partition).into(), (&watch.generation).into())?;
        let given = Duration::from_micros(frame.header.timeout_us) / 2;
        let applied = partition.changed(Slot::from(&watch.after), given.min(WATCH_PATIENCE_MAX)).await;
        Ok(reply(&frame.header, &Changed { applied }))
    }

    pub(super) fn partition_statistics(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<PartitionStatistics>(frame).map_err(malformed)?;
        let partition = self.partition((&asked.partition).into(), (&asked.generation).into())?;
        let counts = partition.counts();
        Ok(reply(&frame.header, &PartitionCounts { items: counts.items, bytes: counts.bytes }))
    }

    pub(super) fn partition_state(&self, frame: &Frame) -> Result<Bytes, Unanswered> {
        let asked = decode::<PartitionState>(frame).map_err(malformed)?;
        let partition = self.partition((&asked.partition).into(), (&asked.generation).into())?;
        let (state, counts) = (partition.report(), partition.counts());
        let answer = ReplicaState {
            member: state.member.0,
            leads: state.leads,
            leased: state.leased,
            removed: partition.is_removed(),
            ballot: state.ballot,
            applied: state.applied,
            end: state.end,
            timestamp_ns: state.timestamp.0,
            marked: state.mark.map_or(Slot(0), |mark| mark.slot),
            content_hash: state.mark.map_or(0, |mark| mark.content_hash),
            items: counts.items,
            bytes: counts.bytes,
            redirect: redirect_of(&partition.redirect()),
        };
        Ok(reply(&frame.header, &answer))
    }
}

fn range_request<'a>(range: &'a ArchivedRange<'_>) -> Result<RangeRequest<'a>, Unanswered> {
    let filter = range.filter.as_ref().map(|filter| ConditionView::check(filter));
    Ok(RangeRequest {
        lower: &range.lower,
        upper: range.upper.as_ref().map(|upper| &**upper),
        reverse: range.reverse,
        items_max: (u32::from(range.items_max) as usize).min(PAGE_ITEMS_MAX),
        bytes_max: (u32::from(range.bytes_max) as usize).min(PAGE_BYTES_MAX),
        filter: filter.transpose().map_err(bad_program)?,
    })
}

fn terms<'a>(asked: &'a ArchivedTerms<'_>) -> Result<Terms<'a>, Unanswered> {
    let condition = asked.condition.as_ref().map(|condition| ConditionView::check(condition));
    let token = asked.token.as_ref().map(|token| RequestToken {
        session: token.session.into(),
        sequence: token.sequence.into(),
        lowest: token.lowest.into(),
    });
    Ok(Terms {
        condition: condition.transpose().map_err(bad_program)?,
        return_old: asked.return_old,
        return_new: asked.return_new,
        return_old_on_failure: asked.return_old_on_failure,
        token,
        reign: None,
    })
}
