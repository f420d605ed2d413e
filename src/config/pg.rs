//! What libpq's environment variables and password file add to a `postgresql://` address (PostgreSQL documentation,
//! "Environment Variables" and "The Password File").

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::SecretString;

use super::environment::Environment;
use crate::domain::address::PgAddress;
use crate::domain::failure::{Failure, Outcome};

/// Where Debian's, then everyone's, server puts its socket.
const SOCKETS: &[&str] = &["/var/run/postgresql", "/tmp"];

/// Fills in what the address leaves open.
///
/// # Errors
/// Configuration: PGPORT is not a port.
pub(super) fn complete(mut address: PgAddress, environment: &Environment) -> Outcome<PgAddress> {
    if address.hosts.iter().all(|(host, _)| host.is_empty()) {
        let port = address.hosts.first().and_then(|(_, port)| *port);
        let socket =
            || SOCKETS.iter().find(|s| Path::new(s).join(format!(".s.PGSQL.{}", port.unwrap_or(5432))).exists());
        let host = environment.get("PGHOST").or_else(|| socket().map(|s| (*s).to_owned()));
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        address.hosts = host.split(',').map(|h| (h.to_owned(), port)).collect();
    }
    if let Some(text) = environment.get("PGPORT") {
        let port = text.parse::<u16>().map_err(|_| Failure::configuration("PGPORT is not a port"))?;
        for host in address.hosts.iter_mut().filter(|h| h.1.is_none()) {
            host.1 = Some(port);
        }
    }
    let user = || environment.get("PGUSER").or_else(|| environment.get("USER")).or_else(|| environment.get("LOGNAME"));
    address.user = address.user.or_else(user);
    address.database = address.database.or_else(|| environment.get("PGDATABASE"));
    for (variable, parameter) in [
        ("PGSSLMODE", "sslmode"),
        ("PGSSLROOTCERT", "sslrootcert"),
        ("PGSSLCERT", "sslcert"),
        ("PGSSLKEY", "sslkey"),
        ("PGOPTIONS", "options"),
        ("PGCONNECT_TIMEOUT", "connect_timeout"),
        ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ] {
        if let (None, Some(value)) = (address.parameter(parameter), environment.get(variable)) {
            address.parameters.push((parameter.to_owned(), value));
        }
    }
    if address.password.is_none() {
        let password = environment.get("PGPASSWORD").or_else(|| from_password_file(&address, environment));
        address.password = password.map(SecretString::from);
    }
    Ok(address)
}

fn from_password_file(address: &PgAddress, environment: &Environment) -> Option<String> {
    let path = environment.get("PGPASSFILE").or_else(|| Some(format!("{}/.pgpass", environment.get("HOME")?)))?;
    // libpq ignores a password file that others can read.
    if std::fs::metadata(&path).ok()?.mode() & 0o077 != 0 {
        return None;
    }
    let (host, port) = address.hosts.first()?;
    let host = if host.starts_with('/') { "localhost" } else { host };
    let user = address.user.as_deref()?;
    let wanted =
        [host, &port.unwrap_or(5432).to_string(), address.database.as_deref().unwrap_or(user), user].map(str::to_owned);
    std::fs::read_to_string(path).ok()?.lines().find_map(|line| matching(line, &wanted))
}

/// The password of a line `host:port:database:user:password` that fits; `\:` and `\\` are escapes.
fn matching(line: &str, wanted: &[String; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => fields.last_mut()?.push(characters.next()?),
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => fields.last_mut()?.push(c),
        }
    }
    let password = fields.get(4)?.clone();
    fields.iter().zip(wanted).all(|(have, want)| have == "*" || have == want).then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::address::StoreAddress;

    fn completed(text: &str, pairs: &[(&str, &str)]) -> PgAddress {
        match StoreAddress::parse(text) {
            Ok(StoreAddress::Postgres(a)) => complete(*a, &Environment::of(pairs)).expect("sound"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_address_beats_the_environment() {
        let env =
            [("PGHOST", "other"), ("PGPORT", "6000"), ("PGUSER", "u"), ("PGDATABASE", "d"), ("PGSSLMODE", "require")];
        let address = completed("postgresql://db/", &env);
        assert_eq!(address.hosts, [("db".to_owned(), Some(6000))]);
        assert_eq!((address.user.as_deref(), address.database.as_deref()), (Some("u"), Some("d")));
        assert_eq!(address.parameter("sslmode"), Some("require"));
        let address = completed("postgresql://me@db:1/mine?sslmode=disable", &env);
        assert_eq!(address.to_string(), "postgresql://me@db:1/mine?sslmode=disable");
    }

    #[test]
    fn password_file_lines() {
        let wanted = ["db", "5432", "mlflow", "ml"].map(str::to_owned);
        assert_eq!(matching(r"db:5432:mlflow:ml:a\:b\\c", &wanted).as_deref(), Some(r"a:b\c"));
        assert_eq!(matching("*:*:*:ml:x:y", &wanted).as_deref(), Some("x:y"));
        assert_eq!(matching("db:5432:other:ml:x", &wanted), None);
        assert_eq!(matching("# comment", &wanted), None);
    }
}
