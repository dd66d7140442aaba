//! Foreign programs for the tests, unpacked and not installed: the mail servers Postfix, Exim and
//! OpenSMTPD, OpenDKIM, Prometheus, and the browser Chromium with its driver.
//!
//! Layout of the directory named by POSTRIDER_PEERS: `<peer>/root` is the unpacked tree, with the
//! libraries it misses here; `nss-wrapper/root`, `passwd` and `group` make the users known that
//! their packages would have added to the system.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages;
use crate::shell::{Failure, Outcome, ask, on_path, run, target};

struct Peer {
    name: &'static str,
    package: &'static str,
    /// Program and arguments that show that it starts; the program is below `root`.
    check: &'static [&'static str],
}

/// The wrapper comes first: Exim does not even tell its version without its user.
const PEERS: [Peer; 7] = [
    Peer {
        name: "nss-wrapper",
        package: "libnss-wrapper",
        check: &[],
    },
    Peer {
        name: "postfix",
        package: "postfix",
        check: &["usr/sbin/postconf", "-d", "mail_version"],
    },
    Peer {
        name: "exim",
        package: "exim4-daemon-light",
        check: &["usr/sbin/exim4", "-C", "/dev/null", "-bV"],
    },
    Peer {
        name: "opensmtpd",
        package: "opensmtpd",
        check: &["usr/sbin/smtpd", "-h"],
    },
    Peer {
        name: "opendkim",
        package: "opendkim",
        check: &["usr/sbin/opendkim", "-V"],
    },
    Peer {
        name: "chromium",
        package: "chromium-driver",
        check: &["usr/lib/chromium/chromium", "--version"],
    },
    Peer {
        name: "prometheus",
        package: "prometheus",
        check: &["usr/bin/prometheus", "--version"],
    },
];

/// What packages need beside libraries; fonts, because a page without any has no text to see.
const OWN_PARTS: [&str; 4] = [
    "exim4-base",
    "chromium",
    "chromium-common",
    "fonts-dejavu-core",
];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
postfix:x:64101:64101::/nonexistent:/usr/sbin/nologin
Debian-exim:x:64102:64102::/nonexistent:/usr/sbin/nologin
opensmtpd:x:64103:64103::/nonexistent:/usr/sbin/nologin
opensmtpq:x:64104:64104::/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "\
root:x:0:
nogroup:x:65534:
postfix:x:64101:
postdrop:x:64105:
Debian-exim:x:64102:
opensmtpd:x:64103:
opensmtpq:x:64104:
";

/// Written last: a directory without it was not finished, and is made again.
const COMPLETE: &str = "complete";

/// Unpacks the peers that are not there yet. Returns their directory, also when some are
/// missing: the tests that need these say so.
pub(crate) fn ensure() -> Outcome<PathBuf> {
    let dir = target().join("peers");
    fs::create_dir_all(&dir).map_err(|error| io_failure("create", &dir, &error))?;
    write(&dir.join("passwd"), PASSWD)?;
    write(&dir.join("group"), GROUP)?;
    let missing: Vec<_> = PEERS
        .iter()
        .filter(|peer| !dir.join(peer.name).join(COMPLETE).exists())
        .collect();
    if missing.is_empty() {
        return Ok(dir);
    }
    if on_path("apt-get").is_none() || on_path("dpkg").is_none() {
        eprintln!(
            "SKIPPED: no apt-get and dpkg here, so tests against Postfix, Exim, OpenSMTPD, OpenDKIM, Prometheus \
             and Chromium are skipped"
        );
        return Ok(dir);
    }
    for (index, peer) in missing.iter().enumerate() {
        eprintln!("peer {} of {}: {}", index + 1, missing.len(), peer.name);
        if let Err(failure) = unpack(&dir, peer) {
            eprintln!("SKIPPED: tests against {}: {failure}", peer.name);
        }
    }
    Ok(dir)
}

fn unpack(dir: &Path, peer: &Peer) -> Outcome {
    packages::refresh_lists_for(peer.package);
    let debs = dir.join("debs").join(peer.name);
    let root = dir.join(peer.name).join("root");
    for path in [&debs, &root] {
        if path.exists() {
            fs::remove_dir_all(path).map_err(|error| io_failure("clear", path, &error))?;
        }
        fs::create_dir_all(path).map_err(|error| io_failure("create", path, &error))?;
    }
    let wanted = with_missing_libraries(peer.package);
    run(Command::new("apt-get")
        .args(["-q", "download"])
        .args(wanted)
        .current_dir(&debs))?;
    let files = fs::read_dir(&debs).map_err(|error| io_failure("list", &debs, &error))?;
    for deb in files.flatten().map(|entry| entry.path()) {
        run(Command::new("dpkg").arg("-x").arg(deb).arg(&root))?;
    }
    check(dir, peer, &root)?;
    write(&dir.join(peer.name).join(COMPLETE), peer.package)
}

