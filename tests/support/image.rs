//! Images made from files on this machine: a program with the libraries that it needs, and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::double::Version;

/// An image as in a registry.
#[derive(Debug, Clone)]
pub struct Image {
    /// The repository, such as `grafana/grafana`.
    pub name: String,
    pub tag: String,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Arc<Vec<u8>>,
}

/// The behaviour of its container.
#[derive(Debug, Clone, Default)]
pub struct Config<'a> {
    pub user: &'a str,
    pub env: Vec<String>,
    pub entrypoint: Vec<&'a str>,
    pub port: u16,
}

/// The digest `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer under construction.
struct Layer {
    archive: tar::Builder<Vec<u8>>,
    /// Libraries already in it: an engine rejects a path that occurs twice.
    libraries: std::collections::HashSet<String>,
}

impl Layer {
    fn new() -> Self {
        Self { archive: tar::Builder::new(Vec::new()), libraries: std::collections::HashSet::new() }
    }

    fn folder(&mut self, path: &str, mode: u32, owner: (u64, u64)) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_path(format!("{}/", path.trim_matches('/'))).unwrap();
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(0);
        header.set_cksum();
        self.archive.append(&header, std::io::empty()).unwrap();
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_path(path.trim_start_matches('/')).unwrap();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.archive.append(&header, content).unwrap();
    }

    /// Adds a program under another path, with the libraries that it is linked to.
    fn program(&mut self, from: &Path, to: &str) {
        self.file(to, 0o755, &std::fs::read(from).unwrap_or_else(|why| panic!("{}: {why}", from.display())));
        let output = Command::new("ldd").arg(from).output().unwrap();
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            if self.libraries.insert(word.to_string()) {
                self.file(word, 0o755, &std::fs::read(word).unwrap());
            }
        }
    }

    fn done(self) -> Arc<Vec<u8>> {
        Arc::new(self.archive.into_inner().unwrap())
    }

    /// Returns the layer and a copy with another digest, which no engine has yet.
    fn done_twice(self) -> (Arc<Vec<u8>>, Arc<Vec<u8>>) {
        let first = self.done();
        let mut other = first.as_ref().clone();
        // Additional blocks of zeros, which end an archive.
        other.extend([0; 512]);
        (first, Arc::new(other))
    }
}

