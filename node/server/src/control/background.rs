//! What the control plane does beside the requests that it answers: again and again until it is done.
//!
//! Some of it is for whatever there is to do, such as members that are away; a task does that for all who ask, so
//! that a hundred tables deleted while a node is away are not a hundred tasks that look through the catalogue.

use super::{Control, StepError};
use crate::limits::CONTROL_RETRY_PAUSE;
use crate::tables::Reign;
use evenkeel_storage::Runtime;
use std::cell::Cell;
use std::rc::Rc;

/// Work that one task at a time does for all who ask for it.
#[derive(Default)]
pub(super) struct Chore {
    /// The reign of the task that does it.
    of: Cell<Option<Reign>>,
    /// How often it was asked for.
    asked: Cell<u64>,
}

impl Chore {
    /// Takes note that there is something to do; yields whether a task is needed for it.
    fn ask(&self, reign: Reign) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.of.replace(Some(reign)) != Some(reign)
    }

    /// The task of this reign ends.
    fn end(&self, reign: Reign) {
        if self.of.get() == Some(reign) {
            self.of.set(None);
        }
    }
}

impl Control {
    /// Does something again and again until it is done, this member does not lead any more, or the shard stops.
    pub(crate) fn in_background<Work, Run>(self: &Rc<Self>, reign: Reign, what: String, work: Work)
    where
        Work: Fn(Rc<Control>) -> Run + 'static,
        Run: Future<Output = Result<(), StepError>>,
    {
        let control = Rc::clone(self);
        self.runtime.spawn(async move {
            control.until_done(reign, &what, work).await;
        });
    }

    /// The same for work that is done for all who ask: it is done once more after the last of them has asked.
    pub(super) fn chore<Work, Run>(
        self: &Rc<Self>,
        reign: Reign,
        chore: fn(&Control) -> &Chore,
        what: &'static str,
        work: Work,
    ) where
        Work: Fn(Rc<Control>) -> Run + 'static,
        Run: Future<Output = Result<(), StepError>>,
    {
        if !chore(self).ask(reign) {
            return;
        }
        let control = Rc::clone(self);
        self.runtime.spawn(async move {
            loop {
                let asked = chore(&control).asked.get();
                let is_done = control.until_done(reign, what, &work).await;
                if !is_done || chore(&control).asked.get() == asked {
                    return chore(&control).end(reign);
                }
            }
        });
    }

    /// Yields whether it is done.
    async fn until_done<Work, Run>(self: &Rc<Self>, reign: Reign, what: &str, work: Work) -> bool
    where
        Work: Fn(Rc<Control>) -> Run,
        Run: Future<Output = Result<(), StepError>>,
    {
        let _end = self.begin_work();
        let mut reported = String::new();
        while let Err(error) = work(Rc::clone(self)).await {
            if self.closing.get() || self.catalogue.reign().ok() != Some(reign) {
                return false;
            }
            let text = error.to_string();
            if text != reported {
                tracing::warn!(what, "waiting: {text}");
                reported = text;
            }
            self.parts.core.sleep(CONTROL_RETRY_PAUSE).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Chore, Reign};

    #[test]
    fn one_task_a_reign_does_what_many_ask_for() {
        let chore = Chore::default();
        assert!(chore.ask(Reign(1)));
        assert!(!chore.ask(Reign(1)), "the task looks once more, for this one");
        assert_eq!(chore.asked.get(), 2);
        assert!(chore.ask(Reign(2)), "the task of the reign before does nothing any more");
        chore.end(Reign(1));
        assert!(!chore.ask(Reign(2)), "that one's end is not the end of this one");
        chore.end(Reign(2));
        assert!(chore.ask(Reign(2)));
    }
}
