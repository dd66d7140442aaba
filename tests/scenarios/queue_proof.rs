//! The races and plans of the queue hold on this machine's PostgreSQL: runs the proof in
//! `tests/queue`, on tables of a million rows.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use tests::cluster::Cluster;
use tests::take_turn;

#[tokio::test(flavor = "multi_thread")]
async fn the_races_and_plans_of_the_queue_are_proved() {
    let _turn = take_turn();
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/queue/prove.sh");
    let mut proof = Command::new(script);
    proof
        .env("PGHOST", cluster.socket().parent().unwrap())
        .env("PGUSER", "postgres");
    proof.env_remove("PGPORT").env_remove("PGDATABASE");
    let output = tokio::task::block_in_place(|| proof.output()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.lines().any(|line| line.starts_with("proved: ")),
        "it proved nothing"
    );
}
