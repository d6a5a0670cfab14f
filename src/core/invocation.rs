//! Commands to suggest: the one place that builds them.
//!
//! Must not know what a command does.

/// The options that make a command reach the same instance, engine and file as this run does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    instance: String,
    engine: String,
}

impl Invocation {
    /// Options as they are typed, each with a space before it: those that name instance and file, and
    /// those that name the engine, which `docker` has too.
    #[must_use]
    pub fn new(instance: impl Into<String>, engine: impl Into<String>) -> Self {
        Self { instance: instance.into(), engine: engine.into() }
    }

    /// A command, complete: typed as it stands, it reaches the same instance.
    #[must_use]
    pub fn command(&self, arguments: &str) -> String {
        format!("clipper-metrics {arguments}{}{}", self.instance, self.engine)
    }

    /// The same for the engine's machine itself, where no option names the engine.
    #[must_use]
    pub fn command_there(&self, arguments: &str) -> String {
        format!("clipper-metrics {arguments}{}", self.instance)
    }

    /// A command of the engine's own client, for the same engine.
    #[must_use]
    pub fn docker(&self, arguments: &str) -> String {
        format!("docker{} {arguments}", self.engine)
    }
}

/// A word as a shell takes it whole.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@=,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_command_reaches_the_same_instance_and_engine() {
        let invocation = Invocation::new(" --name a", " -H tcp://far:2375");
        assert_eq!(invocation.command("up"), "clipper-metrics up --name a -H tcp://far:2375");
        assert_eq!(invocation.command_there("up"), "clipper-metrics up --name a");
        assert_eq!(invocation.docker("rm x"), "docker -H tcp://far:2375 rm x");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
    }
}
