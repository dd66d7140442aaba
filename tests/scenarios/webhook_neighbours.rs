//! Webhook endpoints that hang, that answer 500, and that send their caller on to a metadata
//! address: they delay nobody else's calls, lead nowhere, and lose nothing, not even when the
//! dispatcher's process is killed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::platform::Platform;
use tests::receiver::{Call, Manner, WebhookReceiver};
use tests::sink::Sink;
use tests::tenant::Tenant;
use tests::{PATIENCE, take_turn, until};

/// Calls whose delay is measured, each for a mail sent when the one before was told of.
const SAMPLES: usize = 15;
/// The delay may be so many times that of the same run without bad neighbours: machines are busy.
const RATIO_MAX: f64 = 3.0;
/// Below this a ratio says nothing: the log is read every quarter of a second at rest.
const DELAY_FLOOR: Duration = Duration::from_millis(250);
/// More than all calls that may be under way at a time (`max_webhook_calls`).
const BACKLOG: usize = 300;
/// More than those to one endpoint.
const SOME: usize = 60;
const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

/// A platform whose dispatcher is a process of its own.
struct World {
    platform: Platform,
    _sink: Sink,
    api: Api,
    /// The account's endpoint that does as it should.
    well: WebhookReceiver,
}

/// Endpoints of the account that do not, and where one of them leads.
struct Bad {
    failing: WebhookReceiver,
    hanging: WebhookReceiver,
    to_metadata: WebhookReceiver,
    to_trap: WebhookReceiver,
    trap: WebhookReceiver,
}

impl World {
    async fn start() -> Option<Self> {
        let sink = Sink::options().start().await;
        let builder = Platform::builder().route("*", sink.address).clock();
        let builder = builder
            .node("front", "api,mta")
            .node("dispatcher", "worker");
        let platform = builder.start().await?;
        let (api, well) = (platform.api(0), WebhookReceiver::start().await);
        api.create_webhook(&well.url, &["email.delivered"]).await;
        Some(Self {
            platform,
            _sink: sink,
            api,
            well,
        })
    }

    /// Sends so many mails; their ids.
    async fn send(&self, count: usize) -> BTreeSet<String> {
        let mail = message(&self.platform.tenant.domain, "ana@sink.test");
        let answer = self
            .api
            .post("/v1/emails/batch", &json!(vec![mail; count]))
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let data = answer.json()["data"].as_array().unwrap().clone();
        let ids = data
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    async fn kill_dispatcher(&mut self) {
        let node = self.platform.node("dispatcher");
        tokio::task::block_in_place(|| node.kill());
        node.restart().await;
    }

    fn advance(&self, by: Duration) {
        self.platform.clock.as_ref().unwrap().advance(by).unwrap();
    }
}

impl Bad {
    /// Registers them.
    async fn start(api: &Api) -> Self {
        let bad = Self {
            failing: WebhookReceiver::start().await,
            hanging: WebhookReceiver::start().await,
            to_metadata: WebhookReceiver::start().await,
            to_trap: WebhookReceiver::start().await,
            trap: WebhookReceiver::start().await,
        };
        bad.failing.behave(Manner::Status(500));
        bad.hanging.behave(Manner::Hangs);
        let metadata = Manner::RedirectsTo(METADATA.to_owned());
        bad.to_metadata.behave(metadata);
        // Whether somebody goes to a metadata address cannot be seen; here it can.
        let trap = Manner::RedirectsTo(bad.trap.url.clone());
        bad.to_trap.behave(trap);
        for one in bad.all() {
            api.create_webhook(&one.url, &["email.delivered"]).await;
        }
        bad
    }

    fn all(&self) -> [&WebhookReceiver; 4] {
        let Self {
            failing,
            hanging,
            to_metadata,
            to_trap,
            trap: _,
        } = self;
        [failing, hanging, to_metadata, to_trap]
    }

