//! The dependency rules as data. ARCHITECTURE.md says them in words; this is where they are held.

/// Everything `check` needs to know besides the graph.
pub struct Rules {
    /// Top-level folders, lowest first: a crate depends on its own folder or on a lower one.
    pub folders: &'static [&'static str],
    /// Every crate, in layer order, the order of the member list.
    pub crates: &'static [Crate],
    /// Normal dependencies between crates of one level: from, to.
    pub sideways: &'static [(&'static str, &'static str)],
    pub unreachable: &'static [Unreachable],
    pub reserved: &'static [Reserved],
    /// Third-party crates that must be a direct, used dependency of some member.
    pub mandated: &'static [&'static str],
    pub budget: Budget,
}

pub struct Crate {
    pub directory: &'static str,
    pub package: &'static str,
    /// A normal dependency points to a lower level, a test dependency to no higher one.
    pub level: u8,
}

/// `from` must not reach any of `packages`, not even indirectly.
pub struct Unreachable {
    pub from: &'static str,
    pub packages: &'static [&'static str],
    /// Whether the rule also holds for what the crate's own tests depend on.
    pub in_tests_too: bool,
    pub because: &'static str,
}

/// Only `members` may name `package` as a dependency of any kind.
pub struct Reserved {
    pub package: &'static str,
    pub members: &'static [&'static str],
    pub because: &'static str,
}

/// The size limit of one package's normal dependency tree.
pub struct Budget {
    pub package: &'static str,
    pub third_party_crates_max: usize,
}

const fn level(level: u8, directory: &'static str, package: &'static str) -> Crate {
    Crate { directory, package, level }
}

pub const RULES: Rules = Rules {
    folders: &["node", "router", "bench", "tools", "tests"],
    crates: &[
        level(0, "node/model", "evenkeel-model"),
        level(1, "node/expression", "evenkeel-expression"),
        level(1, "node/wire", "evenkeel-wire"),
        level(1, "node/paxos", "evenkeel-paxos"),
        level(1, "node/storage", "evenkeel-storage"),
        level(2, "node/partition", "evenkeel-partition"),
        level(1, "node/driver", "evenkeel-driver"),
        level(2, "node/quic", "evenkeel-quic"),
        level(3, "node/server", "evenkeel-node"),
        level(1, "router/authentication", "evenkeel-authentication"),
        level(1, "router/metadata", "evenkeel-metadata"),
        level(1, "router/admission", "evenkeel-admission"),
        level(2, "router/caller", "evenkeel-caller"),
        level(1, "router/history", "evenkeel-history"),
        level(2, "router/dynamodb", "evenkeel-dynamodb"),
        level(3, "router/client", "evenkeel-client"),
        level(4, "router/server", "evenkeel-router"),
        level(5, "bench", "evenkeel-bench"),
        level(6, "tools/cli", "evenkeel"),
        level(0, "tools/xtask", "xtask"),
        level(6, "tests/sim", "evenkeel-sim"),
        level(6, "tests/cluster", "evenkeel-cluster-tests"),
    ],
    // The driver implements the trait Disk, which stands beside its only user.
    sideways: &[("evenkeel-driver", "evenkeel-storage")],
    unreachable: &[
        Unreachable {
            from: "evenkeel-paxos",
            packages: &["evenkeel-storage", "evenkeel-driver", "evenkeel-quic", "glommio", "tokio"],
            in_tests_too: true,
            because: "consensus knows nothing of disks, clocks, sockets or items",
        },
        Unreachable {
            from: "evenkeel-storage",
            packages: &["glommio", "quinn", "quinn-proto", "evenkeel-wire", "evenkeel-paxos", "tokio"],
            in_tests_too: false,
            because: "the engine knows nothing of replication, of glommio, of the network",
        },
        Unreachable {
            from: "evenkeel-partition",
            packages: &["evenkeel-driver", "evenkeel-quic", "glommio", "tokio"],
            in_tests_too: false,
            because: "a replica decides, it does no IO of its own",
        },
        Unreachable {
            from: "evenkeel-dynamodb",
            packages: &["tokio", "hyper", "quinn", "quinn-proto"],
            in_tests_too: false,
            because: "the API's translation knows no socket",
        },
        Unreachable {
            from: "evenkeel-client",
            packages: &["hyper", "glommio", "io-uring"],
            in_tests_too: false,
            because: "an application that uses the client pays for neither HTTP nor the node",
        },
        Unreachable {
            from: "evenkeel-sim",
            packages: &["evenkeel-driver", "evenkeel-quic", "evenkeel-node", "evenkeel-router", "glommio"],
            in_tests_too: true,
            because: "if the simulator needed them, something below would not be testable",
        },
    ],
    reserved: &[
        Reserved {
            package: "io-uring",
            members: &["evenkeel-driver"],
            because: "only the driver touches the kernel",
        },
        Reserved {
            package: "glommio",
            members: &["evenkeel-driver", "evenkeel-quic", "evenkeel-node"],
            because: "its surface stays small, behind the driver",
        },
    ],
    mandated: &["glommio", "io-uring", "rkyv", "xxhash-rust", "quinn", "quinn-proto", "metrics"],
    budget: Budget { package: "evenkeel", third_party_crates_max: 250 },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_named_after_its_directory_but_for_five() {
        let exceptions = ["evenkeel-node", "evenkeel-router", "evenkeel", "xtask", "evenkeel-cluster-tests"];
        for Crate { directory, package, .. } in RULES.crates {
            let last = directory.rsplit('/').next().unwrap();
            let regular = *package == format!("evenkeel-{last}");
            assert!(regular != exceptions.contains(package), "{directory} is {package}");
        }
    }

    #[test]
    fn every_rule_names_crates_of_the_table() {
        let known = |package: &str| RULES.crates.iter().any(|known| known.package == package);
        let froms = RULES.unreachable.iter().map(|rule| rule.from);
        let reserved = RULES.reserved.iter().flat_map(|rule| rule.members.iter().copied());
        let sideways = RULES.sideways.iter().flat_map(|(from, to)| [*from, *to]);
        for package in froms.chain(reserved).chain(sideways).chain([RULES.budget.package]) {
            assert!(known(package), "{package}");
        }
        let targets = RULES.unreachable.iter().flat_map(|rule| rule.packages);
        for package in targets.filter(|package| package.starts_with("evenkeel")) {
            assert!(known(package), "{package}");
        }
    }

    #[test]
    fn the_table_is_in_folder_order() {
        let folder = |directory: &str| {
            let top = directory.split('/').next().unwrap();
            RULES.folders.iter().position(|folder| *folder == top).unwrap()
        };
        assert!(RULES.crates.is_sorted_by_key(|known| folder(known.directory)));
    }
}
