//! SQLite: a private snapshot of the operator's file, what is in it, its rows, and a new file as a sink.

pub mod cut;
pub mod docket;
pub mod examine;
pub mod introspect;
pub mod ledger;
pub mod lock;
pub mod members;
pub mod monitor;
pub mod occupied;
pub mod outline;
pub mod purge;
pub mod quarantine;
pub mod rules;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod survey;
pub mod users;

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// Opens a file read-only. `immutable`: SQLite takes no lock and looks at no journal, which is right only for a
/// file that nothing changes.
fn open_readonly(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        // SQLite's URI filenames take any byte as %HH (SQLite documentation, "Uniform Resource Identifiers").
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02x}");
        }
    }
    uri.push_str(if immutable { "?mode=ro&immutable=1" } else { "?mode=ro" });
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// A failure of the source that says what SQLite said of which file.
fn source_failure(path: &Path, error: &rusqlite::Error) -> Failure {
    let failure = Failure::source(format!("{}: {}", shown(path), sqlite_text(error)));
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            failure.hint("restore a backup, or save what can be read with `sqlite3 FILE .recover` into a new file")
        }
        _ => failure,
    }
}

/// What SQLite says, without rusqlite's wrapping, and with a word for what an operator meets.
fn sqlite_text(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            let text = text.clone().unwrap_or_else(|| code.to_string());
            match code.code {
                rusqlite::ErrorCode::NotADatabase => format!("{text} (or it is encrypted)"),
                _ => text,
            }
        }
        other => other.to_string(),
    }
}

trait Explain<T> {
    fn of_source(self, path: &Path) -> Outcome<T>;
    fn of_target(self, path: &Path) -> Outcome<T>;
}

impl<T> Explain<T> for rusqlite::Result<T> {
    fn of_source(self, path: &Path) -> Outcome<T> {
        self.map_err(|e| source_failure(path, &e))
    }

    fn of_target(self, path: &Path) -> Outcome<T> {
        self.map_err(|e| Failure::target(format!("{}: {}", shown(path), sqlite_text(&e))))
    }
}
