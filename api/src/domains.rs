//! What is done to a sending domain, as lists of steps: register it with a key, look at its records
//! and decide, give it a second key. What records mean is `mail`'s to say.

use std::collections::HashMap;
use std::sync::Arc;

use mail::dkim::SigningKey;
use mail::domain_name::DomainName;
use mail::domain_records::{Answer, KeyStanding, Question};
use mail::domain_watch::{Occasion, decide, first_check_at};
use mail::ids::{DomainId, EventId, uuid_v7};
use service::resolver::{Lookup, Resolver};
use store::{AccountNo, CheckedDomain, NewDomain, RegisteredDomain, Written};
use tokio::sync::Semaphore;

use crate::account_turns::{AccountTurn, AccountTurns, SlowWork};
use crate::problem::{Code, Problem};
use crate::random;
use crate::state::AppState;

/// Keys made at once: one takes up to a second of a core.
const KEYS_AT_ONCE: usize = 2;
/// How often a check is made again because the domain changed meanwhile.
const TRIES: usize = 3;
/// Characters of a selector after its prefix, five bits each: nobody guesses it, and no record
/// published for one account proves the domain for another.
const SELECTOR_LEN: usize = 16;
const SELECTOR_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Makes DKIM keys off the reactor, a few at a time. Clones share the turns.
#[derive(Clone, Debug)]
pub struct KeyMaker {
    turns: Arc<Semaphore>,
}

impl Default for KeyMaker {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(KEYS_AT_ONCE)),
        }
    }
}

impl KeyMaker {
    /// The turns end with the work, which goes on when nobody waits for it any more.
    async fn make(&self, of_account: AccountTurn) -> Result<SigningKey, Problem> {
        let turn = self.turns.clone().acquire_owned().await;
        let work = move || {
            let _turns = (turn, of_account);
            SigningKey::generate_rsa_2048()
        };
        let made = tokio::task::spawn_blocking(work).await;
        let fault = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "could not make a DKIM key");
            let detail = "the cause was logged under the id of this request";
            Problem::new(Code::Internal, detail)
        };
        made.map_err(|error| fault(&error))?
            .map_err(|error| fault(&error))
    }
}

/// Registers a domain of the account with its first key.
///
/// # Errors
/// The account has it already, has all it may have, or a key is being made for it; of the store.
pub(crate) async fn register(
    state: &AppState,
    turns: &AccountTurns,
    account: AccountNo,
    name: &DomainName,
) -> Result<RegisteredDomain, Problem> {
    let max = state.config.domains_max;
    if state.store.count_domains(account).await? >= max {
        let detail = format!("an account may have {max} domains; delete one that is not needed");
        return Err(Problem::new(Code::TooManyDomains, detail));
    }
    // Before a key is made for nothing; the store has the last word.
    if state.store.sender_domain(account, name).await?.is_some() {
        return Err(Problem::new(
            Code::Conflict,
            format!("{name} is in use already"),
        ));
    }
    let turn = turns.begin(account, SlowWork::DomainKey)?;
    let key = state.key_maker.make(turn).await?;
    let now = state.clock.now();
    let id = DomainId::from_uuid(uuid_v7(unix_ms(state), random::octets()));
    let new = NewDomain {
        id,
        account,
        name,
        selector: &selector(),
        key: &key,
        at: now,
        check_at: first_check_at(now),
    };
    state.store.register_domain(new, &state.sealer).await?;
    find(state, account, id).await
}

/// The account's domain of that id.
///
/// # Errors
/// There is none; of the store.
pub(crate) async fn find(
    state: &AppState,
    account: AccountNo,
    id: DomainId,
) -> Result<RegisteredDomain, Problem> {
    let domain = state.store.registered_domain(account, id).await?;
    domain.ok_or_else(Problem::not_found)
}

