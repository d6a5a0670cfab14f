//! A snapshot of the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::error::{Error, Result};

/// A snapshot of the environment.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The value of a variable, if it is text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str()
    }

    /// The value of a variable as a path, which need not be text.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.0.get(name).filter(|value| !value.is_empty()).map(Path::new)
    }

    /// Whether a variable has a non-empty value.
    #[must_use]
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_empty())
    }

    /// Checks that the given variables contain text.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first one that is not UTF-8.
    pub(crate) fn expect_text(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let mut names = names.into_iter().chain(["DOCKER_HOST", "DOCKER_CONTEXT"].map(String::from));
        match names.find(|name| self.0.get(name).is_some_and(|value| value.to_str().is_none())) {
            Some(name) => Err(Error::usage(
                format!("the environment variable {name} is not UTF-8 text"),
                format!("set {name} to text, or unset it"),
            )),
            None => Ok(()),
        }
    }
}

impl<S: Into<OsString>> FromIterator<(String, S)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, S)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name, value.into())).collect())
    }
}

impl<const N: usize> From<[(String, String); N]> for Environment {
    fn from(variables: [(String, String); N]) -> Self {
        variables.into_iter().collect()
    }
}
