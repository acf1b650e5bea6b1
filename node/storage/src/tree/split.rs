//! Cutting a tree in two at a key: what is on one side of it stays where it is, and only the pages on the path to
//! the key are written anew, as two each.
//!
//! The pages along the cut may be nearly empty; the next merge that comes there joins them.

use super::{Place, TreeError, builder::Builder, builder::Subtree, inner_page, leaf_page};
use crate::{
    disk::Disk,
    runtime::Runtime,
    space::{Batch, Pages, RootReference},
};
use evenkeel_model::PartitionId;

/// The trees of the items before `key`, and of `key` and those behind; none for no items. They share no page, and the
/// pages of the path are released.
pub(crate) async fn split<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    batch: &mut Batch<D, R>,
    place: Place,
    [left, right]: [PartitionId; 2],
    root: &RootReference,
    key: &[u8],
) -> Result<[Option<RootReference>; 2], TreeError> {
    let mut at = Subtree::of_root(root);
    let mut before = Vec::new();
    // From the root down: what is further down comes first.
    let mut behind: Vec<Vec<Subtree>> = Vec::new();
    let mut cut_leaf = None;
    loop {
        batch.release(at.child.page.extent);
        if at.level == 0 {
            cut_leaf = Some(leaf_page(pages, at.child.page).await?);
            break;
        }
        let page = inner_page(pages, at.child.page).await?;
        let mut below = at.below(&page.view()?);
        let is_before = |one: &Subtree| one.upper.as_deref().is_some_and(|upper| upper <= key);
        let mut rest = below.split_off(below.partition_point(is_before));
        before.append(&mut below);
        // The last one has the bound of the page, which is behind the key.
        let cuts = rest.first().is_some_and(|first| &first.lower[..] < key);
        let next = cuts.then(|| rest.remove(0));
        behind.push(rest);
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    let view = cut_leaf.as_ref().map(|page| page.view()).transpose()?;
    let cut = view.as_ref().map_or(0, |view| view.first_at(key));
    let item = |index| {
        let (prefix, rest, image) = view.as_ref().expect("it is one of its items").item(index);
        ([prefix, rest].concat(), image)
    };
    let mut builder = Builder::new(batch, left, place.limits);
    for subtree in before {
        builder.take(subtree).await?;
    }
    for index in 0..cut {
        let (key, image) = item(index);
        builder.add(&key, image).await?;
    }
    let before = builder.finish().await?;
    let mut builder = Builder::new(batch, right, place.limits);
    for index in cut..view.as_ref().map_or(0, |view| view.count()) {
        let (key, image) = item(index);
        builder.add(&key, image).await?;
    }
    for subtree in behind.into_iter().rev().flatten() {
        builder.take(subtree).await?;
    }
    Ok([before, builder.finish().await?])
}
