//! A browser that shows pages and runs their scripts: Chromium without a window, driven over
//! WebDriver (W3C), which is JSON over HTTP.
//!
//! It comes from `cargo xtask bootstrap`, unpacked and not installed. Goes to loopback only: every
//! other name and address is refused inside the browser.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{PATIENCE, place, program, until};

/// A cold start reads 300 MB from disk, on a machine that builds beside it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);
/// What the driver prints before the number of its port.
const PORT_FOLLOWS: &str = "started successfully on port ";
/// The key of an element's id in answers (WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One window. Ends when dropped, and all its processes with it.
pub struct Browser {
    client: Client,
    session: String,
    driver: Child,
    /// Of Chromium itself, a child of the driver.
    pid: Option<u32>,
    dir: TempDir,
    requested: Vec<String>,
}

impl Browser {
    /// None, and a loud line, where there is no Chromium.
    pub async fn start() -> Option<Self> {
        let peers = env::var_os("POSTRIDER_PEERS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"),
            PathBuf::from,
        );
        if !peers.join("chromium/complete").exists() {
            let peers = peers.display();
            eprintln!("SKIPPED: no Chromium in {peers}: run `cargo xtask bootstrap`");
            return None;
        }
        let root = peers.join("chromium/root").canonicalize().unwrap();
        let dir = place::directory();
        let mut driver = spawn(&root, dir.path());
        let port = tokio::task::block_in_place(|| port_of(&mut driver));
        let client = Client::builder().timeout(ANSWER_PATIENCE).build().unwrap();
        let mut browser = Self {
            client,
            session: format!("http://127.0.0.1:{port}/session"),
            driver,
            pid: None,
            dir,
            requested: Vec::new(),
        };
        let wanted = capabilities(&root, browser.dir.path());
        let made = browser.ask(Method::POST, "", wanted).await;
        let pid = &made["capabilities"]["goog:processID"];
        browser.pid = pid.as_u64().and_then(|pid| u32::try_from(pid).ok());
        assert!(browser.pid.is_some(), "{made:#}");
        let id = made["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    /// Goes to an address and waits until the page is loaded.
    pub async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", json!({ "url": url })).await;
    }

    /// Reads the page again.
    pub async fn reload(&self) {
        self.ask(Method::POST, "/refresh", json!({})).await;
    }

