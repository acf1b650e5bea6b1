//! Looking at every page of a tree: what a scrub does slowly, and an offline check at once.
//!
//! Pages are read from the device, whatever the cache holds. A page that is wrong is reported, and the walk
//! goes on beside it: of what is below it nothing is known.

use super::{
    TreeError,
    builder::{Subtree, sums_of},
    inner::{InnerView, Sums},
    leaf::LeafView,
    page::PageHeader,
};
use crate::{
    disk::{Disk, FileId},
    runtime::Runtime,
    space::{DecodeFault, Extent, Page, Pages, RootReference},
};
use evenkeel_model::PartitionId;

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It could not be read, fails its checksum, or cannot be understood.
    #[error(transparent)]
    Unreadable(#[from] TreeError),
    /// It is sound by itself and contradicts its place in the tree.
    #[error("{file} at {page}: expected {expected}, found {found}", file = FileId::Pages)]
    OutOfPlace {
        /// The page.
        page: Extent,
        /// What its place demands.
        expected: String,
        /// What it says.
        found: String,
    },
}

/// What a walk has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Leaves that are sound.
    pub leaves: u64,
    /// Inner pages that are sound.
    pub inner_pages: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Items in sound leaves.
    pub items: u64,
    /// Pages that are not sound.
    pub faults: u64,
}

/// A walk over the pages of a tree, one page a step.
pub struct Walk<D: Disk, R: Runtime> {
    pages: Pages<D, R>,
    partition: PartitionId,
    rest: Vec<Subtree>,
    walked: Walked,
}

impl<D: Disk, R: Runtime> Walk<D, R> {
    /// Begins at the root. Whoever walks keeps the pages.
    pub fn new(pages: Pages<D, R>, partition: PartitionId, root: &RootReference) -> Self {
        Walk { pages, partition, rest: vec![Subtree::of_root(root)], walked: Walked::default() }
    }

    /// What was looked at so far.
    pub fn walked(&self) -> Walked {
        self.walked
    }

    /// Looks at the next page; none is left when it yields none.
    pub async fn step(&mut self) -> Option<Result<(), Fault>> {
        let subtree = self.rest.pop()?;
        let looked = self.look(&subtree).await;
        match &looked {
            Ok(()) => self.walked.bytes += subtree.child.page.extent.bytes() as u64,
            Err(_) => self.walked.faults += 1,
        }
        Some(looked)
    }

    async fn look(&mut self, subtree: &Subtree) -> Result<(), Fault> {
        let page = self.pages.read_from_device(subtree.child.page).await.map_err(TreeError::from)?;
        if subtree.level == 0 {
            let items = self.check_leaf(subtree, &page)?;
            self.walked.leaves += 1;
            self.walked.items += items;
        } else {
            let below = self.check_inner(subtree, &page)?;
            self.walked.inner_pages += 1;
            self.rest.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn check_leaf(&self, subtree: &Subtree, page: &Page<D::Buffer>) -> Result<u64, Fault> {
        let (header, view) = LeafView::open(page).map_err(|fault| malformed(subtree, fault))?;
        self.check_header(subtree, header)?;
        let mut sums = Sums::default();
        let mut last: Option<Vec<u8>> = None;
        for index in 0..view.count() {
            let (prefix, rest, image) = view.item(index);
            let key = [prefix, rest].concat();
            check_key(subtree, last.as_deref(), &key)?;
            sums = sums.plus(sums_of(&key, image));
            last = Some(key);
        }
        check_sums(subtree, sums)?;
        Ok(sums.items)
    }

    fn check_inner(&self, subtree: &Subtree, page: &Page<D::Buffer>) -> Result<Vec<Subtree>, Fault> {
        let (header, view) = InnerView::open(page).map_err(|fault| malformed(subtree, fault))?;
        self.check_header(subtree, header)?;
        let below = subtree.below(&view);
        let mut last: Option<&[u8]> = None;
        for child in below.iter().skip(1) {
            check_key(subtree, last, &child.lower)?;
            last = Some(&child.lower);
        }
        check_sums(subtree, below.iter().fold(Sums::default(), |sums, child| sums.plus(child.child.sums)))?;
        Ok(below)
    }

    fn check_header(&self, subtree: &Subtree, header: PageHeader) -> Result<(), Fault> {
        let expected = PageHeader { partition: self.partition, level: subtree.level as u8 };
        if header == expected { Ok(()) } else { Err(out_of_place(subtree, &expected, &header)) }
    }
}

fn malformed(subtree: &Subtree, fault: DecodeFault) -> Fault {
    let Extent { first_block: block, blocks } = subtree.child.page.extent;
    TreeError::Malformed { block, blocks, fault }.into()
}

fn out_of_place(subtree: &Subtree, expected: &impl std::fmt::Debug, found: &impl std::fmt::Debug) -> Fault {
    Fault::OutOfPlace {
        page: subtree.child.page.extent,
        expected: format!("{expected:?}"),
        found: format!("{found:?}"),
    }
}

/// Keys rise, and stay in the bounds of their page.
fn check_key(subtree: &Subtree, last: Option<&[u8]>, key: &[u8]) -> Result<(), Fault> {
    let rises = last.is_none_or(|last| last < key);
    let inside = key >= &subtree.lower[..] && subtree.upper.as_deref().is_none_or(|upper| key < upper);
    if rises && inside {
        return Ok(());
    }
    let expected = match last {
        Some(last) if !rises => format!("a key behind {}", last.escape_ascii()),
        _ => format!(
            "keys from {} to {}",
            subtree.lower.escape_ascii(),
            subtree.upper.as_deref().unwrap_or(b"the end").escape_ascii()
        ),
    };
    let found = format!("key {}", key.escape_ascii());
    Err(Fault::OutOfPlace { page: subtree.child.page.extent, expected, found })
}

fn check_sums(subtree: &Subtree, found: Sums) -> Result<(), Fault> {
    let expected = subtree.child.sums;
    if found == expected { Ok(()) } else { Err(out_of_place(subtree, &expected, &found)) }
}
