//! Reads tar archives from untrusted sources: memory for metadata is limited, and only regular
//! files count as files.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

/// The size of a block: headers take one, content is padded to it, and two blocks of zeros end an archive.
pub(crate) const BLOCK: usize = 512;
/// The size limit for extended names and attributes of an entry, which are held in memory.
const METADATA_LIMIT: u64 = 64 << 10;

/// One entry; its content is read from [`Entries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The path in the archive, without a trailing slash.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// The size of its content.
    pub(crate) size: u64,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// Anything else; its description.
    Other(String),
}

impl Entry {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is in no folder.
    pub(crate) fn is_top(&self) -> bool {
        !self.path.trim_start_matches("./").contains('/')
    }

    /// Whether it is below a folder of the archive's only folder.
    pub(crate) fn is_nested(&self) -> bool {
        self.path.trim_start_matches("./").matches('/').count() > 1
    }

    /// Fails unless the entry is a regular file.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] with a description of the entry.
    pub(crate) fn expect_file(&self) -> io::Result<()> {
        let what = match &self.kind {
            Kind::File => return Ok(()),
            Kind::Folder => "a directory",
            Kind::Other(what) => what,
        };
        Err(not_regular(self.name(), what))
    }

    /// Fails unless the entry is the requested regular file. Podman follows links, and returns the
    /// link's target under its own name.
    ///
    /// # Errors
    /// The same as [`Self::expect_file`].
    pub(crate) fn expect_file_named(&self, name: &str) -> io::Result<()> {
        self.expect_file()?;
        if self.name() == name { Ok(()) } else { Err(not_regular(name, &format!("a link to {}", self.name()))) }
    }
}

/// The error for an entry that is not the expected regular file.
pub(crate) fn not_regular(name: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, NotRegular(format!("{name} is {what}, not a regular file")))
}

/// An entry is not a regular file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotRegular(String);

/// The entries of an archive, in order.
pub(crate) struct Entries<R> {
    inner: R,
    /// The remaining bytes of the current entry's content and padding.
    left: u64,
    padding: u64,
}

