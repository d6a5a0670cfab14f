//! No text for users contains a pattern of translated sentences: string literals, help and pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clipper_metrics::cli::Cli;

/// The patterns, and what to write instead.
const PATTERNS: &[(&str, &str)] = &[
    (r"\b(no|some|any)body\b", "name the subject"),
    (r"\bwhat (is|was|are|were) (there|given|said|done)\b", "use a noun"),
    (r"\bwhat ran last\b", "use a noun"),
    (r"\bof before\b", "previous"),
    (r"\bof ours\b", "managed"),
    (r"\bthat of (a|an|the)\b", "repeat the noun"),
    (r"\btells?\b", "report, show, distinguish"),
    (r"\b(is|are) said\b", "name the subject"),
    (r"\b(go|goes|went) on\b", "continue"),
    (r"\btak(e|es|ing) back\b", "remove"),
    (r"\bask(s|ed)? the way\b", "send the same query"),
    (r"\b(brings?|brought) (it|them|everything) up\b", "start"),
    (r"\b(is|was|were) (not )?(looked at|asked)\b", "read, query"),
    (r"\ball the same\b", "anyway"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The string literals of a source file, without its tests and comments.
fn literals(text: &str) -> Vec<String> {
    let text = &text[..text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len())];
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let (mut found, mut index) = (Vec::new(), 0);
    while index < characters.len() {
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            // A character, such as '"', but no lifetime.
            '\'' if at(index + 1) == '\\' => {
                index += 3;
                while at(index) != '\'' {
                    index += 1;
                }
            }
            '\'' if at(index + 2) == '\'' => index += 2,
            '"' => {
                let mut literal = String::new();
                index += 1;
                while at(index) != '"' && index < characters.len() {
                    if at(index) == '\\' {
                        index += 1;
                        match at(index) {
                            // A line that continues.
                            '\n' => {
                                while at(index + 1).is_whitespace() {
                                    index += 1;
                                }
                            }
                            'n' | 't' => literal.push(' '),
                            other => literal.push(other),
                        }
                    } else {
                        literal.push(at(index));
                    }
                    index += 1;
                }
                found.push(literal);
            }
            _ => {}
        }
        index += 1;
    }
    found
}

/// The help of a command and of each of its options.
fn help_texts(command: &mut clap::Command) -> Vec<String> {
    let mut texts = vec![command.render_long_help().to_string(), command.render_help().to_string()];
    for command in command.get_subcommands_mut() {
        texts.extend(help_texts(command));
    }
    texts
}

/// Every text with the room that it belongs to.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in files("src", "rs") {
        let relative = path.strip_prefix(root().join("src")).unwrap().to_string_lossy().into_owned();
        if relative == "arbitrary.rs" || relative.starts_with("settings/tests/") {
            continue;
        }
        let room = relative.split('/').next().unwrap().trim_end_matches(".rs").to_string();
        texts.extend(literals(&fs::read_to_string(&path).unwrap()).into_iter().map(|text| (room.clone(), text)));
    }
    let mut cli = Cli::command();
    cli.build();
    texts.extend(help_texts(&mut cli).into_iter().map(|text| ("help".into(), text)));
    let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name));
    for path in pages.into_iter().chain(files("docs", "md")) {
        texts.push(("documentation".into(), fs::read_to_string(path).unwrap()));
    }
    for path in files("assets/export", "md") {
        texts.push(("assets/export".into(), fs::read_to_string(path).unwrap()));
    }
    for text in literals(&fs::read_to_string(root().join("assets/dashboard.json")).unwrap()) {
        texts.push(("assets/dashboard".into(), text));
    }
    texts
}

/// The sentences with a pattern, by room.
fn violations() -> BTreeMap<String, Vec<String>> {
    let patterns: Vec<_> = PATTERNS
        .iter()
        .map(|(pattern, instead)| (regex_lite::Regex::new(&format!("(?i){pattern}")).unwrap(), instead))
        .collect();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (room, text) in texts() {
        for line in text.lines() {
            for (pattern, instead) in &patterns {
                if let Some(matched) = pattern.find(line) {
                    let sentence = format!("{:?} in {:?} (instead: {instead})", matched.as_str(), line.trim());
                    found.entry(room.clone()).or_default().push(sentence);
                }
            }
        }
    }
    found
}

#[test]
fn no_text_for_users_contains_a_pattern_of_translated_sentences() {
    let found = violations();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn string_literals_are_found_and_comments_and_characters_are_not() {
    let text = "let a = \"one \\\n    two\"; // \"three\"\nlet b: &'static str = match '\"' { '\\'' => \"f\\\"o\\nur\", _ => r\"five\" };\n\
                #[cfg(test)]\nmod tests {\n\"six\"";
    assert_eq!(literals(text), ["one two", "f\"o ur", "five"]);
}
