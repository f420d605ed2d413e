//! The layer *security*, as far as addresses and the passwords in them tell it: what a stranger on the network, or one
//! who has read the manuals, could do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

use crate::domain::address::{PgAddress, StoreAddress, shown};
use crate::domain::failure::Failure;
use crate::domain::health::Reading;
use crate::engine::cancel::Cancel;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::monitor as pg_monitor;
use crate::store::sqlite::monitor;

use super::{MARGIN, Stack};

const DATABASE: &str = "security.database";
const PASSWORDS: &str = "security.passwords";
/// Longest time for an attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A name and a password that the stack uses, and where they stand.
#[derive(Debug, Clone)]
pub struct Credential {
    /// `backend_store_uri`, `MLFLOW_TRACKING_PASSWORD`, `AWS_SECRET_ACCESS_KEY`.
    pub place: String,
    /// The role, the user, the key's id; empty where there is none.
    pub user: String,
    /// The password.
    pub password: SecretString,
}

/// Tells `security.database`, where the database's address is known, and `security.passwords` over the password in that
/// address and these credentials. Blocks, bounded.
pub(crate) fn addresses(stack: &Stack, credentials: &[Credential]) {
    if stack.wants(PASSWORDS) {
        let own = stack.database.as_ref().and_then(of_address);
        let all: Vec<Credential> = own.into_iter().chain(credentials.iter().cloned()).collect();
        stack.tell(passwords(&all));
    }
    if let (true, Some(address)) = (stack.wants(DATABASE), &stack.database) {
        let until = stack.look.deadline.checked_sub(MARGIN).unwrap_or(stack.look.deadline);
        stack.tell(database(address, &stack.look.id, until, &stack.look.cancel));
    }
}

/// The role and the password of a database's address.
pub fn of_address(address: &StoreAddress) -> Option<Credential> {
    let StoreAddress::Postgres(address) = address else { return None };
    let password = address.password.clone().or_else(|| address.file_passwords.iter().flatten().next().cloned())?;
    let user = address.user.clone().unwrap_or_else(|| "postgres".to_owned());
    Some(Credential { place: "backend_store_uri".to_owned(), user, password })
}

/// What a stranger may do to the database, as far as it could be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A password that cannot be right was taken: no password is asked.
    Open,
    /// It was refused.
    Locked,
    /// It was not tried, or got no answer.
    NotTried,
}

/// Looks at the way to a database. Only beyond this machine is a connection tried with a password that is wrong; the
/// server's log shows it once per run. It ends at `until`.
pub fn database(address: &StoreAddress, id: &str, until: Instant, cancel: &Cancel) -> Reading {
    let address = match address {
        StoreAddress::Postgres(address) => address,
        StoreAddress::Sqlite(path) | StoreAddress::Archive(path) => {
            let reading = match monitor::writable_by_all(path) {
                Some(true) => {
                    Reading::warning(DATABASE, format!("every user of the machine may write to {}", shown(path)))
                        .hint(format!("chmod o-w '{}'", shown(path)))
                }
                Some(false) => Reading::ok(DATABASE, "a file: no network leads to it"),
                None => Reading::unknown(DATABASE, format!("{} cannot be looked at", shown(path))),
            };
            return reading.needs("database.connect");
        }
    };
    let far = beyond(address);
    let Some(host) = far.first() else {
        return Reading::ok(DATABASE, "reached over loopback or a socket only");
    };
    let patience = || until.saturating_duration_since(Instant::now()).min(ATTEMPT);
    let encrypted = session(address, id, cancel, patience());
    let door = stranger(address, id, cancel, patience());
    judged(host, encrypted, door).needs("database.connect")
}

/// Whether a session with this address is encrypted.
fn session(address: &PgAddress, id: &str, cancel: &Cancel, limit: Duration) -> Result<bool, Failure> {
    let postgres = Arc::new(Postgres::new(address, id, cancel)?);
    let silent = postgres.address();
    crate::engine::patience::within(limit, move || {
        let mut client = postgres.connect()?;
        pg_monitor::vitals(&mut client).map(|v| v.encrypted)
    })
    .unwrap_or_else(|| Err(Failure::source(format!("{silent}: no answer within {:.1} s", limit.as_secs_f64()))))
}

