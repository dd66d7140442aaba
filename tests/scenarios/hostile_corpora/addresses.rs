//! Addresses: each is refused in every field and never heard of by a receiver, or is given to a
//! receiver as the one recipient it means.

use std::collections::BTreeMap;

use reqwest::{Method, Url};
use serde_json::json;
use tests::api::{Answer, Api, message};
use tests::platform::Platform;
use tests::sink::{Receipt, Sink};
use tests::{PATIENCE, ledger, take_turn};

use crate::corpus::{self, Case};

/// Stands in a body for an address as the corpus writes it.
const PLACE: &str = "the address";
/// Taken although the corpus would not.
const TAKEN: [&str; 9] = [
    // A recipient may have a name, and spaces around it.
    "DisplayName <me@example.com>",
    "Display.Name <me@example.com>",
    " test@iana.org",
    "test@iana.org ",
    // Which domains there are is for DNS to say.
    "me@onion.onion.onion",
    "me@test.test.test",
    "me@bad.tld-2",
    // Local parts are the receiver's: they may be in any script, and are not normalised, which would
    // make the second one too long.
    "\"quoted.with..unicode.λ\"@example.com",
    "my.\u{fb2c}.address@1111111111222222222233333333334444444444555555555\
     .6666666666777777777788888888889999999999000000000\
     .1111111111222222222233333333334444444444555555555\
     .6666666666777777777788888888889999999999000000000.11111111112222222222333333333344.info",
];

/// What has to become of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It cannot be told apart from broken JSON.
    NoText,
    Refused,
    /// Its recipient in SMTP.
    Taken(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_addresses_are_refused_everywhere_or_become_one_recipient() {
    let Some(cases) = corpus::cases("addresses") else {
        return;
    };
    let _turn = take_turn();
    let sink = Sink::options().keeps_commands().start().await;
    let builder = Platform::builder().route("*", sink.address);
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let (mut tried, mut taken, mut wrong) = (0, BTreeMap::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        let fate = fate(case);
        let mut mail = message("acme.test", PLACE);
        mail["headers"] = json!({"X-Test-Id": number.to_string()});
        let sent = give(&api, "/v1/emails", &mail.to_string(), case).await;
        wrong.extend(complaint(&fate, &sent, 202, "/to").map(|what| format!("{what}: {case:?}")));
        if let Fate::Taken(recipient) = fate {
            taken.insert(number.to_string(), recipient);
        }
        tried += 1;
    }
    assert_eq!(tried, cases.len());
    let exceptions = cases.iter().filter_map(|case| case.read("address"));
    let exceptions = exceptions.filter(|address| TAKEN.contains(&address.as_str().unwrap()));
    assert_eq!(exceptions.count(), TAKEN.len(), "an exception to nothing");
    ledger::settled(&platform.pool, PATIENCE).await;
    let receipts = sink.receipts();
    wrong.extend(misdelivered(&taken, &receipts));
    wrong.extend(unexpected_commands(&taken, &sink.commands()));
    let refused = cases.iter().filter(|case| fate(case) == Fate::Refused);
    wrong.extend(leaked(refused, &taken, &receipts, &sink.commands()));

    // Only now: whoever is on the list gets no mail.
    for case in &cases {
        let body = json!({"address": PLACE}).to_string();
        let listed = give(&api, "/v1/suppressions", &body, case).await;
        let complaint = complaint(&listed_as(case), &listed, 201, "/address");
        wrong.extend(complaint.map(|what| format!("listed, {what}: {case:?}")));
    }
    eprintln!("hostile addresses: {} of {tried} taken", taken.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!((20..200).contains(&taken.len()), "{}", taken.len());
}

/// Asks with the address in its place, as the corpus writes it.
async fn give(api: &Api, path: &str, body: &str, case: &Case) -> Answer {
    let place = format!("\"{PLACE}\"");
    assert_eq!(body.matches(&place).count(), 1, "{body}");
    let request = api.request(Method::POST, path);
    let request = request.body(body.replace(&place, case.written("address")));
    let request = request.header("content-type", "application/json");
    api.ask(request).await.unwrap()
}

fn complaint(fate: &Fate, answer: &Answer, good: u16, field: &str) -> Option<String> {
    let (status, body) = (answer.status.as_u16(), answer.json());
    let as_wanted = match fate {
        Fate::NoText => status == 400 && body["code"] == "malformed_json",
        Fate::Refused => {
            let pointer = body["errors"][0]["pointer"].as_str().unwrap_or_default();
            status == 422 && body["code"] == "validation_failed" && pointer.starts_with(field)
        }
        // The same address may be on the list already, under another spelling.
        Fate::Taken(_) if good == 201 => matches!(status, 200 | 201),
        Fate::Taken(_) => {
            let recipients = body["deliveries"].as_array().map(Vec::len);
            status == good && recipients == Some(1)
        }
    };
    (!as_wanted).then(|| format!("{fate:?}, answered {answer:?}"))
}

/// What the corpus says, and our rules where they are others.
fn fate(case: &Case) -> Fate {
    let Some(address) = case.read("address") else {
        return Fate::NoText;
    };
    let address = address.as_str().unwrap();
    let expect = case.read("expect").unwrap();
    let accepted = expect["accept_as_smtp_recipient"].as_bool().unwrap();
    if TAKEN.contains(&address) || accepted && !refused_by_policy(address) {
        return Fate::Taken(recipient(address));
    }
    Fate::Refused
}

/// What we refuse although the corpus would not.
fn refused_by_policy(address: &str) -> bool {
    let Some((_, domain)) = address.rsplit_once('@') else {
        // Single characters, in the corpus for another test.
        return true;
    };
    let last_label = domain.rsplit('.').next().unwrap();
    // Address literals; domains of a single label; IP addresses, which a last label of digits is; an
    // A-label that is none.
    domain.ends_with(']')
        || !domain.contains('.')
        || last_label.bytes().all(|octet| octet.is_ascii_digit())
        || domain == "xn--example.com"
}

/// What an entry of the list may be: an address with nothing around it.
fn listed_as(case: &Case) -> Fate {
    let fate = fate(case);
    let Some(address) = case.read("address") else {
        return fate;
    };
    let address = address.as_str().unwrap();
    match address.ends_with('>') || address.trim() != address {
        true => Fate::Refused,
        false => fate,
    }
}

/// An accepted address as RFC 5321 writes it: nothing around it, quotes only where they must be, the domain in
/// lower case and as A-labels. Shares no code with the platform, and trusts that it is an address.
fn recipient(address: &str) -> String {
    let address = address.trim_matches(' ');
    let inside = address
        .strip_suffix('>')
        .map(|text| &text[text.rfind('<').unwrap() + 1..]);
    let (local, domain) = inside.unwrap_or(address).rsplit_once('@').unwrap();
    let url = Url::parse(&format!("http://{domain}")).unwrap();
    let domain = url.host_str().unwrap().to_owned();
    let Some(quoted) = local.strip_prefix('"') else {
        return format!("{local}@{domain}");
    };
    let (mut meaning, mut escaped) = (String::new(), false);
    for character in quoted.strip_suffix('"').unwrap().chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            meaning.push(character);
        }
    }
    let special = meaning.contains(|c: char| c.is_ascii() && "()<>[]:;@\\,\" ".contains(c));
    let is_dot_string = !special && !meaning.split('.').any(str::is_empty);
    if is_dot_string {
        return format!("{meaning}@{domain}");
    }
    let escaped = meaning.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"@{domain}")
}

