//! Known causes in the last log lines of InfluxDB, Grafana, SQLite and the kernel, each with its own hint.

use crate::error::{Refusal, Unready, is_disk_full};
use crate::model::role::Role;
use crate::model::stack::{DesiredContainer, Stack};

/// The reason why a server exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The image is built for another architecture.
    Architecture,
    /// Grafana's database is damaged.
    Malformed,
    /// The disk is full.
    Disk,
    /// The image's user cannot write to the volume.
    NotWritable,
}

impl Cause {
    /// The cause in a log, if known.
    pub(super) fn of(role: Role, log: &[String]) -> Option<Self> {
        // Programs differ in how they begin the system's messages, such as "Exec format error".
        let log: Vec<String> = log.iter().map(|line| line.to_lowercase()).collect();
        let says = |phrases: &[&str]| log.iter().any(|line| phrases.iter().any(|phrase| line.contains(phrase)));
        let is_denied = |line: &String| line.contains("permission denied") && line.contains(role.data_path());
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

    pub(super) const fn unready(self) -> Unready {
        match self {
            Self::Architecture => Unready::Engine(Refusal::Architecture),
            Self::Disk => Unready::Engine(Refusal::Disk),
            Self::Malformed | Self::NotWritable => Unready::Failed,
        }
    }

    /// The next command to type; `user` is the image's user.
    pub(super) fn hint(self, stack: &Stack, spec: &DesiredContainer, user: &str) -> String {
        let (volume, image) = (&spec.config.volume, &spec.config.image);
        let [down, up] = ["down", "up"].map(|verb| stack.command(verb));
        match self {
            Self::Architecture => Refusal::Architecture.hint(&stack.invocation),
            Self::Disk => Refusal::Disk.hint(&stack.invocation),
            Self::Malformed => format!(
                "with a backup, run `{}`, then `{}`; without one, `{down}`, `{}`, then `{up}` create a new database \
                 for Grafana and keep InfluxDB's data",
                stack.command("down --volumes"),
                stack.command("restore FILE"),
                stack.invocation.docker(&format!("volume rm {volume}"))
            ),
            Self::NotWritable => {
                let user = if user.is_empty() { "0" } else { user };
                let arguments =
                    format!("run --rm --user 0 --entrypoint chown --volume {volume}:/data {image} -R {user} /data");
                format!(
                    "`{}` gives the volume to the image's user; then run `{up}`",
                    stack.invocation.docker(&arguments)
                )
            }
        }
    }
}

/// Whether Grafana's log gives too many wrong passwords as the reason for the last rejected login. Grafana's response does
/// not differ from that to a wrong password. Its messages: `pkg/services/contexthandler` up to 9, then `pkg/services/authn`.
pub(super) fn is_locked_out(log: &[String]) -> bool {
    let rejections = ["invalid username or password", "failed to authenticate request"];
    let log = log.iter().rev().map(|line| line.to_lowercase());
    let mut rejected = log.filter(|line| rejections.iter().any(|rejection| line.contains(rejection)));
    rejected.next().is_some_and(|line| line.contains("too many consecutive incorrect login attempts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_message_has_a_cause_and_other_messages_have_none() {
        for (role, line, cause) in [
            (Role::Grafana, "exec /run.sh: exec format error", Some(Cause::Architecture)),
            (Role::Grafana, "exec container process `/run.sh`: Exec format error", Some(Cause::Architecture)),
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

    #[test]
    fn the_last_rejected_login_shows_whether_the_account_is_locked() {
        let old = "t=2021-12-28T00:24:20+0000 lvl=eror msg=\"Invalid username or password\" logger=context error=\"";
        let new =
            "logger=authn.service level=info msg=\"Failed to authenticate request\" client=auth.client.basic error=\"";
        let locked = "Too many consecutive incorrect login attempts for user. Login for user temporarily blocked\"";
        for (begin, wrong) in [(old, "invalid username or password"), (new, "[password-auth.failed] invalid password")]
        {
            let [locked, wrong] = [locked, wrong].map(|why| format!("{begin}{why}"));
            let other = "msg=\"Request Completed\" status=401".to_string();
            assert!(is_locked_out(&[wrong.clone(), locked.clone(), other.clone()]));
            assert!(!is_locked_out(&[locked, wrong, other.clone()]), "it was locked earlier");
            assert!(!is_locked_out(&[other]) && !is_locked_out(&[]));
        }
    }
}
