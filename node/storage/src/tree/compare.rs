//! Comparing two trees by their sums: finding the ranges of keys in which their content differs, without reading
//! what is alike.
//!
//! Sums do not depend on how items are cut into pages, and what is before a key has a sum that one path down a
//! tree gives. So the pages of one tree, the *guide*, are gone through by halves: what the other one holds between
//! the same two keys is the difference of two such sums, and where they are equal nothing more is read. Each
//! difference costs as many paths as it takes to halve the guide down to a leaf, and equal trees cost no read.
//!
//! It knows nothing of where the pages are: the two trees may be on two nodes.

use super::{
    TreeError,
    builder::{Subtree, sums_of},
    inner::{InnerView, Sums},
    leaf::LeafView,
};
use crate::{
    disk::Disk,
    runtime::Runtime,
    space::{DecodeFault, Page, PageKind, PageReference, Pages, RootReference},
};
use std::{future::Future, ops::Deref};

/// Where the pages of a tree come from.
pub trait PageSource {
    /// The bytes of a page.
    type Page: Deref<Target = [u8]>;

    /// The page, whole by the word of its reference.
    fn page(
        &self,
        reference: PageReference,
        kind: PageKind,
    ) -> impl Future<Output = Result<Self::Page, TreeError>>;
}

impl<D: Disk, R: Runtime> PageSource for Pages<D, R> {
    type Page = Page<D::Buffer>;

    async fn page(&self, reference: PageReference, kind: PageKind) -> Result<Self::Page, TreeError> {
        Ok(self.read(reference, kind).await?)
    }
}

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The least key.
    pub lower: Vec<u8>,
    /// The least key behind it; none for no bound.
    pub upper: Option<Vec<u8>>,
}

/// One of the trees: its pages, and its root unless it is empty.
pub struct Side<'a, S> {
    /// Its pages.
    pub pages: &'a S,
    /// Its root.
    pub root: Option<RootReference>,
}

/// The ranges of keys that hold everything in which two trees differ, in order and apart from each other. Each
/// holds at least one difference and is about as small as a leaf, unless one of the trees has nothing there.
///
/// # Errors
/// A page could not be read.
pub async fn differences<A: PageSource, B: PageSource>(
    one: &Side<'_, A>,
    other: &Side<'_, B>,
) -> Result<Vec<KeyRange>, TreeError> {
    let items = |root: &Option<RootReference>| root.map_or(0, |root| root.item_count);
    // The larger one has the smaller leaves for its keys.
    if items(&one.root) >= items(&other.root) { guided(one, other).await } else { guided(other, one).await }
}

/// Pages of the guide that follow each other, and what the other tree holds before and up to the end of them.
struct Span {
    pages: Vec<Subtree>,
    before: Sums,
    upto: Sums,
}

async fn guided<A: PageSource, B: PageSource>(
    guide: &Side<'_, A>,
    other: &Side<'_, B>,
) -> Result<Vec<KeyRange>, TreeError> {
    let mut found: Vec<KeyRange> = Vec::new();
    let Some(root) = &guide.root else { return Ok(found) };
    let root = Subtree::of_root(root);
    let upto = other.root.as_ref().map_or(Sums::default(), |root| Subtree::of_root(root).child.sums);
    let mut rest = vec![Span { pages: vec![root], before: Sums::default(), upto }];
    while let Some(Span { mut pages, before, upto }) = rest.pop() {
        let sums = pages.iter().fold(Sums::default(), |sums, page| sums.plus(page.child.sums));
        if before.plus(sums) == upto {
            continue;
        }
        if pages.len() > 1 {
            let behind = pages.split_off(pages.len() / 2);
            let middle = sums_before(other, &behind[0].lower).await?;
            rest.push(Span { pages: behind, before: middle, upto });
            rest.push(Span { pages, before, upto: middle });
            continue;
        }
        let page = pages.pop().expect("a span has pages");
        if page.level > 0 {
            let bytes = guide.pages.page(page.child.page, PageKind::Inner).await?;
            let pages = page.below(&inner(&bytes, page.child.page)?);
            rest.push(Span { pages, before, upto });
        } else {
            add(&mut found, KeyRange { lower: page.lower, upper: page.upper });
        }
    }
    Ok(found)
}

/// Adds a range behind others, as one with the last if nothing is between them.
fn add(found: &mut Vec<KeyRange>, range: KeyRange) {
    match found.last_mut() {
        Some(last) if last.upper.as_ref() == Some(&range.lower) => last.upper = range.upper,
        _ => found.push(range),
    }
}

/// What a tree holds before a key: one path is read.
async fn sums_before<S: PageSource>(tree: &Side<'_, S>, key: &[u8]) -> Result<Sums, TreeError> {
    let Some(root) = &tree.root else { return Ok(Sums::default()) };
    let mut sums = Sums::default();
    let mut reference = root.page;
    for _ in 0..root.height {
        let bytes = tree.pages.page(reference, PageKind::Inner).await?;
        let view = inner(&bytes, reference)?;
        let index = view.find(key);
        sums = (0..index).fold(sums, |sums, index| sums.plus(view.child(index).sums));
        reference = view.child(index).page;
    }
    let bytes = tree.pages.page(reference, PageKind::Leaf).await?;
    let (_, view) = LeafView::open(&bytes).map_err(|fault| malformed(reference, fault))?;
    let item = |index| {
        let (prefix, rest, image) = view.item(index);
        sums_of(&[prefix, rest].concat(), image)
    };
    Ok((0..view.first_at(key)).fold(sums, |sums, index| sums.plus(item(index))))
}

fn inner(bytes: &[u8], reference: PageReference) -> Result<InnerView<'_>, TreeError> {
    Ok(InnerView::open(bytes).map_err(|fault| malformed(reference, fault))?.1)
}

fn malformed(reference: PageReference, fault: DecodeFault) -> TreeError {
    let extent = reference.extent;
    TreeError::Malformed { block: extent.first_block, blocks: extent.blocks, fault }
}

#[cfg(all(test, feature = "fault-disk"))]
#[path = "compare_tests.rs"]
mod tests;
