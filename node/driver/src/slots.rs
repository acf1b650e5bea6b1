//! A table of the operations under way: stable indices, reused without allocating.
//!
//! An index is the kernel's only name for an operation, so a slot is given to the next operation only
//! when the kernel has nothing left to say about the last one. It knows nothing of rings.

/// Values by index, with a free list.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub fn with_capacity(capacity: usize) -> Self {
        Slots { entries: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = Some(value);
            return index;
        }
        self.entries.push(Some(value));
        (self.entries.len() - 1) as u32
    }

    /// # Panics
    /// If the slot is empty: the caller holds an index only while its operation lives.
    pub fn get_mut(&mut self, index: u32) -> &mut T {
        self.entries[index as usize].as_mut().expect("the operation is in its slot until it is taken")
    }

    /// # Panics
    /// If the slot is empty.
    pub fn remove(&mut self, index: u32) -> T {
        let value = self.entries[index as usize].take().expect("an operation is taken from its slot once");
        self.free.push(index);
        value
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_after_it_was_taken() {
        let mut slots = Slots::with_capacity(2);
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_eq!((slots.remove(a), slots.len()), ('a', 1));
        assert_eq!(slots.insert('c'), a);
        assert_eq!((*slots.get_mut(a), *slots.get_mut(b)), ('c', 'b'));
    }
}