    /// Waits until calls of each are under way, and as many as may be to the one that hangs.
    async fn are_called(&self) {
        for one in self.all() {
            one.has("it was called", |calls| !calls.is_empty()).await;
        }
        let hanging = |calls: &[Call]| calls.len() >= 16;
        self.hanging.has("all its calls hang", hanging).await;
    }
}

async fn send(api: &Api, tenant: &Tenant) -> String {
    api.send(&message(&tenant.domain, "ana@sink.test")).await
}

/// The median time from a mail's acceptance to the call about it.
async fn delay(api: &Api, tenant: &Tenant, receiver: &WebhookReceiver) -> Duration {
    let mut delays = Vec::new();
    for _ in 0..SAMPLES {
        let id = send(api, tenant).await;
        let accepted = Instant::now();
        receiver
            .has("the mail is told", |calls| told(calls).contains(&id))
            .await;
        delays.push(accepted.elapsed());
    }
    delays.sort();
    delays[SAMPLES / 2]
}

fn assert_no_worse(whose: &str, alone: Duration, beside: Duration) {
    eprintln!("{whose}: {alone:?} alone, {beside:?} beside bad ones");
    let ratio = beside.as_secs_f64() / alone.max(DELAY_FLOOR).as_secs_f64();
    assert!(ratio < RATIO_MAX, "{whose}: {alone:?} became {beside:?}");
}

/// The messages that were told of in calls that were taken.
fn told(calls: &[Call]) -> BTreeSet<String> {
    let taken = calls.iter().filter(|call| call.answered / 100 == 2);
    let message = |call: &Call| {
        call.json()["data"]["message_id"]
            .as_str()
            .map(str::to_owned)
    };
    taken.filter_map(message).collect()
}

/// The webhook at this address, as it is shown.
async fn webhook_at(api: &Api, receiver: &WebhookReceiver) -> Value {
    let listed = api.get("/v1/webhooks").await.json();
    let data = listed["data"].as_array().unwrap();
    let mine = data.iter().find(|one| one["url"] == receiver.url.as_str());
    mine.unwrap().clone()
}

/// Asks for everything once more; the path of the replay.
async fn replay(api: &Api, receiver: &WebhookReceiver, from: &str) -> String {
    let webhook = webhook_at(api, receiver).await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let asked = api
        .post(&format!("{path}/replay"), &json!({"from": from}))
        .await;
    assert_eq!(asked.status, 202, "{asked:?}");
    format!("{path}/replays/{}", asked.json()["id"].as_str().unwrap())
}

async fn is_done(api: &Api, replay: &str) -> Value {
    until("the replay is done", PATIENCE, || async {
        let shown = api.get(replay).await.json();
        (shown["status"] == "done").then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_endpoints_delay_no_other_and_lead_nowhere() {
    let _turn = take_turn();
    let Some(world) = World::start().await else {
        return;
    };
    let config = world.platform.admin_config.clone();
    let other = tokio::task::block_in_place(|| Tenant::create(&config, "other"));
    let (stranger, elsewhere) = (
        world.api.with_key(&other.key),
        WebhookReceiver::start().await,
    );
    let delivered = ["email.delivered"];
    stranger.create_webhook(&elsewhere.url, &delivered).await;
    let (api, tenant) = (&world.api, &world.platform.tenant);
    let same_alone = delay(api, tenant, &world.well).await;
    let other_alone = delay(&stranger, &other, &elsewhere).await;

    let bad = Bad::start(api).await;
    world.send(BACKLOG).await;
    bad.are_called().await;
    let same_beside = delay(api, tenant, &world.well).await;
    let other_beside = delay(&stranger, &other, &elsewhere).await;
    assert_no_worse("the same account", same_alone, same_beside);
    assert_no_worse("another account", other_alone, other_beside);

    let path = webhook_at(api, &bad.to_metadata).await;
    let path = format!("/v1/webhooks/{}/calls", path["id"].as_str().unwrap());
    let call = until("the log shows the redirect", PATIENCE, || async {
        let shown = api.get(&path).await.json();
        shown["data"].as_array().unwrap().first().cloned()
    })
    .await;
    // What was at the other end would be another answer, or a call that was refused.
    assert_eq!(call["response_status"], 307, "{call:#}");
    assert_eq!(
        (&call["status"], &call["error"]),
        (&json!("failed"), &json!("status"))
    );
    assert!(bad.trap.calls().is_empty(), "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_endpoints_and_kills_lose_no_event_and_stop_no_replay() {
    let _turn = take_turn();
    let Some(mut world) = World::start().await else {
        return;
    };
    let bad = Bad::start(&world.api).await;
    let mut sent = world.send(SOME).await;
    bad.are_called().await;
    let all = |calls: &[Call]| told(calls).is_superset(&sent);
    let first = world.well.has("everything was told", all).await;

    // Killed while calls hang, others wait, and one endpoint is told old and new events.
    world
        .well
        .behave(Manner::Slowly(Duration::from_millis(60), 200));
    let times = first
        .iter()
        .map(|call| call.json()["timestamp"].as_str().unwrap().to_owned());
    let from = times.min().unwrap();
    let asked = replay(&world.api, &world.well, &from).await;
    let before = world.well.calls().len();
    let again = |calls: &[Call], of: &BTreeSet<String>| {
        let told = told(&calls[before..]);
        told.intersection(of).count()
    };
    let old = sent.clone();
    sent.extend(world.send(SOME).await);
    for some in [5, 20] {
        let some_again = |calls: &[Call]| again(calls, &old) >= some;
        world.well.has("some was told again", some_again).await;
        world.kill_dispatcher().await;
        let told = again(&world.well.calls(), &old);
        assert!(told < SOME, "the kill came too late");
    }
    let all_again = |calls: &[Call]| again(calls, &sent) == sent.len();
    world
        .well
        .has("old and new events were told", all_again)
        .await;
    let done = is_done(&world.api, &asked).await;
    assert!(done["events"].as_u64().unwrap() >= SOME as u64, "{done:#}");
    assert_eq!(done["waiting"], 0, "{done:#}");

    // They get well. What waited for them survives yet another kill.
    for one in bad.all() {
        assert!(told(&one.calls()).is_empty(), "it was bad until now");
        one.behave(Manner::Status(204));
    }
    world.kill_dispatcher().await;
    world.advance(Duration::from_secs(3_600));
    for one in bad.all() {
        let all = |calls: &[Call]| told(calls) == sent;
        one.has("nothing was lost", all).await;
        let before = one.calls().len();
        let asked = replay(&world.api, one, &from).await;
        let all_again = |calls: &[Call]| told(&calls[before..]) == sent;
        one.has("everything was told again", all_again).await;
        let done = is_done(&world.api, &asked).await;
        assert_eq!(done["events"], sent.len(), "{done:#}");
        assert_eq!(
            events(&one.calls()),
            events(&world.well.calls()),
            "other ids"
        );
    }
    assert!(bad.trap.calls().is_empty(), "a redirect was followed");
}

/// The ids of the events that were told.
fn events(calls: &[Call]) -> BTreeSet<String> {
    let id = |call: &Call| call.header("webhook-id").to_owned();
    calls.iter().map(id).collect()
}
