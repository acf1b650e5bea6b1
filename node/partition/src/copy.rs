//! Copying a partition's content from another member, for one that is too far behind.
//!
//! Piece after piece is asked for, again if it is not answered, and goes into pages that are nobody's yet: a copy
//! takes hardly any memory and no log, whatever its size. The last piece brings members and outcomes. Then this
//! member rests until the content is in its place for good, and only then consensus hears of it: a crash leaves
//! what was there, or all of the copy.
//!
//! It knows nothing of how the other member holds its content.

use crate::group::{position, read_state};
use crate::hub::CopyShare;
use crate::journal::Writes;
use crate::message::{Body, Piece, SnapshotEnd};
use crate::partition::Partition;
use crate::place::Membership;
use evenkeel_paxos::{Anchor, Input, MemberId};
use evenkeel_storage::{Disk, Installed, KeyAndImage, Operation, Prepared, Runtime};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a piece is waited for before it is asked for again.
const PIECE_PATIENCE: Duration = Duration::from_millis(300);
/// How often a piece is asked for before the copy is given up; consensus will ask again.
const PIECE_ATTEMPTS: u32 = 10;
/// How long it takes until a flip that failed is tried again.
const FLIP_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// A copy under way.
pub(crate) struct Fetch {
    from: MemberId,
    base: Option<Anchor>,
    number: u64,
    after: Option<Rc<[u8]>>,
    arrived: Option<Piece>,
    waker: Option<Waker>,
}

impl<D: Disk, R: Runtime> Partition<D, R> {
    /// Begins to copy the content from a member, unless a copy is under way, or so many on this core that consensus has
    /// to ask again.
    pub(crate) fn fetch_snapshot(&self, from: MemberId) {
        let mut fetching = self.fetching.borrow_mut();
        if fetching.is_some() {
            return;
        }
        let Some(share) = self.hub.begin_copy() else { return };
        *fetching = Some(Fetch { from, base: None, number: 0, after: None, arrived: None, waker: None });
        let (this, runtime) = (Rc::downgrade(&self.this()), self.hub.runtime.clone());
        self.hub.runtime.spawn(copy(this, runtime, share));
    }

    /// Asks for the next piece; nothing is left to ask for once the copy is over.
    fn ask_for_piece(&self) {
        let fetching = self.fetching.borrow();
        let Some(Fetch { from, base, number, after, .. }) = fetching.as_ref() else { return };
        let base = base.map(|base| base.slot);
        let body = Body::PieceWanted { base, number: *number, after: after.clone() };
        self.send_body(&self.group.borrow(), *from, body);
    }

    /// Takes a piece in, if it is the one that is waited for.
    pub(crate) fn take_piece(&self, from: MemberId, piece: Piece) {
        let mut fetching = self.fetching.borrow_mut();
        let Some(fetch) = fetching.as_mut() else { return };
        let same = fetch.base.is_none_or(|base| base == piece.base);
        if fetch.from == from && same && fetch.number == piece.number && fetch.arrived.is_none() {
            fetch.arrived = Some(piece);
            if let Some(waker) = fetch.waker.take() {
                waker.wake();
            }
        }
    }

    /// The piece that has arrived, if the copy is still of use; the next one is asked for.
    fn use_piece(&self) -> Option<Piece> {
        let piece = {
            let mut fetching = self.fetching.borrow_mut();
            let fetch = fetching.as_mut()?;
            let piece = fetch.arrived.take()?;
            if !self.is_news(piece.base) {
                return None;
            }
            fetch.base = Some(piece.base);
            fetch.number += 1;
            fetch.after = piece.items.last().map(|item| match item {
                Operation::Put { key, .. } | Operation::Delete { key } => key.clone(),
            });
            piece
        };
        if piece.last.is_none() {
            self.ask_for_piece();
        }
        Some(piece)
    }

    /// Whether a copy as of `base` is of any use here.
    fn is_news(&self, base: Anchor) -> bool {
        let group = self.group.borrow();
        let is_ahead = base.slot > group.replica.chosen().slot && base.slot > self.applied();
        is_ahead && !group.leads() && !self.halted.get() && !self.is_closed()
    }

    /// Puts the content in its place. From now on this member rests.
    fn put_in_place(&self, copied: &Copied, prepared: Prepared<D, R>) -> Option<Installed<D, R>> {
        if !self.is_news(copied.base) {
            return None;
        }
        let installed = prepared.install(position(copied.base), copied.end.timestamp).ok()?;
        self.group.borrow_mut().pause();
        // Reads see it from now on.
        self.set_applied(copied.base.slot);
        Some(installed)
    }

