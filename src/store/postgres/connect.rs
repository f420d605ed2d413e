//! Connections to PostgreSQL.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::config::{ChannelBinding, Host};
use secrecy::ExposeSecret;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::Tls;
use super::{parameters, target_failure, text, tls};
use crate::domain::address::PgAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::harmless;
use crate::engine::cancel::Cancel;
use crate::engine::patience::within;

/// The oldest server that mlops works with.
const OLDEST: i32 = 120_000;

/// Opens connections to one database, all with the same `application_name`, by which this run's sessions are told
/// from others'. All go to the same host and in the same way as the first: of several hosts the others may be behind.
pub struct Postgres {
    /// A host each, in the order of the address; and for a host what is tried one after the other.
    hosts: Vec<Vec<postgres::Config>>,
    /// The one that the server took.
    settled: Mutex<Option<postgres::Config>>,
    session: Session,
    tls: MakeRustlsConnect,
    address: PgAddress,
    cancel: Cancel,
    /// The name of this run's sessions: `mlops/<id>`.
    pub application: String,
}

/// libpq's `target_session_attrs`: which of several servers is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

const SESSIONS: &[(&str, Session)] = &[
    ("any", Session::Any),
    ("read-write", Session::ReadWrite),
    ("read-only", Session::ReadOnly),
    ("primary", Session::Primary),
    ("standby", Session::Standby),
    ("prefer-standby", Session::PreferStandby),
];

impl Session {
    /// Whether a server fits that takes no changes, or is a standby.
    fn takes(self, read_only: bool, standby: bool) -> bool {
        match self {
            Session::Any => true,
            Session::ReadWrite => !read_only,
            Session::ReadOnly => read_only,
            Session::Primary => !standby,
            Session::Standby | Session::PreferStandby => standby,
        }
    }
}

