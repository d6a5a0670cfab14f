//! Builds suggested commands and quotes their words.

use std::path::Path;

use super::role::Role;
use super::text::is_unprintable;

/// The options with which a suggested command reaches the same instance, engine and file as this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// This run's options.
    options: Vec<GivenOption>,
    /// The options that select the engine, which `docker` accepts as well.
    engine: String,
    /// The `restore` that creates the instance, instead of `up`.
    restore: Option<String>,
}

/// An option supplied to this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenOption {
    /// Its name without dashes.
    pub name: &'static str,
    /// The text to type, with a leading space; a repeatable option occurs once per value.
    pub typed: String,
    /// The value, if it is the path of a file.
    pub path: Option<String>,
    /// The suggested commands that repeat it, if they accept it.
    pub scope: Scope,
    /// The commands that accept it; `None` for every command.
    pub commands: Option<&'static [&'static str]>,
}

impl GivenOption {
    fn is_accepted_by(&self, command: &str) -> bool {
        self.scope == Scope::Instance || self.commands.is_none_or(|commands| commands.contains(&command))
    }
}

/// Which suggested commands repeat an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All commands: the option selects the instance or Clipper's file.
    Instance,
    /// Commands that connect to the servers: credentials are never remembered.
    Servers,
    /// Commands that connect to the servers, until the instance remembers the setting.
    Settings,
}

impl Invocation {
    /// Creates it from a run's options and the options that select the engine, as typed.
    #[must_use]
    pub(crate) fn new(options: Vec<GivenOption>, engine: impl Into<String>) -> Self {
        Self { options, engine: engine.into(), restore: None }
    }

    /// The invocation of a `restore` of this file: there is no instance yet that `up` could change.
    #[must_use]
    pub(crate) fn restoring(&self, file: &Path) -> Self {
        Self { restore: Some(format!("restore {}", shell_path(file))), ..self.clone() }
    }

    /// The invocation of a run with a setting that `up` would not know, unless this run's options contain it.
    #[must_use]
    pub(crate) fn with_setting_for_up(mut self, name: &'static str, value: &str) -> Self {
        if !self.options.iter().any(|option| option.name == name) {
            let typed = typed_option(&format!("--{name}"), value);
            let scope = Scope::Settings;
            self.options.push(GivenOption { name, typed, path: None, scope, commands: Some(&["up"]) });
        }
        self
    }

    /// A complete command that creates the instance with these options.
    #[must_use]
    pub(crate) fn create(&self, options: &str) -> String {
        match &self.restore {
            Some(restore) => self.again(&format!("{restore}{options}")),
            None => self.command(&format!("up{options}")),
        }
    }

    /// The invocation after the instance has remembered its settings.
    #[must_use]
    pub(crate) fn saved(&self) -> Self {
        let options = self.options.iter().filter(|option| option.scope != Scope::Settings).cloned().collect();
        Self { options, ..self.clone() }
    }

    /// The invocation for commands that are used later and in another directory: they find the instance by its name,
    /// without a file, and other files by their `absolute` paths.
    #[must_use]
    pub(crate) fn by_name(&self, instance: &str, absolute: impl Fn(&str) -> String) -> Self {
        let credentials = self.options.iter().filter(|option| option.scope == Scope::Servers).cloned();
        let credentials = credentials.map(|option| match &option.path {
            Some(path) => GivenOption { typed: typed_option(&format!("--{}", option.name), &absolute(path)), ..option },
            None => option,
        });
        let name = GivenOption {
            name: "name",
            typed: typed_option("--name", instance),
            path: None,
            scope: Scope::Instance,
            commands: None,
        };
        Self { options: std::iter::once(name).chain(credentials).collect(), ..self.clone() }
    }

    /// A complete command, with the options of this run that it accepts. An option in `arguments` replaces this run's.
    #[must_use]
    pub fn command(&self, arguments: &str) -> String {
        format!("{}{}", self.command_there(arguments), self.engine)
    }

