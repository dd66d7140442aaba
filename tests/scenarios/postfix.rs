//! Postfix is found, by a static route and through DNS, takes our mail over TLS and files it octet
//! by octet as it was composed; what others read in it is what was sent, and both dkimpy and
//! OpenDKIM take its signature. What Postfix refuses ends or waits, as its reply says.
//!
//! The servers come from `cargo xtask bootstrap`, unpacked and not installed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Api, event_types, message};
use tests::dns::Dns;
use tests::platform::Platform;
use tests::postfix::Postfix;
use tests::signatures::{Keys, passed_by_opendkim, read_by_python};
use tests::{place, take_turn};

const DOMAINS: [&str; 4] = ["fixed.test", "mx.test", "host.test", "xn--bcher-kva.test"];
/// RFC 5322 section 2.1.1, without the CRLF.
const LINE_MAX: usize = 998;
const LARGE: usize = 20 * 1024 * 1024;
/// Where the mail host of each domain is found.
const FIXED: &str = "127.";
const LOOKED_UP: &str = "relay.test";
const ITSELF: &str = "host.test";

#[tokio::test(flavor = "multi_thread")]
async fn postfix_is_found_files_what_was_composed_and_is_heard_when_it_refuses() {
    let _turn = take_turn();
    let Some(postfix) = Postfix::start(place::free_address(), &DOMAINS).await else {
        return;
    };
    let dns = Dns::start().await;
    publish(&dns, &postfix);
    let builder = Platform::builder()
        .route("fixed.test", postfix.address)
        .nameserver(dns.address)
        .smtp_port(postfix.address.port());
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let mut all = Vec::new();
    for (to, mx, fields) in composed() {
        all.push(files_composed(&api, &postfix, to, mx, fields).await);
    }
    for (to, mx, body) in finished() {
        all.push(files_finished(&api, &postfix, to, mx, &body).await);
    }
    others_read_the_same(&all, &published_keys(&api).await);

    let filed = postfix.mails().len();
    refused(&api, "nobody@mx.test", "bounced", "550 5.1.1").await;
    refused(&api, "unwanted@mx.test", "bounced", "554 5.7.1").await;
    refused(&api, "busy@mx.test", "deferred", "450 4.2.1").await;
    assert_eq!(postfix.mails().len(), filed);
}

/// One domain has a host of higher preference that is down, one has no MX and is its own host.
fn publish(dns: &Dns, postfix: &Postfix) {
    let up = postfix.address.ip().to_string().parse().unwrap();
    dns.a("down.test", Ipv4Addr::new(127, 0, 0, 2));
    dns.a("relay.test", up);
    dns.a("host.test", up);
    for domain in ["mx.test", "xn--bcher-kva.test"] {
        dns.mx(domain, 10, "down.test");
        dns.mx(domain, 20, "relay.test");
    }
}

