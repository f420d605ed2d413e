//! What a backup says of itself. It is written last, with its SHA-256 beside it: a backup exists when its manifest does.

use serde::{Deserialize, Serialize};

use crate::archive::layout::sha256_hex;
use crate::domain::failure::{Failure, Outcome};

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u64 = 1;
/// Its file.
pub const MANIFEST: &str = "manifest.json";
/// The file with its SHA-256.
pub const SEAL: &str = "manifest.sha256";
/// The database's archive.
pub const DATABASE: &str = "database.tar";
/// The archive of basic-auth's database.
pub const AUTH: &str = "auth.tar";
/// The list of artifact files, a JSON object a line.
pub const LIST: &str = "artifacts.jsonl.gz";
/// The most bytes of a manifest.
pub const MOST: u64 = 16 << 20;
/// Artifacts that could not be read and are named.
pub const NAMED: usize = 1000;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name beside the manifest.
    pub file: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
}

/// A table and what its rows add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Digest, 32 hexadecimal digits.
    pub digest: String,
}

/// A database in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The archive.
    #[serde(flatten)]
    pub archive: Part,
    /// The source's address, masked.
    pub address: String,
    /// `SQLite` or `PostgreSQL`.
    pub engine: String,
    /// The engine's version.
    pub version: String,
    /// `tracking acf3f17fdcc7 (MLflow 2.8.0 to 2.12.2)`
    pub revision_text: String,
    /// Its tables.
    pub tables: Vec<Table>,
}

impl Database {
    /// Rows of a table.
    pub fn rows(&self, table: &str) -> u64 {
        self.tables.iter().find(|t| t.table == table).map_or(0, |t| t.rows)
    }
}

/// Which artifacts a backup has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those that anything in the database refers to.
    All,
    /// Those that model versions need.
    Registered,
    /// None.
    None,
}

impl Scope {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Scope::All => "all",
            Scope::Registered => "registered",
            Scope::None => "none",
        }
    }
}

/// An artifact that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Its address.
    pub address: String,
    /// Why.
    pub reason: String,
}

/// The artifacts of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// Which.
    pub scope: Scope,
    /// The addresses that paths of the list stand below, by their numbers, as they stand in the database; what
    /// opens a store that is not served is masked.
    pub roots: Vec<String>,
    /// Which of the roots is the artifact root: the others lie beside it.
    pub main: usize,
    /// The list.
    pub list: Part,
    /// Files.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Bytes that these contents take in the store, each content once.
    pub stored: u64,
    /// Files that were read; the others had the size and time of the backup before.
    pub read: u64,
    /// Contents that were not in the store before.
    pub new_files: u64,
    /// Bytes that they take in the store.
    pub new_bytes: u64,
    /// How many could not be read.
    pub unreadable: u64,
    /// The first of them.
    pub unread: Vec<Unread>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u64,
    /// What wrote it.
    pub tool: String,
    /// Its id.
    pub id: String,
    /// When it began; the snapshot of the database is a little younger. RFC 3339.
    pub started: String,
    /// When it ended.
    pub finished: String,
    /// Whether everything that was asked for is in it.
    pub complete: bool,
    /// The database.
    pub database: Database,
    /// Basic-auth's database, where it is one of its own and known.
    pub auth: Option<Database>,
    /// The artifacts.
    pub artifacts: Artifacts,
    /// What a restore needs and no backup can hold.
    pub secrets: Vec<String>,
    /// What an operator was told.
    pub warnings: Vec<String>,
}

impl Manifest {
    /// The file's content.
    ///
    /// # Errors
    /// Internal: it cannot be rendered.
    pub fn render(&self) -> Outcome<Vec<u8>> {
        let text = serde_json::to_vec_pretty(self);
        let mut text = text.map_err(|e| Failure::internal(format!("the manifest cannot be rendered: {e}")))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a manifest whose seal this is.
    ///
    /// # Errors
    /// Damaged: it is not what its seal says, is none, or of a newer format.
    pub fn parse(text: &[u8], sealed: &[u8]) -> Outcome<Manifest> {
        if sealed != seal(text).as_bytes() {
            return Err(Failure::damaged(format!("`{MANIFEST}` is not what `{SEAL}` says")));
        }
        let none = |e: serde_json::Error| Failure::damaged(format!("`{MANIFEST}` is not readable: {e}"));
        let probe: Probe = serde_json::from_slice(text).map_err(none)?;
        if probe.format > FORMAT {
            return Err(Failure::damaged(format!(
                "it was written by a newer mlops (format {}; this one reads up to {FORMAT})",
                probe.format
            ))
            .hint(format!("use {} or newer", probe.tool)));
        }
        serde_json::from_slice(text).map_err(none)
    }

    /// Bytes of all that it has in the store.
    pub fn bytes(&self) -> u64 {
        let auth = self.auth.as_ref().map_or(0, |a| a.archive.bytes);
        self.database.archive.bytes + auth + self.artifacts.list.bytes + self.artifacts.stored
    }

    /// Bytes that the store grew by.
    pub fn new_bytes(&self) -> u64 {
        self.bytes() - self.artifacts.stored + self.artifacts.new_bytes
    }
}

/// The seal's content: `sha256sum -c` reads it.
pub fn seal(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", sha256_hex(manifest))
}

#[derive(Deserialize)]
struct Probe {
    format: u64,
    #[serde(default)]
    tool: String,
}

/// A line of the list of artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Number of its root.
    pub root: u32,
    /// Path below the root.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// What tells it from another content of the same size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Bytes that the content takes in the store.
    pub stored: u64,
}
