//! The texts that all items are made of: 1 KiB each, made by writing digits into templates.
//!
//! An item is its number and its version. Each of the operations in flight has the numbers of one
//! residue class, so no item is written twice at a time.
//!
//! The package of the systems that three copies are compared with compiles this very file too: it uses nothing
//! of the workspace.

/// Items there are.
pub const ITEMS: u32 = 16_384;
/// Size of every item by DynamoDB's rules.
pub const ITEM_BYTES: usize = 1024;

/// Name of the attribute that holds the number.
pub const KEY_NAME: &str = "pk";
/// Name of the attribute that holds the version and letters.
pub const VALUE_NAME: &str = "value";
const DIGITS: usize = 10;
/// Place of a number in a template; letters that occur nowhere else.
pub const NUMBER_MARK: &str = "NNNNNNNNNN";
/// Place of a version in a template.
pub const VERSION_MARK: &str = "VVVVVVVVVV";

/// The text of the attribute that is not the key, with the mark of its version.
pub fn value() -> String {
    let filler = ITEM_BYTES - KEY_NAME.len() - VALUE_NAME.len() - 2 * DIGITS;
    let letters = (0..filler).map(|at| char::from(b'a' + (at % 26) as u8));
    VERSION_MARK.chars().chain(letters).collect()
}

/// Bytes in which number and version are replaced in place.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    number_at: Option<usize>,
    version_at: Option<usize>,
}

impl Template {
    /// Bytes that hold the marks.
    pub fn new(bytes: Vec<u8>) -> Template {
        let number_at = find(&bytes, NUMBER_MARK.as_bytes());
        let version_at = find(&bytes, VERSION_MARK.as_bytes());
        Template { bytes, number_at, version_at }
    }

    /// The bytes for one item.
    pub fn fill(&mut self, number: u32, version: u32) -> &[u8] {
        for (at, value) in [(self.number_at, number), (self.version_at, version)] {
            if let Some(at) = at {
                write_digits(&mut self.bytes[at..at + DIGITS], value);
            }
        }
        &self.bytes
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn write_digits(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The numbers of one of several operations in flight, over and over.
#[derive(Clone, Debug)]
pub struct Numbers {
    next: u32,
    first: u32,
    step: u32,
}

impl Numbers {
    /// The class of `slot` of `slots`.
    pub fn of(slot: u32, slots: u32) -> Numbers {
        Numbers { next: slot, first: slot, step: slots }
    }

    /// One number, and the next one the next time.
    pub fn take(&mut self) -> u32 {
        let number = self.next;
        self.next = if number + self.step < ITEMS { number + self.step } else { self.first };
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_in_flight_share_no_item_and_leave_none_out() {
        for slots in [1, 3, 64] {
            let mut seen = vec![0; ITEMS as usize];
            for slot in 0..slots {
                let mut numbers = Numbers::of(slot, slots);
                let first = numbers.take();
                seen[first as usize] += 1;
                loop {
                    match numbers.take() {
                        again if again == first => break,
                        number => seen[number as usize] += 1,
                    }
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{slots} slots");
        }
    }
}
