//! The DNS records a sending domain publishes, and what to think of those that are there.
//! Pure: says which questions to ask and judges the answers; asking is somebody else's work.

mod verdict;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::domain_name::DomainName;
use crate::record_rules::dmarc_names;
use verdict::{finding, judge_alias, judge_dkim, judge_dmarc, judge_spf};

/// Longest sending domain with a return path of its own, in octets: leaves room for selectors, and for
/// a local part of 46 octets in the 254 that a path may have (RFC 5321 section 4.5.3.1.3).
pub const DOMAIN_MAX_OCTETS: usize = 190;

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Public key that receivers verify signatures with (RFC 6376). It is also the proof.
    Dkim,
    /// Subdomain that bounces return to, so that SPF aligns with the sender (RFC 7489 3.1.2).
    ReturnPath,
    /// Who may send with that subdomain as return path (RFC 7208).
    Spf,
    /// What receivers do with mail that is neither signed nor allowed (RFC 9989).
    Dmarc,
}

/// Kind of a DNS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    /// Text.
    Txt,
    /// Alias.
    Cname,
}

/// What became of looking for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordStatus {
    /// Not looked for yet.
    Pending,
    /// There and right.
    Found,
    /// Something else is there.
    Mismatch,
    /// Nothing is there.
    Missing,
    /// The DNS could not tell: says nothing about the record.
    Unknown,
}

/// What a DKIM key is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStanding {
    /// Signs.
    Signing,
    /// Signs as soon as its record was found.
    Waiting,
    /// Signs no more.
    Retired,
}

/// A DKIM key as the DNS should show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimRecord {
    /// Unguessable, so that nobody's record can prove a domain for somebody else.
    pub selector: String,
    /// The text of the record.
    pub txt: String,
    /// What it is doing.
    pub standing: KeyStanding,
}

/// The alias that makes a subdomain return its bounces to the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnPathRecord {
    /// Put before the domain.
    pub label: String,
    /// The platform's domain for bounces.
    pub target: DomainName,
}

/// Everything a domain should publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRecords {
    /// The sending domain.
    pub domain: DomainName,
    /// Its keys, newest first.
    pub keys: Vec<DkimRecord>,
    /// None where the platform has no domain for bounces.
    pub return_path: Option<ReturnPathRecord>,
}

/// One record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRecord {
    /// What for.
    pub purpose: Purpose,
    /// Which kind.
    pub kind: RecordKind,
    /// Where: the whole name, no trailing dot.
    pub name: String,
    /// What; none where nothing is to be published.
    pub value: Option<String>,
    /// Nothing is sent before it is found.
    pub required: bool,
    /// For people.
    pub note: Option<&'static str>,
}

/// What to ask the DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// The TXT records of a name, the strings of each joined (RFC 6376 section 3.6.2.2).
    Texts(String),
    /// The targets that CNAME records lead to from a name, in order.
    Aliases(String),
}

/// The records, none if there are none; or why the DNS could not tell.
pub type Answer = Result<Vec<String>, String>;

/// What one check found about one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What for.
    pub purpose: Purpose,
    /// Where it belongs.
    pub name: String,
    /// What to think of it.
    pub status: RecordStatus,
    /// What is there instead, or as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What is wrong with it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a check comes to, for the decision about the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The record of the key that signs.
    pub signing: RecordStatus,
    /// The key that waits for its record.
    pub waiting: Option<(String, RecordStatus)>,
    /// The alias; none where the platform asks for none.
    pub return_path: Option<RecordStatus>,
}

impl ExpectedRecords {
    /// What to publish, the required first.
    pub fn records(&self) -> Vec<ExpectedRecord> {
        let mut records: Vec<ExpectedRecord> =
            self.keys.iter().map(|key| self.dkim_record(key)).collect();
        if let Some(path) = &self.return_path {
            records.push(ExpectedRecord {
                purpose: Purpose::ReturnPath,
                kind: RecordKind::Cname,
                name: self.below(&path.label),
                value: Some(path.target.to_string()),
                required: false,
                note: Some("recommended: makes SPF pass for this domain"),
            });
            records.push(ExpectedRecord {
                purpose: Purpose::Spf,
                kind: RecordKind::Txt,
                name: self.below(&path.label),
                value: None,
                required: false,
                note: Some("comes with the CNAME of the same name; publish nothing"),
            });
        }
        records.push(ExpectedRecord {
            purpose: Purpose::Dmarc,
            kind: RecordKind::Txt,
            name: self.below("_dmarc"),
            value: Some("v=DMARC1; p=none".to_owned()),
            required: false,
            note: Some("recommended: any policy of this domain or one above it will do"),
        });
        records
    }

