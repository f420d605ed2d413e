//! One request: sent, sent again where that is safe, answered within its time and size.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, NoProxy, Response, Url};
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::fault::{Fault, Refused, Reply, Trouble, broken, refused};
use super::{Answer, Bounds, Client, Exchange, internal};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::server::{Connection, Credentials};

/// No page of MLflow's largest lists comes near it.
const MOST: usize = 64 << 20;
/// More than this of a refusal says nothing more.
const MOST_REFUSAL: usize = 64 << 10;

/// What is asked.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) json: Option<serde_json::Value>,
    /// Whether the answer is the same however often it is asked.
    pub(super) repeatable: bool,
}

impl Ask {
    /// A GET below `/api/2.0/mlflow/`.
    pub(super) fn get(call: &str, query: Vec<(&'static str, String)>) -> Ask {
        Ask::plain(&format!("/api/2.0/mlflow/{call}")).with(query)
    }

    /// A GET of any path.
    pub(super) fn plain(path: &str) -> Ask {
        Ask { method: Method::GET, path: path.to_owned(), query: Vec::new(), json: None, repeatable: true }
    }

    pub(super) fn with(self, query: Vec<(&'static str, String)>) -> Ask {
        Ask { query, ..self }
    }

    /// A POST below `/api/2.0/mlflow/` that changes nothing.
    pub(super) fn search(call: &str, json: serde_json::Value) -> Ask {
        Ask { repeatable: true, ..Ask::change(call, json) }
    }

    /// A POST below `/api/2.0/mlflow/` that is never sent twice.
    pub(super) fn change(call: &str, json: serde_json::Value) -> Ask {
        let path = format!("/api/2.0/mlflow/{call}");
        Ask { method: Method::POST, path, query: Vec::new(), json: Some(json), repeatable: false }
    }
}

/// The HTTP client of a connection.
///
/// # Errors
/// Configuration: a proxy or a header that cannot be used.
pub(super) fn transport(
    connection: &Connection,
    bounds: Bounds,
    tls: ClientConfig,
    anonymous: bool,
) -> Outcome<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .tls_info(anonymous)
        .connect_timeout(bounds.connect)
        .user_agent(concat!("mlops/", env!("CARGO_PKG_VERSION")))
        .referer(false)
        .redirect(Policy::custom(|attempt| {
            // Credentials go to the server that was named and to nobody else.
            let from = attempt.previous().last().map(Url::origin);
            if attempt.previous().len() < 5 && from == Some(attempt.url().origin()) {
                attempt.follow()
            } else {
                attempt.stop()
            }
        }))
        .no_proxy();
    if !anonymous {
        builder = builder.default_headers(headers(connection)?);
    }
    if let Some(proxy) = &connection.proxy {
        let except = proxy.except.as_deref().and_then(NoProxy::from_string);
        // What reqwest says of it is not repeated: the address may hold a password.
        let unfit =
            |_| Failure::configuration("the proxy that the environment names cannot be used").hint("http://host:port");
        builder = builder.proxy(reqwest::Proxy::all(proxy.address.expose_secret()).map_err(unfit)?.no_proxy(except));
    }
    builder.build().map_err(internal)
}

fn headers(connection: &Connection) -> Outcome<HeaderMap> {
    let mut headers = HeaderMap::new();
    let value = match &connection.credentials {
        Credentials::None => None,
        Credentials::Basic { user, password } => {
            Some(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose_secret()))))
        }
        Credentials::Bearer(token) => Some(format!("Bearer {}", token.expose_secret())),
    };
    if let Some(value) = value {
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Failure::configuration("the token holds characters that no header takes")
                .hint(format!("it comes from {}", connection.credentials_from))
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(workspace) = &connection.workspace {
        let value = HeaderValue::from_str(workspace)
            .map_err(|_| Failure::configuration("the workspace's name holds characters that no header takes"))?;
        headers.insert("X-MLFLOW-WORKSPACE", value);
    }
    Ok(headers)
}

impl Client {
    /// The answer's JSON.
    pub(super) async fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Reply<Answer<T>> {
        let answer = self.bytes(ask).await?;
        let value = self.decoded(&ask.path, &answer.value)?;
        Ok(Answer { value, exchange: answer.exchange })
    }

    /// An answer's JSON.
    pub(super) fn decoded<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Reply<T> {
        serde_json::from_slice(bytes).map_err(|e| {
            let page = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<');
            let what = if page { "a web page where MLflow's answer should be".to_owned() } else { e.to_string() };
            Trouble::malformed(&self.connection, format_args!("{path}: {what}"))
        })
    }

    /// The answer as it came, asked for again where that is safe and there is time.
    pub(super) async fn bytes(&self, ask: &Ask) -> Reply<Answer<Vec<u8>>> {
        self.at_most(ask, MOST).await
    }

