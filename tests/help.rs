//! The help of every command: its text, its size, and the options that `up -h` shows.

use clap::CommandFactory as _;

use crate::support::golden;
use crate::support::run::Run;
use clipper_metrics::cli::Cli;

/// A screen.
const LINES: usize = 40;
const COLUMNS: usize = 100;

fn help(command: &str, option: &str) -> String {
    let help = Run::new(command.split(' ').filter(|word| !word.is_empty()).chain([option])).run().expect(0);
    assert_eq!(help.err, "");
    help.out
}

/// The names of all commands; the empty one is the program itself.
fn commands() -> Vec<String> {
    let cli = Cli::command();
    let names = cli.get_subcommands().map(|command| command.get_name().to_string());
    std::iter::once(String::new()).chain(names).collect()
}

/// The names of the options in a help.
fn options(help: &str) -> Vec<&str> {
    let lines = help.lines().filter(|line| line.starts_with("  -") || line.starts_with("      --"));
    let word = |line: &str| line.split([' ', ',', '[', '=']).find(|word| word.starts_with("--")).map(str::len);
    lines.filter_map(|line| line.find("--").and_then(|at| Some(&line[at..at + word(&line[at..])?]))).collect()
}

#[test]
fn the_help_of_every_command_is_the_recorded_one() {
    for command in commands() {
        let name = if command.is_empty() { "clipper-metrics" } else { &command };
        let (short, long) = (help(&command, "-h"), help(&command, "--help"));
        let both = if short == long {
            format!("$ {name} -h, {name} --help\n\n{short}")
        } else {
            format!("$ {name} -h\n\n{short}\n$ {name} --help\n\n{long}")
        };
        golden(&format!("help/{name}.txt"), &both);
    }
}

#[test]
fn help_fits_on_a_screen() {
    for command in commands() {
        let (short, long) = (help(&command, "-h"), help(&command, "--help"));
        assert!(short.lines().count() <= LINES, "{command} -h has {} lines:\n{short}", short.lines().count());
        if !["up", "status", "doctor", "export"].contains(&command.as_str()) {
            assert_eq!(long, short, "{command}: there is nothing more to show");
        }
        for line in short.lines().chain(long.lines()) {
            assert!(line.chars().count() <= COLUMNS, "{command}: {line}");
        }
    }
}

#[test]
fn short_help_of_up_shows_the_ten_options_that_most_people_use() {
    let shown = help("up", "-h");
    let expected = [
        "--dry-run",
        "--open",
        "--help",
        "--config",
        "--name",
        "--influxdb-url",
        "--grafana-ip",
        "--grafana-port",
        "--grafana-url",
        "--alerts",
        "--host",
    ];
    assert_eq!(options(&shown), expected);
    let all = help("up", "--help");
    for heading in ["Options:", "Instance:", "InfluxDB:", "Grafana:", "Images:", "Engine:", "Output:"] {
        assert!(all.lines().any(|line| line == heading), "{heading}");
    }
}

#[test]
fn help_shows_exactly_the_options_that_the_command_accepts() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let help = help(command.get_name(), "--help");
        let mut shown: Vec<&str> = options(&help).into_iter().filter_map(|option| option.strip_prefix("--")).collect();
        let mut accepted: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        shown.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(shown, accepted, "{}", command.get_name());
        for option in ["config", "name", "host", "context", "output", "quiet", "verbose", "color"] {
            assert!(shown.contains(&option), "{}: {option}", command.get_name());
        }
    }
}
