//! A database of its own for each test, on a PostgreSQL that the tests of one process share.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use service::pg_cluster::{Binaries, ClusterOptions, Durability, PgCluster};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// Where a running server may be named, for machines that cannot start one.
const SERVER_VARIABLE: &str = "POSTRIDER_TEST_DATABASE_URL";

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// Stops with the last test that uses it; the server goes before its directory.
struct Cluster {
    server: PgCluster,
    _dir: tempfile::TempDir,
}

pub(crate) struct Database {
    pub(crate) url: String,
    _cluster: Option<Arc<Cluster>>,
}

impl Database {
    pub(crate) async fn create() -> Option<Self> {
        let name = format!("worker_{}", Uuid::new_v4().simple());
        let (server_url, cluster) = match env::var(SERVER_VARIABLE) {
            Ok(url) => (url, None),
            Err(_) => {
                let cluster = cluster()?;
                (cluster.server.url("postgres"), Some(cluster))
            }
        };
        let mut server = PgConnection::connect(&server_url).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut server).await.unwrap();
        let (before_name, _) = server_url.rsplit_once('/').unwrap();
        Some(Self {
            url: format!("{before_name}/{name}"),
            _cluster: cluster,
        })
    }
}

fn cluster() -> Option<Arc<Cluster>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return Some(running);
    }
    if let Err(error) = Binaries::find() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    // Under /tmp and open to all, because the server may run as another user.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = ClusterOptions {
        base_dir: dir.path().join("pg"),
        durability: Durability::Fast,
        bin_dir: None,
    };
    let running = Arc::new(Cluster {
        server: PgCluster::start(options).unwrap(),
        _dir: dir,
    });
    *shared = Arc::downgrade(&running);
    Some(running)
}
