//! The files of `docker-compose.yml` bring an installation to its first mail: the secrets are made
//! by its script, the same commands run with the same configuration, and the database asks for
//! the password of the file.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use service::clock::Clock;
use service::redis_server::RedisServer;
use sqlx::AssertSqlSafe;
use tests::api::{Api, message};
use tests::cluster::Cluster;
use tests::sink::Sink;
use tests::{PATIENCE, place, program, take_turn, until};
use time::format_description::well_known::Rfc3339;

/// Longer than a command takes, and than a key is remembered.
const LATER: Duration = Duration::from_secs(12);
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What Compose makes of its file, as far as the program sees it.
struct Installation {
    dir: tempfile::TempDir,
    config: PathBuf,
    /// From the file and `.env.example`, and where things are on this machine.
    environment: Vec<(String, String)>,
}

impl Installation {
    fn prepare() -> Self {
        let dir = place::directory();
        let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
        let compose = read("docker-compose.yml");
        let script = dir.path().join("secrets.sh");
        fs::copy(Path::new(ROOT).join("deploy/compose/secrets.sh"), &script).unwrap();
        let made = run_script(&script);
        assert_eq!(made.lines().count(), 4, "{made}");
        assert_eq!(run_script(&script), "", "a second run changes nothing");

        let mut config = read("deploy/compose/postrider.toml");
        for (name, file) in secrets(&compose) {
            let file = dir.path().join("secrets").join(file);
            config = config.replace(
                &format!("/run/secrets/{name}\""),
                &format!("{}\"", file.display()),
            );
        }
        assert!(!config.contains("/run/secrets/"), "{config}");
        let path = dir.path().join("postrider.toml");
        fs::write(&path, config).unwrap();
        let environment = environment(&compose, &read(".env.example"));
        Self {
            dir,
            config: path,
            environment,
        }
    }

    fn set(&mut self, name: &str, value: impl ToString) {
        self.environment.push((name.to_owned(), value.to_string()));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program::path());
        command.args(args).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POSTRIDER_") {
                command.env_remove(name);
            }
        }
        command.env("POSTRIDER_CONFIG", &self.config);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command that must end well; what it printed.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "postrider {args:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn admin(&self, args: &[&str]) -> Value {
        let printed = self.run(&[&["admin", "--json"], args].concat());
        serde_json::from_str(&printed).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output: Output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "postrider {args:?} ended well");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A server of one role, on addresses of its own.
    fn serve(&self, args: &[&str], metrics: SocketAddr) -> Server {
        let log =
            fs::File::create(self.dir.path().join(format!("{}.log", args.join("-")))).unwrap();
        let mut command = self.command(args);
        let state = self.dir.path().join(args.join("-"));
        command
            .env("POSTRIDER_NODE__STATE_DIR", state)
            .env("POSTRIDER_METRICS__LISTEN", metrics.to_string())
            .stderr(log);
        Server(command.spawn().unwrap(), metrics)
    }
}

struct Server(Child, SocketAddr);