impl<R: Read> Entries<R> {
    pub(crate) const fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Returns the underlying source.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; `None` at the end of the archive. Skips the rest of the current one.
    ///
    /// # Errors
    /// [`io::Error`] if the source fails, ends inside an entry, or is not an archive within the limits.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_path, mut long_size, mut is_sparse) = (None, None, false);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let bytes = self.metadata(size)?;
                    for extension in PaxExtensions::new(&bytes) {
                        let extension = extension?;
                        let text = || String::from_utf8_lossy(extension.value_bytes()).into_owned();
                        match extension.key_bytes() {
                            b"path" => long_path = Some(text()),
                            b"size" => {
                                let size = text().parse().map_err(|_| invalid("a size is not a number".into()))?;
                                long_size = Some(size);
                            }
                            key => is_sparse |= key.starts_with(b"GNU.sparse."),
                        }
                    }
                }
                EntryType::GNULongName => {
                    let bytes = self.metadata(size)?;
                    let text = String::from_utf8_lossy(&bytes);
                    long_path = Some(text.trim_end_matches('\0').to_string());
                }
                EntryType::XGlobalHeader | EntryType::GNULongLink => drop(self.metadata(size)?),
                kind => {
                    let size = long_size.unwrap_or(size);
                    self.begin(size)?;
                    let path = long_path.unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned());
                    let kind = if is_sparse { Kind::Other("a sparse file".into()) } else { kind_of(kind, &header) };
                    return Ok(Some(Entry { path: path.trim_end_matches('/').to_string(), kind, size }));
                }
            }
        }
    }

    /// The next header; `None` at the end of the archive or its source.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut length = 0;
        while length < BLOCK {
            match self.inner.read(&mut bytes[length..]) {
                Ok(0) if length == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => length += read,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as spaces.
        let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let sum = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        if header.cksum()? == sum { Ok(Some(header)) } else { Err(invalid("a header's checksum is wrong".into())) }
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        self.padding =
            size.checked_next_multiple_of(block).ok_or_else(|| invalid("a size is too large".into()))? - size;
        self.left = size;
        Ok(())
    }

    /// Reads an entry with metadata about the next one.
    fn metadata(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > METADATA_LIMIT {
            return Err(invalid(format!("the name or the attributes of an entry take {size} bytes")));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let skipped = io::copy(&mut (&mut self.inner).take(self.padding), &mut io::sink())?;
        if skipped < self.padding {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.padding = 0;
        Ok(())
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let length = (&mut self.inner).take(self.left).read(buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn kind_of(kind: EntryType, header: &Header) -> Kind {
    let target = || {
        let target = header.link_name_bytes().unwrap_or_default();
        crate::model::text::excerpt(&String::from_utf8_lossy(&target), 100)
    };
    Kind::Other(match kind {
        EntryType::Regular => return Kind::File,
        EntryType::Directory => return Kind::Folder,
        EntryType::Symlink => format!("a symbolic link to {}", target()),
        EntryType::Link => format!("a hard link to {}", target()),
        EntryType::GNUSparse => "a sparse file".into(),
        EntryType::Fifo => "a named pipe".into(),
        EntryType::Char | EntryType::Block => "a device".into(),
        other => format!("an entry of type {:?}", char::from(other.as_byte())),
    })
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(path: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o600);
        header.set_cksum();
        header
    }

    fn entries(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut entries = Entries::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = entries.next()? {
            let mut content = Vec::new();
            entries.read_to_end(&mut content)?;
            found.push((entry, content));
        }
        Ok(found)
    }

    #[test]
    fn long_names_and_sizes_are_read_from_extensions() {
        let long = "a/".repeat(100) + "b";
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header("x", EntryType::Regular, 3), &long, &b"abc"[..]).unwrap();
        builder.append_pax_extensions([("path", b"c/d".as_slice()), ("SCHILY.xattr.user.x", b"y")]).unwrap();
        builder.append(&header("x", EntryType::Regular, 1), &b"d"[..]).unwrap();
        builder.append(&header("folder/", EntryType::Directory, 0), io::empty()).unwrap();
        let found = entries(&builder.into_inner().unwrap()).unwrap();
        let seen: Vec<_> = found.iter().map(|(entry, content)| (entry.path.as_str(), &content[..])).collect();
        assert_eq!(seen, [(long.as_str(), &b"abc"[..]), ("c/d", b"d"), ("folder", b"")]);
        assert_eq!(found[0].0.name(), "b");
        assert_eq!(found[2].0.kind, Kind::Folder);
    }

    #[test]
    fn too_much_metadata_is_rejected_before_it_is_read() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            // The entry claims a gigabyte, but nothing follows its header, so reading it would fail
            // with an unexpected end.
            let why = entries(header("x", kind, 1 << 30).as_bytes()).unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{kind:?}: {why}");
            let mut within = header("x", kind, 700).as_bytes().to_vec();
            within.extend([0; 2 * BLOCK]);
            assert!(entries(&within).is_ok() || kind == EntryType::XHeader, "{kind:?}");
        }
    }

    #[test]
    fn entries_other_than_regular_files_are_described() {
        let kinds = [
            (EntryType::Symlink, "a symbolic link to /etc/passwd"),
            (EntryType::Link, "a hard link to /etc/passwd"),
            (EntryType::GNUSparse, "a sparse file"),
            (EntryType::Fifo, "a named pipe"),
            (EntryType::Directory, "a directory"),
        ];
        for (kind, desired) in kinds {
            let mut header = header("f/grafana.db", kind, 0);
            header.set_link_name("/etc/passwd").unwrap();
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend([0; 2 * BLOCK]);
            let (entry, _) = entries(&bytes).unwrap().remove(0);
            let why = entry.expect_file().unwrap_err().to_string();
            assert_eq!(why, format!("grafana.db is {desired}, not a regular file"));
        }
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("GNU.sparse.major", b"1".as_slice())]).unwrap();
        builder.append(&header("x", EntryType::Regular, 0), io::empty()).unwrap();
        assert!(entries(&builder.into_inner().unwrap()).unwrap()[0].0.expect_file().is_err());
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header("a", EntryType::Regular, 700), &[7; 700][..]).unwrap();
        let whole = builder.into_inner().unwrap();
        for cut in [1, 511, 513, 1000, 1212, 1535] {
            assert!(entries(&whole[..cut]).is_err(), "cut off after {cut}");
        }
        assert_eq!(entries(&whole).unwrap()[0].1.len(), 700);
        let mut altered = whole;
        altered[0] ^= 1;
        assert!(entries(&altered).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_input_causes_a_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
            let _ = entries(&bytes);
        }
    }
}
