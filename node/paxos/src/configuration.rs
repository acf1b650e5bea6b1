//! The members of a group.
//!
//! A configuration has at most three voters. A member's number is used once: whoever lost its disk
//! comes back under a greater one, because its old promises went with the disk.

use std::fmt;

/// Most voters of a group.
pub const MEMBERS_MAX: usize = 3;

/// A member of a group, for ever: neither another machine nor an emptied disk gets it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a member keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// The log and the tree: may lead and serve reads.
    Storage,
    /// The recent log only: votes, never leads.
    Log,
}

/// A member and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Which one.
    pub id: MemberId,
    /// What it keeps.
    pub kind: MemberKind,
}

/// The voters of a group between two swaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// Counts the swaps since the group began.
    pub version: u32,
    /// The greatest member number the group has ever used; a new member's is above it.
    pub id_max: MemberId,
    ids: [MemberId; MEMBERS_MAX],
    kinds: [MemberKind; MEMBERS_MAX],
    len: u8,
}

impl Configuration {
    /// The first configuration of a group.
    ///
    /// # Panics
    /// If there are no members, more than [`MEMBERS_MAX`], or one of them twice.
    pub fn first(members: &[Member]) -> Configuration {
        assert!((1..=MEMBERS_MAX).contains(&members.len()), "a group has one to three members");
        let mut ids = [MemberId(0); MEMBERS_MAX];
        let mut kinds = [MemberKind::Storage; MEMBERS_MAX];
        for (at, member) in members.iter().enumerate() {
            assert!(!ids[..at].contains(&member.id), "a member stands once in a configuration");
            ids[at] = member.id;
            kinds[at] = member.kind;
        }
        let id_max = members.iter().map(|member| member.id).max().expect("there is at least one");
        Configuration { version: 0, id_max, ids, kinds, len: members.len() as u8 }
    }

    /// A configuration as it was written down; nothing if there never was such a one.
    pub fn restore(version: u32, id_max: MemberId, members: &[Member]) -> Option<Configuration> {
        let ids = |upto: usize| members[..upto].iter().map(|member| member.id);
        let twice = (0..members.len()).any(|at| ids(at).any(|id| id == members[at].id));
        if members.is_empty() || members.len() > MEMBERS_MAX || twice || ids(members.len()).max()? > id_max {
            return None;
        }
        Some(Configuration { version, id_max, ..Configuration::first(members) })
    }

    /// The members, in the order they were given.
    pub fn members(&self) -> impl Iterator<Item = Member> + use<> {
        let this = *self;
        (0..usize::from(this.len)).map(move |at| Member { id: this.ids[at], kind: this.kinds[at] })
    }

    /// The members' numbers.
    pub fn ids(&self) -> &[MemberId] {
        &self.ids[..usize::from(self.len)]
    }

    /// Whether `id` is one of the voters.
    pub fn contains(&self, id: MemberId) -> bool {
        self.ids().contains(&id)
    }

    /// Whether a chosen configuration says that `id` has been a member, or was to be one, and never will be
    /// again.
    pub fn has_removed(&self, id: MemberId) -> bool {
        self.id_max >= id && !self.contains(id)
    }

    /// What a member keeps; nothing for a stranger.
    pub fn kind(&self, id: MemberId) -> Option<MemberKind> {
        self.ids().iter().position(|&member| member == id).map(|at| self.kinds[at])
    }

    /// Whether the members for which `holds` is true are a majority.
    pub fn quorum(&self, holds: impl Fn(MemberId) -> bool) -> bool {
        let count = self.ids().iter().filter(|&&id| holds(id)).count();
        count > usize::from(self.len) / 2
    }

    /// This configuration with `add` in the place of `remove`; nothing if `remove` is no member, the
    /// number of `add` is not fresh, or there would be two log replicas.
    pub fn swapped(&self, remove: MemberId, add: Member) -> Option<Configuration> {
        let at = self.ids().iter().position(|&id| id == remove)?;
        let second_log = add.kind == MemberKind::Log
            && self.members().any(|member| member.kind == MemberKind::Log && member.id != remove);
        if add.id <= self.id_max || second_log {
            return None;
        }
        let mut next = *self;
        next.version = self.version.checked_add(1)?;
        next.id_max = add.id;
        next.ids[at] = add.id;
        next.kinds[at] = add.kind;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, kind: MemberKind) -> Member {
        Member { id: MemberId(id), kind }
    }

    fn three() -> Configuration {
        Configuration::first(&[1, 2, 3].map(|id| member(id, MemberKind::Storage)))
    }

    #[test]
    fn a_swap_takes_a_fresh_number_and_leaves_three_voters() {
        let swapped = three().swapped(MemberId(3), member(4, MemberKind::Log)).unwrap();
        assert_eq!(swapped.ids(), [MemberId(1), MemberId(2), MemberId(4)]);
        assert_eq!((swapped.version, swapped.id_max), (1, MemberId(4)));
        assert_eq!(three().swapped(MemberId(9), member(4, MemberKind::Storage)), None);
        assert_eq!(swapped.swapped(MemberId(4), member(3, MemberKind::Storage)), None, "used before");
        assert_eq!(swapped.swapped(MemberId(1), member(5, MemberKind::Log)), None, "a second log replica");
        assert!(swapped.swapped(MemberId(4), member(5, MemberKind::Log)).is_some());
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for (len, needed) in [(1, 1), (2, 2), (3, 2)] {
            let members: Vec<Member> = (1..=len).map(|id| member(id, MemberKind::Storage)).collect();
            let configuration = Configuration::first(&members);
            for held in 0..=len {
                assert_eq!(configuration.quorum(|id| id.0 <= held), held >= needed, "{held} of {len}");
            }
        }
    }
}
