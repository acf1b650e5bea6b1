//! The first bytes of keys, as numbers: what decides most comparisons without a look at the keys themselves.
//!
//! Following a reference to a key costs a wait for memory that is in no cache. Encoded keys begin with a hash, so eight
//! bytes nearly always decide, and those of many keys are in one cache line.

use std::ops::Range;

const HEAD_BYTES: usize = 8;

/// The first bytes, as a number of the same order; zeros are behind a shorter key. Equal ones decide nothing.
pub(crate) fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; HEAD_BYTES];
    let count = key.len().min(HEAD_BYTES);
    head[..count].copy_from_slice(&key[..count]);
    u64::from_be_bytes(head)
}

/// The heads of every so many of a list of keys in order.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    stride: usize,
    heads: Box<[u64]>,
}

impl Heads {
    /// Those of `count` keys, in at most `bytes_max` of memory.
    pub(crate) fn of<'a>(count: usize, key: impl Fn(usize) -> &'a [u8], bytes_max: usize) -> Heads {
        let stride = count.div_ceil((bytes_max / HEAD_BYTES).max(1)).max(1);
        Heads { stride, heads: (0..count).step_by(stride).map(|index| head_of(key(index))).collect() }
    }

    /// Where in a list of `count` keys the first one may be that is not before `key`: all in front of the range are before
    /// it, and none behind it is.
    pub(crate) fn around(&self, key: &[u8], count: usize) -> Range<usize> {
        let head = head_of(key);
        let before = self.heads.partition_point(|other| *other < head);
        let not_behind = before + self.heads[before..].iter().take_while(|other| **other == head).count();
        let first = if before == 0 { 0 } else { (before - 1) * self.stride + 1 };
        first..(not_behind * self.stride).min(count).max(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_are_in_the_order_of_their_keys(
            one in prop::collection::vec(0u8..3, 0..12),
            other in prop::collection::vec(0u8..3, 0..12),
        ) {
            let (of_one, of_other) = (head_of(&one), head_of(&other));
            prop_assert!(of_one == of_other || of_one.cmp(&of_other) == one.cmp(&other));
        }

        #[test]
        fn a_key_belongs_where_its_heads_say(
            keys in prop::collection::btree_set(prop::collection::vec(0u8..3, 0..12), 0..40),
            key in prop::collection::vec(0u8..3, 0..12),
            heads_max in 0usize..50,
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let heads = Heads::of(keys.len(), |index| &keys[index], heads_max * HEAD_BYTES);
            prop_assert!(heads.heads.len() <= heads_max.max(1));
            let around = heads.around(&key, keys.len());
            let (first, behind) =
                (keys.partition_point(|other| *other < key), keys.partition_point(|other| *other <= key));
            prop_assert!(around.start <= first && behind <= around.end, "{around:?}, {first}, {behind}");
        }
    }
}
