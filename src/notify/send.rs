//! One small message over HTTP: bounded in time, tried again where that can do no harm.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, NoProxy, Proxy, Response, Url};
use secrecy::{ExposeSecret, SecretString};

use super::address::SecretAddress;
use crate::TOOL;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::harmless::{line, short};

/// One message with all its tries.
const IN_ALL: Duration = Duration::from_secs(10);
/// One try: an answer that hangs leaves time for another.
const A_TRY: Duration = Duration::from_secs(4);
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// So much of an answer is read.
const ANSWER: usize = 512;

/// Sends messages. Its calls block, and may be made from any thread: the work is done on one of its own.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    in_all: Duration,
    a_try: Duration,
}

/// What is sent.
pub(super) struct Message<'a> {
    pub(super) to: &'a SecretAddress,
    /// The address with what this message adds to it.
    pub(super) url: Url,
    pub(super) content: &'static str,
    pub(super) body: String,
    /// The other side knows a repeated message as such, so one that may have arrived can be sent again.
    pub(super) repeatable: bool,
}

enum Fault {
    /// It did not arrive, or the other side wants it again later.
    Again(String, Option<Duration>),
    /// It may have arrived.
    Lost(String),
    /// It was refused.
    Refused(String),
}

impl Sender {
    /// A sender with this view of TLS, and this proxy (but for those hosts, as `NO_PROXY` lists them) or none: the
    /// environment is not asked.
    ///
    /// # Errors
    /// Configuration: the proxy's address is none. Internal: no client can be made.
    pub fn new(tls: rustls::ClientConfig, proxy: Option<(&SecretString, Option<&str>)>) -> Outcome<Sender> {
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(TOOL)
            // A redirected POST becomes a GET without its text, and a key goes to another host.
            .redirect(Policy::none())
            .no_proxy();
        if let Some((address, except)) = proxy {
            let proxy = Proxy::all(address.expose_secret())
                .map_err(|_| Failure::configuration("the address of the proxy is none"))?;
            client = client.proxy(proxy.no_proxy(except.and_then(NoProxy::from_string)));
        }
        let client = client.build().map_err(|e| Failure::internal(format!("no HTTP client: {}", last(&e))))?;
        Ok(Sender { client, in_all: IN_ALL, a_try: A_TRY })
    }

    /// The same with other times: for a message with all its tries, and for one try.
    #[must_use]
    pub fn patience(mut self, in_all: Duration, a_try: Duration) -> Sender {
        (self.in_all, self.a_try) = (in_all, a_try);
        self
    }

    /// Sends it and gives the beginning of the answer.
    ///
    /// # Errors
    /// Unreachable: not delivered in time. Target: refused.
    pub(super) fn send(&self, message: &Message<'_>) -> Outcome<String> {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Failure::internal(format!("no runtime for HTTP: {e}")))?;
            let answer = runtime.block_on(self.deliver(message));
            // A look-up of a name that hangs cannot be stopped; it is not waited for.
            runtime.shutdown_background();
            answer
        };
        let done = std::thread::scope(|scope| scope.spawn(work).join());
        done.unwrap_or_else(|_| Err(Failure::internal("the thread that sends ended by itself")))
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome<String> {
        let end = Instant::now() + self.in_all;
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let left = end.saturating_duration_since(Instant::now());
            let (why, wanted) = match self.once(message, left.min(self.a_try)).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Refused(why)) => return Err(Failure::target(format!("{}: {why}", message.to))),
                Err(Fault::Lost(why)) if !message.repeatable => {
                    return Err(Failure::unreachable(format!("{}: {why}; it may have arrived", message.to)));
                }
                Err(Fault::Lost(why)) => (why, None),
                Err(Fault::Again(why, wanted)) => (why, wanted),
            };
            let wait = wanted.unwrap_or(pause);
            if tries == TRIES || end.saturating_duration_since(Instant::now()) <= wait {
                let times = if tries == 1 { "tried once".to_owned() } else { format!("tried {tries} times") };
                return Err(Failure::unreachable(format!("{}: {why} ({times})", message.to)));
            }
            tokio::time::sleep(wait).await;
            pause *= 4;
        }
    }

    async fn once(&self, message: &Message<'_>, at_most: Duration) -> Result<String, Fault> {
        let request = self.client.post(message.url.clone()).timeout(at_most);
        let request = request.header(CONTENT_TYPE, message.content).body(message.body.clone());
        let response = request.send().await.map_err(|e| fault(&e))?;
        let status = response.status();
        let wanted = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let answer = beginning(response).await;
        let why = match word(&answer) {
            Some(word) => format!("answered {status}: {word}"),
            None => format!("answered {status}"),
        };
        match status.as_u16() {
            200..=299 => Ok(answer),
            300..=399 => Err(Fault::Refused(format!("{why}; it has moved, and redirects are not followed"))),
            408 | 429 | 500..=599 => Err(Fault::Again(why, wanted.map(Duration::from_secs))),
            _ => Err(Fault::Refused(why)),
        }
    }
}

/// The beginning of an answer; what does not come in time is not missed.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend(chunk.iter().take(ANSWER - bytes.len()));
        if bytes.len() == ANSWER {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer of a few words, such as `no_service`. A page may repeat the address, which is a secret.
fn word(answer: &str) -> Option<String> {
    let answer = answer.trim();
    let plain = |c: char| c.is_ascii_alphabetic() || "_ ()".contains(c);
    (!answer.is_empty() && answer.len() <= 60 && answer.chars().all(plain)).then(|| line(answer))
}

/// The address never stands in it: reqwest's own words, which name it, are left out.
fn fault(error: &reqwest::Error) -> Fault {
    if error.is_connect() {
        let why = if error.is_timeout() { "it takes no connection in time".to_owned() } else { last(error) };
        return Fault::Again(format!("no connection: {why}"), None);
    }
    if error.is_timeout() {
        return Fault::Lost("no answer in time".to_owned());
    }
    Fault::Lost(format!("the connection broke: {}", last(error)))
}

/// The innermost reason.
fn last(error: &reqwest::Error) -> String {
    let mut reason: Option<&dyn Error> = error.source();
    let mut depth = 0;
    while let Some(inner) = reason.and_then(|r| r.source()).filter(|_| depth < 16) {
        reason = Some(inner);
        depth += 1;
    }
    reason.map_or("no reason is given".to_owned(), |r| short(&r.to_string(), 160))
}
