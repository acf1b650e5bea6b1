//! How busy the machine was with others while something was measured.
//!
//! Read from the kernel's counters of processor time, of the machine and of this process, which have
//! the same unit of about 10 ms. What another virtual machine took (steal) counts as busy with others.

use serde::{Deserialize, Serialize};
use std::fs;

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    machine_busy: u64,
    machine_all: u64,
    own: u64,
}

/// Shares of the machine's processor time between two moments, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// What this process used.
    pub own_percent: f64,
    /// What everything else used.
    pub others_percent: f64,
}

/// The counters now; nothing if the kernel does not show them.
pub fn now() -> Option<Moment> {
    let (machine_busy, machine_all) = machine(&fs::read_to_string("/proc/stat").ok()?)?;
    let own = process_ticks(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(Moment { machine_busy, machine_all, own })
}

impl Moment {
    /// What happened since then; nothing if no time was counted.
    pub fn until_now(self) -> Option<Busy> {
        now().and_then(|end| self.until(end))
    }

    fn until(self, end: Moment) -> Option<Busy> {
        let all = end.machine_all.checked_sub(self.machine_all).filter(|all| *all > 0)?;
        let own = end.own.saturating_sub(self.own);
        let others = end.machine_busy.saturating_sub(self.machine_busy).saturating_sub(own);
        let percent = |ticks: u64| (100.0 * ticks as f64 / all as f64).min(100.0);
        Some(Busy { own_percent: percent(own), others_percent: percent(others) })
    }
}

/// Busy and all ticks of the line that sums up all processors.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest time behind them is part of user time.
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

/// Ticks in user and kernel mode of a process with all its threads, whose `stat` this is.
pub fn process_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(field(11)? + field(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_taken_from_the_machines_busy_time() {
        let stat = "cpu  100 0 50 800 50 0 10 5 70 0\ncpu0 1 2 3\n";
        assert_eq!(machine(stat), Some((165, 1015)));
        let own = "77 (a ) name) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14 15";
        assert_eq!(process_ticks(own), Some(42));
        let start = Moment { machine_busy: 100, machine_all: 1000, own: 10 };
        let end = Moment { machine_busy: 180, machine_all: 1200, own: 50 };
        assert_eq!(start.until(end), Some(Busy { own_percent: 20.0, others_percent: 20.0 }));
        assert_eq!(start.until(start), None);
    }

    #[test]
    fn this_kernel_shows_its_counters() {
        assert!(now().is_some());
    }
}
