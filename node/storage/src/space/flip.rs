//! A flip: one catalogue becomes the present one, with everything it refers to.
//!
//! In this order, each step durable before the next: pages (their batches are finished), the pieces of
//! the catalogue, copies 1 and 2 of the superblock, copies 3 and 4.

use super::{
    Extent, PageReference, anchor,
    batch::{Chunk, Finished, cut},
    catalogue::Catalogue,
    checksum,
    free::ExtentSet,
    pages::{Inner, Pages, SpaceError},
    superblock::{PIECES_MAX, Superblock},
    wait::detach,
};
use crate::{
    disk::{BLOCK_BYTES, Disk, DiskError},
    limits::CATALOGUE_PIECE_BLOCKS_MAX,
    mistakes,
    runtime::Runtime,
};
use std::rc::Rc;

/// A flip that is written, but for the device.
struct Prepared<D: Disk> {
    superblock: Superblock,
    chunks: Vec<Chunk<D>>,
}

impl<D: Disk, R: Runtime> Pages<D, R> {
    /// Makes `catalogue` durable, with the pages of `finished`, and returns its sequence. What these
    /// batches released is free once nobody with an older pin reads it. If there is no room `finished`
    /// is untouched, and the call may be repeated; else it is empty. A flip under way is waited for.
    pub async fn flip(
        &self,
        catalogue: &Catalogue,
        finished: &mut Vec<Finished<D, R>>,
    ) -> Result<u64, SpaceError> {
        let inner = &self.inner;
        let room = loop {
            inner.end_of_flip().await;
            inner.check()?;
            let room = Room::find(inner, catalogue, finished).await?;
            if inner.space.borrow().flipping.is_none() {
                break room;
            }
        };
        // From here on nothing waits until the flip is begun: the free map is that of one moment.
        let Prepared { superblock, chunks } = inner.prepare(catalogue, finished, room);
        let sequence = superblock.sequence;
        let flip = Rc::clone(inner);
        let flipping = detach(&inner.runtime, async move {
            let written = flip.write_flip(&superblock, chunks).await;
            flip.end_flip(&superblock, written)
        });
        inner.space.borrow_mut().flipping = Some(flipping.clone());
        flipping.done().await.map(|()| sequence)
    }
}

/// Room for a catalogue, given back if it is not used.
struct Room<D: Disk, R: Runtime> {
    inner: Rc<Inner<D, R>>,
    pieces: Vec<Extent>,
}

impl<D: Disk, R: Runtime> Room<D, R> {
    /// Allocates enough pieces for the catalogue, however much its free map changes by them.
    async fn find(
        inner: &Rc<Inner<D, R>>,
        catalogue: &Catalogue,
        finished: &[Finished<D, R>],
    ) -> Result<Self, SpaceError> {
        let mut room = Room { inner: Rc::clone(inner), pieces: Vec::new() };
        let runs = |one: &Finished<D, R>| one.allocated.run_count() + one.released.run_count();
        let more = finished.iter().map(runs).sum::<usize>() + 4 * PIECES_MAX;
        let mut blocks_max = CATALOGUE_PIECE_BLOCKS_MAX;
        loop {
            let needed = {
                let space = inner.space.borrow();
                let free_bytes_max = space.extents.encoded_free_bytes_max(more);
                catalogue.encoded_bytes_max(free_bytes_max).div_ceil(BLOCK_BYTES) as u64
            };
            let have: u64 = room.pieces.iter().map(|piece| u64::from(piece.blocks)).sum();
            if have >= needed {
                return Ok(room);
            }
            let blocks = (needed - have).min(blocks_max.into()) as u32;
            let pieces = &mut room.pieces;
            match inner.allocate(blocks, &mut |extent| pieces.push(extent)).await {
                // The free blocks may be scattered.
                Err(SpaceError::Full { .. }) if blocks > 1 => blocks_max = blocks / 2,
                allocated => drop(allocated?),
            }
            if room.pieces.len() > PIECES_MAX {
                return Err(inner.full());
            }
        }
    }

