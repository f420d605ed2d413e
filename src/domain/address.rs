//! Addresses of stores, as operators paste them: a path, `sqlite:///rel.db`, `postgresql://...` and SQLAlchemy's
//! forms of both. An address is printed with its password masked, always.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretString;

use crate::domain::failure::{Failure, Outcome};

/// Where a store lives.
#[derive(Debug, Clone)]
pub enum StoreAddress {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PgAddress>),
    /// An archive; `-` is the pipe.
    Archive(PathBuf),
}

/// The parts of a `postgresql://` address. What is `None` or empty is filled from libpq's environment variables.
#[derive(Debug, Clone, Default)]
pub struct PgAddress {
    /// Host names, addresses, or folders of Unix sockets, each with its port where one is given.
    pub hosts: Vec<(String, Option<u16>)>,
    /// Role.
    pub user: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// Database.
    pub database: Option<String>,
    /// The rest: `sslmode`, `sslrootcert`, `options`, `connect_timeout` ...
    pub parameters: Vec<(String, String)>,
    /// What the password file says, host by host; it counts where `password` is `None`.
    pub file_passwords: Vec<Option<SecretString>>,
    /// What is to be known of the password file when a server refuses.
    pub password_note: Option<String>,
    /// The system's own bundle of authorities, where the environment names it (`SSL_CERT_FILE`).
    pub system_roots: Option<PathBuf>,
}

impl StoreAddress {
    /// Parses what an operator typed or pasted.
    ///
    /// # Errors
    /// Usage: an engine that is not served, a server's address, or a form that means nothing.
    pub fn parse(text: &str) -> Outcome<StoreAddress> {
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.is_empty() {
                return Err(Failure::usage("the address of a store is empty"));
            }
            // Not repeated in the message: it may hold a password.
            let scheme = text.strip_prefix("postgresql").or_else(|| text.strip_prefix("postgres")).unwrap_or_default();
            let userinfo = text.split_once('@').is_some_and(|(before, _)| before.contains(':'));
            if scheme.starts_with(':') || scheme.starts_with("//") || text.contains("password=") || userinfo {
                return Err(Failure::usage("this looks like a database's address, but is none that is understood")
                    .hint("the form is postgresql://user:password@host:port/database"));
            }
            return Ok(StoreAddress::Sqlite(PathBuf::from(text)));
        };
        // SQLAlchemy writes dialect+driver; the driver does not matter here.
        match scheme.split('+').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "sqlite" => sqlite(rest),
            "postgresql" | "postgres" => Ok(StoreAddress::Postgres(Box::new(postgres(rest)?))),
            "http" | "https" => Err(Failure::usage("this is a server's address, and a database's address is needed")
                .hint("give what `mlflow server --backend-store-uri` got: sqlite:///mlflow.db or postgresql://...")),
            "file" => Err(Failure::usage("`file://` is MLflow's file store, which is not a database")
                .hint("`mlflow migrate-filestore` of MLflow 3.x turns a file store into a SQLite database")),
            other => Err(Failure::usage(format!("the engine `{}` is not served", printable(other)))
                .hint("mlops works with SQLite and PostgreSQL")),
        }
    }

    /// The word for the engine.
    pub fn engine(&self) -> &'static str {
        match self {
            StoreAddress::Sqlite(_) => "sqlite",
            StoreAddress::Postgres(_) => "postgresql",
            StoreAddress::Archive(_) => "archive",
        }
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn sqlite(rest: &str) -> Outcome<StoreAddress> {
    let path = rest.split('?').next().unwrap_or_default();
    // sqlite:///relative and sqlite:////absolute: the third slash ends an empty host.
    let Some(path) = path.strip_prefix('/') else {
        return Err(Failure::usage(
            "a SQLite address has three slashes before a relative path, four before an absolute",
        )
        .hint("sqlite:///mlflow.db or sqlite:////srv/mlflow/mlflow.db"));
    };
    if path.is_empty() || path == ":memory:" {
        return Err(Failure::usage("an in-memory SQLite database cannot be reached from here"));
    }
    if path.starts_with("file:") {
        return Err(Failure::usage("SQLite's `file:` URI form is not taken").hint("give the path of the file"));
    }
    Ok(StoreAddress::Sqlite(PathBuf::from(path)))
}

