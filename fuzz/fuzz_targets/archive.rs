//! An archive of a backup, which may come from anywhere.
#![no_main]

use std::io::Write as _;

use clipper_metrics::backup::archive::Verified;
use flate2::{Compression, write::GzEncoder};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    // As it is, and as the content of a sound compression: few mutations get past a checksum.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    for content in [bytes.to_vec(), encoder.finish().unwrap()] {
        let path = folder.path().join("archive");
        std::fs::write(&path, content).unwrap();
        let _ = Verified::open(&path);
    }
});