    fn use_up(mut self) -> Vec<Extent> {
        std::mem::take(&mut self.pieces)
    }
}

impl<D: Disk, R: Runtime> Drop for Room<D, R> {
    fn drop(&mut self) {
        self.inner.space.borrow_mut().extents.abandon(&set(&self.pieces));
    }
}

impl<D: Disk, R: Runtime> Inner<D, R> {
    pub(super) async fn end_of_flip(&self) {
        let flipping = self.space.borrow().flipping.clone();
        if let Some(flipping) = flipping {
            // Its own caller is told how it went; what stops everything is checked behind this.
            let _ = flipping.done().await;
        }
    }

    fn prepare(
        &self,
        catalogue: &Catalogue,
        finished: &mut Vec<Finished<D, R>>,
        room: Room<D, R>,
    ) -> Prepared<D> {
        let pieces = room.use_up();
        let blocks: Vec<_> = finished.drain(..).map(Finished::into_blocks).collect();
        let space = &mut *self.space.borrow_mut();
        assert!(space.flipping.is_none(), "one flip at a time");
        for (allocated, released) in blocks {
            space.extents.publish(&allocated);
            space.extents.release(released);
        }
        space.extents.publish(&set(&pieces));
        space.extents.release(set(&std::mem::replace(&mut space.catalogue, pieces.clone())));
        let sequence = space.extents.begin_flip();
        let bytes = catalogue.encode(sequence, &space.extents);
        let blocks_total = space.extents.blocks_total();
        let (pieces, chunks) = self.cut_catalogue(&bytes, &pieces);
        self.count(|counts| counts.catalogue_bytes += bytes.len() as u64);
        let superblock = Superblock {
            cluster: self.config.cluster,
            node: self.config.node,
            shard: self.config.shard.0.into(),
            sequence,
            blocks_total,
            catalogue_bytes: bytes.len() as u64,
            pieces,
        };
        Prepared { superblock, chunks }
    }

    /// Spreads the bytes of a catalogue over its pieces, with zeros behind them.
    fn cut_catalogue(&self, bytes: &[u8], extents: &[Extent]) -> (Vec<PageReference>, Vec<Chunk<D>>) {
        let (mut pieces, mut chunks) = (Vec::with_capacity(extents.len()), Vec::new());
        let mut rest = bytes;
        for &extent in extents {
            let (now, later) = rest.split_at(rest.len().min(extent.bytes()));
            rest = later;
            let mut padded = now.to_vec();
            padded.resize(extent.bytes(), 0);
            pieces.push(PageReference { extent, checksum: checksum(&padded) });
            cut(&self.disk, extent, &padded, &mut chunks);
        }
        assert!(rest.is_empty(), "room was found for the whole catalogue");
        (pieces, chunks)
    }

    async fn write_flip(
        self: &Rc<Self>,
        superblock: &Superblock,
        chunks: Vec<Chunk<D>>,
    ) -> Result<(), DiskError> {
        if self.runtime.errs(mistakes::SUPERBLOCK_FIRST) {
            anchor::write(&self.disk, superblock).await?;
            return self.write_chunks(chunks).await;
        }
        self.write_chunks(chunks).await?;
        if self.runtime.errs(mistakes::ONE_PAIR) {
            return anchor::write_copies(&self.disk, superblock, &[0, 1]).await;
        }
        anchor::write(&self.disk, superblock).await
    }

    fn end_flip(&self, superblock: &Superblock, written: Result<(), DiskError>) -> Result<(), SpaceError> {
        self.space.borrow_mut().flipping = None;
        written.map_err(|error| self.fail(error))?;
        self.space.borrow_mut().extents.flip_durable(superblock.sequence);
        self.count(|counts| counts.flips += 1);
        Ok(())
    }
}

fn set(extents: &[Extent]) -> ExtentSet {
    let mut set = ExtentSet::new();
    for &extent in extents {
        set.insert(extent.into());
    }
    set
}
