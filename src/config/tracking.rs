//! How MLflow's own client finds its credentials and certificates (MLflow: utils/credentials.py, utils/rest_utils.py;
//! requests: sessions.py, `merge_environment_settings`).

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::environment::Environment;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::server::{Connection, Credentials, Proxy, ServerAddress};

/// What the configuration file says of credentials, and where.
#[derive(Default)]
pub(super) struct Filed {
    pub(super) user: Option<(SecretString, String)>,
    pub(super) password: Option<(SecretString, String)>,
    pub(super) token: Option<(SecretString, String)>,
}

/// Fills in what the environment, the configuration file and `~/.mlflow/credentials` say.
///
/// # Errors
/// Configuration: variables that exclude each other, mean nothing, or name a way that is not served.
pub(super) fn complete(
    address: ServerAddress,
    workspace: Option<String>,
    filed: Filed,
    environment: &Environment,
) -> Outcome<Connection> {
    for name in ["MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4"] {
        if environment.get(name).is_some_and(|v| !["false", "0"].contains(&v.to_lowercase().as_str())) {
            return Err(Failure::configuration(format!("{name} asks for a way to sign requests that mlops has not"))
                .hint("users with passwords, tokens and client certificates are served"));
        }
    }
    let insecure = environment.truth("MLFLOW_TRACKING_INSECURE_TLS")?;
    let named = environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH");
    if insecure && named.is_some() {
        return Err(Failure::configuration(
            "MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH are both set, and exclude each other",
        )
        .hint("unset MLFLOW_TRACKING_INSECURE_TLS: the other is the safe one"));
    }
    let bundle = || environment.get("REQUESTS_CA_BUNDLE").or_else(|| environment.get("CURL_CA_BUNDLE"));
    let proxy = proxy(address.secure, environment);
    let mut connection = Connection::to(address);
    if matches!(connection.credentials, Credentials::None) {
        (connection.credentials, connection.credentials_from) = credentials(filed, environment)?;
    }
    connection.ca_file = if insecure { None } else { named.or_else(bundle).map(PathBuf::from) };
    connection.system_roots = environment.get("SSL_CERT_FILE").map(PathBuf::from);
    connection.client_certificate = environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH").map(PathBuf::from);
    connection.insecure = insecure;
    connection.workspace = workspace;
    connection.proxy = proxy;
    Ok(connection)
}

/// User and password beat a token; each of the two comes from the environment, else from the configuration file, else from
/// MLflow's. A token of the configuration file beats what is in MLflow's.
fn credentials(filed: Filed, environment: &Environment) -> Outcome<(Credentials, String)> {
    let (mlflows, path) = match environment.get("HOME") {
        Some(home) => {
            let path = Path::new(&home).join(".mlflow/credentials");
            (read(&path)?, shown(&path))
        }
        None => (Pair::default(), String::new()),
    };
    let of = |variable: &str| environment.get(variable).map(|v| (SecretString::from(v), variable.to_owned()));
    let (user, password) = (of("MLFLOW_TRACKING_USERNAME"), of("MLFLOW_TRACKING_PASSWORD"));
    let (user, password) = (user.or(filed.user), password.or(filed.password));
    let own = filed.token.is_some();
    let token = of("MLFLOW_TRACKING_TOKEN").or(filed.token).map(|(token, from)| (Credentials::Bearer(token), from));
    if let (Some(token), true) = (&token, own && user.is_none() && password.is_none()) {
        return Ok(token.clone());
    }
    let of = |value: Option<String>| value.map(|v| (SecretString::from(v), path.clone()));
    let half = match (user.or_else(|| of(mlflows.user)), password.or_else(|| of(mlflows.password))) {
        (Some((user, from)), Some((password, and))) => {
            let from = if from == and { from } else { format!("{from} and {and}") };
            return Ok((Credentials::Basic { user: user.expose_secret().to_owned(), password }, from));
        }
        (Some((_, from)), None) => format!("{from} names a user, and there is no password"),
        (None, Some((_, from))) => format!("{from} holds a password, and there is no user"),
        (None, None) => "nowhere: none are set".to_owned(),
    };
    Ok(token.unwrap_or((Credentials::None, half)))
}

/// A user and a password of MLflow's file.
#[derive(Default, PartialEq, Debug)]
struct Pair {
    user: Option<String>,
    password: Option<String>,
}

fn read(path: &Path) -> Outcome<Pair> {
    if !path.exists() {
        return Ok(Pair::default());
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::configuration(format!("the credentials in {} are not read: {e}", shown(path))))?;
    Ok(parse(&text))
}

/// The section `[mlflow]`, by the rules of Python's `configparser` as far as they matter: keys in any case, `=` or `:`,
/// comments on lines of their own, `%%` for `%`.
fn parse(text: &str) -> Pair {
    let mut found = Pair::default();
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.strip_suffix(']') == Some("mlflow");
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']).filter(|_| inside) else { continue };
        let value = Some(value.trim().replace("%%", "%")).filter(|v| !v.is_empty());
        match key.trim().to_ascii_lowercase().as_str() {
            "mlflow_tracking_username" => found.user = value,
            "mlflow_tracking_password" => found.password = value,
            _ => {}
        }
    }
    found
}

