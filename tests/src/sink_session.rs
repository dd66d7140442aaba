//! One connection of a sink: the server's side of an SMTP dialogue (RFC 5321), pipelined.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use crate::sink::{Receipt, Shared, Verdict};

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

struct Session {
    shared: Arc<Shared>,
    connected_at: Instant,
    wire: BufStream<Box<dyn Wire>>,
    tls: bool,
    helo: String,
    mail_from: Option<String>,
    recipients: Vec<(String, Verdict)>,
}

/// Serves one client to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut session = Session {
        shared,
        connected_at: Instant::now(),
        wire: BufStream::new(Box::new(stream)),
        tls: false,
        helo: String::new(),
        mail_from: None,
        recipients: Vec::new(),
    };
    if session.say("220 sink.test ESMTP").await.is_err() {
        return;
    }
    // The client's going away is an end like any other.
    while let Ok(Some(line)) = session.line().await {
        session.shared.heard(&line);
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let step = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => session.ehlo(rest).await,
            "STARTTLS" if session.can_start_tls() => match session.start_tls().await {
                Some(secured) => {
                    session = secured;
                    Ok(())
                }
                None => return,
            },
            "MAIL" => session.mail(rest).await,
            "RCPT" => session.rcpt(rest).await,
            "DATA" => session.data().await,
            "RSET" => {
                session.reset();
                session.say("250 2.0.0 reset").await
            }
            "QUIT" => {
                let _ = session.say("221 2.0.0 bye").await;
                return;
            }
            _ => session.say("500 5.5.1 not known here").await,
        };
        if step.is_err() {
            return;
        }
    }
}

impl Session {
    /// One line without its end; none at the end of the stream.
    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.wire.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        assert!(
            line.ends_with(b"\r\n"),
            "a line without CRLF: {:?}",
            String::from_utf8_lossy(&line)
        );
        line.truncate(line.len() - 2);
        Ok(Some(String::from_utf8(line).unwrap()))
    }

    async fn say(&mut self, reply: &str) -> io::Result<()> {
        self.wire
            .write_all(format!("{reply}\r\n").as_bytes())
            .await?;
        self.wire.flush().await
    }

    fn reset(&mut self) {
        self.mail_from = None;
        self.recipients.clear();
    }

    async fn ehlo(&mut self, name: &str) -> io::Result<()> {
        self.reset();
        name.clone_into(&mut self.helo);
        let mut reply = String::new();
        for extension in [
            "sink.test",
            "PIPELINING",
            "8BITMIME",
            "SMTPUTF8",
            "SIZE 52428800",
        ] {
            reply.push_str(&format!("250-{extension}\r\n"));
        }
        if self.can_start_tls() {
            reply.push_str("250-STARTTLS\r\n");
        }
        reply.push_str("250 ENHANCEDSTATUSCODES");
        self.say(&reply).await
    }

    fn can_start_tls(&self) -> bool {
        self.shared.tls.is_some() && !self.tls
    }

    async fn start_tls(mut self) -> Option<Self> {
        let acceptor = self.shared.tls.clone()?;
        self.say("220 2.0.0 go ahead").await.ok()?;
        // What was sent in clear after STARTTLS must not count as sent over TLS (RFC 3207, 6).
        let secured = acceptor.accept(self.wire.into_inner()).await.ok()?;
        Some(Self {
            wire: BufStream::new(Box::new(secured)),
            tls: true,
            helo: String::new(),
            mail_from: None,
            recipients: Vec::new(),
            shared: self.shared,
            connected_at: self.connected_at,
        })
    }

    async fn mail(&mut self, rest: &str) -> io::Result<()> {
        self.reset();
        self.mail_from = path(rest, "FROM:");
        let reply = if self.mail_from.is_some() {
            "250 2.1.0 ok"
        } else {
            "501 5.5.4 no path"
        };
        self.say(reply).await
    }

    async fn rcpt(&mut self, rest: &str) -> io::Result<()> {
        let (Some(mail_from), Some(recipient)) = (&self.mail_from, path(rest, "TO:")) else {
            return self.say("503 5.5.1 MAIL first").await;
        };
        let verdict = self.shared.judge(mail_from, &recipient);
        if let Verdict::AtRcpt(reply) = verdict {
            return self.say(reply).await;
        }
        self.recipients.push((recipient, verdict));
        self.say("250 2.1.5 ok").await
    }

    async fn data(&mut self) -> io::Result<()> {
        let Some((recipient, verdict)) = self.recipients.first().cloned() else {
            return self.say("554 5.5.1 no valid recipients").await;
        };
        self.say("354 go on").await?;
        let content = self.content().await?;
        let reply = match verdict {
            Verdict::AtDot(reply) => reply,
            Verdict::Accept | Verdict::AtRcpt(_) => "250 2.0.0 taken",
        };
        let number = self.shared.note(Receipt {
            id: test_id(&content),
            mail_from: self.mail_from.take().unwrap_or_default(),
            recipient,
            helo: self.helo.clone(),
            tls: self.tls,
            accepted: reply.starts_with('2'),
            connected_at: self.connected_at,
            dot_at: Instant::now(),
            answered_at: None,
            content: content.into(),
        });
        self.reset();
        self.shared.pause(&self.helo).await;
        if self.shared.hangs_up_on(number) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.say(reply).await?;
        self.shared.answered(number);
        Ok(())
    }

    /// The content up to its final dot (RFC 5321, 4.5.2).
    async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let start = content.len();
            if self.wire.read_until(b'\n', &mut content).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = &content[start..];
            assert!(line.ends_with(b"\r\n"), "a content line without CRLF");
            if line == b".\r\n" {
                content.truncate(start);
                return Ok(content);
            }
            if line[0] == b'.' {
                content.remove(start);
            }
        }
    }
}

/// The path of `MAIL FROM:<path> …` or `RCPT TO:<path> …`.
fn path(rest: &str, keyword: &str) -> Option<String> {
    let named = rest.get(..keyword.len())?.eq_ignore_ascii_case(keyword);
    let path = rest[keyword.len()..].strip_prefix('<')?;
    named.then(|| Some(path[..end_of_path(path)?].to_owned()))?
}

/// Where the bracket is that ends the path: a quoted local part may hold one too (RFC 5321, 4.1.2).
fn end_of_path(path: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.bytes().position(|octet| {
        let ends = octet == b'>' && !quoted;
        quoted ^= octet == b'"' && !escaped;
        escaped = octet == b'\\' && quoted && !escaped;
        ends
    })
}

fn test_id(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let header = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = header.lines();
    lines
        .find_map(|line| line.strip_prefix("X-Test-Id: "))
        .unwrap_or_default()
        .to_owned()
}