impl Server {
    async fn ready(&self) {
        let url = format!("http://{}/readyz", self.1);
        until("a role is ready", PATIENCE, || async {
            let answer = reqwest::get(&url).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_either_way = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn run_script(script: &Path) -> String {
    let output = Command::new("/bin/sh").arg(script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Name and file of each secret: the lines below `secrets:` at the margin.
fn secrets(compose: &str) -> Vec<(String, String)> {
    let section = compose.split("\nsecrets:\n").nth(1).unwrap();
    let section = section.split("\n\n").next().unwrap();
    let lines: Vec<&str> = section.lines().map(str::trim).collect();
    lines
        .chunks(2)
        .map(|pair| {
            let file = pair[1]
                .strip_prefix("file: deploy/compose/secrets/")
                .unwrap();
            (pair[0].trim_end_matches(':').to_owned(), file.to_owned())
        })
        .collect()
}

/// The variables that the file takes from `.env`, with the values of the example.
fn environment(compose: &str, example: &str) -> Vec<(String, String)> {
    let lines = compose.lines().map(str::trim);
    let taken = lines.filter_map(|line| line.strip_prefix("POSTRIDER_")?.split_once(": ${"));
    let environment: Vec<_> = taken
        .map(|(name, variable)| {
            let variable = variable.split(':').next().unwrap();
            let mut values = example.lines().filter_map(|line| line.split_once('='));
            let (_, value) = values.find(|(name, _)| *name == variable).unwrap();
            (format!("POSTRIDER_{name}"), value.to_owned())
        })
        .collect();
    assert_eq!(environment.len(), 3, "{environment:?}");
    environment
}

/// The commands of the file that begin with this word.
fn commands(compose: &str, word: &str) -> Vec<Vec<String>> {
    let lines = compose.lines().map(str::trim);
    let lists = lines.filter_map(|line| line.strip_prefix("command: "));
    let parsed = lists.filter_map(|list| serde_json::from_str::<Vec<String>>(list).ok());
    parsed.filter(|command| command[0] == word).collect()
}

fn compose_commands(word: &str) -> Vec<Vec<String>> {
    let compose = fs::read_to_string(Path::new(ROOT).join("docker-compose.yml")).unwrap();
    commands(&compose, word)
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

#[test]
fn the_configuration_of_the_containers_is_right_and_all_its_mistakes_are_told_at_once() {
    let mut installation = Installation::prepare();
    let serve = compose_commands("serve");
    assert_eq!(serve.len(), 3, "{serve:?}");
    for command in &serve {
        let check = [words(command), vec!["--check-config"]].concat();
        assert_eq!(installation.run(&check), "the configuration is right\n");
    }
    installation
        .environment
        .retain(|(name, _)| !name.contains("RETURN_PATH"));
    installation.set("POSTRIDER_NODE__GROUP", "elsewhere");
    installation.set("POSTRIDER_LOG__FILTER", "mta=chatty");
    installation.set("POSTRIDER_MTA__LEASE_TTL_SECS", "soon");
    installation.set("POSTRIDER_MTA__MAX_CONNECTION", "5");
    installation.set("POSTRIDER_DATABASE__MAX_CONNECTIONS", "25");
    fs::remove_file(installation.dir.path().join("secrets/master.key")).unwrap();
    fs::remove_file(installation.dir.path().join("secrets/postgres_password")).unwrap();
    let told = installation.refused(&["serve", "--check-config"]);
    for key in [
        "return_path.domain is not set",
        "node.group \"elsewhere\" does not exist",
        "log.filter ",
        "mta.lease_ttl_secs ",
        "mta.max_connection ",
        "secrets.master_key_file ",
        "database.password_file ",
        "database.max_connections is 25: write 26 or more",
    ] {
        assert_eq!(told.matches(key).count(), 1, "{key}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_lead_from_nothing_to_the_first_mail() {
    let _turn = take_turn();
    if RedisServer::find().is_none() {
        eprintln!("SKIPPED: this scenario needs redis-server");
        return;
    }
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let mut installation = Installation::prepare();
    let redis = RedisServer::start(&installation.dir.path().join("redis")).unwrap();
    let sink = Sink::options().start().await;
    let secret = installation.dir.path().join("secrets/postgres_password");
    let password = fs::read_to_string(&secret).unwrap();
    require_password(&cluster, &password).await;
    let url = cluster.url().replace("postgres@", "postrider@");
    let api = place::free_address();
    installation.set("POSTRIDER_DATABASE__URL", &url);
    installation.set("POSTRIDER_REDIS__URL", redis.url());
    installation.set("POSTRIDER_API__LISTEN", api);
    installation.set("POSTRIDER_SANDBOX__LISTEN", place::free_address());
    installation.set("POSTRIDER_MTA__ALLOW_PRIVATE_DESTINATIONS", "true");
    let routes = format!("{{\"*\"=\"{}\"}}", sink.address);
    installation.set("POSTRIDER_MTA__ROUTES", routes);

    fs::write(&secret, "not-the-password\n").unwrap();
    let told = installation.refused(&["migrate"]);
    assert!(told.contains("postrider:***@"), "{told}");
    let file = secret.display().to_string();
    assert!(
        told.contains("does not take the password") && told.contains(&file),
        "{told}"
    );
    assert!(
        !told.contains("not-the-password") && !told.contains(&password),
        "{told}"
    );
    fs::write(&secret, &password).unwrap();
    let elsewhere = url.replace("/scenario", "/nowhere");
    installation.set("POSTRIDER_DATABASE__URL", elsewhere);
    let told = installation.refused(&["migrate"]);
    assert!(told.contains("no database of that name"), "{told}");
    // PostgreSQL's own source is nobody's concern.
    assert!(
        told.contains("3D000") && !told.contains(" at line "),
        "{told}"
    );
    installation.set("POSTRIDER_DATABASE__URL", &url);
    let told = installation.refused(&words(&compose_commands("serve")[0]));
    assert!(told.contains("run `postrider migrate`"), "{told}");

    for command in compose_commands("migrate") {
        installation.run(&words(&command));
    }
    let key = set_up_an_account(&installation);
    let servers: Vec<Server> = compose_commands("serve")
        .iter()
        .map(|command| installation.serve(&words(command), place::free_address()))
        .collect();
    for server in &servers {
        server.ready().await;
    }
    let customer = Api::new(api, &key);
    let id = customer
        .send(&message("mail.acme.test", "ana@customer.test"))
        .await;
    customer.becomes(&id, "delivered").await;
    assert_eq!(sink.receipts()[0].helo, "mta-1.example.com");
    let sources = installation.admin(&["source", "list"]);
    assert_eq!(sources[0]["ehlo"], "mta-1.example.com", "{sources}");

    // Shut out within seconds, for the running processes too; mail accepted before is delivered.
    let mut later = message("mail.acme.test", "bo@customer.test");
    let at = Clock::system().now() + LATER;
    later["send_at"] = at.format(&Rfc3339).unwrap().into();
    let waiting = customer.send(&later).await;
    let disabled = installation.admin(&["account", "disable", "acme"]);
    assert!(disabled["disabled_at"].is_string(), "{disabled}");
    let listed = installation.admin(&["account", "list"]);
    assert_eq!(listed[0]["disabled_at"], disabled["disabled_at"]);
    until("the key is refused", PATIENCE, || async {
        let answer = customer.get("/v1/emails").await;
        (answer.status == 403 && answer.json()["code"] == "account_disabled").then_some(())
    })
    .await;
    until("what waited arrives", PATIENCE, || async {
        (sink.receipts().len() == 2).then_some(())
    })
    .await;
    let enabled = installation.admin(&["account", "enable", "acme"]);
    assert!(enabled["disabled_at"].is_null(), "{enabled}");
    until("the key is good again", PATIENCE, || async {
        (customer.get("/v1/emails").await.status == 200).then_some(())
    })
    .await;
    customer.becomes(&waiting, "delivered").await;
}

/// The three commands of the manual, and what the others say about their work.
fn set_up_an_account(installation: &Installation) -> String {
    let account = installation.admin(&["account", "create", "acme"]);
    let id = account["id"].as_str().unwrap();
    let domain = installation.admin(&["domain", "create", "mail.acme.test", "--account", id]);
    let records = domain["dns_records"].as_array().unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let word = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
            (word("purpose"), word("type"), record["required"] == true)
        })
        .collect();
    let expected = [
        ("dkim", "TXT", true),
        ("return_path", "CNAME", false),
        ("spf", "TXT", false),
        ("dmarc", "TXT", false),
    ];
    let expected =
        expected.map(|(purpose, kind, required)| (purpose.into(), kind.into(), required));
    assert_eq!(told, expected, "{domain}");
    assert_eq!(records[0]["name"], "pr1._domainkey.mail.acme.test");
    assert!(
        records[0]["value"].as_str().unwrap().starts_with("v=DKIM1"),
        "{domain}"
    );
    // Not again, and readable for people.
    let shown = installation.run(&[
        "admin",
        "domain",
        "create",
        "mail.acme.test",
        "--account",
        id,
    ]);
    assert!(
        shown.contains("PURPOSE") && shown.contains("bounces.example.com"),
        "{shown}"
    );
    let made = installation.admin(&["key", "create", "--account", "acme"]);
    let narrow = [
        "key",
        "create",
        "--account",
        id,
        "--test",
        "--scope",
        "emails:read",
    ];
    installation.admin(&[&narrow[..], &["--expires-in-days", "30"]].concat());

    let told = installation.refused(&["admin", "account", "create", "acme"]);
    assert!(told.contains("already"), "{told}");
    let told = installation.refused(&["admin", "key", "create", "--account", "nobody"]);
    assert!(told.contains("account list"), "{told}");
    // Someone pastes the key where its id belongs: it must not be repeated.
    let secret = made["key"].as_str().unwrap();
    let told = installation.refused(&["admin", "key", "revoke", secret]);
    assert!(!told.contains(secret), "{told}");

    let third = installation.admin(&["key", "create", "--account", "acme"]);
    let third = third["id"].as_str().unwrap().to_owned();
    installation.admin(&["key", "revoke", &third]);
    let told = installation.refused(&["admin", "key", "revoke", &third]);
    assert!(told.contains("revoked before"), "{told}");
    let keys = installation.admin(&["key", "list", "--account", "acme"]);
    let modes: Vec<_> = (0..3).map(|at| keys[at]["mode"].clone()).collect();
    assert_eq!(modes, ["live", "test", "live"], "{keys}");
    assert_eq!(keys[1]["scopes"][0], "emails:read");
    assert!(keys[1]["expires_at"].is_string() && keys[2]["revoked_at"].is_string());
    assert!(!keys.to_string().contains(secret));

    let accounts = installation.admin(&["account", "list"]);
    assert_eq!(
        (&accounts[0]["keys"], &accounts[0]["verified_domains"]),
        (&2.into(), &1.into())
    );
    let domains = installation.admin(&["domain", "list", "--account", "acme"]);
    assert_eq!(domains[0]["status"], "verified");
    installation.admin(&["pool", "create", "bulk"]);
    let pools = installation.run(&["admin", "pool", "list"]);
    assert!(
        pools.starts_with("ID ") && pools.contains("bulk     direct"),
        "{pools}"
    );
    secret.to_owned()
}

/// From now on everybody but the superuser has to know the password.
async fn require_password(cluster: &Cluster, password: &str) {
    assert!(
        password.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{password}"
    );
    let pool = cluster.pool().await;
    let hba: String = sqlx::query_scalar("SHOW hba_file")
        .fetch_one(&pool)
        .await
        .unwrap();
    for statement in [
        format!("CREATE ROLE postrider LOGIN PASSWORD '{password}'"),
        "ALTER DATABASE scenario OWNER TO postrider".to_owned(),
        format!(
            "COPY (VALUES ('local all postgres trust'), ('local all all scram-sha-256')) TO '{hba}'"
        ),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&pool)
            .await
            .unwrap();
    }
}
