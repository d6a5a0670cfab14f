//! Pulls images: credentials, progress, time limits, and the meaning of the engine's errors.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as Bollard;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use super::Docker;
use super::errors::{is_denied, translate};
use super::transport::{TooLarge, for_stream};
use crate::error::{Error, PullFailure, Result};
use crate::model::event::Event;
use crate::model::image::ImageRef;
use crate::model::stack::DesiredContainer;
use crate::model::text::excerpt;

/// A pull without progress for this long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The limit while layers may be extracted: for that, the containerd image store reports elapsed seconds instead of
/// bytes, and its older versions and Podman report nothing.
const EXTRACTION_TIMEOUT: Duration = Duration::from_secs(600);
/// More layers than this, or longer layer ids, are ignored.
const MAX_LAYERS: usize = 1000;
const MAX_ID_LENGTH: usize = 128;

#[derive(Debug, Default)]
pub struct Progress {
    layers: HashMap<String, Layer>,
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Layer {
    stage: Stage,
    current: u64,
    total: u64,
    extracted: u64,
}

/// The stages of a layer during a pull, in order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Unknown,
    Known,
    Waiting,
    Downloading,
    Verifying,
    Downloaded,
    Extracting,
    Done,
}

impl Stage {
    fn parse(status: &str) -> Self {
        match status {
            "Pulling fs layer" => Self::Known,
            "Waiting" => Self::Waiting,
            "Downloading" => Self::Downloading,
            "Verifying Checksum" => Self::Verifying,
            "Download complete" => Self::Downloaded,
            "Extracting" => Self::Extracting,
            "Pull complete" | "Already exists" => Self::Done,
            _ => Self::Unknown,
        }
    }
}

impl Progress {
    /// Records one message. Returns whether the pull made progress: more bytes, or a layer in a
    /// later stage. A repeated message is not progress, because the containerd image store repeats
    /// messages as long as a pull lasts.
    pub fn note(&mut self, info: &CreateImageInfo) -> bool {
        let Some(status) = &info.status else { return false };
        let Some(id) = &info.id else {
            self.is_complete |= status.starts_with("Status: ");
            return false;
        };
        // The first message of a pull is about the tag, not a layer.
        let is_layer = self.layers.contains_key(id) || self.layers.len() < MAX_LAYERS;
        if status.starts_with("Pulling from") || id.len() > MAX_ID_LENGTH || !is_layer {
            return false;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let stage = Stage::parse(status);
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let (current, total) =
            info.progress_detail.as_ref().map_or((None, None), |detail| (number(detail.current), number(detail.total)));
        let mut has_moved = stage > layer.stage;
        layer.stage = layer.stage.max(stage);
        if stage == Stage::Downloading {
            // A transfer that starts again has fewer bytes than before.
            let current = current.unwrap_or(layer.current);
            has_moved |= current > layer.current;
            layer.current = current;
            layer.total = total.unwrap_or(layer.total).max(layer.current);
        }
        if stage >= Stage::Downloaded {
            layer.current = layer.total;
        }
        if stage == Stage::Extracting && total.is_some_and(|total| total > 0) {
            let extracted = current.unwrap_or(layer.extracted);
            has_moved |= extracted > layer.extracted;
            layer.extracted = extracted;
        }
        has_moved
    }

    /// The time that the pull may take without progress.
    fn patience(&self) -> Duration {
        let any = |test: fn(Stage) -> bool| self.layers.values().any(|layer| test(layer.stage));
        let is_due = any(|stage| matches!(stage, Stage::Waiting | Stage::Downloading | Stage::Verifying));
        // If the engine has all content already, it announces the layers and says nothing else. A layer that is only
        // announced beside others that have begun is due.
        let awaits_bytes = is_due || (any(|stage| stage > Stage::Known) && any(|stage| stage == Stage::Known));
        let is_extracting = any(|stage| stage == Stage::Extracting);
        // Otherwise the engine unpacks what it has, even if it reports no extraction.
        let may_extract = any(|stage| stage > Stage::Unknown) && !awaits_bytes;
        if is_extracting || may_extract { EXTRACTION_TIMEOUT } else { STALL_TIMEOUT }
    }

    /// Complete layers, and all known layers.
    #[must_use]
    pub fn layers(&self) -> (usize, usize) {
        (self.layers.values().filter(|layer| layer.stage == Stage::Done).count(), self.layers.len())
    }

    /// Received bytes, and all known bytes.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.values().fold((0, 0), |(current, total), layer| {
            (current.saturating_add(layer.current), total.saturating_add(layer.total))
        })
    }
}

