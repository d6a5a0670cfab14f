//! Servers with valid, wrong and expired certificates of a private authority.

use crate::support::double::Version;
use crate::support::run::{Ran, Run};
use crate::support::servers::Servers;
use crate::tls::{Authority, in_front_of};

#[test]
fn a_private_authority_is_trusted_if_its_certificate_is_supplied() {
    let it = Servers::start(Version::V12);
    let (authority, other) = (Authority::new("right"), Authority::new("other"));
    let (right, wrong) = (it.write("ca.pem", authority.pem()), it.write("other.pem", other.pem()));
    let influxdb = it.influxd.url();
    let run = |port: u16, ca: &[&str]| -> Ran {
        let grafana = format!("https://127.0.0.1:{port}");
        let words = ["up", "--influxdb-url", &influxdb, "--grafana-url", &grafana, "--timeout", "5s"];
        Run::without_engine(words.iter().chain(ca).copied()).run()
    };
    let good = in_front_of(it.port(), &authority, false, false);
    run(good, &["--ca-file", &right]).expect(0);
    let old = in_front_of(it.port(), &authority, true, false);
    for (port, ca, word) in [
        (good, &[][..], "not trusted here; --ca-file"),
        (good, &["--ca-file", &wrong], "not trusted here; --ca-file"),
        (old, &["--ca-file", &right], "expired"),
    ] {
        let ran = run(port, ca).expect(1);
        assert!(ran.err.contains(word) && ran.err.contains("its certificate"), "{word}: {}", ran.err);
    }
    // A file without a certificate is an error about that file.
    let nonsense = it.write("nonsense.pem", "nonsense");
    assert!(run(good, &["--ca-file", &nonsense]).expect(2).err.contains("nonsense.pem"));
}
