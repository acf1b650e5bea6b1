//! The figures of all rounds, for people and for programs: a row a phase, and ratios beside their aims.

use crate::tally::Measured;
use serde::Serialize;
use std::fmt;

/// Most that a put may take at 1 in flight, as a multiple of echo and log floor together.
const PUT_TO_FLOORS_MAX: f64 = 1.6;
/// Puts a second aimed at with 64 in flight, on a disk that writes [`SCALE_FRAMES`].
const PUTS_PER_SECOND: f64 = 40_000.0;
/// Durable frames of 64 KiB a second at which the aim for puts holds; less scales it down.
const SCALE_FRAMES: f64 = 7_000.0;
/// GetItem over HTTP a second aimed at, on two processors that also make the load.
const HTTP_GETS_PER_SECOND: f64 = 20_000.0;

/// One phase over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub name: &'static str,
    /// How many at a time.
    pub in_flight: u32,
    /// Median of the rounds' medians, in microseconds.
    pub p50_us: f64,
    /// Median of the rounds' 99th percentiles, in microseconds.
    pub p99_us: f64,
    /// Median of the rounds' successes a second.
    pub per_second: f64,
    /// Successes of all rounds.
    pub successes: u64,
    /// Failures and wrong answers of all rounds.
    pub errors: u64,
    /// What else kept the machine busy, in percent of all processors; median of the rounds.
    pub others_percent: Option<f64>,
    /// What this process used of them.
    pub own_percent: Option<f64>,
}

impl Row {
    /// Sums the rounds up.
    pub fn new(name: &'static str, in_flight: u32, rounds: &[Measured]) -> Row {
        let of = |figure: fn(&Measured) -> f64| median(rounds.iter().map(figure).collect());
        let percent = |figure: fn(&crate::machine::Busy) -> f64| {
            median(rounds.iter().filter_map(|round| round.busy.as_ref()).map(figure).collect())
        };
        Row {
            name,
            in_flight,
            p50_us: of(|round| round.p50_us).unwrap_or_default(),
            p99_us: of(|round| round.p99_us).unwrap_or_default(),
            per_second: of(|round| round.per_second).unwrap_or_default(),
            successes: rounds.iter().map(|round| round.successes).sum(),
            errors: rounds.iter().map(|round| round.errors + round.wrong).sum(),
            others_percent: percent(|busy| busy.others_percent),
            own_percent: percent(|busy| busy.own_percent),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// A figure beside its aim.
#[derive(Clone, Debug, Serialize)]
pub struct Aim {
    /// What is aimed at.
    pub name: String,
    /// What was measured.
    pub measured: f64,
    /// The bound.
    pub aim: f64,
    /// Whether the bound is kept.
    pub met: bool,
}

impl Aim {
    /// The less, the better.
    pub fn at_most(name: String, measured: f64, aim: f64) -> Aim {
        Aim { name, measured, aim, met: measured <= aim }
    }

    /// The more, the better.
    pub fn at_least(name: String, measured: f64, aim: f64) -> Aim {
        Aim { name, measured, aim, met: measured >= aim }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met" } else { "missed" };
        write!(f, "{}: {}, measured {} ({verdict})", self.name, figure(self.aim), figure(self.measured))
    }
}

/// Everything a run has measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Processors that this process may use.
    pub processors: usize,
    /// How the log floor was made durable, as the disk's self-test chose.
    pub sync_strategy: String,
    /// Rounds measured.
    pub rounds: u32,
    /// Length of a phase.
    pub seconds: f64,
    /// A row a phase.
    pub rows: Vec<Row>,
    /// The aims.
    pub aims: Vec<Aim>,
}

/// The rows that aims are about, by their place among all rows.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// 4 KiB frames of the log floor.
    pub floor_small: usize,
    /// 64 KiB frames of the log floor.
    pub floor_large: usize,
    /// Echoes one at a time.
    pub echo: usize,
    /// Native puts one at a time.
    pub put: usize,
    /// Native puts, 64 in flight.
    pub puts: usize,
    /// GetItem over HTTP, 64 in flight.
    pub http_gets: usize,
}

/// Compares rows with what is aimed at.
pub fn aims(rows: &[Row], places: Places) -> Vec<Aim> {
    let floors = rows[places.echo].p50_us + rows[places.floor_small].p50_us;
    let ratio = rows[places.put].p50_us / floors;
    let frames = rows[places.floor_large].per_second;
    let scale = (frames / SCALE_FRAMES).min(1.0);
    let puts = rows[places.puts].per_second;
    let gets = rows[places.http_gets].per_second;
    vec![
        Aim::at_most(
            format!("put p50 at 1 in flight / (echo p50 + 4 KiB floor p50 = {floors:.0} us), at most"),
            ratio,
            PUT_TO_FLOORS_MAX,
        ),
        Aim::at_least(
            format!(
                "put/s at 64 in flight, at least {PUTS_PER_SECOND:.0} x {scale:.2} \
                 ({frames:.0} of {SCALE_FRAMES:.0} frames of 64 KiB a second)"
            ),
            puts,
            PUTS_PER_SECOND * scale,
        ),
        Aim::at_least("GetItem over HTTP/s at 64 in flight, at least".to_owned(), gets, HTTP_GETS_PER_SECOND),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} processors, log made durable by {}, medians of {} rounds of {} s a phase",
            self.processors, self.sync_strategy, self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "{:<26} {:>9} {:>10} {:>10} {:>11} {:>9} {:>7} {:>7} {:>7}",
            "", "in flight", "p50 us", "p99 us", "per second", "count", "errors", "own %", "rest %"
        )?;
        for row in &self.rows {
            let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.0}"));
            writeln!(
                f,
                "{:<26} {:>9} {:>10.1} {:>10.1} {:>11.0} {:>9} {:>7} {:>7} {:>7}",
                row.name,
                row.in_flight,
                row.p50_us,
                row.p99_us,
                row.per_second,
                row.successes,
                row.errors,
                percent(row.own_percent),
                percent(row.others_percent),
            )?;
        }
        writeln!(f, "own %, rest %: shares of all processors used by this process and by everything else")?;
        for aim in &self.aims {
            writeln!(f, "{aim}")?;
        }
        Ok(())
    }
}

/// Ratios with their places, rates without.
pub(crate) fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(p50_us: f64, per_second: f64) -> Row {
        Row { p50_us, per_second, ..Row::new("row", 1, &[]) }
    }

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_aim_for_puts_follows_a_slower_disk_but_not_a_faster_one() {
        let places = Places { floor_small: 0, floor_large: 1, echo: 2, put: 3, puts: 4, http_gets: 5 };
        for (frames, aim) in [(3_500.0, 20_000.0), (7_000.0, 40_000.0), (70_000.0, 40_000.0)] {
            let rows = [
                row(100.0, 0.0),
                row(0.0, frames),
                row(50.0, 0.0),
                row(240.0, 0.0),
                row(0.0, 20_000.0),
                row(0.0, 19_999.0),
            ];
            let aims = aims(&rows, places);
            assert_eq!((aims[0].measured, aims[0].met), (1.6, true));
            assert_eq!((aims[1].aim, aims[1].met), (aim, frames == 3_500.0));
            assert!(!aims[2].met);
        }
    }
}
