//! DKIM canonicalisation (RFC 6376 section 3.4, relaxed/relaxed) and what a signature covers.
//!
//! Knows nothing of keys. Works on wire bytes with CRLF line ends; a lone CR or LF is an ordinary
//! octet here, because it is one for the verifier too.

use aws_lc_rs::digest;

/// One header field as it stands on the wire: name, colon, value, folds and the last CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawField<'a> {
    name: &'a [u8],
    value: &'a [u8],
    octets: &'a [u8],
}

impl<'a> RawField<'a> {
    /// The field name as written, without white space before the colon.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// What follows the colon: folds and the last CRLF included.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The whole field as written.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Whether this is its name; names have no case.
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Relaxed header form (RFC 6376 section 3.4.2), ending with CRLF.
    fn write_relaxed(&self, out: &mut Vec<u8>) {
        out.extend(self.name.iter().map(u8::to_ascii_lowercase));
        out.push(b':');
        write_relaxed_value(self.value, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Unfolds, turns runs of white space into one space and trims both ends.
fn write_relaxed_value(value: &[u8], out: &mut Vec<u8>) {
    let mut words = value
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
        .filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        out.extend_from_slice(first);
    }
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
}

/// Cuts a header block (everything before the empty line, with or without that line) into fields.
///
/// # Errors
/// The octet offset of the first line that is neither a field nor a continuation.
pub fn parse_fields(block: &[u8]) -> Result<Vec<RawField<'_>>, usize> {
    let mut fields = Vec::new();
    let mut start = 0;
    while start < block.len() && block.get(start..start + 2) != Some(b"\r\n") {
        let end = end_of_field(block, start);
        let field = &block[start..end];
        let colon = field.iter().position(|byte| *byte == b':').ok_or(start)?;
        let name = field[..colon].trim_ascii_end();
        if name.is_empty() || name.iter().any(|byte| !(33..=126).contains(byte)) {
            return Err(start);
        }
        fields.push(RawField {
            name,
            value: &field[colon + 1..],
            octets: field,
        });
        start = end;
    }
    Ok(fields)
}

/// The end of the field that begins at `start`: after the first CRLF no white space follows.
fn end_of_field(block: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(line) = block[at..].windows(2).position(|pair| pair == b"\r\n") {
        at += line + 2;
        if !matches!(block.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    block.len()
}

/// How many fields of this name there are.
pub fn count_fields(fields: &[RawField<'_>], name: &str) -> usize {
    fields.iter().filter(|field| field.is_called(name)).count()
}

/// The octets a signature covers: the fields named in `h=`, then the signature field itself
/// with an empty `b=` (RFC 6376 section 3.7).
///
/// A name that occurs several times takes its fields from the bottom up (section 5.4.2); a name
/// with no field left adds nothing, which is how a later added field breaks the signature.
pub fn signed_octets(fields: &[RawField<'_>], names: &[&str], signature_value: &str) -> Vec<u8> {
    let mut taken = vec![false; fields.len()];
    let mut out = Vec::with_capacity(1024);
    for name in names {
        let lowest = (0..fields.len())
            .rev()
            .find(|&place| !taken[place] && fields[place].is_called(name));
        if let Some(place) = lowest {
            taken[place] = true;
            fields[place].write_relaxed(&mut out);
        }
    }
    out.extend_from_slice(b"dkim-signature:");
    write_relaxed_value(signature_value.as_bytes(), &mut out);
    out
}

/// The relaxed form of a body (RFC 6376 section 3.4.4).
pub fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 2);
    relax_body(body, |octets| out.extend_from_slice(octets));
    out
}

/// SHA-256 of the relaxed body: the value behind `bh=`.
pub fn body_hash(body: &[u8]) -> [u8; 32] {
    const CHUNK: usize = 8 * 1024;
    let mut context = digest::Context::new(&digest::SHA256);
    // Of lines that have to be changed the pieces are words: hashing each by itself would cost more
    // than the hash.
    let mut chunk = Vec::with_capacity(CHUNK.min(body.len()));
    relax_body(body, |octets| {
        if chunk.len() + octets.len() > CHUNK {
            context.update(&chunk);
            chunk.clear();
        }
        if octets.len() > CHUNK {
            context.update(octets);
        } else {
            chunk.extend_from_slice(octets);
        }
    });
    context.update(&chunk);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Hands the relaxed body to `sink`, piece by piece.
///
/// A line of nothing but white space is an empty line once its trailing white space is gone, so
/// at the end of the body it is dropped like one: the order of the two rules matters.
///
/// Most lines of most bodies are relaxed already: such lines go to `sink` as they stand, as many of
/// them at once as follow each other.
fn relax_body(body: &[u8], mut sink: impl FnMut(&[u8])) {
    let mut empty_lines = 0_usize;
    let mut at = 0;
    let mut run = 0..0;
    for line in lines(body) {
        let whole = at + line.len() + 2;
        if is_relaxed(line) && whole <= body.len() && empty_lines == 0 {
            run = (if run.is_empty() { at } else { run.start })..whole;
            at = whole;
            continue;
        }
        at = whole;
        if !run.is_empty() {
            sink(&body[std::mem::replace(&mut run, 0..0)]);
        }
        let mut words = line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .enumerate()
            .filter(|(_, word)| !word.is_empty())
            .peekable();
        if words.peek().is_none() {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            sink(b"\r\n");
        }
        for (place, word) in words {
            // Leading white space shrinks to one space, it does not vanish.
            if place > 0 {
                sink(b" ");
            }
            sink(word);
        }
        sink(b"\r\n");
    }
    if !run.is_empty() {
        sink(&body[run]);
    }
}

/// Whether a line without its CRLF is not empty and keeps all its octets: no tab, no two spaces in
/// a row, none at its end.
fn is_relaxed(line: &[u8]) -> bool {
    let Some((last, before)) = line.split_last() else {
        return false;
    };
    let pairs = before.iter().zip(&line[1..]);
    // Without a way out in the middle this is done many octets at a time.
    let spaced = pairs.fold(false, |found, (one, next)| {
        found | (*one == b'\t') | ((*one == b' ') & (*next == b' '))
    });
    !spaced && !matches!(last, b' ' | b'\t')
}

/// The lines of a body without their CRLF; a last line without CRLF counts as a line.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memmem::find(rest, b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[][..], |end| &rest[end + 2..]);
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relaxes_to(body: &str, expected: &str) {
        let relaxed = relaxed_body(body.as_bytes());
        assert_eq!(String::from_utf8(relaxed).unwrap(), expected, "{body:?}");
    }

    #[test]
    fn the_examples_of_rfc_6376_section_3_4_5() {
        let fields = parse_fields(b"A: X\r\nB : Y\t\r\n\tZ  \r\n").unwrap();
        let mut out = Vec::new();
        fields
            .iter()
            .for_each(|field| field.write_relaxed(&mut out));
        assert_eq!(out, b"a:X\r\nb:Y Z\r\n");
        relaxes_to(" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n");
    }

    #[test]
    fn trailing_lines_of_white_space_are_empty_lines() {
        relaxes_to("hello\r\n  \r\n", "hello\r\n");
        relaxes_to("hello\r\n \t\r\n\r\n \r\n", "hello\r\n");
        relaxes_to("hello\r\n \r\nworld", "hello\r\n\r\nworld\r\n");
        relaxes_to(" \r\n\r\n", "");
        relaxes_to("", "");
        relaxes_to("no newline", "no newline\r\n");
    }

    #[test]
    fn the_hash_of_an_empty_body_is_that_of_nothing() {
        let nothing = digest::digest(&digest::SHA256, b"");
        assert_eq!(body_hash(b"\r\n \r\n"), nothing.as_ref());
    }

    #[test]
    fn a_broken_header_block_names_the_line() {
        assert_eq!(parse_fields(b"From: a\r\nno colon here\r\n"), Err(9));
        assert_eq!(parse_fields(b": nameless\r\n"), Err(0));
        assert_eq!(parse_fields(b"Fr\xc3\xb6m: a\r\n"), Err(0));
        assert_eq!(
            parse_fields(b"From: a\r\n\r\nbody: x\r\n").unwrap().len(),
            1
        );
    }

    #[test]
    fn repeated_fields_are_taken_from_the_bottom() {
        let fields = parse_fields(b"To: upper\r\nTo: lower\r\n").unwrap();
        let octets = signed_octets(&fields, &["To", "To", "To"], "v=1; b=");
        assert_eq!(octets, b"to:lower\r\nto:upper\r\ndkim-signature:v=1; b=");
    }

    proptest! {
        #[test]
        fn relaxing_twice_changes_nothing(body in "[ \t\r\na-c.]{0,80}") {
            let once = relaxed_body(body.as_bytes());
            prop_assert_eq!(relaxed_body(&once), once.clone());
            let hash = digest::digest(&digest::SHA256, &once);
            prop_assert_eq!(&body_hash(body.as_bytes())[..], hash.as_ref());
        }

        #[test]
        fn any_octets_are_cut_without_a_panic(block in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(fields) = parse_fields(&block) {
                signed_octets(&fields, &["From", "a"], "b=");
            }
            relaxed_body(&block);
        }
    }
}
