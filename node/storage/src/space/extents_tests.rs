//! The allocator against a model with one state for each block.

use super::*;
use crate::memory::Random;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BLOCKS: u64 = 1500;

fn all_free() -> Extents {
    let mut free = ExtentSet::new();
    free.insert(HEAD_BLOCKS..BLOCKS);
    Extents::new(BLOCKS, free, 0)
}

fn set(extents: &[Extent]) -> ExtentSet {
    let mut set = ExtentSet::new();
    for &extent in extents {
        set.insert(extent.into());
    }
    set
}

fn decoded(bytes: &[u8], blocks_total: u64) -> Result<ExtentSet, DecodeFault> {
    let mut reader = Reader::new(bytes);
    let set = Extents::decode_free(&mut reader, blocks_total)?;
    reader.rest_is_zero("rest").map(|()| set)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Free,
    Unpublished,
    Used,
    /// Released for this flip.
    Released(u64),
    /// Released for this flip, and at some time nothing kept it: the allocator may have taken it back.
    Reclaimable(u64),
}

/// The model: a state for each block, and the pins.
struct Model {
    blocks: Vec<Block>,
    durable: u64,
    flipping: bool,
    pins: Vec<u64>,
}

impl Model {
    fn set(&mut self, extent: Extent, from: &[Block], to: Block) {
        for block in Range::from(extent) {
            let state = &mut self.blocks[block as usize];
            assert!(from.contains(state), "block {block} is {state:?}, not one of {from:?}");
            *state = to;
        }
    }

    /// Whether the rules allow that the block is free.
    fn may_be_free(&self, block: u64) -> bool {
        matches!(self.blocks[block as usize], Block::Free | Block::Reclaimable(_))
    }

    /// Whether the rules ask for the block to be free when it is needed.
    fn must_be_free(&self, block: u64) -> bool {
        match self.blocks[block as usize] {
            Block::Free => true,
            Block::Reclaimable(sequence) => !self.is_kept(sequence),
            Block::Released(_) | Block::Unpublished | Block::Used => false,
        }
    }

    fn is_kept(&self, sequence: u64) -> bool {
        sequence > self.durable || self.pins.iter().any(|pin| *pin <= sequence)
    }

    fn settle(&mut self) {
        for index in 0..self.blocks.len() {
            if let Block::Released(sequence) = self.blocks[index]
                && !self.is_kept(sequence)
            {
                self.blocks[index] = Block::Reclaimable(sequence);
            }
        }
    }

    fn count(&self, is: impl Fn(Block) -> bool) -> u64 {
        self.blocks[HEAD_BLOCKS as usize..].iter().filter(|state| is(**state)).count() as u64
    }

    fn check(&self, extents: &Extents) {
        let used = extents.used();
        assert_eq!(used.unpublished_blocks, self.count(|state| state == Block::Unpublished));
        assert_eq!(used.used_blocks, self.count(|state| matches!(state, Block::Used | Block::Unpublished)));
        assert_eq!(
            used.pending_blocks,
            self.count(|state| matches!(state, Block::Released(sequence) if sequence > self.durable))
        );
        let all = used.used_blocks + used.free_blocks + used.pending_blocks + used.pinned_blocks;
        assert_eq!(all, self.blocks.len() as u64 - HEAD_BLOCKS);
    }
}

struct World {
    extents: Extents,
    model: Model,
    unpublished: Vec<Extent>,
    used: Vec<Extent>,
    random: Random,
}

impl World {
    fn take(from: &mut Vec<Extent>, random: &mut Random) -> Option<Extent> {
        let count = from.len() as u64;
        (count > 0).then(|| from.swap_remove(random.below(count) as usize))
    }