impl Postgres {
    /// Prepares connections to `address` for the run `id`. Does not connect yet.
    ///
    /// # Errors
    /// Configuration: a parameter that means nothing, certificates that cannot be read.
    pub fn new(address: &PgAddress, id: &str, cancel: &Cancel) -> Outcome<Postgres> {
        parameters::check(address)?;
        let application = format!("mlops/{id}");
        let session = word(address, "target_session_attrs", SESSIONS)?.unwrap_or(Session::Any);
        let tls = tls::configure(address)?;
        let hosts = hosts(address, &settings(address, &application)?, &tls)?;
        Ok(Postgres {
            hosts,
            settled: Mutex::new(None),
            session,
            tls: MakeRustlsConnect::new(tls.client),
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
        self.cancel_with(&client);
        Ok(client)
    }

    /// Connects and sets up the session within so long in all, however many hosts and ways there are and wherever the
    /// server falls silent: [`Postgres::connect`] bounds each attempt, but not the questions after it. The thread that
    /// waits for a silent server stays behind.
    ///
    /// # Errors
    /// As [`Postgres::connect`]; and after that time.
    pub fn connect_within(self: &Arc<Self>, limit: Duration) -> Outcome<Client> {
        let own = self.clone();
        within(limit, move || own.connect()).unwrap_or_else(|| {
            Err(self.refused(&format!("no answer within {:.1} s, in all", limit.as_secs_f64()), None))
        })
    }

    /// From here on an interruption cancels the statement that runs on this connection.
    pub fn cancel_with(&self, client: &Client) {
        let token = client.cancel_token();
        let tls = self.tls.clone();
        self.cancel.on_cancel(move || {
            let _ = token.cancel_query(tls.clone());
        });
    }

    /// As [`Postgres::connect`], but an interruption cancels nothing on it: for the session that cleans up.
    ///
    /// # Errors
    /// As [`Postgres::connect`].
    pub fn connect_steady(&self) -> Outcome<Client> {
        tracing::info!(address = %self.address, "connecting");
        let mut client = self.open()?;
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

    /// Connects as the first connection did; the first finds out how.
    fn open(&self) -> Outcome<Client> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = settled.clone() {
            drop(settled);
            return self.one_way(&config).map_err(|refusal| self.refused(&refusal.words, refusal.error.as_ref()));
        }
        let (client, config) = match self.search(self.session) {
            // Only where no standby is found will another server do.
            Err(_) if self.session == Session::PreferStandby => self.search(Session::Any),
            found => found,
        }?;
        *settled = Some(config);
        Ok(client)
    }

    /// The first host that answers and fits. As in libpq, a host that refuses this user ends the search; one that
    /// cannot be reached or only just starts does not.
    fn search(&self, session: Session) -> Outcome<(Client, postgres::Config)> {
        let mut told: Vec<String> = Vec::new();
        let mut last = None;
        for host in self.hosts.iter().flat_map(|host| addresses(host)) {
            let tried = host.and_then(|ways| self.one_host(&ways));
            match tried {
                Ok((mut client, config)) => match unfit(&mut client, session)? {
                    None => return Ok((client, config)),
                    Some(why) => told.push(why),
                },
                Err(Refusal { words, error }) => {
                    let code = error.as_ref().and_then(|e| e.code());
                    if code.is_some_and(|code| code.code() != "57P03") {
                        return Err(self.refused(&words, error.as_ref()));
                    }
                    told.push(words);
                    last = error;
                }
            }
            self.cancel.check()?;
        }
        told.dedup();
        Err(self.refused(&told.join("; "), last.as_ref()))
    }

    /// Connects to one host: with `allow` and `prefer`, what the server refuses in one way is tried in the other.
    fn one_host(&self, ways: &[postgres::Config]) -> Result<(Client, postgres::Config), Refusal> {
        let mut first: Option<Refusal> = None;
        for config in ways {
            match self.one_way(config) {
                Ok(client) => return Ok((client, config.clone())),
                Err(refusal) => {
                    // Where nobody is, or the address is wrong, the other way leads to the same closed door.
                    let same = refusal.error.is_none()
                        || refusal.words.starts_with(UNREACHABLE)
                        || refusal.words.starts_with(MISCONFIGURED);
                    tracing::info!(error = refusal.words, mode = ?config.get_ssl_mode(), "refused");
                    match &mut first {
                        None => first = Some(refusal),
                        Some(first) if first.words != refusal.words => {
                            first.words.push_str(&format!("; the other way: {}", refusal.words));
                        }
                        Some(_) => {}
                    }
                    if same {
                        break;
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| Refusal::said("the address names no host")))
    }

    /// Connects, waiting no longer than `connect_timeout` for the whole of it: the driver's own limit ends with TCP's
    /// part, and a server or a balancer that is stuck answers that and then nothing more.
    fn one_way(&self, config: &postgres::Config) -> Result<Client, Refusal> {
        let limit = config.get_connect_timeout().copied();
        let (send, receive) = mpsc::channel();
        let (tls, config) = (self.tls.clone(), config.clone());
        std::thread::spawn(move || {
            let _ = send.send(config.connect(tls));
        });
        let begun = Instant::now();
        loop {
            match receive.recv_timeout(Duration::from_millis(100)) {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => return Err(Refusal { words: self.unsaid(&text(&error)), error: Some(error) }),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Refusal::said("the driver failed")),
            }
            if let Some(failure) = self.cancel.failure() {
                return Err(Refusal::said(&failure.message));
            }
            if let Some(limit) = limit.filter(|limit| begun.elapsed() > *limit) {
                return Err(Refusal::said(&format!("no answer within {} s", limit.as_secs())));
            }
        }
    }

    /// A refusal without the passwords that were tried: what stands between may repeat them.
    fn unsaid(&self, words: &str) -> String {
        let known = self.address.file_passwords.iter().flatten().chain(&self.address.password);
        harmless::without(words, known.map(ExposeSecret::expose_secret))
    }

    fn refused(&self, words: &str, error: Option<&postgres::Error>) -> Failure {
        let failure = Failure::target(format!("no connection to {}: {words}", self.address));
        let note = self.address.password_note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        match error.and_then(|e| e.code()).map(|c| c.code()) {
            Some("28P01" | "28000") => {
                failure.hint(format!("check user and password; PGPASSWORD and ~/.pgpass are read{note}"))
            }
            Some("3D000") => failure.hint("create the database first: CREATE DATABASE ... ENCODING 'UTF8'"),
            Some("53300") => failure.hint("the server has no connection left: raise max_connections or use --jobs 1"),
            _ if words.contains("password missing") => failure
                .hint(format!("the server wants a password: in the address, in PGPASSWORD or in ~/.pgpass{note}")),
            _ if words.contains("TLS handshake") => {
                failure.hint("check sslmode, sslrootcert and, where the server wants one, sslcert and sslkey")
            }
            _ if words.contains("channel binding") => {
                failure.hint("channel_binding=require needs TLS and scram-sha-256 on the server")
            }
            _ => failure.hint("check host, port and that the server runs and listens there"),
        }
    }
}

/// What a host said.
struct Refusal {
    words: String,
    error: Option<postgres::Error>,
}

impl Refusal {
    fn said(words: &str) -> Refusal {
        Refusal { words: words.to_owned(), error: None }
    }
}

/// A host's ways of connecting, for each of the addresses that its name has.
fn addresses(ways: &[postgres::Config]) -> Vec<Result<Vec<postgres::Config>, Refusal>> {
    let Some(first) = ways.first() else { return Vec::new() };
    let (Some(Host::Tcp(name)), true) = (first.get_hosts().first(), first.get_hostaddrs().is_empty()) else {
        return vec![Ok(ways.to_vec())];
    };
    match (name.as_str(), 0).to_socket_addrs() {
        Err(e) => vec![Err(Refusal::said(&format!("{UNREACHABLE}: {name}: {e}")))],
        Ok(found) => {
            let mut found: Vec<IpAddr> = found.map(|a| a.ip()).collect();
            found.dedup();
            let with = |ip: IpAddr| ways.iter().cloned().map(move |mut way| way.hostaddr(ip).clone()).collect();
            found.into_iter().map(|ip| Ok(with(ip))).collect()
        }
    }
}

/// How the driver's errors begin that another way of connecting does not help against.
const UNREACHABLE: &str = "error connecting to server";
const MISCONFIGURED: &str = "invalid configuration";

/// What all connections have, whatever the host.
fn settings(address: &PgAddress, application: &str) -> Outcome<postgres::Config> {
    let mut config = postgres::Config::new();
    let user = address.user.clone().unwrap_or_else(|| "postgres".to_owned());
    config.dbname(address.database.as_deref().unwrap_or(&user)).user(&user).application_name(application);
    if let Some(options) = address.parameter("options") {
        config.options(options);
    }
    match number(address, "connect_timeout")? {
        // libpq waits for ever by default; nobody who runs this from cron wants that.
        None => config.connect_timeout(Duration::from_secs(10)),
        Some(seconds) if seconds <= 0 => &mut config,
        Some(seconds) => config.connect_timeout(Duration::from_secs(seconds.unsigned_abs().max(2))),
    };
    let milliseconds = number(address, "tcp_user_timeout")?.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()));
    config.tcp_user_timeout(milliseconds.unwrap_or(Duration::from_secs(60)));
    let seconds = |name: &str| {
        let number = number(address, name)?.filter(|s| *s > 0);
        Ok::<_, Failure>(number.map(|s| Duration::from_secs(s.unsigned_abs())))
    };
    config.keepalives(number(address, "keepalives")? != Some(0));
    config.keepalives_idle(seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(30)));
    if let Some(interval) = seconds("keepalives_interval")? {
        config.keepalives_interval(interval);
    }
    if let Some(count) = number(address, "keepalives_count")?.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) {
        config.keepalives_retries(count);
    }
    let binding = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    config.channel_binding(word(address, "channel_binding", &binding)?.unwrap_or(ChannelBinding::Prefer));
    Ok(config)
}

