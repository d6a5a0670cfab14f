//! Known causes in the last lines of a server's log, each with its own way out.
//!
//! Knows the words of InfluxDB, Grafana, SQLite and the kernel. Must not know how a log is read.

use crate::error::{Refusal, is_disk_full};
use crate::model::role::Role;
use crate::model::stack::{ContainerSpec, Stack};

/// Why a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The image is built for another processor.
    Architecture,
    /// Grafana's database is damaged.
    Malformed,
    /// The disk is full.
    Disk,
    /// The image's user may not write to the volume.
    NotWritable,
}

impl Cause {
    /// The cause that a log names.
    pub(super) fn of(role: Role, log: &[String]) -> Option<Self> {
        let says = |phrases: &[&str]| log.iter().any(|line| phrases.iter().any(|phrase| line.contains(phrase)));
        let is_denied = |line: &String| line.contains("ermission denied") && line.contains(role.data_path());
        if says(&["exec format error"]) {
            Some(Self::Architecture)
        } else if says(&["database disk image is malformed", "file is not a database"]) {
            Some(Self::Malformed)
        } else if log.iter().any(|line| is_disk_full(line)) {
            Some(Self::Disk)
        } else if says(&["is not writable", "attempt to write a readonly database", "unable to open database file"])
            || log.iter().any(is_denied)
        {
            Some(Self::NotWritable)
        } else {
            None
        }
    }

    /// What to type next; `user` is the one that the image runs as.
    pub(super) fn hint(self, stack: &Stack, spec: &ContainerSpec, user: &str) -> String {
        let (volume, image) = (&spec.specification.volume, &spec.specification.image);
        let [down, up] = ["down", "up"].map(|verb| stack.command(verb));
        match self {
            Self::Architecture => Refusal::Architecture.hint(&stack.invocation),
            Self::Disk => Refusal::Disk.hint(&stack.invocation),
            Self::Malformed => format!(
                "with a backup: `{}`, then `{}`; without one: `{down}`, `{}`, then `{up}` give Grafana a new database and \
                 keep InfluxDB's data",
                stack.command("down --volumes"),
                stack.command("restore FILE"),
                stack.invocation.docker(&format!("volume rm {volume}"))
            ),
            Self::NotWritable => {
                let user = if user.is_empty() { "0" } else { user };
                let arguments =
                    format!("run --rm --user 0 --entrypoint chown --volume {volume}:/data {image} -R {user} /data");
                format!("`{}` gives the volume to the image's user; then `{up}`", stack.invocation.docker(&arguments))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_every_cause_are_known_and_others_are_none() {
        for (role, line, cause) in [
            (Role::Grafana, "exec /run.sh: exec format error", Some(Cause::Architecture)),
            (Role::Grafana, "Error: database disk image is malformed (11)", Some(Cause::Malformed)),
            (Role::Grafana, "failed to open: file is not a database", Some(Cause::Malformed)),
            (Role::Influxdb, "run: create server: write /x: no space left on device", Some(Cause::Disk)),
            (Role::Grafana, "Error: database or disk is full (13)", Some(Cause::Disk)),
            (Role::Grafana, "GF_PATHS_DATA='/var/lib/grafana' is not writable.", Some(Cause::NotWritable)),
            (
                Role::Grafana,
                "mkdir: can't create directory '/var/lib/grafana/plugins': Permission denied",
                Some(Cause::NotWritable),
            ),
            (
                Role::Influxdb,
                "run: create server: mkdir all: mkdir /var/lib/influxdb/meta: permission denied",
                Some(Cause::NotWritable),
            ),
            (Role::Influxdb, "open /etc/influxdb/influxdb.conf: permission denied", None),
            (Role::Grafana, "level=error msg=\"something else\"", None),
        ] {
            assert_eq!(Cause::of(role, &["starting".into(), line.into()]), cause, "{line}");
        }
    }
}
