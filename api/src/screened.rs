//! The answer to a send whose recipients are partly suppressed. The answer is written before the
//! commit and stored with it, while the commit decides who is suppressed: so what is stored says
//! nothing of it, and it is put in every time the answer is given, from what was committed.

use std::collections::HashSet;

use mail::event::DeliveryStatus;
use mail::ids::MessageId;
use serde_json::Value;
use store::DeliveryKey;

use crate::problem::Problem;
use crate::state::AppState;

/// The answer as it is given, after these deliveries ended at once. Emails are found wherever they
/// stand in it: objects with `deliveries`.
pub(crate) fn screened(answer: String, suppressed: &HashSet<DeliveryKey>) -> String {
    if suppressed.is_empty() {
        return answer;
    }
    let ids: HashSet<String> = suppressed
        .iter()
        .map(|key| key.message.delivery(key.rcpt).to_string())
        .collect();
    match serde_json::from_str::<Value>(&answer) {
        Ok(mut body) => {
            for_each_email(&mut body, &mut |email| mark(email, &ids));
            body.to_string()
        }
        // We wrote it ourselves; should it be no JSON after all, it is better than no answer.
        Err(_) => answer,
    }
}

/// An answer that was given before, with what was committed then.
///
/// # Errors
/// The store does not answer.
pub(crate) async fn replayed(state: &AppState, answer: String) -> Result<String, Problem> {
    let mut messages = Vec::new();
    if let Ok(mut body) = serde_json::from_str::<Value>(&answer) {
        for_each_email(&mut body, &mut |email| {
            let id = email["id"].as_str().and_then(|id| id.parse().ok());
            messages.extend(id.map(|id: MessageId| id));
        });
    }
    let suppressed = state.store.suppressed_at_accept(&messages).await?;
    Ok(screened(answer, &suppressed))
}

/// Visits the body and what it lists, as far as it consists of emails and lists of them.
fn for_each_email(body: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    if body.get("deliveries").is_some_and(Value::is_array) {
        visit(body);
    } else if let Some(list) = body.get_mut("data").and_then(Value::as_array_mut) {
        list.iter_mut()
            .for_each(|email| for_each_email(email, visit));
    }
}

fn mark(email: &mut Value, suppressed: &HashSet<String>) {
    let word = DeliveryStatus::Suppressed.as_str();
    let Some(deliveries) = email["deliveries"].as_array_mut() else {
        return;
    };
    for delivery in deliveries.iter_mut() {
        if delivery["id"]
            .as_str()
            .is_some_and(|id| suppressed.contains(id))
        {
            delivery["status"] = word.into();
        }
    }
    // A message is as finished as its least finished delivery; the others have all just begun.
    if deliveries.iter().all(|delivery| delivery["status"] == word) {
        email["status"] = word.into();
    }
}

#[cfg(test)]
mod tests {
    use mail::ids::DeliveryId;
    use serde_json::json;

    use super::*;

    const MESSAGE: MessageId = MessageId::from_time_and_random(1_790_000_000_123, [7; 10]);

    fn id(rcpt: u16) -> DeliveryId {
        MESSAGE.delivery(rcpt)
    }

    fn email() -> Value {
        let delivery = |rcpt| json!({"id": id(rcpt), "to": "a@b.c", "status": "queued"});
        json!({"id": MESSAGE, "status": "queued", "deliveries": [delivery(0), delivery(1)]})
    }

    fn ended(rcpts: &[u16]) -> HashSet<DeliveryKey> {
        let key = |rcpt: &u16| DeliveryKey {
            message: MESSAGE,
            rcpt: *rcpt,
        };
        rcpts.iter().map(key).collect()
    }

    #[test]
    fn only_the_deliveries_that_ended_are_marked() {
        let check = |rcpts: &[u16], message: &str, first: &str, second: &str| {
            let answer = screened(email().to_string(), &ended(rcpts));
            let body: Value = serde_json::from_str(&answer).unwrap();
            let shown = (
                &body["status"],
                &body["deliveries"][0]["status"],
                &body["deliveries"][1]["status"],
            );
            assert_eq!(shown, (&json!(message), &json!(first), &json!(second)));
        };
        check(&[], "queued", "queued", "queued");
        check(&[1], "queued", "queued", "suppressed");
        check(&[0, 1], "suppressed", "suppressed", "suppressed");
    }

    #[test]
    fn an_answer_without_suppressed_recipients_stays_as_it_is() {
        let text = r#"{"status": "queued",  "deliveries":[]}"#;
        assert_eq!(screened(text.into(), &ended(&[])), text);
    }

    #[test]
    fn emails_in_a_list_are_found() {
        let body = json!({"data": [{"error": {"code": "x"}}, email()]});
        let answer = screened(body.to_string(), &ended(&[0]));
        let body: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(body["data"][1]["deliveries"][0]["status"], "suppressed");
        assert_eq!(body["data"][0], json!({"error": {"code": "x"}}));
    }

    #[test]
    fn what_is_no_answer_of_ours_is_left_alone() {
        for text in ["", "null", "[1]", "{\"deliveries\":7}", "nonsense"] {
            let given = screened(text.into(), &ended(&[0]));
            assert!(given == text, "{text}: {given}");
        }
    }
}
