//! Running other programs: shown before they run, with an error that says which one failed.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Result of a task.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What went wrong, for the person at the terminal.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints a command that prepares something, runs it, fails if it fails. What it says goes to
/// standard error: standard output is for what was asked for, such as the line of `dev --json`.
pub(crate) fn run(command: &mut Command) -> Outcome {
    run_to_end(command.stdout(std::io::stderr()))
}

/// The same for a command whose output is what was asked for.
pub(crate) fn run_to_end(command: &mut Command) -> Outcome {
    eprintln!("+ {}", shown(command));
    let status = command.stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!(
            "{} failed ({status})",
            shown(command)
        ))),
        Err(error) => Err(Failure::new(format!(
            "could not run {}: {error}",
            shown(command)
        ))),
    }
}

/// What the command prints, if it succeeds. Not shown: for questions that change nothing.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(part: &OsStr) -> String {
    let text = part.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The program `name` on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

/// The cargo that called us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(project());
    cargo
}

/// Top directory of the project.
pub(crate) fn project() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent()
        .map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => project().join(dir),
        None => project().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it's", "", "--a=b/c"]);
        assert_eq!(shown(&command), r"sh -c 'echo it'\''s' '' --a=b/c");
    }

    #[test]
    fn a_failing_program_is_named() {
        let failure = run(&mut Command::new("false")).unwrap_err().to_string();
        assert!(failure.starts_with("false failed"), "{failure}");
        let failure = run(&mut Command::new("/no/such")).unwrap_err().to_string();
        assert!(failure.starts_with("could not run /no/such"), "{failure}");
        assert_eq!(ask(&mut Command::new("false")), None);
    }
}
