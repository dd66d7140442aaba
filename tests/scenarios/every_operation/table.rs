//! How each operation succeeds: the table that new operations join. What a request needs to be
//! there is made by [`World`].

use serde_json::{Value, json};

use crate::world::World;

/// A request that succeeds.
pub(crate) struct Try {
    /// What the path's parameters become, in order. The first one names a thing of the account.
    pub(crate) path: Vec<String>,
    /// With its `?`.
    pub(crate) query: String,
    pub(crate) body: Option<Body>,
    pub(crate) status: u16,
    /// Whether the thing was made by a test key, so that test keys may reach it.
    pub(crate) test_thing: bool,
}

pub(crate) struct Body {
    pub(crate) media_type: &'static str,
    pub(crate) text: String,
}

impl Try {
    fn expecting(status: u16) -> Self {
        Self {
            path: Vec::new(),
            query: String::new(),
            body: None,
            status,
            test_thing: false,
        }
    }

    /// The next parameter of the path.
    fn on(mut self, id: impl Into<String>) -> Self {
        self.path.push(id.into());
        self
    }

    fn query(self, query: &str) -> Self {
        let query = query.to_owned();
        Self { query, ..self }
    }

    fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    fn body(self, media_type: &'static str, text: String) -> Self {
        let body = Some(Body { media_type, text });
        Self { body, ..self }
    }

    fn test_thing(self) -> Self {
        Self {
            test_thing: true,
            ..self
        }
    }

    /// The paths that name another thing of the same kind in place of one, which nobody owns.
    pub(crate) fn about_nothing(&self) -> impl Iterator<Item = Vec<String>> {
        let ids = (0..self.path.len()).filter(|at| self.path[*at].contains('_'));
        ids.map(|at| {
            let mut path = self.path.clone();
            let last = path[at].pop();
            path[at].push(if last == Some('7') { '8' } else { '7' });
            path
        })
    }
}

impl World {
    /// The table. A new operation gets an arm with its `operationId`: the status of its success,
    /// `on` what (made anew, and owned by the account of `self.owner`), and a body.
    pub(crate) async fn request(&self, operation: &str) -> Option<Try> {
        let ok = || Try::expecting(200);
        let hour = || json!({"from": Self::in_secs(-3_600)});
        Some(match operation {
            "getReference" | "getOpenApiJson" | "getOpenApiYaml" => ok(),
            "listInbox" => ok(),
            "getInboxMessage" | "getInboxMessageHtml" | "getInboxMessageRaw" => {
                ok().on(&self.inbox().await.message)
            }
            "getInboxAttachment" => ok().on(&self.inbox().await.message).on("0"),

            "sendEmail" => Try::expecting(202).json(&self.mail("fine@sink.test")),
            "sendBatch" => {
                let mails = ["one@sink.test", "two@sink.test"].map(|to| self.mail(to));
                Try::expecting(202).json(&json!({"messages": mails}))
            }
            "sendRawEmail" => Try::expecting(202)
                .query("?to=fine%40sink.test&tag=raw")
                .body("message/rfc822", self.finished()),
            "listEmails" => ok().query("?limit=5"),
            "getEmail" | "getEmailContent" => ok().on(self.sent().await),
            "getTranscript" => ok().on(self.waiting().await).on("1"),
            "changeEmail" => ok()
                .on(self.scheduled().await)
                .json(&json!({"send_at": Self::in_secs(7_200)})),
            "cancelEmail" => ok().on(self.scheduled().await),
            "resendEmail" => Try::expecting(202).on(self.sent().await),
            "actOnEmails" => {
                let body = json!({"action": "retry_now", "filter": {"stream": "transactional"}});
                Try::expecting(202).json(&body)
            }

            "listSandboxMessages" => ok(),
            "getSandboxMessage" | "getSandboxMessageRaw" => {
                ok().on(self.in_sandbox().await).test_thing()
            }

            "listDomains" => ok(),
            "createDomain" => Try::expecting(201).json(&json!({"name": "new.acme.test"})),
            "getDomain" => ok().on(self.domain("read.acme.test").await),
            "deleteDomain" => Try::expecting(204).on(self.domain("gone.acme.test").await),
            "verifyDomain" => ok().on(self.domain("looked.acme.test").await),
            "rotateDomainKey" => ok().on(self.domain("rotated.acme.test").await),

            "listSuppressions" => ok().query("?address=nobody%40sink.test"),
            "createSuppression" => {
                Try::expecting(201).json(&json!({"address": "new@suppressed.test"}))
            }
            "getSuppression" => ok().on(self.suppression("read@suppressed.test").await),
            "deleteSuppression" => {
                Try::expecting(204).on(self.suppression("gone@suppressed.test").await)
            }

            "listApiKeys" => ok(),
            "createApiKey" => Try::expecting(201).json(&Self::key_body()),
            "getApiKey" => ok().on(self.key().await),
            "revokeApiKey" => Try::expecting(204).on(self.key().await),
            "rotateApiKey" => ok().on(self.key().await),

            "listWebhooks" => ok(),
            "createWebhook" => Try::expecting(201).json(&Self::webhook_body()),
            "getWebhook" | "listWebhookCalls" | "listWebhookReplays" => {
                ok().on(self.webhook().await)
            }
            "updateWebhook" => ok()
                .on(self.webhook().await)
                .json(&json!({"events": ["email.bounced"]})),
            "deleteWebhook" => Try::expecting(204).on(self.webhook().await),
            "rotateWebhookSecret" => ok()
                .on(self.webhook().await)
                .json(&json!({"overlap": "1h"})),
            "testWebhook" => Try::expecting(202).on(self.webhook().await),
            "replayWebhook" => Try::expecting(202).on(self.webhook().await).json(&hour()),
            "getWebhookReplay" | "cancelWebhookReplay" => {
                let webhook = self.webhook().await;
                let path = format!("/v1/webhooks/{webhook}/replay");
                ok().on(webhook).on(self.made(202, &path, &hour()).await)
            }
            _ => return None,
        })
    }
}
