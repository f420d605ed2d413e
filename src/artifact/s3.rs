//! Objects of S3, and of servers that speak like it: MinIO, Ceph, Garage, SeaweedFS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStoreExt, PutPayload, RetryConfig};
use secrecy::ExposeSecret;

use super::listing::{self, Listing};
use super::{Inventory, Presence, probe};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::object_storage::S3Access;
use crate::engine::cancel::Cancel;
use crate::tls::{self, Belief};

/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For removing a probe when something else has failed.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// The way to all buckets. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct S3 {
    access: Arc<S3Access>,
    /// Made when the first bucket is asked for: a stack without S3 needs no certificates of S3.
    http: Arc<Mutex<Option<reqwest::Client>>>,
    buckets: Arc<Mutex<HashMap<String, Stores>>>,
}

/// A bucket.
#[derive(Debug, Clone)]
struct Stores {
    /// One request per object: not every server knows how to delete many at once.
    each: AmazonS3,
    /// The same, but that many are deleted with one request.
    many: AmazonS3,
}

/// Some of a bucket's objects: those whose keys begin with this path.
#[derive(Debug, Clone)]
pub struct Bucket {
    stores: Stores,
    name: String,
    key: String,
    access: Arc<S3Access>,
}

/// Hands on a client that is ready: the one with this house's TLS.
#[derive(Debug)]
struct Ready(reqwest::Client);

impl HttpConnector for Ready {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(listing::Reading::through(HttpClient::new(self.0.clone()))))
    }
}

impl S3 {
    /// The way to S3; nothing is read or sent yet.
    pub fn new(access: S3Access) -> S3 {
        S3 { access: Arc::new(access), http: Arc::default(), buckets: Arc::default() }
    }

    /// The same way with connections of its own: they live as long as the runtime that made them, and no longer.
    #[must_use]
    pub fn apart(&self) -> S3 {
        S3 { access: self.access.clone(), http: Arc::default(), buckets: Arc::default() }
    }

    /// Whether a key is configured; without one the machine's own role may still be one.
    pub fn has_key(&self) -> bool {
        self.access.key.is_some()
    }

    /// Objects of a bucket below a path.
    ///
    /// # Errors
    /// Configuration: certificates that cannot be read, no key for a server of one's own, a name that no bucket has.
    pub fn bucket(&self, name: &str, key: &str) -> Outcome<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let stores = match buckets.get(name) {
            Some(stores) => stores.clone(),
            None => {
                let stores = Stores { each: self.build(name, false)?, many: self.build(name, true)? };
                buckets.insert(name.to_owned(), stores.clone());
                stores
            }
        };
        Ok(Bucket { stores, name: name.to_owned(), key: key.to_owned(), access: self.access.clone() })
    }

    fn build(&self, name: &str, many: bool) -> Outcome<AmazonS3> {
        let access = &self.access;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 2,
            // The caller's patience ends it sooner.
            retry_timeout: Duration::from_secs(60),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(access.region.as_deref().unwrap_or("us-east-1"))
            .with_retry(retry)
            .with_http_connector(Ready(self.http()?));
        if let Some(endpoint) = &access.endpoint {
            // With the bucket in the host's name its builder takes that name whole.
            let place = match (access.virtual_hosted, endpoint.split_once("://")) {
                (true, Some((scheme, host))) => format!("{scheme}://{name}.{host}"),
                _ => endpoint.clone(),
            };
            builder = builder.with_endpoint(place).with_allow_http(endpoint.starts_with("http://"));
        }
        builder = builder.with_virtual_hosted_style_request(access.virtual_hosted).with_disable_bulk_delete(!many);
        match &access.key {
            Some(key) => {
                builder = builder.with_access_key_id(&key.id).with_secret_access_key(key.secret.expose_secret());
                if let Some(token) = &key.session_token {
                    builder = builder.with_token(token.expose_secret());
                }
            }
            // Only a machine of Amazon's has a role that can be asked for.
            None if access.endpoint.is_some() => return Err(no_key(access)),
            None => {}
        }
        // What it says of a builder is no secret, but nothing that helps either.
        builder.build().map_err(|e| Failure::configuration(format!("s3://{name} cannot be used: {}", code(&e))))
    }

    fn http(&self) -> Outcome<reqwest::Client> {
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*http {
            return Ok(client.clone());
        }
        let access = &self.access;
        let secure = access.endpoint.as_ref().is_none_or(|e| e.starts_with("https://"));
        let belief = Belief {
            // Without TLS nobody has to be believed, and no bundle needs to be there.
            any: access.insecure || !secure,
            file: access.ca_file.as_deref(),
            system: access.system_roots.as_deref(),
            set_by: "AWS_CA_BUNDLE",
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::believing(&belief)?.with_no_client_auth())
            .connect_timeout(CONNECT)
            .user_agent(concat!("mlops/", env!("CARGO_PKG_VERSION")))
            // A signature holds for one host; where a bucket lies elsewhere, the answer says so.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| Failure::internal(format!("a client for S3 could not be made: {e}")))?;
        *http = Some(client.clone());
        Ok(client)
    }
}