fn decoded(text: &str) -> Outcome<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|t| t.into_owned())
        .map_err(|_| Failure::usage("the address holds a percent-encoded part that is not UTF-8"))
}

fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

fn postgres(rest: &str) -> Outcome<PgAddress> {
    let mut address = PgAddress::default();
    let authority = match userinfo_end(rest) {
        Some(at) => {
            let (userinfo, after) = (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default());
            let (user, password) = match userinfo.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (userinfo, None),
            };
            address.user = some(decoded(user)?);
            address.password = password.map(decoded).transpose()?.map(SecretString::from);
            after
        }
        None => rest,
    };
    let (before_query, query) = authority.split_once('?').unwrap_or((authority, ""));
    let (hosts, database) = before_query.split_once('/').unwrap_or((before_query, ""));
    if database.contains('@') {
        return Err(Failure::usage("the address has a `@` in the name of its database")
            .hint("a `/`, `@`, `?` or `#` in the password is written %2F, %40, %3F, %23"));
    }
    address.database = some(decoded(database)?);
    address.hosts = host_list(hosts)?;
    let mut query_hosts = String::new();
    let mut query_port = String::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decoded(key)?, decoded(&value.replace('+', "%20"))?);
        match key.as_str() {
            "host" => query_hosts = value,
            "port" => query_port = value,
            "user" => address.user = some(value),
            "password" => address.password = Some(SecretString::from(value)),
            "dbname" => address.database = some(value),
            // JDBC's and asyncpg's word, and that of libpq before there were modes.
            "ssl" => address
                .parameters
                .push(("sslmode".to_owned(), if value == "true" { "require".to_owned() } else { value })),
            "requiressl" => {
                let mode = if value.starts_with('1') { "require" } else { "prefer" };
                address.parameters.push(("sslmode".to_owned(), mode.to_owned()));
            }
            _ => address.parameters.push((key, value)),
        }
    }
    if !query_hosts.is_empty() {
        // Decoded already: a socket folder's slashes are no separators any more.
        address.hosts = query_hosts.split(',').map(one_host).collect::<Outcome<_>>()?;
    }
    if !query_port.is_empty() {
        address.ports(&query_port)?;
    }
    Ok(address)
}

/// Where the user part ends: the last `@` of the first run that holds one. SQLAlchemy takes a `/` in a password as
/// it is, and people paste passwords with an `@` that is not encoded.
fn userinfo_end(rest: &str) -> Option<usize> {
    let first = rest.find('@')?;
    // An `@` inside the query belongs to a parameter.
    if rest.find('?').is_some_and(|q| q < first && !rest.get(..q).unwrap_or_default().contains(':')) {
        return None;
    }
    let run_end = rest.get(first..).and_then(|r| r.find(['/', '?'])).map_or(rest.len(), |i| first + i);
    rest.get(..run_end).and_then(|run| run.rfind('@'))
}

fn host_list(hosts: &str) -> Outcome<Vec<(String, Option<u16>)>> {
    hosts.split(',').filter(|h| !h.is_empty()).map(|h| one_host(&decoded(h)?)).collect()
}

fn one_host(text: &str) -> Outcome<(String, Option<u16>)> {
    if text.starts_with('/') {
        return Ok((text.to_owned(), None));
    }
    if let Some((address, after)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        return Ok((address.to_owned(), after.strip_prefix(':').map(port).transpose()?.flatten()));
    }
    match text.rsplit_once(':') {
        // More than one colon and no brackets: a bare IPv6 address.
        Some((host, _)) if host.contains(':') => Ok((text.to_owned(), None)),
        Some((host, number)) => Ok((host.to_owned(), port(number)?)),
        None => Ok((text.to_owned(), None)),
    }
}

fn port(text: &str) -> Outcome<Option<u16>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<u16>()
        .ok()
        .filter(|p| *p > 0)
        .map(Some)
        .ok_or_else(|| Failure::usage("the port in the address is not a number from 1 to 65535"))
}