    /// The same; an answer of more bytes is malformed.
    pub(super) async fn at_most(&self, ask: &Ask, most: usize) -> Reply<Answer<Vec<u8>>> {
        let end = Instant::now() + self.bounds.call;
        let mut turn = 1;
        loop {
            let begun = Instant::now();
            let tried = tokio::time::timeout_at(end.into(), self.exchange(ask, most, begun)).await;
            let mut trouble = match tried {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::late(&self.connection, self.bounds.call),
            };
            trouble.took = begun.elapsed();
            let pause = trouble.after.unwrap_or_else(|| jitter(turn));
            if !(trouble.again && ask.repeatable && turn < self.tries) || Instant::now() + pause >= end {
                return Err(trouble);
            }
            tracing::info!("{}; asking again in {} ms", trouble.failure, pause.as_millis());
            tokio::time::sleep(pause).await;
            turn += 1;
        }
    }

    async fn exchange(&self, ask: &Ask, most: usize, begun: Instant) -> Reply<Answer<Vec<u8>>> {
        let (mut response, date) = self.open(ask).await?;
        let status = response.status().as_u16();
        let value = self.read(&mut response, most).await?;
        let exchange = Exchange { took: begun.elapsed(), status, date };
        tracing::debug!("{} {} {status} {} ms", ask.method, ask.path, exchange.took.as_millis());
        Ok(Answer { value, exchange })
    }

    /// The head of a successful answer. Releases up to 3.4 at least keep `/api/` out of their static prefix, and have all
    /// of it as `/ajax-api/` below it (MLflow: server/handlers.py, `_get_rest_path`): where the one is not there, the
    /// other is asked, from then on first.
    pub(super) async fn open(&self, ask: &Ask) -> Reply<(Response, Option<jiff::Timestamp>)> {
        let first = self.opened(ask, &self.route(&ask.path), None).await;
        let prefixed = !self.connection.address.prefix.is_empty() && ask.path.starts_with("/api/");
        match first {
            Err(trouble)
                if trouble.fault == Fault::NotFound && prefixed && !self.below_ajax.load(Ordering::Relaxed) =>
            {
                let second = self.opened(ask, &format!("/ajax-{}", ask.path.trim_start_matches('/')), None).await;
                match second {
                    Err(again) if again.fault == Fault::NotFound => Err(trouble),
                    other => {
                        self.below_ajax.store(true, Ordering::Relaxed);
                        other
                    }
                }
            }
            other => other,
        }
    }

    /// Where a path is on this server, as far as that is known.
    pub(super) fn route(&self, path: &str) -> String {
        match path.strip_prefix("/api/") {
            Some(rest) if self.below_ajax.load(Ordering::Relaxed) => format!("/ajax-api/{rest}"),
            _ => path.to_owned(),
        }
    }

    pub(super) async fn opened(
        &self,
        ask: &Ask,
        path: &str,
        body: Option<reqwest::Body>,
    ) -> Reply<(Response, Option<jiff::Timestamp>)> {
        let url = format!("{}{path}", self.connection.address.base());
        let mut request = self.http.request(ask.method.clone(), url).query(&ask.query);
        if let Some(json) = &ask.json {
            request = request.json(json);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|e| self.broken(&e))?;
        let text = |name| response.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
        let date = text(reqwest::header::DATE).and_then(|d| instant(&d));
        if response.status().is_success() {
            return Ok((response, date));
        }
        let (location, after) = (text(LOCATION), text(RETRY_AFTER).and_then(|v| wait(&v, date)));
        let status = response.status().as_u16();
        let body = self.read_start(&mut response).await;
        tracing::debug!("{} {} {status}", ask.method, ask.path);
        let answer = Refused { status, path: &ask.path, location: location.as_deref(), after, body: &body };
        Err(refused(&self.connection, &answer))
    }

    fn broken(&self, error: &reqwest::Error) -> Trouble {
        if error.is_builder() {
            let failure = Failure::usage("the tracking server's address is none that a request can be made to");
            return Trouble::new(Fault::Malformed, failure.hint("the form is http://host:port"));
        }
        broken(&self.connection, self.bounds.connect, error)
    }

    async fn read(&self, response: &mut Response, most: usize) -> Reply<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&e))? {
            if bytes.len() + chunk.len() > most {
                return Err(Trouble::malformed(&self.connection, format_args!("an answer of over {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// As much of a refusal as is of use; its status counts even where its text breaks off.
    async fn read_start(&self, response: &mut Response) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= MOST_REFUSAL {
                break;
            }
        }
        bytes
    }
}

/// 0.2 to 1 s, then 1 to 5 s.
fn jitter(turn: u32) -> Duration {
    let part = RandomState::new().build_hasher().finish() % 1000;
    let (least, span) = if turn == 1 { (200, 800) } else { (1000, 4000) };
    Duration::from_millis(least + span * part / 1000)
}

fn instant(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// `Retry-After`: seconds, or a date by the server's own clock.
fn wait(text: &str, now: Option<jiff::Timestamp>) -> Option<Duration> {
    match text.trim().parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.min(86_400))),
        Err(_) => Some(Duration::try_from(instant(text)?.duration_since(now?)).unwrap_or_default()),
    }
}
