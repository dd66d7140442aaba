//! What an operator sets up before mail can be sent: an account with keys and a verified domain.
//! Done with the program's own commands, as operators do it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::program;

/// An account that can send.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// A live key.
    pub key: String,
    /// A test key.
    pub test_key: String,
    /// Its verified domain.
    pub domain: String,
}

impl Tenant {
    /// Makes the account `name` with the verified domain `<name>.test`, on the database of this
    /// configuration file.
    pub fn create(config: &Path, name: &str) -> Self {
        let domain = format!("{name}.test");
        let printed = run(config, "account", &["--name", name, "--domain", &domain]);
        let made: Value = serde_json::from_str(&printed).unwrap();
        let key = |field: &str| made[field].as_str().unwrap().to_owned();
        Self {
            name: name.to_owned(),
            key: key("api_key"),
            test_key: key("test_key"),
            domain,
        }
    }

    /// From now on nothing ambiguous is sent again.
    pub async fn hold_when_ambiguous(&self, pool: &PgPool) {
        let update = "UPDATE stream SET ambiguous_policy = 1
                      WHERE account = (SELECT id FROM account WHERE name = $1)";
        let done = sqlx::query(update)
            .bind(&self.name)
            .execute(pool)
            .await
            .unwrap();
        assert!(done.rows_affected() > 0, "{} has no stream", self.name);
    }

    /// Gives it another live key, with these scopes; its text.
    pub async fn add_key(&self, pool: &PgPool, scopes: &[&str]) -> String {
        let id = Uuid::new_v4();
        let (digits, more) = (id.simple(), Uuid::new_v4().simple());
        let key = format!("pr_live_{digits}{more}");
        let insert = "INSERT INTO api_key (id, account, hash, hint, test, scopes, created_at)
                      SELECT $1, id, sha256(convert_to($2, 'UTF8')), 'pr_live_…', false, $3, created_at
                      FROM account WHERE name = $4";
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let done = sqlx::query(insert)
            .bind(id)
            .bind(&key)
            .bind(scopes)
            .bind(&self.name);
        assert_eq!(done.execute(pool).await.unwrap().rows_affected(), 1);
        key
    }

    /// Takes its keys away.
    pub async fn revoke_keys(&self, pool: &PgPool) {
        let update = "UPDATE api_key SET revoked_at = created_at
                      WHERE account = (SELECT id FROM account WHERE name = $1)";
        let done = sqlx::query(update)
            .bind(&self.name)
            .execute(pool)
            .await
            .unwrap();
        assert!(done.rows_affected() >= 2, "{} has too few keys", self.name);
    }
}

/// Makes the schema in the database of this configuration file.
pub fn migrate(config: &Path) {
    run(config, "migrate", &[]);
}

fn run(config: &Path, command: &str, args: &[&str]) -> String {
    let mut program = Command::new(program::path());
    let output = program
        .arg(command)
        .arg("--config")
        .arg(config)
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "postrider {command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
