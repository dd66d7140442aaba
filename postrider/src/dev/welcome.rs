//! What `postrider dev` says when it is ready: one line of JSON for programs, or commands that
//! work as they stand for people. Text only.

use serde::Serialize;
use service::config::{HostPort, RouteDomain};

/// Addresses and keys of a running development platform; the fields are a contract with scripts.
#[derive(Serialize)]
pub(super) struct Welcome {
    pub(super) api_url: String,
    pub(super) api_key: String,
    pub(super) test_key: String,
    pub(super) sandbox_domain: String,
    pub(super) sandbox_smtp: String,
    pub(super) inbox_url: String,
    pub(super) metrics_url: String,
    pub(super) data_dir: String,
    /// For people only: who starts it knows them.
    #[serde(skip)]
    pub(super) routes: Vec<(RouteDomain, HostPort)>,
}

impl Welcome {
    /// Commands to copy.
    pub(super) fn for_people(&self) -> String {
        let Self {
            api_url,
            api_key,
            test_key,
            sandbox_domain,
            sandbox_smtp,
            inbox_url,
            metrics_url,
            data_dir,
            routes,
        } = self;
        let way_out = way_out(routes);
        format!(
            r#"
Postrider is ready at {api_url}. {way_out}; Ctrl-C stops it.

  live key    {api_key}
  test key    {test_key}
  domain      {sandbox_domain} (verified; send from any address in it)
  sandbox     smtp://{sandbox_smtp}
  inbox       {inbox_url} (a page in a browser)
  reference   {api_url}/docs
  metrics     {metrics_url}
  data        {data_dir}

Send a message:

  curl -s {api_url}/v1/emails \
    -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \
    -d '{{"from":"Demo <hello@{sandbox_domain}>","to":["delivered@{sandbox_domain}"],"subject":"Hello","text":"It works."}}'

See what became of it (with the id from the answer):

  curl -s {api_url}/v1/emails/msg_... -H 'Authorization: Bearer {api_key}'

Be told about it (each call is signed; the answer holds the secret):

  curl -s {api_url}/v1/webhooks \
    -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \
    -d '{{"url":"http://127.0.0.1:9000/hook","events":["email.queued","email.delivered","email.deferred","email.bounced"]}}'

Look into the sandbox's inbox, here or in a browser:

  curl -s '{inbox_url}'

The sandbox answers as the recipient's name says: delivered@, greylist@, mailbox-full@, unknown@,
tempfail@, slow@, spam-block@, bounce-later@, complaint@{sandbox_domain}. See docs/sandbox.md.
"#
        )
    }
}

/// Where mail leaves the platform.
fn way_out(routes: &[(RouteDomain, HostPort)]) -> String {
    if routes.is_empty() {
        return "Nothing is sent to the internet".to_owned();
    }
    let shown: Vec<String> = routes
        .iter()
        .map(|(domain, host)| match domain {
            RouteDomain::Any => format!("for every other domain to {host}"),
            RouteDomain::Only(domain) => format!("for {domain} to {host}"),
        })
        .collect();
    format!("Mail is sent {}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_programs_has_the_promised_fields() {
        let text = |text: &str| text.to_owned();
        let welcome = Welcome {
            api_url: text("http://127.0.0.1:1"),
            api_key: text("k"),
            test_key: text("t"),
            sandbox_domain: text("s.test"),
            sandbox_smtp: text("127.0.0.1:2"),
            inbox_url: text("http://127.0.0.1:1/inbox?token=x"),
            metrics_url: text("http://127.0.0.1:3/metrics"),
            data_dir: text("/d"),
            routes: Vec::new(),
        };
        let line = serde_json::to_string(&welcome).unwrap();
        assert!(!line.contains('\n'));
        let fields: serde_json::Map<_, _> = serde_json::from_str(&line).unwrap();
        let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
        names.sort_unstable();
        let promised = [
            "api_key",
            "api_url",
            "data_dir",
            "inbox_url",
            "metrics_url",
            "sandbox_domain",
            "sandbox_smtp",
            "test_key",
        ];
        assert_eq!(names, promised);
        // The body of the first command is JSON as it stands.
        let shown = welcome.for_people();
        assert!(shown.contains("Nothing is sent to the internet"));
        let body = shown
            .split("-d '")
            .nth(1)
            .and_then(|rest| rest.split('\'').next())
            .unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap();
        let routed = Welcome {
            routes: vec![
                ("a.test".parse().unwrap(), "127.0.0.1:25".parse().unwrap()),
                ("*".parse().unwrap(), "[::1]:26".parse().unwrap()),
            ],
            ..welcome
        };
        let shown = routed.for_people();
        let words = "Mail is sent for a.test to 127.0.0.1:25, for every other domain to [::1]:26;";
        assert!(
            shown.contains(words) && !shown.contains("Nothing is sent"),
            "{shown}"
        );
    }
}
