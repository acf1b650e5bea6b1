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

/// A page that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Where it is.
    pub extent: Extent,
    /// Whether its place is that of a leaf.
    pub is_leaf: bool,
}

/// A walk over the pages of a tree, one page a step.
pub struct Walk<D: Disk, R: Runtime> {
    pages: Pages<D, R>,
    /// What is before is passed over.
    lower: Vec<u8>,
    rest: Vec<Subtree>,
    walked: Walked,
}

impl<D: Disk, R: Runtime> Walk<D, R> {
    /// Begins at the root. Whoever walks keeps the pages.
    pub fn new(pages: Pages<D, R>, root: &RootReference) -> Self {
        Walk::from(pages, root, Vec::new())
    }

    /// Begins at the root, and passes over pages for keys before `lower` only.
    pub fn from(pages: Pages<D, R>, root: &RootReference, lower: Vec<u8>) -> Self {
        let rest = vec![Subtree::of_root(root)];
        Walk { pages, lower, rest, walked: Walked::default() }
    }

    /// The least key that the pages left to look at may hold; none if there are no such pages.
    pub fn next_key(&self) -> Option<&[u8]> {
        self.rest.last().map(|subtree| &subtree.lower[..])
    }

    /// What was looked at so far.
    pub fn walked(&self) -> Walked {
        self.walked
    }

    /// Looks at the next page; none is left when it yields none.
    pub async fn step(&mut self) -> Option<(Looked, Result<(), Fault>)> {
        let passed =
            |subtree: &Subtree| subtree.upper.as_deref().is_some_and(|upper| upper <= &self.lower[..]);
        let subtree = loop {
            let next = self.rest.pop()?;
            if !passed(&next) {
                break next;
            }
        };
        let looked = self.look(&subtree).await;
        let extent = subtree.child.page.extent;
        match &looked {
            Ok(()) => self.walked.bytes += extent.bytes() as u64,
            Err(_) => self.walked.faults += 1,
        }
        Some((Looked { extent, is_leaf: subtree.level == 0 }, looked))
    }

    async fn look(&mut self, subtree: &Subtree) -> Result<(), Fault> {
        let page = self.pages.read_from_device(subtree.child.page).await.map_err(TreeError::from)?;
        if subtree.level == 0 {
            let items = Self::check_leaf(subtree, &page)?;
            self.walked.leaves += 1;
            self.walked.items += items;
        } else {
            let below = Self::check_inner(subtree, &page)?;
            self.walked.inner_pages += 1;
            self.rest.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn check_leaf(subtree: &Subtree, page: &Page<D::Buffer>) -> Result<u64, Fault> {
        let (header, view) = LeafView::open(page).map_err(|fault| malformed(subtree, fault))?;
        Self::check_header(subtree, header)?;
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

    fn check_inner(subtree: &Subtree, page: &Page<D::Buffer>) -> Result<Vec<Subtree>, Fault> {
        let (header, view) = InnerView::open(page).map_err(|fault| malformed(subtree, fault))?;
        Self::check_header(subtree, header)?;
        let below = subtree.below(&view);
        let mut last: Option<&[u8]> = None;
        for child in below.iter().skip(1) {
            check_key(subtree, last, &child.lower)?;
            last = Some(&child.lower);
        }
        check_sums(subtree, below.iter().fold(Sums::default(), |sums, child| sums.plus(child.child.sums)))?;
        Ok(below)
    }

    /// A page keeps the name of the partition that it was written for, and splits hand it on.
    fn check_header(subtree: &Subtree, header: PageHeader) -> Result<(), Fault> {
        let expected = PageHeader { level: subtree.level as u8, ..header };
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
