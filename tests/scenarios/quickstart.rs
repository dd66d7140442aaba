//! docs/quickstart.md, done as it is written: its commands are run by a shell, in their order, with
//! the ids that came before put in for the dots. Only names of the world outside are replaced: the
//! domain by one of the test's DNS, the webhook's address by that of a real receiver.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::dev::Dev;
use tests::dns::Dns;
use tests::receiver::WebhookReceiver;
use tests::{PATIENCE, place, take_turn, until};

const OWN_DOMAIN: &str = "mail.shop.test";
const READY_MESSAGE: &str =
    "From: Shop <hello@sandbox.test>\r\nSubject: Ready\r\n\r\nAs it is.\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_does_what_it_says() {
    let _turn = take_turn();
    let dir = place::directory();
    let dns = Dns::start().await;
    let receiver = WebhookReceiver::start().await;
    let config = dir.path().join("dev.toml");
    let nameserver = dns.address;
    fs::write(
        &config,
        format!("[dns]\nnameservers = [\"{nameserver}\"]\n"),
    )
    .unwrap();
    fs::write(dir.path().join("message.eml"), READY_MESSAGE).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let dev = tokio::task::block_in_place(|| Dev::start(&dir.path().join("data"), &config));
    let api = Api::at(dev.field("api_url"), dev.field("api_key"));
    let mut page = Page::open(&dev, &receiver, dir.path());

    let domain = page.run("1.", "/v1/domains ", 201);
    for record in domain["records"].as_array().unwrap() {
        let field = |name: &str| record[name].as_str();
        match (field("type"), field("name"), field("value")) {
            (Some("TXT"), Some(name), Some(value)) => dns.txt(name, value),
            (Some("CNAME"), Some(name), Some(value)) => dns.cname(name, value),
            (_, _, None) => assert_eq!(record["required"], false, "{record:#}"),
            _ => panic!("cannot be published: {record:#}"),
        }
    }
    let verified = page.run("3.", "/verify", 200);
    assert_eq!(verified["status"], "verified", "{verified:#}");

    let webhook = page.run("4.", "/v1/webhooks ", 201);
    let id = webhook["id"].as_str().unwrap();
    let tested = api
        .post(&format!("/v1/webhooks/{id}/test"), &json!({}))
        .await;
    assert!(tested.status.is_success(), "{tested:?}");
    receiver
        .has("the test event", |calls| !calls.is_empty())
        .await;
    let path = format!("/v1/webhooks/{id}/calls");
    until("the call is in the log", PATIENCE, || async {
        let calls = api.get(&path).await.json();
        (calls["data"][0]["status"] == "succeeded").then_some(())
    })
    .await;

    let from_own = api
        .send(&message(OWN_DOMAIN, "delivered@sandbox.test"))
        .await;
    api.becomes(&from_own, "delivered").await;
    let raw = {
        let sent = page.run("5.", "/v1/emails ", 202);
        let sent = sent["id"].as_str().unwrap().to_owned();
        finished(&api, &sent).await;
        receiver
            .has("delivery and bounce are told", |calls| {
                let kinds: Vec<String> = calls.iter().map(|call| call.kind()).collect();
                ["email.delivered", "email.bounced"]
                    .iter()
                    .all(|kind| kinds.iter().any(|told| told == kind))
            })
            .await;
        let raw = page.run("5.", "/v1/emails/raw", 202);
        page.ids.insert("msg".to_owned(), sent);
        raw["id"].as_str().unwrap().to_owned()
    };
    api.becomes(&raw, "delivered").await;

    let email = page.run("6.", "/v1/emails/msg_... ", 200);
    let deliveries = email["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 2);
    let bounced = deliveries.iter().find(|one| one["status"] == "bounced");
    let bounced = bounced.unwrap()["id"].as_str().unwrap().to_owned();
    page.ids.insert("dlv".to_owned(), bounced);
    let sent = email["id"].clone();
    until("the index knows it", PATIENCE, || async {
        let found = api
            .get("/v1/emails?recipient=unknown@sandbox.test")
            .await
            .json();
        (found["data"][0]["id"] == sent).then_some(())
    })
    .await;
    let found = page.run("6.", "recipient=", 200);
    assert_eq!(found["data"][0]["id"], sent, "{found:#}");
    let transcript = page.run("6.", "/transcript", 200);
    assert!(transcript.to_string().contains("RCPT TO"), "{transcript:#}");
    let inbox: Value = reqwest::get(dev.field("inbox_url"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let results = |mail: &Value| mail["authentication_results"].as_str().unwrap().to_owned();
    for mail in inbox["data"].as_array().unwrap() {
        assert!(results(mail).contains("dkim=pass"), "{mail:#}");
    }

    let unknown = json!({"from": "hello@sandbox.test", "to": ["unknown@sandbox.test"],
                         "subject": "Again", "text": "Is it you?"});
    let again = api.send(&unknown).await;
    api.becomes(&again, "suppressed").await;
    page.run("7.", "/v1/suppressions ", 201);
    let listed = page.run("7.", "/v1/suppressions?address=", 200);
    assert_eq!(
        listed["data"][0]["address"], "ana@example.com",
        "{listed:#}"
    );
    page.run("7.", "-X DELETE", 204);

    page.ids
        .insert("msg".to_owned(), sent.as_str().unwrap().to_owned());
    let resent = page.run("8.", "/resend", 202);
    api.becomes(resent["id"].as_str().unwrap(), "delivered")
        .await;
    assert_eq!(
        page.left(),
        Vec::<String>::new(),
        "commands that were not run"
    );
}

/// No delivery waits any more.
async fn finished(api: &Api, id: &str) {
    until("both deliveries end", PATIENCE, || async {
        let email = api.email(id).await;
        let ends = ["delivered", "bounced"];
        let deliveries = email["deliveries"].as_array()?;
        deliveries
            .iter()
            .all(|one| ends.contains(&one["status"].as_str().unwrap_or_default()))
            .then_some(())
    })
    .await;
}

/// The commands of the page, by chapter.
struct Page {
    commands: Vec<(String, String)>,
    run: Vec<bool>,
    /// The newest id of each kind, by its prefix.
    ids: HashMap<String, String>,
    variables: String,
    directory: PathBuf,
}

impl Page {
    fn open(dev: &Dev, receiver: &WebhookReceiver, directory: &Path) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quickstart.md");
        let page = fs::read_to_string(page).unwrap();
        let page = page
            .replace("mail.example.com", OWN_DOMAIN)
            .replace("https://example.com/hook", &receiver.url);
        let mut commands: Vec<(String, String)> = Vec::new();
        let mut chapter = String::new();
        for line in page.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                title.clone_into(&mut chapter);
            } else if let Some(code) = line.strip_prefix("    ") {
                if code.starts_with("curl ") {
                    commands.push((chapter.clone(), code.to_owned()));
                } else if let Some((_, command)) = commands.last_mut() {
                    command.push('\n');
                    command.push_str(code);
                }
            }
        }
        let (url, key) = (dev.field("api_url"), dev.field("api_key"));
        Self {
            run: vec![false; commands.len()],
            commands,
            ids: HashMap::new(),
            variables: format!(
                "api={url}\nkey='Authorization: Bearer {key}'\njson='Content-Type: application/json'\n"
            ),
            directory: directory.to_owned(),
        }
    }

    /// Runs the command of a chapter that holds these words; its answer must have this status.
    fn run(&mut self, chapter: &str, words: &str, status: u16) -> Value {
        let fits =
            |(of, command): &(String, String)| of.starts_with(chapter) && command.contains(words);
        let position = self
            .commands
            .iter()
            .position(fits)
            .unwrap_or_else(|| panic!("no command with {words:?} in chapter {chapter}"));
        self.run[position] = true;
        let mut command = self.commands[position].1.clone();
        for (prefix, id) in &self.ids {
            command = command.replace(&format!("{prefix}_..."), id);
        }
        let command = command.replacen("curl -s", "curl -s -w '\\n%{http_code}'", 1);
        let output = Command::new("sh")
            .args(["-c", &format!("{}{command}", self.variables)])
            .current_dir(&self.directory)
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let (body, code) = output.rsplit_once('\n').unwrap_or(("", &output));
        assert_eq!(code, status.to_string(), "{command}\n{body}");
        let answer: Value = serde_json::from_str(body).unwrap_or_else(|_| body.into());
        if let Some((prefix, _)) = answer["id"].as_str().and_then(|id| id.split_once('_')) {
            let id = answer["id"].as_str().unwrap().to_owned();
            self.ids.insert(prefix.to_owned(), id);
        }
        answer
    }

    /// Commands that were not run.
    fn left(&self) -> Vec<String> {
        let commands = self.commands.iter().zip(&self.run);
        commands
            .filter(|(_, run)| !**run)
            .map(|((_, command), _)| command.clone())
            .collect()
    }
}
