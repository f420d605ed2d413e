//! An artifact's address as MLflow writes it: which place it names, if it names one that can be reached. A password in
//! it is never printed.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::domain::address::shown;
use crate::domain::harmless;

/// Where artifacts are, or whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactAddress {
    /// A file or folder. A relative one means another place to each process that reads it.
    Local(PathBuf),
    /// Objects of a bucket whose keys are this one or lie below it.
    S3 {
        /// The bucket.
        bucket: String,
        /// Key, without slashes at its ends; empty for the whole bucket.
        key: String,
    },
    /// Behind the tracking server's proxy.
    Proxy {
        /// Another server than the tracking server, where one is named.
        host: Option<String>,
        /// Path, without slashes at its ends.
        path: String,
    },
    /// Where the logged model of that id has its files (MLflow 3).
    LoggedModel(String),
    /// Where that version of a model has its files.
    Version {
        /// The model.
        name: String,
        /// Number.
        version: u64,
    },
    /// Among the artifacts of a run.
    Run {
        /// The run.
        id: String,
        /// Path from the run's root; may be empty.
        path: String,
    },
    /// No place at all: a prompt's source, or what MLflow leaves of a deleted version.
    Placeholder,
    /// A place that this program does not reach.
    Elsewhere {
        /// The address, with its password masked.
        shown: String,
        /// Why not.
        why: &'static str,
    },
}

impl ArtifactAddress {
    /// Reads an address by MLflow's rules. Every text is one: what has no other form is a path.
    pub fn parse(text: &str) -> ArtifactAddress {
        let elsewhere = |why| ArtifactAddress::Elsewhere { shown: masked(text), why };
        match form(text) {
            "(empty)" => elsewhere("the address is empty"),
            "placeholder" => ArtifactAddress::Placeholder,
            "C:\\path" | "file:///C:/path" | "file:C:/path" => elsewhere("a path of another machine, with Windows"),
            "file:///path" | "file:path" => match text.strip_prefix("file:").unwrap_or_default() {
                path if path.starts_with('/') => local(&format!("/{}", path.trim_start_matches('/'))),
                path => local(path),
            },
            "file://host/path" => match text.strip_prefix("file://").and_then(|rest| rest.split_once('/')) {
                Some((host, path)) if host == "localhost" || host.is_empty() => local(&format!("/{path}")),
                _ => elsewhere("a path of another machine"),
            },
            "mlflow-artifacts:/path" | "mlflow-artifacts://host/path" => proxy(text),
            "by id (models:/, runs:/)" => by_id(text).unwrap_or_else(|| elsewhere("it names no place")),
            "object store or server" => s3(text).unwrap_or_else(|| elsewhere("a store of a kind that is not served")),
            "other scheme" => elsewhere("a store of a kind that is not served"),
            // MLflow decodes what follows `%` in plain paths as well (utils/file_utils.py, local_file_uri_to_path).
            _ => local(text),
        }
    }

    /// The address of something below this one.
    #[must_use]
    pub fn join(&self, path: &str) -> ArtifactAddress {
        let path = path.trim_matches('/');
        let below = |base: &str| if base.is_empty() { path.to_owned() } else { format!("{base}/{path}") };
        match self {
            it if path.is_empty() => it.clone(),
            ArtifactAddress::Local(folder) => ArtifactAddress::Local(folder.join(path)),
            ArtifactAddress::S3 { bucket, key } => ArtifactAddress::S3 { bucket: bucket.clone(), key: below(key) },
            ArtifactAddress::Proxy { host, path } => ArtifactAddress::Proxy { host: host.clone(), path: below(path) },
            ArtifactAddress::Run { id, path } => ArtifactAddress::Run { id: id.clone(), path: below(path) },
            ArtifactAddress::Elsewhere { shown, why } => {
                ArtifactAddress::Elsewhere { shown: format!("{}/{path}", shown.trim_end_matches('/')), why }
            }
            other => other.clone(),
        }
    }
}

fn local(path: &str) -> ArtifactAddress {
    let path = percent_decode_str(path).decode_utf8_lossy();
    ArtifactAddress::Local(PathBuf::from(path.as_ref()))
}

fn s3(text: &str) -> Option<ArtifactAddress> {
    let rest = text.strip_prefix("s3://")?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let sound = !bucket.is_empty() && !bucket.contains(['@', ':']);
    sound.then(|| ArtifactAddress::S3 { bucket: bucket.to_owned(), key: key.trim_matches('/').to_owned() })
}

