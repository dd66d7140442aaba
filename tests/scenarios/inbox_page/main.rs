//! The inbox and the reference in a real browser: mail is listed, read and downloaded as it was
//! sent; what is hostile in it stays text, runs nothing and reaches nobody.

#![allow(clippy::unwrap_used)]

mod hostile;
mod reference;
mod trap;
mod world;

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use tests::browser::Browser;
use tests::{PATIENCE, take_turn, until};
use world::{World, address, stays_on, text};

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

fn hash(octets: &[u8]) -> Vec<u8> {
    digest(&SHA256, octets).as_ref().to_vec()
}
