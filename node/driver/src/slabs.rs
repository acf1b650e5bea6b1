//! Memory for pages: slots of whole blocks, cut from regions of a megabyte.
//!
//! An allocator for everything puts a header before each piece of memory. Before a piece that is aligned to a block
//! that costs up to a block: half as much again for a page of two. Here a page takes what it is long.
//!
//! A region holds slots of one length. A slot that is given back is used again, those of the region at the lowest
//! address first, so that others become empty; an empty region goes back to the system unless it is the last one
//! with room.
#![expect(unsafe_code, reason = "aligned allocation")]

use evenkeel_storage::{BLOCK_BYTES, limits::BURST_BYTES};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ptr::NonNull,
    rc::Rc,
};

/// Bytes of a region, and what it is aligned to.
const REGION_BYTES: usize = 1 << 20;
/// The longest slot for a page: of longer ones too few fit into a region.
const SLOT_BLOCKS_MAX: usize = 32;
/// Blocks of a burst of pages that is written: there are always a few, and the system's pages are not to be asked for
/// and given back each time.
const BURST_BLOCKS: usize = BURST_BYTES / BLOCK_BYTES;

const REGION_LAYOUT: Layout = match Layout::from_size_align(REGION_BYTES, REGION_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a region is a power of two"),
};

/// The regions of one core.
#[derive(Debug, Default)]
pub struct Slabs {
    classes: RefCell<Classes>,
}

#[derive(Debug, Default)]
struct Classes {
    /// By the blocks of their slots, less one.
    pages: [Class; SLOT_BLOCKS_MAX],
    bursts: Class,
}

impl Classes {
    /// The regions with slots for so many blocks, if there are such.
    fn of(&mut self, blocks: usize) -> Option<&mut Class> {
        match blocks {
            BURST_BLOCKS => Some(&mut self.bursts),
            _ => self.pages.get_mut(blocks.checked_sub(1)?),
        }
    }
}

/// Regions with slots of one length, by their addresses.
#[derive(Debug, Default)]
struct Class {
    regions: BTreeMap<usize, Region>,
    /// Addresses of those with free slots.
    with_room: BTreeSet<usize>,
}

#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    /// Slots that were given back.
    free: Vec<u16>,
    /// Slots from this one on were never used.
    unused_from: usize,
    used: usize,
}

/// A slot, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slabs: Rc<Slabs>,
    start: NonNull<u8>,
    blocks: usize,
}

impl Region {
    fn new() -> Region {
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(REGION_LAYOUT) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(REGION_LAYOUT) };
        Region { start, free: Vec::new(), unused_from: 0, used: 0 }
    }

    fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        assert_eq!(self.used, 0, "slots keep their region");
        // SAFETY: `start` came from `alloc_zeroed` with this layout, is freed once, and no slot is in use.
        unsafe { dealloc(self.start.as_ptr(), REGION_LAYOUT) }
    }
}

impl Slabs {
    /// A slot of `bytes`, whole blocks, with whatever it held before; none if they are more than a slot has.
    pub fn slot(self: &Rc<Self>, bytes: usize) -> Option<Slot> {
        let blocks = bytes / BLOCK_BYTES;
        let mut classes = self.classes.borrow_mut();
        let class = classes.of(blocks)?;
        let start = class.take(blocks);
        Some(Slot { slabs: Rc::clone(self), start, blocks })
    }

    /// Bytes of all regions.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let classes = self.classes.borrow();
        let regions = |class: &Class| class.regions.len();
        (classes.pages.iter().map(regions).sum::<usize>() + regions(&classes.bursts)) * REGION_BYTES
    }
}

impl Class {
    fn take(&mut self, blocks: usize) -> NonNull<u8> {
        let slots = REGION_BYTES / (blocks * BLOCK_BYTES);
        let address = self.with_room.first().copied().unwrap_or_else(|| {
            let region = Region::new();
            let address = region.address();
            self.regions.insert(address, region);
            self.with_room.insert(address);
            address
        });
        let region = self.regions.get_mut(&address).expect("a region with room is there");
        let index = match region.free.pop() {
            Some(index) => usize::from(index),
            None => {
                region.unused_from += 1;
                region.unused_from - 1
            }
        };
        region.used += 1;
        if region.used == slots {
            self.with_room.remove(&address);
        }
        // SAFETY: the slot lies inside its region, whose bytes are at least `slots` times a slot's.
        unsafe { region.start.add(index * blocks * BLOCK_BYTES) }
    }

    fn give_back(&mut self, start: NonNull<u8>, blocks: usize) {
        let address = start.as_ptr() as usize & !(REGION_BYTES - 1);
        let index = (start.as_ptr() as usize - address) / (blocks * BLOCK_BYTES);
        let region = self.regions.get_mut(&address).expect("a slot keeps its region");
        region.free.push(u16::try_from(index).expect("a region has few slots"));
        region.used -= 1;
        let is_empty = region.used == 0;
        self.with_room.insert(address);
        if is_empty && self.with_room.len() > 1 {
            self.with_room.remove(&address);
            self.regions.remove(&address);
        }
    }
}

impl Slot {
    /// Where it begins; there are as many bytes as were asked for.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut classes = self.slabs.classes.borrow_mut();
        classes.of(self.blocks).expect("a slot is of a class").give_back(self.start, self.blocks);
    }
}

const _: () = assert!(REGION_BYTES / BLOCK_BYTES <= u16::MAX as usize);
const _: () = assert!(BURST_BLOCKS > SLOT_BLOCKS_MAX && BURST_BYTES <= REGION_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slots_are_aligned_and_apart_however_often_they_were_used() {
        let slabs = Rc::new(Slabs::default());
        let mut kept: Vec<Slot> = Vec::new();
        for round in 0..3000_usize {
            let blocks = if round % 50 == 0 { BURST_BLOCKS } else { 1 + round * 7 % SLOT_BLOCKS_MAX };
            let slot = slabs.slot(blocks * BLOCK_BYTES).unwrap();
            assert_eq!(slot.start().as_ptr() as usize % BLOCK_BYTES, 0);
            kept.push(slot);
            if round % 3 == 0 {
                kept.swap_remove(round * 31 % kept.len());
            }
        }
        let mut seen = HashSet::new();
        for slot in &kept {
            for block in 0..slot.blocks {
                assert!(
                    seen.insert(slot.start().as_ptr() as usize + block * BLOCK_BYTES),
                    "two slots overlap"
                );
            }
        }
    }

    #[test]
    fn pages_take_what_they_are_long_and_empty_regions_are_given_back() {
        let slabs = Rc::new(Slabs::default());
        let slots: Vec<_> = (0..4096).map(|_| slabs.slot(2 * BLOCK_BYTES).unwrap()).collect();
        assert_eq!(slabs.bytes(), 4096 * 2 * BLOCK_BYTES);
        drop(slots);
        assert_eq!(slabs.bytes(), REGION_BYTES);
        assert!(slabs.slot((SLOT_BLOCKS_MAX + 1) * BLOCK_BYTES).is_none());
    }
}
