//! HTML cut into text and tags. Tolerant like a browser, never looks at an octet more than a few
//! times, and knows nothing of what an element means beyond where its raw text ends.

/// A piece of HTML. Comments, declarations and the content of scripts are left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Entities are not decoded.
    Text(&'a str),
    Open(Tag<'a>),
    Close(&'a str),
}

/// An opening tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    attributes: &'a str,
}

/// The pieces of a document, in order.
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(html: &'a str) -> Self {
        Self { rest: html }
    }

    /// The rest after the first `end`; nothing when there is none.
    fn skip_past(&mut self, end: &str) {
        let at = self.rest.find(end).map(|at| at + end.len());
        self.rest = at.map_or("", |at| &self.rest[at..]);
    }

    /// Scripts and styles are no HTML inside; they end with their own closing tag only.
    fn skip_raw_text(&mut self, name: &str) {
        let mut searched = self.rest;
        while let Some(at) = searched.find("</") {
            searched = &searched[at + 2..];
            let found = searched.get(..name.len());
            if found.is_some_and(|found| found.eq_ignore_ascii_case(name)) {
                // The closing tag itself is a token like any other.
                let start = self.rest.len() - searched.len() - 2;
                self.rest = &self.rest[start..];
                return;
            }
        }
        self.rest = "";
    }

    /// The octets up to the > that ends a tag, quoted ones left aside.
    fn take_tag(&mut self) -> &'a str {
        let mut quote = None;
        for (at, byte) in self.rest.bytes().enumerate() {
            match (quote, byte) {
                (None, b'>') => {
                    let tag = &self.rest[..at];
                    self.rest = &self.rest[at + 1..];
                    return tag;
                }
                // A quote opens a value only behind its equals sign.
                (None, b'"' | b'\'') if opens_value(&self.rest[..at]) => quote = Some(byte),
                (Some(open), byte) if open == byte => quote = None,
                _ => {}
            }
        }
        std::mem::take(&mut self.rest)
    }
}

fn opens_value(before: &str) -> bool {
    // Two spaces behind an equals sign are as far as anyone writes.
    let before = &before.as_bytes()[before.len().saturating_sub(3)..];
    before.trim_ascii_end().ends_with(b"=")
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let text_end = self.rest.find('<').unwrap_or(self.rest.len());
            if text_end > 0 {
                let (text, rest) = self.rest.split_at(text_end);
                self.rest = rest;
                return Some(Token::Text(text));
            }
            let after = &self.rest[1..];
            if let Some(comment) = after.strip_prefix("!--") {
                self.rest = comment;
                self.skip_past("-->");
            } else if after.starts_with(['!', '?']) {
                self.skip_past(">");
            } else if let Some(closing) = after.strip_prefix('/') {
                self.rest = closing;
                let name = name_of(self.take_tag());
                if !name.is_empty() {
                    return Some(Token::Close(name));
                }
            } else if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
                self.rest = after;
                let tag = self.take_tag();
                let name = name_of(tag);
                if ["script", "style"]
                    .iter()
                    .any(|raw| name.eq_ignore_ascii_case(raw))
                {
                    self.skip_raw_text(name);
                }
                let attributes = &tag[name.len()..];
                return Some(Token::Open(Tag { name, attributes }));
            } else {
                // A lone < is text.
                let (text, rest) = self.rest.split_at(1);
                self.rest = rest;
                return Some(Token::Text(text));
            }
        }
    }
}

fn name_of(tag: &str) -> &str {
    let end = tag.find(|c: char| c.is_ascii_whitespace() || c == '/');
    &tag[..end.unwrap_or(tag.len())]
}

