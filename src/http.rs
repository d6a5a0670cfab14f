//! HTTP requests to InfluxDB and Grafana, with limits on time and size.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result, chain};
use crate::model::credentials::CaFile;
use crate::model::event::{Event, Listener};
use crate::model::stack::Secret;
use crate::model::text::{excerpt, printable};
use crate::objects_only::ObjectsOnly;

/// The largest answer that is read; a dashboard of thirty models is about a hundredth of it.
const LIMIT: usize = 16 << 20;
/// The time limit of one request, unless the client has another.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);
/// The time limit for establishing a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The time limit of a request that only checks whether a managed server answers.
pub(crate) const PROBE: Duration = Duration::from_secs(2);

/// Credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    /// No credentials.
    None,
    /// User and password.
    Basic(String, Secret),
    /// A token.
    Bearer(Secret),
}

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// No body.
    Empty,
    /// JSON; see [`Body::json`].
    Json(Vec<u8>),
    /// Form fields.
    Form(&'a [(&'a str, &'a str)]),
    /// Plain text.
    Text(String),
}

impl Body<'_> {
    #[must_use]
    pub(crate) fn json(document: &impl Serialize) -> Self {
        // Only a map whose keys are not texts cannot be written.
        Self::Json(serde_json::to_vec(document).unwrap_or_default())
    }
}

/// A request to a server.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The method, such as `GET`.
    pub(crate) method: &'a str,
    /// The escaped path, which begins with a slash, and the query.
    pub(crate) path: &'a str,
    /// Further headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Body<'a>,
    /// Replaces the default time limit.
    pub(crate) within: Option<Duration>,
}

impl<'a> Request<'a> {
    /// A request without headers and body.
    #[must_use]
    pub(crate) const fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, headers: &[], body: Body::Empty, within: None }
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The headers, with lower-case names.
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// What messages about this answer say about the environment's proxy, which may have sent it; empty without one.
    pub(crate) through: String,
}

impl Response {
    /// Whether the status is 2xx.
    #[must_use]
    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The body as JSON; empty if it is not JSON or has another form.
    #[must_use]
    pub(crate) fn json<T: DeserializeOwned + Default>(&self) -> T {
        let mut body = serde_json::Deserializer::from_slice(&self.body);
        let document = T::deserialize(ObjectsOnly(&mut body));
        document.and_then(|document| body.end().map(|()| document)).unwrap_or_default()
    }

    /// A header's text.
    #[must_use]
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(printable)
    }

    /// The texts of a header that may be repeated.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = String> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(printable)
    }

    /// The target of a redirect. Redirects are not followed, to avoid leaking credentials.
    #[must_use]
    pub(crate) fn redirects_to(&self) -> Option<String> {
        (300..400).contains(&self.status).then(|| self.header("location")).flatten().map(|place| excerpt(&place, 200))
    }

    /// The server's `Date` header, in milliseconds since 1970.
    #[must_use]
    pub(crate) fn date(&self) -> Option<i64> {
        let date = httpdate::parse_http_date(&self.header("date")?).ok()?;
        let since = date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    }

    /// The server's message, for an error.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        if let Some(place) = self.redirects_to() {
            return format!("status {}: a redirect to {place}", self.status);
        }
        let json: Value = self.json();
        let said = json.get("message").or_else(|| json.get("error")).and_then(Value::as_str);
        match said {
            Some(text) => excerpt(text, 300),
            None if self.body.is_empty() => format!("status {}", self.status),
            None => format!("status {}: {}", self.status, excerpt(&String::from_utf8_lossy(&self.body), 200)),
        }
    }
}

/// Installs the cryptography provider for `reqwest` and the engine's client. Two providers are
/// linked, so without a choice the first TLS connection would panic.
pub fn install_crypto_provider() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for one server.
#[derive(Clone)]
pub(crate) struct Http {
    system: &'static str,
    client: reqwest::Client,
    base: String,
    /// The address to show to users, if requests take another route.
    address: String,
    auth: Auth,
    /// The time limit of a request that has none.
    limit: Duration,
    /// What connection errors say about the environment's proxy, if requests go through it.
    proxy: Option<String>,
    listener: Rc<dyn Listener>,
}

