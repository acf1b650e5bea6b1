//! Numbers as DynamoDB has them: 38 significant decimal digits, 1E-130 to 9.99…E+125, and zero.
//!
//! A number is kept normalised (no trailing zero in the coefficient), so equal numbers are equal bytes.
//! The key encoding is order-preserving: comparing two encodings as bytes compares the numbers.
//!
//! | byte | meaning |
//! |---|---|
//! | 0 | 1 negative, 2 zero (and the end), 3 positive |
//! | 1 | decimal exponent of the first digit, plus 130 |
//! | 2… | pairs of digits, `10 a + b + 1` |
//! | last | 0 |
//!
//! All bytes after the first are complemented for negative numbers.
//!
//! This module reads, prints, compares and encodes; sums are made by `arithmetic`.

mod arithmetic;

use rkyv::{Archive, Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// Most significant digits of a number.
pub const DIGITS_MAX: usize = 38;
/// Exponent of the first digit of the smallest magnitude.
pub const EXPONENT_MIN: i32 = -130;
/// Exponent of the first digit of the greatest magnitude.
pub const EXPONENT_MAX: i32 = 125;

const _: () =
    assert!(EXPONENT_MAX - EXPONENT_MIN == u8::MAX as i32, "the exponent fits one byte of the encoding");

/// A decimal number, `±coefficient × 10^exponent`, normalised.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    coefficient: u128,
    exponent: i16,
    negative: bool,
}

/// Why a text is not a [`Number`]. The messages are DynamoDB's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Not a decimal number.
    #[error("The parameter cannot be converted to a numeric value: {0}")]
    Syntax(String),
    /// More than 38 significant digits.
    #[error("Attempting to store more than 38 significant digits in a Number")]
    Digits,
    /// Above 9.99…E+125.
    #[error("Number overflow. Attempting to store a number with magnitude larger than supported range")]
    Overflow,
    /// Below 1E-130 and not zero.
    #[error("Number underflow. Attempting to store a number with magnitude smaller than supported range")]
    Underflow,
}

impl Number {
    /// Zero.
    pub const ZERO: Number = Number { coefficient: 0, exponent: 0, negative: false };