impl Docker {
    /// Pulls an image; an interrupted transfer is retried once. A new plan would also cancel the other server's pull.
    ///
    /// # Errors
    /// If the image cannot be pulled.
    pub(crate) async fn pull(&self, spec: &DesiredContainer) -> Result<()> {
        let (role, image) = (spec.role, &spec.config.image);
        let report = |progress: &Progress| {
            self.listener.on(Event::Pulling { role, layers: progress.layers(), bytes: progress.bytes() });
        };
        let credentials = self.credentials(image).await?;
        match pull(&self.client, image, credentials.clone(), report).await {
            Err(Error::Pull { failure, .. }) if failure.is_passing() => {
                self.listener.on(Event::Note(&format!("the transfer of {image} was interrupted; retrying")));
                pull(&self.client, image, credentials, report).await
            }
            result => result,
        }
    }

    /// The credentials for a pull. If they cannot be determined, the pull is anonymous.
    async fn credentials(&self, image: &ImageRef) -> Result<Option<DockerCredentials>> {
        let is_podman = self.is_podman().await?;
        Ok(credentials(image, is_podman).await.unwrap_or_else(|fault| {
            self.listener.on(Event::Note(&format!("{fault}; {image} is pulled anonymously")));
            None
        }))
    }
}

/// Pulls an image once. `progress` is called after every progress.
async fn pull(
    docker: &bollard::Docker,
    image: &ImageRef,
    credentials: Option<DockerCredentials>,
    progress: impl FnMut(&Progress),
) -> Result<()> {
    let mut options = CreateImageOptionsBuilder::default().from_image(&image.name_for_pull());
    if let Some(tag) = image.tag_for_pull() {
        options = options.tag(tag);
    }
    let (docker, bounded) = for_stream(docker);
    follow(image, bounded(docker.create_image(Some(options.build()), None, credentials)), progress).await
}

/// Reads the messages of a pull until it ends.
async fn follow(
    image: &ImageRef,
    messages: impl Stream<Item = Result<CreateImageInfo, Bollard>>,
    mut progress: impl FnMut(&Progress),
) -> Result<()> {
    let mut messages = pin!(messages);
    let mut so_far = Progress::default();
    let mut last_progress = Instant::now();
    loop {
        let patience = so_far.patience();
        // The deadline is also checked after each message, because a stream that always has a
        // message would never time out.
        match tokio::time::timeout_at(last_progress + patience, messages.next()).await {
            Ok(Some(Ok(info))) if so_far.note(&info) => {
                last_progress = Instant::now();
                progress(&so_far);
            }
            Ok(Some(Ok(_))) if last_progress.elapsed() < patience => {}
            Ok(Some(Ok(_))) | Err(_) => return Err(stalled(image, patience)),
            // The engine has reported success, although the stream ends with an error
            // (bollard#560). The image's name on the engine would prove nothing: it may belong to
            // the previous image.
            Ok(Some(Err(error))) if so_far.is_complete && !matches!(error, Bollard::DockerStreamError { .. }) => {
                return Ok(());
            }
            Ok(Some(Err(error))) => return Err(failed(image, &error)),
            Ok(None) => return Ok(()),
        }
    }
}

fn stalled(image: &ImageRef, after: Duration) -> Error {
    let why = format!("no progress for {}s", after.as_secs());
    Error::Pull { image: image.clone(), why, failure: PullFailure::Silent }
}

