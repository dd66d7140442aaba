//! A private cluster is started, shared, taken over, killed and stopped, for real.

use super::*;
use crate::process::runs_in;
use server::parse_pid_file;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

/// A base directory that the server's user may enter, also when root runs the tests.
struct Base(tempfile::TempDir);

impl Base {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn options(&self) -> ClusterOptions {
        // Longer than a socket path may be.
        let base_dir = self.0.path().join("a".repeat(120));
        ClusterOptions {
            base_dir,
            durability: Durability::Fast,
            bin_dir: None,
        }
    }
}

fn server_is_installed() -> bool {
    let found = Binaries::find();
    if let Err(error) = &found {
        eprintln!("SKIPPED: {error}");
    }
    found.is_ok()
}

/// What `psql` prints for `statement`.
fn ask(cluster: &PgCluster, statement: &str) -> String {
    let output = Command::new(cluster.binaries.program("psql"))
        .args(["-X", "-A", "-t", "-c", statement, &cluster.url("postrider")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_cluster_is_made_stopped_and_found_again_with_its_data() {
    if !server_is_installed() {
        return;
    }
    let base = Base::new();
    let cluster = PgCluster::start(base.options()).unwrap();
    cluster.create_database("postrider").unwrap();
    cluster.create_database("postrider").unwrap();
    assert_eq!(ask(&cluster, "SHOW listen_addresses"), "");
    assert_eq!(ask(&cluster, "SHOW synchronous_commit"), "on");
    assert_eq!(ask(&cluster, "SHOW fsync"), "off");
    ask(&cluster, "CREATE TABLE kept (n int)");
    let (pid, data) = (cluster.pid(), cluster.place.data.clone());
    assert!(cluster.stop().unwrap());
    assert!(!runs_in(pid, &data));

    let started = Instant::now();
    let cluster = PgCluster::start(base.options()).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "took {:?}",
        started.elapsed()
    );
    assert_eq!(ask(&cluster, "SELECT count(*) FROM kept"), "0");
}

#[test]
fn a_cluster_survives_kill_immediate_stop_and_the_death_of_its_starter() {
    if !server_is_installed() {
        return;
    }
    let base = Base::new();
    let mut cluster = PgCluster::start(base.options()).unwrap();
    cluster.create_database("postrider").unwrap();
    ask(
        &cluster,
        "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)",
    );
    let url = cluster.url("postrider");

    cluster.kill().unwrap();
    cluster.start_again().unwrap();
    assert_eq!(ask(&cluster, "SELECT count(*) FROM kept"), "1");

    cluster.stop_immediately().unwrap();
    cluster.start_again().unwrap();
    assert_eq!(ask(&cluster, "SELECT count(*) FROM kept"), "1");
    assert_eq!(cluster.url("postrider"), url);

    let pid = cluster.pid();
    cluster.leave_running();
    let taken_over = PgCluster::start(base.options()).unwrap();
    assert_eq!(taken_over.pid(), pid);
    assert_eq!(ask(&taken_over, "SELECT count(*) FROM kept"), "1");
}

#[test]
fn the_last_user_of_a_cluster_stops_it() {
    if !server_is_installed() {
        return;
    }
    let base = Base::new();
    let first = PgCluster::start(base.options()).unwrap();
    let second = PgCluster::start(base.options()).unwrap();
    assert_eq!(first.pid(), second.pid());
    assert!(!first.stop().unwrap(), "the second still uses it");
    assert!(runs_in(second.pid(), &second.place.data));
    assert!(second.stop().unwrap());
}

#[test]
fn a_pid_file_of_a_dead_server_whose_number_was_given_out_again_is_not_believed() {
    if !server_is_installed() {
        return;
    }
    let base = Base::new();
    let cluster = PgCluster::start(base.options()).unwrap();
    let data = cluster.place.data.clone();
    cluster.stop().unwrap();
    // This very test process: alive, but no PostgreSQL.
    let text = format!(
        "{}\n{}\n1\n5432\n/nowhere\n\n0 0\nready\n",
        std::process::id(),
        data.display()
    );
    fs::write(data.join("postmaster.pid"), text).unwrap();
    assert!(PgCluster::start(base.options()).is_ok());
}

#[test]
fn data_of_another_version_is_refused_with_the_way_out() {
    if !server_is_installed() {
        return;
    }
    let base = Base::new();
    let data = base.options().base_dir.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let error = PgCluster::start(base.options()).unwrap_err().to_string();
    assert!(
        error.contains("made by PostgreSQL 9") && error.contains("pg_upgrade"),
        "{error}"
    );
}

#[test]
fn pid_files_are_read_whole_and_half_written() {
    let whole = "42\n/data\n1700000000\n5432\n/run/pr-1\n\n  5 6\nready   \n";
    let server = Server {
        pid: 42,
        socket_dir: PathBuf::from("/run/pr-1"),
        ready: true,
    };
    assert_eq!(parse_pid_file(whole), Some(server));
    let half = parse_pid_file("42\n/data\n").unwrap();
    assert!(!half.ready);
    assert_eq!(parse_pid_file("forty\n"), None);
    assert_eq!(parse_pid_file(""), None);
}