    /// The content is in its place for good: consensus hears of it, and of what has become durable meanwhile.
    fn go_on(&self, copied: Copied) {
        let Copied { base, end, membership } = copied;
        let deferred = {
            let mut group = self.group.borrow_mut();
            group.places.learn_all(&self.hub, &membership);
            group.resume(end)
        };
        self.tell(Input::Installed { base, configuration: membership.configuration });
        if let Some(token) = deferred {
            self.persisted(token);
        }
        self.tell(Input::Liveness);
    }
}

/// What the last piece of a copy says.
struct Copied {
    base: Anchor,
    end: SnapshotEnd,
    membership: Membership,
}

/// The items of a copy, as they come.
struct Source<D: Disk, R: Runtime> {
    partition: Weak<Partition<D, R>>,
    runtime: R,
    items: VecDeque<KeyAndImage>,
    /// Once the last piece is here; nothing if the copy was given up.
    copied: Option<Copied>,
}

impl<D: Disk, R: Runtime> Source<D, R> {
    async fn next(&mut self) -> Option<KeyAndImage> {
        while self.items.is_empty() && self.copied.is_none() {
            let Piece { base, items, last, .. } = self.piece().await?;
            self.items = items.into_iter().map(put).collect::<Option<_>>()?;
            if let Some(end) = last {
                let (membership, _) = read_state(&end.state)?;
                self.copied = Some(Copied { base, end, membership });
            }
        }
        self.items.pop_front()
    }

    /// Waits for the piece that was asked for.
    async fn piece(&self) -> Option<Piece> {
        for _ in 0..PIECE_ATTEMPTS {
            if arrived(&self.partition, &self.runtime).await {
                return self.partition.upgrade()?.use_piece();
            }
            self.partition.upgrade()?.ask_for_piece();
        }
        None
    }
}

/// Copies the content, or gives it up.
async fn copy<D: Disk, R: Runtime>(partition: Weak<Partition<D, R>>, runtime: R, share: CopyShare<R>) {
    copy_content(&partition, runtime).await;
    drop(share);
    if let Some(this) = partition.upgrade() {
        *this.fetching.borrow_mut() = None;
    }
}

async fn copy_content<D: Disk, R: Runtime>(partition: &Weak<Partition<D, R>>, runtime: R) -> Option<()> {
    let (engine, id) = {
        let this = partition.upgrade()?;
        this.ask_for_piece();
        (this.engine.clone(), this.row().id)
    };
    let (items, copied) = (VecDeque::new(), None);
    let mut source = Source { partition: partition.clone(), runtime: runtime.clone(), items, copied };
    let content = engine.load_content(id, async || source.next().await).await.ok()?;
    let copied = source.copied?;
    let prepared = engine.prepare(id, content, &copied.end.state).await.ok()?;
    let installed = partition.upgrade()?.put_in_place(&copied, prepared)?;
    while installed.until_durable().await.is_err() {
        let this = partition.upgrade()?;
        if let Some(reason) = engine.log_failure() {
            this.halt_because(&reason);
            return None;
        }
        drop(this);
        runtime.sleep(FLIP_AGAIN_AFTER).await;
    }
    // Before the partition may be checkpointed again.
    partition.upgrade()?.go_on(copied);
    drop(installed);
    Some(())
}

fn put(operation: Operation) -> Option<KeyAndImage> {
    match operation {
        Operation::Put { key, image } => Some((key, image)),
        Operation::Delete { .. } => None,
    }
}

/// Waits for a piece, or until it is time to ask again; returns whether one has come.
async fn arrived<D: Disk, R: Runtime>(partition: &Weak<Partition<D, R>>, runtime: &R) -> bool {
    let mut sleep = pin!(runtime.sleep(PIECE_PATIENCE));
    poll_fn(|context| {
        if sleep.as_mut().poll(context).is_ready() {
            return Poll::Ready(false);
        }
        let Some(this) = partition.upgrade() else { return Poll::Ready(false) };
        let mut fetching = this.fetching.borrow_mut();
        match fetching.as_mut() {
            Some(fetch) if fetch.arrived.is_none() => {
                fetch.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(_) => Poll::Ready(true),
            None => Poll::Ready(false),
        }
    })
    .await
}
