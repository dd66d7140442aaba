//! The text as it grows: lines, paragraphs, indentation. White space is written only once
//! something follows it, so nothing ends or begins with it.

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: String,
    /// Nothing is written beyond so many octets.
    max_octets: usize,
    is_cut: bool,
    gap: Gap,
    /// A list item's mark, written before its first word.
    mark: String,
    indent: usize,
    /// Something of this table row stands on the line.
    after_cell: bool,
}

/// What separates the next word from the last, in the order of strength.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Line,
    Paragraph,
}

impl Writer {
    /// Writes at most so many octets, and perhaps a word more.
    pub(super) fn new(max_octets: usize) -> Self {
        Self {
            max_octets,
            ..Self::default()
        }
    }

    /// Text whose white space only separates words.
    pub(super) fn flowing(&mut self, text: &str) {
        let mut words = text.split(is_space).peekable();
        // The first piece is empty when the text begins with space, and so is the last.
        while let Some(word) = words.next() {
            if !word.is_empty() {
                self.word(word);
            }
            if words.peek().is_some() {
                self.gap = self.gap.max(Gap::Space);
            }
        }
    }

    /// Text whose lines and spaces are meant.
    pub(super) fn preformatted(&mut self, text: &str) {
        let mut lines = text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let line = line.trim_end();
            if !line.is_empty() {
                self.word(line);
            }
            if lines.peek().is_some() {
                self.line_break();
            }
        }
    }

    /// One line further; two such breaks leave an empty line.
    pub(super) fn line_break(&mut self) {
        self.gap = match self.gap {
            Gap::None | Gap::Space => Gap::Line,
            Gap::Line | Gap::Paragraph => Gap::Paragraph,
        };
        self.after_cell = false;
    }

    /// What follows stands on another line.
    pub(super) fn end_line(&mut self) {
        self.gap = self.gap.max(Gap::Line);
        self.after_cell = false;
    }

    /// The item of the mark has ended, perhaps without a word.
    pub(super) fn drop_mark(&mut self) {
        self.mark.clear();
    }

    /// What follows stands behind an empty line.
    pub(super) fn end_paragraph(&mut self) {
        // The first paragraph of a list item stands beside its mark.
        if self.mark.is_empty() {
            self.gap = Gap::Paragraph;
        }
        self.after_cell = false;
    }

    /// A line between two parts of the text.
    pub(super) fn rule(&mut self) {
        self.end_line();
        self.word("----------");
        self.end_line();
    }

    /// What follows is another cell of the same row.
    pub(super) fn next_cell(&mut self) {
        self.after_cell = self.gap < Gap::Line && !self.out.is_empty();
    }

    /// What the next word on a new line begins with.
    pub(super) fn mark(&mut self, mark: &str) {
        mark.clone_into(&mut self.mark);
    }

    /// By how many steps lines are moved to the right.
    pub(super) fn indent(&mut self, steps: usize) {
        self.indent = steps;
    }

    /// Octets so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// What was written after that many octets.
    pub(super) fn since(&self, start: usize) -> &str {
        self.out.get(start..).unwrap_or_default()
    }

    /// The whole text; none when there was not room for all of it.
    pub(super) fn finish(self) -> Option<String> {
        (!self.is_cut && self.out.len() <= self.max_octets).then_some(self.out)
    }

    fn word(&mut self, word: &str) {
        if self.out.len() >= self.max_octets {
            self.is_cut = true;
            return;
        }
        let begins = self.out.is_empty();
        match self.gap {
            _ if begins => {}
            Gap::Paragraph => self.out.push_str("\n\n"),
            Gap::Line => self.out.push('\n'),
            _ if self.after_cell => self.out.push_str(" | "),
            Gap::Space => self.out.push(' '),
            Gap::None => {}
        }
        if begins || self.gap >= Gap::Line {
            self.out.extend(std::iter::repeat_n("  ", self.indent));
        }
        self.out.push_str(&self.mark);
        self.mark.clear();
        self.gap = Gap::None;
        self.after_cell = false;
        self.out.push_str(word);
    }
}

/// The white space of HTML, and the spaces that do not break, which serve as layout.
fn is_space(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}
