//! Promise: every hostile byte stream of the corpus that a server can meet ends as expected, and
//! no end of data but CRLF.CRLF starts a second transaction.

#![allow(clippy::unwrap_used)]

mod served;

use std::path::{Path, PathBuf};

use served::{Dialogue, Served};

fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/hostile/smtp");
    if !path.is_dir() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// What the corpus expects of the dialogue, file by file.
fn check(file: &str, dialogue: &Dialogue, messages: usize) {
    let codes = dialogue.codes();
    let said = |code: &str| codes.iter().any(|said| said == code);
    let text = &dialogue.0;
    match file {
        "8bit-without-8bitmime.bin" | "headers-20000.bin" | "size-lie.bin" => {
            assert_eq!(messages, 1, "{file}: {text}");
        }
        "bdat-huge.bin" => assert_eq!(codes.last().unwrap(), "552", "{text}"),
        "bdat-mixed-data.bin" => assert_eq!(codes.last().unwrap(), "503", "{text}"),
        "nul-in-command.bin" => assert_eq!(codes, ["220", "500"]),
        "rcpt-10000.bin" => {
            assert!(text.contains("452 4.5.3"), "{file}");
            let taken = text.matches("Recipient ok").count();
            assert!(taken >= 100, "{taken} recipients were taken");
        }
        "rset-flood.bin" | "unknown-flood.bin" => {
            assert_eq!(codes.last().unwrap(), "421", "{file}")
        }
        "size-overflow.bin" => assert!(said("501") || said("552"), "{text}"),
        "size-too-big.bin" => assert!(text.contains("552 5.3.4"), "{text}"),
        smuggle if smuggle.starts_with("smuggle-") => {
            let rejected = said("550");
            assert_eq!(messages, usize::from(!rejected), "{file}: {text}");
            assert_eq!(
                text.matches("354 ").count(),
                1,
                "{file}: a second DATA was obeyed"
            );
            assert_eq!(
                codes.last().unwrap(),
                "221",
                "{file}: QUIT is the only command after"
            );
        }
        other => panic!("no expectation for {other}"),
    }
}

#[tokio::test]
async fn hostile_sessions_end_as_expected() {
    let Some(corpus) = corpus() else { return };
    let truth = std::fs::read_to_string(corpus.join("truth.jsonl")).unwrap();
    let mut checked = 0;
    for line in truth.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["side"] != "server" {
            continue;
        }
        let file = row["file"].as_str().unwrap();
        let wire = std::fs::read(corpus.join(file)).unwrap();
        let served = Served::start(|_| {}).await;
        let dialogue = served.talk(&wire).await;
        let messages = served.received();
        for message in &messages {
            assert_eq!(
                message.rcpts,
                ["b@example.com"],
                "{file}: a smuggled recipient"
            );
        }
        check(file, &dialogue, messages.len());
        served.stop().await;
        checked += 1;
    }
    assert!(checked >= 17, "only {checked} files");
}