fn failed(image: &ImageRef, error: &Bollard) -> Error {
    if is_denied(error) {
        return translate(&format!("pull {image}"), error);
    }
    let why = match error {
        Bollard::RequestTimeoutError => return stalled(image, super::REQUEST_TIMEOUT),
        Bollard::DockerStreamError { error } => error.clone(),
        Bollard::DockerResponseServerError { message, .. } => message.clone(),
        other => crate::error::chain(other),
    };
    let failure = match error {
        Bollard::DockerStreamError { .. } | Bollard::DockerResponseServerError { .. } => classify(&why),
        other if TooLarge::caused(other) => PullFailure::Other,
        _ => PullFailure::Cut,
    };
    Error::Pull { image: image.clone(), why: excerpt(&why, 300), failure }
}

/// Phrases of engines and registries in lower case, with their meaning. The first that a message contains decides.
const PHRASES: &[(PullFailure, &[&str])] = &[
    (
        PullFailure::RateLimited,
        &["toomanyrequests", "too many requests", "rate limit", "rate exceeded", "status code 429"],
    ),
    (PullFailure::Disk, &["no space left"]),
    (PullFailure::Clock, &["certificate has expired or is not yet valid"]),
    (PullFailure::PlainHttp, &["server gave http response to https client"]),
    (PullFailure::Certificate, &["x509:", "failed to verify certificate"]),
    (PullFailure::ProxyLogin, &["proxy authentication required", "status code 407", "407 proxy"]),
    (
        PullFailure::Platform,
        &[
            "no matching manifest for",
            "no match for platform",
            "no image found in manifest list",
            "no image found in image index",
        ],
    ),
    (
        PullFailure::NotFound,
        &[
            "not found",
            "manifest unknown",
            "name unknown",
            "denied",
            "unauthorized",
            "no basic auth",
            "authentication required",
            "token has expired",
            "403 forbidden",
            "403 (forbidden)",
            "status code 403",
            "access forbidden",
        ],
    ),
    (
        PullFailure::Cut,
        &[
            "unexpected eof",
            "connection reset",
            "short read",
            "broken pipe",
            "filesystem layer verification",
            "digest did not match",
        ],
    ),
    (
        PullFailure::Unreachable,
        &[
            "no such host",
            "connection refused",
            "no route to host",
            "i/o timeout",
            "tls handshake timeout",
            "server misbehaving",
            "unreachable",
            "deadline exceeded",
            "client.timeout",
            ": eof",
            "503 service",
            "502 bad",
            "504 gateway",
            "500 internal",
        ],
    ),
];

/// The kind of failure in the engine's message about a pull.
#[must_use]
pub fn classify(message: &str) -> PullFailure {
    let message = message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    PHRASES.iter().find(|(_, phrases)| says(phrases)).map_or(PullFailure::Other, |(failure, _)| *failure)
}

/// The time limit of a credential helper.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// Docker Hub's name in the Docker client's files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Docker Hub's names in image references.
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Docker Hub's name in Podman's files.
const PODMAN_HUB: &str = "docker.io";

/// The image's registry, unless it is Docker Hub, which has one key in the client's files and
/// credential helpers, however the image reference spells it.
fn other_registry(image: &ImageRef) -> Option<&str> {
    image.registry().filter(|registry| !HUB_HOSTS.contains(registry))
}

/// The credentials stored by `docker login` or `podman login` for the image's registry, or the reason why a credential
/// helper did not return them.
async fn credentials(image: &ImageRef, is_podman: bool) -> Result<Option<DockerCredentials>, String> {
    let for_lookup = other_registry(image).map(String::from);
    let server = for_lookup.as_deref().unwrap_or(DOCKER_HUB).to_string();
    // A helper is a separate process, which may wait for an answer that never comes.
    let lookup = tokio::task::spawn_blocking(move || stored_credential(for_lookup.as_deref(), is_podman));
    let Ok(found) = tokio::time::timeout(HELPER_TIMEOUT, lookup).await else {
        return Err(format!("the credential helper for {server} did not answer within {}s", HELPER_TIMEOUT.as_secs()));
    };
    let (username, password, identitytoken) = match found.unwrap_or(Ok(None))? {
        None => return Ok(None),
        Some(DockerCredential::IdentityToken(token)) => (None, None, Some(token)),
        Some(DockerCredential::UsernamePassword(user, password)) => (Some(user), Some(password), None),
    };
    Ok(Some(DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress: Some(server),
        ..DockerCredentials::default()
    }))
}

