//! Command line of `postrider sink`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::SinkConfig;
use super::behaviour::{Behaviour, Behaviours, DomainBehaviour};
use super::latency::{Latency, wait};
use super::reply_mix::ReplyMix;

/// Receive mail by SMTP and throw it away: the far end of a capacity test.
///
/// Accepts any recipient, counts what arrives, tells repeats and losses, answers as slowly and as
/// often badly as asked, and differently for each recipient domain where that is asked. It keeps no
/// content, so that it takes little from what is measured. For tests only: listens on loopback
/// unless told otherwise.
#[derive(Debug, Clone, Args)]
pub(crate) struct SinkArgs {
    /// Address and port to receive SMTP on; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2525")]
    pub(crate) listen: SocketAddr,

    /// Address and port for HTTP: what was counted, and switching the behaviour
    ///
    /// GET /stats: the counters as JSON.
    /// GET /series: of ids such as run7-123, for each beginning (run7) how many came and which
    /// numbers are missing.
    /// POST /behaviour: JSON such as {"latency": "20ms", "replies": "550 5.1.1 unknown=1%",
    /// "tarpit": "1s", "hang": true, "domain": "slow.test"}; what is not named stays. With "hang"
    /// the sink takes content but sends no final reply until "hang" is false again.
    /// POST /webhooks: answers 204 and counts; an endpoint for the events of a platform under test.
    #[arg(long, value_name = "ADDR", verbatim_doc_comment)]
    pub(crate) http: Option<SocketAddr>,

    /// Header that carries a message's id
    ///
    /// Used to count different messages, repeats and losses. A repeat is the same id accepted
    /// twice for the same recipient, within the last four million copies at least. A loss is an id
    /// such as run7-123 that has not come though a higher number after the same beginning has; see
    /// GET /series.
    #[arg(long, value_name = "NAME", default_value = "X-Bench-Id")]
    pub(crate) id_header: String,

    /// Wait before the final reply: none, 20ms, 10ms-50ms, exp:20ms, or normal:50ms/10ms
    ///
    /// Always the same, evenly between two, exponential with this mean, or normal with this mean
    /// and standard deviation.
    #[arg(long, value_name = "WAIT", default_value = "none")]
    pub(crate) latency: Latency,

    /// Share of commands to refuse, for example "451 4.7.1 greylisted=5%,550 5.1.1 unknown=1%"
    ///
    /// Each entry is [STAGE:]REPLY=PERCENT%, separated by commas. STAGE is mail, rcpt (default)
    /// or dot, the final reply. REPLY is a code from 400 to 599 with text, or the word drop: the
    /// connection is closed without a reply. What is left over is accepted. Without text a colon
    /// will do, and 250 may be named: "250:95%,450:3%,550:2%".
    #[arg(long, visible_alias = "reply", value_name = "MIX", default_value = "")]
    pub(crate) replies: ReplyMix,

    /// Wait so long before every reply, for example 10s
    #[arg(long, value_name = "TIME", value_parser = wait, default_value = "0")]
    pub(crate) tarpit: Duration,

    /// Behave differently towards recipients in DOMAIN and all below it; may be repeated
    ///
    /// SETTINGS are latency:WAIT, reply:MIX and tarpit:TIME, separated by semicolons and written as
    /// for the options of these names: slow.test=latency:10s, or full.test=reply:452=50%;tarpit:1s.
    /// What is not named is as if nothing had been asked. A tarpit of a domain begins with RCPT,
    /// where it is named first. The first DOMAIN that fits counts.
    #[arg(long = "domain", value_name = "DOMAIN=SETTINGS")]
    pub(crate) domains: Vec<DomainBehaviour>,

    /// Offer STARTTLS with a self-signed certificate made at start
    #[arg(long)]
    pub(crate) starttls: bool,

    /// Append one JSON line per copy to FILE before it is answered
    ///
    /// Fields: id, rcpt, at_ms_unix and result (accepted, deferred, refused, dropped, held).
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,

    /// Write the record ten times a second and before GET /stats answers, not for every copy
    ///
    /// Cheaper; a sink that is killed then loses what it has not written.
    #[arg(long, requires = "record")]
    pub(crate) gather_record: bool,

    /// Threads that serve connections; a message takes one about 20 µs
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// Connections served at once; more are answered 421
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) max_connections: usize,

    /// Allow listening on addresses other than loopback
    ///
    /// The sink accepts mail for everybody and delivers none of it: keep it off the internet.
    #[arg(long)]
    pub(crate) allow_public: bool,
}

impl From<SinkArgs> for SinkConfig {
    fn from(args: SinkArgs) -> Self {
        Self {
            listen: args.listen,
            http: args.http,
            id_header: args.id_header,
            behaviours: Behaviours {
                others: Behaviour {
                    latency: args.latency,
                    replies: args.replies,
                    tarpit: args.tarpit,
                },
                domains: args.domains,
                hang: false,
            },
            starttls: args.starttls,
            record: args.record,
            gather_record: args.gather_record,
            max_connections: args.max_connections,
            allow_public: args.allow_public,
        }
    }
}
