//! What can go wrong with a server: the fault for programs, the failure for people.

use std::error::Error;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{AlertDescription, CertificateError};
use secrecy::ExposeSecret;
use serde::Deserialize;

use crate::domain::failure::Failure;
use crate::domain::harmless;
use crate::domain::server::{Connection, Credentials};

/// What is wrong, for code that must tell one from the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No connection: no such host, nobody listening, cut before an answer.
    Connect,
    /// No answer in time.
    Timeout,
    /// TLS could not be agreed on.
    Tls,
    /// 401: no credentials, or wrong ones.
    Unauthorized,
    /// 403: the user may not do this.
    Forbidden,
    /// 403: MLflow does not answer to this host name.
    HostRefused,
    /// The route is not there: a wrong address, a missing prefix, or a release that does not know it.
    NotFound,
    /// MLflow refused, with its `error_code`.
    Api {
        /// `RESOURCE_DOES_NOT_EXIST` and the like.
        code: String,
    },
    /// A status of 500 or above, or 429.
    Server(u16),
    /// An answer that is not MLflow's.
    Malformed,
}

impl Fault {
    /// Whether it leaves open what became of the call: what fails, or says nothing, may have done it all the same.
    pub fn leaves_open(&self) -> bool {
        matches!(self, Fault::Connect | Fault::Timeout | Fault::Server(_) | Fault::Malformed)
    }
}

/// A fault with its words.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// For code.
    pub fault: Fault,
    /// For people; its kind decides the exit code.
    pub failure: Failure,
    /// How long it took to fail, the last try.
    pub took: Duration,
    /// Whether asking again may help.
    pub(super) again: bool,
    /// When the server wants to be asked again.
    pub(super) after: Option<Duration>,
}

/// The result of a call.
pub type Reply<T> = Result<T, Trouble>;

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        trouble.failure
    }
}

impl Trouble {
    pub(super) fn new(fault: Fault, failure: Failure) -> Trouble {
        Trouble { fault, failure, took: Duration::ZERO, again: false, after: None }
    }

    /// A request that could not be made.
    pub fn unasked(failure: Failure) -> Trouble {
        Trouble::new(Fault::Malformed, failure)
    }

    pub(super) fn malformed(connection: &Connection, what: impl std::fmt::Display) -> Trouble {
        let what = clip(connection, &what.to_string());
        let failure = Failure::unreachable(format!("{}: {what}", connection.address));
        Trouble::new(Fault::Malformed, failure.hint("is this address an MLflow tracking server's?"))
    }

    /// No answer within the bound.
    pub(super) fn late(connection: &Connection, bound: Duration) -> Trouble {
        let failure = Failure::unreachable(format!("{}: no answer within {}", connection.address, seconds(bound)));
        Trouble::new(Fault::Timeout, failure)
    }

    /// Whether MLflow says that the thing is not there.
    pub fn is_absent(&self) -> bool {
        matches!(&self.fault, Fault::Api { code } if code == "RESOURCE_DOES_NOT_EXIST")
    }
}

/// `None` where MLflow says that the thing is not there.
pub(super) fn present<T>(reply: Reply<T>) -> Reply<Option<T>> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(trouble) if trouble.is_absent() => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// The same for a route that not every release has.
pub(super) fn known<T>(reply: Reply<T>) -> Reply<Option<T>> {
    match present(reply) {
        Err(trouble) if trouble.fault == Fault::NotFound => Ok(None),
        other => other,
    }
}

fn seconds(bound: Duration) -> String {
    format!("{} s", (bound.as_secs_f64() * 10.0).round() / 10.0)
}

