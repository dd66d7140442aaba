//! What one receiver that waits 10 s before every reply, with much mail queued for it, does to the
//! mail for everybody else.

use super::super::own_config::correspondence;
use super::super::own_platform::{OwnPlatform, Receiver};
use super::fill::Fill;
use super::pairs::Effort;
use super::{Answer, Question, pairs};

const SLOW_DOMAIN: &str = "slow.test";
const WAIT: &str = "10s";

pub(super) async fn run(question: &Question<'_>) -> anyhow::Result<Answer> {
    eprintln!("bench: starting two platforms");
    let mut plan = question.args.plan();
    let a = OwnPlatform::start(&plan).await?;
    // A server of its own, as the mail hosts of another domain are.
    plan.receivers.push(Receiver {
        domain: SLOW_DOMAIN,
        options: vec!["--tarpit".to_owned(), WAIT.to_owned()],
    });
    let b = OwnPlatform::start(&plan).await?;
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
    let pace = pairs::pace(question, Effort::Share, &runs_a).await?;
    let fill = Fill {
        key: b.key.clone(),
        from: who.from,
        to_domain: SLOW_DOMAIN.to_owned(),
        send_at: None,
        deliveries: question.args.queued,
    };
    fill.run(b, question.stop).await?;
    let found = pairs::run(question, pace, &runs_a, &runs_b).await?;
    pairs::answer("tarpit", question.args, pace, found)
}
