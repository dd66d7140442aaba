//! Command line of `postrider sink`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::SinkConfig;
use super::behaviour::{Latency, ReplyMix};

/// Receive mail by SMTP and throw it away: the far end of a capacity test.
///
/// Accepts any recipient, counts what arrives and tells repeats, answers as slowly and as often
/// badly as asked. It keeps no content. For tests only: listens on loopback unless told otherwise.
#[derive(Debug, Clone, Args)]
pub(crate) struct SinkArgs {
    /// Address and port to receive SMTP on; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2525")]
    pub(crate) listen: SocketAddr,

    /// Address and port for GET /stats (counters as JSON) and POST /behaviour
    ///
    /// POST /behaviour takes JSON such as {"latency": "20ms", "replies": "550 5.1.1 unknown=1%",
    /// "hang": true}; what is not named stays. With "hang" the sink takes content but sends no
    /// final reply until "hang" is false again.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,

    /// Header that carries a message's id
    ///
    /// Used to count different messages and repeats. A repeat is the same id accepted twice for
    /// the same recipient.
    #[arg(long, value_name = "NAME", default_value = "X-Bench-Id")]
    pub(crate) id_header: String,

    /// Wait before the final reply: none, 20ms, 10ms-50ms (uniform), or exp:20ms (exponential)
    #[arg(long, value_name = "WAIT", default_value = "none")]
    pub(crate) latency: Latency,

    /// Share of commands to refuse, for example "451 4.7.1 greylisted=5%,550 5.1.1 unknown=1%"
    ///
    /// Each entry is [STAGE:]REPLY=PERCENT%, separated by commas. STAGE is mail, rcpt (default)
    /// or dot, the final reply. REPLY is a code from 400 to 599 with text, or the word drop: the
    /// connection is closed without a reply. What is left over is accepted.
    #[arg(long, value_name = "MIX", default_value = "")]
    pub(crate) replies: ReplyMix,

    /// Offer STARTTLS with a self-signed certificate made at start
    #[arg(long)]
    pub(crate) starttls: bool,

    /// Append one JSON line per copy to FILE before it is answered
    ///
    /// Fields: id, rcpt, at_ms_unix and result (accepted, deferred, refused, dropped, held).
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,

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
            latency: args.latency,
            replies: args.replies,
            starttls: args.starttls,
            record: args.record,
            max_connections: args.max_connections,
            allow_public: args.allow_public,
        }
    }
}