const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const QUOTED_PATH: &AsciiSet = &QUOTED.remove(b'/');

impl PgAddress {
    /// Gives the hosts that have no port theirs from a list with one port for all or one for each.
    ///
    /// # Errors
    /// Usage: not ports, or not as many as there are hosts.
    pub fn ports(&mut self, list: &str) -> Outcome<()> {
        let ports = list.split(',').map(|p| port(p.trim())).collect::<Outcome<Vec<Option<u16>>>>()?;
        if self.hosts.is_empty() {
            self.hosts = vec![(String::new(), None); ports.len()];
        }
        if ports.len() != 1 && ports.len() != self.hosts.len() {
            return Err(Failure::usage(format!("{} ports do not fit {} hosts", ports.len(), self.hosts.len())));
        }
        for (host, port) in self.hosts.iter_mut().zip(ports.iter().cycle()) {
            host.1 = host.1.or(*port);
        }
        Ok(())
    }

    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for PgAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |t: &str| utf8_percent_encode(t, QUOTED).to_string();
        f.write_str("postgresql://")?;
        if self.user.is_some() || self.password.is_some() {
            write!(f, "{}", quote(self.user.as_deref().unwrap_or_default()))?;
            if self.password.is_some() {
                f.write_str(":***")?;
            }
            f.write_str("@")?;
        }
        let mut parameters: Vec<String> = Vec::new();
        let mut authority = String::new();
        if self.hosts.iter().any(|(host, _)| host.starts_with('/')) {
            // A socket's folder can only stand in a parameter, and then all hosts do.
            let hosts: Vec<String> =
                self.hosts.iter().map(|(host, _)| utf8_percent_encode(host, QUOTED_PATH).to_string()).collect();
            parameters.push(format!("host={}", hosts.join(",")));
            if self.hosts.iter().any(|(_, port)| port.is_some()) {
                let ports: Vec<String> = self.hosts.iter().map(|(_, port)| port.unwrap_or(5432).to_string()).collect();
                parameters.push(format!("port={}", ports.join(",")));
            }
        } else {
            let hosts = self.hosts.iter().map(|(host, port)| {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                port.map_or(host.clone(), |p| format!("{host}:{p}"))
            });
            authority = hosts.collect::<Vec<String>>().join(",");
        }
        write!(f, "{authority}/{}", quote(self.database.as_deref().unwrap_or_default()))?;
        for (key, value) in &self.parameters {
            let secret = key.contains("password") || key.contains("key") || key.contains("token");
            parameters.push(format!("{}={}", quote(key), if secret { "***".to_owned() } else { quote(value) }));
        }
        if !parameters.is_empty() {
            write!(f, "?{}", parameters.join("&"))?;
        }
        Ok(())
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreAddress::Sqlite(path) => write!(f, "{}", shown(path)),
            StoreAddress::Postgres(address) => address.fmt(f),
            StoreAddress::Archive(path) if path.as_os_str() == "-" => f.write_str("the pipe"),
            StoreAddress::Archive(path) => write!(f, "{}", shown(path)),
        }
    }
}