    /// Runs the body of a function in the page, or in the frame that was entered.
    pub async fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.ask(Method::POST, "/execute/sync", body).await
    }

    /// Waits until this expression is true, and fails with what the page shows when it is not.
    pub async fn sees(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        let wait = until(expression, PATIENCE * 2, || async {
            (self.run(&script).await == true).then_some(())
        });
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let shown = self
                .run("return document.documentElement.outerHTML.slice(-6000)")
                .await;
            panic!("not within {PATIENCE:?}: {expression}\n{shown}");
        }
    }

    /// Clicks on the first element that this selector finds.
    pub async fn click(&self, selector: &str) {
        let id = self.element(selector).await;
        let path = format!("/element/{id}/click");
        self.ask(Method::POST, &path, json!({})).await;
    }

    /// Lets scripts of the test look into this frame, whatever the frame itself may do.
    pub async fn enter(&self, selector: &str) {
        let frame = json!({ ELEMENT: self.element(selector).await });
        self.ask(Method::POST, "/frame", json!({ "id": frame }))
            .await;
    }

    /// Back to the page.
    pub async fn leave(&self) {
        self.ask(Method::POST, "/frame", json!({ "id": null }))
            .await;
    }

    /// What an element looks like: PNG.
    pub async fn picture(&self, selector: &str) -> Vec<u8> {
        let path = format!("/element/{}/screenshot", self.element(selector).await);
        let picture = self.ask(Method::GET, &path, Value::Null).await;
        STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }

    /// What the window shows, written as `name` below `target/tmp` for people to look at.
    pub async fn keep_picture(&self, name: &str) {
        let picture = self.ask(Method::GET, "/screenshot", Value::Null).await;
        let path = env::current_exe().unwrap().with_file_name(name);
        fs::write(&path, STANDARD.decode(picture.as_str().unwrap()).unwrap()).unwrap();
        eprintln!("picture: {}", path.display());
    }

    /// Sends a command of the DevTools protocol.
    pub async fn command(&self, name: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.ask(Method::POST, "/goog/cdp/execute", body).await
    }

    /// Whether pages are told that people prefer dark.
    pub async fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.command(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        )
        .await;
    }

    /// The directory that downloads go to from now on.
    pub async fn download_here(&self) -> PathBuf {
        let path = self.dir.path().join("downloads");
        fs::create_dir_all(&path).unwrap();
        let parameters = json!({ "behavior": "allow", "downloadPath": path });
        self.command("Browser.setDownloadBehavior", parameters)
            .await;
        path
    }

    /// Addresses of all requests so far, as the browser tells them; its own pages are left out.
    pub async fn requested(&mut self) -> &[String] {
        let log = self.log("performance").await;
        let urls = log.iter().filter_map(|line| {
            let told: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let event = &told["message"];
            let sent = event["method"] == "Network.requestWillBeSent";
            sent.then(|| event["params"]["request"]["url"].as_str())?
                .map(str::to_owned)
        });
        self.requested
            .extend(urls.filter(|url| !url.starts_with("chrome:")));
        &self.requested
    }

    /// What the browser complained about since this was last asked.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.log("browser").await;
        let texts = log.iter().filter(|line| line["level"] == "SEVERE");
        texts.map(|line| line["message"].to_string()).collect()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self
            .ask(Method::POST, "/se/log", json!({ "type": kind }))
            .await;
        log.as_array().cloned().unwrap_or_default()
    }

    async fn element(&self, selector: &str) -> String {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.ask(Method::POST, "/element", body).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.session));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let told: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path} {body}: {told:#}");
        told["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.driver.try_wait().is_ok_and(|ended| ended.is_none()) {
            // The driver leaves the browser behind when it is ended, but collects it before.
            let there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
            if let Some(pid) = self.pid.filter(there) {
                program::signal(pid, "KILL");
            }
            program::signal(self.driver.id(), "TERM");
        }
        let _gone_either_way = self.driver.wait();
    }
}

fn spawn(root: &Path, dir: &Path) -> Child {
    let fonts = dir.join("fonts.conf");
    let prefer = ["sans-serif", "system-ui", "serif", "monospace"].map(|family| {
        let shown = match family {
            "monospace" => "DejaVu Sans Mono",
            _ => "DejaVu Sans",
        };
        format!("<alias binding=\"same\"><family>{family}</family><prefer><family>{shown}</family></prefer></alias>")
    });
    let text = format!(
        "<?xml version=\"1.0\"?><fontconfig><dir>/usr/share/fonts</dir><dir>{}/usr/share/fonts</dir>\
         {}<cachedir>{}/fonts</cachedir></fontconfig>",
        root.display(),
        prefer.concat(),
        dir.display()
    );
    fs::write(&fonts, text).unwrap();
    Command::new(root.join("usr/bin/chromedriver"))
        .arg("--port=0")
        .env("LD_LIBRARY_PATH", library_path(root))
        .env("FONTCONFIG_FILE", fonts)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn library_path(root: &Path) -> OsString {
    let machines = fs::read_dir(root.join("usr/lib")).unwrap().flatten();
    let machines = machines
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    env::join_paths(machines.flat_map(|path| [path.join("pulseaudio"), path])).unwrap()
}

/// The driver says which port it took; its further words are read and dropped.
fn port_of(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            let (_, port) = line.split_once(PORT_FOLLOWS)?;
            port.trim_end_matches('.').parse().ok()
        })
        .expect("the driver did not say that it started");
    thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    port
}

fn capabilities(root: &Path, dir: &Path) -> Value {
    let profile = format!("--user-data-dir={}", dir.join("profile").display());
    let arguments = [
        "--headless=new",
        // Its own sandbox needs rights that root in a container does not have.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",
        "--window-size=1280,1000",
        &profile,
    ];
    json!({ "capabilities": { "alwaysMatch": {
        "goog:loggingPrefs": { "performance": "ALL", "browser": "ALL" },
        "goog:chromeOptions": {
            "binary": root.join("usr/lib/chromium/chromium"),
            "args": arguments,
        },
    }}})
}