impl<'a> Tag<'a> {
    /// The value of the first attribute of this name; empty for one without a value.
    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes()
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
            if rest.is_empty() {
                return None;
            }
            let ends_name = |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '/');
            // An equals sign in front belongs to the name, as browsers have it.
            let mut later = rest.char_indices().skip(1);
            let name_end = later.find_map(|(at, c)| ends_name(c).then_some(at));
            let name_end = name_end.unwrap_or(rest.len());
            let (name, after) = rest.split_at(name_end);
            let Some(value) = after.trim_ascii_start().strip_prefix('=') else {
                rest = after;
                return Some((name, ""));
            };
            let value = value.trim_ascii_start();
            let (value, after) = match value.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    let inside = &value[1..];
                    inside.split_once(quote).unwrap_or((inside, ""))
                }
                _ => {
                    let end = value.find(|c: char| c.is_ascii_whitespace());
                    value.split_at(end.unwrap_or(value.len()))
                }
            };
            rest = after;
            Some((name, value))
        })
    }

    /// Written `<svg/>`: there is no content. Other elements of HTML do not end so, whatever their
    /// authors believe.
    pub(super) fn closes_itself(&self) -> bool {
        let foreign = ["svg", "math"];
        foreign
            .iter()
            .any(|name| self.name.eq_ignore_ascii_case(name))
            && self.attributes.ends_with('/')
    }

    /// Whether its own attributes keep it from being seen, as those of preheaders do.
    pub(super) fn is_hidden(&self) -> bool {
        if self.attribute("hidden").is_some() {
            return true;
        }
        let Some(style) = self.attribute("style") else {
            return false;
        };
        let mut height_is_zero = false;
        let mut overflow_is_hidden = false;
        for declaration in style.split(';') {
            let (property, value) = declaration.split_once(':').unwrap_or_default();
            let value = value.to_ascii_lowercase();
            let value = value.trim().trim_end_matches("!important").trim_end();
            let is_zero = value
                .strip_prefix('0')
                .is_some_and(|unit| ["", "px", "em", "pt", "%"].contains(&unit));
            match property.trim().to_ascii_lowercase().as_str() {
                "display" if value == "none" => return true,
                "visibility" if value == "hidden" => return true,
                "mso-hide" if value == "all" => return true,
                "font-size" | "opacity" if is_zero => return true,
                "max-height" | "height" => height_is_zero |= is_zero,
                "overflow" => overflow_is_hidden |= value == "hidden",
                _ => {}
            }
        }
        height_is_zero && overflow_is_hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(html: &str) -> Tag<'_> {
        match Tokens::new(html).next() {
            Some(Token::Open(tag)) => tag,
            other => panic!("{html}: {other:?}"),
        }
    }

    #[test]
    fn html_is_cut_where_browsers_cut_it() {
        let shown = |html: &str| -> Vec<String> {
            let show = |token| match token {
                Token::Text(text) => text.to_owned(),
                Token::Open(tag) => format!("[{}]", tag.name),
                Token::Close(name) => format!("[/{name}]"),
            };
            Tokens::new(html).map(show).collect()
        };
        assert_eq!(shown("a<b>c</b >d"), ["a", "[b]", "c", "[/b]", "d"]);
        assert_eq!(shown("1 < 2 <3"), ["1 ", "<", " 2 ", "<", "3"]);
        assert_eq!(shown("a<!-- <b> --->c<!doctype x><?y?>d"), ["a", "c", "d"]);
        assert_eq!(shown("a<!-- open"), ["a"]);
        assert_eq!(shown("<a title='>'>x"), ["[a]", "x"]);
        assert_eq!(shown("<p it's>x"), ["[p]", "x"]);
        assert_eq!(shown("<a href=\"open"), ["[a]"]);
        assert_eq!(
            shown("<SCRIPT>if (a</b>) '</p>'</script>x"),
            ["[SCRIPT]", "[/script]", "x"]
        );
        assert_eq!(shown("<style>p{}"), ["[style]"]);
        assert_eq!(shown("</>x</ >y"), ["x", "y"]);
    }

    #[test]
    fn attributes_are_read_in_every_spelling() {
        let tag = open("<a HREF = \"x y\" b='1' c=2 d é=3 ==4 / href=second>");
        let found: Vec<_> = tag.attributes().collect();
        let expected = [
            ("HREF", "x y"),
            ("b", "1"),
            ("c", "2"),
            ("d", ""),
            ("é", "3"),
            ("=", "4"),
            ("href", "second"),
        ];
        assert_eq!(found, expected);
        assert_eq!(tag.attribute("href"), Some("x y"));
    }

    #[test]
    fn hidden_elements_are_known_by_their_style() {
        for hidden in [
            "<div hidden>",
            "<div style=\"display:none\">",
            "<div style='color:red; DISPLAY : None !important'>",
            "<span style=\"max-height:0;overflow:hidden\">",
            "<span style=\"font-size:0px\">",
            "<span style=\"mso-hide:all\">",
        ] {
            assert!(open(hidden).is_hidden(), "{hidden}");
        }
        for shown in [
            "<div>",
            "<div style=\"display:block\">",
            "<div style=\"max-height:0\">",
            "<div style=\"font-size:0.9em\">",
            "<div class=\"hidden\">",
        ] {
            assert!(!open(shown).is_hidden(), "{shown}");
        }
    }
}