fn proxy(text: &str) -> ArtifactAddress {
    let rest = text.strip_prefix("mlflow-artifacts:").unwrap_or_default();
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => ("", rest),
    };
    let host = Some(host).filter(|h| !h.is_empty()).map(|h| h.rsplit('@').next().unwrap_or(h).to_owned());
    ArtifactAddress::Proxy { host, path: path.trim_matches('/').to_owned() }
}

/// MLflow: store/artifact/utils/models.py `_parse_model_uri`, store/artifact/runs_artifact_repo.py `parse_runs_uri`.
fn by_id(text: &str) -> Option<ArtifactAddress> {
    let (scheme, path) = text.split_once(":/")?;
    let path = path.trim_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match scheme {
        _ if first.is_empty() => None,
        "runs" | "run" => Some(ArtifactAddress::Run { id: first.to_owned(), path: rest.to_owned() }),
        "models" if rest.is_empty() && first.starts_with("m-") => Some(ArtifactAddress::LoggedModel(first.to_owned())),
        "models" => Some(ArtifactAddress::Version { name: first.to_owned(), version: rest.parse().ok()? }),
        _ => None,
    }
}

/// What stands before the last `@` of the authority is a user and maybe a password; what a query is signed with is one.
fn masked(text: &str) -> String {
    harmless::masked(&without_login(text))
}

fn without_login(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A password may hold a `/`: then the `@` stands behind it.
    match (authority.rsplit_once('@'), path.rsplit_once('@')) {
        (Some((user, host)), _) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{path}")
        }
        (None, Some((_, after))) if authority.contains(':') => {
            format!("{scheme}://{}:***@{after}", authority.split(':').next().unwrap_or_default())
        }
        _ => text,
    }
}

impl fmt::Display for ArtifactAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactAddress::Local(path) => f.write_str(&shown(path)),
            ArtifactAddress::S3 { bucket, key } if key.is_empty() => write!(f, "s3://{bucket}"),
            ArtifactAddress::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            ArtifactAddress::Proxy { host: None, path } => write!(f, "mlflow-artifacts:/{path}"),
            ArtifactAddress::Proxy { host: Some(host), path } => write!(f, "mlflow-artifacts://{host}/{path}"),
            ArtifactAddress::LoggedModel(id) => write!(f, "models:/{id}"),
            ArtifactAddress::Version { name, version } => write!(f, "models:/{name}/{version}"),
            ArtifactAddress::Run { id, path } => write!(f, "runs:/{id}/{path}"),
            ArtifactAddress::Placeholder => f.write_str("no place"),
            ArtifactAddress::Elsewhere { shown, .. } => f.write_str(shown),
        }
    }
}

