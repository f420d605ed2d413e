//! Whose a place of artifacts is: addresses in a form that can be compared, and which of them are never removed.

use std::path::Component;

use crate::domain::artifact_address::ArtifactAddress;

/// A place that may be removed, as far as its address tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: ArtifactAddress,
    /// The same as [`key`].
    pub key: String,
}

/// An address in the one form that all addresses of that place have: without a slash at its end. What lies behind the
/// server's proxy is below `root`, where that is known. `None`: it names no place of its own.
pub fn key(address: &ArtifactAddress, root: Option<&ArtifactAddress>) -> Option<String> {
    match address {
        ArtifactAddress::Local(path) if path.is_absolute() => {
            let mut key = "file:".to_owned();
            for part in path.components() {
                match part {
                    Component::RootDir => {}
                    Component::Normal(name) => {
                        key.push('/');
                        key.push_str(name.to_str()?);
                    }
                    _ => return None,
                }
            }
            Some(key)
        }
        ArtifactAddress::S3 { bucket, key } if key.is_empty() => Some(format!("s3://{bucket}")),
        ArtifactAddress::S3 { bucket, key } => Some(format!("s3://{bucket}/{key}")),
        ArtifactAddress::Proxy { host: None, path } => match root {
            Some(root @ (ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. })) => key(&root.join(path), None),
            _ if path.is_empty() => Some("proxy:".to_owned()),
            _ => Some(format!("proxy:/{path}")),
        },
        ArtifactAddress::Proxy { host: Some(host), path } => Some(format!("proxy://{host}/{path}")),
        _ => None,
    }
}

/// The address of a key.
pub fn address(key: &str) -> ArtifactAddress {
    match key.split_once(':') {
        Some(("file", path)) => ArtifactAddress::Local(path.into()),
        Some(("proxy", path)) => ArtifactAddress::Proxy { host: None, path: path.trim_start_matches('/').to_owned() },
        _ => ArtifactAddress::parse(key),
    }
}

/// The places above that key, nearest first; the store itself is not among them.
pub fn above(key: &str) -> impl Iterator<Item = &str> {
    let begin = key.find(":/").map_or(0, |at| at + 2);
    let ends = key.char_indices().rev().filter(move |(at, c)| *c == '/' && *at > begin);
    ends.filter_map(|(at, _)| key.get(..at))
}

/// Reads the address of something that is to be removed.
///
/// # Errors
/// Why it is never removed, for people.
pub fn removable(text: &str, root: Option<&ArtifactAddress>) -> Result<Place, String> {
    let address = ArtifactAddress::parse(text);
    let own = match &address {
        ArtifactAddress::Local(path) => {
            if path.components().any(|part| matches!(part, Component::ParentDir)) {
                return Err("its path leads elsewhere (..)".to_owned());
            }
            if !path.is_absolute() {
                return Err("a relative path is another folder to each process".to_owned());
            }
            path.to_str().map(str::to_owned).ok_or("its path is no text")?
        }
        ArtifactAddress::S3 { key, .. } => key.clone(),
        ArtifactAddress::Proxy { host: None, path } => path.clone(),
        ArtifactAddress::Proxy { host: Some(_), .. } => return Err("it lies behind another server's proxy".to_owned()),
        ArtifactAddress::Elsewhere { why, .. } => return Err((*why).to_owned()),
        _ => return Err("it names no place of its own".to_owned()),
    };
    let own = own.trim_matches('/');
    if own.is_empty() {
        return Err("it is the whole store".to_owned());
    }
    if own.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("its path leads elsewhere".to_owned());
    }
    let key = key(&address, root).ok_or("it names no place of its own")?;
    if key.starts_with("file:") && key.matches('/').count() < 2 {
        return Err("it is a folder of the system".to_owned());
    }
    let root = root.and_then(|root| self::key(root, None));
    if root.is_some_and(|root| root == key || root.starts_with(&format!("{key}/"))) {
        return Err("the artifact root lies in it".to_owned());
    }
    Ok(Place { address, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_removed() {
        let root = ArtifactAddress::parse("/srv/ml");
        for text in [
            "",
            "/",
            "/srv",
            "/srv/ml",
            "/srv/ml/",
            "file:///srv/ml",
            "./1/abc",
            "1/abc",
            "/srv/ml/../x",
            "/srv/ml/1/..",
            "/srv/ml/%2e%2e/x",
            "s3://bucket",
            "s3://bucket/",
            "s3://bucket/a//b",
            "s3://bucket/a/../b",
            "runs:/abc/m",
            "models:/m-1",
            "dummy-source",
            "gs://b/x",
            "mlflow-artifacts:/",
            "mlflow-artifacts:",
            "file:C:/x",
            "mlflow-artifacts://other/1/2",
            "mlflow-artifacts:/../etc/x",
        ] {
            assert!(removable(text, Some(&root)).is_err(), "{text}: {:?}", removable(text, Some(&root)));
        }
        let bucket = ArtifactAddress::parse("s3://bucket/deep/root");
        assert!(removable("s3://bucket/deep", Some(&bucket)).is_err());
        assert!(removable("s3://bucket/dee", Some(&bucket)).is_ok(), "a name that only begins alike");
    }

    #[test]
    fn one_place_has_one_key() {
        let root = ArtifactAddress::parse("/srv/ml");
        let own = |text: &str| removable(text, Some(&root)).map(|p| p.key);
        let same = Ok("file:/srv/ml/1/abc/artifacts".to_owned());
        for text in ["/srv/ml/1/abc/artifacts", "file:///srv/ml/1/abc/artifacts/", "mlflow-artifacts:/1/abc/artifacts"]
        {
            assert_eq!(own(text), same, "{text}");
        }
        assert_eq!(removable("mlflow-artifacts:/1/abc", None).map(|p| p.key), Ok("proxy:/1/abc".to_owned()));
        let above = |key: &'static str| super::above(key).collect::<Vec<_>>();
        assert_eq!(above("file:/a/b/c"), ["file:/a/b", "file:/a"]);
        assert_eq!(above("s3://b/x/y"), ["s3://b/x", "s3://b"]);
        assert_eq!(above("proxy:/1/2"), ["proxy:/1"]);
    }
}
