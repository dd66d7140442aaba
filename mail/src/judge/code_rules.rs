//! What codes mean when the text says nothing we know: enhanced codes (RFC 3463, 5248, 7372,
//! 7505 and the large providers' published tables), then reply code and stage.

use crate::bounce_class::BounceClass::{self, *};
use crate::judge::Stage;
use crate::reply::{EnhancedCode, Reply, ReplyCode};

/// Subject, details (from, to), class after 4xx, class after 5xx. The first row that fits counts.
type EnhancedRule = (u16, (u16, u16), Option<BounceClass>, Option<BounceClass>);

const ENHANCED: &[EnhancedRule] = &[
    (1, (1, 1), Some(InvalidRecipient), Some(InvalidRecipient)),
    (1, (2, 2), Some(InvalidDomain), Some(InvalidDomain)),
    (1, (3, 4), Some(InvalidRecipient), Some(InvalidRecipient)),
    (1, (6, 6), Some(RecipientMoved), Some(RecipientMoved)),
    (1, (7, 7), Some(SenderRejected), Some(SenderRejected)),
    (1, (8, 8), Some(SenderDns), Some(SenderDns)),
    (1, (10, 10), Some(InvalidRecipient), Some(InvalidRecipient)),
    (
        1,
        (351, 351),
        Some(InvalidRecipient),
        Some(InvalidRecipient),
    ),
    (2, (0, 0), Some(SystemError), Some(RecipientRefused)),
    (2, (1, 1), Some(RateLimited), Some(InactiveMailbox)),
    (2, (2, 2), Some(MailboxFull), Some(MailboxFull)),
    (2, (3, 3), Some(MessageTooBig), Some(MessageTooBig)),
    (3, (4, 4), Some(MessageTooBig), Some(MessageTooBig)),
    (3, (0, 5), Some(SystemError), Some(SystemError)),
    // Exchange Online says 5.4.1 for recipients its directory does not have.
    (4, (1, 1), Some(NetworkError), Some(InvalidRecipient)),
    (4, (4, 4), Some(NetworkError), Some(InvalidDomain)),
    (4, (5, 5), Some(SystemError), Some(RateLimited)),
    (4, (7, 7), Some(Expired), Some(Expired)),
    (4, (300, 300), Some(Expired), Some(Expired)),
    (4, (310, 310), Some(InvalidDomain), Some(InvalidDomain)),
    (4, (0, 399), Some(NetworkError), Some(NetworkError)),
    (5, (3, 3), Some(RateLimited), Some(RateLimited)),
    (5, (0, 6), Some(ProtocolError), Some(ProtocolError)),
    (6, (1, 1), Some(ContentRejected), Some(ContentRejected)),
    (6, (0, 99), Some(NotRfcCompliant), Some(NotRfcCompliant)),
    (7, (0, 0), Some(RateLimited), Some(PolicyRejected)),
    // A bare 4.7.1 is the usual sign of greylisting.
    (7, (1, 1), Some(Greylisted), Some(PolicyRejected)),
    (7, (3, 3), Some(SecurityError), Some(SecurityError)),
    (7, (4, 5), Some(TlsFailure), Some(TlsFailure)),
    (7, (8, 8), Some(SecurityError), Some(SecurityError)),
    (7, (10, 10), Some(TlsFailure), Some(TlsFailure)),
    (7, (13, 13), Some(InactiveMailbox), Some(InactiveMailbox)),
    (7, (14, 14), Some(SecurityError), Some(SecurityError)),
    (7, (23, 23), Some(SenderDns), Some(AuthFailure)),
    (7, (25, 25), Some(SenderDns), Some(SenderDns)),
    (7, (28, 28), Some(RateLimited), Some(ReputationBlock)),
    (7, (29, 29), Some(TlsFailure), Some(TlsFailure)),
    (7, (20, 32), Some(AuthFailure), Some(AuthFailure)),
    (7, (40, 40), Some(AuthFailure), Some(AuthFailure)),
    (7, (54, 54), Some(RelayDenied), Some(RelayDenied)),
    (7, (64, 64), Some(RelayDenied), Some(RelayDenied)),
    (
        7,
        (124, 124),
        Some(RecipientRefused),
        Some(RecipientRefused),
    ),
    (
        7,
        (133, 133),
        Some(RecipientRefused),
        Some(RecipientRefused),
    ),
    (7, (350, 350), Some(SpamContent), Some(SpamContent)),
    (7, (509, 509), Some(AuthFailure), Some(AuthFailure)),
    (7, (515, 515), Some(AuthFailure), Some(AuthFailure)),
    (7, (511, 511), Some(ReputationBlock), Some(ReputationBlock)),
    (7, (606, 649), Some(RateLimited), Some(ReputationBlock)),
    (7, (850, 899), Some(ReputationBlock), Some(ReputationBlock)),
    (7, (500, 699), Some(RateLimited), Some(PolicyRejected)),
    (7, (0, 999), Some(PolicyRejected), Some(PolicyRejected)),
];

/// The class of an enhanced code. Whether it is temporary is the reply code's business: some
/// servers send 550 4.2.2.
pub(super) fn class_by_enhanced(reply: &Reply, enhanced: EnhancedCode) -> Option<BounceClass> {
    // RFC 7505 section 4.2 and RFC 7504: the domain, not the recipient.
    if matches!(reply.code().get(), 521 | 556) {
        return Some(DomainRefusesMail);
    }
    let (_, _, transient, permanent) = ENHANCED.iter().find(|(subject, (from, to), _, _)| {
        enhanced.subject == *subject && (*from..=*to).contains(&enhanced.detail)
    })?;
    if reply.is_permanent() {
        *permanent
    } else {
        *transient
    }
}

/// The class of a bare reply code. Without a reason given, RCPT points at the recipient, what
/// comes before points at us, what comes after at the content; never so surely that an address
/// is called dead for it.
pub(super) fn class_by_stage(stage: Stage, code: ReplyCode) -> BounceClass {
    let temporary = code.severity() == 4;
    match (code.get(), stage) {
        (521 | 556, _) => DomainRefusesMail,
        (_, Stage::StartTls) => TlsFailure,
        (530 | 534 | 535 | 538, _) | (_, Stage::Auth) => SecurityError,
        (500..=504 | 555, _) => ProtocolError,
        (552, Stage::Rcpt) => MailboxFull,
        (523 | 552, _) => MessageTooBig,
        (422, _) => MailboxFull,
        _ if temporary => SystemError,
        (_, Stage::Resolve | Stage::Connect | Stage::Greeting | Stage::Ehlo) => ReputationBlock,
        (_, Stage::Rcpt) => RecipientRefused,
        (_, Stage::Mail | Stage::Data | Stage::Dot) => PolicyRejected,
    }
}
