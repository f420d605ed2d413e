//! The server itself: whether it lives, what it is, the certificate it shows.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use reqwest::tls::TlsInfo;
use x509_cert::der::Decode;

use super::fault::{Fault, Reply, Trouble, broken, known};
use super::send::{self, Ask};
use super::{Answer, Bounds, Client, trust, wire};
use crate::domain::failure::Outcome;
use crate::domain::server::Connection;
use crate::domain::tracking::ServerInfo;

/// A certificate that a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// For whom it was made, as its subject says.
    pub subject: String,
}

impl Client {
    /// `/health`: the process lives. It says so of its web server only, with the database gone too.
    ///
    /// # Errors
    /// Any fault.
    pub async fn live(&self) -> Reply<Answer<String>> {
        self.text("/health").await
    }

    /// The release: `3.17.2`.
    ///
    /// # Errors
    /// Any fault; malformed: an answer that is no version.
    pub async fn version(&self) -> Reply<Answer<String>> {
        let answer = self.text("/version").await?;
        if answer.value.starts_with(|c: char| c.is_ascii_digit()) && answer.value.len() < 100 {
            Ok(answer)
        } else {
            Err(Trouble::malformed(self.connection(), "/version tells no version"))
        }
    }

    /// What the server says of itself; `None` where the release says nothing.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn server_info(&self) -> Reply<Option<ServerInfo>> {
        let got = known(self.ask::<wire::ServerInfo>(&Ask::plain("/api/3.0/mlflow/server-info")).await)?;
        Ok(got.map(|a| a.value.into()))
    }

    async fn text(&self, path: &str) -> Reply<Answer<String>> {
        let ask = Ask::plain(path);
        let Answer { value, exchange } = match self.bytes(&ask).await {
            // Releases up to 3.4 at least keep these two out of their static prefix, as they do with `/api/`.
            Err(trouble) if trouble.fault == Fault::NotFound && !self.connection.address.prefix.is_empty() => {
                let mut connection = Connection::clone(&self.connection);
                connection.address.prefix.clear();
                let root = Client { connection: Arc::new(connection), ..self.clone() };
                root.bytes(&ask).await.map_err(|_| trouble)?
            }
            other => other?,
        };
        Ok(Answer { value: String::from_utf8_lossy(&value).trim().to_owned(), exchange })
    }
}

/// The certificate that the server shows, whether it is to be believed or not; `None` without TLS. No credentials are
/// sent.
///
/// # Errors
/// Any fault of the connection; an answer of any status will do.
pub async fn certificate(connection: &Connection, bounds: Bounds) -> Reply<Option<Certificate>> {
    if !connection.address.secure {
        return Ok(None);
    }
    let begun = Instant::now();
    let http = transport(connection, bounds).map_err(|f| Trouble::new(Fault::Tls, f))?;
    let request = http.get(format!("{}/health", connection.address.base())).send();
    let response = match tokio::time::timeout(bounds.call, request).await {
        Ok(response) => response.map_err(|e| broken(connection, bounds.connect, &e)),
        Err(_) => Err(Trouble::late(connection, bounds.call)),
    };
    let response = response.map_err(|trouble| Trouble { took: begun.elapsed(), ..trouble })?;
    let der = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    der.and_then(read).map(Some).ok_or_else(|| Trouble::malformed(connection, "its certificate cannot be read"))
}

fn transport(connection: &Connection, bounds: Bounds) -> Outcome<reqwest::Client> {
    send::transport(connection, bounds, trust::configure(connection, true)?, true)
}

fn read(der: &[u8]) -> Option<Certificate> {
    let tbs = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
    let seconds = tbs.validity.not_after.to_unix_duration().as_secs();
    let not_after = Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(Certificate { not_after, subject: tbs.subject.to_string() })
}
