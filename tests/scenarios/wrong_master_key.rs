//! With a wrong master key nothing starts: mail would be accepted and never signed.

use std::time::Duration;

use tests::platform::Platform;
use tests::program;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_master_key_is_refused_at_start() {
    let builder = Platform::builder().node("n1", "api,mta,worker");
    let Some(mut platform) = builder.start().await else {
        return;
    };
    platform.nodes[0].kill();
    let other = tempfile::NamedTempFile::new().expect("a file for a key");
    std::fs::write(
        other.path(),
        "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n",
    )
    .expect("another master key");
    let serve = Command::new(program::path())
        .args(["serve", "--config"])
        .arg(&platform.admin_config)
        .env("POSTRIDER_SECRETS__MASTER_KEY_FILE", other.path())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), serve)
        .await
        .expect("it started and went on")
        .expect("postrider runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it started: {told}");
    assert!(told.contains("not the one that sealed"), "{told}");
}
