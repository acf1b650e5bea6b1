//! The rules, shown to fail: a lawful graph, one change, the violation it must cause.

use super::*;
use crate::layers::graph::{Edge, Package};
use crate::layers::rules::RULES;

/// A workspace of every crate of the table with lawful dependencies, each mandated crate in use.
fn lawful() -> Graph {
    let mut graph = Graph::default();
    for known in RULES.crates {
        add_member(&mut graph, known.directory, known.package);
    }
    for (from, to) in [
        ("evenkeel-wire", "evenkeel-model"),
        ("evenkeel-paxos", "evenkeel-model"),
        ("evenkeel-storage", "evenkeel-model"),
        ("evenkeel-storage", "xxhash-rust"),
        ("evenkeel-partition", "evenkeel-storage"),
        ("evenkeel-partition", "evenkeel-paxos"),
        ("evenkeel-driver", "evenkeel-storage"),
        ("evenkeel-driver", "glommio"),
        ("evenkeel-driver", "io-uring"),
        ("evenkeel-quic", "evenkeel-driver"),
        ("evenkeel-quic", "quinn-proto"),
        ("evenkeel-node", "evenkeel-quic"),
        ("evenkeel-node", "evenkeel-partition"),
        ("evenkeel-node", "metrics"),
        ("evenkeel-wire", "rkyv"),
        ("evenkeel-caller", "evenkeel-wire"),
        ("evenkeel-client", "evenkeel-caller"),
        ("evenkeel-client", "quinn"),
        ("quinn", "quinn-proto"),
        ("evenkeel-router", "evenkeel-client"),
        ("evenkeel-bench", "evenkeel-router"),
        ("evenkeel-bench", "evenkeel-node"),
        ("evenkeel", "evenkeel-bench"),
        ("evenkeel-sim", "evenkeel-partition"),
    ] {
        depend(&mut graph, from, to, Kind::Normal);
    }
    graph
}

fn add_member(graph: &mut Graph, directory: &str, package: &str) {
    let names = RULES.mandated.iter().map(|name| name.to_string()).collect();
    graph.members.push(Member { key: package.to_owned(), directory: directory.to_owned(), names });
    let package_node = Package { name: package.to_owned(), third_party: false, edges: Vec::new() };
    graph.packages.insert(package.to_owned(), package_node);
}

/// Adds an edge; a package not known yet is a third-party one. Keys are names here.
fn depend(graph: &mut Graph, from: &str, to: &str, kind: Kind) {
    for name in [from, to] {
        let package = Package { name: name.to_owned(), third_party: true, edges: Vec::new() };
        graph.packages.entry(name.to_owned()).or_insert(package);
    }
    let edge = Edge { to: to.to_owned(), kind };
    graph.packages.get_mut(from).unwrap().edges.push(edge);
}

fn cut(graph: &mut Graph, from: &str, to: &str) {
    graph.packages.get_mut(from).unwrap().edges.retain(|edge| edge.to != to);
}

/// Applies one change to the lawful graph and returns what the check then says.
fn said_after(change: impl FnOnce(&mut Graph)) -> Vec<String> {
    let mut graph = lawful();
    change(&mut graph);
    check(&graph, &RULES).iter().map(Violation::to_string).collect()
}

#[track_caller]
fn assert_one(said: &[String], parts: &[&str]) {
    let matching = said.iter().filter(|text| parts.iter().all(|part| text.contains(part)));
    assert_eq!(matching.count(), 1, "expected one violation with {parts:?} in {said:#?}");
}

#[test]
fn the_lawful_graph_has_no_violation() {
    assert_eq!(said_after(|_| {}), Vec::<String>::new());
}

#[test]
fn an_upward_dependency_between_folders_is_refused_of_either_kind() {
    for kind in [Kind::Normal, Kind::Test] {
        let said = said_after(|graph| depend(graph, "evenkeel-partition", "evenkeel-caller", kind));
        assert_one(&said, &["evenkeel-partition → evenkeel-caller", "folder router lies above node"]);
    }
}

#[test]
fn an_upward_dependency_inside_a_folder_is_refused_of_either_kind() {
    for kind in [Kind::Normal, Kind::Test] {
        let said = said_after(|graph| depend(graph, "evenkeel-wire", "evenkeel-partition", kind));
        assert_one(&said, &["evenkeel-wire → evenkeel-partition", "L1 to L2"]);
    }
}

