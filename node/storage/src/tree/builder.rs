//! Puts a tree together from left to right: items and whole subtrees come in key order, pages go out.
//!
//! Each level gathers up to twice what a page takes and gives away full ones; when it has to close it
//! halves what it has. So pages are at least half full, but for one at the end of what was gathered; and
//! where that would be less than a [quarter](UNDERFULL_PART) full, the next subtree is
//! [not taken as a whole](Builder::can_take): its first page joins what is left over.

use super::{
    Limits,
    inner::{self, CHILD_OVERHEAD_BYTES, Child, Sums},
    leaf::{self, ITEM_OVERHEAD_BYTES},
    page::{PageHeader, common_bytes},
};
use crate::{
    disk::Disk,
    runtime::Runtime,
    space::{Batch, PageKind, RootReference, SpaceError},
};
use evenkeel_model::{PartitionId, item::stored_item_bytes};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// A page with less than this part of what it takes is joined with the next one.
const UNDERFULL_PART: usize = 4;

/// A subtree as it is: a page, and the keys that it is for.
#[derive(Clone, Debug)]
pub(super) struct Subtree {
    pub(super) child: Child,
    /// Levels of pages below the page.
    pub(super) level: usize,
    /// The least key that may be in it; empty for no bound.
    pub(super) lower: Vec<u8>,
    /// The least key behind it; none for no bound.
    pub(super) upper: Option<Vec<u8>>,
}

impl Subtree {
    /// A whole tree.
    pub(super) fn of_root(root: &RootReference) -> Self {
        let sums = Sums { items: root.item_count, bytes: root.item_bytes, hash: root.content_hash };
        let child = Child { page: root.page, sums };
        Subtree { child, level: root.height as usize, lower: Vec::new(), upper: None }
    }

    /// The trees below an inner page, in order.
    pub(super) fn below(&self, page: &inner::InnerView<'_>) -> Vec<Subtree> {
        let bound = |index| if index < page.count() { page.separator(index) } else { self.upper.clone() };
        let each = |index| Subtree {
            child: page.child(index),
            level: self.level - 1,
            lower: page.separator(index).unwrap_or_else(|| self.lower.clone()),
            upper: bound(index + 1),
        };
        (0..page.count()).map(each).collect()
    }

    /// The part of the keys from `lower` to `upper` that it is for.
    pub(super) fn root(self) -> RootReference {
        let Child { page, sums } = self.child;
        RootReference {
            page,
            height: u32::try_from(self.level).expect("trees are low"),
            item_count: sums.items,
            item_bytes: sums.bytes,
            content_hash: sums.hash,
        }
    }
}

/// What is to the left of the next page.
enum Left {
    Nothing,
    /// The greatest key.
    Key(Vec<u8>),
    /// A key that is behind all of them, and not behind what follows.
    Separator(Vec<u8>),
}

/// A tree being built.
pub(super) struct Builder<'a, D: Disk, R: Runtime> {
    batch: &'a mut Batch<D, R>,
    partition: PartitionId,
    limits: Limits,
    leaf: Items,
    left: Left,
    /// Children for the pages of level 1, of level 2, and so on.
    inner: Vec<Children>,
}

/// Items for the next leaves.
#[derive(Default)]
struct Items {
    bytes: Vec<u8>,
    /// Where each begins in `bytes`, and the lengths of its key and image.
    places: Vec<(usize, usize, usize)>,
    cost: usize,
}

/// Children for the next inner pages.
#[derive(Default)]
struct Children {
    list: Vec<(Vec<u8>, Child)>,
    cost: usize,
    /// Pages have gone out.
    has_written: bool,
}

impl Items {
    fn push(&mut self, key: &[u8], image: &[u8]) {
        self.places.push((self.bytes.len(), key.len(), image.len()));
        self.bytes.extend(key);
        self.bytes.extend(image);
        self.cost += item_cost(key.len(), image.len());
    }

    fn item(&self, index: usize) -> (&[u8], &[u8]) {
        let (at, key_bytes, image_bytes) = self.places[index];
        self.bytes[at..at + key_bytes + image_bytes].split_at(key_bytes)
    }

