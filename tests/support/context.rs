//! What every test has for itself: a directory for its files, runs of the program, and the record of their output.
//! [`Servers`](super::servers::Servers) and `Instance` add servers to it.

use std::path::Path;

use super::golden;
use super::run::{Ran, Run};

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
        Record { text: String::new(), filters: vec![(self.path(""), "")] }
    }
}

/// Runs whose addresses, paths and durations are replaced, so that each test run records the same text.
pub struct Record {
    text: String,
    filters: Vec<(String, &'static str)>,
}

impl Record {
    /// Replaces a text in each later run.
    pub fn filter(mut self, text: impl Into<String>, replacement: &'static str) -> Self {
        self.filters.push((text.into(), replacement));
        self
    }

    /// Executes a run and records it with its situation.
    pub fn run(&mut self, situation: &str, run: Run) -> Ran {
        let words = run.arguments.join(" ");
        let ran = run.run();
        self.add(situation, &words, &ran);
        ran
    }

    /// Adds a run with its situation.
    pub fn add(&mut self, situation: &str, words: &str, ran: &Ran) {
        let mut run = format!("# {situation}\n$ clipper-metrics {words}\n");
        run.push_str(&ran.out);
        // Which steps took long enough to be reported differs between runs.
        for line in ran.err.lines().filter(|line| !line.contains(": done") && !line.ends_with(" …")) {
            run.push_str(&format!("stderr: {line}\n"));
        }
        if ran.code != 0 {
            run.push_str(&format!("exit code {}\n", ran.code));
        }
        for (from, to) in &self.filters {
            run = run.replace(from, to);
        }
        for (pattern, to) in [
            (r"\(\d+ms\)", "(Nms)"),
            (r"\b\d+\.\ds\b", "Ns"),
            (r"\b\d+s ago", "Ns ago"),
            (r" \(Nms\)", ""),
            (r"1\.\d+\.\d+(~rc\d)?\b", "1.X"),
            (r"\d+ points?\b", "N points"),
            (r"\d+ series\b", "N series"),
        ] {
            run = regex_lite::Regex::new(pattern).unwrap().replace_all(&run, to).into_owned();
        }
        self.text.push_str(&run);
        self.text.push('\n');
    }

    /// Compares the recorded runs with a file below `tests/golden`.
    pub fn golden(&self, path: &str) {
        golden(path, &self.text);
    }
}
