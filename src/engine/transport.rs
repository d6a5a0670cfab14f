//! Connections to an engine that read no answer of unlimited size into memory.
//!
//! bollard collects a whole answer, or a whole message of a stream, before it parses it. Its own
//! connections have no limit, so these count the received bytes.

use std::io;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error as Bollard;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::REQUEST_TIMEOUT;

/// The size limit of an answer that is read as a whole. A list of a thousand containers takes about
/// five million bytes.
const ANSWER_LIMIT: u64 = 32 << 20;
/// The size limit of one message of a stream. Engines send logs and output in parts of a few
/// kilobytes, and bollard parses a message again from its start with every part that arrives.
const MESSAGE_LIMIT: u64 = 1 << 20;

/// The connections that wait for reuse: over TLS, a new one takes several round trips.
const IDLE: usize = 4;
/// How long they wait: less than the minute after which proxies close idle connections.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// The bytes that may still arrive for the current answer or message.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicU64,
    limit: u64,
    is_exceeded: AtomicBool,
}

impl Allowance {
    fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(limit), limit, is_exceeded: AtomicBool::new(false) })
    }

    fn renew(&self) {
        self.left.store(self.limit, Ordering::Relaxed);
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        let Some(rest) = self.left.load(Ordering::Relaxed).checked_sub(bytes) else {
            self.is_exceeded.store(true, Ordering::Relaxed);
            return Err(self.error());
        };
        self.left.store(rest, Ordering::Relaxed);
        Ok(())
    }

    fn error(&self) -> io::Error {
        io::Error::other(TooLarge { limit: self.limit })
    }
}

/// An answer, or one message of a stream, exceeds its limit.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {} MiB", limit >> 20)]
pub(super) struct TooLarge {
    limit: u64,
}

impl TooLarge {
    /// Whether this is the cause of an error.
    pub(super) fn caused(error: &(dyn std::error::Error + 'static)) -> bool {
        let of_system = match error.downcast_ref() {
            Some(Bollard::IOError { err }) => Some(err),
            _ => error.downcast_ref::<io::Error>(),
        };
        of_system.and_then(io::Error::get_ref).is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
            || error.source().is_some_and(Self::caused)
    }
}

/// A client for one request with a streamed answer, and a wrapper for that stream, in which every
/// message renews the allowance.
pub(super) fn for_stream<S: Stream>(client: &bollard::Docker) -> (bollard::Docker, impl FnOnce(S) -> BoundedBody<S>) {
    let allowance = Allowance::new(MESSAGE_LIMIT);
    let of_request = Arc::clone(&allowance);
    let client = client.clone().with_request_modifier(move |mut request| {
        request.extensions_mut().insert(Arc::clone(&of_request));
        url_safe_credentials(request)
    });
    (client, move |stream| BoundedBody { stream: Box::pin(stream), allowance })
}

/// A stream with a size limit for each message.
pub(super) struct BoundedBody<S> {
    stream: Pin<Box<S>>,
    allowance: Arc<Allowance>,
}

impl<T, S: Stream<Item = Result<T, Bollard>>> Stream for BoundedBody<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let item = ready!(self.stream.poll_next_unpin(context));
        self.allowance.renew();
        // bollard loses the cause of an error.
        let is_exceeded = self.allowance.is_exceeded.load(Ordering::Relaxed);
        Poll::Ready(match item {
            Some(Err(_)) if is_exceeded => Some(Err(Bollard::IOError { err: self.allowance.error() })),
            item => item,
        })
    }
}

/// The allowance of the answer that a connection is receiving.
#[derive(Debug, Clone)]
struct Current(Arc<Mutex<Arc<Allowance>>>);

impl Current {
    fn get(&self) -> Arc<Allowance> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, allowance: Arc<Allowance>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = allowance;
    }
}

