//! Reads: what the log has not applied yet, the table, and below both the tree.
//!
//! Table and root are looked at in one moment, before anything is awaited, and the pages that the root
//! leads to are pinned in it: what a merge does meanwhile is not seen. A range is read leaf by leaf, each
//! in a moment of its own.

use super::{Engine, KeyAndImage, Newest, Page, RangeQuery};
use crate::{
    disk::Disk,
    error::{ReadError, TooManyFrozen},
    limits::PAGE_MEMORY_BYTES_MAX,
    runtime::Runtime,
    space::{self, RootReference},
    table::{self, Held},
    tree::{self, Leaf},
};
use evenkeel_model::{PartitionId, Slot, item::stored_item_bytes};
use std::{cmp::Ordering, iter::Peekable, ops::ControlFlow, rc::Rc};

/// A tree whose pages stay as they are.
struct PinnedTree<D: Disk, R: Runtime> {
    root: RootReference,
    _pin: space::Pin<D, R>,
}

impl<D: Disk, R: Runtime> Engine<D, R> {
    /// The newest image of a key, applied or not. Whoever wants to rely on it keeps others from changing
    /// the key meanwhile.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn newest(&self, id: PartitionId, key: &[u8]) -> Result<Newest, ReadError> {
        let tree = {
            let partitions = self.inner.partitions.borrow();
            let partition = partitions.get(id).ok_or(ReadError::Unknown { id })?;
            match partition.newest(key) {
                Some(newest) => return Ok(newest),
                None => self.pin_tree(partition.tree),
            }
        };
        Ok(Newest { image: self.get_below(tree, key).await?, pending: None })
    }

    /// The applied image of a key.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, id: PartitionId, key: &[u8]) -> Result<Option<Rc<[u8]>>, ReadError> {
        let tree = {
            let partitions = self.inner.partitions.borrow();
            let partition = partitions.get(id).ok_or(ReadError::Unknown { id })?;
            match partition.table.get(key) {
                Some(held) => return Ok(held.clone()),
                None => self.pin_tree(partition.tree),
            }
        };
        self.get_below(tree, key).await
    }

    fn pin_tree(&self, root: Option<RootReference>) -> Option<PinnedTree<D, R>> {
        root.map(|root| PinnedTree { root, _pin: self.inner.pages.pin() })
    }

    async fn get_below(
        &self,
        tree: Option<PinnedTree<D, R>>,
        key: &[u8],
    ) -> Result<Option<Rc<[u8]>>, ReadError> {
        let Some(tree) = tree else { return Ok(None) };
        Ok(tree::get(&self.inner.pages, &tree.root, key).await?)
    }

    /// A page of the applied items of a range.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn range(&self, id: PartitionId, query: RangeQuery) -> Result<Page, ReadError> {
        let RangeQuery { lower, upper, reverse, items_max, bytes_max } = query;
        let mut rest = Rest { lower, upper, reverse };
        let mut page = Filling::new(items_max, bytes_max as u64, PAGE_MEMORY_BYTES_MAX);
        loop {
            let root = self.tree(id)?;
            let leaf = self.leaf(self.pin_tree(root).as_ref(), &rest).await?;
            let partitions = self.inner.partitions.borrow();
            let partition = partitions.get(id).ok_or(ReadError::Unknown { id })?;
            if partition.tree != root {
                // What a merge has put into the tree is off the table: the leaf is too old for it.
                continue;
            }
            let part = rest.within(&leaf);
            let above = partition.table.range(part.lower, part.upper, reverse);
            if page.take(&leaf, above, &part).is_break() || rest.leave(&leaf).is_break() {
                return Ok(page.done());
            }
        }
    }

    fn tree(&self, id: PartitionId) -> Result<Option<RootReference>, ReadError> {
        let partitions = self.inner.partitions.borrow();
        Ok(partitions.get(id).ok_or(ReadError::Unknown { id })?.tree)
    }

    /// The leaf that a range begins in; the empty one of an empty tree.
    async fn leaf(&self, tree: Option<&PinnedTree<D, R>>, rest: &Rest) -> Result<Leaf, ReadError> {
        let Some(tree) = tree else { return Ok(Leaf::default()) };
        let pages = &self.inner.pages;
        Ok(if rest.reverse {
            tree::leaf_before(pages, &tree.root, rest.upper.as_deref()).await?
        } else {
            tree::leaf_from(pages, &tree.root, &rest.lower).await?
        })
    }

    /// The applied state as it is now, whatever is applied later.
    ///
    /// # Errors
    /// See [`TooManyFrozen`].
    ///
    /// # Panics
    /// If the partition is not here.
    pub fn pin(&self, id: PartitionId) -> Result<Pinned<D, R>, TooManyFrozen> {
        let mut partitions = self.inner.partitions.borrow_mut();
        let partition = partitions.get_mut(id).expect("only a partition that is here is pinned");
        let table = partition.table.pin(partition.applied.slot)?;
        let tree = self.pin_tree(partition.tree);
        Ok(Pinned { engine: self.clone(), table, tree: tree.map(Rc::new) })
    }
}

/// A state of a partition that later changes do not touch. A clone is another handle of it.
pub struct Pinned<D: Disk, R: Runtime> {
    engine: Engine<D, R>,
    table: table::Pinned,
    tree: Option<Rc<PinnedTree<D, R>>>,
}

impl<D: Disk, R: Runtime> Clone for Pinned<D, R> {
    fn clone(&self) -> Self {
        Pinned { engine: self.engine.clone(), table: self.table.clone(), tree: self.tree.clone() }
    }
}

