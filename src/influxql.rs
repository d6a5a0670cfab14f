//! InfluxQL, the query language of both servers: quoting, and the names that a query refers to.

/// Quotes an identifier.
#[must_use]
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Quotes a string.
#[must_use]
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

/// The names that a query refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct References {
    /// The FROM clause, as written.
    pub(crate) source: String,
    /// The identifiers in SELECT: fields and tags. Fields compared in WHERE may be missing from the data.
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A word without quotes.
    Word(String),
    /// A double-quoted identifier.
    Quoted(String),
    /// A string, regular expression or number, which refers to no name.
    Value,
    /// Anything else.
    Sign(char),
}

/// Unquoted words that are not names.
const KEYWORDS: &[&str] = &["and", "or", "as", "time", "now", "true", "false", "distinct", "tz", "in"];
/// Words that end the FROM clause.
const AFTER_SOURCE: &[&str] = &["where", "group", "order", "limit", "offset", "slimit", "soffset", "tz", "fill"];

/// The names in a SELECT. `None` for other statements, several statements, subqueries and comments.
#[must_use]
pub(crate) fn references(query: &str) -> Option<References> {
    if query.contains("--") || query.contains("/*") {
        return None;
    }
    let tokens = tokens(query);
    let is_word = |token: &Token, word: &str| matches!(token, Token::Word(text) if text.eq_ignore_ascii_case(word));
    let is_any = |token: &Token, words: &[&str]| words.iter().any(|word| is_word(token, word));
    if !is_word(&tokens.first()?.0, "select") || tokens.iter().skip(1).any(|(token, ..)| is_word(token, "select")) {
        return None;
    }
    if tokens.iter().rev().skip(1).any(|(token, ..)| *token == Token::Sign(';')) {
        return None;
    }
    let from = tokens.iter().position(|(token, ..)| is_word(token, "from"))?;
    let end = tokens[from..].iter().position(|(token, ..)| is_any(token, AFTER_SOURCE) || *token == Token::Sign(';'));
    let end = end.map_or(tokens.len(), |end| from + end);
    let (first, last) = (tokens.get(from + 1).filter(|_| from + 1 < end)?, &tokens[end - 1]);
    let source = query.get(first.1..last.2)?.trim().to_string();
    let mut names = Vec::new();
    let clause = &tokens[1..from];
    for (index, (token, ..)) in clause.iter().enumerate() {
        let next_is = |sign| clause.get(index + 1).is_some_and(|(token, ..)| *token == Token::Sign(sign));
        let is_alias = index > 0 && is_word(&clause[index - 1].0, "as");
        let name = match token {
            Token::Quoted(name) if name != "time" => name,
            Token::Word(name) if !is_any(token, KEYWORDS) && !next_is('(') => name,
            _ => continue,
        };
        // In `field::type`, only the first word is a name.
        let is_type = index > 1 && clause[index - 1].0 == Token::Sign(':');
        if !is_alias && !is_type && !names.contains(name) {
            names.push(name.clone());
        }
    }
    Some(References { source, names })
}

