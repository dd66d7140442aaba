//! Splits Rust text into what is code and what is a string, so that a rule about code does not
//! stumble over a comment. Understands comments, strings, raw strings and characters; nothing else.

/// A string literal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// Line on which it begins, from 1.
    pub(super) line: usize,
    /// As written, escapes included.
    pub(super) text: String,
}

/// The two views of a file.
#[derive(Debug)]
pub(super) struct Source {
    /// The text line by line, with comments and the insides of literals blanked out.
    pub(super) code: Vec<String>,
    pub(super) literals: Vec<Literal>,
    /// First line (from 1) of the tests at the end of the file; past the end if there are none.
    pub(super) tests_from: usize,
}

impl Source {
    pub(super) fn parse(text: &str) -> Self {
        let mut splitter = Splitter {
            rest: text,
            line: 1,
            code: String::new(),
            literals: Vec::new(),
        };
        splitter.split();
        let code: Vec<String> = splitter.code.lines().map(str::to_owned).collect();
        let is_tests = |line: &String| line.trim() == "#[cfg(test)]";
        let tests_from = code
            .iter()
            .position(is_tests)
            .map_or(code.len() + 1, |index| index + 1);
        Self {
            code,
            literals: splitter.literals,
            tests_from,
        }
    }
}

struct Splitter<'a> {
    rest: &'a str,
    line: usize,
    code: String,
    literals: Vec<Literal>,
}

impl Splitter<'_> {
    fn split(&mut self) {
        while !self.rest.is_empty() {
            if self.rest.starts_with("//") {
                self.blank(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.blank(comment_length(self.rest));
            } else if let Some((open, close, raw)) = string_start(self.rest, &self.code) {
                self.literal(open, &close, raw);
            } else if let Some(length) = char_length(self.rest) {
                self.blank(length);
            } else {
                let length = self.rest.chars().next().map_or(1, char::len_utf8);
                self.copy(length);
            }
        }
    }

    fn literal(&mut self, open: usize, close: &str, raw: bool) {
        self.copy(open);
        let length = if raw {
            self.rest.find(close).unwrap_or(self.rest.len())
        } else {
            escaped_length(self.rest)
        };
        let text = self.rest[..length].to_owned();
        self.literals.push(Literal {
            line: self.line,
            text,
        });
        self.blank(length);
        self.copy(close.len().min(self.rest.len()));
    }

    fn copy(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.code.push_str(taken);
        self.rest = rest;
    }

    fn blank(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.code
            .extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

/// Length of a block comment; they nest.
fn comment_length(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the opening of a string here, what closes it, and whether it is raw.
fn string_start(text: &str, before: &str) -> Option<(usize, String, bool)> {
    if text.starts_with('"') {
        return Some((1, "\"".to_owned(), false));
    }
    // A raw string begins with r, not with an identifier that ends in r.
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') {
        return None;
    }
    let hashes_and_more = text.strip_prefix('r')?;
    let hashes = hashes_and_more.len() - hashes_and_more.trim_start_matches('#').len();
    let close = format!("\"{}", "#".repeat(hashes));
    hashes_and_more[hashes..]
        .starts_with('"')
        .then_some((hashes + 2, close, true))
}

/// Length up to the quote that ends a string with escapes.
fn escaped_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal here; lifetimes are none.
fn char_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (escaped_at, _) = chars.next()?;
        let end = inside[escaped_at + 1..].find('\'')?;
        return Some(1 + escaped_at + 1 + end + 1);
    }
    let (end, quote) = chars.next()?;
    (quote == '\'').then_some(1 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, code: &str, literals: &[&str]) {
        let source = Source::parse(text);
        assert_eq!(source.code.join("\n").trim_end(), code, "{text}");
        let found: Vec<_> = source
            .literals
            .iter()
            .map(|literal| literal.text.as_str())
            .collect();
        assert_eq!(found, literals, "{text}");
    }

    #[test]
    fn comments_are_blanked_and_strings_are_taken_out() {
        check("a // b \"c\"\nd", "a         \nd", &[]);
        check("a /* b /* c */ \" */ d", "a                   d", &[]);
        check(r#"f("a // b", 'x')"#, r#"f("      ",    )"#, &["a // b"]);
        check(r#"f("a\"b")"#, r#"f("    ")"#, &[r#"a\"b"#]);
        check(
            r##"f(r#"a "b" c"#)"##,
            r##"f(r#"       "#)"##,
            &["a \"b\" c"],
        );
        check(r#"f(br"a\")"#, r#"f(br"  ")"#, &["a\\"]);
        check(
            r#"f('"', '\'', '\u{1F4E7}') 'a: loop {}"#,
            "f(   ,     ,            ) 'a: loop {}",
            &[],
        );
        check("f(\"open", "f(\"", &["open"]);
        check("/* open", "", &[]);
    }

    #[test]
    fn lines_are_counted_through_literals_and_tests_are_found() {
        let source = Source::parse("a(\"x\ny\");\nb(\"z\");\n#[cfg(test)]\nmod tests;\n");
        let lines: Vec<_> = source.literals.iter().map(|literal| literal.line).collect();
        assert_eq!(lines, [1, 3]);
        assert_eq!(source.tests_from, 4);
        assert_eq!(source.code.len(), 5);
        assert_eq!(Source::parse("a\nb\n").tests_from, 3);
    }
}