    /// A complete command to run on the engine's host, where no option selects the engine.
    #[must_use]
    pub(crate) fn command_there(&self, arguments: &str) -> String {
        // Only to deregister, `down` reaches a server.
        let is_by_name = arguments.starts_with("down") && !option_names(arguments).contains(&"deregister");
        self.with_options(arguments, |option| !is_by_name || option.scope == Scope::Instance)
    }

    /// This run's own command again, with all its options.
    #[must_use]
    pub(crate) fn again(&self, arguments: &str) -> String {
        format!("{}{}", self.with_options(arguments, |_| true), self.engine)
    }

    fn with_options(&self, arguments: &str, repeats: impl Fn(&GivenOption) -> bool) -> String {
        let command = arguments.split(' ').next().unwrap_or_default();
        let changed = option_names(arguments);
        let repeated = |option: &&GivenOption| {
            repeats(option) && option.is_accepted_by(command) && !changed.contains(&option.name)
        };
        let options = self.options.iter().filter(repeated);
        let options: String = options.map(|option| option.typed.as_str()).collect();
        format!("clipper-metrics {arguments}{options}")
    }

    /// The advice to choose another port, with a complete command if a free port is known.
    #[must_use]
    pub(crate) fn another_port(&self, role: Role, free: Option<u16>) -> String {
        match free {
            Some(port) => format!("use another port: `{}`", self.create(&format!(" --{role}-port {port}"))),
            None => format!("choose another port with --{role}-port"),
        }
    }

    /// A command for the engine's own client, for the same engine.
    #[must_use]
    pub(crate) fn docker(&self, arguments: &str) -> String {
        format!("docker{} {arguments}", self.engine)
    }
}

/// The names of the options in a command's arguments, not counting quoted words.
fn option_names(arguments: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let words = arguments.split(|c: char| {
        is_quoted ^= c == '\'';
        c == ' ' && !is_quoted
    });
    words.filter_map(|word| word.strip_prefix("--")?.split('=').next()).collect()
}

/// An option with its value as typed, with a leading space.
#[must_use]
pub fn typed_option(option: &str, value: &str) -> String {
    // A value that begins with a dash would be read as an option.
    let separator = if value.starts_with('-') { '=' } else { ' ' };
    format!(" {option}{separator}{}", shell_word(value))
}

/// Quotes a word for a shell.
#[must_use]
pub(crate) fn shell_word(text: &str) -> String {
    quoted(text.as_bytes())
}

/// Quotes a path for a shell and an option parser.
#[must_use]
pub(crate) fn shell_path(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.starts_with(b"-") { format!("./{}", quoted(bytes)) } else { quoted(bytes) }
}

/// Quotes a word only if necessary. Unprintable characters become escapes, so that the word can be
/// copied from a terminal.
fn quoted(bytes: &[u8]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@=,+%".contains(c);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(is_plain) => text.into(),
        Ok(text) if !text.contains(is_unprintable) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => format!("$'{}'", bytes.utf8_chunks().map(|chunk| escaped(&chunk)).collect::<String>()),
    }
}

