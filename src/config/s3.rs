//! How MLflow's server, and the client of Amazon's in it, find their way to S3 (MLflow:
//! store/artifact/s3_artifact_repo.py; boto3: "Credentials" and "Configuration" of its guide).

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::environment::Environment;
use super::ini;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::object_storage::{S3Access, S3Key};

/// What the configuration file says of the key, and where.
#[derive(Default)]
pub(super) struct Filed {
    pub(super) id: Option<(SecretString, String)>,
    pub(super) secret: Option<(SecretString, String)>,
}

/// What the settings, the environment and Amazon's two files say.
///
/// # Errors
/// Configuration: half a key, an endpoint that is no address, a profile that is in neither file, a word for true or
/// false that is neither.
pub(super) fn access(
    endpoint: Option<String>,
    region: Option<String>,
    filed: Filed,
    environment: &Environment,
) -> Outcome<S3Access> {
    let any = |names: &[&str]| names.iter().find_map(|name| environment.get(name));
    let profile = Profile::read(environment)?;
    let endpoint = endpoint.or_else(|| profile.get("endpoint_url"));
    let region = region.or_else(|| profile.get("region"));
    let (key, key_from) = key(&profile, filed, environment)?;
    Ok(S3Access {
        virtual_hosted: virtual_hosted(environment, endpoint.is_some())?,
        endpoint: endpoint.map(|text| sound(&text)).transpose()?,
        region,
        key,
        key_from,
        ca_file: any(&["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]).or_else(|| profile.get("ca_bundle")).map(PathBuf::from),
        system_roots: any(&["SSL_CERT_FILE"]).map(PathBuf::from),
        insecure: environment.truth("MLFLOW_S3_IGNORE_TLS")?,
    })
}

/// An endpoint that can be asked. What was written is not repeated: it may hold a password.
fn sound(text: &str) -> Outcome<String> {
    let wrong = |what: &str| {
        Failure::configuration(format!("the endpoint of S3 {what}"))
            .hint("the form is http://host:port or https://host (MLFLOW_S3_ENDPOINT_URL)")
    };
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or_else(|| wrong("does not begin with http:// or https://"))?;
    match rest {
        _ if rest.contains('@') => Err(wrong("has a `@` in it: a key is given as AWS_ACCESS_KEY_ID")),
        _ if rest.is_empty() || rest.starts_with('/') => Err(wrong("names no host")),
        _ => Ok(text.trim_end_matches('/').to_owned()),
    }
}

/// MLflow 2.9 asks for paths always; 3.4 lets the client choose unless it is told. Servers like MinIO answer to paths always, to names only with a wildcard in the DNS.
fn virtual_hosted(environment: &Environment, endpoint: bool) -> Outcome<bool> {
    match environment.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE").as_deref() {
        Some("path") => Ok(false),
        Some("virtual") => Ok(true),
        None | Some("auto") => Ok(!endpoint),
        Some(_) => Err(Failure::configuration("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE is none of path, virtual, auto")),
    }
}

fn key(profile: &Profile, filed: Filed, environment: &Environment) -> Outcome<(Option<S3Key>, String)> {
    let made = |id, secret: String, token: Option<String>| S3Key {
        id,
        secret: SecretString::from(secret),
        session_token: token.map(SecretString::from),
    };
    let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    // A profile that is named goes before variables that happen to be set, as boto3 has it.
    match (environment.get(id), environment.get(secret)) {
        (Some(key), Some(value)) if !profile.named => {
            return Ok((Some(made(key, value, environment.get("AWS_SESSION_TOKEN"))), format!("{id} and {secret}")));
        }
        (Some(_), None) if !profile.named => {
            return Err(Failure::configuration(format!("{id} is set and {secret} is not")));
        }
        (None, Some(_)) if !profile.named => {
            return Err(Failure::configuration(format!("{secret} is set and {id} is not")));
        }
        _ => {}
    }
    match (filed.id, filed.secret) {
        (Some((id, _)), Some((secret, from))) if !profile.named => {
            let key = S3Key { id: id.expose_secret().to_owned(), secret, session_token: None };
            return Ok((Some(key), from));
        }
        (Some((_, from)), None) | (None, Some((_, from))) if !profile.named => {
            return Err(Failure::configuration(format!("{from} holds half a key of S3"))
                .hint("access_key_id and secret_access_key go together in [s3]"));
        }
        _ => {}
    }
    match (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")) {
        (Some(key), Some(value)) => {
            Ok((Some(made(key, value, profile.get("aws_session_token"))), format!("the profile {}", profile.name)))
        }
        (None, None) => Ok((None, "nowhere: none is set".to_owned())),
        _ => Err(Failure::configuration(format!("the profile {} of S3 holds half a key", profile.name))
            .hint("aws_access_key_id and aws_secret_access_key go together")),
    }
}

/// What the two files say of one profile.
struct Profile {
    name: String,
    named: bool,
    pairs: Vec<(String, String)>,
}

impl Profile {
    fn get(&self, key: &str) -> Option<String> {
        self.pairs.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, value)| value.clone())
    }

    fn read(environment: &Environment) -> Outcome<Profile> {
        let asked = environment.get("AWS_PROFILE").or_else(|| environment.get("AWS_DEFAULT_PROFILE"));
        let named = asked.is_some();
        let name = asked.unwrap_or_else(|| "default".to_owned());
        let home = environment.get("HOME");
        let place = |variable: &str, usual: &str| {
            environment.get(variable).map(PathBuf::from).or_else(|| Some(Path::new(home.as_ref()?).join(usual)))
        };
        let credentials = place("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let config = place("AWS_CONFIG_FILE", ".aws/config");
        let title = if name == "default" { name.clone() } else { format!("profile {name}") };
        let mut pairs = Vec::new();
        let mut found = false;
        for (file, section) in [(credentials, &name), (config, &title)] {
            let Some(file) = file.filter(|f| f.is_file()) else { continue };
            let text = std::fs::read_to_string(&file).map_err(|e| {
                Failure::configuration(format!("the credentials of S3 in {} are not read: {e}", shown(&file)))
            })?;
            if let Some(more) = ini::section(&text, section) {
                found = true;
                pairs.extend(more);
            }
        }
        if named && !found {
            return Err(Failure::configuration(format!("the profile {name} of S3 is in no file"))
                .hint("AWS_PROFILE names a section of ~/.aws/credentials or ~/.aws/config"));
        }
        Ok(Profile { name, named, pairs })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made(pairs: &[(&str, &str)]) -> Outcome<S3Access> {
        crate::config::Settings::resolve(&crate::config::Flags::default(), Environment::of(pairs))?.s3()
    }

    fn who(pairs: &[(&str, &str)]) -> (String, Option<String>) {
        let access = made(pairs).expect("sound");
        (told(access.key), access.region)
    }

    fn told(key: Option<S3Key>) -> String {
        key.map_or("nobody".to_owned(), |k| {
            let token = k.session_token.map(|t| format!("+{}", t.expose_secret())).unwrap_or_default();
            format!("{}/{}{token}", k.id, k.secret.expose_secret())
        })
    }

    #[test]
    fn keys_come_in_boto3s_order() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "[default]\naws_access_key_id = D\naws_secret_access_key = d\n[team]\naws_access_key_id=T\n\
                           aws_secret_access_key=t\naws_session_token=tt\n[half]\naws_access_key_id=H\n";
        fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        fs::write(home.path().join(".aws/config"), "[default]\nregion=r0\n[profile team]\nregion=r1\n").unwrap();
        let at_home = ("HOME", home.path().to_str().unwrap());
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e"));
        let team = ("AWS_PROFILE", "team");
        for (pairs, wanted, region) in [
            (vec![], "nobody", None),
            (vec![id, secret], "E/e", None),
            (vec![id, secret, ("AWS_SESSION_TOKEN", "s")], "E/e+s", None),
            (vec![at_home], "D/d", Some("r0")),
            (vec![at_home, id, secret], "E/e", Some("r0")),
            (vec![at_home, id, secret, team], "T/t+tt", Some("r1")),
            (vec![at_home, team, ("AWS_DEFAULT_REGION", "r2")], "T/t+tt", Some("r2")),
        ] {
            assert_eq!(who(&pairs), (wanted.to_owned(), region.map(str::to_owned)), "{pairs:?}");
        }
        for (own, pairs, wanted) in [
            ("is", vec![], "C/c"),
            ("is", vec![at_home], "C/c"),
            ("is", vec![at_home, team], "T/t+tt"),
            ("is", vec![id, secret], "E/e"),
            ("i", vec![id, secret], "E/e"),
            ("s", vec![at_home, team], "T/t+tt"),
            ("i", vec![at_home], "refused"),
            ("s", vec![], "refused"),
        ] {
            let of = |letter: char, text: &str| own.contains(letter).then(|| (text.to_owned().into(), "c".to_owned()));
            let filed = Filed { id: of('i', "C"), secret: of('s', "c") };
            let found = access(None, None, filed, &Environment::of(&pairs)).map(|access| told(access.key));
            assert_eq!(found.unwrap_or_else(|_| "refused".to_owned()), wanted, "{own} {pairs:?}");
        }
        for wrong in [
            vec![id],
            vec![secret],
            vec![at_home, ("AWS_PROFILE", "other")],
            vec![at_home, ("AWS_PROFILE", "half")],
            vec![("MLFLOW_S3_IGNORE_TLS", "perhaps")],
            vec![("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "round")],
            vec![("MLFLOW_S3_ENDPOINT_URL", "minio:9000")],
            vec![("MLFLOW_S3_ENDPOINT_URL", "http://k:hunter2@minio")],
        ] {
            let failure = made(&wrong).expect_err("refused");
            assert_eq!(failure.kind, crate::domain::failure::Kind::Configuration, "{wrong:?}");
            assert!(!format!("{failure:?}").contains("hunter2"));
        }
    }

    #[test]
    fn endpoints_are_asked_by_path_and_amazon_by_name() {
        let endpoint = ("MLFLOW_S3_ENDPOINT_URL", "http://minio:9000/");
        let style = ("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "virtual");
        for (pairs, place, by_name) in [
            (vec![], None, true),
            (vec![endpoint], Some("http://minio:9000"), false),
            (vec![endpoint, style], Some("http://minio:9000"), true),
            (vec![("AWS_ENDPOINT_URL_S3", "https://s3.x")], Some("https://s3.x"), false),
        ] {
            let access = made(&pairs).expect("sound");
            assert_eq!((access.endpoint.as_deref(), access.virtual_hosted), (place, by_name), "{pairs:?}");
        }
    }
}
