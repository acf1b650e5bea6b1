//! `cargo xtask ci`: every check of a change, in the order that fails fastest.
//!
//! It stops at the first failure. A step that cannot run is a failure, never a skip. The test and
//! the demo commands are read from README.md, so what a newcomer types is what is tested.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::run::{Call, Closing, TestCounts};
use crate::workspace::Workspace;
use crate::{deny, layers, tidy};

/// Commands that README.md promises to work.
const TEST: &str = "cargo test --workspace";
const DEMO: &str = "cargo run --release -- dev --demo";

#[derive(clap::Args)]
pub struct Arguments {
    /// Write the counts of the test step, `N passed, M failed`, to this file
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
}

/// One step: its name and what it does.
type Step<'run> = (&'static str, Box<dyn FnOnce() -> Result<(), Failure> + 'run>);

/// Runs all steps.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Failure> {
    let cargo = |line: &'static str| Box::new(move || Call::new(line).run(&workspace.root));
    let document = || {
        let call = Call::new("cargo doc --workspace --no-deps");
        call.with("RUSTDOCFLAGS", "-Dwarnings").run(&workspace.root)
    };
    let demo = || readme_command(workspace, DEMO)?.run(&workspace.root);
    in_order(vec![
        ("fmt", cargo("cargo fmt --all --check")),
        ("clippy", cargo("cargo clippy --workspace --all-targets -- -D warnings")),
        ("layers", Box::new(|| layers::run(workspace))),
        ("deny", Box::new(|| deny::run(workspace))),
        ("tidy", Box::new(|| tidy::run(workspace))),
        ("test", Box::new(|| test(workspace, arguments))),
        ("doc", Box::new(document)),
        ("bench", cargo("cargo run --release -- bench quick --check")),
        ("engine", cargo("cargo run --release -- bench engine --quick --check")),
        ("demo", Box::new(demo)),
    ])
}

/// Runs steps until one fails; prints each with its time, and what was not reached.
fn in_order(steps: Vec<Step<'_>>) -> Result<(), Failure> {
    let total = steps.len();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in steps {
        println!("\n== {name} ({} of {total})", times.len() + 1);
        let started = Instant::now();
        let outcome = step();
        let elapsed = started.elapsed();
        if let Err(failure) = outcome {
            println!("== {name}: FAILED after {:.1} s; later steps were not reached", elapsed.as_secs_f64());
            return Err(failure);
        }
        println!("== {name}: ok, {:.1} s", elapsed.as_secs_f64());
        times.push((name, elapsed));
    }
    println!();
    for (name, elapsed) in &times {
        println!("{name:<8} {:>7.1} s", elapsed.as_secs_f64());
    }
    let all: Duration = times.iter().map(|(_, elapsed)| *elapsed).sum();
    println!("{:<8} {:>7.1} s", "all", all.as_secs_f64());
    Ok(())
}

fn test(workspace: &Workspace, arguments: &Arguments) -> Result<(), Failure> {
    let (counts, outcome) = readme_command(workspace, TEST)?.run_counted(&workspace.root, Closing::Cargo);
    println!("{counts}");
    outcome?;
    if counts == TestCounts::default() {
        return Err(Failure::not_run(TEST, "it ran no test"));
    }
    match &arguments.counts {
        Some(path) => std::fs::write(path, format!("{counts}\n")).map_err(Failure::file(path)),
        None => Ok(()),
    }
}

/// The call that README.md gives for `command`, which must stand there as a line of a fenced block.
fn readme_command(workspace: &Workspace, command: &str) -> Result<Call, Failure> {
    let readme = workspace.read("README.md").map_err(|failure| Failure::not_run(command, failure))?;
    let found = fenced_lines(&readme).find(|line| *line == command).map(Call::new);
    found.ok_or_else(|| Failure::not_run(command, "README.md does not give it in a fenced block"))
}

/// The lines inside fenced code blocks, without a leading prompt or a trailing comment.
fn fenced_lines(markdown: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    markdown.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with("```") {
            fenced = !fenced;
            return None;
        }
        let command = line.strip_prefix("$ ").unwrap_or(line);
        let command = command.split_once(" #").map_or(command, |(command, _)| command.trim_end());
        fenced.then_some(command)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn commands_are_read_from_fenced_blocks_only() {
        let readme =
            "cargo a\n```sh\n$ cargo b --c   # why\ncargo d\n```\ncargo e\n  ```\n  cargo f\n  ```\n";
        assert_eq!(fenced_lines(readme).collect::<Vec<_>>(), ["cargo b --c", "cargo d", "cargo f"]);
    }

    #[test]
    fn a_readme_without_the_command_is_a_step_that_cannot_run() {
        let directory = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: directory.path().to_path_buf() };
        let said = |workspace: &Workspace| readme_command(workspace, TEST).unwrap_err().to_string();
        assert!(said(&workspace).starts_with("NOT RUN: cargo test --workspace: "));
        for text in ["", "cargo test --workspace\n", "```\ncargo test --workspace --release\n```\n"] {
            std::fs::write(directory.path().join("README.md"), text).unwrap();
            assert!(said(&workspace).ends_with("README.md does not give it in a fenced block"), "{text}");
        }
        std::fs::write(directory.path().join("README.md"), "```sh\ncargo test --workspace\n```\n").unwrap();
        assert_eq!(readme_command(&workspace, TEST).unwrap(), Call::new(TEST));
    }

    #[test]
    fn steps_stop_at_the_first_failure() {
        let ran = RefCell::new(Vec::new());
        let step = |name: &'static str, good: bool| -> Step<'_> {
            let ran = &ran;
            let act = move || {
                ran.borrow_mut().push(name);
                if good { Ok(()) } else { Err(Failure::not_run(name, "no reason")) }
            };
            (name, Box::new(act))
        };
        let outcome = in_order(vec![step("a", true), step("b", false), step("c", true)]);
        assert_eq!(outcome.unwrap_err().to_string(), "NOT RUN: b: no reason");
        assert_eq!(*ran.borrow(), ["a", "b"]);
        in_order(vec![step("d", true)]).unwrap();
    }
}