/// Looks at the domain's records now and writes what that means.
///
/// # Errors
/// There is no such domain, another account has proved it, or it changes all the time; the account
/// has other domains looked at; of the store.
pub(crate) async fn check(
    state: &AppState,
    turns: &AccountTurns,
    account: AccountNo,
    id: DomainId,
) -> Result<RegisteredDomain, Problem> {
    let _turn = turns.begin(account, SlowWork::DomainCheck)?;
    for _ in 0..TRIES {
        let domain = find(state, account, id).await?;
        match check_once(state, &domain).await? {
            Written::Done => return find(state, account, id).await,
            Written::Outdated => {}
            Written::Taken => {
                let detail = format!(
                    "{} is proved by another account of this platform: delete it there first, or \
                     ask the operator",
                    domain.name
                );
                return Err(Problem::new(Code::DomainTaken, detail));
            }
        }
    }
    let detail = "the domain was changed while it was looked at; try again";
    Err(Problem::new(Code::Conflict, detail))
}

async fn check_once(state: &AppState, domain: &RegisteredDomain) -> Result<Written, Problem> {
    let expected = domain.expected_records(state.config.return_path_domain.as_ref());
    let answers = ask(&state.resolver, expected.questions()).await;
    let findings = expected.judge(&answers);
    let now = state.clock.now();
    let outcome = expected.outcome(&findings);
    let decision = decide(&domain.standing, &outcome, Occasion::Asked, now, chance());
    let check = CheckedDomain {
        domain,
        findings: &findings,
        decision: &decision,
        event: EventId::from_uuid(uuid_v7(unix_ms(state), random::octets())),
        at: now,
    };
    Ok(state.store.write_domain_check(&check).await?)
}

async fn ask(resolver: &Resolver, questions: Vec<Question>) -> HashMap<Question, Answer> {
    let lookups = questions.iter().map(|question| match question {
        Question::Texts(name) => Lookup::Texts(name.clone()),
        Question::Aliases(name) => Lookup::Aliases(name.clone()),
    });
    let answers = resolver.look_up(lookups.collect()).await;
    questions.into_iter().zip(answers).collect()
}

/// Gives the domain a second key, which signs once its record was found.
///
/// # Errors
/// There is no such domain, a key waits already, or one is being made; of the store.
pub(crate) async fn rotate(
    state: &AppState,
    turns: &AccountTurns,
    account: AccountNo,
    id: DomainId,
) -> Result<RegisteredDomain, Problem> {
    let under_way = || {
        let detail = "the domain has a key that waits for its record: publish that one";
        Problem::new(Code::RotationUnderWay, detail)
    };
    let is_waiting = |domain: &RegisteredDomain| {
        let mut keys = domain.keys.iter();
        keys.any(|key| key.record.standing == KeyStanding::Waiting)
    };
    if is_waiting(&find(state, account, id).await?) {
        return Err(under_way());
    }
    let turn = turns.begin(account, SlowWork::DomainKey)?;
    let key = state.key_maker.make(turn).await?;
    for _ in 0..TRIES {
        let domain = find(state, account, id).await?;
        if is_waiting(&domain) {
            return Err(under_way());
        }
        let now = state.clock.now();
        let times = (now, first_check_at(now));
        let added = state
            .store
            .add_waiting_key(&domain, &selector(), &key, &state.sealer, times)
            .await?;
        if added {
            return find(state, account, id).await;
        }
    }
    let detail = "the domain was changed at the same time; try again";
    Err(Problem::new(Code::Conflict, detail))
}

fn unix_ms(state: &AppState) -> u64 {
    u64::try_from(state.clock.unix_ms()).unwrap_or_default()
}

fn selector() -> String {
    let random: [u8; SELECTOR_LEN] = random::octets();
    let letter = |octet: u8| char::from(SELECTOR_ALPHABET[usize::from(octet & 31)]);
    format!("pr{}", random.map(letter).iter().collect::<String>())
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(u32::from_be_bytes(random::octets())) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_labels_and_differ() {
        let one = selector();
        assert_eq!(one.len(), 18);
        assert!(
            one.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_ne!(one, selector());
    }
}