/// A request that got no answer.
pub(super) fn broken(connection: &Connection, connect: Duration, error: &reqwest::Error) -> Trouble {
    if let Some(error) = tls_error(error) {
        return tls(connection, &error);
    }
    let address = &connection.address;
    if error.is_connect() && error.is_timeout() {
        let failure = Failure::unreachable(format!("{address}: no connection within {}", seconds(connect)));
        return Trouble::new(Fault::Timeout, failure);
    }
    let mut reason: &dyn Error = error;
    while let Some(cause) = reason.source() {
        reason = cause;
    }
    let failure = Failure::unreachable(format!("{address}: {}", clip(connection, &reason.to_string())));
    let failure = if error.is_connect() {
        failure.hint("is the server running, and is this its address? (MLFLOW_TRACKING_URI, --tracking-uri)")
    } else if !address.secure {
        failure.hint("if the server speaks TLS, its address begins with https://")
    } else {
        // Some servers say nothing else to a client without a certificate.
        failure.hint("a server that asks for a certificate hangs up like this: MLFLOW_TRACKING_CLIENT_CERT_PATH=FILE")
    };
    Trouble { again: true, ..Trouble::new(Fault::Connect, failure) }
}

/// rustls' own error, wherever it is wrapped: `io::Error` hides its content from `source()`.
fn tls_error(error: &reqwest::Error) -> Option<rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| inner.and_then(|e| e.downcast_ref::<rustls::Error>()));
        if found.is_some() {
            return found.cloned();
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn tls(connection: &Connection, error: &rustls::Error) -> Trouble {
    let (address, host) = (&connection.address, &connection.address.host);
    let (what, hint) = match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "its certificate is not from an authority that is known here".to_owned(),
                "MLFLOW_TRACKING_SERVER_CERT_PATH=FILE names the authority's certificate (PEM)",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                format!("its certificate is not for the name {host}"),
                "use a name that stands in the certificate, or have one made for this name",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("its certificate has expired".to_owned(), "the server needs a new certificate")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("its certificate is not valid yet".to_owned(), "is the clock of this machine right?")
            }
            // One that signs itself.
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
                "its certificate is its own authority, which is not known here".to_owned(),
                "MLFLOW_TRACKING_SERVER_CERT_PATH=FILE names that certificate (PEM)",
            ),
            other => (format!("its certificate is not taken: {other}"), "the server needs another certificate"),
        },
        rustls::Error::AlertReceived(alert) if wants_certificate(*alert) => (
            format!("the server refuses this client's certificate, or the lack of one ({alert:?})"),
            "MLFLOW_TRACKING_CLIENT_CERT_PATH=FILE names a PEM file with certificate and key",
        ),
        rustls::Error::InvalidMessage(_) => {
            ("what answers does not speak TLS".to_owned(), "without TLS the address begins with http://")
        }
        other => (format!("TLS: {other}"), "MLFLOW_TRACKING_SERVER_CERT_PATH and _CLIENT_CERT_PATH name certificates"),
    };
    Trouble::new(Fault::Tls, Failure::unreachable(format!("{address}: {what}")).hint(hint))
}

fn wants_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    let of_clients = [
        A::CertificateRequired,
        A::BadCertificate,
        A::UnsupportedCertificate,
        A::CertificateRevoked,
        A::CertificateExpired,
        A::CertificateUnknown,
        A::UnknownCA,
        A::AccessDenied,
        A::HandshakeFailure,
    ];
    of_clients.contains(&alert)
}

/// An answer that is no success, as it came.
pub(super) struct Refused<'a> {
    pub(super) status: u16,
    pub(super) path: &'a str,
    pub(super) location: Option<&'a str>,
    pub(super) after: Option<Duration>,
    pub(super) body: &'a [u8],
}

#[derive(Deserialize)]
struct Told {
    error_code: serde_json::Value,
    #[serde(default)]
    message: String,
}

