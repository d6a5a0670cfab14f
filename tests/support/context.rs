//! What every test has for itself: a directory for its files, runs of the program, and the record of their output.
//! [`Servers`](super::servers::Servers) and `Instance` add servers to it.

use std::path::Path;

use super::run::{Ran, Run};
use super::{golden, golden_section};

/// A directory that is removed with the test.
pub struct TestContext(tempfile::TempDir);

impl TestContext {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file of this test, as an argument.
    pub fn path(&self, name: &str) -> String {
        self.directory().join(name).to_str().unwrap().into()
    }

    /// Writes a file and its folders; returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.directory().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.directory().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }

    /// The option for Grafana's password, with a file that contains it.
    pub fn grafana_password(&self, password: &str) -> [String; 2] {
        ["--grafana-password-file".into(), self.write("password", password)]
    }

    /// A record of runs in which the paths of this test are file names.
    pub fn record(&self) -> Record {
        Record::default().filter(self.path(""), "")
    }
}

/// Runs whose addresses, paths and durations are replaced, so that each test run records the same text.
#[derive(Default)]
pub struct Record {
    /// Each with the version of Grafana that it used.
    runs: Vec<(&'static str, String)>,
    filters: Vec<(String, &'static str)>,
    version: &'static str,
}

impl Record {
    /// Replaces a text in each run.
    #[must_use]
    pub fn filter(mut self, text: impl Into<String>, replacement: &'static str) -> Self {
        self.filters.push((text.into(), replacement));
        self
    }

    /// Says which version of Grafana the following runs use.
    #[must_use]
    pub fn version(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    /// Replaces the port of a server in each run.
    #[must_use]
    pub fn port(self, port: u16, replacement: &'static str) -> Self {
        self.filter(format!(":{port}"), replacement)
    }

    /// Executes a run and records it with its situation.
    pub fn run(&mut self, situation: &str, run: Run) -> Ran {
        self.add(situation, run.run())
    }

    /// Adds a run with its situation.
    pub fn add(&mut self, situation: &str, ran: Ran) -> Ran {
        let mut run = format!("# {situation}\n$ {}\n{}", ran.typed, ran.out);
        // Which steps took long enough to be reported differs between runs.
        for line in ran.err.lines().filter(|line| !line.contains(": done") && !line.ends_with(" …")) {
            run.push_str(&format!("stderr: {line}\n"));
        }
        if ran.code != 0 {
            run.push_str(&format!("exit code {}\n", ran.code));
        }
        self.runs.push((self.version, run));
        ran
    }

    /// The runs, each once, with the versions of Grafana if not all of them have the same text.
    fn runs(&self) -> Vec<String> {
        let (mut all, mut runs) = (Vec::new(), Vec::<(String, Vec<&str>)>::new());
        for (version, run) in &self.runs {
            let run = self.normalised(run);
            let at = runs.iter().position(|(text, _)| *text == run).unwrap_or(runs.len());
            if at == runs.len() {
                runs.push((run, Vec::new()));
            }
            for versions in [&mut all, &mut runs[at].1] {
                if !version.is_empty() && !versions.contains(version) {
                    versions.push(version);
                }
            }
        }
        let with_versions = |(run, versions): (String, Vec<&str>)| {
            if versions.is_empty() || versions == all {
                run
            } else {
                run.replacen('\n', &format!(" (Grafana {})\n", versions.join(", ")), 1)
            }
        };
        runs.into_iter().map(with_versions).collect()
    }

    fn normalised(&self, run: &str) -> String {
        // A temporary directory may be inside the repository.
        let run = self.filters.iter().fold(run.to_string(), |run, (from, to)| run.replace(from, to));
        let mut run = run.replace(concat!(env!("CARGO_MANIFEST_DIR"), "/"), "");
        for (pattern, to) in [
            (r"\(\d+ms\)", "(Nms)"),
            (r"\b\d+\.\ds\b", "Ns"),
            (r"\bafter \d+m?s\b", "after Ns"),
            // It depends on this machine how an engine is started or installed.
            (r"(start Docker|install an engine): [^;]*;", "START DOCKER;"),
            (r"\b\d+s ago", "Ns ago"),
            (r" \(Nms\)", ""),
            (r"1\.\d+\.\d+(~rc\d)?\b", "1.X"),
            (r"\d+ points?\b", "N points"),
            (r"\d+ series\b", "N series"),
            (r"\b\d{13}-\d+", "PROBE"),
        ] {
            run = regex_lite::Regex::new(pattern).unwrap().replace_all(&run, to).into_owned();
        }
        run
    }

    /// Compares the recorded runs with a file below `tests/golden`.
    pub fn golden(&self, path: &str) {
        golden(path, &self.runs().iter().map(|run| format!("{run}\n")).collect::<String>());
    }

    /// Compares the recorded runs with this test's section of the golden file of its module.
    pub fn section(&self) {
        golden_section(&self.runs().join("\n"));
    }
}
