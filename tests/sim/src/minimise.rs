//! Making a failing seed small: as few faults and clients as still fail in the same way.
//!
//! Faults come from a source of their own, so leaving one out moves no other by itself; what clients and links
//! draw goes another way all the same. So each smaller run is tried, and kept only if it fails like the first.

use crate::cluster::Core;
use crate::run::{Failure, Plan, run};
use std::mem::discriminant;

/// Most runs that are spent.
const RUNS_MAX: u32 = 300;

/// The smallest plan that was found to fail as `plan` does, and how it fails; nothing if `plan` passes.
pub fn minimise<C: Core>(plan: &Plan) -> Option<(Plan, Failure)> {
    let quiet = Plan { tracing: false, ..plan.clone() };
    let failure = *run::<C>(&quiet).err()?;
    let mut search = Search { best: quiet, failure, runs: 0 };
    search.cut_end::<C>();
    let calm = Plan { calm_network: true, ..search.best.clone() };
    search.try_plan::<C>(calm);
    search.spare_faults::<C>();
    for clients in [1, 2, 3, 5, 8] {
        let fewer = Plan { clients_max: Some(clients), ..search.best.clone() };
        if search.best.clients_max.is_none() && search.try_plan::<C>(fewer) {
            break;
        }
    }
    search.spare_faults::<C>();
    Some((search.best, search.failure))
}

struct Search {
    best: Plan,
    failure: Failure,
    runs: u32,
}

impl Search {
    /// Keeps a plan if it fails as the best one does.
    fn try_plan<C: Core>(&mut self, plan: Plan) -> bool {
        self.runs += 1;
        let failed = if self.runs > RUNS_MAX { None } else { run::<C>(&plan).err() };
        let Some(failure) = failed else { return false };
        if discriminant(&failure.violation) != discriminant(&self.failure.violation) {
            return false;
        }
        (self.best, self.failure) = (plan, *failure);
        true
    }

    /// Leaves out the faults behind the last one that matters.
    fn cut_end<C: Core>(&mut self) {
        let (mut passes, mut fails) = (0, 1);
        while !self.try_plan::<C>(Plan { faults_max: Some(fails), ..self.best.clone() }) {
            if self.runs > RUNS_MAX || fails > 4096 {
                return;
            }
            (passes, fails) = (fails, fails * 2);
        }
        while fails - passes > 1 {
            let middle = passes + (fails - passes) / 2;
            if self.try_plan::<C>(Plan { faults_max: Some(middle), ..self.best.clone() }) {
                fails = middle;
            } else {
                passes = middle;
            }
        }
    }

    /// Leaves out whatever faults can be left out, large groups of them first.
    fn spare_faults<C: Core>(&mut self) {
        let Some(count) = self.best.faults_max else { return };
        let mut size = (count / 2).max(1);
        loop {
            for first in (0..count).step_by(usize::try_from(size).expect("few faults")) {
                let mut plan = self.best.clone();
                plan.spared.extend(first..(first + size).min(count));
                if plan.spared != self.best.spared {
                    self.try_plan::<C>(plan);
                }
            }
            if size == 1 {
                return;
            }
            size /= 2;
        }
    }
}