/// A path for people, without control characters that would disturb a terminal.
pub fn shown(path: &Path) -> String {
    path.display().to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn pg(text: &str) -> PgAddress {
        match StoreAddress::parse(text).expect(text) {
            StoreAddress::Postgres(address) => *address,
            other => panic!("{text} became {other:?}"),
        }
    }

    #[test]
    fn sqlite_addresses_are_paths() {
        for (text, path) in [
            ("mlflow.db", "mlflow.db"),
            ("/srv/mlflow.db", "/srv/mlflow.db"),
            ("sqlite:///mlflow.db", "mlflow.db"),
            ("sqlite:////srv/mlflow.db?timeout=30", "/srv/mlflow.db"),
            ("sqlite+pysqlite:////srv/a b.db", "/srv/a b.db"),
        ] {
            match StoreAddress::parse(text) {
                Ok(StoreAddress::Sqlite(found)) => assert_eq!(found, PathBuf::from(path), "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_store_is_refused_with_a_word_on_what_to_give() {
        for text in [
            "host=db user=ml password=hunter2",
            "postgresql:/u:hunter2@h/d",
            "postgresql//ml:hunter2@h/d",
            "u:hunter2@host/db",
            "postgresql://ml:p@ss/hunter2@localhost/db",
        ] {
            let failure = StoreAddress::parse(text).expect_err(text);
            assert!(!format!("{failure:?}").contains("hunter2"), "{text}: {failure:?}");
        }
        for text in
            ["", "sqlite://", "sqlite:///:memory:", "http://localhost:5000", "mysql+pymysql://u@h/d", "file:///m"]
        {
            let failure = StoreAddress::parse(text).expect_err(text);
            assert_eq!(failure.kind, crate::domain::failure::Kind::Usage, "{text}");
        }
    }

    #[test]
    fn sqlalchemy_forms_of_postgresql_are_one_address() {
        for text in [
            "postgresql://ml:p%40ss@db:5433/mlflow?sslmode=require",
            "postgresql+psycopg2://ml:p%40ss@db:5433/mlflow?sslmode=require",
            "postgres://ml:p@ss@db:5433/mlflow?sslmode=require",
            "postgresql+asyncpg://ml:p%40ss@db:5433/mlflow?sslmode=require",
        ] {
            let address = pg(text);
            assert_eq!(address.hosts, [("db".to_owned(), Some(5433))], "{text}");
            assert_eq!(address.user.as_deref(), Some("ml"));
            assert_eq!(address.password.as_ref().map(|p| p.expose_secret()), Some("p@ss"));
            assert_eq!(address.database.as_deref(), Some("mlflow"));
            assert_eq!(address.parameter("sslmode"), Some("require"));
        }
    }

    #[test]
    fn older_words_for_sslmode() {
        for (text, mode) in [("ssl=true", "require"), ("ssl=verify-ca", "verify-ca"), ("requiressl=0", "prefer")] {
            assert_eq!(pg(&format!("postgresql://h/d?{text}")).parameter("sslmode"), Some(mode), "{text}");
        }
    }

    #[test]
    fn sockets_and_several_hosts() {
        assert_eq!(pg("postgresql:///d?host=/run/pg&port=5433").hosts, [("/run/pg".to_owned(), Some(5433))]);
        assert_eq!(pg("postgresql://%2Frun%2Fpg/d").hosts, [("/run/pg".to_owned(), None)]);
        assert_eq!(pg("postgresql://a:1,b/d").hosts, [("a".to_owned(), Some(1)), ("b".to_owned(), None)]);
        assert_eq!(pg("postgresql://[::1]:5432/d").hosts, [("::1".to_owned(), Some(5432))]);
        assert!(pg("postgresql:///d").hosts.is_empty());
        let two = [("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))];
        assert_eq!(pg("postgresql:///d?host=a,b&port=1,2").hosts, two);
        assert!(StoreAddress::parse("postgresql://a,b,c/d?port=1,2").is_err());
    }

    #[test]
    fn no_password_is_ever_printed() {
        for text in [
            "postgresql://ml:hunter2@db/m",
            "postgresql://ml@db/m?password=hunter2",
            "postgresql://ml:hun/hunter2@db/m",
            "postgresql://ml:x@hunter2@db/m",
            "postgresql://db/m?sslpassword=hunter2",
        ] {
            let address = StoreAddress::parse(text).expect(text);
            assert!(!address.to_string().contains("hunter2"), "{address}");
            assert!(!format!("{address:?}").replace("sslpassword\", \"hunter2", "").contains("hunter2"), "{address:?}");
        }
    }

    #[test]
    fn a_printed_address_is_read_back_as_the_same() {
        for text in [
            "postgresql://ml@db:5433/mlflow?sslmode=require",
            "postgresql:///d?host=/run/pg&port=5433",
            "postgresql:///d?host=/run/pg,db&port=5433,5432",
            "postgresql://a:1,b:2/d",
        ] {
            assert_eq!(pg(text).to_string(), text);
        }
    }
}