    /// How many of the first items cost at most `cost`; at least one.
    fn first_of_cost(&self, cost: usize) -> usize {
        let mut sum = 0;
        let over = self.places.iter().position(|&(_, key_bytes, image_bytes)| {
            sum += item_cost(key_bytes, image_bytes);
            sum > cost
        });
        over.unwrap_or(self.places.len()).max(1)
    }

    fn sums(&self, count: usize) -> Sums {
        (0..count).fold(Sums::default(), |sums, index| {
            let (key, image) = self.item(index);
            sums.plus(sums_of(key, image))
        })
    }

    fn drop_first(&mut self, count: usize) {
        let end = self.places.get(count).map_or(self.bytes.len(), |&(at, ..)| at);
        self.bytes.drain(..end);
        for (_, key_bytes, image_bytes) in self.places.drain(..count) {
            self.cost -= item_cost(key_bytes, image_bytes);
        }
        self.places.iter_mut().for_each(|(at, ..)| *at -= end);
    }
}

fn item_cost(key_bytes: usize, image_bytes: usize) -> usize {
    ITEM_OVERHEAD_BYTES + key_bytes + image_bytes
}

/// What one item adds to what is below a page. Its hash is over key and stored image, which members of a group
/// have alike.
pub(super) fn sums_of(key: &[u8], image: &[u8]) -> Sums {
    let hash = xxh3_128_with_seed(image, xxh3_64(key));
    Sums { items: 1, bytes: stored_item_bytes(image), hash }
}

impl Children {
    fn push(&mut self, separator: Vec<u8>, child: Child) {
        self.cost += CHILD_OVERHEAD_BYTES + separator.len();
        self.list.push((separator, child));
    }

    fn first_of_cost(&self, cost: usize) -> usize {
        let mut sum = 0;
        let over = self.list.iter().position(|(separator, _)| {
            sum += CHILD_OVERHEAD_BYTES + separator.len();
            sum > cost
        });
        over.unwrap_or(self.list.len()).max(1)
    }
}

impl<'a, D: Disk, R: Runtime> Builder<'a, D, R> {
    pub(super) fn new(batch: &'a mut Batch<D, R>, partition: PartitionId, limits: Limits) -> Self {
        let leaf = Items::default();
        Builder { batch, partition, limits, leaf, left: Left::Nothing, inner: Vec::new() }
    }

    /// The batch that the pages go into.
    pub(super) fn batch(&mut self) -> &mut Batch<D, R> {
        self.batch
    }

    /// Adds an item behind everything added before.
    pub(super) async fn add(&mut self, key: &[u8], image: &[u8]) -> Result<(), SpaceError> {
        self.leaf.push(key, image);
        while self.leaf.cost >= 2 * self.limits.leaf_bytes && self.leaf.places.len() > 1 {
            let count = self.leaf.first_of_cost(self.limits.leaf_bytes);
            self.write_leaf(count).await?;
        }
        Ok(())
    }

    /// Whether a subtree whose page is at `level` can be added as it is, without leaving a page before it
    /// nearly empty.
    pub(super) fn can_take(&self, level: usize) -> bool {
        let mut carried = 0;
        (0..=level).all(|level| {
            let (cost, full) = match level {
                0 => (self.leaf.cost, self.limits.leaf_bytes),
                _ => (self.inner.get(level - 1).map_or(0, |children| children.cost), self.limits.inner_bytes),
            };
            let cost = cost + carried;
            carried = if cost > 0 { CHILD_OVERHEAD_BYTES } else { 0 };
            cost == 0 || cost >= full / UNDERFULL_PART
        })
    }

    /// Adds a subtree as it is, behind everything added before.
    pub(super) async fn take(&mut self, subtree: Subtree) -> Result<(), SpaceError> {
        for level in 0..=subtree.level {
            self.close(level).await?;
        }
        let separator = match &self.left {
            Left::Nothing => Vec::new(),
            Left::Key(_) | Left::Separator(_) => subtree.lower,
        };
        // Behind a subtree without an upper bound nothing follows.
        self.left = subtree.upper.map_or(Left::Nothing, Left::Separator);
        self.push_child(subtree.level, separator, subtree.child).await
    }

