//! Installing Debian packages without a question and without a service: no cluster is created, no
//! daemon started or enabled, no running service touched. Every command is shown before it runs.

use std::path::Path;
use std::process::Command;

use crate::shell::{Failure, Outcome, ask, on_path, run};

/// Read by postgresql-common when a server package is configured.
const NO_MAIN_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/postrider-no-main.conf";
/// Asked by every maintainer script before it starts a service (Debian policy 9.3.3.1).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs `packages`, or prints the commands and fails where we may not.
pub(crate) fn install(packages: &[&str]) -> Outcome {
    let Some(installer) = Installer::allowed() else {
        return Err(by_hand(packages));
    };
    eprintln!(
        "missing: {}; installing without starting any service",
        packages.join(", ")
    );
    let policy = installer.write_unless_there(POLICY, "#!/bin/sh\nexit 101\n", "755");
    // Our files go away again whatever happened in between: `and` takes its argument ready made.
    let installed = policy.and_then(|policy| {
        let cluster =
            installer.write_unless_there(NO_MAIN_CLUSTER, "create_main_cluster = false\n", "644");
        let installed = cluster.and_then(|cluster| {
            let installed = installer.apt_get_install(packages);
            installed.and(installer.remove_if(cluster, NO_MAIN_CLUSTER))
        });
        installed.and(installer.remove_if(policy, POLICY))
    });
    installed?;
    installer.disable(packages)
}

/// Refreshes the package lists if we may and `package` is not known yet.
pub(crate) fn refresh_lists_for(package: &str) {
    if ask(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_some() {
        return;
    }
    if let Some(installer) = Installer::allowed()
        && let Err(failure) = installer.run("apt-get", &["update"])
    {
        eprintln!("warning: {failure}");
    }
}

/// Someone who may change the machine: root, or through a sudo that asks nothing.
struct Installer {
    through_sudo: bool,
}

impl Installer {
    fn allowed() -> Option<Self> {
        on_path("apt-get")?;
        if ask(Command::new("id").arg("-u"))?.trim() == "0" {
            return Some(Self {
                through_sudo: false,
            });
        }
        ask(Command::new("sudo").args(["-n", "true"])).map(|_| Self { through_sudo: true })
    }

    fn run(&self, program: &str, args: &[&str]) -> Outcome {
        let mut command = if self.through_sudo {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]);
            sudo
        } else {
            let mut direct = Command::new(program);
            direct.env("DEBIAN_FRONTEND", "noninteractive");
            direct
        };
        run(command.args(args))
    }

    /// Whether the file was written: not if there is one already. Images have such a policy of
    /// their own, and a machine whose owner wrote one keeps to it.
    fn write_unless_there(&self, path: &str, text: &str, mode: &str) -> Outcome<bool> {
        if Path::new(path).exists() {
            return Ok(false);
        }
        let script =
            "mkdir -p \"$(dirname \"$1\")\" && printf '%s' \"$2\" >\"$1\" && chmod \"$3\" \"$1\"";
        self.run("sh", &["-c", script, "sh", path, text, mode])
            .map(|()| true)
    }

    fn remove_if(&self, ours: bool, path: &str) -> Outcome {
        if ours {
            self.run("rm", &["-f", path])
        } else {
            Ok(())
        }
    }

    fn apt_get_install(&self, packages: &[&str]) -> Outcome {
        self.run("apt-get", &["update"])?;
        let mut args = vec!["install", "-y", "--no-install-recommends"];
        args.extend(packages);
        self.run("apt-get", &args)
    }

    /// A daemon that was not started now must not start at the next boot either.
    fn disable(&self, packages: &[&str]) -> Outcome {
        if !packages.contains(&"redis-server") {
            return Ok(());
        }
        if on_path("systemctl").is_some() {
            return self.run("systemctl", &["disable", "redis-server.service"]);
        }
        // Without systemd at hand the links it would follow at the next start are there all the same.
        self.run("update-rc.d", &["redis-server", "disable"])?;
        self.run(
            "rm",
            &[
                "-f",
                "/etc/systemd/system/multi-user.target.wants/redis-server.service",
            ],
        )
    }
}

fn by_hand(packages: &[&str]) -> Failure {
    let list = packages.join(" ");
    if on_path("apt-get").is_none() {
        return Failure::new(format!(
            "needed and not found: {list}. Install PostgreSQL 15 or newer and Redis with your \
             system's package manager, then set PG_BINDIR to the directory of initdb"
        ));
    }
    Failure::new(format!(
        "needed and not found: {list}. Run these as root, then repeat:\n  \
         apt-get update\n  DEBIAN_FRONTEND=noninteractive apt-get install -y {list}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_named_where_we_may_not_run_them() {
        let failure = by_hand(&["postgresql", "redis-server"]).to_string();
        assert!(failure.contains("postgresql redis-server"), "{failure}");
    }
}
