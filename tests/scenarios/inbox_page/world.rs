//! A platform of development, and a browser that looks at it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::browser::Browser;
use tests::dev::Dev;
use tests::place;

pub(crate) struct World {
    pub(crate) dev: Dev,
    pub(crate) api: Api,
    pub(crate) browser: Browser,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> Option<Self> {
        let browser = Browser::start().await?;
        let dir = place::directory();
        let data_dir = dir.path().join("data");
        let dev = tokio::task::block_in_place(|| Dev::start(&data_dir, &[]));
        let api = Api::at(dev.field("api_url"), dev.field("api_key"));
        Some(Self {
            dev,
            api,
            browser,
            _dir: dir,
        })
    }

    /// Sends to the sandbox, and waits until it has taken it.
    pub(crate) async fn send(&self, subject: &str, html: &str, attachments: Value) -> String {
        let body = json!({
            "from": "Shop <hello@sandbox.test>", "to": ["delivered@sandbox.test"],
            "subject": subject, "html": html, "attachments": attachments,
        });
        let id = self.api.send(&body).await;
        self.api.becomes(&id, "delivered").await;
        id
    }

    /// A message as it came, of which this program made every octet.
    pub(crate) async fn send_raw(&self, raw: String) {
        let path = "/v1/emails/raw?to=delivered@sandbox.test";
        let request = self.api.request(Method::POST, path);
        let request = request.header("content-type", "message/rfc822").body(raw);
        let answer = self.api.ask(request).await.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        self.api.becomes(&id, "delivered").await;
    }

    pub(crate) async fn open_inbox(&self) {
        self.browser.open(self.dev.field("inbox_url")).await;
        self.browser.sees("document.querySelector('#list a')").await;
    }

    /// Opens the newest message and waits for its frame.
    pub(crate) async fn open_newest(&self) {
        self.browser.click("#list li:first-child a").await;
        self.browser
            .sees("document.querySelector('#message iframe')")
            .await;
    }

    /// How much of the frame is drawn in another colour than most of it, in pixels.
    pub(crate) async fn ink(&self) -> u64 {
        let picture = STANDARD.encode(self.browser.picture("#message iframe").await);
        let script = format!(
            "const image = new Image();
             image.src = 'data:image/png;base64,{picture}';
             return image.decode().then(() => {{
               const canvas = document.createElement('canvas');
               canvas.width = image.width - 40;
               canvas.height = image.height - 40;
               const context = canvas.getContext('2d');
               context.drawImage(image, -4, -4);
               const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
               const ground = [...pixels.slice(-4)];
               let ink = 0;
               for (let at = 0; at < pixels.length; at += 4) {{
                 const far = ground.slice(0, 3).some((value, part) => Math.abs(value - pixels[at + part]) > 96);
                 if (far) ink += 1;
               }}
               return ink;
             }});"
        );
        self.browser.run(&script).await.as_u64().unwrap()
    }
}

pub(crate) fn stays_on(base: &str, requested: &[String]) {
    assert!(requested.len() > 1, "{requested:?}");
    let elsewhere = |url: &&String| !url.starts_with(base) && !url.starts_with("data:");
    let elsewhere: Vec<_> = requested.iter().filter(elsewhere).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

pub(crate) async fn address(browser: &Browser) -> String {
    let told = browser.run("return location.href").await;
    told.as_str().unwrap().to_owned()
}

pub(crate) async fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector(\"{selector}\").textContent");
    let told = browser.run(&script).await;
    told.as_str().unwrap().to_owned()
}