    fn step(&mut self) {
        let World { extents, model, unpublished, used, random } = self;
        match random.below(20) {
            0..8 => {
                let blocks = if random.once_in(8) { 1 + random.below(100) } else { 1 + random.below(6) };
                if let Some(extent) = extents.allocate(blocks as u32) {
                    assert_eq!(u64::from(extent.blocks), blocks);
                    for block in Range::from(extent) {
                        assert!(
                            model.may_be_free(block),
                            "block {block}: {:?}",
                            model.blocks[block as usize]
                        );
                        model.blocks[block as usize] = Block::Unpublished;
                    }
                    unpublished.push(extent);
                } else {
                    // What must be free has no hole of that size.
                    let mut run = 0;
                    for block in HEAD_BLOCKS..model.blocks.len() as u64 {
                        run = if model.must_be_free(block) { run + 1 } else { 0 };
                        assert!(run < blocks, "room for {blocks} before block {block}");
                    }
                }
            }
            8..12 => {
                if let Some(extent) = Self::take(used, random) {
                    extents.release(set(&[extent]));
                    let sequence = model.durable + 1 + u64::from(model.flipping);
                    model.set(extent, &[Block::Used], Block::Released(sequence));
                }
            }
            12..14 => {
                if let Some(extent) = Self::take(unpublished, random) {
                    extents.abandon(&set(&[extent]));
                    model.set(extent, &[Block::Unpublished], Block::Free);
                }
            }
            14 if !model.flipping => self.begin_flip(),
            15..17 if model.flipping => {
                extents.flip_durable(model.durable + 1);
                model.durable += 1;
                model.flipping = false;
            }
            17 => model.pins.push(extents.pin()),
            18 if !model.pins.is_empty() => {
                let index = random.below(model.pins.len() as u64) as usize;
                extents.unpin(model.pins.swap_remove(index));
            }
            19 if random.once_in(10) => {
                let blocks_total = extents.blocks_total() + 1 + random.below(200);
                extents.grow(blocks_total);
                model.blocks.resize(blocks_total as usize, Block::Free);
            }
            _ => drop(extents.reclaim()),
        }
    }

    fn begin_flip(&mut self) {
        let World { extents, model, unpublished, used, random } = self;
        let mut published = Vec::new();
        while !random.once_in(4)
            && let Some(extent) = Self::take(unpublished, random)
        {
            published.push(extent);
        }
        extents.publish(&set(&published));
        published.iter().for_each(|&extent| model.set(extent, &[Block::Unpublished], Block::Used));
        used.extend(published);
        let bound = extents.encoded_free_bytes_max(0);
        assert_eq!(extents.begin_flip(), model.durable + 1);
        model.flipping = true;
        let mut bytes = Vec::new();
        extents.encode_free(&mut bytes);
        assert!(bytes.len() <= extents.encoded_free_bytes_max(0) && bytes.len() <= bound + 20);
        let free = decoded(&bytes, extents.blocks_total()).unwrap();
        for block in HEAD_BLOCKS..extents.blocks_total() {
            let is_used = model.blocks[block as usize] == Block::Used;
            assert_ne!(free.contains(&(block..block + 1)), is_used, "block {block} after a crash");
        }
    }
}

#[test]
fn blocks_change_their_state_only_as_the_rules_allow() {
    let mut reused_behind_pins = 0;
    for seed in crate::memory::seeds(60) {
        println!("seed={seed}");
        let model = Model {
            blocks: vec![Block::Free; BLOCKS as usize],
            durable: 0,
            flipping: false,
            pins: Vec::new(),
        };
        let (unpublished, used) = (Vec::new(), Vec::new());
        let mut world = World { extents: all_free(), model, unpublished, used, random: Random::new(seed) };
        for _ in 0..600 {
            world.step();
            world.model.settle();
            world.model.check(&world.extents);
        }
        reused_behind_pins += world.extents.used().pinned_blocks;
        for pin in std::mem::take(&mut world.model.pins) {
            world.extents.unpin(pin);
        }
        while world.extents.reclaim() {}
        assert_eq!(world.extents.used().pinned_blocks, 0);
    }
    assert!(reused_behind_pins > 0, "pins kept something");
}

#[test]
fn allocations_follow_each_other_and_leftovers_are_used_before_the_space_is_called_full() {
    let mut extents = all_free();
    let first = extents.allocate(2).unwrap();
    assert_eq!(extents.allocate(3).unwrap().first_block, first.first_block + 2);
    assert_eq!(extents.allocate(BLOCKS as u32), None);
    while extents.allocate(7).is_some() {}
    assert!(extents.used().free_blocks < 7);
    while extents.allocate(1).is_some() {}
    assert_eq!(extents.used().free_blocks, 0);
    extents.grow(BLOCKS + 5);
    assert_eq!(extents.allocate(5), Some(Extent { first_block: BLOCKS, blocks: 5 }));
}

