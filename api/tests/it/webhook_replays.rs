//! Replays as their owners ask for them: one event or those of a time, shown and cancelled.

use serde_json::json;

use crate::platform::{Platform, email};
use crate::webhook_care::made;

/// An email of the account, and the id of its first event.
pub(crate) async fn event(platform: &Platform) -> String {
    let sent = platform.accepted(&platform.live_key, &email()).await;
    let path = format!("/v1/emails/{}", sent.id());
    let shown = platform.get(&platform.live_key, &path).await;
    let event = &shown.json["deliveries"][0]["events"][0]["id"];
    event.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn replays_are_asked_for_shown_and_cancelled() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (key, path) = (&platform.live_key, made(&platform).await);
    let (replay, replays) = (format!("{path}/replay"), format!("{path}/replays"));
    let event = event(&platform).await;
    let one = platform
        .post(key, &replay, &json!({"event_id": event}))
        .await;
    assert_eq!(one.status, 202, "{}", one.json);
    assert_eq!(one.json["event_id"], event.as_str());
    assert_eq!(
        (
            &one.json["status"],
            &one.json["events"],
            &one.json["waiting"]
        ),
        (&json!("running"), &json!(1), &json!(1))
    );

    let from = platform.state.clock.now() - time::Duration::hours(1);
    let from = from
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let range = json!({"from": from, "types": ["email.bounced", "email.queued"]});
    let many = platform.post(key, &replay, &range).await;
    assert_eq!(many.status, 202, "{}", many.json);
    assert_eq!(many.json["types"], range["types"]);
    platform
        .post(key, &replay, &range)
        .await
        .refused(409, "conflict");
    let listed = platform.get(key, &replays).await;
    let mut ids: Vec<&str> = listed.json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    let mut expected = [many.id(), one.id()];
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);

    let shown = platform.get(key, &format!("{replays}/{}", many.id())).await;
    assert_eq!(shown.json, many.json);
    let gone = platform
        .delete(key, &format!("{replays}/{}", many.id()))
        .await;
    assert_eq!(
        (gone.status.as_u16(), &gone.json["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(platform.post(key, &replay, &range).await.status, 202);

    for (body, field) in [
        (json!({}), ("", "required")),
        (json!({"to": from}), ("", "required")),
        (
            json!({"event_id": "evt_\u{0}"}),
            ("/event_id", "invalid_id"),
        ),
        (
            json!({"from": "2020-01-01T00:00:00Z"}),
            ("/from", "too_early"),
        ),
        (
            json!({"from": from, "events": []}),
            ("/events", "unknown_field"),
        ),
    ] {
        let answer = platform.post(key, &replay, &body).await;
        let fields = answer.refused(422, "validation_failed").fields();
        assert_eq!(fields, [field], "{body}");
    }
}
