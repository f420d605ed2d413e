//! The names of the entries, and the limits that writer and reader both keep.

use sha2::{Digest as _, Sha256};

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

/// The first entry: what the archive is.
pub const ABOUT: &str = "mlops-archive.json";
/// CREATE TABLE statements for PostgreSQL.
pub const TABLES: &str = "schema/postgres.sql";
/// What PostgreSQL gets after the rows.
pub const POST_DATA: &str = "schema/post-data.sql";
/// The source's own statements, of a SQLite source.
pub const SQLITE: &str = "schema/sqlite.sql";
/// The psql script.
pub const RESTORE: &str = "restore.sql";
/// Tables and entries, with what they must be.
pub const MANIFEST: &str = "manifest.json";
/// The last entry: the manifest's SHA-256.
pub const SEAL: &str = "manifest.sha256";

/// A piece of a table's rows closes at this many bytes of COPY text, so that memory does not grow with the table.
pub const PIECE_BYTES: u64 = 8 << 20;
/// No row may be longer than this as COPY text. PostgreSQL itself takes no field over 1 GiB.
pub const MAX_ROW_BYTES: usize = 256 << 20;
/// Entries at most: some 800 GB of rows.
pub const MAX_ENTRIES: usize = 100_000;
/// Columns of a table at most: SQLite's own limit, and PostgreSQL's is 1,600.
pub const MAX_COLUMNS: usize = 2_000;
/// The most bytes of an entry that is not data and not the manifest.
pub const MAX_TEXT_BYTES: u64 = 16 << 20;
/// The most bytes of the manifest, which has a line for each entry.
pub const MAX_MANIFEST_BYTES: u64 = 32 << 20;

/// How data entries are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip, which is everywhere.
    #[default]
    Gzip,
    /// Zstandard: smaller and faster.
    Zstd,
}

impl Compression {
    /// The word for it in documents.
    pub fn word(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// The compression of that word.
    pub fn of_word(word: &str) -> Option<Compression> {
        [Compression::Gzip, Compression::Zstd].into_iter().find(|c| c.word() == word)
    }

    /// How names of entries end.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::Gzip => "gz",
            Compression::Zstd => "zst",
        }
    }
}

/// The name of a piece of a table's rows; `number` counts from 1, `None`: the only piece of a small table.
pub fn piece_name(table: &str, number: Option<usize>, compression: Compression) -> String {
    let number = number.map_or(String::new(), |n| format!(".{n:04}"));
    format!("data/{}.copy{number}.{}", label(table), compression.suffix())
}

/// The most bytes of a table in an entry's name: `data/`, the number and the suffix fit a tar header's 100 beside it.
const LABEL_BYTES: usize = 72;

/// A table's name as part of a file's name, whatever characters it has. Two tables never have the same.
fn label(table: &str) -> String {
    let mut label = String::new();
    for byte in table.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => label.push(char::from(byte)),
            _ => label.push_str(&format!("%{byte:02X}")),
        }
    }
    if label.len() <= LABEL_BYTES {
        return label;
    }
    // `~` is in no other label.
    let hash = sha256_hex(table.as_bytes());
    label.chars().take(LABEL_BYTES - 17).chain("~".chars()).chain(hash.chars().take(16)).collect()
}

/// Whether an entry may have that name at all; which ones an archive has, and where, says its manifest.
pub fn is_entry_name(name: &str) -> bool {
    let data = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'%' | b'~' | b'.');
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
    };
    [ABOUT, TABLES, POST_DATA, SQLITE, RESTORE, MANIFEST, SEAL].contains(&name)
        || name.strip_prefix("data/").is_some_and(data)
}

/// The most bytes that the reader keeps of an entry; `None`: a data entry, which is not kept.
pub fn limit(name: &str) -> Option<u64> {
    match name {
        MANIFEST => Some(MAX_MANIFEST_BYTES),
        SEAL => Some(1 << 10),
        _ if name.starts_with("data/") => None,
        _ => Some(MAX_TEXT_BYTES),
    }
}

/// The content of the last entry.
pub fn seal(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", sha256_hex(manifest))
}

/// SHA-256 as 64 hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_safe_name_of_its_own() {
        let long = "ä".repeat(60);
        let longer = "ä".repeat(61);
        let tables = ["metrics", "..", "a/b", "a b", "-rf", "'; --", &long, &longer, "a%20b", "A"];
        let mut names: Vec<String> = tables.iter().map(|t| piece_name(t, Some(12_345), Compression::Zstd)).collect();
        assert!(names.iter().all(|n| n.len() <= 100 && is_entry_name(n)), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), tables.len());
        assert_eq!(piece_name("metrics", None, Compression::Gzip), "data/metrics.copy.gz");
        assert_eq!(piece_name("metrics", Some(7), Compression::Zstd), "data/metrics.copy.0007.zst");
    }

    #[test]
    fn other_names_are_no_entries() {
        for name in
            ["", "/etc/passwd", "../x", "data/../x", "data/", "data/a/b", "data/.x", "data", "x.json", "data/a b"]
        {
            assert!(!is_entry_name(name), "{name}");
        }
    }
}
