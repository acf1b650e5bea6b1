//! Which faults a seed has. Each kind is in about half of the seeds only (swarm testing, Groce and others,
//! ISSTA 2012): with all of them at once most of what makes a fault interesting is hidden by another.

use evenkeel_storage::memory::Random;

/// Most parts in a million that a clock runs fast or slow.
pub const DRIFT_PPM_MAX: i32 = 4_000;

/// The faults of a seed. Rates are in a million; 0 is off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swarm {
    /// Messages lost.
    pub drop: u64,
    /// Messages that arrive twice.
    pub duplicate: u64,
    /// Messages that take up to [`delay_ns_max`](Self::delay_ns_max).
    pub delay: u64,
    /// How long a delayed message takes at most.
    pub delay_ns_max: u64,
    /// Links that carry nothing, in one direction.
    pub cuts: bool,
    /// Nodes that nobody reaches.
    pub isolation: bool,
    /// Power cuts, besides killed processes.
    pub power_cuts: bool,
    /// Several nodes that crash at once.
    pub mass_crashes: bool,
    /// Cores that do nothing for a while.
    pub stalls: bool,
    /// Disks a hundred times slower.
    pub slow_disks: bool,
    /// Disks that complete nothing for a while.
    pub stuck_disks: bool,
    /// Disks on which no file can be made.
    pub full_disks: bool,
    /// Bits that change on a disk.
    pub rot: bool,
    /// Writes that are reported as done and are not.
    pub lost_writes: bool,
    /// Writes that go elsewhere on the disk.
    pub misdirected_writes: bool,
    /// Appends to a log that fail.
    pub failed_appends: bool,
    /// Nodes that are replaced, and their disks gone.
    pub emptied_disks: bool,
    /// Most parts in a million that clocks are fast or slow.
    pub drift_ppm: i32,
    /// Wall clocks that are set.
    pub wall_jumps: bool,
    /// Answers that half of the clients never get, and everybody crashing meanwhile.
    pub mutes: bool,
    /// Leaders that are asked to hand over.
    pub transfers: bool,
    /// Members that are replaced.
    pub swaps: bool,
    /// How long it takes on average until the next fault.
    pub fault_pause_ns: u64,
}

impl Swarm {
    /// No faults at all.
    pub fn calm() -> Swarm {
        Swarm {
            drop: 0,
            duplicate: 0,
            delay: 0,
            delay_ns_max: 0,
            cuts: false,
            isolation: false,
            power_cuts: false,
            mass_crashes: false,
            stalls: false,
            slow_disks: false,
            stuck_disks: false,
            full_disks: false,
            rot: false,
            lost_writes: false,
            misdirected_writes: false,
            failed_appends: false,
            emptied_disks: false,
            drift_ppm: 0,
            wall_jumps: false,
            mutes: false,
            transfers: false,
            swaps: false,
            fault_pause_ns: 1_000_000_000,
        }
    }

    /// The faults that `random` draws. Crashes are in every seed.
    pub fn draw(random: &mut Random) -> Swarm {
        let mut rate = |most: u64| if random.once_in(2) { 1 + random.below(most) } else { 0 };
        let (drop, duplicate, delay) = (rate(50_000), rate(50_000), rate(100_000));
        let mut half = || random.once_in(2);
        // That a swap is chosen may be known to its leader only: a disk that goes then takes a second one of the
        // members before the swap. So disks are harmed where members are swapped for no other reason.
        let swaps = half();
        let mut harmed = || half() && !swaps;
        let (rot, lost_writes) = (harmed(), harmed());
        let (misdirected_writes, emptied_disks) = (harmed(), harmed());
        let mut swarm = Swarm {
            drop,
            duplicate,
            delay,
            cuts: half(),
            isolation: half(),
            power_cuts: half(),
            mass_crashes: half(),
            stalls: half(),
            slow_disks: half(),
            stuck_disks: half(),
            full_disks: half(),
            rot,
            lost_writes,
            misdirected_writes,
            emptied_disks,
            failed_appends: half(),
            wall_jumps: half(),
            mutes: half(),
            transfers: half(),
            swaps,
            drift_ppm: if half() { DRIFT_PPM_MAX } else { 0 },
            ..Swarm::calm()
        };
        swarm.delay_ns_max = 1_000_000 << random.below(10);
        swarm.fault_pause_ns = 100_000_000 << random.below(4);
        swarm
    }
}
