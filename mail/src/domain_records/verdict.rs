//! One record against what is published where it belongs.

use super::{Finding, Purpose, RecordStatus};
use crate::domain_name::DomainName;
use crate::record_rules::{dmarc_names, is_dmarc, is_spf, normal_name, same_dkim_key, shown};

/// What to think of what was found.
pub(super) struct Verdict {
    status: RecordStatus,
    found: Option<String>,
    detail: Option<String>,
}

impl Verdict {
    fn missing() -> Self {
        Self {
            status: RecordStatus::Missing,
            found: None,
            detail: None,
        }
    }

    fn found(found: &str) -> Self {
        Self {
            status: RecordStatus::Found,
            found: Some(shown(found)),
            detail: None,
        }
    }

    fn mismatch(found: &str, detail: impl Into<String>) -> Self {
        Self {
            status: RecordStatus::Mismatch,
            found: Some(shown(found)),
            detail: Some(detail.into()),
        }
    }
}

pub(super) fn finding(purpose: Purpose, name: String, verdict: Result<Verdict, String>) -> Finding {
    let verdict = verdict.unwrap_or_else(|trouble| Verdict {
        status: RecordStatus::Unknown,
        found: None,
        detail: Some(format!("could not look it up: {}", shown(&trouble))),
    });
    let Verdict {
        status,
        found,
        detail,
    } = verdict;
    Finding {
        purpose,
        name,
        status,
        found,
        detail,
    }
}

/// RFC 6376 section 3.6.2.2: with several records at a selector the result is undefined.
pub(super) fn judge_dkim(expected: &str, texts: &[String]) -> Verdict {
    match texts {
        [] => Verdict::missing(),
        [only] => match same_dkim_key(expected, only) {
            Ok(()) => Verdict::found(only),
            Err(wrong) => Verdict::mismatch(only, wrong),
        },
        several => Verdict::mismatch(
            &several.join(" | "),
            "there are several TXT records at this name: leave only the one asked for",
        ),
    }
}

pub(super) fn judge_alias(target: &DomainName, aliases: &[String]) -> Verdict {
    let chain = aliases.join(" -> ");
    if aliases.is_empty() {
        Verdict::missing()
    } else if aliases
        .iter()
        .any(|alias| normal_name(alias) == target.as_str())
    {
        Verdict::found(&chain)
    } else {
        Verdict::mismatch(&chain, format!("it leads to another name than {target}"))
    }
}

/// RFC 7208 section 4.5: two records are as bad as none.
pub(super) fn judge_spf(texts: &[String]) -> Verdict {
    let records: Vec<&str> = texts
        .iter()
        .map(String::as_str)
        .filter(|text| is_spf(text))
        .collect();
    match records.as_slice() {
        [] => Verdict::missing(),
        [only] => Verdict::found(only),
        several => Verdict::mismatch(&several.join(" | "), "there are several SPF records"),
    }
}

/// The first name of the tree walk with a policy decides (RFC 9989 section 4.10); two policies at a
/// name are none.
pub(super) fn judge_dmarc<'a>(
    domain: &DomainName,
    texts: impl Fn(&str) -> Result<&'a [String], String>,
) -> Result<Verdict, String> {
    for (depth, name) in dmarc_names(domain).enumerate() {
        let policies: Vec<&str> = texts(&name)?
            .iter()
            .map(String::as_str)
            .filter(|text| is_dmarc(text))
            .collect();
        match policies.as_slice() {
            [] => {}
            [only] => {
                let detail = (depth > 0).then(|| format!("the policy of {name} applies"));
                return Ok(Verdict {
                    detail,
                    ..Verdict::found(only)
                });
            }
            several => {
                let wrong = format!("{name} has several policies, which counts as none");
                return Ok(Verdict::mismatch(&several.join(" | "), wrong));
            }
        }
    }
    Ok(Verdict::missing())
}
