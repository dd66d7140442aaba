//! Plain text from HTML, for messages that come without one.
//!
//! One pass over the octets, no tree and no recursion: time is in proportion to the length, and
//! neither nesting nor anything left open costs stack. A tree as browsers build it would read
//! broken HTML more faithfully, at the price of a parser whose depth the sender chooses.

mod entities;
mod tags;
mod writer;

use entities::push_decoded;
use tags::{Tag, Token, Tokens};
use writer::Writer;

/// The text of an HTML document: blocks on lines of their own, links with their address, list
/// items with their mark, cells with a bar between them; nothing of what readers do not see.
/// Empty when there is nothing to read; none when it would have more than `max_octets`: a few octets
/// of HTML can stand for many of text, such as rules within lists.
pub(crate) fn text_of_html(html: &str, max_octets: usize) -> Option<String> {
    let mut derivation = Derivation {
        writer: Writer::new(max_octets),
        ..Derivation::default()
    };
    for token in Tokens::new(html) {
        match token {
            Token::Text(text) => derivation.text(text),
            Token::Open(tag) => derivation.open(&tag),
            Token::Close(name) => derivation.close(name),
        }
    }
    derivation.close_link();
    derivation.writer.finish()
}

/// What has been understood so far.
#[derive(Default)]
struct Derivation<'a> {
    writer: Writer,
    /// An element whose content nobody sees, and how many of its name are open inside it.
    hidden: Option<(&'a str, usize)>,
    link: Option<Link>,
    lists: Vec<List>,
    /// Lists deeper than are marked.
    deeper_lists: usize,
    preformatted: usize,
}

/// An open link.
struct Link {
    address: String,
    /// Octets written before it.
    start: usize,
}

/// An open list.
enum List {
    Bulleted,
    Numbered(u32),
}

/// Lists inside of lists that are still indented.
const LISTS_MAX: usize = 6;
/// Addresses longer than this say nothing to a person.
const ADDRESS_MAX: usize = 2_000;

impl<'a> Derivation<'a> {
    fn text(&mut self, text: &str) {
        if self.hidden.is_some() {
            return;
        }
        let mut decoded = String::with_capacity(text.len());
        push_decoded(&mut decoded, text);
        if self.preformatted > 0 {
            self.writer.preformatted(&decoded);
        } else {
            self.writer.flowing(&decoded);
        }
    }

    fn open(&mut self, tag: &Tag<'a>) {
        if let Some((name, depth)) = &mut self.hidden {
            // What a head or an unclosed hidden element holds ends where the body begins.
            if is(tag.name, "body") && !is(name, "body") {
                self.hidden = None;
            } else {
                *depth += usize::from(tag.name.eq_ignore_ascii_case(name));
            }
            return;
        }
        if is_unseen(tag.name) || tag.is_hidden() {
            if !is_void(tag.name) && !tag.closes_itself() {
                self.hidden = Some((tag.name, 1));
            }
            return;
        }
        match kind(tag.name) {
            Kind::Break => self.writer.line_break(),
            Kind::Rule => self.writer.rule(),
            Kind::Line => self.writer.end_line(),
            Kind::Paragraph => self.writer.end_paragraph(),
            Kind::Preformatted => {
                self.writer.end_paragraph();
                self.preformatted += 1;
            }
            Kind::Cell => self.writer.next_cell(),
            Kind::List => self.open_list(is(tag.name, "ol")),
            Kind::Item => self.open_item(),
            Kind::Link => self.open_link(tag),
            Kind::Image => {
                if let Some(alternative) = tag.attribute("alt") {
                    self.text(alternative);
                }
            }
            Kind::Inline => {}
        }
    }

    fn close(&mut self, name: &str) {
        if let Some((hidden, depth)) = &mut self.hidden {
            if name.eq_ignore_ascii_case(hidden) {
                *depth -= 1;
                if *depth == 0 {
                    self.hidden = None;
                }
            }
            return;
        }
        match kind(name) {
            // Browsers take </br> for <br>, and </p> for an empty paragraph.
            Kind::Break => self.writer.line_break(),
            Kind::Line => self.writer.end_line(),
            Kind::Item => {
                self.writer.drop_mark();
                self.writer.end_line();
            }
            Kind::Paragraph => self.writer.end_paragraph(),
            Kind::Preformatted => {
                self.writer.end_paragraph();
                self.preformatted = self.preformatted.saturating_sub(1);
            }
            Kind::List => self.close_list(),
            Kind::Link => self.close_link(),
            Kind::Rule | Kind::Cell | Kind::Image | Kind::Inline => {}
        }
    }

