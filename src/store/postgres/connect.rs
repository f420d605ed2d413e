//! Connections to PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use postgres::Client;
use secrecy::ExposeSecret;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{target_failure, text, tls};
use crate::domain::address::PgAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// The oldest server that mlops works with.
const OLDEST: i32 = 120_000;

/// Opens connections to one database, all with the same `application_name`, by which this run's sessions are told
/// from others'.
pub struct Postgres {
    config: postgres::Config,
    tls: MakeRustlsConnect,
    address: PgAddress,
    cancel: Cancel,
    /// The name of this run's sessions: `mlops/<id>`.
    pub application: String,
}

/// Parameters of libpq and of SQLAlchemy's drivers that change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "channel_binding",
    "passfile",
    "prepared_statement_cache_size",
    "async_fallback",
    "executemany_mode",
    "load_balance_hosts",
];
const WITH_EFFECT: &[&str] =
    &["sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "options", "connect_timeout", "target_session_attrs"];

impl Postgres {
    /// Prepares connections to `address` for the run `id`. Does not connect yet.
    ///
    /// # Errors
    /// Configuration: a parameter that means nothing, certificates that cannot be read.
    pub fn new(address: &PgAddress, id: &str, cancel: &Cancel) -> Outcome<Postgres> {
        let mut config = postgres::Config::new();
        for (key, _) in &address.parameters {
            if !WITH_EFFECT.contains(&key.as_str()) && !WITHOUT_EFFECT.contains(&key.as_str()) {
                return Err(Failure::configuration(format!("the address has a parameter `{key}` that is not known")));
            }
        }
        for (host, port) in &address.hosts {
            config.host(host);
            config.port(port.unwrap_or(5432));
        }
        let user = address.user.clone().unwrap_or_else(|| "postgres".to_owned());
        config.dbname(address.database.as_deref().unwrap_or(&user)).user(&user);
        if let Some(password) = &address.password {
            config.password(password.expose_secret());
        }
        if let Some(options) = address.parameter("options") {
            config.options(options);
        }
        if address.parameter("target_session_attrs").is_some_and(|v| v == "read-write" || v == "primary") {
            config.target_session_attrs(postgres::config::TargetSessionAttrs::ReadWrite);
        }
        let seconds = address.parameter("connect_timeout").and_then(|v| v.parse().ok()).filter(|s| *s > 0);
        config.connect_timeout(Duration::from_secs(seconds.unwrap_or(10)));
        config.tcp_user_timeout(Duration::from_secs(60)).keepalives_idle(Duration::from_secs(30));
        let application = format!("mlops/{id}");
        config.application_name(&application);
        let (mode, client) = tls::configure(address)?;
        config.ssl_mode(mode);
        let client = Arc::unwrap_or_clone(client);
        Ok(Postgres {
            config,
            tls: MakeRustlsConnect::new(client),
            address: address.clone(),
            cancel: cancel.clone(),
            application,
        })
    }

    /// The address, masked.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Connects, with session settings that neither time out nor hide anything. A statement that runs when the command
    /// is interrupted is cancelled.
    ///
    /// # Errors
    /// Target: not reachable, refused, too old. Callers that read turn the kind into Source.
    pub fn connect(&self) -> Outcome<Client> {
        self.cancel.check()?;
        let client = self.connect_steady()?;
        let token = client.cancel_token();
        let tls = self.tls.clone();
        self.cancel.on_cancel(move || {
            let _ = token.cancel_query(tls.clone());
        });
        Ok(client)
    }

    /// As [`Postgres::connect`], but an interruption cancels nothing on it: for the session that cleans up.
    ///
    /// # Errors
    /// As [`Postgres::connect`].
    pub fn connect_steady(&self) -> Outcome<Client> {
        tracing::info!(address = %self.address, "connecting");
        let mut client = self.config.connect(self.tls.clone()).map_err(|error| {
            let failure = Failure::target(format!("no connection to {}: {}", self.address, text(&error)));
            match error.code().map(|c| c.code()) {
                Some("28P01" | "28000") => failure.hint("check user and password; PGPASSWORD and ~/.pgpass are read"),
                Some("3D000") => failure.hint("create the database first: CREATE DATABASE ... ENCODING 'UTF8'"),
                Some("53300") => {
                    failure.hint("the server has no connection left: raise max_connections or use --jobs 1")
                }
                _ => failure.hint("check host, port and that the server runs and listens there"),
            }
        })?;
        let version = server_version(&mut client)?;
        if version < OLDEST {
            return Err(Failure::target(format!("{} is older than PostgreSQL 12", self.address)));
        }
        let mut settings = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                            SET row_security = off; SET standard_conforming_strings = on; SET datestyle = 'ISO, YMD';"
            .to_owned();
        if version >= 140_000 {
            // Without this the server goes on with CREATE INDEX for seconds after its client died, locks held.
            settings.push_str("SET client_connection_check_interval = '1s'; SET idle_session_timeout = 0;");
        }
        if version >= 170_000 {
            settings.push_str("SET transaction_timeout = 0;");
        }
        client.batch_execute(&settings).map_err(|e| target_failure("setting up the session", &e))?;
        Ok(client)
    }
}

/// `server_version_num`.
///
/// # Errors
/// Target: the connection failed.
pub fn server_version(client: &mut Client) -> Outcome<i32> {
    client
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .and_then(|row| row.try_get(0))
        .map_err(|e| target_failure("asking for the server's version", &e))
}
