//! A tracking server's address as operators paste it, and how one talks to it. Printed with its password masked, always.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::domain::failure::{Failure, Outcome};

/// Where a tracking server is: the parts of its `http://` or `https://` address.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port, where it is not the usual one.
    pub port: Option<u16>,
    /// What `mlflow server --static-prefix` got, or a proxy adds: empty, or `/` and no slash at its end.
    pub prefix: String,
    /// User and password that stand in the address.
    pub user: Option<(String, SecretString)>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nobody in particular.
    None,
    /// A user of MLflow's basic-auth app, or of a proxy before the server.
    Basic {
        /// Name.
        user: String,
        /// Password.
        password: SecretString,
    },
    /// A token for a proxy before the server.
    Bearer(SecretString),
}

/// A proxy between this machine and the server.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its address, which may hold a password.
    pub address: SecretString,
    /// Hosts that are reached without it, as `NO_PROXY` lists them.
    pub except: Option<String>,
}

/// All that is needed to talk to a server.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Where it is.
    pub address: ServerAddress,
    /// Who asks.
    pub credentials: Credentials,
    /// Where the credentials come from, or why there are none, for hints.
    pub credentials_from: String,
    /// The authorities that are believed: a PEM file, or a folder of them; without it the system's.
    pub ca_file: Option<PathBuf>,
    /// The system's own bundle of authorities, where the environment names it (`SSL_CERT_FILE`).
    pub system_roots: Option<PathBuf>,
    /// A PEM file with this client's certificate and its key.
    pub client_certificate: Option<PathBuf>,
    /// Whether any certificate of the server is believed.
    pub insecure: bool,
    /// The workspace that is asked for (MLflow 3.10 on).
    pub workspace: Option<String>,
    /// A proxy on the way.
    pub proxy: Option<Proxy>,
}

impl Connection {
    /// A connection with nothing but an address and the credentials in it.
    pub fn to(address: ServerAddress) -> Connection {
        let (credentials, credentials_from) = match &address.user {
            Some((user, password)) => {
                (Credentials::Basic { user: user.clone(), password: password.clone() }, "the address")
            }
            None => (Credentials::None, "nowhere: none are set"),
        };
        Connection {
            address,
            credentials,
            credentials_from: credentials_from.to_owned(),
            ca_file: None,
            system_roots: None,
            client_certificate: None,
            insecure: false,
            workspace: None,
            proxy: None,
        }
    }
}

impl ServerAddress {
    /// Parses what an operator typed or pasted, a page of the browser included.
    ///
    /// # Errors
    /// Usage: a folder, a database's address, another service, or a form that means nothing. What was typed is not
    /// repeated: it may hold a password.
    pub fn parse(text: &str) -> Outcome<ServerAddress> {
        let text = text.trim();
        let form = "the form is http://host:port or https://user:password@host/prefix";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match text {
                "" => Failure::usage("the tracking server's address is empty").hint(form),
                "databricks" | "databricks-uc" | "uc" => databricks(),
                _ if text.starts_with(['.', '/', '~']) || text.starts_with("file:") => folder(),
                _ if text.contains(':') || text.contains('.') => {
                    Failure::usage("the tracking server's address does not begin with http:// or https://").hint(form)
                }
                _ => folder(),
            });
        };
        let scheme = scheme.to_ascii_lowercase();
        let secure = match scheme.split('+').next().unwrap_or_default() {
            "http" if scheme == "http" => false,
            "https" if scheme == "https" => true,
            "file" => return Err(folder()),
            "databricks" | "databricks-uc" | "uc" => return Err(databricks()),
            "sqlite" | "postgresql" | "postgres" | "mysql" | "mssql" => {
                return Err(Failure::usage("this is a database's address, and a tracking server's is needed").hint(
                    "give the database as --backend-store-uri, and here what clients set as MLFLOW_TRACKING_URI",
                ));
            }
            _ => return Err(Failure::usage("the tracking server is not reached by http or https").hint(form)),
        };
        // A page of the browser goes on with `#/experiments/1`.
        let rest = rest.split(['#', '?']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err(Failure::usage("the tracking server's address has a `@` after its first `/`")
                .hint("a `/`, `?` or `#` in the password is written %2F, %3F, %23"));
        }
        let (user, place) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((userinfo, place)) => {
                let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                (Some((decoded(user)?, SecretString::from(decoded(password)?))), place)
            }
        };
        let (host, port) = host_and_port(place)?;
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let prefix = segments.iter().map(|s| format!("/{s}")).collect();
        Ok(ServerAddress { secure, host, port, prefix, user })
    }

    /// The address without user and password, without a slash at its end.
    pub fn base(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.map(|p| format!(":{p}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{}", self.prefix)
    }
}

