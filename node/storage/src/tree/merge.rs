//! Merging what a table holds into a tree: what changes is written anew, the rest stays where it is.

use super::{
    LeafPage, Place, TreeError,
    builder::{Builder, Subtree},
    inner_page, leaf_page,
};
use crate::{
    disk::Disk,
    pace::Pace,
    runtime::Runtime,
    space::{Batch, PageReference, Pages, RootReference},
    table::{self, Held},
    tree::leaf::LeafView,
};
use std::{
    cmp::Ordering,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Leaves that are being read at the same time.
const LEAVES_AHEAD: usize = 16;

/// The tree that `changes` make of the one at `root`; none if nothing is left. Pages that are not part of it
/// any more are released. `passed` hears of each change when its leaf is at hand.
pub(crate) async fn merge<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    batch: &mut Batch<D, R>,
    place: Place,
    root: Option<RootReference>,
    changes: &table::Pinned,
    pace: &Pace<R>,
    passed: &dyn Fn(),
) -> Result<Option<RootReference>, TreeError> {
    let mut builder = Builder::new(batch, place.partition, place.limits);
    let Some(root) = root else {
        add_all(&mut builder, changes.range(&[], None), pace, passed).await?;
        return Ok(builder.finish().await?);
    };
    let mut rest = vec![Subtree::of_root(&root)];
    let mut ahead = Ahead::new(pages.clone());
    while let Some(subtree) = rest.pop() {
        let is_changed = |one: &Subtree| changes.range(&one.lower, one.upper.as_deref()).next().is_some();
        let changed = is_changed(&subtree);
        if !changed && builder.can_take(subtree.level) {
            builder.take(subtree).await?;
            continue;
        }
        let reference = subtree.child.page;
        builder.batch().release(reference.extent);
        if subtree.level > 0 {
            let page = inner_page(pages, reference).await?;
            let below = subtree.below(&page.view()?);
            if subtree.level == 1 {
                ahead.want(below.iter().filter(|one| is_changed(one)).map(|leaf| leaf.child.page));
            }
            rest.extend(below.into_iter().rev());
        } else {
            let page = ahead.leaf(reference).await?;
            let held = changes.range(&subtree.lower, subtree.upper.as_deref());
            merge_leaf(&mut builder, &page.view()?, held.inspect(|_| passed())).await?;
        }
        pace.breathe().await;
    }
    Ok(builder.finish().await?)
}

/// Leaves that are read before they are needed: one after the other would take the device's latency each.
struct Ahead<D: Disk, R: Runtime> {
    pages: Pages<D, R>,
    wanted: VecDeque<PageReference>,
    reading: VecDeque<(PageReference, Reading<D>)>,
}

type Reading<D> = Pin<Box<dyn Future<Output = Result<LeafPage<D>, TreeError>>>>;

impl<D: Disk, R: Runtime> Ahead<D, R> {
    fn new(pages: Pages<D, R>) -> Self {
        Ahead { pages, wanted: VecDeque::new(), reading: VecDeque::new() }
    }

    /// These leaves will be asked for, in this order; others may be in between.
    fn want(&mut self, leaves: impl Iterator<Item = PageReference>) {
        self.wanted.extend(leaves);
    }

    async fn leaf(&mut self, reference: PageReference) -> Result<LeafPage<D>, TreeError> {
        while self.reading.len() < LEAVES_AHEAD
            && let Some(next) = self.wanted.pop_front()
        {
            let pages = self.pages.clone();
            let mut reading: Reading<D> = Box::pin(async move { leaf_page(&pages, next).await });
            // The read begins with the first poll. One that ends with it needs no other.
            let started = reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let reading = match started {
                Poll::Ready(page) => Box::pin(std::future::ready(page)) as Reading<D>,
                Poll::Pending => reading,
            };
            self.reading.push_back((next, reading));
        }
        match self.reading.pop_front_if(|(first, _)| *first == reference) {
            Some((_, reading)) => reading.await,
            None => leaf_page(&self.pages, reference).await,
        }
    }
}

async fn add_all<'a, D: Disk, R: Runtime>(
    builder: &mut Builder<'_, D, R>,
    changes: impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)>,
    pace: &Pace<R>,
    passed: &dyn Fn(),
) -> Result<(), TreeError> {
    for (key, held) in changes {
        passed();
        if let Some(image) = held {
            builder.add(key, image).await?;
            pace.breathe().await;
        }
    }
    Ok(())
}

/// Adds the items of a leaf with what is held above it.
async fn merge_leaf<'a, D: Disk, R: Runtime>(
    builder: &mut Builder<'_, D, R>,
    leaf: &LeafView<'_>,
    held: impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)>,
) -> Result<(), TreeError> {
    let (mut held, mut index) = (held.peekable(), 0);
    let mut key = Vec::new();
    loop {
        let below = (index < leaf.count()).then(|| {
            let (prefix, rest, image) = leaf.item(index);
            key.clear();
            key.extend_from_slice(prefix);
            key.extend_from_slice(rest);
            image
        });
        let order = match (below, held.peek()) {
            (Some(_), Some((above, _))) => key[..].cmp(above),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Ok(()),
        };
        if let (Ordering::Less, Some(image)) = (order, below) {
            builder.add(&key, image).await?;
            index += 1;
            continue;
        }
        index += usize::from(order == Ordering::Equal);
        if let Some((key, Some(image))) = held.next() {
            builder.add(key, image).await?;
        }
    }
}