/// Mail that came for others, did not come, or came twice.
fn misdelivered(taken: &BTreeMap<String, String>, receipts: &[Receipt]) -> Vec<String> {
    let mut missing = taken.clone();
    let mut wrong = Vec::new();
    for receipt in receipts {
        if missing.remove(&receipt.id).as_ref() != Some(&receipt.recipient) {
            wrong.push(format!("not to come: {receipt:?}"));
        }
    }
    wrong.extend(missing.iter().map(|one| format!("did not come: {one:?}")));
    wrong
}

/// Commands that a client has no business to write; RCPT is known to the last octet.
fn unexpected_commands(taken: &BTreeMap<String, String>, commands: &[String]) -> Vec<String> {
    let recipient = |address| format!("RCPT TO:<{address}>");
    let mut recipients: Vec<String> = taken.values().map(recipient).collect();
    let mut wrong = Vec::new();
    for command in commands {
        let expected = match command.split(' ').next().unwrap() {
            "EHLO" | "MAIL" => !command.contains(char::is_control),
            "RCPT" => {
                let place = recipients.iter().position(|one| one == command);
                place.map(|place| recipients.swap_remove(place)).is_some()
            }
            verb => matches!(verb, "DATA" | "RSET" | "QUIT") && verb == command,
        };
        if !expected {
            wrong.push(format!("written to a receiver: {command:?}"));
        }
    }
    wrong
}

/// Refused addresses in anything that was written to a receiver.
fn leaked<'a>(
    refused: impl Iterator<Item = &'a Case>,
    taken: &BTreeMap<String, String>,
    receipts: &[Receipt],
    commands: &[String],
) -> Vec<String> {
    let without = |text: &str, recipient: &str| text.replace(recipient, "");
    // Recipients are known to be right, and some contain others that are refused.
    let mails = receipts.iter().map(|receipt| {
        let content = String::from_utf8_lossy(&receipt.content);
        without(
            &content,
            taken.get(&receipt.id).unwrap_or(&receipt.recipient),
        )
    });
    let commands = commands.iter().filter(|line| !line.starts_with("RCPT "));
    let written: Vec<String> = mails.chain(commands.cloned()).collect();
    let addresses = refused.map(|case| case.text("address"));
    // "test" and "@" are in every mail, since they are no more than that.
    let addresses = addresses.filter(|address| address.len() > 4);
    addresses
        .filter(|address| written.iter().any(|text| text.contains(address)))
        .map(|address| format!("refused, and written to a receiver: {address:?}"))
        .collect()
}
