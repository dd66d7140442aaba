//! Building and running: `dev`, `test`, `bench`. Puts the steps in order; the steps are elsewhere.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::bench::{self, BenchArgs};
use crate::bootstrap;
use crate::peers;
use crate::shell::{Failure, Outcome, ask, cargo, run, run_to_end, shown, target};

/// Runs the scenarios that kill processes at their full length.
const FAULTS: &str = "faults";

pub(crate) fn dev(args: &[String]) -> Outcome {
    let tools = bootstrap::ensure()?;
    announce_first_build("debug", "5 to 8 minutes on 2 cores");
    run(cargo().args(["build", "-p", "postrider"]))?;
    let mut postrider = Command::new(target().join("debug/postrider"));
    tools.name_to(postrider.arg("dev").args(args));
    become_program(&mut postrider)
}

pub(crate) fn test(filters: &[String]) -> Outcome {
    let tools = bootstrap::ensure()?;
    let peers = peers::ensure()?;
    announce_first_build("debug", "5 to 8 minutes on 2 cores");
    run(cargo().args(["build", "-p", "postrider"]))?;
    let has_nextest = ask(cargo().args(["nextest", "--version"])).is_some();
    let mut tests = cargo();
    tests.args(test_args(has_nextest, filters));
    tools.name_to(&mut tests);
    tests.env("POSTRIDER_PEERS", peers);
    if filters.iter().any(|word| word == FAULTS) {
        tests.env("POSTRIDER_FULL", "1");
    }
    run_to_end(&mut tests)
}

pub(crate) fn bench(args: &BenchArgs) -> Outcome {
    if bench::is_list(args) {
        return Ok(());
    }
    let tools = bootstrap::ensure()?;
    announce_first_build("release", "10 to 30 minutes on 2 cores");
    run(cargo().args(["build", "--release", "-p", "postrider"]))?;
    let program = target().join("release/postrider");
    if args.args.is_empty() {
        return bench::run(args, program, &tools);
    }
    let mut postrider = Command::new(program);
    let own = ["bench", "--self-contained"];
    tools.name_to(postrider.args(own).args(&args.args));
    become_program(&mut postrider)
}

/// Arguments of cargo for the tests that `filters` choose.
fn test_args(has_nextest: bool, filters: &[String]) -> Vec<String> {
    let names = filters.iter().filter(|word| *word != FAULTS).cloned();
    let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let mut args = if has_nextest {
        own(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        own(&["test", "--workspace", "--no-fail-fast", "--"])
    };
    args.extend(names);
    args
}

fn announce_first_build(profile: &str, length: &str) {
    if !target().join(profile).join("postrider").exists() {
        eprintln!("first build in {profile}: about {length}");
    }
}

/// Gives our place to the program, so that signals and the exit status are its own.
fn become_program(command: &mut Command) -> Outcome {
    eprintln!("+ {}", shown(command));
    let error = command.exec();
    Err(Failure::new(format!(
        "could not run {}: {error}",
        shown(command)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_faults_reach_either_runner() {
        let args = |nextest, words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            test_args(nextest, &words).join(" ")
        };
        assert_eq!(args(true, &[]), "nextest run --workspace --no-fail-fast");
        assert_eq!(
            args(true, &["greylist", "faults"]),
            "nextest run --workspace --no-fail-fast greylist"
        );
        assert_eq!(
            args(false, &["faults", "a", "b"]),
            "test --workspace --no-fail-fast -- a b"
        );
    }
}