/// Tokens with their start and end positions.
fn tokens(query: &str) -> Vec<(Token, usize, usize)> {
    let mut found: Vec<(Token, usize, usize)> = Vec::new();
    let letters: Vec<(usize, char)> = query.char_indices().collect();
    let place = |index: usize| letters.get(index).map_or(query.len(), |(at, _)| *at);
    let mut index = 0;
    while let Some((start, letter)) = letters.get(index).copied() {
        let begin = index;
        index += 1;
        let token = match letter {
            c if c.is_whitespace() => continue,
            quote @ ('"' | '\'') => {
                let mut text = String::new();
                while let Some((_, c)) = letters.get(index) {
                    index += 1;
                    match c {
                        '\\' => {
                            text.extend(letters.get(index).map(|(_, c)| *c));
                            index += 1;
                        }
                        c if *c == quote => break,
                        c => text.push(*c),
                    }
                }
                if quote == '"' { Token::Quoted(text) } else { Token::Value }
            }
            '/' if begins_regex(found.last().map(|(token, ..)| token)) => {
                while let Some((_, c)) = letters.get(index) {
                    index += 1;
                    match c {
                        '\\' => index += 1,
                        '/' => break,
                        _ => {}
                    }
                }
                Token::Value
            }
            c if c.is_alphanumeric() || c == '_' || c == '$' => {
                while letters.get(index).is_some_and(|(_, c)| c.is_alphanumeric() || *c == '_' || *c == '$') {
                    index += 1;
                }
                let text = &query[start..place(index)];
                if c.is_ascii_digit() || c == '$' { Token::Value } else { Token::Word(text.into()) }
            }
            sign => Token::Sign(sign),
        };
        index = index.min(letters.len());
        found.push((token, place(begin), place(index)));
    }
    found
}

/// Whether a slash begins a regular expression; it is a division only after a value.
fn begins_regex(before: Option<&Token>) -> bool {
    match before {
        None => true,
        Some(Token::Word(word)) => {
            ["select", "from", "with", "key", "measurement", "by"].iter().any(|one| word.eq_ignore_ascii_case(one))
        }
        Some(Token::Sign(sign)) => matches!(sign, '~' | ',' | '('),
        Some(Token::Quoted(_) | Token::Value) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> (String, Vec<String>) {
        let found = references(query).unwrap();
        (found.source, found.names)
    }

    #[test]
    fn fields_are_distinguished_from_functions_aliases_and_values() {
        let query = "SELECT max(\"p99\") AS \"worst\", mean(p50) FROM /^((a|b\\/c))_model_latency$/ WHERE \
                     $timeFilter AND \"size\" > 0 AND time > now() - 1m GROUP BY time($__interval), \"host\" \
                     fill(null)";
        let (source, names) = read(query);
        assert_eq!(source, "/^((a|b\\/c))_model_latency$/");
        assert_eq!(names, ["p99", "p50"]);
        assert_eq!(read("select value::field / 2 from cpu"), ("cpu".into(), vec!["value".into()]));
        assert_eq!(read("SELECT last(\"v\") FROM \"d\".\"autogen\".\"m\"").0, "\"d\".\"autogen\".\"m\"");
        assert_eq!(read("SELECT \"a\" FROM m WHERE \"model\" = 'it''s' OR b =~ /x y/").1, ["a"]);
        assert_eq!(read("SELECT /p9./, \"time\", b::field FROM m").1, ["b"]);
    }

    #[test]
    fn only_plain_selects_are_read() {
        for query in [
            "SHOW DATABASES",
            "",
            "SELECT",
            "SELECT a",
            "SELECT mean(x) FROM (SELECT x FROM m)",
            "SELECT a FROM m -- why",
            "SELECT a FROM m; DROP MEASUREMENT m",
        ] {
            assert_eq!(references(query), None, "{query}");
        }
    }

    #[test]
    fn names_cannot_end_their_quotes() {
        assert_eq!(quoted(r#"a"; DROP DATABASE "b"#), r#""a\"; DROP DATABASE \"b""#);
        assert_eq!(quoted(r"a\"), r#""a\\""#);
        assert_eq!(literal(r"it's \"), r"'it\'s \\'");
    }

    proptest::proptest! {
        #[test]
        fn no_name_ends_its_quotes(name in ".*") {
            let text = quoted(&name);
            let inner = &text[1..text.len() - 1];
            let mut escaped = false;
            for letter in inner.chars() {
                assert!(escaped || letter != '"');
                escaped = letter == '\\' && !escaped;
            }
            assert!(!escaped, "the last quote is not escaped");
        }

        #[test]
        fn no_query_makes_it_panic(query in "(?i)(select )?.{0,60}( from .{0,40})?") {
            let _ = references(&query);
        }
    }
}