/// Recipient (as given, as Postfix knows it), where it is found, and fields of the message.
fn composed() -> Vec<([&'static str; 2], &'static str, Value)> {
    let long = "word ".repeat(1_000);
    let octets: Vec<u8> = (0..=255).cycle().take(100_003).collect();
    let large: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
    let file =
        |name: &str, octets: &[u8]| json!({"filename": name, "content": BASE64.encode(octets)});
    vec![
        (
            ["dots@fixed.test"; 2],
            FIXED,
            json!({"text": "Grüße,\n.a dot\n..two\n.\n\nThe end.\n"}),
        ),
        (
            ["lines@mx.test"; 2],
            LOOKED_UP,
            json!({
                "text": format!("{long}\n.\n  \n\t\nFrom here on = blanks: \n \n\t \n"),
                "html": format!("<p>{}</p>\n.\n<p>ž{long}</p>\n", "x".repeat(3_000)),
            }),
        ),
        (
            ["subject@host.test"; 2],
            ITSELF,
            json!({"subject": "Grüße 🎉 aus Köln, ".repeat(17).trim_end()}),
        ),
        (
            ["plain@host.test"; 2],
            ITSELF,
            json!({"subject": "x".repeat(300)}),
        ),
        (
            ["ana@bücher.test", "ana@xn--bcher-kva.test"],
            LOOKED_UP,
            json!({"subject": "🎉🎉", "from": "Žluťoučký 🐎 <hello@acme.test>"}),
        ),
        (
            ["files@fixed.test"; 2],
            FIXED,
            json!({"attachments": [file("Résumé 🎉.bin", &octets), file("none.txt", b"")]}),
        ),
        (
            ["large@mx.test"; 2],
            LOOKED_UP,
            json!({"attachments": [file("large.bin", &large)]}),
        ),
    ]
}

/// Bodies of finished messages.
fn finished() -> Vec<(&'static str, &'static str, String)> {
    let longest = "y".repeat(LINE_MAX);
    vec![
        (
            "blanks@mx.test",
            LOOKED_UP,
            ".\r\n..dots\r\n  spaces \t\r\n\r\n--\r\nthe end \r\n \t\r\n\r\n  \r\n\t\r\n\r\n"
                .to_owned(),
        ),
        ("onlyblanks@mx.test", LOOKED_UP, " \r\n\t\r\n".to_owned()),
        ("empty@fixed.test", FIXED, String::new()),
        (
            "eightbit@host.test",
            ITSELF,
            format!("Grüße 🎉\r\n{longest}\r\nFrom the start\r\n"),
        ),
    ]
}

/// One mail that Postfix filed.
struct Filed {
    /// What was asked for; null for what a finished message does not say.
    body: Value,
    octets: Vec<u8>,
}

/// Sends to the first of `to`, which Postfix knows as the second.
async fn files_composed(
    api: &Api,
    postfix: &Postfix,
    to: [&str; 2],
    mx: &str,
    fields: Value,
) -> Filed {
    let [given, known] = to;
    let mut body = message("acme.test", given);
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    let id = api.send(&body).await;
    delivered(api, &id, mx).await;
    let path = format!("/v1/emails/{id}/content?format=raw");
    let composed = api.get(&path).await;
    assert_eq!(composed.status, 200, "{composed:?}");
    let octets = postfix.filed(known).await;
    let above = octets.strip_suffix(composed.text.as_bytes());
    let above = above.unwrap_or_else(|| panic!("{given} was not filed as it was composed"));
    let above = String::from_utf8_lossy(above);
    for expected in ["\r\nDKIM-Signature: ", " with ESMTPS id "] {
        assert_eq!(above.matches(expected).count(), 1, "{expected}\n{above}");
    }
    let longest = composed.text.split("\r\n").map(str::len).max().unwrap();
    assert!(longest <= LINE_MAX, "{given}: a line of {longest} octets");
    Filed { body, octets }
}

/// Sends a finished message, whose body is to stay what it is.
async fn files_finished(api: &Api, postfix: &Postfix, to: &str, mx: &str, body: &str) -> Filed {
    let fields = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_again?=\r\nX-Own:   two\r\n\tlines\r\n\
                  From: Acme <hello@acme.test>\r\nTo: Somebody <not-the-envelope@else.test>\r\n\
                  MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
                  Content-Transfer-Encoding: 8bit\r\nMessage-ID: <own.id@acme.test>\r\n\
                  Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n";
    let path = format!("/v1/emails/raw?to={to}");
    let request = api
        .request(Method::POST, &path)
        .header("content-type", "message/rfc822")
        .body(format!("{fields}\r\n{body}"));
    let answer = api.ask(request).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    delivered(api, &id, mx).await;
    let octets = postfix.filed(to).await;
    let at = octets
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .unwrap();
    let (header, filed) = (&octets[..at + 2], &octets[at + 4..]);
    assert_eq!(
        sha256(filed),
        sha256(body.as_bytes()),
        "{to}: {:?}",
        String::from_utf8_lossy(filed)
    );
    let header = String::from_utf8_lossy(header);
    assert!(header.ends_with(fields), "{to}: {header}");
    let body = json!({"subject": "Grüße again", "text": body});
    Filed { body, octets }
}

async fn delivered(api: &Api, id: &str, mx: &str) {
    let email = api.becomes(id, "delivered").await;
    let attempt = &email["deliveries"][0]["attempts"][0];
    for (field, expected) in [("tls", "TLSv1.3"), ("mx", mx), ("reply", "queued as")] {
        let found = attempt[field].as_str().unwrap_or_default();
        assert!(found.contains(expected), "{field} of {email:#}");
    }
}

/// The public keys of the account, as its domain says they are to be published.
async fn published_keys(api: &Api) -> Keys {
    let domains = api.get("/v1/domains").await.json();
    let id = domains["data"][0]["id"].as_str().unwrap();
    let domain = api.get(&format!("/v1/domains/{id}")).await.json();
    let records = domain["records"].as_array().unwrap().iter();
    let keys = records.filter(|record| record["purpose"] == "dkim");
    let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
    keys.map(|record| (text(record, "name"), text(record, "value")))
        .collect()
}

/// Programs of others read what was asked for, and take every signature, of these and no others.
fn others_read_the_same(all: &[Filed], keys: &Keys) {
    let dir = place::directory();
    let mut files: Vec<PathBuf> = all
        .iter()
        .enumerate()
        .map(|(at, one)| write(dir.path(), at, &one.octets))
        .collect();
    // What was changed on its way has to be seen, or the rest says nothing.
    let text = String::from_utf8(all[0].octets.clone()).unwrap();
    let changed = text.replace("Subject: Your", "Subject: Our");
    assert_ne!(changed, text);
    files.push(write(dir.path(), all.len(), changed.as_bytes()));

    if let Some(read) = read_by_python(&files, keys) {
        for (one, read) in all.iter().zip(&read) {
            reads_as_given(&one.body, read);
            assert_eq!(read["passes"], json!([true]), "{read:#}");
        }
        assert_eq!(read[all.len()]["passes"], json!([false]));
    }
    if let Some(passed) = passed_by_opendkim(dir.path(), &files, keys) {
        let mut expected = vec![1; all.len()];
        expected.push(0);
        assert_eq!(passed, expected);
    }
}

fn write(dir: &Path, at: usize, octets: &[u8]) -> PathBuf {
    let path = dir.join(format!("{at}.eml"));
    fs::write(&path, octets).unwrap();
    path
}

fn reads_as_given(body: &Value, read: &Value) {
    assert_eq!(read["subject"], body["subject"]);
    assert_eq!(read["defects"], json!([]), "{}", body["to"]);
    // A composed text ends where its white space begins; that of a finished message was compared
    // octet by octet.
    let blanks = [' ', '\t', '\n'];
    let lines = |text: &str| {
        text.replace("\r\n", "\n")
            .trim_end_matches(blanks)
            .to_owned()
    };
    for field in ["text", "html"] {
        if let Some(given) = body[field].as_str() {
            let found = read[field].as_str().unwrap_or_default();
            assert_eq!(lines(found), lines(given), "{field} of {}", body["to"]);
        }
    }
    let files = body["attachments"].as_array().into_iter().flatten();
    let files = files.map(|file| {
        let content = BASE64.decode(file["content"].as_str().unwrap()).unwrap();
        json!([file["filename"], sha256(&content)])
    });
    assert_eq!(read["files"], files.collect::<Value>(), "{}", body["to"]);
}

fn sha256(octets: &[u8]) -> String {
    let hash = digest(&SHA256, octets);
    hash.as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

async fn refused(api: &Api, to: &str, status: &str, reply: &str) {
    let id = api.send(&message("acme.test", to)).await;
    let email = api.becomes(&id, status).await;
    let delivery = &email["deliveries"][0];
    let attempt = &delivery["attempts"][0];
    let found = attempt["reply"].as_str().unwrap_or_default();
    assert!(found.starts_with(reply), "{to}: {email:#}");
    let kind = format!("email.{status}");
    assert_eq!(event_types(delivery), ["email.queued", &kind], "{email:#}");
    let is_final = &delivery["events"][1]["final"];
    assert_eq!(*is_final, status == "bounced", "{email:#}");
}