fn no_key(access: &S3Access) -> Failure {
    Failure::configuration(format!("no key for S3 (it would come from {})", access.key_from)).hint(
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with ~/.aws/credentials, as the tracking \
         server has them",
    )
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.key.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.name, self.key)
    }
}

impl Bucket {
    /// The same bucket, further down.
    pub(super) fn at(&self, path: &str) -> Bucket {
        let key = match (self.key.as_str(), path) {
            (key, "") => key.to_owned(),
            ("", path) => path.to_owned(),
            (key, path) => format!("{key}/{path}"),
        };
        Bucket { key, ..self.clone() }
    }

    /// The objects themselves.
    pub(super) fn store(&self) -> &AmazonS3 {
        &self.stores.each
    }

    /// The same, where many are deleted with one request.
    pub(super) fn many(&self) -> &AmazonS3 {
        &self.stores.many
    }

    /// The key as a path; `None`: it is none that can be asked for.
    pub(super) fn object(&self) -> Option<Path> {
        // It would ask for a key without these slashes instead.
        let whole = !self.key.is_empty() && !self.key.starts_with('/') && !self.key.ends_with('/');
        Path::parse(&self.key).ok().filter(|_| whole)
    }

    /// A page of the keys below this one, as they are, and where the next page begins.
    pub(super) async fn list(
        &self,
        most: Option<usize>,
        token: Option<String>,
        patience: Duration,
    ) -> Result<Listing, Refusal> {
        let mut options = PaginatedListOptions { max_keys: most, page_token: token, ..PaginatedListOptions::default() };
        options.extensions.insert(listing::Raw);
        let prefix = if self.key.is_empty() { None } else { Some(format!("{}/", self.key)) };
        let mut page = self.within(patience, self.stores.each.list_paginated(prefix.as_deref(), options)).await?;
        page.result.extensions.remove::<Listing>().ok_or_else(|| {
            let failure = Failure::source(format!("{self}: the list of objects cannot be understood"));
            Refusal { why: Why::Answered, failure }
        })
    }

    /// Length of the key of this place with the slash after it.
    pub(super) fn below_from(&self) -> usize {
        if self.key.is_empty() { 0 } else { self.key.len() + 1 }
    }

