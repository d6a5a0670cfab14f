//! Text fitted to the width of a terminal: rows wrap below their column, sentences wrap between words.

use console::{Term, measure_text_width};

/// The start of the second column.
const COLUMN: usize = 15;
/// The space between the parts of a row.
const GAP: &str = "   ";
/// The smallest width that text is fitted to.
const NARROWEST: usize = 40;

/// The current width of the terminal at standard output.
pub(super) fn terminal_width() -> Option<usize> {
    let (_, width) = Term::stdout().size_checked()?;
    (width > 0).then(|| usize::from(width))
}

/// The same for standard error.
pub(super) fn stderr_width() -> Option<usize> {
    let (_, width) = Term::stderr().size_checked()?;
    (width > 0).then(|| usize::from(width))
}

/// The number of lines that a text takes on a terminal.
pub(super) fn lines_on_screen(text: &str, width: Option<usize>) -> usize {
    let Some(width) = width else { return text.lines().count() };
    text.lines().map(|line| measure_text_width(line).div_ceil(width).max(1)).sum()
}

/// A text that is being laid out.
pub(super) struct Layout {
    width: Option<usize>,
    text: String,
}

impl Layout {
    /// An empty page. Without a width, nothing wraps.
    pub(super) fn new(width: Option<usize>) -> Self {
        Self { width: width.map(|width| width.max(NARROWEST)), text: String::new() }
    }

    /// The text, which ends with a line break.
    pub(super) fn done(self) -> String {
        self.text
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A sentence.
    pub(super) fn line(&mut self, text: &str) {
        self.indented(0, text);
    }

    /// A sentence whose lines all begin at a column.
    pub(super) fn indented(&mut self, column: usize, text: &str) {
        for line in self.wrapped(text, column) {
            self.put(column, &line);
        }
    }

    /// A command on its own line. It is not wrapped, because a line break would split it into two commands.
    pub(super) fn command(&mut self, column: usize, command: &str) {
        self.put(column, command);
    }

    /// A label and its parts. A part that fits on a line is not wrapped.
    pub(super) fn row(&mut self, label: &str, parts: &[String]) {
        let mut lines: Vec<String> = Vec::new();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let joined = lines.last().map(|line| format!("{line}{GAP}{part}"));
            match joined {
                Some(joined) if self.fits(COLUMN, &joined) => *lines.last_mut().unwrap_or(&mut String::new()) = joined,
                _ => lines.extend(self.wrapped(part, COLUMN)),
            }
        }
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.text.push_str(&format!("  {label:width$}{line}\n", width = COLUMN - 2));
        }
    }

    fn put(&mut self, column: usize, line: &str) {
        self.text.push_str(&format!("{:column$}{line}\n", ""));
    }

    fn fits(&self, column: usize, text: &str) -> bool {
        self.width.is_none_or(|width| column + measure_text_width(text) <= width)
    }

    /// The lines of a sentence. A word that is longer than a line stays whole, and so does a command in backticks, so that
    /// it can be copied.
    fn wrapped(&self, text: &str, column: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for paragraph in text.split('\n') {
            let mut line = String::new();
            for word in words(paragraph) {
                let longer = if line.is_empty() { word.to_string() } else { format!("{line} {word}") };
                if line.is_empty() || self.fits(column, &longer) {
                    line = longer;
                } else {
                    lines.push(std::mem::replace(&mut line, word.to_string()));
                }
            }
            lines.push(line);
        }
        lines
    }
}

/// The words of a text. Text between a pair of backticks is one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let pairs = text.matches('`').count() / 2 * 2;
    let mut seen = 0;
    text.split(move |c| {
        seen += usize::from(c == '`');
        c == ' ' && (seen % 2 == 0 || seen > pairs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(width: usize) -> Layout {
        Layout::new(Some(width))
    }

    #[test]
    fn a_row_wraps_under_its_column_and_keeps_its_parts_whole() {
        let mut narrow = layout(60);
        let parts = ["answering", "http://127.0.0.1:3000", "12.4.10", "grafana/grafana:12.4.10"].map(String::from);
        narrow.row("Grafana", &parts);
        let text = narrow.done();
        assert_eq!(
            text,
            "  Grafana      answering   http://127.0.0.1:3000   12.4.10\n               grafana/grafana:12.4.10\n"
        );
        let mut wide = layout(200);
        wide.row("Grafana", &parts);
        assert_eq!(wide.done().lines().count(), 1);
    }

    #[test]
    fn colours_have_no_width_and_long_words_stay_whole() {
        let mut layout = layout(40);
        let coloured = format!("\u{1b}[32m{}\u{1b}[0m", "x".repeat(20));
        layout.row("a", &[coloured.clone(), "y".repeat(60)]);
        let text = layout.done();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(&"y".repeat(60)));
        assert_eq!(lines_on_screen(&text, Some(40)), 3, "the second line takes up two");
        assert_eq!(lines_on_screen(&coloured, Some(20)), 1);
    }

    #[test]
    fn a_command_stays_on_one_line() {
        let mut layout = layout(40);
        layout.line("hint: run `clipper-metrics down --volumes --name other` first, or `clipper-metrics up`");
        let text = layout.done();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "`clipper-metrics down --volumes --name other`");
        assert_eq!(lines[2], "first, or `clipper-metrics up`", "{text}");
        assert_eq!(words("a `b c").collect::<Vec<_>>(), ["a", "`b", "c"], "one backtick is no pair");
    }

    #[test]
    fn a_sentence_wraps_between_words() {
        let mut layout = layout(40);
        layout.indented(2, "the quick brown fox jumps over the lazy dog and is gone");
        for line in layout.done().lines() {
            assert!(line.len() <= 40 && line.starts_with("  "), "{line:?}");
        }
    }
}