/// Tries the door as somebody who knows the name of the role and nothing else.
fn stranger(address: &PgAddress, id: &str, cancel: &Cancel, limit: Duration) -> Door {
    let mut address = address.clone();
    address.password = Some(SecretString::from(format!("mlops health {id}: not a password")));
    address.file_passwords.clear();
    address.parameters.retain(|(name, _)| name != "sslcert" && name != "sslkey");
    let Ok(postgres) = Postgres::new(&address, id, cancel) else { return Door::NotTried };
    match Arc::new(postgres).connect_within(limit) {
        Ok(_) => Door::Open,
        // SQLSTATE class 28: invalid authorization.
        Err(failure) if failure.message.contains("[28") => Door::Locked,
        Err(_) => Door::NotTried,
    }
}

/// The reading of a database beyond this machine.
fn judged(host: &str, encrypted: Result<bool, Failure>, door: Door) -> Reading {
    let plain = format!("`{host}` is reached without TLS: passwords and data can be read on the way");
    if door == Door::Open {
        let more = matches!(encrypted, Ok(false)).then_some(plain);
        return Reading::critical(DATABASE, format!("`{host}` lets a stranger in: a wrong password was taken"))
            .evidence(more)
            .cause("pg_hba.conf has `trust` for connections from this machine, or from everywhere")
            .hint("put scram-sha-256 in place of trust in pg_hba.conf, set passwords, and reload the server's configuration");
    }
    match encrypted {
        Err(failure) => Reading::unknown(DATABASE, format!("not known: {failure}")),
        Ok(false) => Reading::warning(DATABASE, plain)
            .hint("turn TLS on in the server (ssl = on) and add sslmode=require, better verify-full, to the address"),
        Ok(true) if door == Door::NotTried => {
            Reading::ok(DATABASE, format!("`{host}` over TLS; whether it asks for a password could not be tried"))
        }
        Ok(true) => Reading::ok(DATABASE, format!("`{host}` over TLS, and it asks for a password")),
    }
}

/// The hosts of an address that are not this machine's loopback and not a socket.
fn beyond(address: &PgAddress) -> Vec<&str> {
    let numeric: Vec<&str> = address.parameter("hostaddr").map_or(Vec::new(), |t| t.split(',').collect());
    let host = |(place, (name, _)): (usize, &'_ (String, Option<u16>))| {
        let to = numeric.get(place).filter(|t| !t.is_empty()).map_or(name.clone(), |t| (*t).to_owned());
        !is_near(&to)
    };
    let hosts = address.hosts.iter().enumerate().filter(|(place, pair)| host((*place, pair)));
    hosts.map(|(_, (name, _))| name.as_str()).collect()
}

