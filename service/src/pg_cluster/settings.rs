//! The settings a private cluster runs with, as the text of its configuration file.
//! Pure: what the machine has is passed in.

use std::path::Path;

/// How much a cluster promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Commits survive a power cut. For everything that people keep data in.
    Durable,
    /// Commits survive `kill -9` of the server, but not of the machine. For tests only.
    Fast,
}

/// What the settings depend on.
pub(super) struct Machine<'a> {
    pub(super) socket_dir: &'a Path,
    pub(super) memory_mb: u64,
    pub(super) has_lz4: bool,
}

const MEMORY_SHARE: u64 = 4;
const BUFFERS_MIN_MB: u64 = 128;
const BUFFERS_MAX_MB: u64 = 4_096;

/// Contents of `postrider.conf`, which `postgresql.conf` includes.
pub(super) fn render(durability: Durability, machine: &Machine<'_>) -> String {
    let mut lines = vec![
        "# Written at every start of the cluster: changes are lost.".to_owned(),
        // Reached through a directory that only its owner may enter: nothing listens on a port.
        "listen_addresses = ''".to_owned(),
        "port = 5432".to_owned(),
        format!(
            "unix_socket_directories = '{}'",
            machine.socket_dir.display()
        ),
        "unix_socket_permissions = 0700".to_owned(),
        "max_connections = 200".to_owned(),
        "jit = off".to_owned(),
        "autovacuum_naptime = '5s'".to_owned(),
        "log_min_messages = warning".to_owned(),
        // A promise of the queue; tests that kill the server rely on it as well.
        "synchronous_commit = on".to_owned(),
    ];
    if machine.has_lz4 {
        lines.push("wal_compression = lz4".to_owned());
        lines.push("default_toast_compression = lz4".to_owned());
    } else {
        lines.push("wal_compression = on".to_owned());
    }
    match durability {
        Durability::Durable => {
            let buffers_mb =
                (machine.memory_mb / MEMORY_SHARE).clamp(BUFFERS_MIN_MB, BUFFERS_MAX_MB);
            lines.push(format!("shared_buffers = '{buffers_mb}MB'"));
            lines.push("wal_buffers = '64MB'".to_owned());
            lines.push("checkpoint_timeout = '15min'".to_owned());
            lines.push("max_wal_size = '8GB'".to_owned());
            // Recycled segments need not be filled with zeros again under load.
            lines.push("min_wal_size = '4GB'".to_owned());
        }
        Durability::Fast => {
            lines.push("shared_buffers = '64MB'".to_owned());
            lines.push("max_wal_size = '1GB'".to_owned());
            lines.push("fsync = off".to_owned());
            lines.push("full_page_writes = off".to_owned());
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(durability: Durability, memory_mb: u64, has_lz4: bool) -> String {
        render(
            durability,
            &Machine {
                socket_dir: Path::new("/run/pr-1"),
                memory_mb,
                has_lz4,
            },
        )
    }

    #[test]
    fn only_the_fast_variant_gives_up_fsync_and_none_gives_up_synchronous_commit() {
        let (durable, fast) = (
            rendered(Durability::Durable, 8_000, true),
            rendered(Durability::Fast, 8_000, true),
        );
        assert!(!durable.contains("fsync") && fast.contains("fsync = off"));
        for text in [durable, fast] {
            assert!(text.contains("synchronous_commit = on"), "{text}");
            assert!(text.contains("listen_addresses = ''\n"), "{text}");
            assert!(
                text.contains("unix_socket_directories = '/run/pr-1'"),
                "{text}"
            );
        }
    }

    #[test]
    fn buffers_are_a_quarter_of_memory_within_bounds() {
        for (memory_mb, buffers) in [(100, "128MB"), (8_000, "2000MB"), (500_000, "4096MB")] {
            let text = rendered(Durability::Durable, memory_mb, true);
            assert!(
                text.contains(&format!("shared_buffers = '{buffers}'")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_server_built_without_lz4_is_not_asked_for_it() {
        assert!(!rendered(Durability::Durable, 8_000, false).contains("lz4"));
    }
}
