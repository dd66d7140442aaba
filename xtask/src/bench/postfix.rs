//! Postfix with OpenDKIM, unpacked and not installed, with the defaults that Debian gives it but
//! for where mail comes from and goes, and as many connections to the receiver as we have.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::figures::Figures;
use super::peer::{CONNECTIONS, Peer, SELECTOR, SENDER_DOMAIN};
use super::plan::Plan;
use super::running::{Running, free_port};
use super::sink::Sink;
use crate::peers;
use crate::shell::{Failure, Outcome, run};

/// Of `postfix` among the users that the wrapper shows, and of the group `postdrop`.
const USER: u32 = 64_101;
const DROP_GROUP: u32 = 64_105;

const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
";

/// Measures them. `dir` is empty, and on the disk that the others use too.
pub(super) fn measure(
    program: &Path,
    peers_dir: &Path,
    dir: &Path,
    plan: Plan,
) -> Outcome<Figures> {
    if fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return Err(Failure::new("Postfix has to be started as root"));
    }
    let sink = Sink::start(program)?;
    let (port, milter_port) = (free_port()?, free_port()?);
    let key = dir.join("dkim.pem");
    make_key(&key)?;
    let opendkim = start_opendkim(peers_dir, dir, &key, milter_port)?;
    let ports = Ports {
        own: port,
        milter: milter_port,
        sink: sink.smtp_port(),
    };
    let postfix = start_postfix(peers_dir, dir, &ports)?;
    Peer {
        port,
        processes: vec![("postfix", postfix.pid()), ("opendkim", opendkim.pid())],
        sink: &sink,
        peers_dir,
        dir,
    }
    .measure(plan.peer_messages, plan.runs)
}

/// A DKIM key as other programs read it.
pub(super) fn make_key(path: &Path) -> Outcome {
    run(Command::new("openssl")
        .args(["genrsa", "-traditional", "-out"])
        .arg(path)
        .arg("2048"))
}

fn start_opendkim(peers_dir: &Path, dir: &Path, key: &Path, port: u16) -> Outcome<Running> {
    let config = dir.join("opendkim.conf");
    write(
        &config,
        &format!(
            "Mode s\nDomain {SENDER_DOMAIN}\nSelector {SELECTOR}\nKeyFile {}\n\
             RequireSafeKeys no\nCanonicalization relaxed/relaxed\n\
             SignatureAlgorithm rsa-sha256\nSocket inet:{port}@127.0.0.1\n\
             Background no\nSyslog no\n",
            key.display()
        ),
    )?;
    let mut command = peers::program(peers_dir, "opendkim", "usr/sbin/opendkim")?;
    let mut running = Running::start(command.args(["-f", "-x"]).arg(config))?;
    running.wait_for_port("OpenDKIM", port)?;
    Ok(running)
}

struct Ports {
    own: u16,
    milter: u16,
    sink: u16,
}

fn start_postfix(peers_dir: &Path, dir: &Path, ports: &Ports) -> Outcome<Running> {
    make_directories(dir)?;
    let root = peers::root(peers_dir, "postfix")?;
    write(&dir.join("conf/main.cf"), &main_file(dir, &root, ports))?;
    let master = format!("127.0.0.1:{} inet n - n - - smtpd\n{SERVICES}", ports.own);
    write(&dir.join("conf/master.cf"), &master)?;
    let mut command = peers::program(peers_dir, "postfix", "usr/lib/postfix/sbin/master")?;
    let mut running = Running::start(command.args(["-d", "-c"]).arg(dir.join("conf")))?;
    running.wait_for_port("Postfix", ports.own)?;
    Ok(running)
}

fn make_directories(dir: &Path) -> Outcome {
    let make = |name: &str, mode: u32, user: u32, group: u32| {
        let path: PathBuf = dir.join(name);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .and_then(|()| chown(&path, Some(user), Some(group)))
            .map_err(|error| Failure::new(format!("could not make {}: {error}", path.display())))
    };
    make("conf", 0o755, 0, 0)?;
    make("queue", 0o755, 0, 0)?;
    make("queue/pid", 0o755, 0, 0)?;
    make("queue/public", 0o710, USER, DROP_GROUP)?;
    make("queue/maildrop", 0o730, USER, DROP_GROUP)?;
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ] {
        make(&format!("queue/{name}"), 0o700, USER, 0)?;
    }
    make("data", 0o700, USER, USER)
}

fn main_file(dir: &Path, root: &Path, ports: &Ports) -> String {
    let (milter, sink) = (ports.milter, ports.sink);
    let (dir, root) = (dir.display(), root.display());
    format!(
        "compatibility_level = 3.6
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
mail_owner = postfix
setgid_group = postdrop
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
import_environment = MAIL_CONFIG LD_PRELOAD LD_LIBRARY_PATH NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
maillog_file = {dir}/log
maillog_file_prefixes = /
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{sink}
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_milters = inet:127.0.0.1:{milter}
milter_default_action = tempfail
smtp_destination_concurrency_limit = {CONNECTIONS}
initial_destination_concurrency = {CONNECTIONS}
"
    )
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text)
        .map_err(|error| Failure::new(format!("could not write {}: {error}", path.display())))
}
