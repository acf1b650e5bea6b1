//! Runs other programs: prints what is run, passes their output on, counts the tests in it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// A program with its arguments and the environment added to ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub words: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
}

/// How a test program words its closing line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// `test result: ok. 3 passed; 0 failed; …`, one for each test binary
    Cargo,
    /// `3 passed, 0 failed` alone on a line
    Plain,
}

/// Tests counted in the closing lines of test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestCounts {
    pub passed: u64,
    pub failed: u64,
}

impl Call {
    /// A call from a command line without quoting.
    pub fn new(line: &str) -> Call {
        Call { words: line.split_whitespace().map(str::to_owned).collect(), environment: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Call {
        self.environment.push((name, value.to_string()));
        self
    }

    /// The call as a person would type it.
    pub fn line(&self) -> String {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        environment.chain(self.words.iter().cloned()).collect::<Vec<_>>().join(" ")
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(directory).stdin(Stdio::null());
        // `cargo run` describes this package to us; build scripts of others must not see that, or
        // they run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(&*name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs to the end with the output passed through.
    pub fn run(&self, directory: &Path) -> Result<(), Failure> {
        println!("$ {}", self.line());
        let status = self.command(directory).status();
        self.judge(status.map_err(|error| Failure::not_run(self.line(), error))?)
    }

    /// Runs to the end with the output passed through, and counts the tests in standard output.
    /// The counts are also given for a run that failed.
    pub fn run_counted(&self, directory: &Path, closing: Closing) -> (TestCounts, Result<(), Failure>) {
        println!("$ {}", self.line());
        let mut counts = TestCounts::default();
        let outcome = self.pass_on(directory, &mut std::io::stdout(), |line| counts.add_line(line, closing));
        (counts, outcome)
    }

    fn pass_on(
        &self,
        directory: &Path,
        sink: &mut impl Write,
        mut see: impl FnMut(&str),
    ) -> Result<(), Failure> {
        let not_run = |error| Failure::not_run(self.line(), error);
        let mut child = self.command(directory).stdout(Stdio::piped()).spawn().map_err(not_run)?;
        let mut output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).map_err(not_run)? > 0 {
            sink.write_all(&line).map_err(not_run)?;
            see(&String::from_utf8_lossy(&line));
            line.clear();
        }
        self.judge(child.wait().map_err(not_run)?)
    }

    fn judge(&self, status: std::process::ExitStatus) -> Result<(), Failure> {
        match status.success() {
            true => Ok(()),
            false => Err(Failure::Command { command: self.line(), status }),
        }
    }
}

impl TestCounts {
    /// Adds the counts of a closing line; other lines add nothing.
    pub fn add_line(&mut self, line: &str, closing: Closing) {
        let line = line.trim();
        let (counts, separator) = match (closing, line.strip_prefix("test result: ")) {
            (Closing::Cargo, Some(rest)) => (rest.split_once(". ").map_or("", |(_, counts)| counts), "; "),
            (Closing::Plain, None) => (line, ", "),
            (Closing::Cargo, None) | (Closing::Plain, Some(_)) => return,
        };
        let mut parts = counts.split(separator);
        let passed = parts.next().and_then(|part| part.strip_suffix(" passed"));
        let failed = parts.next().and_then(|part| part.strip_suffix(" failed"));
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
        if let (Some(passed), Some(failed)) = (number(passed), number(failed)) {
            self.passed += passed;
            self.failed += failed;
        }
    }
}

impl std::fmt::Display for TestCounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_a_test_program_are_counted_and_nothing_else_is() {
        let cargo_ok =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; in 0.1s\n";
        for (closing, line, passed, failed) in [
            (Closing::Cargo, cargo_ok, 12, 0),
            (Closing::Cargo, "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured", 3, 2),
            (Closing::Cargo, "test result: ", 0, 0),
            (Closing::Cargo, "test a ... ok", 0, 0),
            (Closing::Cargo, "7 passed, 0 failed", 0, 0),
            (Closing::Plain, "7 passed, 0 failed\n", 7, 0),
            (Closing::Plain, "7 passed, 1 failed, 2 skipped", 7, 1),
            (Closing::Plain, "all 7 passed, 0 failed", 0, 0),
            (Closing::Plain, cargo_ok, 0, 0),
            (Closing::Plain, "", 0, 0),
        ] {
            let mut counts = TestCounts::default();
            counts.add_line(line, closing);
            assert_eq!(counts, TestCounts { passed, failed }, "{closing:?} {line}");
        }
    }

    #[test]
    fn output_is_passed_on_line_by_line_and_the_status_is_judged() {
        let directory = std::env::temp_dir();
        let (mut sink, mut seen) = (Vec::new(), Vec::new());
        let call = Call::new("printf a\\nb").with("LC_ALL", "C");
        call.pass_on(&directory, &mut sink, |line| seen.push(line.to_owned())).unwrap();
        assert_eq!((sink.as_slice(), seen), (&b"a\nb"[..], vec!["a\n".to_owned(), "b".to_owned()]));
        let failure = Call::new("false").run(&directory).unwrap_err();
        assert_eq!(failure.to_string(), "`false` failed: exit status: 1");
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_run() {
        for outcome in [
            Call::new("no-such-program-here a").run(&std::env::temp_dir()),
            Call::new("no-such-program-here a").run_counted(&std::env::temp_dir(), Closing::Cargo).1,
        ] {
            assert!(outcome.unwrap_err().to_string().starts_with("NOT RUN: no-such-program-here a: "));
        }
    }

    #[test]
    fn a_call_is_shown_as_a_person_would_type_it() {
        assert_eq!(
            Call::new("cargo doc").with("RUSTDOCFLAGS", "-Dwarnings").line(),
            "RUSTDOCFLAGS=-Dwarnings cargo doc"
        );
    }
}
