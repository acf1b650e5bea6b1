//! Names for writes, so that one that is repeated is made once.
//!
//! A client is one session; its writes are numbered. With each goes the least number whose answer has not
//! arrived, below which the cluster forgets outcomes.

use crate::pending::lock;
use evenkeel_wire::message::WriteToken;
use std::collections::VecDeque;
use std::sync::Mutex;

/// The writes of a client that are under way.
pub(crate) struct Tokens {
    session: u128,
    window: Mutex<Window>,
}

/// Numbers from `lowest` on, and which of them are answered. It is as long as the oldest write is behind the
/// newest, which the time of an operation bounds.
struct Window {
    lowest: u64,
    answered: VecDeque<bool>,
}

/// The name of a write that is under way.
pub(crate) struct Named<'a> {
    tokens: &'a Tokens,
    token: WriteToken,
}

impl Tokens {
    pub(crate) fn new(session: u128) -> Tokens {
        // 0 is what a sequence without a beginning would be.
        Tokens { session, window: Mutex::new(Window { lowest: 1, answered: VecDeque::new() }) }
    }

    /// Names a write; the name is given up with what is returned.
    pub(crate) fn begin(&self) -> Named<'_> {
        let mut window = lock(&self.window);
        let sequence = window.lowest + window.answered.len() as u64;
        window.answered.push_back(false);
        let token = WriteToken { session: self.session, sequence, lowest: window.lowest };
        Named { tokens: self, token }
    }
}

impl Named<'_> {
    pub(crate) fn token(&self) -> WriteToken {
        self.token
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let mut window = lock(&self.tokens.window);
        let at = (self.token.sequence - window.lowest) as usize;
        window.answered[at] = true;
        while window.answered.front() == Some(&true) {
            window.answered.pop_front();
            window.lowest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_the_lowest_is_the_oldest_without_an_answer() {
        let tokens = Tokens::new(7);
        let numbers = |named: &Named<'_>| (named.token().sequence, named.token().lowest);
        let (first, second, third) = (tokens.begin(), tokens.begin(), tokens.begin());
        assert_eq!([&first, &second, &third].map(numbers), [(1, 1), (2, 1), (3, 1)]);
        drop(second);
        assert_eq!(numbers(&tokens.begin()), (4, 1));
        drop(first);
        assert_eq!(numbers(&tokens.begin()), (5, 3));
        drop(third);
        let last = tokens.begin();
        assert_eq!((numbers(&last), last.token().session), ((6, 6), 7));
        assert_eq!(lock(&tokens.window).answered.len(), 1);
    }
}
