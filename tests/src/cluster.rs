//! A private PostgreSQL for one test, with an empty database in it.

use std::path::PathBuf;

use service::pg_cluster::{Binaries, ClusterOptions, Durability, PgCluster};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;

use crate::place;

const DATABASE: &str = "scenario";

/// A running server. It stops when the value is dropped; its directory goes after it.
pub struct Cluster {
    server: PgCluster,
    _dir: TempDir,
}

impl Cluster {
    /// Starts one with an empty database; none, and a loud line, where there is no PostgreSQL.
    pub async fn start() -> Option<Self> {
        if let Err(error) = Binaries::find() {
            eprintln!("SKIPPED: {error}");
            return None;
        }
        let dir = place::directory();
        let options = ClusterOptions {
            base_dir: dir.path().join("pg"),
            // Survives `kill -9` of the server all the same: the system keeps what was written.
            durability: Durability::Fast,
            bin_dir: None,
        };
        let server = tokio::task::spawn_blocking(|| PgCluster::start(options))
            .await
            .unwrap();
        let server = server.unwrap();
        server.create_database(DATABASE).unwrap();
        Some(Self { server, _dir: dir })
    }

    /// Connection URL through the private socket.
    pub fn url(&self) -> String {
        self.server.url(DATABASE)
    }

    /// Connection URL for clients that reach the server through something at `address`.
    pub fn url_through(&self, address: std::net::SocketAddr) -> String {
        format!("postgres://postgres@{address}/{DATABASE}")
    }

    /// The server's socket file.
    pub fn socket(&self) -> PathBuf {
        self.server.socket_dir().join(".s.PGSQL.5432")
    }

    /// Connections for the test's own questions.
    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(2)
            .connect(&self.url())
            .await
            .unwrap()
    }

    /// `kill -9` of the server.
    pub fn kill(&self) {
        self.server.kill().unwrap();
    }

    /// Starts it again after [`Cluster::kill`]; recovers by itself.
    pub fn start_again(&mut self) {
        self.server.start_again().unwrap();
    }
}
