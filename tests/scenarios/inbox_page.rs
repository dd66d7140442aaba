//! The inbox and the reference in a real browser: mail is listed, read and downloaded as it was
//! sent; what is hostile in it stays text, runs nothing and reaches nobody.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::browser::Browser;
use tests::dev::Dev;
use tests::{PATIENCE, place, take_turn, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct World {
    dev: Dev,
    api: Api,
    browser: Browser,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Option<Self> {
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
    async fn send(&self, subject: &str, html: &str, attachments: Value) -> String {
        let body = json!({
            "from": "Shop <hello@sandbox.test>", "to": ["delivered@sandbox.test"],
            "subject": subject, "html": html, "attachments": attachments,
        });
        let id = self.api.send(&body).await;
        self.api.becomes(&id, "delivered").await;
        id
    }

    /// A message as it came, of which this program made every octet.
    async fn send_raw(&self, raw: String) {
        let path = "/v1/emails/raw?to=delivered@sandbox.test";
        let request = self.api.request(Method::POST, path);
        let request = request.header("content-type", "message/rfc822").body(raw);
        let answer = self.api.ask(request).await.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        self.api.becomes(&id, "delivered").await;
    }

    async fn open_inbox(&self) {
        self.browser.open(self.dev.field("inbox_url")).await;
        self.browser.sees("document.querySelector('#list a')").await;
    }

    /// Opens the newest message and waits for its frame.
    async fn open_newest(&self) {
        self.browser.click("#list li:first-child a").await;
        self.browser
            .sees("document.querySelector('#message iframe')")
            .await;
    }

    /// How much of the frame is drawn in another colour than most of it, in pixels.
    async fn ink(&self) -> u64 {
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

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_read_and_downloaded_as_it_was_sent() {
    let _turn = take_turn();
    let Some(mut world) = World::start().await else {
        return;
    };
    let file: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let attachments = json!([
        {"filename": "Grüße 1.bin", "content": STANDARD.encode(&file), "content_type": "application/x-own"},
    ]);
    let html = "<p id=hello style='color: rgb(10, 90, 200)'>Thank <b>you</b>, Ana. 🎉</p>";
    let id = world.send("Your order is here", html, attachments).await;
    world.open_inbox().await;
    let browser = &world.browser;
    assert!(!address(browser).await.contains("token"), "the token shows");
    browser
        .sees("document.querySelector('#list a').textContent.includes('Your order is here')")
        .await;

    world.open_newest().await;
    browser.enter("#message iframe").await;
    browser
        .sees("document.querySelector('#hello')?.textContent === 'Thank you, Ana. 🎉'")
        .await;
    let colour = "return getComputedStyle(document.querySelector('#hello')).color";
    assert_eq!(browser.run(colour).await, "rgb(10, 90, 200)");
    browser.leave().await;
    let shown = text(browser, "#message").await;
    for part in [
        "Shop <hello@sandbox.test>",
        "delivered@sandbox.test",
        "@bounce.sandbox.test",
        &id,
        "DKIM pass",
        "SPF none",
        "DMARC pass",
        "Grüße 1.bin",
        "300.0 kB",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    check_tabs(browser).await;
    check_downloads(&world, &file).await;

    // A second message appears without being asked for, and is found by a word of its subject.
    world.send("Another one", "<p>x</p>", json!([])).await;
    let browser = &world.browser;
    browser
        .sees("document.querySelectorAll('#list li').length === 2")
        .await;
    browser
        .run("const q = document.querySelector('#query'); q.value = 'ORDER is'; q.dispatchEvent(new Event('input'))")
        .await;
    browser
        .sees("document.querySelectorAll('#list li').length === 1 && document.querySelector('#list a').textContent.includes('Your order')")
        .await;
    browser.keep_picture("inbox.png").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let base = world.dev.field("api_url").to_owned();
    stays_on(&base, world.browser.requested().await);
}

async fn check_tabs(browser: &Browser) {
    for (tab, wanted) in [
        (2, "Thank you, Ana. 🎉"),
        (3, "DKIM-Signature: v=1;"),
        (4, "Content-Type: multipart/mixed;"),
    ] {
        let button = format!("#message .tabs button:nth-of-type({tab})");
        browser.click(&button).await;
        let seen =
            format!("document.querySelector('#message pre')?.textContent.includes('{wanted}')");
        browser.sees(&seen).await;
    }
    browser.click("#message .tabs button:nth-of-type(1)").await;
    browser
        .sees("document.querySelector('#message iframe')")
        .await;
}

/// The browser's own downloads, by clicks.
async fn check_downloads(world: &World, file: &[u8]) {
    let here = world.browser.download_here().await;
    world.browser.click("#message .files a").await;
    let got = downloaded(&here.join("Grüße 1.bin")).await;
    assert_eq!(hash(&got), hash(file));

    let id = world.browser.run("return location.hash.slice(1)").await;
    let id = id.as_str().unwrap().to_owned();
    world.browser.click("#message a[download$='.eml']").await;
    let got = downloaded(&here.join(format!("{id}.eml"))).await;
    let path = format!("/v1/sandbox/messages/{id}/raw");
    let kept = world.api.request(Method::GET, &path).send().await.unwrap();
    let kept = kept.bytes().await.unwrap();
    assert!(kept.len() > 300_000, "{} octets", kept.len());
    assert_eq!(hash(&got), hash(&kept));
}

async fn downloaded(path: &Path) -> Vec<u8> {
    until(
        &format!("{} is there", path.display()),
        PATIENCE,
        || async { fs::read(path).ok().filter(|octets| !octets.is_empty()) },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn html_can_be_seen_by_day_and_by_night() {
    let _turn = take_turn();
    let Some(world) = World::start().await else {
        return;
    };
    let plain = "<h1>Thank you</h1><p>It works.</p>";
    let both =
        format!("<html><head><meta name=color-scheme content='light dark'></head><body>{plain}");
    for html in [plain, &both] {
        world.send("Seen", html, json!([])).await;
        for scheme in ["light", "dark"] {
            world.browser.prefer(scheme).await;
            world.open_inbox().await;
            world.open_newest().await;
            world.browser.enter("#message iframe").await;
            world.browser.sees("document.querySelector('h1')").await;
            world.browser.leave().await;
            let what = format!("{scheme}: something of {html} can be seen");
            until(&what, PATIENCE, || async {
                (world.ink().await > 500).then_some(())
            })
            .await;
        }
        world.send("Empty", "<br>", json!([])).await;
        world.open_inbox().await;
        world.open_newest().await;
        assert_eq!(world.ink().await, 0, "an empty frame has no ink");
    }
    world.browser.keep_picture("inbox-dark.png").await;
}

const SUBJECT: &str = "</title></iframe><script>document.title='ran'</script><img src=x onerror=alert(1)>\u{202e}gnp.exe";
const SHOWN_SUBJECT: &str =
    "</title></iframe><script>document.title='ran'</script><img src=x onerror=alert(1)>gnp.exe";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hostile_in_mail_runs_nothing_and_reaches_nobody() {
    let _turn = take_turn();
    let Some(world) = World::start().await else {
        return;
    };
    let trap = Trap::start().await;
    let html = hostile_html(&trap.url);
    let browser = &world.browser;

    // Shown without protection it does all of that: the trap works.
    trap.show(&html);
    browser.open(&format!("{}/control", trap.url)).await;
    browser.sees("document.title === 'ran'").await;
    for path in ["/image", "/style", "/script", "/frame", "/refresh"] {
        until(&format!("{path} is asked for"), PATIENCE, || async {
            trap.asked().iter().any(|one| one == path).then_some(())
        })
        .await;
    }
    browser.open("about:blank").await;

    world.send_raw(hostile_mail(&html)).await;
    world.open_inbox().await;
    trap.forget();
    world.open_newest().await;
    browser.enter("#message iframe").await;
    browser
        .sees("document.querySelector('#end') && document.readyState === 'complete'")
        .await;
    let own = "document.querySelector('#own')";
    browser.sees(&format!("{own}.naturalWidth === 1")).await;
    let still = "return document.querySelector('#changed').textContent";
    assert_eq!(browser.run(still).await, "unchanged");
    browser.leave().await;
    browser.keep_picture("inbox-hostile.png").await;
    check_shown_as_text(browser).await;

    let here = browser.download_here().await;
    browser.click("#message .files a:last-child").await;
    let name = until("the attachment is there", PATIENCE, || async {
        let mut entries = fs::read_dir(&here).unwrap().flatten();
        let name = entries.next()?.file_name().into_string().unwrap();
        (!name.ends_with(".crdownload") && !name.starts_with('.')).then_some(name)
    })
    .await;
    assert!(
        name.ends_with("fdp.html") && !name.contains(['/', '<', '\u{202e}']),
        "{name:?}"
    );

    pass_fence(browser).await;
    let asked = trap.asked();
    assert!(asked.is_empty(), "asked for: {asked:?}");

    // Clicks lead nowhere. The browser may connect when a link is pressed, and then says nothing.
    world.open_inbox().await;
    world.open_newest().await;
    browser.enter("#message iframe").await;
    browser.sees("document.querySelector('#end')").await;
    browser.click("#send").await;
    browser.click("#link").await;
    browser.leave().await;
    assert!(address(browser).await.contains("/inbox#inb_"));
    pass_fence(browser).await;
    let asked = trap.asked();
    assert!(asked.iter().all(String::is_empty), "asked for: {asked:?}");
}

/// What was under way before has arrived afterwards. A server of its own: the browser may open
/// more connections to it than it needs.
async fn pass_fence(browser: &Browser) {
    let fence = Trap::start().await;
    browser.open(&format!("{}/fence", fence.url)).await;
    assert!(fence.asked().iter().any(|one| one == "/fence"));
}

async fn check_shown_as_text(browser: &Browser) {
    let title = browser.run("return document.title").await;
    assert_eq!(title, "Inbox · Postrider");
    assert_eq!(text(browser, "#message h2").await, SHOWN_SUBJECT);
    assert_eq!(
        text(browser, "#list li:first-child .subject").await,
        SHOWN_SUBJECT
    );
    let from = text(browser, "#message dd").await;
    assert_eq!(
        from,
        "</dd><script>document.title='ran'</script> <hello@sandbox.test>"
    );
    let made = "return document.querySelectorAll('main script, main img, main title').length";
    assert_eq!(browser.run(made).await, 0);
    let frame = browser
        .run("const frame = document.querySelector('iframe'); return [frame.getAttribute('sandbox'), frame.contentDocument === null]")
        .await;
    assert_eq!(frame, json!(["", true]), "the frame is not apart");
}

/// Everything that asks for something, and marks that a script would leave.
fn hostile_html(trap: &str) -> String {
    format!(
        "<html><head>
         <link rel=preconnect href={trap}><link rel=dns-prefetch href={trap}>
         <link rel=prefetch href={trap}/prefetch><link rel=stylesheet href={trap}/style>
         <style>@import url({trap}/import); body {{ background: url({trap}/background) }}</style>
         <script src={trap}/script></script>
         <meta http-equiv=refresh content='3;url={trap}/refresh'>
         <base href={trap}/></head><body onload=\"document.title='ran'\">
         <img id=own src=cid:own@mail><img src={trap}/image><img srcset='{trap}/srcset 1x'>
         <img src=x onerror=\"document.querySelector('#changed').textContent='changed'\">
         <svg onload=\"top.document.title='ran'\"><image href={trap}/svg /></svg>
         <iframe src={trap}/frame></iframe><object data={trap}/object></object>
         <embed src={trap}/embed><video poster={trap}/poster src={trap}/video autoplay></video>
         <form action={trap}/form><button id=send>send</button></form>
         <p id=changed>unchanged</p><a id=link href={trap}/link target=_top ping={trap}/ping>link</a>
         <script>document.title='ran'; top.document.title='ran'; fetch('{trap}/fetch');
           document.querySelector('#changed').textContent='changed'</script><p id=end>The end</p>"
    )
}

/// With an image of its own, and an attachment whose name deceives.
fn hostile_mail(html: &str) -> String {
    const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let subject = STANDARD.encode(SUBJECT);
    let from = STANDARD.encode("</dd><script>document.title='ran'</script>");
    let html = STANDARD.encode(html);
    let html: Vec<_> = html
        .as_bytes()
        .chunks(76)
        .map(String::from_utf8_lossy)
        .collect();
    [
        &format!("From: =?utf-8?b?{from}?= <hello@sandbox.test>"),
        "To: delivered@sandbox.test",
        &format!("Subject:\r\n =?utf-8?b?{subject}?="),
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed; boundary=m",
        "",
        "--m",
        "Content-Type: multipart/related; boundary=r",
        "",
        "--r",
        "Content-Type: text/html; charset=utf-8",
        "Content-Transfer-Encoding: base64",
        "",
        &html.join("\r\n"),
        "--r",
        "Content-Type: image/png",
        "Content-ID: <own@mail>",
        "Content-Disposition: inline",
        "Content-Transfer-Encoding: base64",
        "",
        PIXEL,
        "--r--",
        "--m",
        "Content-Type: text/html",
        "Content-Disposition: attachment; filename*=utf-8''..%2F..%2F%3Cscript%3E%E2%80%AEfdp.html",
        "",
        "<script>document.title='ran'</script>",
        "--m--",
        "",
    ]
    .join("\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_every_operation_and_asks_nobody_else() {
    let _turn = take_turn();
    let Some(mut world) = World::start().await else {
        return;
    };
    let base = world.dev.field("api_url").to_owned();
    let document = world.api.get("/openapi.json").await.json();
    let methods = ["get", "post", "put", "patch", "delete"];
    let paths = document["paths"].as_object().unwrap().values();
    let mut expected: Vec<_> = paths
        .flat_map(|item| methods.iter().filter_map(|method| item.get(*method)))
        .map(|operation| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    expected.sort_unstable();
    assert!(expected.len() > 30, "{expected:?}");

    let browser = &world.browser;
    browser.open(&format!("{base}/docs")).await;
    browser.sees("document.querySelector('section')").await;
    let script = "return [...document.querySelectorAll('section')].map((one) => one.id).sort()";
    assert_eq!(browser.run(script).await, json!(expected));
    let incomplete = "return [...document.querySelectorAll('section')].filter((one) =>
        !one.querySelector('h3').textContent || !one.querySelector('pre').textContent.startsWith('curl -s')
        || !one.querySelector('.fields li')).map((one) => one.id)";
    assert_eq!(browser.run(incomplete).await, json!([]));
    browser
        .run("const q = document.querySelector('#query'); q.value = 'getOpenApiYaml'; q.dispatchEvent(new Event('input'))")
        .await;
    browser
        .sees("document.querySelectorAll('#index a:not([hidden])').length === 1")
        .await;
    browser.keep_picture("docs.png").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    stays_on(&base, world.browser.requested().await);
}

fn stays_on(base: &str, requested: &[String]) {
    assert!(requested.len() > 1, "{requested:?}");
    let elsewhere = |url: &&String| !url.starts_with(base) && !url.starts_with("data:");
    let elsewhere: Vec<_> = requested.iter().filter(elsewhere).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

async fn address(browser: &Browser) -> String {
    let told = browser.run("return location.href").await;
    told.as_str().unwrap().to_owned()
}

async fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector(\"{selector}\").textContent");
    let told = browser.run(&script).await;
    told.as_str().unwrap().to_owned()
}

fn hash(octets: &[u8]) -> Vec<u8> {
    digest(&SHA256, octets).as_ref().to_vec()
}

/// An HTTP server that notes every connection, also those on which nothing is asked.
struct Trap {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    page: Arc<Mutex<String>>,
}

impl Trap {
    async fn start() -> Self {
        let listener = TcpListener::bind(place::free_address()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, page) = (Arc::default(), Arc::default());
        let trap = Self { url, asked, page };
        let (asked, page) = (trap.asked.clone(), trap.page.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let page = page.lock().unwrap().clone();
                tokio::spawn(note(stream, asked.clone(), page));
            }
        });
        trap
    }

    /// What `/control` answers from now on.
    fn show(&self, html: &str) {
        html.clone_into(&mut self.page.lock().unwrap());
    }

    fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    /// Paths; empty for a connection that said nothing yet.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn note(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, page: String) {
    let place = {
        let mut asked = asked.lock().unwrap();
        asked.push(String::new());
        asked.len() - 1
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => head.push(octet),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = match path.as_str() {
        "/control" => page,
        _ => String::new(),
    };
    if let Some(one) = asked.lock().unwrap().get_mut(place) {
        *one = path;
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _browser_may_be_gone = stream.write_all(answer.as_bytes()).await;
}
