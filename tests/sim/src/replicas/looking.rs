//! Looking at what a member holds: all its items, read as an eventually consistent read would.
//!
//! A read may need a page of the disk, and so take until some later look.

use super::Local;
use evenkeel_partition::{Page, RangeRequest, ReadError};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type Reading = Pin<Box<dyn Future<Output = Result<Page, ReadError>>>>;

/// The looks of one core, by partition.
#[derive(Default)]
pub struct Looks {
    looks: BTreeMap<usize, Look>,
}

#[derive(Default)]
struct Look {
    /// How far the member was when it was last asked for, and what had been merged on its core.
    begun: (u64, u64),
    reading: Option<Reading>,
    /// A slot, and a hash of the content as of it.
    seen: Option<(u64, u128)>,
}

impl Looks {
    /// What was read last, and has a new read begun if the member has moved; `merges` counts the merges of its
    /// core, after which the same content must be there.
    pub fn look(&mut self, partition: usize, member: &Rc<Local>, merges: u64) -> Option<(u64, u128)> {
        let look = self.looks.entry(partition).or_default();
        let now = (member.applied().0, merges);
        if look.reading.is_none() && (look.seen.is_none() || look.begun != now) {
            look.begun = now;
            look.reading = Some(Box::pin(all_items(Rc::clone(member))));
        }
        if let Some(reading) = &mut look.reading
            && let Poll::Ready(read) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            look.reading = None;
            // A page names the slot at which its reading began; each leaf is as of its own moment.
            let page = read.ok().filter(|page| page.applied == member.applied());
            if let Some(page) = page {
                look.seen = Some((page.applied.0, hash(&page)));
            } else {
                look.begun = (u64::MAX, 0);
            }
        }
        look.seen
    }
}

async fn all_items(member: Rc<Local>) -> Result<Page, ReadError> {
    let request = RangeRequest {
        lower: &[0],
        upper: None,
        reverse: false,
        items_max: usize::MAX,
        bytes_max: usize::MAX,
        filter: None,
    };
    member.range_eventual(request).await
}

/// FNV-1a of all keys and images.
fn hash(page: &Page) -> u128 {
    let mut content = 0_u128;
    for byte in page.items.iter().flat_map(|(key, image)| key.iter().chain(image.iter())) {
        content = (content ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
    }
    content
}