/// The stored credential for a registry, or for Docker Hub if `registry` is `None`. Podman reads
/// its own files before Docker's (containers-auth.json(5)).
fn stored_credential(registry: Option<&str>, is_podman: bool) -> Result<Option<DockerCredential>, String> {
    let (docker, podman) = (registry.unwrap_or(DOCKER_HUB), registry.unwrap_or(PODMAN_HUB));
    let of_podman: [CredentialPlace<'_>; 2] =
        [(podman, docker_credential::get_podman_credential), (podman, of_podman_without_session)];
    let of_docker: CredentialPlace<'_> = (docker, docker_credential::get_credential);
    let places = of_podman.into_iter().filter(|_| is_podman).chain([of_docker]);
    first(places.map(|(server, look)| look(server).map_err(|error| helper_fault(server, &error))))
}

type Lookup = Result<DockerCredential, CredentialRetrievalError>;
/// A registry's key in a file, and the function that reads that file.
type CredentialPlace<'a> = (&'a str, fn(&str) -> Lookup);

/// The first credential found, or else the first failure of a helper.
fn first(
    lookups: impl Iterator<Item = Result<DockerCredential, Option<String>>>,
) -> Result<Option<DockerCredential>, String> {
    let mut fault = None;
    for lookup in lookups {
        match lookup {
            Ok(found) => return Ok(Some(found)),
            Err(why) => fault = fault.or(why),
        }
    }
    fault.map_or(Ok(None), Err)
}

/// The failure of a credential helper; `None` if there is no helper, or if it has no credential for the server. The
/// helper's output may contain a secret.
fn helper_fault(server: &str, error: &CredentialRetrievalError) -> Option<String> {
    match error {
        // As the protocol of these programs requires.
        CredentialRetrievalError::HelperFailure { stdout, .. } if stdout.contains("credentials not found") => None,
        CredentialRetrievalError::HelperFailure { helper, .. } => Some(format!(
            "the credential helper {helper} failed for {server} (`echo {server} | {helper} get` shows its error)"
        )),
        CredentialRetrievalError::HelperCommunicationError => Some(format!(
            "the credential helper for {server} could not be run (see `credsStore` and `credHelpers` in Docker's \
             config.json)"
        )),
        CredentialRetrievalError::MalformedHelperResponse => {
            Some(format!("the answer of the credential helper for {server} is invalid"))
        }
        _ => None,
    }
}

/// Without XDG_RUNTIME_DIR, as for root and in cron, Podman's file is in a folder named after the
/// user's id, which `docker_credential` does not support.
#[cfg(target_os = "linux")]
fn of_podman_without_session(registry: &str) -> Lookup {
    use std::os::unix::fs::MetadataExt as _;
    let user = std::fs::metadata("/proc/self").map_err(|_| CredentialRetrievalError::ConfigNotFound)?.uid();
    let file = std::fs::File::open(format!("/run/containers/{user}/auth.json"));
    docker_credential::get_credential_from_reader(
        file.map_err(|_| CredentialRetrievalError::ConfigReadError)?,
        registry,
    )
}

