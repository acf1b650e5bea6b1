//! SCAFFOLD, replaced by the tree.
use crate::{
    disk::{BLOCK_BYTES, Disk},
    engine::Pace,
    runtime::Runtime,
    space::*,
    table,
};
use evenkeel_model::item::stored_item_bytes;
use std::rc::Rc;

#[derive(Debug, Default)]
pub(crate) struct Leaf {
    pub lower: Option<Vec<u8>>,
    pub upper: Option<Vec<u8>>,
    pub items: Vec<(Rc<[u8]>, Rc<[u8]>)>,
}

type Entries = Vec<(Vec<u8>, PageReference)>;

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u32).to_le_bytes());
    to.extend(bytes);
}

fn cut<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let (head, rest) = from.split_at(4);
    let (bytes, rest) = rest.split_at(u32::from_le_bytes(head.try_into().expect("4")) as usize);
    *from = rest;
    bytes
}

async fn entries<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
) -> Result<Entries, PageError> {
    let page = pages.read(root.page, PageKind::Inner).await?;
    let mut rest = &page[4..];
    let count = u32::from_le_bytes(page[..4].try_into().expect("4"));
    Ok((0..count)
        .map(|_| {
            let key = cut(&mut rest).to_vec();
            let mut fields = cut(&mut rest);
            let n = |f: &mut &[u8]| u64::from_le_bytes(cut(f).try_into().expect("8"));
            let (first_block, blocks, checksum) = (n(&mut fields), n(&mut fields), n(&mut fields));
            (key, PageReference { extent: Extent { first_block, blocks: blocks as u32 }, checksum })
        })
        .collect())
}

async fn leaf<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    entries: &Entries,
    at: usize,
) -> Result<Leaf, PageError> {
    let page = pages.read(entries[at].1, PageKind::Leaf).await?;
    let mut rest = &page[4..];
    let count = u32::from_le_bytes(page[..4].try_into().expect("4"));
    let items = (0..count).map(|_| (Rc::from(cut(&mut rest)), Rc::from(cut(&mut rest)))).collect();
    Ok(Leaf {
        lower: (at > 0).then(|| entries[at].0.clone()),
        upper: entries.get(at + 1).map(|next| next.0.clone()),
        items,
    })
}

pub(crate) async fn get<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    key: &[u8],
) -> Result<Option<Rc<[u8]>>, PageError> {
    let leaf = leaf_from(pages, root, key).await?;
    Ok(leaf.items.iter().find(|(k, _)| &k[..] == key).map(|(_, image)| Rc::clone(image)))
}

pub(crate) async fn leaf_from<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    key: &[u8],
) -> Result<Leaf, PageError> {
    let entries = entries(pages, root).await?;
    let at = entries.partition_point(|(lower, _)| &lower[..] <= key).saturating_sub(1);
    leaf(pages, &entries, at).await
}

pub(crate) async fn leaf_before<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    root: &RootReference,
    upper: Option<&[u8]>,
) -> Result<Leaf, PageError> {
    let entries = entries(pages, root).await?;
    let at = upper.map_or(entries.len(), |upper| entries.partition_point(|(lower, _)| &lower[..] < upper));
    leaf(pages, &entries, at.saturating_sub(1)).await
}

pub(crate) async fn merge<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    batch: &mut Batch<D, R>,
    root: Option<RootReference>,
    changes: &table::Pinned,
    pace: &Pace<R>,
) -> Result<Option<RootReference>, crate::engine::CheckpointError> {
    let mut items = std::collections::BTreeMap::new();
    if let Some(root) = &root {
        let entries = entries(pages, root).await?;
        for at in 0..entries.len() {
            items.extend(leaf(pages, &entries, at).await?.items);
            pace.breathe().await;
        }
        release(pages, batch, root).await?;
    }
    for (key, held) in changes.range(&[], None) {
        match held {
            Some(image) => drop(items.insert(Rc::clone(key), Rc::clone(image))),
            None => drop(items.remove(key)),
        }
    }
    if items.is_empty() {
        return Ok(None);
    }
    let mut list: Entries = Vec::new();
    let (mut bytes, mut count, mut first) = (vec![0; 4], 0u32, Vec::new());
    let (item_count, item_bytes) =
        (items.len() as u64, items.values().map(|image| stored_item_bytes(image)).sum());
    let mut rest = items.into_iter().peekable();
    while let Some((key, image)) = rest.next() {
        if count == 0 {
            first = key.to_vec();
        }
        put(&mut bytes, &key);
        put(&mut bytes, &image);
        count += 1;
        if bytes.len() > 3000 || rest.peek().is_none() {
            bytes[..4].copy_from_slice(&count.to_le_bytes());
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
            list.push((std::mem::take(&mut first), batch.write(&bytes, PageKind::Leaf).await?));
            (bytes, count) = (vec![0; 4], 0);
            pace.breathe().await;
        }
    }
    let mut page = (list.len() as u32).to_le_bytes().to_vec();
    for (key, reference) in &list {
        put(&mut page, key);
        let mut fields = Vec::new();
        for field in [reference.extent.first_block, u64::from(reference.extent.blocks), reference.checksum] {
            put(&mut fields, &field.to_le_bytes());
        }
        put(&mut page, &fields);
    }
    page.resize(page.len().next_multiple_of(BLOCK_BYTES), 0);
    let page = batch.write(&page, PageKind::Inner).await?;
    Ok(Some(RootReference { page, height: 1, item_count, item_bytes, content_hash: 0 }))
}

pub(crate) async fn release<D: Disk, R: Runtime>(
    pages: &Pages<D, R>,
    batch: &mut Batch<D, R>,
    root: &RootReference,
) -> Result<(), PageError> {
    for (_, reference) in entries(pages, root).await? {
        batch.release(reference.extent);
    }
    batch.release(root.page.extent);
    Ok(())
}
