//! Tables of the file whose keys are settings like those that stand in no table, so that each has its environment variable
//! and its origin: `[backup]`, `[notify]`, `[s3]`.

use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::retention::Keep;

/// Their names.
pub(super) const NAMES: [&str; 3] = ["backup", "notify", "s3"];
/// What `artifacts` may be.
const SCOPES: [&str; 3] = ["all", "registered", "none"];

/// The rule by which backups are kept that a key of the settings holds: `keep_last` of `backup.keep_last`.
pub(super) fn rule(key: &'static str) -> Option<&'static str> {
    key.strip_prefix("backup.").filter(|name| name.starts_with("keep_"))
}

/// Whether a value that stands in the file makes sense. A value that may be a secret is not repeated.
///
/// # Errors
/// Configuration: it does not.
pub(super) fn sound(table: &str, name: &str, text: &str) -> Outcome<()> {
    match (table, name) {
        ("backup", "to") if text.trim().is_empty() => {
            Err(Failure::configuration("`to` is empty").hint("a folder of this machine, or s3://bucket/path"))
        }
        ("backup", "to") => Ok(()),
        ("backup", "artifacts") if SCOPES.contains(&text) => Ok(()),
        ("backup", "artifacts") => Err(Failure::configuration(format!("`artifacts` = `{text}` is not known"))
            .hint(format!("one of: {}", SCOPES.join(", ")))),
        ("backup", rule) => {
            Keep::default().set(rule, text).map_err(|f| Failure { kind: Kind::Configuration, ..f.on(rule) })
        }
        ("notify", _) | ("s3", "endpoint_url") if !text.starts_with("http://") && !text.starts_with("https://") => {
            Err(Failure::configuration(format!("`{name}` is no address that begins with http:// or https://")))
        }
        _ => Ok(()),
    }
}