#[test]
fn a_sideways_dependency_is_refused_unless_listed_or_for_tests() {
    let said = said_after(|graph| depend(graph, "evenkeel-quic", "evenkeel-partition", Kind::Normal));
    assert_one(&said, &["evenkeel-quic → evenkeel-partition", "L2 to L2"]);
    let said = said_after(|graph| depend(graph, "evenkeel-quic", "evenkeel-partition", Kind::Test));
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn a_crate_may_depend_on_itself_in_tests() {
    let said = said_after(|graph| depend(graph, "evenkeel-storage", "evenkeel-storage", Kind::Test));
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn a_forbidden_crate_is_refused_however_indirectly_it_is_reached() {
    for (from, forbidden) in [
        ("evenkeel-paxos", "evenkeel-storage"),
        ("evenkeel-storage", "glommio"),
        ("evenkeel-storage", "quinn"),
        ("evenkeel-storage", "evenkeel-wire"),
        ("evenkeel-storage", "evenkeel-paxos"),
        ("evenkeel-dynamodb", "tokio"),
        ("evenkeel-dynamodb", "hyper"),
        ("evenkeel-dynamodb", "quinn"),
        ("evenkeel-client", "hyper"),
        ("evenkeel-client", "glommio"),
        ("evenkeel-client", "io-uring"),
        ("evenkeel-sim", "evenkeel-driver"),
        ("evenkeel-sim", "evenkeel-node"),
    ] {
        let said = said_after(|graph| {
            depend(graph, from, "innocent", Kind::Normal);
            depend(graph, "innocent", "helper", Kind::Normal);
            depend(graph, "helper", forbidden, Kind::Normal);
        });
        let expected = format!("{from} → innocent → helper → {forbidden} must not be reached");
        assert!(said.iter().any(|text| text.starts_with(&expected)), "{expected}: {said:#?}");
    }
}

#[test]
fn what_only_tests_reach_is_refused_where_the_rule_says_so() {
    let dynamodb = said_after(|graph| depend(graph, "evenkeel-dynamodb", "tokio", Kind::Test));
    assert_eq!(dynamodb, Vec::<String>::new());
    let sim = said_after(|graph| depend(graph, "evenkeel-sim", "evenkeel-quic", Kind::Test));
    assert_one(&sim, &["evenkeel-sim → evenkeel-quic must not be reached"]);
}

#[test]
fn a_reserved_crate_is_refused_elsewhere() {
    for (from, package) in [("evenkeel-quic", "io-uring"), ("evenkeel-bench", "glommio")] {
        let said = said_after(|graph| depend(graph, from, package, Kind::Test));
        assert_one(&said, &[from, package, "reserved"]);
    }
}

#[test]
fn a_misnamed_crate_is_refused() {
    let said = said_after(|graph| graph.packages.get_mut("evenkeel-quic").unwrap().name = "ek-quic".into());
    assert_one(&said, &["node/quic is named ek-quic, expected evenkeel-quic"]);
}

#[test]
fn a_crate_outside_the_table_is_refused() {
    for directory in ["node/storage/wal", "shared", "node/cache"] {
        let said = said_after(|graph| add_member(graph, directory, "evenkeel-cache"));
        assert_one(&said, &[directory, "is in no layer"]);
    }
}

#[test]
fn members_out_of_layer_order_are_refused() {
    let said = said_after(|graph| graph.members.swap(4, 5));
    assert_one(&said, &["out of layer order: node/storage stands after node/partition"]);
}

#[test]
fn a_directory_that_is_no_member_is_refused() {
    let said = said_after(|graph| graph.unlisted.push("node/forgotten".to_owned()));
    assert_one(&said, &["node/forgotten", "no member"]);
}

#[test]
fn a_mandated_crate_must_be_depended_on_directly() {
    let said = said_after(|graph| cut(graph, "evenkeel-quic", "quinn-proto"));
    assert_one(&said, &["quinn-proto is mandated but no member"]);
}

#[test]
fn a_mandated_crate_must_be_named_by_the_code_of_a_member_that_declares_it() {
    let said = said_after(|graph| {
        let driver = graph.members.iter_mut().find(|member| member.key == "evenkeel-driver").unwrap();
        driver.names.remove("io-uring");
    });
    assert_one(&said, &["io-uring is mandated and declared by evenkeel-driver, but no code"]);
}

#[test]
fn too_many_third_party_crates_are_refused() {
    let fill = |graph: &mut Graph, total: usize| {
        let more = total - third_party_crates(graph, "evenkeel");
        for number in 0..more {
            depend(graph, "evenkeel-bench", &format!("crate-{number}"), Kind::Normal);
            depend(graph, "evenkeel-bench", &format!("only-for-tests-{number}"), Kind::Test);
        }
    };
    assert_eq!(said_after(|graph| fill(graph, 250)), Vec::<String>::new());
    assert_one(&said_after(|graph| fill(graph, 251)), &["evenkeel pulls in 251", "limit 250"]);
}
