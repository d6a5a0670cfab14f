//! The content of an archive while it is written or verified: the digest of every file, and InfluxDB's own list.

use std::io::{self, Read};

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::format::{ArchiveFolder, Facts, Files, INDEX, MOST_FILES, expect_size, invalid};
use crate::engine::files::DATABASE_FILES;

#[derive(Default)]
pub(super) struct Content {
    pub(super) files: Files,
    /// InfluxDB's own list, of which a backup has one.
    index: Option<Index>,
}

impl Content {
    /// Records a file, and parses it if it is InfluxDB's own list. `copy` passes its content on.
    pub(super) fn add(
        &mut self,
        folder: ArchiveFolder,
        name: &str,
        size: u64,
        content: &mut impl Read,
        copy: impl FnOnce(&str, &mut dyn Read) -> io::Result<()>,
    ) -> io::Result<()> {
        expect_size(name, size, folder.limit(name))?;
        let path = format!("{}/{name}", folder.name());
        if self.files.len() == MOST_FILES {
            return Err(invalid(format!("there are more than {MOST_FILES} files")));
        }
        if self.files.contains_key(&path) {
            return Err(invalid(format!("there are two files {path}")));
        }
        let mut hashing = Hashing::new(content);
        if folder == ArchiveFolder::Influxdb && name.ends_with(INDEX) {
            let mut text = Vec::new();
            hashing.read_to_end(&mut text)?;
            let index =
                serde_json::from_slice(&text).map_err(|why| invalid(format!("{path} is not a valid list: {why}")))?;
            if self.index.replace(index).is_some() {
                return Err(invalid(format!("{path} is a second list of InfluxDB's files")));
            }
            copy(&path, &mut &text[..])?;
        } else {
            copy(&path, &mut hashing)?;
        }
        if hashing.length != size {
            return Err(io::Error::other(format!("{path} has only {} of {size} bytes", hashing.length)));
        }
        self.files.insert(path, Facts { size, sha256: hashing.digest() });
        Ok(())
    }

    /// The databases in InfluxDB's backup, except its own.
    ///
    /// # Errors
    /// If a file needed for the restore is missing or empty.
    pub(super) fn databases(&self) -> io::Result<Vec<String>> {
        let expect = |path: String| match self.files.get(&path) {
            Some(Facts { size: 0, .. }) => Err(invalid(format!("{path} is empty"))),
            Some(_) => Ok(()),
            None => Err(io::Error::other(format!("{path} is missing"))),
        };
        expect(format!("{}/{}", ArchiveFolder::Grafana.name(), DATABASE_FILES[0]))?;
        let Some(index) = &self.index else {
            return Err(io::Error::other("the list of InfluxDB's files is missing"));
        };
        let mut found = Vec::new();
        for entry in index.files.iter().flatten().chain([&index.meta]) {
            expect(format!("{}/{}", ArchiveFolder::Influxdb.name(), entry.file_name))?;
            found.extend(Some(&entry.database).filter(|name| !matches!(name.as_str(), "" | "_internal")).cloned());
        }
        Ok(found)
    }
}

/// InfluxDB's own list of its backup's files.
#[derive(Deserialize)]
struct Index {
    meta: Listed,
    /// Missing or null if every database is empty.
    #[serde(default, deserialize_with = "bounded")]
    files: Option<Vec<Listed>>,
}

/// Reads a list with at most as many entries as an archive has files: parsed entries take several times the memory of
/// their text.
fn bounded<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<Listed>>, D::Error> {
    struct Bounded;
    impl<'de> serde::de::Visitor<'de> for Bounded {
        type Value = Option<Vec<Listed>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MOST_FILES} files")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while let Some(file) = list.next_element()? {
                if files.len() == MOST_FILES {
                    return Err(serde::de::Error::invalid_length(files.len() + 1, &self));
                }
                files.push(file);
            }
            Ok(Some(files))
        }
    }
    from.deserialize_any(Bounded)
}

/// A file in it.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    database: String,
    #[serde(rename = "fileName")]
    file_name: String,
}

/// Reads and hashes.
pub(super) struct Hashing<R> {
    inner: R,
    context: Context,
    length: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256), length: 0 }
    }

    pub(super) fn digest(self) -> String {
        self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.context.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}
