//! A real Postfix, unpacked and not installed, that files mail below a directory of the test.
//! What it refuses is said by recipient, with its own access tables.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::peer::{Peer, write_certificate};
use crate::program::signal;
use crate::{PATIENCE, place, until};

/// Of `postfix` among the users that the wrapper shows, and of the group `postdrop`.
const USER: u32 = 64_101;
const DROP_GROUP: u32 = 64_105;

/// Its services: a receiver and what it takes to file mail.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
";

/// A running Postfix; it ends when the value is dropped.
pub struct Postfix {
    /// Where it takes mail.
    pub address: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Postfix {
    /// Starts one that takes mail for these domains, except from whom it has to refuse: local
    /// part `nobody` (550 to RCPT), `busy` (450 to RCPT) and `unwanted` (554 to DATA). None, and a
    /// loud line, where it is not there.
    pub async fn start(address: SocketAddr, domains: &[&str]) -> Option<Self> {
        let peer = Peer::find("postfix")?;
        let dir = place::directory();
        make_directories(dir.path());
        write_certificate(dir.path(), "postfix.test", USER);
        let main = main_file(dir.path(), &peer.root, domains);
        fs::write(dir.path().join("conf/main.cf"), main).unwrap();
        let master = format!("{address} inet n - n - - smtpd\n{SERVICES}");
        fs::write(dir.path().join("conf/master.cf"), master).unwrap();
        let child = Command::new(peer.root.join("usr/lib/postfix/sbin/master"))
            .args(["-d", "-c"])
            .arg(dir.path().join("conf"))
            .envs(peer.environment())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let postfix = Self {
            address,
            dir,
            child,
        };
        until("Postfix listens", PATIENCE, || async {
            TcpStream::connect(address).await.ok()
        })
        .await;
        Some(postfix)
    }

    /// Waits for the one mail of this recipient; what was filed, lines ended as on the wire.
    pub async fn filed(&self, recipient: &str) -> Vec<u8> {
        let mark = format!("\nDelivered-To: {recipient}\n");
        let what = format!("Postfix files the mail for {recipient}");
        let path = until(&what, PATIENCE, || async {
            let mut mine = self.mails().into_iter().filter(|path| has(path, &mark));
            let first = mine.next();
            assert!(mine.next().is_none(), "{recipient} got several");
            first
        })
        .await;
        let mut wire = Vec::new();
        for octet in fs::read(path).unwrap() {
            match octet {
                b'\n' => wire.extend(b"\r\n"),
                octet => wire.push(octet),
            }
        }
        wire
    }

    /// The files of all mail.
    pub fn mails(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.dir.path().join("mail/box/new"));
        let files = files.into_iter().flatten();
        files.map(|file| file.unwrap().path()).collect()
    }
}

/// Whether this stands in what Postfix puts first.
fn has(path: &Path, mark: &str) -> bool {
    let mut start = Vec::new();
    let file = File::open(path).unwrap();
    file.take(2_000).read_to_end(&mut start).unwrap();
    String::from_utf8_lossy(&start).contains(mark)
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Its services end with it.
        signal(self.child.id(), "TERM");
        let _gone_either_way = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log"));
            eprintln!("--- log of Postfix\n{}", log.unwrap_or_default());
        }
    }
}

fn make_directories(dir: &Path) {
    let make = |name: &str, mode: u32, user: u32, group: u32| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(user), Some(group)).unwrap();
    };
    make("conf", 0o755, 0, 0);
    make("queue", 0o755, 0, 0);
    make("queue/pid", 0o755, 0, 0);
    make("queue/public", 0o710, USER, DROP_GROUP);
    make("queue/maildrop", 0o730, USER, DROP_GROUP);
    let own = [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ];
    for name in own {
        make(&format!("queue/{name}"), 0o700, USER, 0);
    }
    for name in ["data", "mail"] {
        make(name, 0o700, USER, USER);
    }
}

fn main_file(dir: &Path, root: &Path, domains: &[&str]) -> String {
    let refused = |local_part: &str, reply: &str| {
        let of = |domain: &&str| format!("{{{local_part}@{domain} = {reply}}}");
        domains.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    let at_rcpt = [
        refused("nobody", "550 5.1.1 No such user here"),
        refused("busy", "450 4.2.1 Later please"),
    ];
    let (at_rcpt, at_data) = (at_rcpt.join(" "), refused("unwanted", "554 5.7.1 Not this"));
    let (domains, dir, root) = (domains.join(" "), dir.display(), root.display());
    format!(
        "compatibility_level = 3.6
myhostname = postfix.test
mydestination =
mynetworks =
inet_interfaces = loopback-only
mail_owner = postfix
setgid_group = postdrop
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
import_environment = MAIL_CONFIG LD_PRELOAD LD_LIBRARY_PATH NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
maillog_file = {dir}/log
maillog_file_prefixes = /tmp
message_size_limit = 60000000
virtual_mailbox_limit = 0
smtpd_peername_lookup = no
smtpd_tls_cert_file = {dir}/cert.pem
smtpd_tls_key_file = {dir}/key.pem
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
alias_maps =
alias_database =
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{USER}
virtual_gid_maps = static:{USER}
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{{at_rcpt}}}
smtpd_data_restrictions = check_recipient_access inline:{{{at_data}}}
"
    )
}
