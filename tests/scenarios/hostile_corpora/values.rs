//! Values for the fields of requests.

use std::collections::{BTreeMap, BTreeSet};

use tests::platform::Platform;
use tests::sink::Sink;
use tests::{PATIENCE, ledger, take_turn};

use crate::attempts::{self, Attempt};
use crate::corpus::{self, Case};
use crate::wire;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_are_refused_or_arrive_as_literal_text() {
    let Some(cases) = corpus::cases("api") else {
        return;
    };
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder().route("*", sink.address);
    let Some(platform) = builder.only_public_webhooks().start().await else {
        return;
    };
    let api = platform.api(0);
    let (mut tried, mut accepted, mut wrong) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
    for case in &cases {
        for attempt in attempts::of(&api, case) {
            let Attempt {
                id,
                request,
                place,
                expected,
            } = attempt;
            let answer = api.ask(request).await.unwrap();
            tried.insert(case.text("id"));
            let status = answer.status.as_u16();
            if let Some(complaint) = expected.complaint(&answer, judge(case, status)) {
                wrong.push(format!("{complaint}: {id} {place:?}: {answer:?}"));
            }
            if status == 202 {
                accepted.insert(id, (case, place));
            }
        }
    }
    assert_eq!(tried.len(), cases.len(), "each case once, and none untried");
    ledger::settled(&platform.pool, PATIENCE).await;
    let receipts = sink.receipts();
    let arrived: BTreeSet<&str> = receipts.iter().map(|receipt| receipt.id.as_str()).collect();
    assert_eq!(receipts.len(), arrived.len(), "each is sent once");
    assert!(
        arrived.iter().copied().eq(accepted.keys()),
        "only what was accepted leaves: {arrived:?}"
    );
    for receipt in &receipts {
        let (case, place) = accepted[&receipt.id];
        assert_eq!(receipt.recipient, "ana@sink.test", "{}", receipt.id);
        let complaint = wire::complaint(case, place, &receipt.content);
        wrong.extend(complaint.map(|what| format!("{} {place:?}: {what}", receipt.id)));
    }
    eprintln!(
        "hostile values: {} tried, {} mails accepted",
        tried.len(),
        accepted.len()
    );
    assert!(
        accepted.len() >= 15,
        "too much is refused: {}",
        accepted.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the corpus has to say about the status.
fn judge(case: &Case, status: u16) -> Option<&'static str> {
    let (expect, field, value) = (case.text("expect"), case.text("field"), case.text("value"));
    let only_refused = expect.starts_with("reject") && !expect.contains("accept");
    let only_refused = only_refused && !expect.contains(" or ");
    if only_refused && status < 400 {
        return Some("should be refused");
    }
    let is_text = matches!(
        field.as_str(),
        "subject" | "custom_header_value" | "tag" | "metadata_value"
    ) || field.ends_with("_name") && !field.starts_with("custom");
    let plain = !value.chars().any(char::is_control) && value.len() < 256;
    (is_text && plain && expect.starts_with("accept;") && status != 202)
        .then_some("should be accepted")
}