/// For each host the ways of connecting to it.
fn hosts(address: &PgAddress, settings: &postgres::Config, tls: &Tls) -> Outcome<Vec<Vec<postgres::Config>>> {
    let numeric: Vec<&str> =
        address.parameter("hostaddr").filter(|t| !t.is_empty()).map_or(Vec::new(), |t| t.split(',').collect());
    if !numeric.is_empty() && numeric.len() != address.hosts.len() {
        return Err(Failure::configuration(format!(
            "hostaddr has {} addresses for {} hosts",
            numeric.len(),
            address.hosts.len()
        )));
    }
    let mut hosts = Vec::new();
    for (index, (name, port)) in address.hosts.iter().enumerate() {
        let mut config = settings.clone();
        config.host(name).port(port.unwrap_or(5432));
        let numeric = numeric.get(index).filter(|text| !text.is_empty());
        if let Some(text) = numeric {
            let ip: IpAddr =
                text.parse().map_err(|_| Failure::configuration(format!("hostaddr: {text} is not an IP address")))?;
            config.hostaddr(ip);
        }
        let password = address.password.as_ref().or_else(|| address.file_passwords.get(index)?.as_ref());
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        // As in libpq, TLS is not for sockets, whatever the mode.
        let socket = name.starts_with('/') && numeric.is_none();
        let modes = if socket { &[postgres::config::SslMode::Disable] } else { tls.modes };
        let way = |mode: &postgres::config::SslMode| {
            let mut config = config.clone();
            config.ssl_mode(*mode).ssl_negotiation(tls.negotiation);
            config
        };
        hosts.push(modes.iter().map(way).collect());
    }
    Ok(hosts)
}

fn number(address: &PgAddress, name: &str) -> Outcome<Option<i64>> {
    let Some(text) = address.parameter(name).map(str::trim).filter(|t| !t.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Failure::configuration(format!("{name}={text} is not a whole number")))
}

fn word<T: Copy>(address: &PgAddress, name: &str, words: &[(&str, T)]) -> Outcome<Option<T>> {
    let Some(text) = address.parameter(name).filter(|t| !t.is_empty()) else { return Ok(None) };
    let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| Some(*value)).ok_or_else(|| {
        Failure::configuration(format!("{name}={text} is not known")).hint(format!("one of: {}", known()))
    })
}

/// Why a server is not the one that is meant, in libpq's words.
fn unfit(client: &mut Client, session: Session) -> Outcome<Option<String>> {
    if session == Session::Any {
        return Ok(None);
    }
    let (read_only, standby): (bool, bool) = client
        .query_one("SELECT current_setting('transaction_read_only') = 'on', pg_is_in_recovery()", &[])
        .and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .map_err(|e| target_failure("asking what kind of server this is", &e))?;
    if session.takes(read_only, standby) {
        return Ok(None);
    }
    let wanted = SESSIONS.iter().find(|(_, s)| *s == session).map_or("", |(word, _)| *word);
    let is = match (read_only, standby) {
        (_, true) => "the server is a standby",
        (true, false) => "the session is read-only",
        (false, false) => "the server is a primary that takes changes",
    };
    Ok(Some(format!("{is}, and target_session_attrs={wanted} is asked for")))
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