/// A connection that fails if more bytes arrive than allowed.
struct Metered<S> {
    stream: S,
    current: Current,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.current.get().spend((buffer.filled().len() - before) as u64))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The bytes from now on belong to the next answer.
        self.current.get().renew();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> Connection for Metered<S> {
    fn connected(&self) -> Connected {
        // hyper attaches it to every response of this connection.
        Connected::new().extra(self.current.clone())
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// The address of an engine.
#[derive(Debug, Clone)]
enum EngineTarget {
    #[cfg(unix)]
    Socket(PathBuf),
    /// Host and port.
    Network(String),
}

impl tower_service::Service<hyper::Uri> for EngineTarget {
    type Response = TokioIo<Metered<Box<dyn Duplex>>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: hyper::Uri) -> Self::Future {
        let target = self.clone();
        Box::pin(async move {
            let stream: Box<dyn Duplex> = match target {
                #[cfg(unix)]
                Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
                Self::Network(address) => {
                    let stream = TcpStream::connect(address).await?;
                    // A reused connection would wait for the answer to a request's first part.
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            };
            let current = Current(Arc::new(Mutex::new(Allowance::new(ANSWER_LIMIT))));
            Ok(TokioIo::new(Metered { stream, current }))
        })
    }
}

/// A client for an engine behind a socket; up to `idle` connections wait for reuse.
#[cfg(unix)]
pub(super) fn over_socket(path: &Path, idle: usize) -> Result<bollard::Docker, Bollard> {
    if !path.exists() {
        return Err(Bollard::SocketNotFoundError(path.display().to_string()));
    }
    // The host name is meaningless, but the engine's own client sends one as well.
    client(EngineTarget::Socket(path.into()), "http://docker", idle)
}

/// A client for an engine at a host and port.
pub(super) fn over_tcp(address: &str) -> Result<bollard::Docker, Bollard> {
    client(EngineTarget::Network(address.into()), &format!("http://{address}"), IDLE)
}

/// A client for an engine at a host and port over TLS, with the certificates in a folder. As in the engine's own
/// client, only authorities in that folder are trusted, or, for a context without any, those of the system.
pub(super) fn over_tls(address: &str, folder: &Path, is_context: bool) -> Result<bollard::Docker, Bollard> {
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    let unreadable = |path: &Path| Bollard::CertPathError { path: path.into() };
    let unusable = |path: &Path| Bollard::CertParseError { path: path.into() };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Bollard> {
        let text = std::fs::read(path).map_err(|_| unreadable(path))?;
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| unusable(path))
    };
    let builder = rustls::ClientConfig::builder();
    let builder = if is_context && matches!(ca.try_exists(), Ok(false)) {
        builder.with_native_roots()?
    } else {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&ca)?);
        builder.with_root_certificates(roots)
    };
    let config = if cert.exists() || key.exists() {
        let text = std::fs::read(&key).map_err(|_| unreadable(&key))?;
        let own_key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| unusable(&key))?;
        builder.with_client_auth_cert(certificates(&cert)?, own_key).map_err(|_| unusable(&cert))?
    } else {
        builder.with_no_client_auth()
    };
    let connector = HttpsConnector::from((EngineTarget::Network(address.into()), config));
    client(connector, &format!("https://{address}"), IDLE)
}

fn client(
    connector: impl Connect + Clone + Send + Sync + 'static,
    address: &str,
    idle: usize,
) -> Result<bollard::Docker, Bollard> {
    let connections = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(idle)
        .pool_idle_timeout(IDLE_TIME)
        .build(connector);
    let send = move |request: BollardRequest| {
        let allowance = request.extensions().get::<Arc<Allowance>>().cloned();
        let allowance = allowance.unwrap_or_else(|| Allowance::new(ANSWER_LIMIT));
        let response = connections.request(request);
        async move {
            let response = response.await?;
            if let Some(current) = response.extensions().get::<Current>() {
                current.set(allowance);
            }
            Ok(response)
        }
    };
    let timeout = REQUEST_TIMEOUT.as_secs();
    bollard::Docker::connect_with_custom_transport(send, Some(address), timeout, bollard::API_DEFAULT_VERSION)
}

