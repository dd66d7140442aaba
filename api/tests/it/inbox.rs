//! The inbox as a page and its parts: opened by token or cookie, hostile mail kept apart.

use axum::body::Body;
use axum::http::{Request, header};
use mail::ids::InboxId;
use store::SandboxMessage;

use crate::platform::{Answer, Platform, fresh_uuid};

const TOKEN: &str = "a-long-token";
const MAIL: &str = "From: Eve <eve@e.test>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
    MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n\
    --m\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script><b>Hi</b>\r\n\
    --m\r\nContent-Type: text/html; name=\"a\\\"b\r\n c.html\"\r\nContent-Transfer-Encoding: base64\r\n\
    Content-Disposition: attachment\r\n\r\nPHNjcmlwdD4A/w==\r\n--m--\r\n";

async fn open(change: impl FnOnce(&mut api::ApiConfig)) -> Option<(Platform, InboxId)> {
    let platform = Platform::start_with(|config| {
        config.inbox_token = Some(TOKEN.to_owned());
        change(config);
    })
    .await?;
    let id = InboxId::from_uuid(fresh_uuid());
    let message = SandboxMessage {
        id,
        received_at: platform.state.clock.now(),
        helo: "node.test".to_owned(),
        mail_from: String::new(),
        recipients: vec!["ana@example.com".to_owned()],
        authentication_results: "sandbox.test; dkim=none".to_owned(),
        raw: MAIL.as_bytes().to_vec(),
    };
    let store = &platform.state.store;
    store.add_sandbox_message(&message).await.unwrap();
    Some((platform, id))
}

async fn browse(platform: &Platform, path: &str, cookie: &str) -> Answer {
    let request = Request::get(path)
        .header(header::ACCEPT, "text/html,*/*;q=0.8")
        .header(header::COOKIE, cookie);
    platform.send(request.body(Body::empty()).unwrap()).await
}

fn policy(answer: &Answer) -> &str {
    answer.headers["content-security-policy"].to_str().unwrap()
}

#[tokio::test]
async fn a_browser_swaps_the_token_for_a_cookie() {
    let Some((platform, id)) = open(|_| {}).await else {
        return;
    };
    let first = browse(&platform, &format!("/inbox?token={TOKEN}"), "").await;
    assert_eq!(first.status, 303);
    assert_eq!(first.headers["location"], "inbox");
    let cookie = first.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let page = browse(&platform, "/inbox", cookie).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let allowed = policy(&page);
    assert!(
        allowed.contains("script-src 'sha256-") && !allowed.contains("unsafe"),
        "{allowed}"
    );
    let text = String::from_utf8(page.octets).unwrap();
    assert!(!text.contains(TOKEN) && !text.contains("{{"), "{text}");

    for path in ["", "/html", "/raw", "/attachments/0"] {
        let path = format!("/inbox/messages/{id}{path}");
        browse(&platform, &path, "").await.refused(404, "not_found");
        let wrong = format!("{cookie}x");
        browse(&platform, &path, &wrong)
            .await
            .refused(404, "not_found");
        assert_eq!(browse(&platform, &path, cookie).await.status, 200, "{path}");
        let wrong = format!("{path}?token=x");
        browse(&platform, &wrong, cookie)
            .await
            .refused(404, "not_found");
    }
    for path in [
        "x",
        "x/html",
        &format!("{id}/attachments/9"),
        &format!("{id}/attachments/-1"),
    ] {
        let path = format!("/inbox/messages/{path}");
        browse(&platform, &path, cookie)
            .await
            .refused(404, "not_found");
    }
}

#[tokio::test]
async fn what_mail_contains_can_run_nothing() {
    let Some((platform, id)) = open(|_| {}).await else {
        return;
    };
    let get = async |part: &str| {
        let path = format!("/inbox/messages/{id}{part}?token={TOKEN}");
        platform.get("", &path).await
    };
    let message = get("").await.json;
    assert_eq!(message["subject"], "Grüße");
    assert_eq!(message["from"], "Eve <eve@e.test>");
    assert_eq!(message["has_html"], true);
    let files = message["attachments"].as_array().unwrap();
    let html = get("/html").await;
    let allowed = policy(&html);
    assert!(
        allowed.starts_with("sandbox; default-src 'none'; "),
        "{allowed}"
    );
    assert!(!allowed.contains("script"), "{allowed}");
    let last = files.len() - 1;
    let file = get(&format!("/attachments/{last}")).await;
    assert_eq!(file.octets, b"<script>\0\xff");
    assert_eq!(file.headers["content-type"], "application/octet-stream");
    assert_eq!(file.headers["x-content-type-options"], "nosniff");
    let name = file.headers["content-disposition"].to_str().unwrap();
    assert!(name.starts_with("attachment; filename=\""), "{name}");
    assert_eq!(get("/raw").await.octets, MAIL.as_bytes());
}

#[tokio::test]
async fn the_inbox_is_searched_by_addresses_and_subject() {
    let Some((platform, _)) = open(|_| {}).await else {
        return;
    };
    for (q, expected) in [
        ("gr%C3%BC", 1),
        ("EVE%40e", 1),
        ("ana", 1),
        ("nobody", 0),
        ("%00", 0),
    ] {
        let found = platform
            .get("", &format!("/inbox?token={TOKEN}&q={q}"))
            .await;
        assert_eq!(
            found.json["data"].as_array().unwrap().len(),
            expected,
            "{q}"
        );
    }
    let long = format!("/inbox?token={TOKEN}&q={}", "x".repeat(201));
    platform
        .get("", &long)
        .await
        .refused(422, "invalid_parameter");
}

#[tokio::test]
async fn the_reference_is_served_unless_switched_off() {
    let Some((platform, _)) = open(|_| {}).await else {
        return;
    };
    let page = browse(&platform, "/docs", "").await;
    assert!(policy(&page).contains("script-src 'sha256-"));
    let json = platform.get("", "/openapi.json").await.json;
    assert_eq!(
        json["paths"]["/v1/emails"]["post"]["operationId"],
        "sendEmail"
    );
    let yaml = platform.get("", "/openapi.yaml").await;
    assert!(yaml.octets.starts_with(b"openapi: 3.1"));
    let Some((closed, _)) = open(|config| config.docs = false).await else {
        return;
    };
    for path in ["/docs", "/openapi.json", "/openapi.yaml"] {
        closed.get("", path).await.refused(404, "not_found");
    }
}
