//! Python as an independent reader of what the platform wrote, with libraries from PyPI.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// An interpreter.
pub struct Python(PathBuf);

impl Python {
    /// One of a virtual environment below `target` with this library (`dkimpy==1.1.8`, imported as
    /// `dkim`) in it, made once; none, and a loud line, where it cannot be had.
    pub fn with_library(requirement: &str, module: &str) -> Option<Self> {
        let tests = std::env::current_exe().unwrap();
        let profile_dir = tests.parent().and_then(Path::parent).unwrap();
        let dir = profile_dir.join("python").join(module);
        let python = Self(dir.join("bin/python"));
        if !python.imports(module) {
            let done = |command: &mut Command| command.status().is_ok_and(|s| s.success());
            let made = done(Command::new("python3").args(["-m", "venv"]).arg(&dir));
            let install = ["-m", "pip", "install", "--quiet", requirement];
            let _missed_below = made && done(Command::new(&python.0).args(install));
        }
        if !python.imports(module) {
            eprintln!(
                "SKIPPED: no python3 with `{requirement}` from PyPI to check the result with"
            );
            return None;
        }
        Some(python)
    }

    fn imports(&self, module: &str) -> bool {
        let import = format!("import {module}");
        let import = Command::new(&self.0)
            .args(["-c", &import])
            .stderr(Stdio::null())
            .status();
        import.is_ok_and(|status| status.success())
    }

    /// What this program prints as JSON when it is given `input` as JSON.
    pub fn run(&self, program: &str, input: &Value) -> Value {
        let mut child = Command::new(&self.0)
            .args(["-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the Python program fails");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
