//! Makes text from other sources safe for a terminal.
//! Only for output: values to compare stay unchanged.

/// Whether a character could move the cursor or change the direction of a line.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || ('\u{200e}'..='\u{200f}').contains(&c)
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
        || matches!(c, '\u{061c}' | '\u{2028}' | '\u{2029}')
}

/// Replaces characters that could move a terminal's cursor; line ends stay, tabs become spaces.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '\n',
            '\t' => ' ',
            c if is_unprintable(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The same on one line, so that foreign text cannot imitate lines of our output.
#[must_use]
pub(crate) fn printable_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// Escapes, as JSON does, characters that `serde_json` leaves as they are and a terminal would
/// obey. They occur only inside strings.
#[must_use]
pub(crate) fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unprintable(c) {
            out.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            out.push(c);
        }
    }
    out
}

/// A count with its noun: `1 point`, `2 points`.
#[must_use]
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Words as a list: `a`, `a and b`, `a, b and c`.
#[must_use]
pub(crate) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [words @ .., last] => format!("{} and {last}", words.join(", ")),
    }
}

/// The volumes with these names: `the volume a`, `the volumes a and b`.
#[must_use]
pub(crate) fn volumes(names: &[String]) -> String {
    let noun = if names.len() == 1 { "volume" } else { "volumes" };
    format!("the {noun} {}", listed(names))
}

/// The start of a text on one line, at most `most` characters.
#[must_use]
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let text = printable(text.trim()).replace('\n', " ");
    if text.chars().count() <= most { text } else { text.chars().take(most).chain(['…']).collect() }
}

/// The sentence about the containers that use a volume.
#[must_use]
pub(crate) fn using(names: &[String]) -> String {
    match names {
        [one] => format!("container {one} uses it"),
        names => format!("the containers {} use it", listed(names)),
    }
}

/// The sentence about the containers that are attached to a network.
#[must_use]
pub(crate) fn attached(names: &[String]) -> String {
    match names {
        [one] => format!("container {one} is still attached to it"),
        names => format!("the containers {} are still attached to it", listed(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\u{1b}[31m\tb\u{202e}\u{2067}"), "a\u{fffd}[31m b\u{fffd}\u{fffd}");
        assert_eq!(printable_json("\"a\u{9b}\u{202e}ü\"\n"), "\"a\\u009b\\u202eü\"\n");
        assert_eq!(excerpt(" a\nb c ", 3), "a b…");
    }
}
