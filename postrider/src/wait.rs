//! Waiting for child processes with an end to patience: until one says that it is ready, until it
//! has ended.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::process::{Child, Command};

/// Reads lines until one gives a value.
///
/// # Errors
/// The lines end, or patience does; `what` names what was waited for.
pub(crate) async fn for_line<T>(
    lines: &mut (impl AsyncBufRead + Unpin),
    patience: Duration,
    what: &str,
    mut read: impl FnMut(&str) -> Option<T>,
) -> anyhow::Result<T> {
    let reading = async {
        let mut line = String::new();
        while lines.read_line(&mut line).await? > 0 {
            if let Some(found) = read(line.trim_end()) {
                return Ok(found);
            }
            line.clear();
        }
        bail!("{what} ended before it was ready")
    };
    tokio::time::timeout(patience, reading)
        .await
        .map_err(|_| anyhow!("{what} was not ready within {} s", patience.as_secs()))?
}

/// Asks a child to stop and waits; kills it when patience ends.
///
/// # Errors
/// The system refuses.
pub(crate) async fn stop(child: &mut Child, patience: Duration) -> anyhow::Result<ExitStatus> {
    if let Some(pid) = child.id() {
        // `kill` is built into every shell; the program of that name is often not installed.
        let asked = Command::new("/bin/sh")
            .args(["-c", "kill -s TERM \"$1\"", "sh", &pid.to_string()])
            .status()
            .await;
        asked.context("could not run /bin/sh")?;
    }
    if let Ok(ended) = tokio::time::timeout(patience, child.wait()).await {
        return Ok(ended?);
    }
    child.kill().await?;
    Ok(child.wait().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[tokio::test]
    async fn a_child_is_waited_for_and_stopped() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo loading; echo ready 7; exec sleep 60"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap());
        let read = |line: &str| line.strip_prefix("ready ")?.parse::<u32>().ok();
        let patience = Duration::from_secs(5);
        assert_eq!(for_line(&mut lines, patience, "sh", read).await.unwrap(), 7);
        assert!(!stop(&mut child, patience).await.unwrap().success());
        let error = for_line(&mut lines, patience, "sh", |_| None::<()>)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "sh ended before it was ready");
    }
}
