//! The format of an archive: its folders and the files that they may contain, its manifest, and its limits.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::engine::files::{DATABASE_FILES, OWN_FILES};
use crate::model::stack::Remembered;

/// The version of this format.
pub(super) const FORMAT: u64 = 1;
/// The last entry, in every format.
pub(super) const MANIFEST: &str = "manifest.json";
/// The size limit of a manifest and of InfluxDB's own list, which are held in memory.
pub(super) const MANIFEST_LIMIT: u64 = 16 << 20;
/// The maximum number of files in an archive. InfluxDB's backup has one per shard.
pub(super) const MOST_FILES: usize = 50_000;
/// The size limit of a file that clipper-metrics keeps next to Grafana's database.
pub(super) const OWN_LIMIT: u64 = 64 << 10;
/// The suffixes of InfluxDB's files; the first is the list of the others.
const INFLUXDB_FILES: [&str; 3] = [INDEX, ".meta", ".tar.gz"];
pub(super) const INDEX: &str = ".manifest";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFolder {
    /// InfluxDB's portable backup.
    Influxdb,
    /// Grafana's database.
    Grafana,
    /// The files that clipper-metrics keeps next to the database.
    Own,
}

impl ArchiveFolder {
    pub(super) const ALL: [Self; 3] = [Self::Influxdb, Self::Grafana, Self::Own];

    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Influxdb => "influxdb",
            Self::Grafana => "grafana",
            Self::Own => "grafana-own",
        }
    }

    /// Whether the folder may contain a file with that name.
    pub(super) fn admits(self, name: &str) -> bool {
        match self {
            Self::Influxdb => is_plain(name) && INFLUXDB_FILES.iter().any(|ending| name.ends_with(ending)),
            Self::Grafana => DATABASE_FILES.contains(&name),
            Self::Own => OWN_FILES.contains(&name),
        }
    }

    /// The size limit of a file in it.
    pub(super) fn limit(self, name: &str) -> u64 {
        match self {
            Self::Own => OWN_LIMIT,
            Self::Influxdb if name.ends_with(INDEX) => MANIFEST_LIMIT,
            _ => u64::MAX,
        }
    }
}

/// Whether the first entry of an archive can have that path: in every format, it is in one of these folders, or the
/// manifest.
pub(super) fn begins_archive(path: &str) -> bool {
    let first = path.split('/').next();
    path == MANIFEST || ArchiveFolder::ALL.iter().any(|folder| Some(folder.name()) == first)
}

/// Whether a file name contains no path.
pub(super) fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.chars().all(is_plain) && !name.starts_with('.')
}

/// The description of an instance in its archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The instance's name.
    pub(crate) instance: String,
    /// When the archive was created, in milliseconds since 1970.
    pub(crate) made_at: i64,
    #[serde(with = "settings")]
    pub(crate) settings: BTreeMap<String, Remembered>,
    /// The database that Clipper writes to.
    pub(crate) database: String,
    /// Every database except InfluxDB's own, and whether it contains data.
    pub(crate) databases: BTreeMap<String, bool>,
    /// InfluxDB's version.
    pub(crate) influxdb: String,
    /// Grafana's version.
    pub(crate) grafana: String,
}

/// The last entry of an archive.
#[derive(Serialize, Deserialize)]
pub(super) struct LastEntry {
    pub(super) format: u64,
    #[serde(flatten)]
    pub(super) manifest: Manifest,
    pub(super) files: Files,
}

/// The only field that all formats share.
#[derive(Deserialize)]
pub(super) struct Format {
    pub(super) format: serde_json::Value,
}

pub(super) type Files = BTreeMap<String, Facts>;

/// Size and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// The JSON form of remembered settings.
mod settings {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::stack::Remembered;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        value: String,
        #[serde(rename = "of_file")]
        from_file: bool,
    }

    pub(super) fn serialize<S: Serializer>(
        settings: &BTreeMap<String, Remembered>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = |one: &Remembered| Stored { value: one.value.clone(), from_file: one.from_file };
        serializer.collect_map(settings.iter().map(|(name, one)| (name, stored(one))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Remembered>, D::Error> {
        let stored = BTreeMap::<String, Stored>::deserialize(deserializer)?;
        let remembered = |one: Stored| Remembered { value: one.value, from_file: one.from_file };
        Ok(stored.into_iter().map(|(name, one)| (name, remembered(one))).collect())
    }
}

pub(super) fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

pub(super) fn expect_size(name: &str, size: u64, most: u64) -> io::Result<()> {
    if size > most { Err(invalid(format!("{name} has {size} bytes, more than {most}"))) } else { Ok(()) }
}

pub(super) fn header(path: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}
