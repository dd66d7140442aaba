//! What may be attached, and what it looks like in a header.

use proptest::prelude::*;

use super::*;

fn attach(given: AttachmentRequest) -> Result<Attachment, Vec<(String, &'static str)>> {
    Attachment::parse("/attachments/3", given).map_err(|errors| {
        let shown = |error: FieldError| (error.pointer, error.code);
        errors.into_iter().map(shown).collect()
    })
}

fn file(name: &str) -> AttachmentRequest {
    AttachmentRequest {
        filename: Some(name.to_owned()),
        content: Some("aGk=".to_owned()),
        ..AttachmentRequest::default()
    }
}

#[test]
fn all_that_is_wrong_with_an_attachment_is_told() {
    let given = AttachmentRequest {
        content: Some("aGk".to_owned()),
        content_type: Some("message/rfc822".to_owned()),
        content_id: Some("<logo>".to_owned()),
        disposition: Some("hidden".to_owned()),
        ..AttachmentRequest::default()
    };
    let expected = [
        ("filename", "required"),
        ("content", "invalid_base64"),
        ("content_type", "composite_media_type"),
        ("content_id", "invalid_content_id"),
        ("disposition", "invalid_disposition"),
    ];
    let expected = expected.map(|(field, code)| (format!("/attachments/3/{field}"), code));
    assert_eq!(attach(given).unwrap_err(), expected);
}

#[test]
fn a_content_id_makes_it_inline_unless_told_otherwise() {
    let with = |id: Option<&str>, disposition: Option<&str>| {
        let given = AttachmentRequest {
            content_id: id.map(str::to_owned),
            disposition: disposition.map(str::to_owned),
            ..file("a.png")
        };
        let attachment = attach(given).unwrap();
        (attachment.disposition(), attachment.is_related())
    };
    assert_eq!(with(None, None), (Disposition::Attachment, false));
    assert_eq!(with(Some("logo"), None), (Disposition::Inline, true));
    assert_eq!(
        with(Some("a@b"), Some("attachment")),
        (Disposition::Attachment, false)
    );
    assert_eq!(with(None, Some("inline")), (Disposition::Inline, false));
}

#[test]
fn names_are_files_and_stay_in_their_line() {
    let check = |name: &str, code: &'static str| {
        let errors = attach(file(name)).unwrap_err();
        assert_eq!(errors[0].1, code, "{name:?}");
    };
    for control in ["a\r\nBcc: x.pdf", "a\nb", "a\0.pdf", "a\u{85}b"] {
        check(control, "control_character");
    }
    for path in [
        "",
        " ",
        ".",
        "..",
        "a/b.pdf",
        "..\\x",
        "/etc/passwd",
        "x\u{202e}fdp.exe",
    ] {
        check(path, "invalid_filename");
    }
    check(&"n".repeat(256), "too_long");
}

#[test]
fn a_name_that_is_not_plain_comes_in_two_forms() {
    let written = |name: &str| attach(file(name)).unwrap().file_name().to_string();
    assert_eq!(written("a b.pdf"), ";\r\n filename=\"a b.pdf\"");
    assert_eq!(
        written("résumé \"1\".pdf"),
        ";\r\n filename*=utf-8''r%C3%A9sum%C3%A9%20%221%22.pdf;\r\n filename=\"r_sum_ _1_.pdf\""
    );
    assert_eq!(
        written("=?utf-8?q?x?=.pdf"),
        ";\r\n filename*=utf-8''%3D%3Futf-8%3Fq%3Fx%3F%3D.pdf;\r\n filename=\"_?utf-8?q?x?_.pdf\""
    );
    let longest = written(&"é".repeat(127));
    assert!(longest.split("\r\n").all(|line| line.len() <= 998));
}

#[test]
fn base64_is_taken_strictly() {
    let check = |text: &str, good: bool| {
        let given = AttachmentRequest {
            content: Some(text.to_owned()),
            ..file("a")
        };
        assert_eq!(attach(given).is_ok(), good, "{text:?}");
    };
    for good in ["", "aGk=", "aA==", "aGVs", "aGVsaGk=", "+/+/"] {
        check(good, true);
    }
    for bad in [
        "a",
        "aGk",
        "aGk=\n",
        "aGVs\r\naGVs",
        "aG k",
        "aGk=aGk=",
        "====",
        "a===",
        "aB==",
        "aGl=",
        "-_-_",
        "aGé",
        "data:text/plain;base64,aGk=",
        "aG=k",
    ] {
        check(bad, false);
    }
}

proptest! {
    #[test]
    fn any_octets_are_taken_and_kept(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = Base64Text::parse("", BASE64.encode(&octets)).unwrap();
        let mut lines = Vec::new();
        text.write_lines(&mut lines);
        prop_assert_eq!(lines.len(), text.lines_len());
        let lines = String::from_utf8(lines).unwrap();
        prop_assert!(lines.split("\r\n").all(|line| line.len() <= 76));
        prop_assert_eq!(BASE64.decode(lines.replace("\r\n", "")).unwrap(), octets);
    }

    #[test]
    fn what_the_decoder_refuses_is_refused(text in "[A-Za-c+/= \n]{0,12}") {
        let taken = Base64Text::parse("", text.clone()).is_ok();
        prop_assert_eq!(taken, BASE64.decode(&text).is_ok());
    }
}
