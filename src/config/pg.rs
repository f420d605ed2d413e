//! What libpq's service file, environment variables, password file and files in `~/.postgresql` add to a
//! `postgresql://` address, in this order (PostgreSQL documentation, chapter libpq).

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::environment::Environment;
use super::{passfile, service};
use crate::domain::address::PgAddress;
use crate::domain::failure::{Failure, Outcome};

/// Where Debian's, then everyone's, server puts its socket.
pub(super) const SOCKETS: &[&str] = &["/var/run/postgresql", "/tmp"];

/// The variables that stand for a parameter. PGAPPNAME is left out: the name of its sessions is how a run tells its own
/// from others'. So are PGTZ, PGDATESTYLE and PGGEQO: a session is set up the same whatever the environment says.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOSTADDR", "hostaddr"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
];

/// Fills in what the address leaves open.
///
/// # Errors
/// Configuration: PGPORT is not a port; a service that is not defined.
pub(super) fn complete(mut address: PgAddress, environment: &Environment) -> Outcome<PgAddress> {
    let mut service = service::parameters(&address, environment)?;
    let mut fallback = |parameter: &str, variable: &str| {
        let at = service.iter().position(|(key, _)| key == parameter);
        let served = at.map(|i| service.remove(i).1).filter(|v| !v.is_empty());
        served.or_else(|| environment.get(variable))
    };
    let (host, port) = (fallback("host", "PGHOST"), fallback("port", "PGPORT"));
    let (user, password) = (fallback("user", "PGUSER"), fallback("password", "PGPASSWORD"));
    let database = fallback("dbname", "PGDATABASE");
    for (key, value) in service {
        add(&mut address, &key, value);
    }
    for (variable, parameter) in VARIABLES {
        if let Some(value) = environment.get(variable) {
            add(&mut address, parameter, value);
        }
    }
    if environment.get("PGREQUIRESSL").is_some_and(|v| v.starts_with('1')) {
        add(&mut address, "sslmode", "require".to_owned());
    }
    hosts(&mut address, host, port)?;
    address.user = address.user.or(user).or_else(|| user_of_process(environment));
    address.database = address.database.or(database);
    files(&mut address, environment);
    address.system_roots = environment.get("SSL_CERT_FILE").map(PathBuf::from);
    if address.password.is_none() {
        address.password = password.map(SecretString::from);
    }
    if address.password.is_none() {
        passfile::complete(&mut address, environment);
    }
    Ok(address)
}

fn add(address: &mut PgAddress, parameter: &str, value: String) {
    if address.parameter(parameter).is_none() {
        address.parameters.push((parameter.to_owned(), value));
    }
}

fn hosts(address: &mut PgAddress, host: Option<String>, port: Option<String>) -> Outcome<()> {
    if address.hosts.iter().all(|(host, _)| host.is_empty()) {
        let ports: Vec<Option<u16>> = address.hosts.iter().map(|(_, port)| *port).collect();
        let number = ports.first().copied().flatten().map(|p| p.to_string()).or_else(|| port.clone());
        let socket = || {
            let file = format!(".s.PGSQL.{}", number.as_deref().unwrap_or("5432"));
            SOCKETS.iter().find(|s| Path::new(s).join(&file).exists()).map(|s| (*s).to_owned())
        };
        let numeric = || address.parameter("hostaddr").map(str::to_owned);
        let host = host.or_else(numeric).or_else(socket).unwrap_or_else(|| "localhost".to_owned());
        address.hosts = host.split(',').map(|h| (h.to_owned(), None)).collect();
        if ports.len() > 1 && ports.len() != address.hosts.len() {
            return Err(Failure::configuration(format!("{} ports do not fit the hosts {host}", ports.len())));
        }
        for (host, port) in address.hosts.iter_mut().zip(ports.iter().cycle()) {
            host.1 = *port;
        }
    }
    match port {
        Some(port) if address.hosts.iter().any(|(_, p)| p.is_none()) => {
            address.ports(&port).map_err(|f| Failure::configuration(f.message).on("PGPORT, or the service's port"))
        }
        _ => Ok(()),
    }
}

