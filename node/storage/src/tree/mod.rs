//! The tree of a partition: an immutable B+tree on pages of its shard's page file.
//!
//! - [`page`] is what its pages have in common, [`leaf`] and [`inner`] are its two kinds.
//! - `merge` makes a new tree of an old one and the changes of a table, copying only what changes;
//!   `builder` puts pages together, `load` makes a tree of a stream, and `split` cuts one in two.
//! - `read` finds keys and ranges; [`verify`] looks at every page; [`compare`] finds where two trees differ.
//!
//! A tree is known by its root reference, and each page by the reference in its parent: place, checksum,
//! and what is below. Nothing of a tree ever changes, so readers need no latches, and a tree stays
//! whole as long as its pages are pinned.
//!
//! It knows nothing of logs and slots, nor of what an image means.

mod builder;
pub mod compare;
pub mod inner;
pub mod leaf;
mod load;
mod merge;
pub mod page;
mod read;
mod split;
#[cfg(all(test, feature = "fault-disk"))]
mod tests;
pub mod verify;

pub(crate) use load::{LoadFault, load};
pub(crate) use merge::merge;
pub(crate) use read::{Leaf, get, leaf_before, leaf_from, release};
pub(crate) use split::split;

use crate::{
    disk::{BLOCK_BYTES, Disk, FileId},
    heads::Heads,
    runtime::Runtime,
    space::{DecodeFault, Page, PageError, PageKind, PageReference, Pages, SpaceError},
};
use evenkeel_model::PartitionId;
use inner::InnerView;
use leaf::LeafView;
use page::{PageHeader, PageView};

/// How large pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What a leaf takes, unless one item is larger.
    pub leaf_bytes: usize,
    /// What an inner page takes.
    pub inner_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { leaf_bytes: 8 * 1024, inner_bytes: 16 * 1024 }
    }
}

/// Whose tree it is, and how it is cut into pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) partition: PartitionId,
    pub(crate) limits: Limits,
}

/// A tree could not be read, or not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A page could not be read, or is not what its reference says.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A page has the right checksum and cannot be understood.
    #[error("{file} at block {block} ({blocks} blocks) is malformed: {fault}", file = FileId::Pages)]
    Malformed {
        /// Its first block.
        block: u64,
        /// How many.
        blocks: u32,
        /// What is wrong with it.
        fault: DecodeFault,
    },
    /// The page file takes nothing.
    #[error(transparent)]
    Space(#[from] SpaceError),
}

/// A page of a tree in memory.
struct TreePage<D: Disk> {
    reference: PageReference,
    page: Page<D::Buffer>,
}

struct InnerPage<D: Disk>(TreePage<D>);
struct LeafPage<D: Disk>(TreePage<D>);

async fn inner_page<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    reference: PageReference,
) -> Result<InnerPage<D>, TreeError> {
    Ok(InnerPage(TreePage { reference, page: pages.read(reference, PageKind::Inner).await? }))
}

async fn leaf_page<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    reference: PageReference,
) -> Result<LeafPage<D>, TreeError> {
    Ok(LeafPage(TreePage { reference, page: pages.read(reference, PageKind::Leaf).await? }))
}

/// What a page of one kind is looked at as.
trait View<'a>: Sized {
    const KIND: PageKind;

    fn open(bytes: &'a [u8]) -> Result<(PageHeader, Self), DecodeFault>;
    fn reopen(bytes: &'a [u8], heads: &'a Heads) -> Self;
    fn page(&self) -> &PageView<'a>;
}

impl<D: Disk> TreePage<D> {
    /// What the page holds, looked through the first time only.
    fn view<'a, V: View<'a>>(&'a self) -> Result<V, TreeError> {
        if let Some(heads) = self.page.sound(V::KIND) {
            return Ok(V::reopen(&self.page, heads));
        }
        let (_, view) = V::open(&self.page).map_err(|fault| self.malformed(fault))?;
        let page = view.page();
        self.page.set_sound(V::KIND, page.count(), |index| page.entry(index).0);
        Ok(view)
    }

    fn malformed(&self, fault: DecodeFault) -> TreeError {
        let extent = self.reference.extent;
        TreeError::Malformed { block: extent.first_block, blocks: extent.blocks, fault }
    }
}

impl<D: Disk> InnerPage<D> {
    fn view(&self) -> Result<InnerView<'_>, TreeError> {
        self.0.view()
    }
}

impl<D: Disk> LeafPage<D> {
    fn view(&self) -> Result<LeafView<'_>, TreeError> {
        self.0.view()
    }
}

const _: () = assert!(page::PAGE_HEADER_BYTES < BLOCK_BYTES);