fn escaped(chunk: &std::str::Utf8Chunk<'_>) -> String {
    let octal = |byte: &u8| format!("\\{byte:03o}");
    let mut text = String::new();
    for c in chunk.valid().chars() {
        match c {
            '\'' | '\\' => text.extend(['\\', c]),
            c if is_unprintable(c) => text.extend(c.encode_utf8(&mut [0; 4]).as_bytes().iter().map(octal)),
            c => text.push(c),
        }
    }
    text.extend(chunk.invalid().iter().map(octal));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &'static str, value: &str, scope: Scope) -> GivenOption {
        let commands: &[&str] =
            if name == "grafana-port" { &["up", "status", "restore"] } else { &["up", "down", "status", "restore"] };
        let typed = typed_option(&format!("--{name}"), value);
        GivenOption { name, typed, path: (name == "ca-file").then(|| value.into()), scope, commands: Some(commands) }
    }

    #[test]
    fn a_restore_is_repeated_where_there_is_no_instance_yet() {
        let restoring = invocation().restoring(Path::new("/my backup"));
        let another = restoring.another_port(Role::Grafana, Some(3001));
        assert!(another.contains("`clipper-metrics restore '/my backup' --grafana-port 3001"), "{another}");
        assert!(invocation().another_port(Role::Grafana, Some(3001)).contains("up --grafana-port 3001"));
    }

    fn invocation() -> Invocation {
        let options = vec![
            given("name", "a", Scope::Instance),
            given("grafana-port", "3000", Scope::Settings),
            given("influxdb-user", "u", Scope::Servers),
        ];
        Invocation::new(options, " -H tcp://far:2375")
    }

    #[test]
    fn a_command_reaches_the_same_instance_engine_and_settings() {
        let invocation = invocation();
        assert_eq!(
            invocation.command("up"),
            "clipper-metrics up --name a --grafana-port 3000 --influxdb-user u -H tcp://far:2375"
        );
        assert_eq!(
            invocation.command_there("status"),
            "clipper-metrics status --name a --grafana-port 3000 --influxdb-user u"
        );
        assert_eq!(invocation.docker("rm x"), "docker -H tcp://far:2375 rm x");
        assert_eq!(invocation.command("down --volumes"), "clipper-metrics down --volumes --name a -H tcp://far:2375");
        assert_eq!(
            invocation.again("down --deregister"),
            "clipper-metrics down --deregister --name a --influxdb-user u -H tcp://far:2375",
            "only options that `down` accepts"
        );
        assert_eq!(
            invocation.by_name("b", |path| path.into()).command("up"),
            "clipper-metrics up --name b --influxdb-user u -H tcp://far:2375"
        );
        let relative = Invocation::new(vec![given("ca-file", "a b.pem", Scope::Servers)], "");
        assert_eq!(relative.command("up"), "clipper-metrics up --ca-file 'a b.pem'");
        let absolute = relative.by_name("b", |path| format!("/home/{path}"));
        assert_eq!(absolute.command("up"), "clipper-metrics up --name b --ca-file '/home/a b.pem'");
        let saved = invocation.saved();
        assert_eq!(saved.command("up"), "clipper-metrics up --name a --influxdb-user u -H tcp://far:2375");
    }

    #[test]
    fn an_option_is_never_given_twice() {
        let other = invocation().another_port(Role::Grafana, Some(3001));
        assert!(
            other.ends_with("`clipper-metrics up --grafana-port 3001 --name a --influxdb-user u -H tcp://far:2375`"),
            "{other}"
        );
        let invocation = Invocation::new(vec![given("alerts", "true", Scope::Settings)], "");
        assert_eq!(invocation.command("up --alerts=false"), "clipper-metrics up --alerts=false");
        let quoted = invocation.command("restore 'a --alerts b'");
        assert_eq!(quoted, "clipper-metrics restore 'a --alerts b' --alerts true", "a quoted word is not an option");
    }

    #[test]
    fn words_are_quoted_for_a_shell_and_for_an_option_parser() {
        for (text, typed) in [
            ("plain-1.2/ü", "plain-1.2/ü"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("$HOME `id`", "'$HOME `id`'"),
            ("a\tb'c\\", "$'a\\011b\\'c\\\\'"),
            ("\u{202e}", "$'\\342\\200\\256'"),
        ] {
            assert_eq!(shell_word(text), typed, "{text:?}");
        }
        assert_eq!(typed_option("--grafana-folder", "-x y"), " --grafana-folder='-x y'");
        assert_eq!(shell_path(Path::new("-x.tar")), "./-x.tar");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt as _;
            let path = Path::new(std::ffi::OsStr::from_bytes(b"/b\xe9 x"));
            assert_eq!(shell_path(path), "$'/b\\351 x'");
        }
    }
}
