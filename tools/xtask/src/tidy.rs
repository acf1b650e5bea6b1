//! `cargo xtask tidy`: what no compiler checks about the text of the repository.
//!
//! Module docs, file and function lengths without tests, markers of unfinished work, paths and
//! hosts of somebody's machine. Lengths past the soft limits are listed for the reader; only those
//! past the hard limits fail.

use std::ops::Range;

use crate::failure::Failure;
use crate::source;
use crate::workspace::Workspace;

/// Lines without tests past which a file, or a function, is listed, and past which it fails.
struct Limit {
    soft_lines: usize,
    hard_lines: usize,
}

const FILE: Limit = Limit { soft_lines: 500, hard_lines: 800 };
const FUNCTION: Limit = Limit { soft_lines: 70, hard_lines: 120 };

/// Words that mark unfinished work. Split, so that this file does not contain them.
const MARKERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Code that must not be committed, in masked source.
const LEFTOVERS: [&str; 2] = ["#[ignore", concat!("dbg", "!(")];

/// Beginnings of paths that exist only on somebody's machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

/// Package registries; builds take them from the clients' own configuration.
const REGISTRY_HOSTS: [&str; 7] = [
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
    concat!("proxy.golang", ".org"),
];

/// Something worth a look, or wrong.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: What,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum What {
    #[error("the file does not begin with a `//!` module doc")]
    NoModuleDoc,
    #[error("{lines} lines without tests, {} {limit}", if *.fails { "hard limit" } else { "limit" })]
    LongFile { lines: usize, limit: usize, fails: bool },
    #[error("fn {name} has {lines} lines, {} {limit}", if *.fails { "hard limit" } else { "limit" })]
    LongFunction { name: String, lines: usize, limit: usize, fails: bool },
    #[error("`{0}` left in the text: finish it or file it")]
    Marker(&'static str),
    #[error("`{0}` left in the code")]
    Leftover(&'static str),
    #[error("`{0}…` is a path of somebody's machine")]
    MachinePath(&'static str),
    #[error("`{0}` is a package registry: leave it to the client's configuration")]
    RegistryHost(&'static str),
}

impl Finding {
    fn fails(&self) -> bool {
        !matches!(self.what, What::LongFile { fails: false, .. } | What::LongFunction { fails: false, .. })
    }
}

/// Prints each finding; fails when one of them is more than long.
pub fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut violations = 0;
    let (mut rust_files, mut rust_lines) = (0, 0);
    for path in workspace.files()? {
        let bytes = std::fs::read(workspace.root.join(&path)).map_err(Failure::file(&path))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if path.ends_with(".rs") {
            rust_files += 1;
            rust_lines += text.lines().count();
        }
        for finding in examine(&path, &text) {
            let note = if finding.fails() { "" } else { "note: " };
            println!("tidy: {note}{}:{}: {}", finding.path, finding.line, finding.what);
            violations += usize::from(finding.fails());
        }
    }
    println!("tidy: {rust_files} Rust files, {rust_lines} lines");
    match violations {
        0 => Ok(()),
        count => Err(Failure::Violations { check: "tidy", count }),
    }
}

/// Every finding in one file. Cargo.lock is cargo's text, not ours.
fn examine(path: &str, text: &str) -> Vec<Finding> {
    if path == "Cargo.lock" {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut add = |line: usize, what: What| found.push(Finding { path: path.to_owned(), line, what });
    for marker in MARKERS {
        for offset in source::word_offsets(text, marker) {
            add(source::line_of(text, offset), What::Marker(marker));
        }
    }
    for prefix in MACHINE_PATHS {
        for (offset, _) in text.match_indices(prefix).filter(|(offset, _)| begins_path(text, *offset)) {
            add(source::line_of(text, offset), What::MachinePath(prefix));
        }
    }
    for host in REGISTRY_HOSTS {
        for (offset, _) in text.match_indices(host) {
            add(source::line_of(text, offset), What::RegistryHost(host));
        }
    }
    if path.ends_with(".rs") {
        if !text.starts_with("//!") {
            add(1, What::NoModuleDoc);
        }
        let masked = source::mask(text);
        for leftover in LEFTOVERS {
            for (offset, _) in masked.match_indices(leftover) {
                add(source::line_of(&masked, offset), What::Leftover(leftover));
            }
        }
        if !is_test_file(path) {
            lengths(&masked, &mut add);
        }
    }
    found
}

/// Whether the path at `offset` is absolute, and not the middle of a relative one or of a URL.
fn begins_path(text: &str, offset: usize) -> bool {
    let before = text[..offset].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || "._-~*}>)".contains(c))
}

/// Files that hold only tests are measured by nobody.
fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
}

fn lengths(masked: &str, add: &mut impl FnMut(usize, What)) {
    let tests = source::test_lines(masked);
    let in_tests = |line: usize| tests.iter().any(|range: &Range<usize>| range.contains(&line));
    let lines = (1..=masked.lines().count()).filter(|line| !in_tests(*line)).count();
    if lines > FILE.soft_lines {
        let fails = lines > FILE.hard_lines;
        add(1, What::LongFile { lines, limit: FILE.of(fails), fails });
    }
    for function in source::functions(masked).into_iter().filter(|function| !in_tests(function.line)) {
        let source::Function { name, line, lines } = function;
        if lines > FUNCTION.soft_lines {
            let fails = lines > FUNCTION.hard_lines;
            add(line, What::LongFunction { name, lines, limit: FUNCTION.of(fails), fails });
        }
    }
}

impl Limit {
    fn of(&self, fails: bool) -> usize {
        if fails { self.hard_lines } else { self.soft_lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, text: &str) -> Vec<String> {
        examine(path, text).iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn a_rust_file_begins_with_its_module_doc() {
        assert_eq!(said("a/src/b.rs", "//! Why.\n"), Vec::<String>::new());
        for text in ["", "fn a() {}\n", "// Why.\n", "\n//! Late.\n"] {
            assert_eq!(
                said("tests/b.rs", text),
                ["1: the file does not begin with a `//!` module doc"],
                "{text:?}"
            );
        }
        assert_eq!(said("a.toml", ""), Vec::<String>::new());
    }

    #[test]
    fn markers_of_unfinished_work_are_found_in_any_file_as_whole_words() {
        for marker in MARKERS {
            let expected = format!("2: `{marker}` left in the text: finish it or file it");
            assert_eq!(said("docs/a.md", &format!("a\n{marker}: later\n")), [expected]);
            assert_eq!(said("run.sh", &format!("{marker}S {marker}XX a{marker}\n")), Vec::<String>::new());
        }
    }

    #[test]
    fn ignored_tests_and_debug_prints_are_found_in_code_only() {
        for leftover in ["#[ignore]", "#[ignore = \"slow\"]", "dbg!(a);"] {
            let code = format!("//! Why.\nfn a() {{ {leftover} }}\n");
            let found = said("a/src/b.rs", &code);
            assert!(found.len() == 1 && found[0].contains("left in the code"), "{found:?}");
            let comment = format!("//! Why.\n// {leftover}\n");
            assert_eq!(said("a/src/b.rs", &comment), Vec::<String>::new());
        }
    }

    #[test]
    fn paths_of_a_machine_and_registry_hosts_are_found() {
        for prefix in MACHINE_PATHS {
            assert_eq!(said("a.toml", &format!("path = \"{prefix}me/x\"\n")).len(), 1, "{prefix}");
            assert_eq!(
                said("a.md", &format!("see docs{prefix}x and ${{dir}}{prefix}x\n")).len(),
                0,
                "{prefix}"
            );
        }
        for host in REGISTRY_HOSTS {
            assert_eq!(said("run.sh", &format!("pip install -i https://{host}/simple\n")).len(), 1, "{host}");
            assert_eq!(said("Cargo.lock", host).len(), 0);
        }
    }

    #[test]
    fn long_files_and_functions_are_listed_and_fail_only_past_the_hard_limit() {
        let file = |lines: usize| format!("//! Why.\n{}", "use a;\n".repeat(lines - 1));
        assert_eq!(said("a.rs", &file(500)), Vec::<String>::new());
        assert_eq!(said("a.rs", &file(501)), ["1: 501 lines without tests, limit 500"]);
        assert_eq!(said("a.rs", &file(801)), ["1: 801 lines without tests, hard limit 800"]);
        assert!(!examine("a.rs", &file(800))[0].fails());
        assert!(examine("a.rs", &file(801))[0].fails());
        let function = |lines: usize| format!("//! Why.\nfn f() {{\n{}}}\n", "a();\n".repeat(lines - 2));
        assert_eq!(said("a.rs", &function(70)), Vec::<String>::new());
        assert_eq!(said("a.rs", &function(71)), ["2: fn f has 71 lines, limit 70"]);
        assert_eq!(said("a.rs", &function(121)), ["2: fn f has 121 lines, hard limit 120"]);
    }

    #[test]
    fn tests_are_not_measured() {
        let body = "a();\n".repeat(900);
        let inline = format!("//! Why.\n#[cfg(test)]\nmod tests {{\nfn f() {{\n{body}}}\n}}\n");
        assert_eq!(said("a/src/b.rs", &inline), Vec::<String>::new());
        let whole = format!("//! Why.\nfn f() {{\n{body}}}\n");
        for path in ["a/src/b/tests.rs", "a/tests/b.rs", "tests/cluster/src/lib.rs", "a/src/b_tests.rs"] {
            assert_eq!(said(path, &whole), Vec::<String>::new(), "{path}");
        }
        assert_eq!(said("a/src/b.rs", &whole).len(), 2);
    }
}
