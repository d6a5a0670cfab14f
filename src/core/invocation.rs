//! Commands to suggest: the one place that builds them.
//!
//! Must not know what a command does.

/// The options that make a command reach the same instance, engine and file as this run does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation(String);

impl Invocation {
    /// Options as they are typed, each with a space before it.
    #[must_use]
    pub fn new(options: impl Into<String>) -> Self {
        Self(options.into())
    }

    /// A command, complete: typed as it stands, it reaches the same instance.
    #[must_use]
    pub fn command(&self, words: &str) -> String {
        format!("clipper-metrics {words}{}", self.0)
    }
}

/// A word as a shell takes it whole.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@=,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
