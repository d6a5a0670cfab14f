//! Commands to suggest: the one place that builds them.
//!
//! Must not know what a command does.

use super::role::Role;

/// The options that make a command reach the same instance, engine and file as this run does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    instance: String,
    engine: String,
    /// Other options that this run was given, and as they are typed.
    options: Vec<(&'static str, String)>,
    /// They are not remembered: every command needs them.
    repeats: bool,
}

impl Invocation {
    /// Options as they are typed, each with a space before it: those that name instance and file, and
    /// those that name the engine, which `docker` has too.
    #[must_use]
    pub fn new(instance: impl Into<String>, engine: impl Into<String>) -> Self {
        Self { instance: instance.into(), engine: engine.into(), options: Vec::new(), repeats: false }
    }

    /// With other options that this run was given, by name and as they are typed; where they are not
    /// remembered, every command repeats them.
    #[must_use]
    pub fn with_options(self, options: Vec<(&'static str, String)>, repeats: bool) -> Self {
        Self { options, repeats, ..self }
    }

    /// A command, complete: typed as it stands, it reaches the same instance. An option among the arguments takes the
    /// place of this run's.
    #[must_use]
    pub fn command(&self, arguments: &str) -> String {
        let given = self.options.iter().filter(|(name, _)| !arguments.contains(&format!(" --{name} ")));
        let options: String = given.filter(|_| self.repeats).map(|(_, text)| text.as_str()).collect();
        format!("clipper-metrics {arguments}{}{options}{}", self.instance, self.engine)
    }

    /// A command with every option of this run, whether it is remembered or not.
    #[must_use]
    pub fn repeated(&self, arguments: &str) -> String {
        format!("clipper-metrics {arguments}{}{}{}", self.instance, self.options_without(""), self.engine)
    }

    /// The same for the engine's machine itself, where no option names the engine.
    #[must_use]
    pub fn command_there(&self, arguments: &str) -> String {
        let options = if self.repeats { self.options_without("") } else { String::new() };
        format!("clipper-metrics {arguments}{}{options}", self.instance)
    }

    /// How another port is chosen: this run's own command with that port, where a free one is known.
    #[must_use]
    pub fn another_port(&self, role: Role, free: Option<u16>) -> String {
        let option = format!("{role}-port");
        match free {
            Some(port) => format!(
                "use another port: `clipper-metrics up --{option} {port}{}{}{}`",
                self.instance,
                self.options_without(&option),
                self.engine
            ),
            None => format!("choose another port with --{option}"),
        }
    }

    fn options_without(&self, option: &str) -> String {
        self.options.iter().filter(|(name, _)| *name != option).map(|(_, text)| text.as_str()).collect()
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
        let options = vec![("grafana-port", " --grafana-port 3000".to_string()), ("registry", " --registry r".into())];
        let invocation = invocation.with_options(options, false);
        assert_eq!(invocation.command("up"), "clipper-metrics up --name a -H tcp://far:2375", "the rest is remembered");
        let repeated = invocation.repeated("restore f");
        assert_eq!(repeated, "clipper-metrics restore f --name a --grafana-port 3000 --registry r -H tcp://far:2375");
        let other = invocation.another_port(Role::Grafana, Some(3001));
        assert!(
            other.ends_with("`clipper-metrics up --grafana-port 3001 --name a --registry r -H tcp://far:2375`"),
            "{other}"
        );
        assert_eq!(shell_word("it's"), "'it'\\''s'");
    }
}
