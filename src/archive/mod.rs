//! The archive: a store in one file. A sink when it is written, a source when it is read.
//!
//! A plain tar whose entries are compressed one by one, so that an operator without this program gets at everything:
//!
//! ```text
//! mlops-archive.json      what it is: format version, source, revisions, tables with their columns
//! schema/postgres.sql     the tables
//! schema/post-data.sql    indexes, keys, triggers, sequences
//! schema/sqlite.sql       the source's own statements, when the source was SQLite
//! data/<table>.copy.gz    rows in COPY's text format; .0001 .0002 ... where there are more pieces than one
//! restore.sql             `tar xf` and `psql -f restore.sql` bring it back
//! manifest.json           per table rows and digest, per entry sizes and SHA-256
//! manifest.sha256         the manifest's own SHA-256; it comes last, so what lacks it is unfinished
//! ```
//!
//! A reader trusts nothing: before the first row is handed on, every header, every padding and every stored byte has
//! been checked, and while rows are read what they may cost is bounded by what the manifest says.

pub mod about;
pub mod frame;
pub mod layout;
pub mod manifest;
pub mod output;
pub mod piece;
pub mod reader;
pub mod rows;
mod script;
pub mod stored;
mod walk;
pub mod writer;
