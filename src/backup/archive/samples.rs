//! Archives for tests: written ones, and crafted ones that `backup` would not write.

use std::io::{self, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::EntryType;

use super::content::Hashing;
use super::format::{FORMAT, Facts, Files, LastEntry, MANIFEST, header};
use super::{ArchiveFolder, Manifest, New, Part, RestoreTarget, Verified};
use crate::error::Result;
use crate::model::stack::Remembered;

pub(super) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        builder.append(&header(name, content.len() as u64).unwrap(), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn manifest() -> Manifest {
    let settings = [("database".to_string(), Remembered { value: "d".into(), from_file: true })].into();
    Manifest {
        instance: "x".into(),
        made_at: 7,
        settings,
        database: "d".into(),
        databases: [("d".to_string(), true), ("empty".into(), false)].into(),
        influxdb: "1.12.4".into(),
        grafana: "12.4.10".into(),
    }
}

pub(super) const INDEX_OF_A: &[u8] =
    br#"{"files": [{"database": "d", "fileName": "a.tar.gz"}], "meta": {"fileName": "b.meta"}}"#;

pub(super) fn opened(path: &Path) -> Result<Manifest> {
    Verified::open(path).map(|verified| verified.manifest)
}

pub(super) fn written(path: &Path) -> Result<u64> {
    let big = vec![7; 300_000];
    let files = [("dir/a.tar.gz", &big[..]), ("dir/b.meta", b"bb"), ("dir/c.manifest", INDEX_OF_A)];
    written_of(path, &tar_of(&files), &tar_of(&[("grafana.db", b"db")]))
}

/// Two parts followed by padding, as an engine sends them.
pub(super) fn written_of(path: &Path, influxdb: &[u8], grafana: &[u8]) -> Result<u64> {
    let (sender, parts) = tokio::sync::mpsc::channel(64);
    for (folder, bytes) in [(ArchiveFolder::Influxdb, influxdb), (ArchiveFolder::Grafana, grafana)] {
        sender.blocking_send(Part::Below(folder)).unwrap();
        for chunk in bytes.chunks(50_000) {
            sender.blocking_send(Part::Bytes(chunk.to_vec())).unwrap();
        }
    }
    sender.blocking_send(Part::End).unwrap();
    New::create(path)?.write(&manifest(), parts)
}

pub(super) fn extracted(archive: &Verified, folder: ArchiveFolder, into: RestoreTarget) -> Result<Vec<u8>> {
    let (sink, mut chunks) = tokio::sync::mpsc::channel(64);
    archive.extract(folder, &into, sink)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.blocking_recv() {
        bytes.extend(chunk.unwrap());
    }
    Ok(bytes)
}

pub(super) const PLAIN: RestoreTarget = RestoreTarget { folder: None, owner: (0, 0), folder_mode: 0, file_mode: 0 };

/// InfluxDB's list if every database is empty.
pub(super) const EMPTY: &[u8] = br#"{"files": null, "meta": {"fileName": "b.meta"}}"#;

/// An archive with the given files as InfluxDB's part, and Grafana's database.
pub(super) fn written_beside(folder: &Path, influxdb: &[u8]) -> Result<u64> {
    written_of(&folder.join("a"), influxdb, &tar_of(&[("grafana.db", b"db")]))
}

/// A tar archive with one entry of any kind.
pub(super) fn tar_with(path: &str, kind: EntryType) -> Vec<u8> {
    let mut entry = header(path, 0).unwrap();
    entry.set_entry_type(kind);
    entry.set_link_name("/etc/grafana.db").unwrap();
    entry.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&entry, io::empty()).unwrap();
    builder.into_inner().unwrap()
}

pub(super) fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// An archive whose manifest lists every one of its files, whatever they are.
pub(super) fn crafted(entries: &[(&str, EntryType, &[u8])], behind: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut files = Files::new();
    for (path, kind, content) in entries {
        let mut header = header("x", content.len() as u64).unwrap();
        // Written directly, because `set_path` rejects names that a crafted archive may contain.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
        let mut hashing = Hashing::new(*content);
        io::copy(&mut hashing, &mut io::sink()).unwrap();
        let facts = Facts { size: content.len() as u64, sha256: hashing.digest() };
        files.insert((*path).to_string(), facts);
    }
    let document = LastEntry { format: FORMAT, manifest: manifest(), files };
    let text = serde_json::to_vec(&document).unwrap();
    builder.append(&header(MANIFEST, text.len() as u64).unwrap(), &text[..]).unwrap();
    let mut plain = builder.into_inner().unwrap();
    plain.extend(behind);
    compressed(&plain)
}

pub(super) const WHOLE: [(&str, EntryType, &[u8]); 4] = [
    ("influxdb/a.tar.gz", EntryType::Regular, b"a"),
    ("influxdb/b.meta", EntryType::Regular, b"b"),
    ("influxdb/c.manifest", EntryType::Regular, INDEX_OF_A),
    ("grafana/grafana.db", EntryType::Regular, b"db"),
];