/// The package, and of what it depends on the libraries and own parts this machine lacks.
fn with_missing_libraries(package: &str) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while let Some(name) = open.pop() {
        if !wanted.insert(name.clone()) {
            continue;
        }
        let listed = ask(Command::new("apt-cache").args(["depends", &name])).unwrap_or_default();
        open.extend(
            parse_depends(&listed)
                // Scripts for browsers (libjs-*) are only for the pages of a server.
                .filter(|found| !found.starts_with("libjs-"))
                .filter(|found| found.starts_with("lib") || OWN_PARTS.contains(found))
                .filter(|found| !is_installed(found))
                .map(str::to_owned),
        );
    }
    wanted
}

/// Names in lines like `  Depends: libc6`, ` |Depends: a`, `  PreDepends: b`; not `<virtual>`.
fn parse_depends(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let (kind, name) = line.trim_start_matches([' ', '|']).split_once(": ")?;
        (matches!(kind, "Depends" | "PreDepends") && !name.starts_with('<')).then_some(name)
    })
}

fn is_installed(package: &str) -> bool {
    let status = ask(Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]));
    status.is_some_and(|status| status.ends_with("ok installed"))
}

/// Where the package of this name is unpacked: what would be `/` if it were installed.
pub(crate) fn root(dir: &Path, name: &str) -> Outcome<PathBuf> {
    if !dir.join(name).join(COMPLETE).exists() {
        let what = format!("{name} is not there: run `cargo xtask bootstrap`");
        return Err(Failure::new(what));
    }
    Ok(dir.join(name).join("root"))
}

/// A program of the package, with its libraries and with the users that installing would have made.
pub(crate) fn program(dir: &Path, name: &str, path: &str) -> Outcome<Command> {
    equipped(dir, &root(dir, name)?, path)
}

fn equipped(dir: &Path, root: &Path, path: &str) -> Outcome<Command> {
    let mut command = Command::new(root.join(path));
    command.env("LD_LIBRARY_PATH", library_path(root)?);
    if let Some(wrapper) = find_wrapper(&dir.join("nss-wrapper/root")) {
        command.env("LD_PRELOAD", wrapper);
        command.env("NSS_WRAPPER_PASSWD", dir.join("passwd"));
        command.env("NSS_WRAPPER_GROUP", dir.join("group"));
    }
    Ok(command)
}

fn check(dir: &Path, peer: &Peer, root: &Path) -> Outcome {
    let Some((program, args)) = peer.check.split_first() else {
        return Ok(());
    };
    let output = equipped(dir, root, program)?
        .args(args)
        .output()
        .map_err(|error| io_failure("run", &root.join(program), &error))?;
    // OpenSMTPD tells its version and then exits as for a wrong option.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.success() || said.starts_with("version: ") {
        eprintln!(
            "{}: {}",
            peer.name,
            said.lines()
                .find(|line| line.contains("ersion") || line.starts_with("Chromium"))
                .unwrap_or("starts")
        );
        return Ok(());
    }
    Err(Failure::new(format!(
        "{program} does not start here: {}",
        said.trim()
    )))
}

fn library_path(root: &Path) -> Outcome<std::ffi::OsString> {
    let libraries = root.join("usr/lib");
    // Debian puts libraries below a directory named after the machine, and parts that only one
    // library uses into a directory of that library's own.
    let of_machine = fs::read_dir(&libraries).into_iter().flatten().flatten();
    let of_machine = of_machine
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .flat_map(|path| [path.join("pulseaudio"), path]);
    env::join_paths(of_machine.chain([libraries.clone()])).map_err(|error| {
        Failure::new(format!(
            "{} cannot be searched: {error}",
            libraries.display()
        ))
    })
}

fn find_wrapper(root: &Path) -> Option<PathBuf> {
    let machines = fs::read_dir(root.join("usr/lib")).ok()?.flatten();
    machines
        .map(|entry| entry.path().join("libnss_wrapper.so"))
        .find(|file| file.is_file())
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| io_failure("write", path, &error))
}

fn io_failure(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("could not {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_apt_cache() {
        let listed = "postfix\n  PreDepends: init-system-helpers\n  Depends: libc6\n |Depends: debconf\n    \
                      cdebconf\n  Depends: <debconf-2.0>\n  Conflicts: libnss-db\n  Suggests: libsasl2\n";
        let found: Vec<_> = parse_depends(listed).collect();
        assert_eq!(found, ["init-system-helpers", "libc6", "debconf"]);
    }
}
