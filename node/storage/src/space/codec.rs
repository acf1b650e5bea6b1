//! Reading and writing integers and byte strings of the page file's formats, with every length checked.
//!
//! Little-endian integers of fixed width, and variable ones of seven bits a byte (LEB128). It knows
//! nothing of what they mean.

/// Why bytes that passed their checksum, or never had one, are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} cannot be {found}")]
pub struct DecodeFault {
    /// Which field.
    pub what: &'static str,
    /// Where it begins.
    pub at: usize,
    /// What was found, as far as it is a number.
    pub found: u64,
}

/// Reads from the front of bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    #[cfg(test)]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// A fault in what was read last, or is about to be.
    pub(super) fn fault(&self, what: &'static str, found: u64) -> DecodeFault {
        DecodeFault { what, at: self.at, found }
    }

    pub(super) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeFault> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(self.fault(what, count as u64));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeFault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeFault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeFault> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self, what: &'static str) -> Result<u128, DecodeFault> {
        self.array(what).map(u128::from_le_bytes)
    }

    /// A fixed integer that can only have one value.
    pub(super) fn expect_u32(&mut self, value: u32, what: &'static str) -> Result<(), DecodeFault> {
        let at = self.at;
        let found = self.u32(what)?;
        if found == value { Ok(()) } else { Err(DecodeFault { what, at, found: found.into() }) }
    }

    /// A variable integer in its shortest form.
    pub(super) fn variable(&mut self, what: &'static str) -> Result<u64, DecodeFault> {
        let at = self.at;
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array::<1>(what)?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeFault { what, at, found: value })
    }

    /// Nothing may follow but zeros.
    pub(super) fn rest_is_zero(&self, what: &'static str) -> Result<(), DecodeFault> {
        match self.bytes[self.at..].iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(index) => {
                let at = self.at + index;
                Err(DecodeFault { what, at, found: self.bytes[at].into() })
            }
        }
    }
}

/// Appends a variable integer.
pub(super) fn put_variable(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Bytes of a variable integer.
pub(super) fn variable_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn variable_integers_are_read_as_written_in_the_bytes_announced(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_variable(&mut bytes, value);
            prop_assert_eq!(bytes.len(), variable_bytes(value));
            prop_assert_eq!(Reader::new(&bytes).variable("value"), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_are_a_variable_integer_only_in_its_one_form(bytes: [u8; 12]) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.variable("value") {
                let mut again = Vec::new();
                put_variable(&mut again, value);
                prop_assert_eq!(&bytes[..reader.position()], &again[..]);
            }
        }
    }
}
