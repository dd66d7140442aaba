//! What operators look at shows something: a real Prometheus takes the configuration of `deploy`,
//! scrapes the three roles under a little traffic, and has an answer for every query of the
//! dashboard and every alert.
//!
//! Prometheus comes from `cargo xtask bootstrap`, unpacked and not installed.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests::api::{Api, message};
use tests::platform::Platform;
use tests::receiver::WebhookReceiver;
use tests::sink::{Asked, Sink, Verdict};
use tests::{PATIENCE, place, take_turn, until};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const ROLES: [&str; 3] = ["api", "mta", "worker"];

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_and_every_alert_has_data() {
    let _turn = take_turn();
    let Some(programs) = programs() else {
        return;
    };
    let sink = Sink::options().script(by_local_part).start().await;
    let mut builder = Platform::builder().route("*", sink.address).leases(3, 600);
    for role in ROLES {
        builder = builder.node(role, role);
    }
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let prometheus = Prometheus::start(&programs, &platform).await;
    let receiver = WebhookReceiver::start().await;
    let api = platform.api(0);
    let events = ["email.delivered", "email.deferred", "email.bounced"];
    api.create_webhook(&receiver.url, &events).await;

    let alerts = prometheus.alerts().await;
    let alert_values = alerts.iter().map(|(_, expr)| compared(expr).to_owned());
    let mut open: Vec<String> = dashboard_queries();
    assert!(open.len() > 25 && alerts.len() > 10, "{open:?} {alerts:?}");
    open.extend(alert_values);
    // Rates need changes between two scrapes, so there is traffic for as long as somebody waits.
    for round in 0..40 {
        wave(&api, &platform.tenant.domain, round).await;
        let mut without = Vec::new();
        for expr in open {
            if !prometheus.has_data(&expr).await {
                without.push(expr);
            }
        }
        open = without;
        if open.is_empty() {
            break;
        }
    }
    assert!(open.is_empty(), "no data for {open:#?}");

    for node in &platform.nodes {
        every_metric_is_explained(&format!("http://{}/metrics", node.file.metrics)).await;
    }

    // And an alert is one when there is reason for it.
    for name in ["ProcessDown", "ShardsUnowned"] {
        let (_, expr) = alerts.iter().find(|(alert, _)| alert == name).unwrap();
        assert!(!prometheus.has_data(expr).await, "{name} without reason");
    }
    platform.node("mta").kill();
    for name in ["ProcessDown", "ShardsUnowned"] {
        let (_, expr) = alerts.iter().find(|(alert, _)| alert == name).unwrap();
        let prometheus = &prometheus;
        until(name, PATIENCE * 2, || async move {
            prometheus.has_data(expr).await.then_some(())
        })
        .await;
    }
}

fn by_local_part(asked: &Asked) -> Verdict {
    match asked.local_part.as_str() {
        "later" => Verdict::AtRcpt("451 4.7.1 greylisted, try again later"),
        "nobody" => Verdict::AtRcpt("550 5.1.1 no such user"),
        _ => Verdict::Accept,
    }
}

/// One message of each fate, and until each has met it.
async fn wave(api: &Api, from_domain: &str, round: usize) {
    for (local_part, status) in [
        ("ana", "delivered"),
        ("later", "deferred"),
        ("nobody", "bounced"),
    ] {
        // Somebody who bounced once is suppressed: the next is another's mailbox.
        let to = format!("{local_part}@customer-{round}.test");
        let id = api.send(&message(from_domain, &to)).await;
        api.becomes(&id, status).await;
    }
}

fn dashboard_queries() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(Path::new(DEPLOY).join(path)).unwrap();
    let board: Value = serde_json::from_str(&read("grafana/dashboards/postrider.json")).unwrap();
    let source = read("grafana/provisioning/datasources/prometheus.yml");
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets
        .map(|target| {
            let uid = target["datasource"]["uid"].as_str().unwrap();
            assert!(source.contains(&format!("uid: {uid}\n")), "{target}");
            let expr = target["expr"].as_str().unwrap();
            expr.replace("$__rate_interval", "30s")
        })
        .collect()
}

/// The value that an alert compares with its threshold.
fn compared(expr: &str) -> &str {
    let at = expr.rfind(" > ").or_else(|| expr.rfind(" < ")).unwrap();
    &expr[..at]
}

async fn every_metric_is_explained(url: &str) {
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut count = 0;
    for name in names {
        count += 1;
        let mut helps = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
        let help = helps.find_map(|help| help.strip_prefix(name)?.strip_prefix(' '));
        assert!(help.is_some_and(|help| help.len() > 10), "{name}: {help:?}");
    }
    assert!(count > 5, "{text}");
}

/// The directory of the unpacked programs; none, and a loud line, where they are not there.
fn programs() -> Option<PathBuf> {
    let peers = PathBuf::from(
        env::var_os("POSTRIDER_PEERS")
            .unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers").into()),
    );
    if peers.join("prometheus/complete").exists() {
        return Some(peers.join("prometheus/root/usr/bin"));
    }
    eprintln!(
        "SKIPPED: no Prometheus in {}: run `cargo xtask bootstrap`",
        peers.display()
    );
    None
}

struct Prometheus {
    url: String,
    child: Child,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with the configuration of `deploy`, on the addresses of this platform.
    async fn start(programs: &Path, platform: &Platform) -> Self {
        let dir = place::directory();
        let read = |name: &str| fs::read_to_string(Path::new(DEPLOY).join("prometheus").join(name));
        let mut config = read("prometheus.yml")
            .unwrap()
            .replace("interval: 15s", "interval: 1s");
        for (role, node) in ROLES.iter().zip(&platform.nodes) {
            let target = format!("\"{role}:9464\"");
            assert!(config.contains(&target), "{config}");
            config = config.replace(&target, &format!("\"{}\"", node.file.metrics));
        }
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        fs::write(dir.path().join("alerts.yml"), read("alerts.yml").unwrap()).unwrap();
        let checked = Command::new(programs.join("promtool"))
            .args(["check", "config"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");

        let address = place::free_address();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self {
            url: format!("http://{address}"),
            child,
            dir,
        };
        let ready = format!("{}/-/ready", prometheus.url);
        until("Prometheus is ready", PATIENCE, || async {
            let answer = reqwest::get(&ready).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        prometheus
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("{}{path}", self.url);
        let url = reqwest::Url::parse_with_params(&url, parameters).unwrap();
        let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// Whether the query has a value that is a number.
    async fn has_data(&self, expr: &str) -> bool {
        let data = self.ask("/api/v1/query", &[("query", expr)]).await;
        let results = data["result"].as_array().unwrap().iter();
        let mut values = results.filter_map(|result| result["value"][1].as_str());
        values.any(|value| value != "NaN")
    }

    /// Name and expression of every alert, once all have been evaluated without an error.
    async fn alerts(&self) -> Vec<(String, String)> {
        until("all rules are evaluated", PATIENCE, || async {
            let data = self.ask("/api/v1/rules", &[]).await;
            let rules = data["groups"][0]["rules"].as_array()?.clone();
            let evaluated = rules.iter().all(|rule| rule["health"] == "ok");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let pairs = rules
                .iter()
                .map(|rule| (text(&rule["name"]), text(&rule["query"])));
            evaluated.then(|| pairs.collect())
        })
        .await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone_either_way = self.child.kill().and_then(|()| self.child.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log"));
            eprintln!("--- log of Prometheus\n{}", log.unwrap_or_default());
        }
    }
}
