//! Fingerprints: short digests for detecting changes. They do not protect against tampering.

/// Twelve hexadecimal digits of a SHA-256.
#[must_use]
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
