//! Templates: text with `{{ variables }}` in the syntax of MiniJinja, filled in within bounds of
//! time and memory. Reads no file, includes nothing, and knows neither messages nor composing.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use crate::message_fields::FieldError;
use crate::variables::{POINTER as VARIABLES, Variables};

/// Work that every rendering may do: instructions, and 64 octets made or moved, count one each. It
/// bounds time (about a millisecond) and memory (1.3 MB) alike.
const FUEL_BASE: u64 = 20_000;
/// The same for what ends as one line, of which a message may have many: subject and headers.
const FUEL_LINE: u64 = 1_000;
/// Octets of template that earn one more of it, so that long plain text is never out of fuel.
const OCTETS_A_FUEL: u64 = 8;
/// How deep a recursive loop may go.
const RECURSION_MAX: usize = 50;
/// The template that is HTML, where values are escaped.
const HTML: &str = "/html";
const TEXT: &str = "/text";
/// How much of an expression is shown in an error, in characters.
const SHOWN_MAX: usize = 60;

/// Compiled templates, each known by the pointer of its field.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    octets: u64,
}

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        // Prints all that is in scope; of no use in a mail.
        environment.remove_global("debug");
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_auto_escape_callback(|pointer| match pointer {
            HTML => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        // Errors then know which expression they are about.
        environment.set_debug(true);
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            environment.set_syntax(syntax);
        }
        Self {
            environment,
            octets: 0,
        }
    }
}

/// Whether a text has anything in it that a template replaces.
pub fn has_tags(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|tag| text.contains(tag))
}

impl Templates {
    /// Compiles the template of a field.
    ///
    /// # Errors
    /// It is no template; told at the field.
    pub fn add(&mut self, pointer: &str, source: &str) -> Result<(), FieldError> {
        self.octets = self.octets.saturating_add(source.len() as u64);
        let base = match pointer {
            HTML | TEXT => FUEL_BASE,
            _ => FUEL_LINE,
        };
        let fuel = base.saturating_add(self.octets / OCTETS_A_FUEL);
        self.environment.set_fuel(Some(fuel));
        self.environment
            .add_template_owned(pointer.to_owned(), source.to_owned())
            .map_err(|error| explain(pointer, &error))
    }

    /// Fills in the template of a field; `None` if there is none.
    ///
    /// # Errors
    /// A variable that is not given, told at `/variables`; a template that does what it cannot, or
    /// too much, told at the field.
    pub fn render(
        &self,
        pointer: &str,
        variables: &Variables,
    ) -> Option<Result<String, FieldError>> {
        let template = self.environment.get_template(pointer).ok()?;
        let rendered = template.render(variables.context().clone());
        Some(rendered.map_err(|error| explain(pointer, &error)))
    }
}

/// Repeats the template's own words only, never a value.
fn explain(pointer: &str, error: &Error) -> FieldError {
    let field = pointer.trim_start_matches('/');
    let line = error
        .line()
        .map_or(String::new(), |line| format!(" in line {line}"));
    let shown = expression(error).map_or(String::new(), |text| format!(" `{text}`"));
    match error.kind() {
        ErrorKind::UndefinedError => {
            let detail = format!("{field} uses{shown}{line}, which is not given");
            FieldError::new(VARIABLES, "undefined_variable", detail)
        }
        ErrorKind::OutOfFuel => {
            let detail = "does more than a template may: less text, fewer or shorter loops";
            FieldError::new(pointer, "template_too_complex", detail)
        }
        ErrorKind::SyntaxError => {
            let about = error.detail().map_or(String::new(), shorten);
            let detail = format!("is no template{line}: {about}");
            FieldError::new(pointer, "template_syntax", detail)
        }
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            let detail = format!("calls{shown}{line}, which there is not");
            FieldError::new(pointer, "template_syntax", detail)
        }
        kind => {
            let detail = format!("{field} cannot be filled in at{shown}{line}: {kind}");
            FieldError::new(VARIABLES, "template_failed", detail)
        }
    }
}

/// The piece of the template that the error is about.
fn expression(error: &Error) -> Option<String> {
    let source = error.template_source()?;
    let range = error.range()?;
    // The range of `user.name` begins at the dot.
    let is_name = |c: char| c.is_alphanumeric() || "_.".contains(c);
    let before = source.get(..range.start)?.trim_end_matches(is_name);
    source.get(before.len()..range.end).map(shorten)
}

