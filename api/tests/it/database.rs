//! A database for each test, on one server that all tests of this process share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use service::pg_cluster::{Binaries, ClusterOptions, Durability, PgCluster};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Names a database that already runs, instead of a cluster of our own.
const URL_ENV: &str = "POSTRIDER_TEST_DATABASE_URL";

/// The server all tests of this process share; the last one to leave stops it.
pub(crate) struct Cluster {
    pub(crate) server: PgCluster,
    _directory: tempfile::TempDir,
}

/// Where it is, and whose server it is on.
pub(crate) type Database = (String, Option<Arc<Cluster>>);

static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

pub(crate) async fn database_url() -> Option<Database> {
    if let Ok(url) = std::env::var(URL_ENV) {
        return Some((database_on(&url).await, None));
    }
    if let Err(error) = Binaries::find() {
        eprintln!("SKIPPED: {error}; or set {URL_ENV}");
        return None;
    }
    let mut shared = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = shared
        .upgrade()
        .unwrap_or_else(|| Arc::new(Cluster::start()));
    *shared = Arc::downgrade(&cluster);
    drop(shared);
    Some(cluster.database())
}

/// A new database on a server that already runs: two tests own domains of the same name.
async fn database_on(server_url: &str) -> String {
    let name = format!("api_{}", uuid::Uuid::new_v4().simple());
    let mut server = PgConnection::connect(server_url).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut server).await.unwrap();
    let (before_name, _) = server_url.rsplit_once('/').unwrap();
    format!("{before_name}/{name}")
}

impl Cluster {
    /// A new database, and the server kept alive for it.
    pub(crate) fn database(self: Arc<Self>) -> Database {
        let name = format!("api_{}", uuid::Uuid::new_v4().simple());
        self.server.create_database(&name).unwrap();
        (self.server.url(&name), Some(self))
    }

    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        // As root the server runs as another user, who must be able to enter.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let server = PgCluster::start(ClusterOptions {
            base_dir: directory.path().join("pg"),
            durability: Durability::Fast,
            bin_dir: None,
        })
        .unwrap();
        Self {
            server,
            _directory: directory,
        }
    }
}