    /// Waits so long for an answer, and says what a refusal means.
    pub(super) async fn within<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.refusal(&error)),
            Err(_) => {
                let seconds = (patience.as_secs_f64() * 10.0).round() / 10.0;
                let failure = Failure::unreachable(format!("{self}: no answer within {seconds} s{}", self.server()));
                Err(Refusal { why: Why::Silent, failure: failure.hint(self.whereabouts()) })
            }
        }
    }

    fn server(&self) -> String {
        self.access.endpoint.as_ref().map(|e| format!(" from {e}")).unwrap_or_default()
    }

    fn whereabouts(&self) -> &'static str {
        if self.access.endpoint.is_some() {
            "is the object store running, and is this its address? (MLFLOW_S3_ENDPOINT_URL)"
        } else {
            "Amazon's S3 is asked; MLFLOW_S3_ENDPOINT_URL names a server of one's own"
        }
    }

    pub(super) fn refusal(&self, error: &object_store::Error) -> Refusal {
        let (code, from) = (code(error), &self.access.key_from);
        let why = match (code.as_str(), error) {
            ("NoSuchBucket", _) => Why::Answered,
            (_, object_store::Error::NotFound { .. }) => Why::Absent,
            (_, object_store::Error::AlreadyExists { .. }) => Why::There,
            (_, object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. }) => Why::Another,
            ("NotImplemented" | "501 Not Implemented", _) => Why::Unknown,
            _ if answered(error) => Why::Answered,
            _ => Why::Silent,
        };
        let failure = match (code.as_str(), error) {
            ("NoSuchBucket", _) => Failure::source(format!("the bucket {} is not there{}", self.name, self.server()))
                .hint("is it the right object store (MLFLOW_S3_ENDPOINT_URL), and was the bucket made there?"),
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken", _)
            | (_, object_store::Error::Unauthenticated { .. }) => {
                Failure::configuration(format!("{self}: the key is not taken ({code})"))
                    .hint(format!("the key comes from {from}; is it the one that the tracking server has?"))
            }
            ("RequestTimeTooSkewed", _) => Failure::source(format!("{self}: the clocks differ by too much ({code})"))
                .hint("is the clock of this machine right?"),
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => {
                Failure::configuration(format!("{self}: the bucket is in another region ({code})"))
                    .hint("AWS_REGION names the bucket's")
            }
            ("InvalidObjectState", _) => Failure::source(format!("{self}: the object lies in an archive ({code})"))
                .hint("restore it in the object store first"),
            (_, object_store::Error::PermissionDenied { .. }) => {
                Failure::source(format!("{self}: this key may not do that ({code})"))
                    .hint(format!("the key comes from {from}; it needs to list, get, put and delete below {self}"))
            }
            (_, object_store::Error::NotFound { .. }) => Failure::source(format!("{self} is not there ({code})")),
            _ if is_key_missing(error) => no_key(&self.access),
            (code, _) if answered(error) => Failure::unreachable(format!("{self}: the object store failed ({code})")),
            _ => {
                let reason = innermost(error);
                Failure::unreachable(format!("{self}: no answer{}: {reason}", self.server())).hint(self.whereabouts())
            }
        };
        Refusal { why, failure }
    }

    pub(super) async fn there(&self, patience: Duration) -> Outcome<()> {
        self.list(Some(1), None, patience).await.map(drop).map_err(|r| r.failure)
    }

    pub(super) async fn inventory(&self, cancel: &Cancel, patience: Duration) -> Outcome<Inventory> {
        let end = Instant::now() + patience;
        let mut seen = Inventory { whole: true, ..Inventory::default() };
        let mut token = None;
        loop {
            cancel.check()?;
            let left = end.saturating_duration_since(Instant::now());
            let page = match self.list(None, token, left).await {
                Ok(page) => page,
                // Some was counted, and then there was no more time.
                Err(_) if seen.files > 0 && Instant::now() >= end => {
                    seen.whole = false;
                    return Ok(seen);
                }
                Err(refusal) => return Err(refusal.failure),
            };
            for object in &page.objects {
                seen.files += 1;
                seen.bytes = seen.bytes.saturating_add(object.bytes);
            }
            token = page.next;
            if token.is_none() {
                return Ok(seen);
            }
        }
    }

    pub(super) async fn holds_something(&self, patience: Duration) -> Outcome<Presence> {
        let end = Instant::now() + patience;
        let page = self.list(Some(1), None, patience).await.map_err(|r| r.failure)?;
        if !page.objects.is_empty() {
            return Ok(Presence::There);
        }
        if self.key.is_empty() {
            return Ok(Presence::Gone);
        }
        let Ok(path) = Path::parse(&self.key) else {
            return Ok(Presence::Unseen("such a key cannot be asked for".to_owned()));
        };
        let left = end.saturating_duration_since(Instant::now());
        match self.within(left, self.stores.each.head(&path)).await {
            Ok(_) => Ok(Presence::There),
            Err(refusal) if refusal.why == Why::Absent => Ok(Presence::Gone),
            Err(refusal) => Err(refusal.failure),
        }
    }

    /// The path of something below this place.
    fn below(&self, name: &str) -> Outcome<Path> {
        let key = if self.key.is_empty() { name.to_owned() } else { format!("{}/{name}", self.key) };
        Path::parse(&key).map_err(|_| Failure::configuration(format!("{self}: such a path cannot be written to")))
    }

    pub(super) async fn probe(&self, id: &str, patience: Duration) -> Outcome<Duration> {
        let end = Instant::now() + patience;
        self.sweep(patience).await?;
        let path = self.below(&probe::name(id))?;
        let begun = Instant::now();
        let seen = self.write_and_read(&path, &probe::content(id), end).await;
        let took = begun.elapsed();
        // What is written may be there even where its answer was not waited for.
        let left = end.saturating_duration_since(Instant::now()).max(AFTERWARDS);
        let removed = self.within(left, self.stores.each.delete(&path)).await;
        match (seen, removed) {
            (Err(failure), _) => Err(failure.as_target()),
            (Ok(()), Err(refusal)) if refusal.why != Why::Absent => {
                Err(refusal.failure.as_target().on("removing the probe"))
            }
            (Ok(()), _) => Ok(took),
        }
    }

    async fn write_and_read(&self, path: &Path, content: &[u8], end: Instant) -> Outcome<()> {
        let left = || end.saturating_duration_since(Instant::now());
        let payload = PutPayload::from(content.to_vec());
        self.within(left(), self.stores.each.put(path, payload)).await.map_err(|r| r.failure.on("writing"))?;
        let back = self.within(left(), async { self.stores.each.get(path).await?.bytes().await }).await;
        if back.map_err(|r| r.failure.on("reading back"))? != content {
            return Err(Failure::target(format!("{self}: what was written is read back otherwise")));
        }
        Ok(())
    }

    /// Removes what killed runs left.
    async fn sweep(&self, patience: Duration) -> Outcome<()> {
        let prefix = self.below(probe::NAME)?.to_string();
        let options = PaginatedListOptions { max_keys: Some(20), ..PaginatedListOptions::default() };
        let page = self.within(patience, self.stores.each.list_paginated(Some(&prefix), options)).await;
        let now = Timestamp::now();
        for object in page.map_err(|r| r.failure)?.result.objects {
            if object.location.filename().is_some_and(|name| probe::is_stale(name, now)) {
                // Not being able to is no finding of its own: the probe's own deletion tells.
                let _ = self.within(AFTERWARDS, self.stores.each.delete(&object.location)).await;
            }
        }
        Ok(())
    }
}

