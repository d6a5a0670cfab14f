//! Versions of servers and engines, reduced to major and minor.

use std::fmt;

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64, pub u64);

impl Version {
    /// Parses the start of a version such as `12.4.10` or `v9.4.0-pre`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().trim_start_matches('v').split(['.', '-', '~', '+']);
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_version_is_enough() {
        assert_eq!(Version::parse("12.4.10"), Some(Version(12, 4)));
        assert_eq!(Version::parse("v9.4.0-pre"), Some(Version(9, 4)));
        assert_eq!(Version::parse("1.6.7~rc0"), Some(Version(1, 6)));
        assert_eq!(Version::parse("latest"), None);
        assert!(Version(9, 4) < Version(12, 0));
    }
}