    async fn push_child(&mut self, level: usize, separator: Vec<u8>, child: Child) -> Result<(), SpaceError> {
        if self.inner.len() <= level {
            self.inner.resize_with(level + 1, Children::default);
        }
        self.inner[level].push(separator, child);
        // What gets full may make the level above full, and so on.
        for level in level..self.inner.len() {
            while self.inner[level].cost >= 2 * self.limits.inner_bytes {
                let count = self.inner[level].first_of_cost(self.limits.inner_bytes);
                let (separator, child) = self.write_inner(level, count).await?;
                if self.inner.len() == level + 1 {
                    self.inner.push(Children::default());
                }
                self.inner[level + 1].push(separator, child);
            }
        }
        Ok(())
    }

    /// Writes what is gathered for pages of `level`.
    async fn close(&mut self, level: usize) -> Result<(), SpaceError> {
        if level == 0 {
            while !self.leaf.places.is_empty() {
                let halves = self.leaf.cost > self.limits.leaf_bytes && self.leaf.places.len() > 1;
                let cost = if halves { self.leaf.cost / 2 } else { self.leaf.cost };
                let count = self.leaf.first_of_cost(cost);
                self.write_leaf(count).await?;
            }
            return Ok(());
        }
        let at = level - 1;
        while self.inner.get(at).is_some_and(|children| !children.list.is_empty()) {
            let children = &self.inner[at];
            let halves = children.cost > self.limits.inner_bytes && children.list.len() > 1;
            let count = children.first_of_cost(if halves { children.cost / 2 } else { children.cost });
            let (separator, child) = self.write_inner(at, count).await?;
            self.push_child(level, separator, child).await?;
        }
        Ok(())
    }

    /// Writes a leaf of the first `count` items gathered.
    async fn write_leaf(&mut self, count: usize) -> Result<(), SpaceError> {
        let header = PageHeader { partition: self.partition, level: 0 };
        let page = leaf::encode(header, (0..count).map(|index| self.leaf.item(index)));
        let page = self.batch.write(&page, PageKind::Leaf).await?;
        let child = Child { page, sums: self.leaf.sums(count) };
        let first = self.leaf.item(0).0;
        let separator = match &self.left {
            Left::Nothing => Vec::new(),
            Left::Key(last) => first[..=common_bytes(last, first)].to_vec(),
            Left::Separator(separator) => separator.clone(),
        };
        self.left = Left::Key(self.leaf.item(count - 1).0.to_vec());
        self.leaf.drop_first(count);
        self.push_child(0, separator, child).await
    }

    /// Writes an inner page of the first `count` children gathered at `at`.
    async fn write_inner(&mut self, at: usize, count: usize) -> Result<(Vec<u8>, Child), SpaceError> {
        let level = u8::try_from(at + 1).expect("trees are low");
        let header = PageHeader { partition: self.partition, level };
        let children = &mut self.inner[at];
        let list: Vec<(Vec<u8>, Child)> = children.list.drain(..count).collect();
        children.cost -=
            list.iter().map(|(separator, _)| CHILD_OVERHEAD_BYTES + separator.len()).sum::<usize>();
        children.has_written = true;
        let page = inner::encode(header, list.iter().map(|(separator, child)| (&separator[..], *child)));
        let page = self.batch.write(&page, PageKind::Inner).await?;
        let sums = list.iter().fold(Sums::default(), |sums, (_, child)| sums.plus(child.sums));
        let separator = list.into_iter().next().expect("there is at least one child").0;
        Ok((separator, Child { page, sums }))
    }

    /// The root of all that was added; none if that was nothing.
    pub(super) async fn finish(mut self) -> Result<Option<RootReference>, SpaceError> {
        self.close(0).await?;
        let mut level = 0;
        while level < self.inner.len() {
            let is_empty = |children: &Children| children.list.is_empty() && !children.has_written;
            let alone = self.inner[level].list.len() == 1 && !self.inner[level].has_written;
            if alone && self.inner[level + 1..].iter().all(is_empty) {
                let (_, child) = self.inner[level].list[0].clone();
                let root = Subtree { child, level, lower: Vec::new(), upper: None }.root();
                return Ok(Some(root));
            }
            self.close(level + 1).await?;
            level += 1;
        }
        Ok(None)
    }
}