/// Why something was not done.
pub(super) struct Refusal {
    pub(super) why: Why,
    pub(super) failure: Failure,
}

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The thing is not there.
    Absent,
    /// One is there already, or somebody writes it just now.
    There,
    /// It is another one by now.
    Another,
    /// The server does not know how.
    Unknown,
    /// The server says no, or failed.
    Answered,
    /// Nothing was heard: it may have been done or not.
    Silent,
}

/// The code in the answer's XML, else the HTTP status, else what kind of error it is. The answer as a whole is never
/// told: it may hold what was signed.
fn code(error: &object_store::Error) -> String {
    let text = error.to_string();
    let between = |from: &str, to: &str| {
        let rest = text.split_once(from)?.1;
        let word = rest.split_once(to)?.0;
        let plain = !word.is_empty() && word.len() < 80 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ');
        plain.then(|| word.to_owned())
    };
    between("<Code>", "</Code>").or_else(|| between("status code: ", ":")).unwrap_or_else(|| "no code".to_owned())
}

/// Whether there was an answer at all.
fn answered(error: &object_store::Error) -> bool {
    let text = error.to_string();
    text.contains("status code: ") || text.contains("<Code>")
}

/// Amazon's own way to a role of the machine leads to an address that answers nowhere else.
fn is_key_missing(error: &object_store::Error) -> bool {
    error.to_string().contains("169.254.")
}

/// The last cause: `connection refused`, an expired certificate.
fn innermost(error: &object_store::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(cause) = reason.source() {
        reason = cause;
    }
    reason.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