/// The engine expects URL-safe base64 for credentials, and ignores them in any other encoding.
pub(super) fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
        let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        if let Ok(safe) = text.parse() {
            *value = safe;
        }
    }
    request
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use bollard::container::LogOutput;
    use bollard::query_parameters::{CreateImageOptions, ListContainersOptions, LogsOptions};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::backoff::pause;

    /// An engine that starts every answer with `begin` and then repeats `again` up to `times` times.
    fn engine(begin: &'static [u8], again: Vec<u8>, times: usize) -> (tempfile::TempDir, bollard::Docker) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let again = again.clone();
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(head).await;
                    let _ = stream.write_all(begin).await;
                    for _ in 0..times {
                        if stream.write_all(&again).await.is_err() {
                            return;
                        }
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        let client = over_socket(&path, 0).unwrap();
        (folder, client)
    }

    fn endless(begin: &'static [u8]) -> (tempfile::TempDir, bollard::Docker) {
        engine(begin, vec![b'a'; 64 << 10], usize::MAX)
    }

    #[test]
    fn only_a_context_may_rely_on_the_authorities_of_the_system() {
        crate::http::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let lacks_ca = |is_context| match over_tls("far:2376", folder.path(), is_context) {
            Err(Bollard::CertPathError { path }) => path.ends_with("ca.pem"),
            _ => false,
        };
        assert_eq!([lacks_ca(false), lacks_ca(true)], [true, false]);
    }

    #[test]
    fn credentials_are_encoded_as_url_safe_base64() {
        let body = bollard::body_full(Vec::new().into());
        let mut request = bollard::BollardRequest::new(body);
        request.headers_mut().insert("x-registry-auth", "a+/b=".parse().unwrap());
        assert_eq!(url_safe_credentials(request).headers()["x-registry-auth"], "a-_b=");
    }

    #[tokio::test]
    async fn a_connection_over_tcp_is_reused_until_the_engine_closes_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                // Closed after three answers.
                for _ in 0..3 {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";
                    let _ = stream.write_all(answer).await;
                }
            }
        });
        let client = over_tcp(&address).unwrap();
        for request in 0..6 {
            // The client's own task notices a free or closed connection.
            pause(&mut Duration::from_millis(20)).await;
            client.list_containers(None::<ListContainersOptions>).await.unwrap();
            assert_eq!(accepted.load(Ordering::Relaxed), 1 + request / 3, "request {request}");
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_an_error() {
        let (_folder, client) = endless(b"[{\"Id\": \"");
        let error = client.list_containers(None::<ListContainersOptions>).await.unwrap_err();
        assert!(TooLarge::caused(&error), "{error:?}");
        assert!(crate::error::chain(&error).contains("larger than 32 MiB"), "{}", crate::error::chain(&error));
    }

    #[tokio::test]
    async fn an_endless_message_is_an_error() {
        let (_folder, client) = endless(b"{\"status\": \"");
        let (client, bounded) = for_stream(&client);
        let mut messages = bounded(client.create_image(None::<CreateImageOptions>, None, None));
        let error = messages.next().await.unwrap().unwrap_err();
        assert!(TooLarge::caused(&error) && error.to_string().contains("larger than 1 MiB"), "{error:?}");
        // A part of a log whose header claims four billion bytes.
        let (_folder, client) = endless(b"\x01\0\0\0\xff\xff\xff\xff");
        let (client, bounded) = for_stream(&client);
        let mut lines = bounded(client.logs("x", None::<LogsOptions>));
        let error = lines.next().await.unwrap().unwrap_err();
        assert!(TooLarge::caused(&error) && error.to_string().contains("larger than 1 MiB"), "{error:?}");
    }

    #[tokio::test]
    async fn a_long_stream_of_short_messages_is_allowed() {
        let part: Vec<u8> = [b"\x01\0\0\0\0\x01\0\0".as_slice(), &vec![b'a'; 64 << 10]].concat();
        let (_folder, client) = engine(b"", part, 1000);
        let (client, bounded) = for_stream(&client);
        let lines = bounded(client.logs("x", None::<LogsOptions>));
        let bytes = lines.fold(0, async |sum, line| match line.unwrap() {
            LogOutput::StdOut { message } => sum + message.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(bytes.await, 64_000 << 10);
    }
}
