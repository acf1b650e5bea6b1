//! deny.toml's rules, shown to fail: a lawful set of dependencies, one change, one violation.

use super::*;

const POLICY: &str = r#"
[licenses]
allow = ["MIT"]
exceptions = [{ crate = "bitmaps", allow = ["MPL-2.0"] }]
[bans]
multiple-versions = "warn"
deny = [{ crate = "openssl-sys", reason = "one TLS implementation is enough" }]
[sources]
unknown-registry = "deny"
unknown-git = "deny"
# reason: bytes — buffers
# reason: rkyv — formats
"#;

fn package(name: &str, license: &str) -> Resolved {
    Resolved {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        license: Some(license.to_owned()),
        member: false,
        source: Some("registry+somewhere".to_owned()),
        from_crates_io: true,
    }
}

fn lawful() -> Dependencies {
    let member = Resolved { member: true, source: None, from_crates_io: false, ..package("own", "MIT") };
    let packages =
        vec![member, package("bytes", "MIT"), package("rkyv", "MIT"), package("bitmaps", "MPL-2.0+")];
    let direct: BTreeSet<String> = ["bytes", "rkyv"].map(str::to_owned).into();
    Dependencies { packages, offered: direct.clone(), direct }
}

fn said_after(change: impl FnOnce(&mut Dependencies)) -> Vec<String> {
    let mut dependencies = lawful();
    change(&mut dependencies);
    let policy = toml::from_str(POLICY).unwrap();
    let violations = check(&dependencies, &policy, &reasons(POLICY));
    violations.iter().map(Violation::to_string).collect()
}

#[test]
fn lawful_dependencies_have_no_violation() {
    assert_eq!(said_after(|_| {}), Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_told() {
    type Change = fn(&mut Dependencies);
    let cases: [(Change, &str); 11] = [
        (|d| d.packages.push(package("a", "GPL-3.0")), "a 1.0.0: licence `GPL-3.0` is not allowed"),
        (|d| d.packages.push(package("a", "MPL-2.0")), "a 1.0.0: licence `MPL-2.0` is not allowed"),
        (|d| d.packages.push(package("a", "MIT OR")), "a 1.0.0: licence `MIT OR` cannot be read"),
        (|d| d.packages[1].license = None, "bytes 1.0.0: states no licence"),
        (|d| d.packages.truncate(3), "bitmaps: the licence exception for it is not needed"),
        (|d| d.packages.push(package("openssl-sys", "MIT")), "openssl-sys is banned: one TLS"),
        (|d| d.packages[1].from_crates_io = false, "bytes comes from registry+somewhere"),
        (
            |d| {
                d.packages[1].source = None;
                d.packages[1].from_crates_io = false;
            },
            "bytes comes from a path outside the workspace",
        ),
        (
            |d| {
                d.direct.insert("serde".to_owned());
            },
            "serde is a direct dependency without a `# reason:` line",
        ),
        (
            |d| {
                d.direct.remove("rkyv");
                d.offered.remove("rkyv");
            },
            "deny.toml gives a reason for rkyv, which is no direct",
        ),
        (
            |d| {
                d.offered.insert("flate2".to_owned());
            },
            "flate2 stands in [workspace.dependencies] and no member uses it",
        ),
    ];
    for (change, expected) in cases {
        let said = said_after(change);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{expected}: {said:#?}");
    }
}

#[test]
fn a_reason_needs_a_text() {
    let text = "# reason: a — because\n# reason: b —\n# reason: c\n#reason: d — no\n  # reason: e-f — yes";
    assert_eq!(reasons(text).into_keys().collect::<Vec<_>>(), ["a", "e-f"]);
}

#[test]
fn several_versions_of_one_crate_are_listed() {
    let mut dependencies = lawful();
    dependencies.packages.push(Resolved { version: "2.0.0".to_owned(), ..package("bytes", "MIT") });
    assert_eq!(duplicates(&dependencies), BTreeMap::from([("bytes", vec!["1.0.0", "2.0.0"])]));
}
