//! Sums and differences, exact or not at all: a result of more than 38 digits is an error, as DynamoDB
//! has it, never rounded.

use super::{DIGITS_MAX, EXPONENT_MAX, EXPONENT_MIN, Number, NumberError};

/// Decimal places of the least digit that a number may have.
const LEAST_EXPONENT: i32 = EXPONENT_MIN - DIGITS_MAX as i32 + 1;
/// Room for every digit of any number and one more for the carry.
const DIGITS: usize = (EXPONENT_MAX - LEAST_EXPONENT) as usize + 2;

/// The digits of a magnitude, the least first, from [`LEAST_EXPONENT`] up.
struct Digits([u8; DIGITS]);

impl Digits {
    fn of(number: &Number) -> Digits {
        let mut digits = [0; DIGITS];
        let mut rest = number.coefficient;
        let mut at = (i32::from(number.exponent) - LEAST_EXPONENT) as usize;
        while rest != 0 {
            digits[at] = (rest % 10) as u8;
            rest /= 10;
            at += 1;
        }
        Digits(digits)
    }

    fn add(&mut self, other: &Digits) {
        let mut carry = 0;
        for (digit, other) in self.0.iter_mut().zip(other.0) {
            let sum = *digit + other + carry;
            (*digit, carry) = (sum % 10, sum / 10);
        }
        debug_assert_eq!(carry, 0, "there is room for one digit more than any number has");
    }

    /// Takes away a magnitude that is not greater.
    fn subtract(&mut self, other: &Digits) {
        let mut borrow = 0;
        for (digit, other) in self.0.iter_mut().zip(other.0) {
            let difference = 10 + *digit - other - borrow;
            (*digit, borrow) = (difference % 10, 1 - difference / 10);
        }
        debug_assert_eq!(borrow, 0, "the greater magnitude is on the left");
    }

    fn number(&self, negative: bool) -> Result<Number, NumberError> {
        let Some(least) = self.0.iter().position(|digit| *digit != 0) else { return Ok(Number::ZERO) };
        let most = self.0.iter().rposition(|digit| *digit != 0).expect("there is a digit that is not zero");
        if most - least >= DIGITS_MAX {
            return Err(NumberError::Digits);
        }
        let coefficient =
            self.0[least..=most].iter().rev().fold(0, |sum, digit| sum * 10 + u128::from(*digit));
        Number::checked(negative, coefficient, least as i64 + i64::from(LEAST_EXPONENT), most - least)
    }
}

impl Number {
    /// The sum.
    ///
    /// # Errors
    /// More than 38 significant digits, or a magnitude out of range.
    pub fn checked_add(&self, other: &Number) -> Result<Number, NumberError> {
        let (greater, less) =
            if super::compare_magnitude(self, other).is_ge() { (self, other) } else { (other, self) };
        let mut digits = Digits::of(greater);
        match greater.negative == less.negative {
            true => digits.add(&Digits::of(less)),
            false => digits.subtract(&Digits::of(less)),
        }
        digits.number(greater.negative)
    }

    /// The difference.
    ///
    /// # Errors
    /// As [`Number::checked_add`].
    pub fn checked_sub(&self, other: &Number) -> Result<Number, NumberError> {
        self.checked_add(&Number { negative: !other.negative && *other != Number::ZERO, ..*other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let nines = "9".repeat(38);
        let cases = [
            ("1", "2", Ok("3")),
            ("0.1", "0.2", Ok("0.3")),
            ("-5", "5", Ok("0")),
            ("5", "-7.5", Ok("-2.5")),
            ("0", "0", Ok("0")),
            ("1E20", "1", Ok("100000000000000000001")),
            ("1E38", "1", Err(NumberError::Digits)),
            (nines.as_str(), "1", Ok("100000000000000000000000000000000000000")),
            ("9E125", "1E125", Err(NumberError::Overflow)),
            ("-9E125", "-1E125", Err(NumberError::Overflow)),
            ("1E-130", "-1E-130", Ok("0")),
            ("1.1E-130", "-1E-130", Err(NumberError::Underflow)),
            ("1E125", "1E-130", Err(NumberError::Digits)),
        ];
        for (a, b, expected) in cases {
            assert_eq!(number(a).checked_add(&number(b)), expected.map(number), "{a} + {b}");
        }
        assert_eq!(number("3").checked_sub(&number("5")), Ok(number("-2")));
        assert_eq!(number("3").checked_sub(&Number::ZERO), Ok(number("3")));
    }

    proptest! {
        #[test]
        fn small_sums_are_those_of_integers(a in -1_000_000_000_000i128..1_000_000_000_000, b in -1_000_000_000_000i128..1_000_000_000_000) {
            let sum = number(&a.to_string()).checked_add(&number(&b.to_string()));
            prop_assert_eq!(sum, Ok(number(&(a + b).to_string())));
            let difference = number(&a.to_string()).checked_sub(&number(&b.to_string()));
            prop_assert_eq!(difference, Ok(number(&(a - b).to_string())));
        }
    }
}
