//! Backup archives, which may come from untrusted sources.
#![no_main]

use std::io::Write as _;

use clipper_metrics::backup::archive::Verified;
use flate2::{Compression, write::GzEncoder};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    // Unchanged, and correctly compressed: few mutations pass a checksum.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    for content in [bytes.to_vec(), encoder.finish().unwrap()] {
        let path = folder.path().join("archive");
        std::fs::write(&path, content).unwrap();
        let _ = Verified::open(&path);
    }
});
