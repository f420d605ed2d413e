//! `mlops`: the operator's toolkit for MLflow. This page is the map of the house.
//!
//! ```text
//! argv - cli - config - command: a plan (a value), then its execution, then a report
//!
//! RowSource --batches--> RowSink          an archive is a sink when it is written and a source when it is read
//!   sqlite  \           / postgres
//!   postgres - copy() -   sqlite          compare(a, b): any two sources
//!   archive /           \ archive
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | [`domain`] | pure: MLflow's schema by revision, values, digests, what a store is |
//! | [`engine`] | copy and compare over any source and sink; cancelling; events |
//! | [`store`] | SQLite and PostgreSQL as sources and sinks |
//! | [`mlflow`] | a tracking server over REST: typed calls, credentials, paging, faults |
//! | [`tls`] | certificates and keys out of PEM files |
//! | [`artifact`] | where artifacts are: a folder, or S3 |
//! | [`archive`] | the archive format, both directions |
//! | [`filelock`] | locks on open files |
//! | [`newfile`] | a file that gets its name when it is whole |
//! | [`source`] | opening any of them for reading: what it is, and its rows |
//! | [`migrate`] | the plan and the execution of a migration, its certificate |
//! | [`backup`] | database and artifacts as one unit: made, kept, verified, restored |
//! | [`doctor`] | how a database differs from its revision, and the SQL that mends it |
//! | [`health`] | the whole stack looked at, and one verdict |
//! | [`cleanup`] | what is old, soft-deleted by policy and put back; what is deleted, removed for good |
//! | [`promote`] | champion and challenger: gates, one switch under a lock, audit, the way back |
//! | [`verify`] | a server proved by using it: what is made for that is found, judged and removed |
//! | [`registry`] | the model registry looked at: models, versions and what they were made of |
//! | [`shell`] | a shell command, bounded in time and in words |
//! | [`demo`] | a sample store to try everything on |
//! | [`state`] | what is remembered between runs: journals, measurements, promotions |
//! | [`notify`] | pings and webhooks: how a run ended, told to others |
//! | [`config`] | settings in layers, each value with its origin; the only reader of the environment |
//! | [`cli`], [`command`] | the command line, and each command from arguments to report |
//! | [`report`] | the only room that prints |
//!
//! Rules, held by `tests/architecture.rs`: `domain` touches no I/O; `engine` knows `domain` only; adapters do not know
//! each other or a capability; only `report` prints; only `config` reads the environment.

/// This program with its version, as documents name it.
pub const TOOL: &str = concat!("mlops ", env!("CARGO_PKG_VERSION"));

pub mod archive;
pub mod artifact;
pub mod backup;
pub mod cleanup;
pub mod cli;
pub mod command;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod domain;
pub mod engine;
pub mod filelock;
pub mod health;
pub mod migrate;
pub mod mlflow;
pub mod newfile;
pub mod notify;
pub mod promote;
pub mod registry;
pub mod report;
pub mod shell;
pub mod source;
pub mod state;
pub mod store;
pub mod tls;
pub mod verify;
