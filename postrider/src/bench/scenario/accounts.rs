//! What one account with a very long queue does to all the others that send to the same receiver.
//! The receiver takes its time, so that its connections are what is short and not the machine: how
//! these are shared out is the question.

use super::super::own_config::{RECIPIENT_DOMAIN, correspondence};
use super::super::own_platform::OwnPlatform;
use super::fill::Fill;
use super::pairs::Effort;
use super::{Answer, Question, pairs};

/// Wait of the receiver before its final reply, unless the command line says.
const LATENCY: &str = "50ms";

pub(super) async fn run(question: &Question<'_>) -> anyhow::Result<Answer> {
    eprintln!(
        "bench: starting two platforms with {} accounts",
        question.args.accounts
    );
    let mut plan = question.args.plan();
    plan.accounts = question.args.accounts;
    if question.args.sink_latency == crate::sink::Latency::None {
        plan.sink_options = ["--latency", LATENCY].map(str::to_owned).to_vec();
    }
    let (a, b) = (
        OwnPlatform::start(&plan).await?,
        OwnPlatform::start(&plan).await?,
    );
    let found = measure(question, &a, &b).await;
    a.stop().await?;
    b.stop().await?;
    found
}

async fn measure(
    question: &Question<'_>,
    a: &OwnPlatform,
    b: &OwnPlatform,
) -> anyhow::Result<Answer> {
    let mut who = correspondence(question.args.domains);
    let greedy = who.from.clone();
    who.senders = question.args.accounts;
    let runs_a = question.runs(a, who.clone(), a.account_keys.clone());
    let runs_b = question.runs(b, who, b.account_keys.clone());
    runs_a.warm_up(question.stop).await?;
    runs_b.warm_up(question.stop).await?;
    let pace = pairs::pace(question, Effort::Share, &runs_a).await?;
    let fill = Fill {
        key: b.key.clone(),
        from: greedy,
        to_domain: RECIPIENT_DOMAIN.to_owned(),
        send_at: None,
        deliveries: question.args.queued,
    };
    fill.run(b, question.stop).await?;
    let found = pairs::run(question, pace, &runs_a, &runs_b).await?;
    let delivered = b.watch_sink()?.stats().await?;
    if delivered.without_id >= question.args.queued {
        eprintln!("bench: the long queue was empty before the end: give a larger --queued");
    }
    let answer = pairs::answer("accounts", question.args, pace, found)?;
    Ok(Answer {
        accounts: Some(question.args.accounts),
        ..answer
    })
}
