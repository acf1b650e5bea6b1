//! How available writes were: successes in each second, and the longest times without any.

use super::faults::{Kind, Mark};
use super::workload::Success;
use evenkeel_bench::pace;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A time without a successful write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// When it began.
    pub from: Duration,
    /// How long it was.
    pub lasted: Duration,
    /// The partition, if it is that of one.
    pub partition: Option<usize>,
    /// The fault before it or in it that began last.
    pub after: Option<String>,
}

/// What a run's successes and faults say.
#[derive(Clone, PartialEq, Debug)]
pub struct Availability {
    /// Successful writes of each second.
    pub per_second: Vec<u64>,
    /// The longest gap of any write.
    pub of_all: Gap,
    /// The longest gap of the writes of one partition.
    pub of_one: Gap,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<Kind, u64>,
}

impl Availability {
    /// Of a run of this many partitions and this length; `successes` by time.
    pub fn of(successes: &[Success], marks: &[Mark], partitions: usize, run: Duration) -> Availability {
        let mut per_second = vec![0; usize::try_from(run.as_secs()).expect("runs are short").max(1)];
        for success in successes {
            if let Some(second) = per_second.get_mut(success.at.as_secs() as usize) {
                *second += 1;
            }
        }
        let gap = |partition: Option<usize>| {
            let of = successes.iter().filter(|success| partition.is_none_or(|one| success.partition == one));
            let pace::Gap { from, lasted } = pace::longest_gap(of.map(|success| success.at), run);
            Gap { from, lasted, partition, after: culprit(marks, from, from + lasted) }
        };
        let ones = (0..partitions).map(|partition| gap(Some(partition)));
        let mut faults: BTreeMap<Kind, u64> = Kind::ALL.iter().map(|kind| (*kind, 0)).collect();
        for mark in marks {
            *faults.entry(mark.kind).or_default() += 1;
        }
        let of_all = gap(None);
        let of_one = ones.max_by_key(|gap| gap.lasted).unwrap_or_else(|| of_all.clone());
        Availability { per_second, of_all, of_one, faults }
    }

    /// Kinds that never happened.
    pub fn missing(&self) -> Vec<Kind> {
        self.faults.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| *kind).collect()
    }
}

/// Among the faults that went on at the beginning of a gap or began in it, the last one to begin; otherwise the last
/// one before it.
fn culprit(marks: &[Mark], from: Duration, until: Duration) -> Option<String> {
    let touching = marks.iter().filter(|mark| mark.began < until && mark.ended >= from);
    let before = marks.iter().filter(|mark| mark.began < until);
    let last = touching.max_by_key(|mark| mark.began).or_else(|| before.max_by_key(|mark| mark.began));
    last.map(|mark| format!("{} at {:.2} s", mark.text, mark.began.as_secs_f64()))
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s from {:.2} s on", self.lasted.as_secs_f64(), self.from.as_secs_f64())?;
        if let Some(partition) = self.partition {
            write!(f, ", partition {partition}")?;
        }
        match &self.after {
            Some(after) => write!(f, ", after: {after}"),
            None => f.write_str(", before any fault"),
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = &self.per_second;
        let (min, sum) = (seconds.iter().min().copied().unwrap_or(0), seconds.iter().sum::<u64>());
        let zero = seconds.iter().filter(|count| **count == 0).count();
        let mean = sum as f64 / seconds.len() as f64;
        writeln!(
            f,
            "writes a second over {} s: min {min}, mean {mean:.1}; {zero} seconds without any ({:.2} %)",
            seconds.len(),
            100.0 * zero as f64 / seconds.len() as f64
        )?;
        writeln!(f, "longest gap of all writes: {}", self.of_all)?;
        writeln!(f, "longest gap of one partition: {}", self.of_one)?;
        for (kind, count) in &self.faults {
            writeln!(f, "{count:>6}  {}", kind.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn success(at: u64, partition: usize) -> Success {
        Success { at: ms(at), partition, took: ms(1) }
    }

    fn mark(kind: Kind, began: u64, ended: u64) -> Mark {
        Mark { began: ms(began), ended: ms(ended), kind, text: kind.name().to_owned() }
    }

    #[test]
    fn seconds_gaps_and_culprits_are_those_of_the_run() {
        let successes =
            [success(100, 0), success(200, 1), success(1_500, 0), success(3_100, 1), success(3_900, 0)];
        let marks =
            [mark(Kind::Kill, 150, 1_000), mark(Kind::Pause, 1_600, 3_000), mark(Kind::Stop, 3_950, 3_960)];
        let found = Availability::of(&successes, &marks, 2, ms(4_000));
        assert_eq!(found.per_second, [2, 1, 0, 2]);
        assert_eq!((found.of_all.from, found.of_all.lasted), (ms(1_500), ms(1_600)));
        assert_eq!(found.of_all.after.as_deref(), Some("SIGSTOP at 1.60 s"));
        assert_eq!((found.of_one.partition, found.of_one.lasted), (Some(1), ms(2_900)));
        assert_eq!(found.missing().len(), Kind::ALL.len() - 3);
        let text = found.to_string();
        assert!(text.contains("min 0, mean 1.2; 1 seconds without any (25.00 %)"), "{text}");
    }

    #[test]
    fn a_run_without_a_success_is_one_gap() {
        let found = Availability::of(&[], &[], 1, ms(2_000));
        assert_eq!((found.of_all.lasted, found.of_all.after), (ms(2_000), None));
    }
}
