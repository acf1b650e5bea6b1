//! Request ids: 52 letters and digits that no other request has.

/// Yields request ids from a seed that the kernel drew. Not secret; only unlikely to repeat.
pub struct RequestIds {
    state: u64,
}

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
/// Characters of a request id.
pub const LENGTH: usize = 52;

impl RequestIds {
    /// Ids that begin at a random place.
    pub fn new() -> RequestIds {
        RequestIds {
            state: getrandom::u64().expect("the kernel's random source works on every supported kernel"),
        }
    }

    /// The next id.
    pub fn next(&mut self) -> [u8; LENGTH] {
        let mut id = [0; LENGTH];
        for group in id.chunks_mut(12) {
            let mut bits = self.bits();
            for byte in group {
                *byte = ALPHABET[(bits & 31) as usize];
                bits >>= 5;
            }
        }
        id
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_52_letters_and_digits_and_differ() {
        let mut ids = RequestIds { state: 7 };
        let seen: std::collections::HashSet<[u8; LENGTH]> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().flatten().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));
    }
}
