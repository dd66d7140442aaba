//! What text comes of which HTML, and that no HTML takes long.

use std::time::{Duration, Instant};

use proptest::prelude::*;

fn text_of_html(html: &str) -> String {
    super::text_of_html(html, usize::MAX).unwrap()
}

#[test]
fn what_readers_see_is_what_is_written() {
    let check = |html: &str, text: &str| assert_eq!(text_of_html(html), text, "{html}");
    check("<p>Hello, <b>Ana</b>!</p>", "Hello, Ana!");
    check("<p>One</p>\n\n<p>Two<br>Three</p>", "One\n\nTwo\nThree");
    check("a<br><br>b<br><br><br>c", "a\n\nb\n\nc");
    check("<h1>Title</h1>Text<h2>Next</h2>", "Title\n\nText\n\nNext");
    check("<div>a</div><div>b</div> c", "a\nb\nc");
    check("  a \n b\t<i> c</i>&nbsp;d ", "a b c d");
    check("foo<b>bar</b>", "foobar");
    check("a<hr>b", "a\n----------\nb");
    check("<pre>a\n  b\n</pre>c", "a\n  b\n\nc");
    check("AT&amp;T &mdash; &#8364;5 &lt;b&gt;", "AT&T — €5 <b>");
    check(
        "<img alt=\"Acme logo\" src=x> Hi <img src=y>",
        "Acme logo Hi",
    );
    check("", "");
    check("<img src=\"cid:x\">", "");
    check("1 < 2", "1 < 2");
}

#[test]
fn what_nobody_sees_is_left_out() {
    let check = |html: &str, text: &str| assert_eq!(text_of_html(html), text, "{html}");
    check(
        "<html><head><title>T</title><style>p{}</style></head><body>x</body></html>",
        "x",
    );
    check("<head><title>T</title><body>x", "x");
    check("a<script>if (1 < 2) '</p>'</script>b<!-- c -->d", "abd");
    check("a<!--[if mso]><p>outlook</p><![endif]-->b", "ab");
    check(
        "<div style=\"display:none;max-height:0\">Pre<div>header</div> &zwnj;</div><p>Hi</p>",
        "Hi",
    );
    check("<p style='display:none'>a<br>b</p>c", "c");
    check("<img style=\"display:none\" alt=\"pixel\">x", "x");
    check("a<svg/>b<svg><text>c</text></svg>d", "abd");
}

#[test]
fn links_say_where_they_lead() {
    let check = |html: &str, text: &str| assert_eq!(text_of_html(html), text, "{html}");
    check(
        "<a href=\"https://x.example/?a=1&amp;b=2\">Pay now</a>.",
        "Pay now (https://x.example/?a=1&b=2).",
    );
    check("<a href='https://x.example/'>x.example</a>", "x.example");
    check("<a href=mailto:a@b.example>a@b.example</a>", "a@b.example");
    check(
        "<a href=\"https://x.example\"><img src=y></a>",
        "https://x.example",
    );
    check(
        "<a href=\"https://x.example\"><img src=y alt=Shop></a>",
        "Shop (https://x.example)",
    );
    for nowhere in [
        "#top",
        "javascript:alert(1)",
        "data:x,y",
        "",
        "https:",
        "/path",
        "https://x.example/a b",
    ] {
        check(&format!("<a href=\"{nowhere}\">here</a>"), "here");
    }
    check(
        "<a href=https://a.example>one<a href=https://b.example>two",
        "one (https://a.example)two (https://b.example)",
    );
}

#[test]
fn lists_and_tables_keep_their_order() {
    let check = |html: &str, text: &str| assert_eq!(text_of_html(html), text, "{html}");
    check("<p>a</p><ul><li>b<li>c</ul>d", "a\n\n- b\n- c\n\nd");
    check(
        "<ol><li>a<ul><li>b</li></ul></li><li><p>c</p></li></ol>",
        "1. a\n  - b\n2. c",
    );
    check(
        "<table><tr><th>Item</th><th>Price</th></tr><tr><td>Tea</td><td>€ 5</td></tr></table>x",
        "Item | Price\nTea | € 5\n\nx",
    );
    check(
        "<table><tr><td></td><td><p>only</p></td><td> </td></tr></table>",
        "only",
    );
    check("</ul></ol></li></td>a", "a");
    check("<ul><li></li><li>a</ul><ul><li></ul>b", "- a\n\nb");
}

#[test]
fn no_nesting_and_nothing_left_open_takes_long() {
    const TIMES: usize = 50_000;
    let started = Instant::now();
    for piece in [
        "<div>",
        "<ul><li>",
        "<a href=https://x.example>",
        "<b",
        "<a \"",
        "<!--",
        "<",
        "</",
        "&",
        "<td>x",
        "<script>",
        "</script",
        "<a b='",
        "<p style='display:none'>",
        "<=",
        "<a =",
        "<table><tr>",
        "<pre>\n",
        "&#",
        " <br> ",
        "é<é",
    ] {
        text_of_html(&piece.repeat(TIMES));
    }
    // Far above what it takes, far below what a quadratic step would.
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}

proptest! {
    #[test]
    fn any_text_comes_to_an_end(
        html in "(<|>|/|!|-|&|;|#|\"|'|=| |a|br|li|ul|td|style|é|\\PC|\n){0,120}",
    ) {
        let text = text_of_html(&html);
        prop_assert_eq!(text.trim_end(), &text);
        prop_assert!(!text.contains("\n\n\n"));
    }
}

#[test]
fn a_text_that_would_outgrow_its_room_is_none() {
    let rules = format!("{}{}", "<ul>".repeat(6), "<hr>".repeat(1_000));
    assert!(text_of_html(&rules).len() > 5 * rules.len());
    assert_eq!(super::text_of_html(&rules, 2 * rules.len()), None);
    let lines = format!("{}<pre>{}", "<ul>".repeat(6), "x\n".repeat(1_000));
    assert_eq!(super::text_of_html(&lines, lines.len()), None);
    assert_eq!(super::text_of_html("<p>four", 4).as_deref(), Some("four"));
    assert_eq!(super::text_of_html("<p>fours", 4), None);
}