/// What such an answer means.
pub(super) fn refused(connection: &Connection, answer: &Refused<'_>) -> Trouble {
    let address = &connection.address;
    let text = String::from_utf8_lossy(answer.body);
    let told: Option<Told> = serde_json::from_slice(answer.body).ok();
    let code = told.as_ref().map(|t| t.error_code.as_str().map_or_else(|| t.error_code.to_string(), str::to_owned));
    let said = match (&told, &code) {
        (Some(told), Some(code)) => format!("{}: {}", clip(connection, code), clip(connection, &told.message)),
        _ if text.trim_start().starts_with('<') => "a web page".to_owned(),
        _ => clip(connection, &text),
    };
    let status = answer.status;
    let about = |what: &str| format!("{address}: {what} ({status}, {said})");
    let (fault, failure) = match (status, code.as_deref()) {
        (401, _) => (
            Fault::Unauthorized,
            Failure::configuration(format!("{address}: the server asks who this is (401)"))
                .hint(credentials(connection)),
        ),
        (403, _) if text.contains("Invalid Host header") => (
            Fault::HostRefused,
            Failure::unreachable(format!("{address}: the server does not answer to the name {}", address.host)).hint(
                format!(
                    "MLflow 3.5 on answers to localhost only, until `mlflow server --allowed-hosts` \
                     (MLFLOW_SERVER_ALLOWED_HOSTS) lists {}",
                    address.base().split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(rest))
                ),
            ),
        ),
        (403, _) => (
            Fault::Forbidden,
            Failure::configuration(about("this user may not do that"))
                .hint(format!("credentials come from {}", connection.credentials_from)),
        ),
        (_, Some("FEATURE_DISABLED")) if connection.workspace.is_some() => (
            Fault::Api { code: "FEATURE_DISABLED".to_owned() },
            Failure::configuration(about("the server has no workspaces"))
                .hint("unset MLFLOW_WORKSPACE, MLOPS_WORKSPACE and the setting workspace"),
        ),
        (503, None) if text.contains("--no-serve-artifacts") => (
            Fault::NotFound,
            Failure::unreachable(format!("{address}: the server passes no artifacts on"))
                .hint("it runs with --no-serve-artifacts: artifacts are reached in their own store"),
        ),
        (404, None | Some("ENDPOINT_NOT_FOUND")) => (
            Fault::NotFound,
            Failure::unreachable(about(&format!("there is no {}", answer.path))).hint(
                "is the address right, with the prefix of `mlflow server --static-prefix`? Or this release of MLflow \
                 does not know the route",
            ),
        ),
        (300..=399, _) => {
            let to = answer.location.map_or("elsewhere", |l| l.split(['?', '#']).next().unwrap_or(l));
            let failure =
                Failure::unreachable(format!("{address}: the server sends us to {} ({status})", clip(connection, to)));
            (Fault::Malformed, failure.hint("give that address as the tracking server's, if it is one"))
        }
        (429 | 500.., _) => (Fault::Server(status), Failure::unreachable(about("the server failed"))),
        (_, Some(code)) => (Fault::Api { code: code.to_owned() }, Failure::target(about("the server refuses"))),
        _ => (Fault::Malformed, Failure::unreachable(about("an answer that is not MLflow's"))),
    };
    let again = fault == Fault::Server(status) && [429, 502, 503, 504].contains(&status);
    Trouble { again, after: answer.after, ..Trouble::new(fault, failure) }
}

fn credentials(connection: &Connection) -> String {
    let from = &connection.credentials_from;
    match &connection.credentials {
        Credentials::None => format!(
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN (credentials come \
             from {from})"
        ),
        Credentials::Basic { user, .. } => format!(
            "user {user} and the password come from {from}; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
             MLFLOW_TRACKING_TOKEN, say who asks"
        ),
        Credentials::Bearer(_) => {
            format!("the token comes from {from}; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD go before it")
        }
    }
}

/// A server's words, as much as fits a line, and not what it was sent to know who asks: proxies, and servers that are
/// debugged, repeat that.
fn clip(connection: &Connection, text: &str) -> String {
    const MOST: usize = 300;
    let text = match &connection.credentials {
        Credentials::None => text.to_owned(),
        Credentials::Bearer(token) => harmless::without(text, [token.expose_secret()]),
        Credentials::Basic { user, password } => {
            let password = password.expose_secret();
            let coded = STANDARD.encode(format!("{user}:{password}"));
            harmless::without(text, [coded.as_str(), password])
        }
    };
    let text = harmless::masked(&text);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(MOST) {
        words.truncate(at);
        words.push_str(" ...");
    }
    words
}