fn databricks() -> Failure {
    Failure::usage("Databricks is not served: mlops works with an MLflow tracking server of one's own")
}

fn folder() -> Failure {
    Failure::usage("this is no server's address: MLflow would take it for a folder of files")
        .hint("`mlflow server` makes a server over it; then give http://host:port")
}

fn decoded(text: &str) -> Outcome<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|t| t.into_owned())
        .map_err(|_| Failure::usage("the tracking server's address holds a percent-encoded part that is not UTF-8"))
}

fn host_and_port(place: &str) -> Outcome<(String, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[').and_then(|p| p.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(Failure::usage("the tracking server's address names no host"));
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| {
            Failure::usage("the port in the tracking server's address is not a number from 1 to 65535")
        })?),
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base();
        match (&self.user, base.split_once("://")) {
            (Some((user, _)), Some((scheme, rest))) => write!(f, "{scheme}://{user}:***@{rest}"),
            _ => f.write_str(&base),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn server(text: &str) -> ServerAddress {
        ServerAddress::parse(text).expect(text)
    }

    #[test]
    fn addresses_are_read_as_people_paste_them() {
        for (text, base) in [
            ("http://localhost:5000", "http://localhost:5000"),
            ("http://localhost:5000/", "http://localhost:5000"),
            (" HTTPS://ml.example.com/mlflow// ", "https://ml.example.com/mlflow"),
            ("http://localhost:5000/#/experiments/1?compare=x", "http://localhost:5000"),
            ("https://ml.example.com/team/mlflow/?a=b", "https://ml.example.com/team/mlflow"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("https://u:p@ss@h:8443/x", "https://h:8443/x"),
        ] {
            assert_eq!(server(text).base(), base, "{text}");
        }
    }

    #[test]
    fn a_user_in_the_address_is_decoded_and_its_password_never_printed() {
        for (text, user, password) in [
            ("https://ada:hunter2@h", "ada", "hunter2"),
            ("https://ada:hunter2%40x@h", "ada", "hunter2@x"),
            ("https://ada:hunter2@x@h", "ada", "hunter2@x"),
            ("https://a%3Ab:hunter2@h", "a:b", "hunter2"),
        ] {
            let address = server(text);
            let (name, secret) = address.user.clone().expect("a user");
            assert_eq!((name.as_str(), secret.expose_secret()), (user, password), "{text}");
            assert_eq!(address.to_string(), format!("https://{user}:***@h"));
            assert!(!format!("{address:?} {:?}", Connection::to(address.clone())).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_a_word_on_what_to_give() {
        for (text, says) in [
            ("", "empty"),
            ("./mlruns", "folder"),
            ("mlruns", "folder"),
            ("file:///srv/mlruns", "folder"),
            ("databricks", "Databricks"),
            ("databricks://hunter2", "Databricks"),
            ("sqlite:///mlflow.db", "database"),
            ("postgresql+psycopg2://ml:hunter2@db/mlflow", "database"),
            ("localhost:5000", "http://"),
            ("ada:hunter2@mlflow.example.com", "http://"),
            ("ftp://ada:hunter2@h", "http"),
            ("http://", "no host"),
            ("http://h:port", "port"),
            ("http://ada:hun/ter2@h", "`@`"),
        ] {
            let failure = ServerAddress::parse(text).expect_err(text);
            assert_eq!(failure.kind, crate::domain::failure::Kind::Usage, "{text}");
            assert!(failure.message.contains(says), "{text}: {failure}");
            assert!(!format!("{failure:?}").contains("hunter2"), "{text}: {failure:?}");
        }
    }
}