impl Http {
    /// A client for the server at `base`, which has no trailing slash. The environment's proxy is
    /// not used with `bypass_proxy`.
    ///
    /// # Errors
    /// [`Error::File`] when the certificates cannot be used.
    pub(crate) fn new(
        system: &'static str,
        base: &str,
        bypass_proxy: bool,
        ca_file: Option<&CaFile>,
        listener: Rc<dyn Listener>,
    ) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("clipper-metrics/", env!("CARGO_PKG_VERSION")));
        let bypasses = bypass_proxy || bypasses_proxy(base);
        if bypasses {
            // The environment's proxy would connect to its own loopback.
            builder = builder.no_proxy();
        }
        let proxy = if bypasses { None } else { through_proxy(&Matcher::from_system(), base) };
        // Checked even if no request uses TLS.
        let certificates = ca_file.map(certificates).transpose()?;
        if base.starts_with("http://") {
            // Nothing is verified, so the system's certificates are not read and may be missing.
            builder = builder.tls_certs_only([]);
        } else if let Some(certificates) = certificates {
            // Not in addition to the system's: Apple's verifier has further rules, which certificates of private
            // authorities break.
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|why| Error::Http {
            doing: "prepare a connection".into(),
            url: base.into(),
            why: chain(&why),
            is_late: false,
        })?;
        Ok(Self {
            system,
            client,
            base: base.into(),
            address: base.into(),
            auth: Auth::None,
            limit: REQUEST,
            proxy,
            listener,
        })
    }

    /// The same server at another address, or through another route than the address that users know.
    #[must_use]
    pub(crate) fn at(&self, base: &str, address: &str) -> Self {
        Self { base: base.into(), address: address.into(), ..self.clone() }
    }

    /// Whether requests go to `base` and users know the server as `address`.
    #[must_use]
    pub(crate) fn is_at(&self, base: &str, address: &str) -> bool {
        self.base == base && self.address == address
    }

    /// The server's address for users.
    #[must_use]
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The same server with other credentials.
    #[must_use]
    pub(crate) fn with_auth(&self, auth: Auth) -> Self {
        Self { auth, ..self.clone() }
    }

    /// The same server with another time limit for each request.
    #[must_use]
    pub(crate) fn with_limit(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The time limit of a request.
    #[must_use]
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// The same server without credentials, for requests that need none.
    #[must_use]
    pub(crate) fn anonymous(&self) -> Self {
        self.with_auth(Auth::None)
    }

    #[must_use]
    pub(crate) fn has_credentials(&self) -> bool {
        self.auth != Auth::None
    }

    /// The user who signs in with a password.
    #[must_use]
    pub(crate) fn user(&self) -> Option<&str> {
        match &self.auth {
            Auth::Basic(user, _) => Some(user),
            Auth::None | Auth::Bearer(_) => None,
        }
    }

    /// Reports a note about this server.
    pub(crate) fn note(&self, text: &str) {
        self.listener.on(Event::Note(text));
    }

    /// Sends one request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// [`Error::Http`] if no answer arrives, [`Error::Answer`] if it is too large.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Response> {
        let started = Instant::now();
        let text = excerpt(&format!("{} {}", request.method, request.path), 200);
        let answer = self.exchange(request).await;
        let outcome = match &answer {
            Ok(answer) => answer.status.to_string(),
            Err(error) => excerpt(&error.to_string(), 160),
        };
        // The path's query may contain names, but never secrets.
        let (request, outcome, time) = (text.as_str(), outcome.as_str(), started.elapsed());
        self.listener.on(Event::Request { system: self.system, request, outcome, time });
        answer
    }

    async fn exchange(&self, Request { method, path, headers, body, within }: Request<'_>) -> Result<Response> {
        let doing = || format!("contact {}", self.system);
        let error = |why, is_late| Error::Http { doing: doing(), url: self.address.clone(), why, is_late };
        let failed = |why: String| error(why, false);
        let proxy = self.proxy.as_deref().unwrap_or_default();
        let broken = |why: &reqwest::Error| error(format!("{}{proxy}", reason(why)), why.is_timeout());
        let method = method.parse().map_err(|_| failed(format!("{method} is not a method")))?;
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        request = match &self.auth {
            Auth::None => request,
            Auth::Basic(user, password) => request.basic_auth(user, Some(password.reveal())),
            Auth::Bearer(token) => request.bearer_auth(token.reveal()),
        };
        let mut extra = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).map_err(|why| failed(why.to_string()))?;
            extra.insert(name, HeaderValue::from_str(value).map_err(|why| failed(why.to_string()))?);
        }
        request = request.headers(extra);
        request = match body {
            Body::Empty => request,
            Body::Json(bytes) => request.header(CONTENT_TYPE, "application/json").body(bytes),
            Body::Form(fields) => request.form(fields),
            Body::Text(text) => request.body(text),
        };
        request = request.timeout(within.unwrap_or(self.limit));
        let mut response = request.send().await.map_err(|why| broken(&why))?;
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|why| broken(&why))? {
            if read.len() + chunk.len() > LIMIT {
                return Err(Error::Answer {
                    doing: doing(),
                    url: self.address.clone(),
                    status: 0,
                    why: format!("the answer is larger than {} MiB", LIMIT >> 20),
                });
            }
            read.extend_from_slice(&chunk);
        }
        let status = response.status().as_u16();
        if status == 407 && self.proxy.is_some() {
            return Err(failed(format!("the proxy requires a login{proxy}")));
        }
        Ok(Response { status, headers: response.headers().clone(), body: read, through: proxy.into() })
    }
}

