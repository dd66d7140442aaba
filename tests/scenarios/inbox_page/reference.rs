//! The reference: every operation of the published document, and nothing from elsewhere.

use serde_json::json;
use tests::take_turn;

use crate::world::{World, stays_on};

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
