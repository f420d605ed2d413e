//! `[backup]`: where backups are kept, and which of them, where no flag says so. Its keys are settings like those that
//! stand in no table, so each has its environment variable.

use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::retention::Keep;

/// The table's name.
pub(super) const TABLE: &str = "backup";
/// What `artifacts` may be.
const SCOPES: [&str; 3] = ["all", "registered", "none"];

/// The rule that a key of the settings holds: `keep_last` of `backup.keep_last`.
pub(super) fn rule(key: &'static str) -> Option<&'static str> {
    key.strip_prefix(TABLE)?.strip_prefix('.').filter(|name| name.starts_with("keep_"))
}

/// Whether a value of the table makes sense.
///
/// # Errors
/// Configuration: it does not.
pub(super) fn sound(name: &str, text: &str) -> Outcome<()> {
    match name {
        "to" if text.trim().is_empty() => {
            Err(Failure::configuration("`to` is empty").hint("a folder of this machine, or s3://bucket/path"))
        }
        "to" => Ok(()),
        "artifacts" if SCOPES.contains(&text) => Ok(()),
        "artifacts" => Err(Failure::configuration(format!("`artifacts` = `{text}` is not known"))
            .hint(format!("one of: {}", SCOPES.join(", ")))),
        rule => Keep::default().set(rule, text).map_err(|f| Failure { kind: Kind::Configuration, ..f.on(rule) }),
    }
}