/// The certificates in a file.
///
/// # Errors
/// [`Error::File`] if it contains none, or something else.
fn certificates(file: &CaFile) -> Result<Vec<reqwest::Certificate>> {
    let bad = |message: String| Error::File {
        path: file.path.clone(),
        line: None,
        message,
        hint: "set --ca-file to a file with certificates in PEM format".into(),
    };
    let certificates =
        reqwest::Certificate::from_pem_bundle(&file.pem).map_err(|why| bad(format!("is not a certificate: {why}")))?;
    if certificates.is_empty() { Err(bad("contains no certificate".into())) } else { Ok(certificates) }
}

/// The root cause, without the address, which the message already contains.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = inner(cause) {
        cause = deeper;
    }
    if let Some(rustls::Error::InvalidCertificate(why)) = cause.downcast_ref() {
        return untrusted(why);
    }
    if let Some(rustls::Error::InvalidMessage(_)) = cause.downcast_ref() {
        return "it does not use TLS (does its address begin with http://?)".into();
    }
    let text = excerpt(&cause.to_string(), 200);
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The cause of an error; an I/O error may contain another error.
fn inner<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    let held = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
    held.map(|held| held as &(dyn std::error::Error + 'static)).or_else(|| error.source())
}

/// The reason why a server's certificate is rejected.
fn untrusted(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Why;
    match why {
        Why::UnknownIssuer | Why::BadSignature => {
            "its certificate is signed by an authority that is not trusted here; --ca-file names one to trust".into()
        }
        Why::Expired | Why::ExpiredContext { .. } => "its certificate has expired".into(),
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "its certificate is not valid yet: check the clocks".into()
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => "its certificate is for another name".into(),
        // Apple's verifier reports other reasons as text.
        Why::Other(other) if other.to_string().contains("expired") => "its certificate has expired".into(),
        other => format!("its certificate is not accepted: {}", excerpt(&other.to_string(), 120)),
    }
}

/// The part of a connection error that names the proxy for this address, without its credentials, and how to bypass it.
fn through_proxy(proxies: &Matcher, base: &str) -> Option<String> {
    let proxy = proxies.intercept(&base.parse().ok()?)?;
    let (name, port) = (proxy.uri().host()?, proxy.uri().port().map(|port| format!(":{port}")).unwrap_or_default());
    let url = reqwest::Url::parse(base).ok()?;
    Some(format!(
        " (through the environment's proxy {name}{port}; add {} to NO_PROXY to bypass it)",
        url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    ))
}

/// Whether the address is on this machine or in a private network.
fn bypasses_proxy(base: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(base) else { return true };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Characters that need no escape in a path or a query.
const PLAIN: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes one segment of a path or one value of a query.
#[must_use]
pub fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_without_its_password_unless_it_is_bypassed() {
        let proxies = Matcher::builder().all("http://me:sesame@proxy.example:3128").no("near.example").build();
        let named = through_proxy(&proxies, "https://far.example:8086/x").unwrap();
        assert_eq!(
            named,
            " (through the environment's proxy proxy.example:3128; add far.example to NO_PROXY to bypass it)"
        );
        assert_eq!(through_proxy(&proxies, "https://near.example"), None);
    }

    #[test]
    fn a_proxy_is_never_used_for_near_addresses() {
        for address in ["http://127.0.0.1:1", "http://[::1]:3000", "http://localhost", "http://192.168.1.2:8086"] {
            assert!(bypasses_proxy(address), "{address}");
        }
        assert!(!bypasses_proxy("https://grafana.example.com"));
    }

    #[test]
    fn an_expired_certificate_is_recognized_in_the_words_of_apples_verifier() {
        let apple = std::io::Error::other("“localhost” certificate is expired: -67818");
        let why = rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(apple)));
        assert_eq!(untrusted(&why), "its certificate has expired");
    }

    #[test]
    fn all_syntax_characters_are_escaped() {
        assert_eq!(escaped("a b/ü'\"?&"), "a%20b%2F%C3%BC%27%22%3F%26");
    }
}
