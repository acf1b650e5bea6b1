//! Time, limits, and what a group asks its surroundings.

use crate::configuration::MemberId;
use crate::entry::{Anchor, EntryKind};

/// Nanoseconds of a clock that never stops, not even while the machine is paused (CLOCK_BOOTTIME).
/// Clocks of two machines are never compared, only how fast they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// This long after.
    pub fn after(self, span_ns: u64) -> Time {
        Time(self.0.saturating_add(span_ns))
    }
}

/// Rounds above this are refused: with one election a nanosecond they are 292 years away, so a greater
/// one is damage, and taking it would end all elections.
pub const ROUND_MAX: u64 = u64::MAX / 2;

/// What all groups of a core share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long a member that has lost its leader waits before it does something about it, at least.
    pub election_wait_ns: u64,
    /// How long the answers to a probe are waited for, and a candidate waits before it starts over.
    pub election_round_ns: u64,
    /// After how long unanswered entries are sent again.
    pub resend_ns: u64,
    /// After how long without a quorum's support a leader steps down.
    pub quorum_wait_ns: u64,
    /// How often others may say that they reach the leader before a member stands for election all the
    /// same.
    pub blocked_probes_max: u8,
    /// Most entries that are proposed and not chosen.
    pub entries_in_flight_max: usize,
    /// Most entries in one message.
    pub entries_per_message_max: usize,
    /// The mistake that is switched on.
    #[cfg(feature = "traps")]
    pub trap: Option<Trap>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            election_wait_ns: 100_000_000,
            election_round_ns: 200_000_000,
            resend_ns: 300_000_000,
            quorum_wait_ns: 1_000_000_000,
            blocked_probes_max: 10,
            entries_in_flight_max: 4096,
            entries_per_message_max: 256,
            #[cfg(feature = "traps")]
            trap: None,
        }
    }
}

/// Support between two cores, as one side knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Which uninterrupted stretch of support this is; a lapse begins a new one. 0 is none.
    pub epoch: u64,
    /// Until when, on this side's clock.
    pub until: Time,
}

impl Grant {
    /// Whether it holds at `now`.
    pub fn live(&self, now: Time) -> bool {
        self.epoch != 0 && now < self.until
    }
}

/// What a group asks its surroundings while it takes a step. All answers are of the present moment.
pub trait Facts {
    /// The settings of this core.
    fn settings(&self) -> &Settings;

    /// The support that the core of `member` gives this core, counted from when it was asked for.
    fn received(&self, member: MemberId) -> Grant;

    /// The support that this core gives the core of `member`, counted from when the wish arrived.
    fn given(&self, member: MemberId) -> Grant;

    /// The checksum of an entry without payload that follows `previous`.
    fn seal(&self, previous: Anchor, kind: &EntryKind) -> u128;

    /// Whether a mistake is switched on.
    #[cfg(feature = "traps")]
    fn trap(&self, trap: Trap) -> bool {
        self.settings().trap == Some(trap)
    }
}

/// Whether a mistake is switched on; never, and at no cost, without the feature `traps`.
macro_rules! trap {
    ($facts:expr, $name:ident) => {{
        #[cfg(feature = "traps")]
        {
            $facts.trap($crate::settings::Trap::$name)
        }
        #[cfg(not(feature = "traps"))]
        {
            let _ = &$facts;
            false
        }
    }};
}
pub(crate) use trap;

/// Mistakes that have been made in systems like this one. The model search must find each.
#[cfg(feature = "traps")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trap {
    /// A promise leaves before its record is durable.
    PromiseBeforeDurable,
    /// An acknowledgement leaves before the entries are durable.
    AcceptedBeforeDurable,
    /// A candidate asks for promises before its own is durable, and may use the ballot twice.
    PrepareBeforeDurable,
    /// The leader counts its own vote on submission.
    OwnVoteOnSubmission,
    /// The promise is stored apart from the log and comes back older.
    PromiseComesBackOlder,
    /// A suffix is chosen by length before ballot.
    SuffixByLength,
    /// Reads are served before the new leader's no-op is chosen.
    ReadBeforeNoop,
    /// An acknowledgement of an old ballot counts for the present one.
    OldAcceptedCounts,
    /// An append does not check the entry before it.
    NoPreviousCheck,
    /// A second swap is proposed while one is not chosen.
    TwoSwaps,
    /// Writes are proposed past a swap that is not chosen.
    ProposePastSwap,
    /// A swap needs only a quorum of the old members.
    SwapByOldQuorum,
    /// A swap needs only a quorum of the new members.
    SwapByNewQuorum,
    /// A candidate that finds a newer configuration does not win phase 1 in it.
    NewerConfigurationIgnored,
    /// A member comes back under its old number with an empty disk.
    IdentityReused,
    /// A log replica counts as a voter before it holds the tail.
    LogReplicaVotesEarly,
    /// A log replica leads, and serves reads.
    LogReplicaLeads,
    /// The holder counts a lease from when the grant arrives.
    LeaseFromArrival,
    /// The granter counts its support from when it was asked for, on the asker's word.
    SupportFromSending,
    /// Support that lapsed is taken up again as if it never had.
    LapseForgotten,
    /// The clock stops while the machine is paused.
    ClockStopsInPause,
    /// A leader that has handed over goes on serving reads.
    LeaseOutlivesTransfer,
    /// A core renews its support while its log is stuck.
    StuckDiskRenews,
    /// A restarted core votes at once, although it may have supported somebody.
    VoteWithoutWait,
    /// A probe that is answered "I reach it" blocks elections for ever.
    ProbeBlocksForEver,
    /// A follower takes everything it has accepted below the commit index for chosen.
    CommitBeyondVerified,
    /// What does not chain to an installed snapshot is kept behind it.
    TailKeptOverInstall,
    /// The commit index goes backwards.
    CommitGoesBack,
    /// Any round is believed, and the next ballot overflows.
    RoundUnbounded,
    /// Time is believed when it goes backwards.
    TimeGoesBack,
    /// A member's support counts although it never acknowledged the ballot.
    SupportWithoutBinding,
    /// A bound member answers another candidate's prepare.
    BoundMemberPromises,
    /// A relinquish of an older ballot sets a member free.
    AnyRelinquishUnbinds,
    /// An entry that is accepted again gets a new identity.
    IdentityFromBallot,
}
