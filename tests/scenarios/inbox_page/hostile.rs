//! What is hostile in mail: it stays text, runs nothing and reaches nobody.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tests::browser::Browser;
use tests::{PATIENCE, take_turn, until};

use crate::trap::Trap;
use crate::world::{World, address, text};

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
