//! A tree of items that come in order, bottom-up, without a table above it.

use super::{Place, builder::Builder};
use crate::{
    disk::Disk,
    engine::KeyAndImage,
    pace::Pace,
    runtime::Runtime,
    space::{Batch, RootReference, SpaceError},
};
use std::rc::Rc;

/// A tree was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoadFault {
    /// A key is not behind the one before it.
    OutOfOrder(Rc<[u8]>),
    Space(SpaceError),
}

impl From<SpaceError> for LoadFault {
    fn from(error: SpaceError) -> Self {
        LoadFault::Space(error)
    }
}

/// The tree of all items that `next` yields; none if there are none.
pub(crate) async fn load<D: Disk, R: Runtime>(
    batch: &mut Batch<D, R>,
    place: Place,
    pace: &Pace<R>,
    mut next: impl AsyncFnMut() -> Option<KeyAndImage>,
) -> Result<Option<RootReference>, LoadFault> {
    let mut builder = Builder::new(batch, place.partition, place.limits);
    let mut last: Option<Rc<[u8]>> = None;
    while let Some((key, image)) = next().await {
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(LoadFault::OutOfOrder(key));
        }
        builder.add(&key, &image).await?;
        last = Some(key);
        pace.breathe().await;
    }
    Ok(builder.finish().await?)
}