/// The form of an artifact's address, for a plan that says what there is.
pub fn form(address: &str) -> &'static str {
    let scheme = address.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
    let drive = |text: &str| {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.next() == Some(b':')
            && matches!(bytes.next(), Some(b'/' | b'\\'))
    };
    match scheme {
        _ if address.is_empty() => "(empty)",
        _ if drive(address) => "C:\\path",
        "file" if address.strip_prefix("file:///").is_some_and(drive) => "file:///C:/path",
        "file" if address.strip_prefix("file:").is_some_and(drive) => "file:C:/path",
        "file" if address.starts_with("file:///") => "file:///path",
        "file" if address.starts_with("file://") => "file://host/path",
        "file" => "file:path",
        "mlflow-artifacts" if address.starts_with("mlflow-artifacts://") => "mlflow-artifacts://host/path",
        "mlflow-artifacts" => "mlflow-artifacts:/path",
        "models" | "runs" | "run" => "by id (models:/, runs:/)",
        "s3" | "gs" | "wasbs" | "abfss" | "hdfs" | "dbfs" | "ftp" | "sftp" | "http" | "https" => {
            "object store or server"
        }
        _ if address.starts_with('/') => "/path",
        _ if address.starts_with("./") || address.starts_with("../") => "./path",
        _ if address == "dummy-source" || address.starts_with("REDACTED-") => "placeholder",
        _ if address.contains("://") => "other scheme",
        _ => "path (relative)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_addresses() {
        for (address, wanted) in [
            ("/a", "/path"),
            ("./a", "./path"),
            ("mlruns/0", "path (relative)"),
            ("file:C:/a", "file:C:/path"),
            ("file:///C:/a", "file:///C:/path"),
            ("C:\\a", "C:\\path"),
            ("file:///a", "file:///path"),
            ("mlflow-artifacts:/0", "mlflow-artifacts:/path"),
            ("s3://b/0", "object store or server"),
            ("models:/m-1", "by id (models:/, runs:/)"),
            ("dummy-source", "placeholder"),
        ] {
            assert_eq!(form(address), wanted, "{address}");
        }
    }

    #[test]
    fn places() {
        let local = |path: &str| ArtifactAddress::Local(PathBuf::from(path));
        let s3 = |bucket: &str, key: &str| ArtifactAddress::S3 { bucket: bucket.into(), key: key.into() };
        let proxy = |host: Option<&str>, path: &str| ArtifactAddress::Proxy {
            host: host.map(str::to_owned),
            path: path.into(),
        };
        let run = |id: &str, path: &str| ArtifactAddress::Run { id: id.into(), path: path.into() };
        for (text, place) in [
            ("/srv/ml", local("/srv/ml")),
            ("/srv/my%20ml", local("/srv/my ml")),
            ("./mlruns", local("./mlruns")),
            ("mlruns/0/a", local("mlruns/0/a")),
            ("file:///srv/ml", local("/srv/ml")),
            ("file:/srv/ml", local("/srv/ml")),
            ("file:mlruns", local("mlruns")),
            ("file://localhost/srv", local("/srv")),
            ("s3://bucket", s3("bucket", "")),
            ("s3://bucket/a/b/", s3("bucket", "a/b")),
            ("mlflow-artifacts:/", proxy(None, "")),
            ("mlflow-artifacts:/1/2/artifacts", proxy(None, "1/2/artifacts")),
            ("mlflow-artifacts://host:500/1", proxy(Some("host:500"), "1")),
            ("models:/m-0123", ArtifactAddress::LoggedModel("m-0123".into())),
            ("models:/my model/12", ArtifactAddress::Version { name: "my model".into(), version: 12 }),
            ("runs:/abc/model", run("abc", "model")),
            ("run:/abc", run("abc", "")),
            ("dummy-source", ArtifactAddress::Placeholder),
            ("REDACTED-SOURCE-PATH", ArtifactAddress::Placeholder),
        ] {
            assert_eq!(ArtifactAddress::parse(text), place, "{text}");
        }
        let strange = ["", "C:\\ml", "file:C:/ml", "file:///C:/ml", "file://nas/ml", "gs://b/x", "wasbs://c@a/x"];
        for text in
            strange.into_iter().chain(["hdfs://h/x", "models:/", "models:/x/Production", "s3://", "s3://k:s@b/x"])
        {
            assert!(matches!(ArtifactAddress::parse(text), ArtifactAddress::Elsewhere { .. }), "{text}");
        }
    }

    #[test]
    fn what_lies_below_an_address() {
        for (base, below) in [
            ("/srv/ml", "/srv/ml/a/b"),
            ("s3://bucket", "s3://bucket/a/b"),
            ("s3://bucket/x/", "s3://bucket/x/a/b"),
            ("mlflow-artifacts:/", "mlflow-artifacts:/a/b"),
            ("runs:/r/m", "runs:/r/m/a/b"),
            ("gs://b/x", "gs://b/x/a/b"),
        ] {
            assert_eq!(ArtifactAddress::parse(base).join("/a/b/").to_string(), below);
        }
    }

    #[test]
    fn no_password_is_ever_printed() {
        for text in [
            "ftp://ada:hunter2@h/x",
            "ftp://ada:hun/ter2@h/x",
            "sftp://ada:hunter2@x@h",
            "s3://AKIA:hunter2@b/x",
            "x://:hunter2@h",
        ] {
            let address = ArtifactAddress::parse(text);
            let said = format!("{address} {address:?}");
            assert!(!said.contains("hunter2") && !said.contains("ter2"), "{said}");
            assert!(said.contains("***@"), "{said}");
        }
        let proxy = ArtifactAddress::parse("mlflow-artifacts://ada:hunter2@h/x");
        assert!(!format!("{proxy:?}").contains("hunter2"));
    }
}
