//! Sending domains as clients see them: status, and each record to publish beside what was found.

use mail::domain_name::DomainName;
use mail::domain_records::{ExpectedRecord, Finding, Purpose, RecordKind, RecordStatus};
use mail::domain_watch::DomainStatus;
use mail::ids::DomainId;
use serde::Serialize;
use store::RegisteredDomain;
use utoipa::ToSchema;

use crate::timestamp::Timestamp;

/// A sending domain and the DNS records it needs.
#[derive(Serialize, ToSchema)]
#[schema(as = Domain)]
pub(crate) struct DomainView {
    #[schema(value_type = String, example = "dom_01kasxq2bke9qa1bz2t0zc6m4d")]
    pub(crate) id: DomainId,
    #[schema(value_type = String, example = "mail.example.com")]
    name: DomainName,
    /// `pending`: its required record was not found yet. `verified`: it may be sent from.
    /// `failed`: the record was not found within 72 hours, or was missed three times in a row; it
    /// is looked at again when `verify` is asked for.
    #[schema(value_type = String, example = "pending")]
    status: DomainStatus,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_at: Option<Timestamp>,
    /// When the records were looked at last.
    #[schema(value_type = Option<String>, format = DateTime)]
    checked_at: Option<Timestamp>,
    /// When they are looked at next by themselves.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_check_at: Option<Timestamp>,
    records: Vec<RecordView>,
}

/// A DNS record to publish, and what was found when it was looked at last.
#[derive(Serialize, ToSchema)]
#[schema(as = DomainRecord)]
struct RecordView {
    /// dkim, return_path, spf or dmarc.
    #[schema(value_type = String, example = "dkim")]
    purpose: Purpose,
    /// TXT or CNAME.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "TXT")]
    kind: RecordKind,
    /// The whole name, without a dot at the end.
    #[schema(example = "pr7q2m0c9t4k8x1v5z._domainkey.mail.example.com")]
    name: String,
    /// Null where nothing is to be published.
    #[schema(example = "v=DKIM1; k=rsa; p=MIIBIjANBgkq…")]
    value: Option<String>,
    /// Whether the domain, or its new key, waits for this record.
    required: bool,
    /// `pending`: not looked at yet. `found`, `mismatch`: something else is there. `missing`:
    /// nothing is there. `unknown`: the DNS could not tell, which changes nothing.
    #[schema(value_type = String, example = "missing")]
    status: RecordStatus,
    /// What is published.
    found: Option<String>,
    /// For people.
    note: Option<String>,
}

impl DomainView {
    /// `return_path` is the platform's domain for bounces.
    pub(crate) fn new(domain: RegisteredDomain, return_path: Option<&DomainName>) -> Self {
        let expected = domain.expected_records(return_path).records().into_iter();
        let view = |record| RecordView::new(record, &domain.findings);
        Self {
            id: domain.id,
            status: domain.standing.status,
            created_at: domain.standing.registered_at.into(),
            verified_at: domain.verified_at.map(Timestamp::from),
            checked_at: domain.checked_at.map(Timestamp::from),
            next_check_at: domain.check_at.map(Timestamp::from),
            records: expected.map(view).collect(),
            name: domain.name,
        }
    }
}

impl RecordView {
    fn new(record: ExpectedRecord, findings: &[Finding]) -> Self {
        let mut findings = findings.iter();
        let finding = findings
            .find(|finding| finding.purpose == record.purpose && finding.name == record.name);
        let detail = finding.and_then(|finding| finding.detail.clone());
        Self {
            purpose: record.purpose,
            kind: record.kind,
            name: record.name,
            value: record.value,
            required: record.required,
            status: finding.map_or(RecordStatus::Pending, |finding| finding.status),
            found: finding.and_then(|finding| finding.found.clone()),
            note: detail.or(record.note.map(str::to_owned)),
        }
    }
}