/// The files that libpq reads without being told, where TLS may be used at all.
fn files(address: &mut PgAddress, environment: &Environment) {
    let remote = address.hosts.iter().any(|(host, _)| !host.starts_with('/'));
    let Some(home) = environment.get("HOME").filter(|_| remote && address.parameter("sslmode") != Some("disable"))
    else {
        return;
    };
    let usual = |name: &str| Path::new(&home).join(".postgresql").join(name);
    let existing = |name: &str| usual(name).exists().then(|| usual(name).display().to_string());
    for (parameter, name) in [("sslrootcert", "root.crt"), ("sslcert", "postgresql.crt")] {
        if let Some(file) = existing(name) {
            add(address, parameter, file);
        }
    }
    if address.parameter("sslcert").is_some() {
        add(address, "sslkey", usual("postgresql.key").display().to_string());
    }
    if let (None, Some(file)) = (address.parameter("sslcrldir"), existing("root.crl")) {
        add(address, "sslcrl", file);
    }
}

/// The user this process runs as, which cron and `su` do not always say in USER.
fn user_of_process(environment: &Environment) -> Option<String> {
    let id = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.or_else(|| environment.get("USER")).or_else(|| environment.get("LOGNAME"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

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
        assert_eq!(completed("postgresql://db/?ssl=disable", &env).parameter("sslmode"), Some("disable"));
    }

    #[test]
    fn hosts_and_ports_in_lists() {
        let two = [("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))];
        assert_eq!(completed("postgresql:///", &[("PGHOST", "a,b"), ("PGPORT", "1,2")]).hosts, two);
        assert_eq!(completed("postgresql:///?port=1,2", &[("PGHOST", "a,b")]).hosts, two);
        let address = completed("postgresql:///", &[("PGHOSTADDR", "192.0.2.1"), ("PGREQUIRESSL", "1")]);
        assert_eq!(address.hosts, [("192.0.2.1".to_owned(), None)]);
        assert_eq!(address.parameter("sslmode"), Some("require"));
    }

    #[test]
    fn a_service_stands_between_address_and_environment() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("services");
        fs::write(&file, "[s]\nhost=fromfile\nport=7\nuser=su\nkeepalives=0\nsslmode=require\n").unwrap();
        let home = home.path().to_str().unwrap();
        let env = [
            ("HOME", home),
            ("PGSERVICE", "s"),
            ("PGSERVICEFILE", file.to_str().unwrap()),
            ("PGHOST", "fromenv"),
            ("PGDATABASE", "envd"),
            ("PGSSLMODE", "disable"),
        ];
        let address = completed("postgresql://me@/", &env);
        assert_eq!(address.hosts, [("fromfile".to_owned(), Some(7))]);
        assert_eq!((address.user.as_deref(), address.database.as_deref()), (Some("me"), Some("envd")));
        assert_eq!(address.parameter("sslmode"), Some("require"));
        assert_eq!(address.parameter("keepalives"), Some("0"));
    }

    #[test]
    fn a_password_file_that_others_read_is_not_read() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".pgpass");
        fs::write(&file, "a:*:*:*:one\nb:*:*:*:two\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let env = [("HOME", home.path().to_str().unwrap())];
        let address = completed("postgresql://me@a,b,c/d", &env);
        let passwords: Vec<_> = address.file_passwords.iter().map(|p| p.as_ref().map(|p| p.expose_secret())).collect();
        assert_eq!(passwords, [Some("one"), Some("two"), None]);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let address = completed("postgresql://me@a/d", &env);
        assert!(address.file_passwords.is_empty() && address.password_note.unwrap().contains("chmod 600"));
        assert!(completed("postgresql://me:x@a/d", &env).password_note.is_none());
    }

    #[test]
    fn files_of_the_home_folder_that_libpq_reads_too() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".postgresql");
        fs::create_dir(&folder).unwrap();
        let env = [("HOME", home.path().to_str().unwrap())];
        assert_eq!(completed("postgresql://me@a/d", &env).parameters, []);
        for name in ["root.crt", "postgresql.crt"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let address = completed("postgresql://me@a/d", &env);
        for (parameter, name) in
            [("sslrootcert", "root.crt"), ("sslcert", "postgresql.crt"), ("sslkey", "postgresql.key")]
        {
            assert_eq!(address.parameter(parameter).map(PathBuf::from), Some(folder.join(name)));
        }
        assert_eq!(completed("postgresql://me@a/d?sslmode=disable", &env).parameter("sslcert"), None);
        assert_eq!(completed("postgresql:///d?host=/run/pg", &env).parameter("sslcert"), None);
    }
}
