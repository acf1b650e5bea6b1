//! How often things happened: a test that never saw one of them proves little.

use evenkeel_storage::memory::FaultCounts;
use std::ops::AddAssign;

macro_rules! sightings {
    ($($name:ident),* $(,)?) => {
        /// What happened in a run, or in many.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Sightings {
            $(pub $name: u64,)*
            /// What the disk did.
            pub faults: FaultCounts,
        }

        impl AddAssign for Sightings {
            fn add_assign(&mut self, other: Sightings) {
                $(self.$name += other.$name;)*
                let FaultCounts {
                    power_offs, cache_sectors_lost, torn_writes, torn_sectors, lost_writes, misdirected_writes,
                    rotten_bits, read_errors, write_errors, sync_errors, no_space, reordered, slow,
                } = other.faults;
                let all = &mut self.faults;
                all.power_offs += power_offs;
                all.cache_sectors_lost += cache_sectors_lost;
                all.torn_writes += torn_writes;
                all.torn_sectors += torn_sectors;
                all.lost_writes += lost_writes;
                all.misdirected_writes += misdirected_writes;
                all.rotten_bits += rotten_bits;
                all.read_errors += read_errors;
                all.write_errors += write_errors;
                all.sync_errors += sync_errors;
                all.no_space += no_space;
                all.reordered += reordered;
                all.slow += slow;
            }
        }

        impl Sightings {
            /// What never happened.
            pub fn missing(&self) -> Vec<&'static str> {
                let faults = self.faults;
                let own = [$((stringify!($name), self.$name),)*];
                let of_disk = [
                    ("power_offs", faults.power_offs),
                    ("cache_sectors_lost", faults.cache_sectors_lost),
                    ("torn_writes", faults.torn_writes),
                    ("torn_sectors", faults.torn_sectors),
                    ("lost_writes", faults.lost_writes),
                    ("misdirected_writes", faults.misdirected_writes),
                    ("rotten_bits", faults.rotten_bits),
                    ("read_errors", faults.read_errors),
                    ("write_errors", faults.write_errors),
                    ("sync_errors", faults.sync_errors),
                    ("no_space", faults.no_space),
                    ("reordered", faults.reordered),
                    ("slow", faults.slow),
                ];
                own.into_iter().chain(of_disk).filter(|(_, count)| *count == 0).map(|(what, _)| what).collect()
            }
        }
    };
}

sightings! {
    crashes, cuts, cuts_with_whole_frames, kills, clean_stops, all_files, wraps, table_full, log_full, busy,
    too_large, above_share, lost_tail, merges, flips, evictions, damage_reported, damage_harmless, reads_refused, reported,
    stopped, splits, splits_cut, loads, loads_cut, installs, installs_continued,
    installs_cut, marks, marks_passed, runs_with_everything,
}

impl Sightings {
    /// Whether this one run went round the log, merged, flipped and evicted.
    pub fn saw_everything(&self) -> bool {
        [self.wraps, self.merges, self.flips, self.evictions].iter().all(|count| *count > 0)
    }
}