/// Loopback, `localhost`, or a socket's folder.
pub fn is_near(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    host.is_empty()
        || host.starts_with(['/', '@'])
        || name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Passwords of examples and manuals: of MLflow, MinIO, PostgreSQL and compose files. Lower case.
const EXAMPLES: &[&str] = &[
    "password",
    "password1",
    "password12",
    "password123",
    "password1234",
    "passw0rd",
    "secret",
    "minioadmin",
    "minio123",
    "mlflow",
    "postgres",
    "admin",
    "root",
    "test",
    "example",
    "default",
    "123456",
    "12345678",
    "letmein",
    "pass",
    "mysecretpassword",
    "mypassword",
    "your_password",
    "yourpassword",
    "your-password",
    "miniosecret",
    "wjalrxutnfemi/k7mdeng/bpxrficyexamplekey",
];
/// Beginnings of such passwords.
const BEGINNINGS: &[&str] = &["changeme", "change_me", "change-me", "mlflow_password", "mlflowpassword"];

/// Whether everybody would try that password first.
pub fn is_example(user: &str, password: &SecretString) -> bool {
    let password = password.expose_secret().to_lowercase();
    !password.is_empty()
        && (password == user.to_lowercase()
            || EXAMPLES.contains(&password.as_str())
            || BEGINNINGS.iter().any(|beginning| password.starts_with(beginning)))
}

/// The reading of `security.passwords`: names where a password of examples stands, and never the password.
pub fn passwords(credentials: &[Credential]) -> Reading {
    let bad: Vec<&Credential> = credentials.iter().filter(|c| is_example(&c.user, &c.password)).collect();
    if bad.is_empty() {
        return Reading::ok(
            PASSWORDS,
            match credentials.len() {
                0 => "no password is known here".to_owned(),
                1 => "the one that is known here is none of examples and manuals".to_owned(),
                n => format!("the {n} that are known here are none of examples and manuals"),
            },
        );
    }
    let places: Vec<&str> = bad.iter().map(|c| c.place.as_str()).collect();
    Reading::warning(PASSWORDS, format!("the password in {} is one that everybody tries first", places.join(", ")))
        .cause("it was copied from an example, or is the name of the user")
        .hint("change it at the service, then in the setting: ALTER ROLE ... PASSWORD; PATCH users/update-password; mc admin user")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::Status;

    fn credential(place: &str, user: &str, password: &str) -> Credential {
        Credential { place: place.to_owned(), user: user.to_owned(), password: SecretString::from(password) }
    }

    #[test]
    fn example_passwords_are_told_by_their_place_alone() {
        let of = |user: &str, password: &str| passwords(&[credential("the setting", user, password)]);
        for (user, password) in [
            ("mlflow", "mlflow"),
            ("minioadmin", "MinioAdmin"),
            ("admin", "password1234"),
            ("x", "changeme-2024"),
            ("postgres", "postgres"),
            ("Bob", "bob"),
            ("x", "ChangeMe"),
            ("x", "secret"),
        ] {
            let reading = of(user, password);
            assert_eq!(reading.status, Status::Warning, "{user}/{password}");
            assert!(reading.summary.contains("the setting"));
            assert!(!format!("{:?}", reading.summary).contains(&password.to_lowercase()), "{reading:?}");
        }
        assert_eq!(of("mlflow", "q7!kk2").status, Status::Ok);
        assert_eq!(of("", "").status, Status::Ok);
        assert_eq!(passwords(&[]).status, Status::Ok);
        let good = credential("a", "x", "q7!kk2");
        assert!(!passwords(&[good, credential("b", "x", "secret")]).summary.contains("in a"));
    }

    #[test]
    fn loopback_has_many_names() {
        for near in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "localhost",
            "LOCALHOST",
            "db.localhost",
            "/run/postgresql",
            "",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in ["db", "10.0.0.1", "0.0.0.0", "::", "localhost.example.com", "127.0.0.1.example.com", "fd00::1"] {
            assert!(!is_near(far), "{far}");
        }
        let parse = |text: &str| match StoreAddress::parse(text).unwrap() {
            StoreAddress::Postgres(address) => *address,
            other => panic!("{other}"),
        };
        assert_eq!(beyond(&parse("postgresql://u@127.0.0.1,db/x")), ["db"]);
        assert!(beyond(&parse("postgresql://u@db/x?hostaddr=127.0.0.1")).is_empty());
        assert_eq!(beyond(&parse("postgresql://u@localhost/x?hostaddr=10.1.1.1")), ["localhost"]);
    }

    #[test]
    fn an_open_door_is_worse_than_no_tls() {
        let status = |encrypted, door| judged("db", encrypted, door).status;
        assert_eq!(status(Ok(true), Door::Locked), Status::Ok);
        assert_eq!(status(Ok(false), Door::Locked), Status::Warning);
        assert_eq!(status(Ok(true), Door::Open), Status::Critical);
        assert_eq!(status(Ok(false), Door::Open), Status::Critical);
        assert_eq!(status(Err(Failure::source("x")), Door::Locked), Status::Unknown);
    }
}
