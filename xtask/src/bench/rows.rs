//! The rows of the table: what can be measured, by name.

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    HttpSingle,
    HttpBatch,
    Webhook,
    AcceptOnly,
    Fifth,
    Half,
    Postfix,
    KumoMta,
    Backlog,
    Restart,
    Tarpit,
    Accounts,
    Idle,
}

impl Row {
    /// In the order they are run.
    pub(super) const ALL: [Self; 13] = [
        Self::HttpSingle,
        Self::HttpBatch,
        Self::Webhook,
        Self::AcceptOnly,
        Self::Fifth,
        Self::Half,
        Self::Postfix,
        Self::KumoMta,
        Self::Backlog,
        Self::Restart,
        Self::Tarpit,
        Self::Accounts,
        Self::Idle,
    ];

    pub(super) fn name(self) -> &'static str {
        self.described().0
    }

    /// What it measures.
    pub(super) fn about(self) -> &'static str {
        self.described().1
    }

    /// The row of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.name() == name)
    }

    /// Whether its figures are those of a load, to be read beside each other.
    pub(super) fn is_load(self) -> bool {
        self < Self::Backlog
    }

    fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::HttpSingle => ("http-single", "one message a request, 64 under way"),
            Self::HttpBatch => ("http-batch", "100 messages a request, 8 under way"),
            Self::Webhook => (
                "webhook",
                "as http-single, with one endpoint called for everything delivered",
            ),
            Self::AcceptOnly => (
                "accept-only",
                "as http-single without sending, and the same with a transaction for each message",
            ),
            Self::Fifth => (
                "at-20-percent",
                "open loop at 20 % of what http-single delivers",
            ),
            Self::Half => (
                "at-50-percent",
                "open loop at 50 % of what http-single delivers",
            ),
            Self::Postfix => ("postfix", "Postfix with OpenDKIM, by smtp-source"),
            Self::KumoMta => (
                "kumomta",
                "KumoMTA by smtp-source, where POSTRIDER_BENCH_KUMOD names its program",
            ),
            Self::Backlog => (
                "backlog",
                "beside a long queue for tomorrow, against without",
            ),
            Self::Restart => (
                "restart",
                "killed with a long queue: until the first delivery",
            ),
            Self::Tarpit => (
                "tarpit",
                "beside a domain that waits 10 s before every reply, against without",
            ),
            Self::Accounts => (
                "accounts",
                "many accounts beside one with a long queue, against without",
            ),
            Self::Idle => ("idle", "nothing to do"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_names() {
        for row in Row::ALL {
            assert_eq!(Row::named(row.name()), Some(row));
        }
        assert_eq!(Row::named("x"), None);
        assert!(Row::KumoMta.is_load() && !Row::Restart.is_load());
    }
}
