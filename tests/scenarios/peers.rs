//! Mail reaches a mail server that others wrote: Exim takes it over TLS and files it unchanged.
//!
//! The server comes from `cargo xtask bootstrap`, unpacked and not installed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::api::message;
use tests::peer::{Peer, write_certificate};
use tests::platform::Platform;
use tests::{PATIENCE, place, take_turn, until};
use tokio::net::TcpStream;

/// Debian-exim in the users that the wrapper shows.
const EXIM_USER: u32 = 64_102;

#[tokio::test(flavor = "multi_thread")]
async fn exim_takes_our_mail_over_tls_and_files_it_unchanged() {
    let _turn = take_turn();
    let Some(exim) = Exim::start().await else {
        return;
    };
    let builder = Platform::builder().route("*", exim.address);
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);

    let mut body = message(&platform.tenant.domain, "ana@exim.test");
    body["text"] = "Grüße,\n.a line that begins with a dot\n..two\n\nThe end.\n".into();
    body["subject"] = "Grüße an Exim".into();
    let id = api.send(&body).await;
    let email = api.becomes(&id, "delivered").await;
    let attempt = &email["deliveries"][0]["attempts"][0];
    assert!(
        attempt["tls"]
            .as_str()
            .unwrap_or_default()
            .starts_with("TLS"),
        "{email:#}"
    );

    let filed = until("the mail is in the maildir", PATIENCE, || async {
        exim.filed()
    })
    .await;
    let (header, text) = filed.split_once("\n\n").unwrap();
    for field in [
        "DKIM-Signature: ",
        "Message-ID: ",
        "Date: ",
        "From: Acme <hello@acme.test>",
    ] {
        assert_eq!(
            header.matches(&format!("\n{field}")).count(),
            1,
            "{field}\n{header}"
        );
    }
    assert!(header.contains("with esmtps"), "{header}");
    assert!(header.contains("@bounce.test>"), "no return path\n{header}");
    let decoded = decode_quoted_printable(text);
    assert_eq!(
        decoded.trim_end(),
        body["text"].as_str().unwrap().trim_end(),
        "{filed}"
    );
}

struct Exim {
    address: SocketAddr,
    dir: tempfile::TempDir,
    child: Child,
}

impl Exim {
    /// None, and a loud line, where it is not there or may not be started.
    async fn start() -> Option<Self> {
        let peer = Peer::find("exim")?;
        let dir = place::directory();
        let address = place::free_address();
        for name in ["spool", "maildir"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            chown(dir.path().join(name), Some(EXIM_USER), Some(EXIM_USER)).unwrap();
        }
        write_certificate(dir.path(), "exim.test", EXIM_USER);
        let config = dir.path().join("exim.conf");
        fs::write(&config, configuration(dir.path(), address)).unwrap();
        let child = Command::new(peer.root.join("usr/sbin/exim4"))
            .arg("-C")
            .arg(&config)
            .arg("-bdf")
            .envs(peer.environment())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let exim = Self {
            address,
            dir,
            child,
        };
        until("Exim listens", PATIENCE, || async {
            TcpStream::connect(address).await.ok()
        })
        .await;
        Some(exim)
    }

    /// The first mail in the maildir.
    fn filed(&self) -> Option<String> {
        let mut files = fs::read_dir(self.dir.path().join("maildir/new")).ok()?;
        fs::read_to_string(files.next()?.ok()?.path()).ok()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        let _gone_either_way = self.child.kill().and_then(|()| self.child.wait());
        if std::thread::panicking() {
            let log = self.dir.path().join("spool/log/mainlog");
            eprintln!(
                "--- log of Exim\n{}",
                fs::read_to_string(log).unwrap_or_default()
            );
        }
    }
}

fn configuration(dir: &Path, address: SocketAddr) -> String {
    let (dir, ip, port) = (dir.display(), address.ip(), address.port());
    format!(
        "primary_hostname = exim.test
local_interfaces = {ip}
daemon_smtp_ports = {port}
spool_directory = {dir}/spool
log_file_path = {dir}/spool/log/%slog
pid_file_path = {dir}/spool/exim.pid
tls_advertise_hosts = *
tls_certificate = {dir}/cert.pem
tls_privatekey = {dir}/key.pem
# Everything stays one user's, so that nothing has to be installed set-uid.
deliver_drop_privilege = true
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
acl_smtp_rcpt = all
begin acl
all:
  accept
begin routers
here:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {dir}/maildir
  maildir_format
  return_path_add
"
    )
}

/// Quoted-printable (RFC 2045, 6.7), as far as valid text goes.
fn decode_quoted_printable(text: &str) -> String {
    let joined = text.replace("=\n", "");
    let mut pieces = joined.split('=');
    let mut octets = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        octets.push(u8::from_str_radix(code, 16).unwrap());
        octets.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(octets).unwrap()
}