impl<D: Disk, R: Runtime> Pinned<D, R> {
    /// The last slot applied to it.
    pub fn slot(&self) -> Slot {
        self.table.slot()
    }

    /// The items in key order from `lower` (inclusive) on: at least one, and not many more than take
    /// `memory_bytes` of keys and images.
    ///
    /// # Errors
    /// A page could not be read.
    pub async fn items_from(&self, lower: &[u8], memory_bytes: usize) -> Result<Page, ReadError> {
        let mut rest = Rest { lower: lower.to_vec(), upper: None, reverse: false };
        let mut page = Filling::new(usize::MAX, u64::MAX, memory_bytes);
        loop {
            let leaf = self.engine.leaf(self.tree.as_deref(), &rest).await?;
            let part = rest.within(&leaf);
            let above = self.table.range(part.lower, part.upper);
            if page.take(&leaf, above, &part).is_break() || rest.leave(&leaf).is_break() {
                return Ok(page.done());
            }
        }
    }
}

/// What is still to be read of a range.
struct Rest {
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
    reverse: bool,
}

/// The part of a range that one leaf answers for.
struct Part<'a> {
    lower: &'a [u8],
    upper: Option<&'a [u8]>,
    reverse: bool,
}

impl Rest {
    fn within<'a>(&'a self, leaf: &'a Leaf) -> Part<'a> {
        let lower = leaf.lower.as_deref().unwrap_or_default().max(&self.lower);
        let upper = match (leaf.upper.as_deref(), self.upper.as_deref()) {
            (Some(leaf), Some(asked)) => Some(leaf.min(asked)),
            (leaf, asked) => leaf.or(asked),
        };
        Part { lower, upper, reverse: self.reverse }
    }

    /// Goes on behind the leaf, unless nothing of the range is there.
    fn leave(&mut self, leaf: &Leaf) -> ControlFlow<()> {
        if self.reverse {
            let Some(next) = leaf.lower.as_deref().filter(|next| *next > &self.lower[..]) else {
                return ControlFlow::Break(());
            };
            self.upper = Some(next.to_vec());
        } else {
            let inside = |next: &&[u8]| self.upper.as_deref().is_none_or(|upper| *next < upper);
            let Some(next) = leaf.upper.as_deref().filter(inside) else { return ControlFlow::Break(()) };
            self.lower = next.to_vec();
        }
        ControlFlow::Continue(())
    }
}

/// A page being filled.
struct Filling {
    page: Page,
    items_max: usize,
    bytes_max: u64,
    memory_bytes_max: usize,
    item_bytes: u64,
    memory_bytes: usize,
}

impl Filling {
    fn new(items_max: usize, bytes_max: u64, memory_bytes_max: usize) -> Self {
        let page = Page { items: Vec::new(), more: false };
        Filling { page, items_max, bytes_max, memory_bytes_max, item_bytes: 0, memory_bytes: 0 }
    }

    /// Takes the items of a part, what is held of it hiding the leaf's; breaks when there is one more than the
    /// page takes.
    fn take<'a>(
        &mut self,
        leaf: &'a Leaf,
        above: impl Iterator<Item = (&'a Rc<[u8]>, &'a Held)>,
        part: &Part<'_>,
    ) -> ControlFlow<()> {
        let first = leaf.items.partition_point(|(key, _)| &key[..] < part.lower);
        let end = part
            .upper
            .map_or(leaf.items.len(), |upper| leaf.items.partition_point(|(key, _)| &key[..] < upper));
        let below = &leaf.items[first..end.max(first)];
        if part.reverse {
            self.take_merged(Merged {
                below: below.iter().rev().peekable(),
                above: above.peekable(),
                reverse: true,
            })
        } else {
            self.take_merged(Merged {
                below: below.iter().peekable(),
                above: above.peekable(),
                reverse: false,
            })
        }
    }

    fn take_merged<'a>(
        &mut self,
        items: impl Iterator<Item = (&'a Rc<[u8]>, &'a Rc<[u8]>)>,
    ) -> ControlFlow<()> {
        for (key, image) in items {
            let full = self.item_bytes >= self.bytes_max || self.memory_bytes >= self.memory_bytes_max;
            if full || self.page.items.len() >= self.items_max {
                self.page.more = true;
                return ControlFlow::Break(());
            }
            self.item_bytes += stored_item_bytes(image);
            self.memory_bytes += key.len() + image.len();
            self.page.items.push((Rc::clone(key), Rc::clone(image)));
        }
        ControlFlow::Continue(())
    }

    fn done(self) -> Page {
        self.page
    }
}

/// Items of a leaf and what is held above it, as one.
struct Merged<B: Iterator, A: Iterator> {
    below: Peekable<B>,
    above: Peekable<A>,
    reverse: bool,
}

impl<'a, B, A> Iterator for Merged<B, A>
where
    B: Iterator<Item = &'a KeyAndImage>,
    A: Iterator<Item = (&'a Rc<[u8]>, &'a Held)>,
{
    type Item = (&'a Rc<[u8]>, &'a Rc<[u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.below.peek(), self.above.peek()) {
                (Some((below, _)), Some((above, _))) if self.reverse => (**above).cmp(below),
                (Some((below, _)), Some((above, _))) => below.cmp(above),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if order == Ordering::Less {
                return self.below.next().map(|(key, image)| (key, image));
            }
            if order == Ordering::Equal {
                self.below.next();
            }
            if let (key, Some(image)) = self.above.next()? {
                return Some((key, image));
            }
        }
    }
}