/// The variables that `requests` goes by.
pub(super) fn proxy(secure: bool, environment: &Environment) -> Option<Proxy> {
    let either = |name: &str| environment.get(name).or_else(|| environment.get(&name.to_uppercase()));
    let address = either(if secure { "https_proxy" } else { "http_proxy" }).or_else(|| either("all_proxy"))?;
    Some(Proxy { address: SecretString::from(address), except: either("no_proxy") })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::domain::failure::Kind;

    fn made(uri: &str, pairs: &[(&str, &str)]) -> Outcome<Connection> {
        complete(ServerAddress::parse(uri)?, None, Filed::default(), &Environment::of(pairs))
    }

    fn who(uri: &str, pairs: &[(&str, &str)]) -> (String, String) {
        let connection = made(uri, pairs).expect("sound");
        (told(&connection.credentials), connection.credentials_from)
    }

    fn told(credentials: &Credentials) -> String {
        match credentials {
            Credentials::None => "nobody".to_owned(),
            Credentials::Basic { user, password } => format!("{user}/{}", password.expose_secret()),
            Credentials::Bearer(token) => token.expose_secret().to_owned(),
        }
    }

    #[test]
    fn credentials_come_in_mlflows_order() {
        let (user, password) = (("MLFLOW_TRACKING_USERNAME", "ada"), ("MLFLOW_TRACKING_PASSWORD", "secret"));
        let token = ("MLFLOW_TRACKING_TOKEN", "t0k3n");
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".mlflow")).unwrap();
        let text = "[other]\nmlflow_tracking_username = no\n[mlflow]\n# a comment\nMLFLOW_tracking_username: filed\n\
                    mlflow_tracking_password=50%% = half\n";
        fs::write(home.path().join(".mlflow/credentials"), text).unwrap();
        let at_home = ("HOME", home.path().to_str().unwrap());
        for (pairs, wanted) in [
            (vec![], "nobody"),
            (vec![user], "nobody"),
            (vec![user, token], "t0k3n"),
            (vec![user, password, token], "ada/secret"),
            (vec![token], "t0k3n"),
            (vec![at_home], "filed/50% = half"),
            (vec![at_home, user], "ada/50% = half"),
            (vec![at_home, token], "filed/50% = half"),
        ] {
            let (found, from) = who("http://h", &pairs);
            assert_eq!(found, wanted, "{pairs:?}");
            assert!(!from.contains("secret") && !from.contains("half"), "{from}");
            assert_eq!(who("http://eve:own@h", &pairs).0, "eve/own", "the address comes first");
        }
        for (own, pairs, wanted) in [
            ("up", vec![], "file user/file password"),
            ("up", vec![at_home], "file user/file password"),
            ("up", vec![user, password], "ada/secret"),
            ("p", vec![user], "ada/file password"),
            ("p", vec![at_home], "filed/file password"),
            ("t", vec![], "file token"),
            ("t", vec![at_home], "file token"),
            ("t", vec![token], "t0k3n"),
            ("t", vec![user], "file token"),
            ("t", vec![user, password], "ada/secret"),
            ("upt", vec![], "file user/file password"),
        ] {
            let of = |letter: char, text: &str| own.contains(letter).then(|| (text.to_owned().into(), "c".to_owned()));
            let filed =
                Filed { user: of('u', "file user"), password: of('p', "file password"), token: of('t', "file token") };
            let (found, _) = credentials(filed, &Environment::of(&pairs)).expect("sound");
            assert_eq!(told(&found), wanted, "{own} {pairs:?}");
        }
        assert_eq!(who("http://h", &[user]).1, "MLFLOW_TRACKING_USERNAME names a user, and there is no password");
        let both = who("http://h", &[at_home, user]).1;
        assert!(both.starts_with("MLFLOW_TRACKING_USERNAME and ") && both.ends_with("/.mlflow/credentials"), "{both}");
    }

    #[test]
    fn tls_is_asked_for_as_mlflow_and_requests_do() {
        let (insecure, path) = (("MLFLOW_TRACKING_INSECURE_TLS", "True"), ("MLFLOW_TRACKING_SERVER_CERT_PATH", "/a"));
        let bundle = ("REQUESTS_CA_BUNDLE", "/b");
        for (pairs, believed, file) in [
            (vec![], false, None),
            (vec![insecure], true, None),
            (vec![insecure, bundle], true, None),
            (vec![path, bundle], false, Some("/a")),
            (vec![bundle], false, Some("/b")),
            (vec![("CURL_CA_BUNDLE", "/c")], false, Some("/c")),
        ] {
            let connection = made("https://h", &pairs).expect("sound");
            assert_eq!((connection.insecure, connection.ca_file.as_deref()), (believed, file.map(Path::new)));
        }
        for wrong in [
            vec![insecure, path],
            vec![("MLFLOW_TRACKING_INSECURE_TLS", "yes")],
            vec![("MLFLOW_TRACKING_AUTH", "kubernetes")],
        ] {
            assert_eq!(made("https://h", &wrong).expect_err("refused").kind, Kind::Configuration, "{wrong:?}");
        }
    }

    #[test]
    fn proxies_by_scheme() {
        let pairs = [("HTTPS_PROXY", "http://p:1"), ("http_proxy", "http://p:2"), ("no_proxy", "x,y")];
        for (uri, wanted) in [("https://h", "http://p:1"), ("http://h", "http://p:2")] {
            let proxy = made(uri, &pairs).expect("sound").proxy.expect("a proxy");
            assert_eq!((proxy.address.expose_secret(), proxy.except.as_deref()), (wanted, Some("x,y")));
        }
        assert!(made("https://h", &[("HTTP_PROXY", "http://p:2")]).expect("sound").proxy.is_none());
    }
}
