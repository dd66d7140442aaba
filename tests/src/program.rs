//! Finds the program under test, and builds it where nobody has yet.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the program when it is elsewhere.
const PROGRAM_VARIABLE: &str = "POSTRIDER_BIN";

/// Path of `postrider`: what `POSTRIDER_BIN` names, else the one beside this test's own build.
pub fn path() -> PathBuf {
    if let Some(named) = env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) {
        return named.into();
    }
    // target/<profile>/deps/<this test>
    let test = env::current_exe().unwrap();
    let profile_dir = test.parent().and_then(Path::parent).unwrap().to_owned();
    let program = profile_dir.join("postrider");
    if !program.exists() {
        build(&profile_dir);
    }
    program
}

fn build(profile_dir: &Path) {
    let lock = File::create(profile_dir.join("postrider-build.lock")).unwrap();
    lock.lock().unwrap();
    if profile_dir.join("postrider").exists() {
        return;
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "-p", "postrider"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(status.success(), "postrider does not build");
}

/// Sends the signal `name` (`KILL`, `TERM`) to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    let script = ["-c", "kill -s \"$1\" \"$2\"", "sh", name];
    let status = Command::new("/bin/sh")
        .args(script)
        .arg(pid.to_string())
        .status()
        .unwrap();
    assert!(status.success(), "could not send {name} to {pid}");
}
