//! What a queue full of mail for tomorrow costs the mail of today: throughput, and memory.

use service::clock::Clock;
use time::Duration;

use super::super::meters::memory;
use super::super::own_config::{RECIPIENT_DOMAIN, correspondence};
use super::super::own_platform::{OwnPlatform, POSTRIDER};
use super::super::summary::Spread;
use super::fill::Fill;
use super::pairs::Effort;
use super::{Answer, Question, pairs};

const LATER: Duration = Duration::days(1);
/// Deliveries that are queued first.
const FIRST: u64 = 10_000;
/// Figure of the answer.
const MEMORY: &str = "memory_bytes_per_queued";

pub(super) async fn run(question: &Question<'_>) -> anyhow::Result<Answer> {
    eprintln!("bench: starting two platforms");
    let plan = question.args.plan();
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
    let who = correspondence(question.args.domains);
    let runs_a = question.runs(a, who.clone(), vec![a.key.clone()]);
    let runs_b = question.runs(b, who.clone(), vec![b.key.clone()]);
    runs_a.warm_up(question.stop).await?;
    runs_b.warm_up(question.stop).await?;
    let memory_of_b = || memory(b).get(POSTRIDER).copied().unwrap_or_default() as f64;
    let fill = |deliveries| Fill {
        key: b.key.clone(),
        from: who.from.clone(),
        to_domain: RECIPIENT_DOMAIN.to_owned(),
        send_at: Some(Clock::system().now() + LATER),
        deliveries,
    };
    // What the requests themselves need is there before memory is looked at.
    let first = question.args.queued.min(FIRST);
    fill(first).run(b, question.stop).await?;
    let before = memory_of_b();
    let more = question.args.queued - first;
    fill(more).run(b, question.stop).await?;
    let grown = (memory_of_b() - before).max(0.0) / more.max(1) as f64;
    let pace = pairs::pace(question, Effort::All, &runs_a).await?;
    let found = pairs::run(question, pace, &runs_a, &runs_b).await?;
    let mut answer = pairs::answer("backlog", question.args, pace, found)?;
    answer
        .summary
        .extend(Spread::of(vec![grown]).map(|grown| (MEMORY.to_owned(), grown)));
    Ok(answer)
}
