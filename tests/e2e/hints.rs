//! Failures of an engine that cannot be caused here, simulated in front of it: each has its own hint.

use super::instance::Instance;
use crate::support::front::Front;

#[test]
fn each_failure_of_the_engine_has_its_own_hint() {
    let it = Instance::new("hints");
    for (path, message, hint) in [
        (
            "/networks/create",
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
            "network prune`",
        ),
        ("/networks/create", "all predefined address pools have been fully subnetted", "network prune`"),
        (
            "/images/create",
            "Get \"https://r/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "/etc/docker/certs.d/",
        ),
        (
            "/images/create",
            "Get \"https://r/v2/\": x509: certificate has expired or is not yet valid: current time 2020-01-01T00:00:00Z",
            "timedatectl",
        ),
        (
            "/images/create",
            "Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client",
            "insecure-registries",
        ),
        ("/images/create", "Get \"https://r/v2/\": Proxy Authentication Required", "USER:PASSWORD"),
        (
            "/images/create",
            "no matching manifest for linux/arm64/v8 in the manifest list entries",
            "another architecture",
        ),
        (
            "/start",
            "failed to create task for container: exec /run.sh: exec format error: unknown",
            "another architecture",
        ),
        (
            "/start",
            "failed to create shim task: exec: \"/run.sh\": executable file not found in $PATH: unknown",
            "choose another with --influxdb-image",
        ),
    ] {
        let front = Front::refusing("POST", path, message);
        let words = it.first(&["--pull", "always"]);
        let up = it.command(&words).env("DOCKER_HOST", &front.host()).run().expect(1);
        let (_, given) = up.err.split_once("hint: ").unwrap_or_else(|| panic!("{message}: {}", up.err));
        assert!(given.contains(hint), "{message}: {}", up.err);
    }
    // Nothing of it is permanent.
    it.first_up(&[]).expect(0);
}