    fn open_list(&mut self, numbered: bool) {
        match self.lists.is_empty() {
            true => self.writer.end_paragraph(),
            false => self.writer.end_line(),
        }
        if self.lists.len() == LISTS_MAX {
            self.deeper_lists += 1;
            return;
        }
        self.lists.push(match numbered {
            true => List::Numbered(0),
            false => List::Bulleted,
        });
        self.writer.indent(self.lists.len() - 1);
    }

    fn close_list(&mut self) {
        self.writer.drop_mark();
        if self.deeper_lists > 0 {
            self.deeper_lists -= 1;
            return self.writer.end_line();
        }
        if self.lists.pop().is_none() {
            return;
        }
        match self.lists.len() {
            0 => self.writer.end_paragraph(),
            _ => self.writer.end_line(),
        }
        self.writer.indent(self.lists.len().saturating_sub(1));
    }

    fn open_item(&mut self) {
        self.writer.drop_mark();
        self.writer.end_line();
        match self.lists.last_mut() {
            Some(List::Numbered(number)) => {
                *number = number.saturating_add(1);
                let mark = format!("{number}. ");
                self.writer.mark(&mark);
            }
            Some(List::Bulleted) | None => self.writer.mark("- "),
        }
    }

    fn open_link(&mut self, tag: &Tag<'_>) {
        // A link inside of a link ends the outer one.
        self.close_link();
        let Some(address) = tag.attribute("href").and_then(shown_address) else {
            return;
        };
        self.link = Some(Link {
            address,
            start: self.writer.len(),
        });
    }

    fn close_link(&mut self) {
        let Some(link) = self.link.take() else { return };
        let text = self.writer.since(link.start).trim();
        let says_it_already = {
            let bare = |text: &str| {
                let text = text.trim_end_matches('/').to_ascii_lowercase();
                let schemes = ["https://", "http://", "mailto:", "tel:"];
                let scheme = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
                scheme.unwrap_or(&text).to_owned()
            };
            text.len() <= ADDRESS_MAX && bare(text) == bare(&link.address)
        };
        if text.is_empty() {
            self.writer.flowing(&link.address);
        } else if !says_it_already {
            self.writer.flowing(&format!(" ({})", link.address));
        }
    }
}

/// The address of a link, if it leads anywhere from a text: not to a place in the same page, and
/// not to a script.
fn shown_address(href: &str) -> Option<String> {
    if href.len() > ADDRESS_MAX {
        return None;
    }
    let mut address = String::new();
    push_decoded(&mut address, href);
    let address = address.trim();
    let scheme = address.split(':').next()?.to_ascii_lowercase();
    let leads = ["http", "https", "mailto", "tel", "sms"].contains(&scheme.as_str());
    let plain = !address.contains(|c: char| c.is_control() || c.is_whitespace());
    (leads && plain && address.len() > scheme.len() + 1).then(|| address.to_owned())
}

/// What an element does to the text.
enum Kind {
    Break,
    Rule,
    Line,
    Paragraph,
    Preformatted,
    Cell,
    List,
    Item,
    Link,
    Image,
    Inline,
}

fn kind(name: &str) -> Kind {
    let any = |names: &[&str]| names.iter().any(|known| is(name, known));
    if any(&["br"]) {
        Kind::Break
    } else if any(&["hr"]) {
        Kind::Rule
    } else if any(&["td", "th"]) {
        Kind::Cell
    } else if any(&["li"]) {
        Kind::Item
    } else if any(&["a"]) {
        Kind::Link
    } else if any(&["img"]) {
        Kind::Image
    } else if any(&["ul", "ol"]) {
        Kind::List
    } else if any(&["pre"]) {
        Kind::Preformatted
    } else if any(PARAGRAPHS) {
        Kind::Paragraph
    } else if any(LINES) {
        Kind::Line
    } else {
        Kind::Inline
    }
}

/// Set apart by an empty line.
const PARAGRAPHS: &[&str] = &[
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "blockquote",
    "table",
    "dl",
    "figure",
];
/// On lines of their own.
const LINES: &[&str] = &[
    "div",
    "tr",
    "section",
    "article",
    "header",
    "footer",
    "main",
    "nav",
    "aside",
    "address",
    "center",
    "form",
    "fieldset",
    "dt",
    "dd",
    "figcaption",
    "caption",
    "body",
];
/// Never shown as text.
const UNSEEN: &[&str] = &[
    "head", "title", "script", "style", "template", "svg", "math", "object", "iframe", "select",
    "textarea", "audio", "video", "canvas", "map",
];
/// Have no content and no end (HTML, void elements).
const VOID: &[&str] = &[
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
];

fn is(name: &str, known: &str) -> bool {
    name.eq_ignore_ascii_case(known)
}

fn is_unseen(name: &str) -> bool {
    UNSEEN.iter().any(|known| is(name, known))
}

fn is_void(name: &str) -> bool {
    VOID.iter().any(|known| is(name, known))
}

#[cfg(test)]
mod tests;
