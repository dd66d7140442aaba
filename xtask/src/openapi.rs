//! `openapi.yaml` is printed by the routes themselves; this writes it or compares it.

use std::fs;

use crate::shell::{Failure, Outcome, cargo, project};

pub(crate) fn run(check: bool) -> Outcome {
    let fresh = print_by_routes()?;
    let path = project().join("openapi.yaml");
    if !check {
        fs::write(&path, &fresh)
            .map_err(|error| Failure::new(format!("could not write openapi.yaml: {error}")))?;
        println!("openapi.yaml written");
        return Ok(());
    }
    let stored = fs::read_to_string(&path)
        .map_err(|error| Failure::new(format!("could not read openapi.yaml: {error}")))?;
    match first_difference(&stored, &fresh) {
        None => Ok(()),
        Some(difference) => Err(Failure::new(format!(
            "openapi.yaml is not what the routes say: {difference}\n\
             run `cargo xtask openapi` and commit the file"
        ))),
    }
}

fn print_by_routes() -> Outcome<String> {
    let output = cargo()
        .args(["run", "-q", "-p", "postrider", "--", "openapi"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("could not run cargo: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.trim().is_empty() {
        return Err(Failure::new(
            "`postrider openapi` failed or printed nothing",
        ));
    }
    Ok(text)
}

fn first_difference(stored: &str, fresh: &str) -> Option<String> {
    if stored == fresh {
        return None;
    }
    let (mut stored, mut fresh) = (stored.lines(), fresh.lines());
    for number in 1.. {
        match (stored.next(), fresh.next()) {
            (None, None) => break,
            (left, right) if left != right => {
                let end = "the end of the file";
                let (left, right) = (left.unwrap_or(end), right.unwrap_or(end));
                return Some(format!(
                    "line {number} has\n  {left}\nwhere the routes say\n  {right}"
                ));
            }
            _ => {}
        }
    }
    Some("the last line end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        let shown = first_difference("a\nb\n", "a\nc\n").unwrap();
        assert!(shown.contains("line 2 has\n  b\n"), "{shown}");
        assert!(
            first_difference("a\n", "a\nb\n")
                .unwrap()
                .contains("the end of the file")
        );
        assert_eq!(first_difference("a", "a\n").unwrap(), "the last line end");
    }
}
