//! `mlops backup` and `mlops restore`: a database and the artifacts that it refers to, as one unit.
//!
//! ```text
//! DEST/<id>/database.tar        the archive of `migrate export`
//! DEST/<id>/auth.tar            basic-auth's database, where it is one of its own and known
//! DEST/<id>/artifacts.jsonl.gz  its files: root, path, size, time, SHA-256
//! DEST/<id>/manifest.json       what it is, and what each of these must be; manifest.sha256 beside it. They come last
//! DEST/artifacts/sha256/ab/     contents by their SHA-256, shared by all backups
//! ```

pub mod bundle;
pub mod create;
pub mod manifest;
pub mod object;
pub mod place;
mod proxy;
pub mod prune;
mod references;
pub mod repository;
pub mod restore;
mod root;
mod secrets;
pub mod verify;