fn image(name: &str, tag: &str, layer: &Arc<Vec<u8>>, config: &Config<'_>) -> Image {
    let port = format!("{}/tcp", config.port);
    let layer_digest = digest(layer);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "User": config.user, "Env": config.env, "Entrypoint": config.entrypoint, "ExposedPorts": {port: {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(), "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "size": layer.len(), "digest": layer_digest,
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    Image { name: name.into(), tag: tag.into(), manifest, config, layer: Arc::clone(layer) }
}

/// All images that the tests use.
pub fn all(double: &Path) -> Vec<Image> {
    let mut images = influxdb();
    images.extend(grafana(double));
    images.push(pause());
    images
}

/// An image that does nothing, for the sandboxes of pods.
fn pause() -> Image {
    let mut layer = Layer::new();
    layer.program(Path::new("/bin/busybox"), "/usr/bin/sleep");
    let config = Config { user: "65535", entrypoint: vec!["/usr/bin/sleep", "86400"], ..Config::default() };
    image("pause", "test", &layer.done(), &config)
}

/// The real InfluxDB from Debian's package, under the name of the default image, and as an image
/// that runs as root.
fn influxdb() -> Vec<Image> {
    let program = PathBuf::from("/usr/bin/influxd");
    assert!(program.exists(), "the tests need Debian's package influxdb; tests/run installs it");
    let owner = (1500, 1500);
    let mut layer = Layer::new();
    layer.program(&program, "/usr/bin/influxd");
    // As in the official image; health checks and exported jobs use it.
    layer.program(Path::new("/usr/bin/influx"), "/usr/bin/influx");
    // The official image contains these as well; `doctor --from`, `backup`, `restore`
    // and the scripts of exports use them.
    for name in ["bash", "cat", "find", "grep", "gzip", "mkdir", "mv", "rm", "sha256sum", "sleep", "tar", "touch"] {
        layer.program(&PathBuf::from(format!("/usr/bin/{name}")), &format!("/usr/bin/{name}"));
    }
    layer.program(Path::new("/usr/bin/dash"), "/usr/bin/sh");
    layer.folder("/tmp", 0o1777, (0, 0));
    layer.folder("/var/lib/influxdb", 0o755, owner);
    layer.file("/etc/passwd", 0o644, b"root:x:0:0::/:/\ninfluxdb:x:1500:1500::/var/lib/influxdb:/\n");
    layer.file("/etc/group", 0o644, b"root:x:0:\ninfluxdb:x:1500:\n");
    let (layer, other) = layer.done_twice();
    let env =
        ["META_DIR=/var/lib/influxdb/meta", "DATA_DIR=/var/lib/influxdb/data", "DATA_WAL_DIR=/var/lib/influxdb/wal"];
    let env = env.map(|pair| format!("INFLUXDB_{pair}")).to_vec();
    let config = |user| Config { user, env: env.clone(), entrypoint: vec!["/usr/bin/influxd"], port: 8086 };
    vec![
        image("influxdb", "1.12.4", &layer, &config("influxdb")),
        image("influxdb", "as-root", &layer, &config("")),
        image("influxdb", "own-layer", &other, &config("influxdb")),
    ]
}

/// The double under the names of Grafana's images, one for each version and each misbehaviour.
fn grafana(double: &Path) -> Vec<Image> {
    // Most of the program is debug information, which every engine would pull.
    let stripped = tempfile::NamedTempFile::new().unwrap();
    let strip = Command::new("strip").arg("-o").arg(stripped.path()).arg(double).status();
    assert!(
        strip.is_ok_and(|status| status.success()),
        "the images need the program strip (Debian's package binutils)"
    );
    let layer = |names: &[&str]| {
        let mut layer = Layer::new();
        for name in names {
            layer.program(stripped.path(), name);
        }
        // The real images contain these as well: health checks and the READMEs of exports use them.
        for name in ["cat", "grep", "mkdir", "mv", "rm", "sha256sum", "sleep", "tar", "wget"] {
            layer.program(Path::new("/bin/busybox"), &format!("/usr/bin/{name}"));
        }
        layer.program(Path::new("/bin/busybox"), "/bin/sh");
        layer.program(Path::new("/bin/busybox"), "/usr/bin/sh");
        layer.folder("/tmp", 0o1777, (0, 0));
        layer.folder("/usr/share/grafana", 0o755, (0, 0));
        layer.folder("/var/lib/grafana", 0o777, (472, 0));
        layer.file("/etc/passwd", 0o644, b"root:x:0:0::/:/\ngrafana:x:472:0::/:/\n");
        layer.done()
    };
    let (new, old) = (layer(&["/usr/bin/grafana"]), layer(&["/usr/bin/grafana-server", "/usr/bin/grafana-cli"]));
    let config = |program, env: &[(&str, &str)]| {
        let mut all: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        all.push("PATH=/usr/bin".into());
        Config { user: "472", env: all, entrypoint: vec![program], port: 3000 }
    };
    let mut images = Vec::new();
    for (tag, version) in
        [("12.4.10", Version::V12_4), ("13.2.3", Version::V13), ("9.4.0", Version::V9), ("7.5.5", Version::V7)]
    {
        let (layer, program) = match version {
            Version::V7 => (&old, "/usr/bin/grafana-server"),
            _ => (&new, "/usr/bin/grafana"),
        };
        let env = [("GRAFANA_DOUBLE_VERSION", version.name())];
        images.push(image("grafana/grafana", tag, layer, &config(program, &env)));
    }
    for behaviour in ["exits", "crashes", "silent", "influxdb2", "reset-hangs", "migrates", "no-queries"] {
        let env = [("GRAFANA_DOUBLE_BEHAVIOUR", behaviour), ("GRAFANA_DOUBLE_VERSION", "12.4.10")];
        images.push(image("odd", behaviour, &new, &config("/usr/bin/grafana", &env)));
    }
    for (tag, variables) in [
        ("no-basic", &[("GF_AUTH_BASIC_ENABLED", "false")][..]),
        ("no-form", &[("GF_AUTH_DISABLE_LOGIN_FORM", "true")]),
        ("anonymous", &[("GF_AUTH_ANONYMOUS_ENABLED", "true"), ("GF_AUTH_ANONYMOUS_ORG_ROLE", "Admin")]),
    ] {
        let env = [&[("GRAFANA_DOUBLE_VERSION", "12.4.10")], variables].concat();
        images.push(image("odd", tag, &new, &config("/usr/bin/grafana", &env)));
    }
    images
}

/// The double's program, built by cargo together with the tests.
pub fn double_program() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
        folder.push("examples");
    }
    let program = folder.join("grafana-double");
    assert!(program.exists(), "{} is missing: `cargo build --examples` makes it", program.display());
    program
}

/// The registry's description of an image.
pub fn describe(image: &Image) -> Value {
    json!({"name": image.name, "tag": image.tag, "digest": digest(&image.manifest)})
}
