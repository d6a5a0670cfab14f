//! Engines that require client certificates, with valid, wrong and expired ones of a private authority.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use crate::e2e::lifecycle::interrupt;
use crate::support::eventually;
use crate::support::run::Run;
use crate::support::server::{Request, Response, in_background};

/// A private certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this machine's loopback, with its key.
    fn issue(&self, is_expired: bool) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_string(), "localhost".to_string()]).unwrap();
        if is_expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }
}

/// Serves a plain port over TLS; with `clients`, only for certificates signed by the authority.
pub(crate) fn in_front_of(port: u16, authority: &Authority, is_expired: bool, clients: bool) -> u16 {
    counted(port, authority, is_expired, clients, &Arc::default())
}

/// The same, and counts the connections.
fn counted(port: u16, authority: &Authority, is_expired: bool, clients: bool, connections: &Arc<AtomicUsize>) -> u16 {
    let connections = Arc::clone(connections);
    clipper_metrics::http::install_crypto_provider();
    let (certificate, key) = authority.issue(is_expired);
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = ServerConfig::builder();
    let config = if clients {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.0.der().to_vec())).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
    } else {
        builder.with_no_client_auth().with_single_cert(chain, key)
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut plain) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
    });
    own
}

/// An engine that answers its version.
fn engine() -> u16 {
    counting_engine(&Arc::default())
}

/// The same, and counts the requests.
fn counting_engine(requests: &Arc<AtomicUsize>) -> u16 {
    let requests = Arc::clone(requests);
    in_background(move |request: Request| {
        requests.fetch_add(1, Ordering::SeqCst);
        std::future::ready(answer(&request))
    })
}

fn answer(request: &Request) -> Response {
    match request.path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default() {
        "version" => Response::json(200, &json!({"Version": "20.10.24", "ApiVersion": "1.41"})),
        "volumes" => Response::json(200, &json!({"Volumes": [], "Warnings": []})),
        "networks" | "json" if !request.path.contains("/images/") => Response::json(200, &json!([])),
        _ => Response::json(404, &json!({"message": "no such thing"})),
    }
}

fn write_material(folder: &Path, authority: &Authority, client: &Authority) {
    let (certificate, key) = client.issue(false);
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn connections_to_an_engine_over_tls_are_reused() {
    let (requests, connections) = (Arc::default(), Arc::default());
    let (authority, folder) = (Authority::new("right"), tempfile::tempdir().unwrap());
    write_material(folder.path(), &authority, &authority);
    let port = counted(counting_engine(&requests), &authority, false, true, &connections);
    let watch = Run::new(["status", "--watch"]).env("DOCKER_HOST", &format!("tcp://127.0.0.1:{port}"));
    let watch = watch.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", folder.path().to_str().unwrap());
    let mut watch = watch.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let load = |count: &Arc<AtomicUsize>| count.load(Ordering::SeqCst);
    eventually("the engine is observed", Duration::from_secs(30), || load(&requests) > 0);
    // Requests at the same time need their own connections. Later rounds use the same ones.
    std::thread::sleep(Duration::from_millis(500));
    let (first, opened) = (load(&requests), load(&connections));
    eventually("the engine is observed again", Duration::from_secs(60), || load(&requests) >= 3 * first);
    interrupt(watch.id());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert!(opened < first && load(&connections) == opened, "{first} {opened} {connections:?}");
}

#[test]
fn an_engine_over_tls_is_reached_through_variables_and_contexts() {
    let (authority, other) = (Authority::new("right"), Authority::new("other"));
    let (plain, folder) = (engine(), tempfile::tempdir().unwrap());
    let certificates = |name: &str, authority: &Authority, client: &Authority| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        write_material(&folder, authority, client);
        folder.to_str().unwrap().to_string()
    };
    let right = certificates("right", &authority, &authority);
    let good = in_front_of(plain, &authority, false, true);
    let by_variables = |port: u16, folder: &str| {
        let run = Run::new(["status"]).env("DOCKER_HOST", &format!("tcp://127.0.0.1:{port}"));
        run.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", folder).run()
    };
    let status = by_variables(good, &right).expect(3);
    assert!(status.out.contains("is not running"), "{}", status.out);
    // A context contains its own certificates.
    let id = "0123";
    let config = folder.path().join("config");
    std::fs::create_dir_all(config.join("contexts/meta").join(id)).unwrap();
    let meta = json!({"Name": "far", "Endpoints": {"docker": {"Host": format!("tcp://127.0.0.1:{good}")}}});
    std::fs::write(config.join("contexts/meta").join(id).join("meta.json"), meta.to_string()).unwrap();
    let material = config.join("contexts/tls").join(id).join("docker");
    std::fs::create_dir_all(&material).unwrap();
    write_material(&material, &authority, &authority);
    let by_context = Run::new(["status", "--context", "far"]).env("DOCKER_CONFIG", config.to_str().unwrap()).run();
    assert!(by_context.expect(3).out.contains("is not running"));
    // Every mistake is one clear error.
    let old = in_front_of(plain, &authority, true, true);
    let unknown = certificates("unknown", &other, &authority);
    let stranger = certificates("stranger", &authority, &other);
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for (port, folder, words) in [
        (good, unknown.as_str(), &["certificate", "UnknownIssuer"][..]),
        (old, &right, &["certificate", "expired"]),
        (good, &stranger, &["certificate"]),
        (plain, &right, &["TLS"]),
        (good, empty.to_str().unwrap(), &["pem"]),
    ] {
        let ran = by_variables(port, folder).expect(1);
        assert_eq!(ran.err.lines().count(), 2, "{words:?}: {}", ran.err);
        for word in words {
            assert!(ran.err.contains(word), "{word}: {}", ran.err);
        }
    }
    // Plain HTTP to a TLS port.
    let run = Run::new(["status"]).env("DOCKER_HOST", &format!("tcp://127.0.0.1:{good}")).run().expect(1);
    assert!(run.err.contains("TLS") && run.err.contains("DOCKER_TLS_VERIFY"), "{}", run.err);
}