#[test]
fn a_released_extent_is_free_when_its_flip_is_durable_and_older_pins_are_gone() {
    let mut extents = all_free();
    let all = extents.allocate((BLOCKS - HEAD_BLOCKS) as u32).unwrap();
    extents.publish(&set(&[all]));
    let flip = extents.begin_flip();
    extents.flip_durable(flip);
    let pin = extents.pin();
    extents.release(set(&[all]));
    assert_eq!((extents.allocate(1), extents.used().pending_blocks), (None, BLOCKS - HEAD_BLOCKS));
    let flip = extents.begin_flip();
    assert_eq!(extents.allocate(1), None);
    extents.flip_durable(flip);
    let at_the_flip = extents.pin();
    assert_eq!((extents.allocate(1), extents.used().pinned_blocks), (None, BLOCKS - HEAD_BLOCKS));
    extents.unpin(pin);
    assert_eq!(extents.allocate(1), None, "a pin at the flip itself may have come before its roots");
    extents.unpin(at_the_flip);
    assert!(extents.allocate(1).is_some());
    let freed: u64 = extents.take_freed().map(|run| run.end - run.start).sum();
    assert!(freed > 0 && freed <= BLOCKS);
}

#[test]
#[should_panic(expected = "the sets are disjoint")]
fn releasing_a_block_twice_is_a_bug_that_stops_the_node() {
    let mut extents = all_free();
    let extent = extents.allocate(4).unwrap();
    extents.release(set(&[extent]));
    extents.release(set(&[Extent { blocks: 1, ..extent }]));
    extents.begin_flip();
    extents.encode_free(&mut Vec::new());
}

#[test]
#[should_panic(expected = "the sets are disjoint")]
fn releasing_a_free_block_is_a_bug_that_stops_the_node() {
    let mut extents = all_free();
    let extent = extents.allocate(4).unwrap();
    extents.abandon(&set(&[extent]));
    extents.release(set(&[extent]));
    extents.begin_flip();
    extents.encode_free(&mut Vec::new());
}

#[test]
fn a_free_map_has_one_encoding_and_only_that_is_read() {
    let good = |bytes: &[u8]| decoded(bytes, 200).is_ok();
    assert!(good(&[0]) && good(&[1, 64, 1]) && good(&[2, 64, 1, 1, 5]) && good(&[1, 64, 136, 1, 0, 0]));
    for (bytes, why) in [
        (&[][..], "nothing"),
        (&[1, 63, 1], "inside the head"),
        (&[1, 64, 0], "no length"),
        (&[2, 64, 1, 0, 5], "two runs that touch"),
        (&[1, 64, 137, 1], "beyond the end"),
        (&[2, 64, 1], "a run is missing"),
        (&[1, 64, 1, 9], "something behind"),
        (&[1, 192, 0, 1], "a number that is too long"),
        (&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1], "the greatest number"),
    ] {
        assert!(!good(bytes), "{why}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_are_read_only_in_their_one_form(bytes: Vec<u8>) {
        if let Ok(set) = decoded(&bytes, 1 << 20) {
            let mut again = Vec::new();
            encode_sets([&set], &mut again);
            prop_assert_eq!(&bytes[..again.len()], &again[..]);
        }
    }

    #[test]
    fn a_set_is_what_was_put_in_and_not_taken_out(ranges in prop::collection::vec((0u64..300, 1u64..20), 1..60)) {
        let mut set = ExtentSet::new();
        let mut model = BTreeMap::new();
        for (first, blocks) in ranges {
            let range = first..first + blocks;
            if range.clone().all(|block| model.contains_key(&block)) {
                set.remove(range.clone());
                range.for_each(|block| assert!(model.remove(&block).is_some()));
            } else if !range.clone().any(|block| model.contains_key(&block)) {
                set.insert(range.clone());
                model.extend(range.map(|block| (block, ())));
            }
            let blocks: Vec<u64> = set.iter().flatten().collect();
            prop_assert_eq!(&blocks, &model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.blocks(), model.len() as u64);
        }
    }
}
