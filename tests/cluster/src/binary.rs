//! Where the `evenkeel` binary is: built by cargo, once per test process, with the profile of the tests.
//!
//! `EVENKEEL_BINARY` names another one, for instance that of an earlier version.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of the binary under test.
pub fn evenkeel() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("EVENKEEL_BINARY") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// Lets cargo build it, or find that it is fresh, in the directory that this test was built in.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the running test has a path");
    let profile_directory = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let target_directory = profile_directory.parent().expect("target/<profile>");
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        // Tests run by the profile `test`, whose output stands in `debug`.
        Some("debug") => "test",
        Some(name) => name,
        None => panic!("no profile in {}", test.display()),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Cargo describes this package to its tests; build scripts that see it would all run again.
    for (name, _) in std::env::vars_os() {
        let described = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if described.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let output = command
        // The tests of the binary's own package bring it along. All members are named, as in `cargo test
        // --workspace`, so that every dependency keeps the features that it was built with.
        .args(["test", "--no-run", "--workspace", "--test", "command_line"])
        .args(["--message-format", "json-render-diagnostics", "--profile", profile, "--target-dir"])
        .arg(target_directory)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo build of evenkeel failed: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let ours = message["target"]["kind"] == serde_json::json!(["bin"])
                && message["target"]["name"] == "evenkeel"
                && message["executable"].is_string();
            ours.then(|| PathBuf::from(message["executable"].as_str().unwrap_or_default()))
        })
        .expect("cargo names the executable that it built")
}