#[cfg(not(target_os = "linux"))]
const fn of_podman_without_session(_: &str) -> Lookup {
    Err(CredentialRetrievalError::ConfigNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use proptest::prelude::*;

    #[test]
    fn docker_hub_has_one_key_for_all_its_names() {
        for (image, registry) in [
            ("grafana/grafana:12.4.10", None),
            ("docker.io/grafana/grafana:12.4.10", None),
            ("index.docker.io/grafana/grafana:12.4.10", None),
            ("registry-1.docker.io/library/influxdb:1.12.4", None),
            ("m.example:5000/grafana/grafana:12.4.10", Some("m.example:5000")),
        ] {
            assert_eq!(other_registry(&ImageRef::parse(image).unwrap()), registry, "{image}");
        }
    }

    #[test]
    fn the_failure_of_a_credential_helper_is_reported_unless_another_place_has_a_credential() {
        use CredentialRetrievalError::{HelperCommunicationError, HelperFailure, NoCredentialConfigured};
        let failure = |stdout: &str| HelperFailure {
            helper: "docker-credential-pass".into(),
            stdout: stdout.into(),
            stderr: String::new(),
        };
        let fault = |error| helper_fault("r.example", &error);
        let failed = fault(failure("exit status 2: the store is locked, SECRET")).unwrap();
        assert!(failed.contains("`echo r.example | docker-credential-pass get`"), "{failed}");
        assert!(!failed.contains("SECRET"), "{failed}");
        assert_eq!(fault(failure("credentials not found in native keychain\n")), None);
        assert_eq!(fault(NoCredentialConfigured), None);
        assert!(fault(HelperCommunicationError).is_some());

        let found = || DockerCredential::IdentityToken("t".into());
        let first = |lookups: Vec<Result<DockerCredential, Option<String>>>| first(lookups.into_iter());
        assert_eq!(first(vec![Err(Some("a".into())), Ok(found())]), Ok(Some(found())));
        assert_eq!(first(vec![Err(None), Err(Some("a".into())), Err(Some("b".into()))]), Err("a".into()));
        assert_eq!(first(vec![Err(None)]), Ok(None));
    }

    #[test]
    fn messages_of_the_engine_are_classified() {
        for (message, failure) in [
            ("toomanyrequests: You have reached your pull rate limit", PullFailure::RateLimited),
            ("manifest for x:1 not found: manifest unknown", PullFailure::NotFound),
            ("pull access denied for x, repository does not exist", PullFailure::NotFound),
            ("Get \"https://r/v2/\": dial tcp: lookup r: no such host", PullFailure::Unreachable),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                PullFailure::Unreachable,
            ),
            ("write /x: no space left on device", PullFailure::Disk),
            ("unexpected EOF", PullFailure::Cut),
            (
                "Get \"https://r/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown \
                 authority",
                PullFailure::Certificate,
            ),
            (
                "Get \"https://r/v2/\": x509: certificate has expired or is not yet valid: current time \
                 2020-01-01T00:00:00Z is before 2026-01-01T00:00:00Z",
                PullFailure::Clock,
            ),
            ("Get \"https://registry-1.docker.io/v2/\": Proxy Authentication Required", PullFailure::ProxyLogin),
            ("no matching manifest for linux/arm64/v8 in the manifest list entries", PullFailure::Platform),
            ("no match for platform in manifest: not found", PullFailure::Platform),
            ("no image found in image index for architecture arm64", PullFailure::Platform),
            ("happened during read: Digest did not match, expected sha256:1, got sha256:2", PullFailure::Cut),
            ("Get \"https://r:5000/v2/\": http: server gave HTTP response to HTTPS client", PullFailure::PlainHttp),
            ("pulling from host r failed with status code [manifests 1]: 403 Forbidden", PullFailure::NotFound),
            ("Requesting bearer token: invalid status code from registry 403 (Forbidden)", PullFailure::NotFound),
            ("error parsing HTTP 403 response body: access forbidden", PullFailure::NotFound),
            (
                "no such thing: Your authorization token has expired. Reauthenticate and try again.",
                PullFailure::NotFound,
            ),
            ("reading manifest 1 in r/x: authentication required", PullFailure::NotFound),
            ("Rate exceeded", PullFailure::RateLimited),
            ("received unexpected HTTP status: 429 Too Many Requests", PullFailure::RateLimited),
            ("initializing source: received status code 429 from registry", PullFailure::RateLimited),
            ("Get \"https://r/v2/\": net/http: TLS handshake timeout", PullFailure::Unreachable),
            ("dial tcp 10.0.0.7:443: connect: no route to host", PullFailure::Unreachable),
            ("received unexpected HTTP status: 504 Gateway Timeout", PullFailure::Unreachable),
            // A number that is no status.
            ("failed to register layer: 429 files, 403 links", PullFailure::Other),
            ("who knows", PullFailure::Other),
        ] {
            assert_eq!(classify(message), failure, "{message}");
        }
    }

    #[test]
    fn a_pull_that_a_proxy_denies_is_no_failure_of_the_registry() {
        let image = ImageRef::parse("influxdb:1").unwrap();
        let failed = |message: &str| {
            failed(&image, &Bollard::DockerResponseServerError { status_code: 403, message: message.into() })
        };
        let error = failed("<html><body><h1>403 Forbidden</h1></body></html>");
        assert!(matches!(error, Error::Docker { refusal: Refusal::Denied, .. }), "{error}");
        assert!(matches!(failed("toomanyrequests"), Error::Pull { failure: PullFailure::RateLimited, .. }));
    }

    fn message(id: Option<&str>, status: &str, current: i64, total: i64) -> CreateImageInfo {
        let detail = bollard::models::ProgressDetail { current: Some(current), total: Some(total) };
        CreateImageInfo {
            id: id.map(String::from),
            status: Some(status.into()),
            progress_detail: Some(detail),
            ..CreateImageInfo::default()
        }
    }

    /// The result and the duration of a pull with ten messages per second.
    async fn pulled(
        messages: impl Iterator<Item = Result<CreateImageInfo, Bollard>>,
    ) -> (Result<(), PullFailure>, Duration) {
        let started = Instant::now();
        let ticks = tokio::time::interval(Duration::from_millis(100));
        let messages = futures_util::stream::unfold((messages, ticks), async |(mut messages, mut ticks)| {
            ticks.tick().await;
            Some((messages.next()?, (messages, ticks)))
        });
        let result = follow(&ImageRef::parse("influxdb:1").unwrap(), messages, |_| {}).await;
        let result = result.map_err(|error| match error {
            Error::Pull { failure, .. } => failure,
            other => panic!("{other}"),
        });
        (result, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_messages_are_not_progress() {
        let layer = Some("a");
        let stands = || message(layer, "Downloading", 5, 10);
        let (result, took) = pulled(std::iter::repeat_with(|| Ok(stands()))).await;
        assert_eq!(result, Err(PullFailure::Silent));
        assert!(took >= STALL_TIMEOUT && took < STALL_TIMEOUT * 2, "{took:?}");
        // Repeated states and unknown words are not progress either.
        for other in ["Waiting", "Retrying in 5 seconds", "Unheard of"] {
            let both = [stands(), message(layer, other, 0, 0)];
            let (result, took) = pulled(both.into_iter().cycle().map(Ok)).await;
            assert_eq!((result, took < STALL_TIMEOUT * 2), (Err(PullFailure::Silent), true), "{other}");
        }
        // Nor are new layers without bytes.
        let (result, took) = pulled((0..).map(|id: u32| Ok(message(Some(&id.to_string()), "Waiting", 0, 0)))).await;
        assert_eq!((result, took < STALL_TIMEOUT * 4), (Err(PullFailure::Silent), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_pull_continues_as_long_as_bytes_arrive() {
        let layer = Some("a");
        // One byte every half minute for an hour, with a restarted transfer in between.
        let bytes = (0..120).chain(0..120).flat_map(|byte| std::iter::repeat_n(byte, 300));
        let download = bytes.map(|byte| message(layer, "Downloading", byte, 120));
        // Then a layer whose extraction takes five minutes, for which the containerd image store
        // reports only seconds.
        let unpack = (0..3000).map(|tick| message(layer, "Extracting", tick / 10, 0));
        let messages = download.chain(unpack).chain([message(layer, "Pull complete", 0, 0)]);
        let (result, took) = pulled(messages.map(Ok)).await;
        assert_eq!(result, Ok(()));
        assert!(took > Duration::from_secs(7200), "{took:?}");
        // An extraction that never ends fails as well.
        let (result, took) = pulled((0..).map(|tick| Ok(message(layer, "Extracting", tick / 10, 0)))).await;
        assert_eq!((result, took < EXTRACTION_TIMEOUT * 2), (Err(PullFailure::Silent), true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_may_unpack_silently_once_no_bytes_are_due() {
        let silence = async |begin: &[(&str, &str)]| {
            let begin: Vec<_> = begin.iter().map(|(id, status)| Ok(message(Some(id), status, 0, 0))).collect();
            let messages = futures_util::stream::iter(begin).chain(futures_util::stream::pending());
            let started = Instant::now();
            assert!(follow(&ImageRef::parse("influxdb:1").unwrap(), messages, |_| {}).await.is_err());
            started.elapsed()
        };
        for (begin, limit) in [
            // Docker up to 27 with the containerd image store, and Podman.
            (&[("a", "Pulling fs layer"), ("a", "Downloading"), ("a", "Download complete")][..], EXTRACTION_TIMEOUT),
            (&[("a", "Already exists"), ("b", "Download complete")], EXTRACTION_TIMEOUT),
            // Docker 28 and 29 with that store, if all content is there.
            (&[("a", "Pulling fs layer"), ("b", "Pulling fs layer")], EXTRACTION_TIMEOUT),
            (&[("a", "Pull complete"), ("b", "Extracting")], EXTRACTION_TIMEOUT),
            (&[], STALL_TIMEOUT),
            (&[("1.12.4", "Pulling from library/influxdb")], STALL_TIMEOUT),
            (&[("a", "Unheard of")], STALL_TIMEOUT),
            (&[("a", "Download complete"), ("b", "Downloading")], STALL_TIMEOUT),
            (&[("a", "Download complete"), ("b", "Verifying Checksum")], STALL_TIMEOUT),
            (&[("a", "Pulling fs layer"), ("b", "Waiting")], STALL_TIMEOUT),
        ] {
            assert_eq!(silence(begin).await, limit, "{begin:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_succeeds_only_if_the_engine_says_so() {
        let broken = || Bollard::IOError { err: std::io::Error::other("connection reset") };
        let done = || message(None, "Status: Downloaded newer image for influxdb:1", 0, 0);
        let begun = || message(Some("a"), "Downloading", 1, 2);
        assert_eq!(pulled([Ok(begun()), Ok(done()), Err(broken())].into_iter()).await.0, Ok(()));
        assert_eq!(pulled([Ok(begun()), Err(broken())].into_iter()).await.0, Err(PullFailure::Cut));
        let late = [Err(Bollard::RequestTimeoutError)];
        assert_eq!(pulled(late.into_iter()).await.0, Err(PullFailure::Silent));
        let refused = Bollard::DockerStreamError { error: "toomanyrequests: slow down".into() };
        assert_eq!(pulled([Ok(begun()), Err(refused)].into_iter()).await.0, Err(PullFailure::RateLimited));
    }

    proptest! {
        #[test]
        fn no_message_corrupts_the_progress(id in ".*", status in ".*", current in any::<i64>(), total in any::<i64>()) {
            let mut progress = Progress::default();
            for status in [status.as_str(), "Downloading", "Extracting", "Pull complete"] {
                progress.note(&CreateImageInfo {
                    id: Some(id.clone()),
                    status: Some(status.into()),
                    progress_detail: Some(bollard::models::ProgressDetail { current: Some(current), total: Some(total) }),
                    ..CreateImageInfo::default()
                });
            }
            prop_assert!(progress.layers().0 <= progress.layers().1);
            prop_assert!(progress.bytes().0 <= progress.bytes().1);
        }
    }
}
