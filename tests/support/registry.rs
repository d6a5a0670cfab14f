//! A read-only registry on loopback, which can fail on purpose.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use serde_json::json;

use super::image::{self, Image, digest};
use super::server::{Request, Response, in_background, serve};

/// The served content.
#[derive(Clone)]
pub struct Registry {
    manifests: Arc<HashMap<(String, String), Vec<u8>>>,
    blobs: Arc<HashMap<String, Arc<Vec<u8>>>>,
    /// Blobs already cut off once: the first transfer of each fails, the next does not.
    cut: Arc<AtomicUsize>,
}

/// The media type of a manifest.
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

impl Registry {
    pub fn new(images: &[Image]) -> Self {
        let mut manifests = HashMap::new();
        let mut blobs = HashMap::new();
        for image in images {
            for reference in [image.tag.clone(), digest(&image.manifest)] {
                manifests.insert((image.name.clone(), reference), image.manifest.clone());
            }
            blobs.insert(digest(&image.config), Arc::new(image.config.clone()));
            blobs.insert(digest(&image.layer), Arc::clone(&image.layer));
        }
        Self { manifests: Arc::new(manifests), blobs: Arc::new(blobs), cut: Arc::default() }
    }

    /// Answers one request. The first part of a name can request a failure: `limited`, `silent`,
    /// `cut`; `alias` is another name for the same image.
    pub async fn respond(&self, request: Request) -> Response {
        let path = request.path.trim_start_matches("/v2/").trim_end_matches('/');
        if path.is_empty() || path == "v2" || path == "/v2" {
            return Response::json(200, &json!({}));
        }
        // A mirror that keeps Docker Hub's full names.
        let path = match path.strip_prefix("hub/") {
            Some(rest) if rest.starts_with("influxdb/") => "unknown/manifests/unknown",
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest),
            None => path,
        };
        let (failure, path) = match path.split_once('/') {
            Some((first @ ("limited" | "silent" | "cut" | "alias"), rest)) => (first, rest),
            _ => ("", path),
        };
        match failure {
            "limited" => {
                let error = json!({"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."});
                return Response::json(429, &json!({"errors": [error]}));
            }
            "silent" => return std::future::pending().await,
            _ => {}
        }
        if let Some((name, reference)) = path.split_once("/manifests/") {
            return match self.manifests.get(&(name.to_string(), reference.to_string())) {
                Some(manifest) => {
                    let mut response = Response::bytes(200, MANIFEST, manifest.clone());
                    response.headers.push(("docker-content-digest".into(), digest(manifest)));
                    response
                }
                None => Response::json(
                    404,
                    &json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}),
                ),
            };
        }
        if let Some((_, wanted)) = path.split_once("/blobs/")
            && let Some(blob) = self.blobs.get(wanted)
        {
            let mut bytes = blob.as_ref().clone();
            // A layer, rather than the few bytes of a configuration.
            if failure == "cut" && bytes.len() > 1 << 20 && self.cut.fetch_add(1, Ordering::Relaxed) == 0 {
                bytes.truncate(bytes.len() / 2);
            }
            return Response::bytes(200, "application/octet-stream", bytes);
        }
        Response::json(404, &json!({"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]}))
    }
}

/// The header that a client sends after `docker login` as user `me` with a password of special characters.
pub const PRIVATE: &str = "Basic bWU6fn5+Pz8/";

/// The registry of this test process, as the engine on this machine reaches it.
pub fn address() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| {
        if let Some(address) = std::env::var_os("CLIPPER_METRICS_TEST_REGISTRY") {
            return address.to_string_lossy().to_string();
        }
        let registry = Registry::new(&image::all(&image::double_program()));
        let port = in_background(move |request| {
            let registry = registry.clone();
            async move { registry.respond(request).await }
        });
        format!("127.0.0.1:{port}")
    });
    &ADDRESS
}

/// A registry that requires a login, with the same images.
pub fn private() -> String {
    let registry = Registry::new(&image::all(&image::double_program()));
    let port = in_background(move |request: Request| {
        let registry = registry.clone();
        async move {
            if request.headers.get("authorization").map(String::as_str) == Some(PRIVATE) {
                return registry.respond(request).await;
            }
            let mut response =
                Response::json(401, &json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}));
            response.headers.push(("www-authenticate".into(), "Basic realm=\"private\"".into()));
            response
        }
    });
    format!("127.0.0.1:{port}")
}

/// Serves at the port in the first argument, until Ctrl-C.
pub fn run() {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5000_u16);
    let registry = Registry::new(&image::all(&image::double_program()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => listener,
            Err(why) => {
                eprintln!("cannot listen on 127.0.0.1:{port}: {why}");
                std::process::exit(1);
            }
        };
        let port = listener.local_addr().unwrap().port();
        println!("the test registry listens on 127.0.0.1:{port}; Ctrl-C ends it");
        println!("in another terminal: cargo run --release -- up --registry 127.0.0.1:{port}");
        let serving = serve(listener, move |request| {
            let registry = registry.clone();
            async move { registry.respond(request).await }
        });
        tokio::select! {
            () = serving => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    });
}