    /// Reads `[+-]digits[.digits][(e|E)[+-]digits]`; at least one digit is needed on either side of the point.
    pub fn parse(text: &str) -> Result<Number, NumberError> {
        let syntax = || NumberError::Syntax(text.chars().take(64).collect());
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent_text) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
            None => (unsigned, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return Err(syntax());
        }
        let exponent = exponent_text.map_or(Ok(0), |part| parse_exponent(part).ok_or_else(syntax))?;
        let digits = || whole.bytes().chain(fraction.bytes()).map(|b| u128::from(b - b'0'));
        let total = whole.len() + fraction.len();
        let Some(first) = digits().position(|d| d != 0) else { return Ok(Number::ZERO) };
        let last = total - 1 - trailing_zeros(whole, fraction);
        if last + 1 - first > DIGITS_MAX {
            return Err(NumberError::Digits);
        }
        let coefficient = digits().skip(first).take(last + 1 - first).fold(0, |sum, d| sum * 10 + d);
        let exponent_of_last = exponent + whole.len() as i64 - 1 - last as i64;
        Number::checked(text.starts_with('-'), coefficient, exponent_of_last, last - first)
    }

    /// A number from its normalised parts; `digits_after_first` is one less than the coefficient's digits.
    fn checked(
        negative: bool,
        coefficient: u128,
        exponent: i64,
        digits_after_first: usize,
    ) -> Result<Number, NumberError> {
        let magnitude = exponent + digits_after_first as i64;
        if magnitude > i64::from(EXPONENT_MAX) {
            return Err(NumberError::Overflow);
        }
        if magnitude < i64::from(EXPONENT_MIN) {
            return Err(NumberError::Underflow);
        }
        let exponent = i16::try_from(exponent).expect("between -167 and 125 by the checks above");
        Ok(Number { coefficient, exponent, negative })
    }

    /// The number that an archive holds, checked: an archive from outside may hold any bits.
    pub fn from_archived(archived: &ArchivedNumber) -> Option<Number> {
        let number = Number {
            coefficient: archived.coefficient.into(),
            exponent: archived.exponent.into(),
            negative: archived.negative,
        };
        number.is_normal().then_some(number)
    }

    fn is_normal(&self) -> bool {
        if self.coefficient == 0 {
            return *self == Number::ZERO;
        }
        let digits = self.digit_count();
        let magnitude = i32::from(self.exponent) + digits as i32 - 1;
        !self.coefficient.is_multiple_of(10)
            && digits <= DIGITS_MAX
            && (EXPONENT_MIN..=EXPONENT_MAX).contains(&magnitude)
    }

    fn digit_count(&self) -> usize {
        self.coefficient.checked_ilog10().map_or(0, |log| log as usize + 1)
    }

    /// DynamoDB's size of a number: one byte for each two significant digits and one more.
    pub fn size_bytes(&self) -> usize {
        let digits = self.digit_count();
        digits.div_ceil(2) + 1 + usize::from(self.negative)
    }

    /// Appends the order-preserving encoding (see the module's table).
    pub fn encode_key(&self, out: &mut Vec<u8>) {
        let digits = self.digit_count();
        if digits == 0 {
            out.push(2);
            return;
        }
        out.push(if self.negative { 1 } else { 3 });
        let start = out.len();
        let magnitude = i32::from(self.exponent) + digits as i32 - 1;
        out.push(u8::try_from(magnitude - EXPONENT_MIN).expect("a normal number's exponent fits"));
        let padded = self.coefficient * if digits % 2 == 1 { 10 } else { 1 };
        for pair in (0..digits.div_ceil(2) as u32).rev() {
            let two = (padded / 100u128.pow(pair)) % 100;
            out.push(two as u8 + 1);
        }
        out.push(0);
        if self.negative {
            out[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    /// Reads an encoding from the front of `bytes` and yields the rest, or nothing if it is none.
    pub fn decode_key(bytes: &[u8]) -> Option<(Number, &[u8])> {
        let (&sign, rest) = bytes.split_first()?;
        let mask = match sign {
            2 => return Some((Number::ZERO, rest)),
            1 => 0xFF,
            3 => 0,
            _ => return None,
        };
        let (&exponent, rest) = rest.split_first()?;
        let pairs = rest.iter().take(DIGITS_MAX / 2 + 1).position(|&byte| byte ^ mask == 0)?;
        let mut coefficient = 0u128;
        for &byte in &rest[..pairs] {
            let two = (byte ^ mask) - 1;
            if two > 99 {
                return None;
            }
            coefficient = coefficient * 100 + u128::from(two);
        }
        let magnitude = i32::from(exponent ^ mask) + EXPONENT_MIN;
        let mut last = magnitude - (2 * pairs as i32 - 1);
        if coefficient != 0 && coefficient.is_multiple_of(10) {
            coefficient /= 10;
            last += 1;
        }
        let number = Number { coefficient, exponent: i16::try_from(last).ok()?, negative: sign == 1 };
        (coefficient != 0 && number.is_normal()).then_some((number, &rest[pairs + 1..]))
    }
}

fn trailing_zeros(whole: &str, fraction: &str) -> usize {
    whole.bytes().chain(fraction.bytes()).rev().take_while(|&b| b == b'0').count()
}

/// The exponent part of a number; saturates far outside the range, which the caller refuses.
fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = digits.bytes().fold(0i64, |sum, b| (sum * 10 + i64::from(b - b'0')).min(1_000_000_000));
    Some(if text.starts_with('-') { -value } else { value })
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let signum = |n: &Number| {
            if n.coefficient == 0 {
                0
            } else if n.negative {
                -1
            } else {
                1
            }
        };
        signum(self).cmp(&signum(other)).then_with(|| {
            let magnitude = compare_magnitude(self, other);
            if self.negative { magnitude.reverse() } else { magnitude }
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn compare_magnitude(a: &Number, b: &Number) -> Ordering {
    let first = |n: &Number| i32::from(n.exponent) + n.digit_count() as i32;
    let aligned = |n: &Number| n.coefficient * 10u128.pow((DIGITS_MAX - n.digit_count()) as u32);
    first(a).cmp(&first(b)).then_with(|| aligned(a).cmp(&aligned(b)))
}

impl fmt::Display for Number {
    /// Plain notation without an exponent, as DynamoDB prints numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        let digits = self.coefficient.to_string();
        let point = digits.len() as i32 + i32::from(self.exponent);
        if self.coefficient == 0 {
            f.write_str("0")
        } else if point <= 0 {
            write!(f, "0.{:0>width$}", digits, width = digits.len() + point.unsigned_abs() as usize)
        } else if (point as usize) < digits.len() {
            let (whole, fraction) = digits.split_at(point as usize);
            write!(f, "{whole}.{fraction}")
        } else {
            write!(f, "{digits:0<width$}", width = point as usize)
        }
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        let mut coefficient = u128::from(value);
        let mut exponent = 0;
        while coefficient != 0 && coefficient.is_multiple_of(10) {
            coefficient /= 10;
            exponent += 1;
        }
        Number { coefficient, exponent, negative: false }
    }
}

impl TryFrom<&Number> for u64 {
    type Error = NumberError;

    fn try_from(number: &Number) -> Result<u64, NumberError> {
        let refuse = || NumberError::Syntax(number.to_string());
        let power = u32::try_from(number.exponent).map_err(|_| refuse())?;
        let value = 10u128.checked_pow(power).and_then(|scale| number.coefficient.checked_mul(scale));
        let value = value.and_then(|value| u64::try_from(value).ok()).ok_or_else(refuse)?;
        if number.negative { Err(refuse()) } else { Ok(value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    fn encoded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        number(text).encode_key(&mut out);
        out
    }

    #[test]
    fn numbers_print_in_plain_notation() {
        let cases = [
            ("0", "0"),
            ("-0", "0"),
            ("0e999", "0"),
            ("007.500", "7.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("+1.25E1", "12.5"),
            ("-12e-3", "-0.012"),
            ("123456789012345678901234567890.12345678", "123456789012345678901234567890.12345678"),
        ];
        for (text, printed) in cases {
            assert_eq!(number(text).to_string(), printed, "{text}");
        }
        assert_eq!(number("1e125").to_string().len(), 126);
        assert_eq!(number("1e-130").to_string().len(), 132);
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_reason() {
        for text in ["", "-", ".", "e5", "1e", "1e+", "0x10", " 1", "1 ", "NaN", "Infinity", "1_000", "١"] {
            assert!(matches!(Number::parse(text), Err(NumberError::Syntax(_))), "{text:?}");
        }
        assert_eq!(Number::parse("123456789012345678901234567890123456789"), Err(NumberError::Digits));
        assert_eq!(Number::parse("1e126"), Err(NumberError::Overflow));
        assert_eq!(Number::parse("-1e99999999999999999999"), Err(NumberError::Overflow));
        assert_eq!(Number::parse("9.9e-131"), Err(NumberError::Underflow));
        assert!(Number::parse(&format!("{}e125", "9.".to_owned() + &"9".repeat(37))).is_ok());
        assert!(Number::parse(&format!("{}1", "0.".to_owned() + &"0".repeat(129))).is_ok());
    }

    #[test]
    fn the_key_encoding_of_version_1_is_frozen() {
        assert_eq!(encoded("0"), [2]);
        assert_eq!(encoded("1"), [3, 130, 11, 0]);
        assert_eq!(encoded("-1"), [1, !130, !11, 0xFF]);
        assert_eq!(encoded("1234.5"), [3, 133, 13, 35, 51, 0]);
    }

    #[test]
    fn the_key_encoding_sorts_as_the_numbers_do() {
        let ordered = [
            "-9e125",
            "-1e125",
            "-12.5",
            "-12.49",
            "-12",
            "-1",
            "-0.5",
            "-1e-130",
            "0",
            "1e-130",
            "0.5",
            "1",
            "1.01",
            "1.1",
            "9",
            "10",
            "10.000000000000000000000000000000000001",
            "11",
            "99",
            "100",
            "1e125",
        ];
        for pair in ordered.windows(2) {
            assert!(encoded(pair[0]) < encoded(pair[1]), "{pair:?}");
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn integers_convert_both_ways() {
        for value in [0, 7, 10, 1_000_000, u64::MAX] {
            assert_eq!(u64::try_from(&Number::from(value)), Ok(value));
        }
        assert!(u64::try_from(&number("-1")).is_err());
        assert!(u64::try_from(&number("1.5")).is_err());
        assert!(u64::try_from(&number("1e30")).is_err());
    }

    fn any_number() -> impl Strategy<Value = Number> {
        (any::<bool>(), 1..10u128.pow(38), -130i32..=88).prop_map(|(negative, digits, exponent)| {
            let sign = if negative { "-" } else { "" };
            Number::parse(&format!("{sign}{digits}e{exponent}")).unwrap_or(Number::ZERO)
        })
    }

    proptest! {
        #[test]
        fn printing_and_encoding_come_back(a in any_number()) {
            prop_assert_eq!(Number::parse(&a.to_string()), Ok(a));
            let mut bytes = Vec::new();
            a.encode_key(&mut bytes);
            bytes.push(77);
            prop_assert_eq!(Number::decode_key(&bytes), Some((a, &[77u8][..])));
        }

        #[test]
        fn bytes_compare_as_numbers(a in any_number(), b in any_number()) {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            a.encode_key(&mut x);
            b.encode_key(&mut y);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Number::decode_key(&bytes);
        }
    }
}
