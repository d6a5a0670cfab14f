//! Retention periods of InfluxDB.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A retention period. Longer periods compare as greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retention {
    /// Older points are dropped.
    For(Duration),
    /// Points are never dropped.
    Forever,
}

impl Retention {
    /// The setting's name.
    pub const SETTING: &str = "retention";
    /// The shortest period that InfluxDB accepts.
    pub(crate) const SHORTEST: Duration = Duration::from_secs(3600);

    /// Parses a duration as InfluxDB writes it, such as `2160h0m0s`; `0s` and `INF` mean for ever.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if ["inf", "INF"].contains(&text) {
            return Some(Self::Forever);
        }
        let (mut seconds, mut number) = (0_u64, None::<u64>);
        for c in text.chars() {
            let unit = match c {
                '0'..='9' => {
                    let digit = u64::from(c.to_digit(10)?);
                    number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                    continue;
                }
                'w' => 604_800,
                'd' => 86_400,
                'h' => 3_600,
                'm' => 60,
                's' => 1,
                _ => return None,
            };
            seconds = seconds.checked_add(number.take()?.checked_mul(unit)?)?;
        }
        if number.is_some() || text.is_empty() {
            return None;
        }
        Some(if seconds == 0 { Self::Forever } else { Self::For(Duration::from_secs(seconds)) })
    }

    /// The value of the option.
    #[must_use]
    pub(crate) fn typed(self) -> String {
        if self == Self::Forever { "inf".into() } else { self.to_string() }
    }

    /// The period in an InfluxQL statement.
    #[must_use]
    pub(crate) fn influxql(self) -> String {
        match self {
            Self::Forever => "INF".into(),
            Self::For(time) => format!("{}s", time.as_secs()),
        }
    }

    /// Whether it drops points that `other` keeps.
    #[must_use]
    pub fn is_shorter_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Forever, _) => false,
            (Self::For(_), Self::Forever) => true,
            (Self::For(one), Self::For(other)) => one < other,
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::For(time) = self else { return f.write_str("for ever") };
        let seconds = time.as_secs();
        let (number, unit) = [(86_400, "d"), (3_600, "h"), (60, "m")]
            .into_iter()
            .find(|(length, _)| seconds.is_multiple_of(*length))
            .map_or((seconds, "s"), |(length, unit)| (seconds / length, unit));
        write!(f, "{number}{unit}")
    }
}

impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_influxdb_are_parsed_and_printed_in_short_form() {
        for (text, printed, influxql) in [
            ("2160h0m0s", "90d", "7776000s"),
            ("0s", "for ever", "INF"),
            ("36h0m0s", "36h", "129600s"),
            ("1h30m0s", "90m", "5400s"),
        ] {
            let retention = Retention::parse(text).unwrap();
            assert_eq!((retention.to_string().as_str(), retention.influxql().as_str()), (printed, influxql));
            assert_eq!(Retention::parse(&retention.typed()), Some(retention));
        }
        for text in ["", "x", "5", "h", "99999999999999999999h", "1x"] {
            assert_eq!(Retention::parse(text), None, "{text:?}");
        }
        let (short, long) = (Retention::For(Duration::from_secs(3600)), Retention::For(Duration::from_secs(7200)));
        assert!(short.is_shorter_than(long) && long.is_shorter_than(Retention::Forever));
        assert!(!long.is_shorter_than(long) && !Retention::Forever.is_shorter_than(short));
    }
}