fn shorten(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn render(pointer: &str, source: &str, variables: &str) -> Result<String, FieldError> {
        let variables = Variables::stored(variables.to_owned()).unwrap();
        let mut templates = Templates::default();
        templates.add(pointer, source)?;
        templates.render(pointer, &variables).unwrap()
    }

    #[test]
    fn values_are_escaped_in_html_and_nowhere_else() {
        let check = |pointer, source, expected: &str| {
            let variables = r#"{"name":"A & <b>","list":[1,2],"yes":true}"#;
            assert_eq!(render(pointer, source, variables).unwrap(), expected);
        };
        check("/html", "<p>{{ name }}</p>\n", "<p>A &amp; &lt;b&gt;</p>\n");
        check("/text", "{{ name }}\n", "A & <b>\n");
        check("/subject", "{{ name|upper }}", "A & <B>");
        check(
            "/text",
            "{% for n in list %}{{ n }};{% endfor %}{% if yes %}ok{% endif %}",
            "1;2;ok",
        );
        check("/text", "{{ missing|default('friend') }}", "friend");
        check("/text", "no tags } } at all", "no tags } } at all");
    }

    #[test]
    fn an_unknown_variable_is_named() {
        let check = |source: &str, part: &str| {
            let error = render("/html", source, r#"{"user":{"name":"Ana"}}"#).unwrap_err();
            let told = (error.pointer.as_str(), error.code);
            assert_eq!(told, ("/variables", "undefined_variable"), "{source}");
            assert!(error.detail.contains(part), "{source}: {}", error.detail);
        };
        check("Hi {{ nmae }}", "`nmae`");
        check("\n\n{{ user.nmae }}", "`user.nmae` in line 3");
        check("{{ user.a.b }}", "user.a");
        check("{% for a in list %}{% endfor %}", "list");
        check("{% if flag %}{% endif %}", "flag");
    }

    #[test]
    fn what_is_no_template_is_told_at_its_field() {
        let check = |source: &str, code: &str| {
            let error = render("/text", source, r#"{"n":7,"name":"secret"}"#).unwrap_err();
            assert_eq!(
                (error.pointer.as_str(), error.code),
                ("/text", code),
                "{source}"
            );
            assert!(
                !error.detail.contains("secret"),
                "{source}: {}",
                error.detail
            );
        };
        check("{{ name", "template_syntax");
        check("{% if %}", "template_syntax");
        check("{{ name|nofilter }}", "template_syntax");
        check("{{ nofunction() }}", "template_syntax");
        check("{{ debug() }}", "template_syntax");
        check("{% include '/etc/passwd' %}", "template_syntax");
        check("{% import 'x' as y %}", "template_syntax");
        check("{% extends 'x' %}", "template_syntax");
        let error = render("/text", "{{ n.x() }}{{ name / 2 }}", r#"{"n":7}"#).unwrap_err();
        assert_eq!(error.pointer, "/variables");
    }

    #[test]
    fn no_template_takes_much_time_or_memory() {
        let doubling = "{% set a = a ~ a %}".repeat(60);
        let nested = "{% for a in range(1000) %}".repeat(20) + &"{% endfor %}".repeat(20);
        let sources = [
            "{{ 'x' * 90000000 }}".to_owned(),
            format!("{{% set a = 'xxxxxxxx' %}}{doubling}{{{{ a }}}}"),
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}"
                .into(),
            nested,
            "{{ '%100000000d'|format(7) }}".to_owned(),
            "{{ 'a'|indent(900000000) }}".to_owned(),
            "{{ range(100000)|list|join('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')|length }}".to_owned(),
            "{{ ([1] * 90000000)|list|length }}".to_owned(),
            "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}".to_owned(),
        ];
        for source in sources {
            let started = Instant::now();
            let shown: String = source.chars().take(60).collect();
            assert!(render("/text", &source, "{}").is_err(), "{shown}");
            let took = started.elapsed();
            assert!(took < Duration::from_secs(2), "{shown}: {took:?}");
        }
        // Plain text of any length is always in order.
        let long = "word ".repeat(2_000_000) + "{{ a }}";
        assert_eq!(
            render("/html", &long, r#"{"a":1}"#).unwrap().len(),
            10_000_001
        );
    }

    #[test]
    fn a_line_may_do_less_than_a_body() {
        let source = "{% for a in range(1000) %}{{ a }}{% endfor %}";
        assert!(render("/text", source, "{}").is_ok());
        for pointer in ["/subject", "/headers/X-A"] {
            let error = render(pointer, source, "{}").unwrap_err();
            let told = (error.pointer.as_str(), error.code);
            assert_eq!(told, (pointer, "template_too_complex"));
            let source = "{% for a in range(50) %}{{ a }},{% endfor %}";
            assert!(render(pointer, source, "{}").is_ok());
        }
    }

    proptest! {
        #[test]
        fn any_source_is_rendered_or_refused(
            source in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|for|in|if|set|end|a|b|\\||\\.|\\(|\\)|\\[|\\]|~|\\*|'| |\\PC){0,30}",
        ) {
            let _ = render("/html", &source, r#"{"a":"x","b":[1,"é"]}"#);
        }
    }
}
