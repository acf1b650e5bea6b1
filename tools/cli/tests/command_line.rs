//! The command line of the `evenkeel` binary: exit codes, and where what it says goes.

use std::process::{Command, Output};

fn evenkeel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().expect("the binary starts")
}

#[test]
fn help_goes_to_standard_output_and_names_every_subcommand() {
    let output = evenkeel(&["--help"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for subcommand in ["dev", "node", "router", "import", "bench"] {
        let listed = said.lines().any(|line| line.trim_start().starts_with(subcommand));
        assert!(listed, "{subcommand} in {said}");
        assert!(evenkeel(&[subcommand, "--help"]).status.success(), "{subcommand} --help");
    }
}

#[test]
fn a_wrong_call_exits_2_and_a_failure_exits_1_both_with_the_reason_on_standard_error() {
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "Usage"),
        (&["nonsense"], 2, "nonsense"),
        (&["dev", "--port", "many"], 2, "many"),
        (&["import", "--table", "orders"], 2, "FILE"),
        (
            &["import", "--table", "orders", "--cluster", "/nowhere/client.toml", "-"],
            1,
            "/nowhere/client.toml",
        ),
        (&["node", "--config", "/nowhere/node.toml"], 1, "/nowhere/node.toml"),
    ];
    for (arguments, code, reason) in cases {
        let output = evenkeel(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(said.contains(reason) && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}