    fn dkim_record(&self, key: &DkimRecord) -> ExpectedRecord {
        ExpectedRecord {
            purpose: Purpose::Dkim,
            kind: RecordKind::Txt,
            name: self.dkim_name(key),
            value: Some(key.txt.clone()),
            required: key.standing != KeyStanding::Retired,
            note: match key.standing {
                KeyStanding::Signing => None,
                KeyStanding::Waiting => Some("signs as soon as this record is found"),
                KeyStanding::Retired => {
                    Some("signs no more; keep the record a week for mail on its way")
                }
            },
        }
    }

    /// Everything that has to be known to judge the records, each once.
    pub fn questions(&self) -> Vec<Question> {
        let mut questions: Vec<Question> = self
            .keys
            .iter()
            .map(|key| Question::Texts(self.dkim_name(key)))
            .collect();
        if let Some(path) = &self.return_path {
            questions.push(Question::Aliases(self.below(&path.label)));
            questions.push(Question::Texts(self.below(&path.label)));
        }
        questions.extend(dmarc_names(&self.domain).map(Question::Texts));
        questions
    }

    /// What the answers say about each record, in the order of [`Self::records`]. A question
    /// without an answer counts as one that the DNS could not answer.
    pub fn judge(&self, answers: &HashMap<Question, Answer>) -> Vec<Finding> {
        let texts = |name: &str| answer_to(answers, Question::Texts(name.to_owned()));
        let mut findings = Vec::new();
        for key in &self.keys {
            let name = self.dkim_name(key);
            let verdict = texts(&name).map(|texts| judge_dkim(&key.txt, texts));
            findings.push(finding(Purpose::Dkim, name, verdict));
        }
        if let Some(path) = &self.return_path {
            let name = self.below(&path.label);
            let aliases = answer_to(answers, Question::Aliases(name.clone()));
            let verdict = aliases.map(|aliases| judge_alias(&path.target, aliases));
            findings.push(finding(Purpose::ReturnPath, name.clone(), verdict));
            let verdict = texts(&name).map(judge_spf);
            findings.push(finding(Purpose::Spf, name, verdict));
        }
        let verdict = judge_dmarc(&self.domain, texts);
        findings.push(finding(Purpose::Dmarc, self.below("_dmarc"), verdict));
        findings
    }

    /// What these findings come to.
    pub fn outcome(&self, findings: &[Finding]) -> Outcome {
        let status = |purpose, name: &str| {
            let mut all = findings.iter();
            all.find(|finding| finding.purpose == purpose && finding.name == name)
                .map_or(RecordStatus::Pending, |finding| finding.status)
        };
        let of_key = |standing| {
            let key = self.keys.iter().find(|key| key.standing == standing)?;
            let found = status(Purpose::Dkim, &self.dkim_name(key));
            Some((key.selector.clone(), found))
        };
        Outcome {
            signing: of_key(KeyStanding::Signing).map_or(RecordStatus::Missing, |(_, found)| found),
            waiting: of_key(KeyStanding::Waiting),
            return_path: self
                .return_path
                .as_ref()
                .map(|path| status(Purpose::ReturnPath, &self.below(&path.label))),
        }
    }

    fn dkim_name(&self, key: &DkimRecord) -> String {
        self.below(&format!("{}._domainkey", key.selector))
    }

    fn below(&self, label: &str) -> String {
        format!("{label}.{}", self.domain)
    }
}

fn answer_to(answers: &HashMap<Question, Answer>, question: Question) -> Result<&[String], String> {
    match answers.get(&question) {
        Some(Ok(records)) => Ok(records),
        Some(Err(trouble)) => Err(trouble.clone()),
        None => Err("it was not asked for".to_owned()),
    }
}

#[cfg(test)]
mod tests;
