//! Reading a tree: one leaf and the inner pages above it, for a key or for the beginning of a range.

use super::{TreeError, builder::Subtree, inner_page, leaf_page};
use crate::{
    disk::Disk,
    engine::KeyAndImage,
    runtime::Runtime,
    space::{Batch, Pages, RootReference},
};
use std::rc::Rc;

/// The items of one leaf, or those of them that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The least key that may be in the leaf; none for no bound.
    pub(crate) lower: Option<Vec<u8>>,
    /// The least key behind it; none for no bound.
    pub(crate) upper: Option<Vec<u8>>,
    /// Keys and images, in order.
    pub(crate) items: Vec<KeyAndImage>,
}

/// The image of a key: one leaf is read.
pub(crate) async fn get<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    key: &[u8],
) -> Result<Option<Rc<[u8]>>, TreeError> {
    let mut reference = root.page;
    for _ in 0..root.height {
        let page = inner_page(pages, reference).await?;
        let view = page.view()?;
        reference = view.child(view.find(key)).page;
    }
    let page = leaf_page(pages, reference).await?;
    Ok(page.view()?.get(key).map(Rc::from))
}

/// The leaf that `key` would be in, with its items from there on.
pub(crate) async fn leaf_from<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    key: &[u8],
) -> Result<Leaf, TreeError> {
    let leaf = descend(pages, root, |view| view.find(key)).await?;
    load(pages, leaf, |view| view.first_at(key)..view.count()).await
}

/// The leaf that the greatest key before `key` would be in, with its items up to there; the last leaf if
/// there is no `key`.
pub(crate) async fn leaf_before<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    key: Option<&[u8]>,
) -> Result<Leaf, TreeError> {
    let leaf = descend(pages, root, |view| key.map_or(view.count() - 1, |key| view.find_before(key))).await?;
    load(pages, leaf, |view| 0..key.map_or(view.count(), |key| view.first_at(key))).await
}

async fn descend<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    choose: impl Fn(&super::inner::InnerView<'_>) -> usize,
) -> Result<Subtree, TreeError> {
    let mut at = Subtree::of_root(root);
    while at.level > 0 {
        let page = inner_page(pages, at.child.page).await?;
        let view = page.view()?;
        let index = choose(&view);
        at.child = view.child(index);
        at.level -= 1;
        at.lower = view.separator(index).unwrap_or(at.lower);
        at.upper = if index + 1 < view.count() { view.separator(index + 1) } else { at.upper };
    }
    Ok(at)
}

async fn load<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    leaf: Subtree,
    wanted: impl Fn(&super::leaf::LeafView<'_>) -> std::ops::Range<usize>,
) -> Result<Leaf, TreeError> {
    let page = leaf_page(pages, leaf.child.page).await?;
    let view = page.view()?;
    let item = |index| {
        let (prefix, rest, image) = view.item(index);
        (Rc::from([prefix, rest].concat()), Rc::from(image))
    };
    let lower = (!leaf.lower.is_empty()).then_some(leaf.lower);
    Ok(Leaf { lower, upper: leaf.upper, items: wanted(&view).map(item).collect() })
}

/// Gives up all pages of a tree; its leaves are not read. What is below an inner page that cannot be read is not found
/// and stays taken: that costs space, and to wait for it would cost every flip from then on. Yields how many such
/// pages there were.
pub(crate) async fn release<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    batch: &mut Batch<D, R>,
    root: &RootReference,
) -> u64 {
    let (mut rest, mut unread) = (vec![(root.page, root.height)], 0);
    while let Some((reference, level)) = rest.pop() {
        batch.release(reference.extent);
        if level == 0 {
            continue;
        }
        let page = inner_page(pages, reference).await;
        match page.as_ref().map_err(TreeError::clone).and_then(|page| page.view()) {
            Ok(view) => rest.extend((0..view.count()).map(|index| (view.child(index).page, level - 1))),
            Err(_) => unread += 1,
        }
    }
    unread
}
