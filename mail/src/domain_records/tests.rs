//! What is found is judged as receivers would judge it.

use super::*;

const KEY: &str = "v=DKIM1; k=rsa; p=AAAA";

fn expected() -> ExpectedRecords {
    let key = |selector: &str, standing| DkimRecord {
        selector: selector.to_owned(),
        txt: KEY.to_owned(),
        standing,
    };
    ExpectedRecords {
        domain: "mail.acme.test".parse().unwrap(),
        keys: vec![
            key("prnew", KeyStanding::Waiting),
            key("prold", KeyStanding::Signing),
        ],
        return_path: Some(ReturnPathRecord {
            label: "pr-bounce".to_owned(),
            target: "bounces.host.test".parse().unwrap(),
        }),
    }
}

type Said<'a> = (&'a str, Result<&'a [&'a str], &'a str>);

/// Judges these answers; nothing is published at all other names.
fn judged(texts: &[Said<'_>], aliases: Result<&[&str], &str>) -> Vec<Finding> {
    let expected = expected();
    let own = |said: Result<&[&str], &str>| -> Answer {
        said.map(|texts| texts.iter().map(ToString::to_string).collect())
            .map_err(str::to_owned)
    };
    let answer = |question: &Question| match question {
        Question::Aliases(_) => own(aliases),
        Question::Texts(name) => {
            let mut all = texts.iter();
            all.find(|(known, _)| known == name)
                .map_or(Ok(Vec::new()), |(_, said)| own(*said))
        }
    };
    let answers = expected.questions().into_iter();
    let answers = answers.map(|question| (question.clone(), answer(&question)));
    expected.judge(&answers.collect())
}

fn of(findings: &[Finding], purpose: Purpose) -> (RecordStatus, &str) {
    let mut all = findings.iter();
    let finding = all.find(|finding| finding.purpose == purpose).unwrap();
    (finding.status, finding.found.as_deref().unwrap_or_default())
}

#[test]
fn each_record_has_its_finding_and_nothing_is_asked_twice() {
    let expected = expected();
    let places = |records: Vec<ExpectedRecord>| {
        let place = |record: ExpectedRecord| (record.purpose, record.name);
        records.into_iter().map(place).collect::<Vec<_>>()
    };
    let found = judged(&[], Ok(&[])).into_iter();
    let found: Vec<_> = found
        .map(|finding| (finding.purpose, finding.name))
        .collect();
    assert_eq!(places(expected.records()), found);
    let questions = expected.questions();
    let distinct: std::collections::HashSet<&Question> = questions.iter().collect();
    assert_eq!(distinct.len(), questions.len());
}

#[test]
fn keys_are_judged_by_the_one_record_of_their_selector() {
    let name = "prnew._domainkey.mail.acme.test";
    let dkim = |said| of(&judged(&[(name, said)], Ok(&[])), Purpose::Dkim).0;
    assert_eq!(dkim(Ok(&[])), RecordStatus::Missing);
    assert_eq!(dkim(Ok(&["k=rsa; p=AA AA"])), RecordStatus::Found);
    assert_eq!(dkim(Ok(&["k=rsa; p=AAAB"])), RecordStatus::Mismatch);
    assert_eq!(dkim(Ok(&[KEY, "p=old"])), RecordStatus::Mismatch);
    assert_eq!(dkim(Err("SERVFAIL")), RecordStatus::Unknown);
}

#[test]
fn the_alias_may_take_a_detour_but_must_arrive() {
    let path = |aliases| of(&judged(&[], aliases), Purpose::ReturnPath).0;
    assert_eq!(path(Ok(&["Bounces.HOST.test."])), RecordStatus::Found);
    assert_eq!(
        path(Ok(&["x.acme.test", "bounces.host.test"])),
        RecordStatus::Found
    );
    assert_eq!(
        path(Ok(&["bounces.host.test.acme.test"])),
        RecordStatus::Mismatch
    );
    assert_eq!(path(Ok(&[])), RecordStatus::Missing);
    assert_eq!(path(Err("no answer in time")), RecordStatus::Unknown);
}

#[test]
fn two_spf_records_are_none() {
    let spf = |texts| {
        of(
            &judged(&[("pr-bounce.mail.acme.test", Ok(texts))], Ok(&[])),
            Purpose::Spf,
        )
        .0
    };
    assert_eq!(spf(&["v=spf1 -all", "other"]), RecordStatus::Found);
    assert_eq!(spf(&["v=spf1 -all", "v=spf1 +all"]), RecordStatus::Mismatch);
    assert_eq!(spf(&["other"]), RecordStatus::Missing);
}

#[test]
fn a_policy_above_the_domain_counts() {
    let check = |texts: &[Said<'_>], status, found: &str| {
        let findings = judged(texts, Ok(&[]));
        assert_eq!(of(&findings, Purpose::Dmarc), (status, found), "{texts:?}");
    };
    let (own, above) = ("_dmarc.mail.acme.test", "_dmarc.acme.test");
    let reject = "v=DMARC1; p=reject";
    check(&[], RecordStatus::Missing, "");
    check(&[(above, Ok(&[reject]))], RecordStatus::Found, reject);
    check(
        &[
            (own, Ok(&["v=DMARC1; p=none", "noise"])),
            (above, Ok(&[reject])),
        ],
        RecordStatus::Found,
        "v=DMARC1; p=none",
    );
    check(
        &[(own, Ok(&[reject, "v=DMARC1; p=none"]))],
        RecordStatus::Mismatch,
        "v=DMARC1; p=reject | v=DMARC1; p=none",
    );
    check(
        &[(own, Err("SERVFAIL")), (above, Ok(&[reject]))],
        RecordStatus::Unknown,
        "",
    );
}

#[test]
fn a_check_comes_to_what_the_keys_are_doing() {
    let findings = judged(
        &[
            ("prold._domainkey.mail.acme.test", Ok(&[KEY])),
            ("prnew._domainkey.mail.acme.test", Err("SERVFAIL")),
        ],
        Ok(&["elsewhere.test"]),
    );
    let outcome = expected().outcome(&findings);
    assert_eq!(outcome.signing, RecordStatus::Found);
    let waiting = Some(("prnew".to_owned(), RecordStatus::Unknown));
    assert_eq!(outcome.waiting, waiting);
    assert_eq!(outcome.return_path, Some(RecordStatus::Mismatch));
}

#[test]
fn what_strangers_publish_can_be_stored_and_is_bounded() {
    let long = format!("p=\0\r\n{}", "x".repeat(70_000));
    let name = "prnew._domainkey.mail.acme.test";
    let findings = judged(&[(name, Ok(&[&long]))], Ok(&[]));
    let (status, found) = of(&findings, Purpose::Dkim);
    assert_eq!(status, RecordStatus::Mismatch);
    assert!(found.chars().count() <= 600 && !found.contains(['\0', '\r', '\n']));
}
