//! The puts in flight, each with a connection of its own: the items of the bench, one version after the other.

use crate::Put;
use crate::load::{Outcome, Slot};
use crate::plain::{self, Numbers, Template};

/// One of the puts in flight.
pub struct Puts<C> {
    connection: C,
    numbers: Numbers,
    version: u32,
    key: Template,
    value: Template,
}

/// One for each connection; together they put all items, and none of them twice at a time.
pub fn of<C: Put>(connections: Vec<C>) -> Vec<Puts<C>> {
    let slots = u32::try_from(connections.len()).expect("so many connections were asked for by a u32");
    let with = |(slot, connection)| Puts {
        connection,
        numbers: Numbers::of(slot, slots),
        version: 0,
        key: Template::new(plain::NUMBER_MARK.into()),
        value: Template::new(plain::value().into()),
    };
    (0..slots).zip(connections).map(with).collect()
}

impl<C: Put> Slot for Puts<C> {
    async fn operate(&mut self) -> Outcome {
        let number = self.numbers.take();
        self.version += 1;
        let (key, value) = (self.key.fill(number, self.version), self.value.fill(number, self.version));
        match self.connection.put(key, value).await {
            Ok(()) => Outcome::Right,
            Err(fault) => Outcome::Broken(format!("put: {fault}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;
    use crate::load::{self, Lasting};
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::rc::Rc;

    type Stored = Rc<RefCell<HashMap<Vec<u8>, Vec<u8>>>>;

    /// Remembers so many items, and then fails.
    struct Remembers(Stored, u32);

    impl Put for Remembers {
        async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
            self.1 = self.1.checked_sub(1).ok_or("full")?;
            self.0.borrow_mut().insert(key.to_owned(), value.to_owned());
            Ok(())
        }
    }

    #[test]
    fn all_items_are_put_and_a_fault_ends_the_puts() {
        let stored = Stored::default();
        let share = plain::ITEMS / 4;
        let connections = (0..4).map(|_| Remembers(Rc::clone(&stored), share)).collect();
        let each = Lasting::Operations(share + 2);
        let measured = load::runtime().unwrap().block_on(load::run(of(connections), each));
        assert_eq!((measured.successes, measured.errors), (u64::from(plain::ITEMS), 4));
        assert_eq!(measured.first_fault.as_deref(), Some("put: full"));
        let stored = stored.borrow();
        assert_eq!(stored.len(), plain::ITEMS as usize);
        let (key, value) =
            (b"0000000005".to_vec(), plain::value().replace(plain::VERSION_MARK, "0000000002"));
        assert_eq!(stored[&key], value.into_bytes());
    }
}
