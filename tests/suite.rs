//! The whole test suite in one binary: the command line against real databases, real MLflow servers and real faults.
//!
//! | variable | meaning |
//! |---|---|
//! | `MLOPS_CORPUS` | folder with real MLflow databases; without it those tests say that they were skipped |
//! | `MLOPS_TEST_ROUNDS` | kills, cuts and generated cases per test (default 10) |
//! | `MLOPS_TEST_CACHE` | where the environments with MLflow and PostgreSQL are kept between runs |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod architecture;
mod archives;
mod artifacts;
mod backup_faults;
mod backup_objects;
mod backup_settings;
mod backups;
mod catalogue;
mod cleanup;
mod client;
mod command_line;
mod copy_text;
mod corpus;
mod deploy;
mod disasters;
mod doctor;
mod exports;
mod faults;
mod flows;
mod generated;
mod guides;
mod health;
mod health_backup;
mod health_database;
mod health_faults;
mod health_outputs;
mod health_report;
mod init;
mod json_reference;
mod models;
mod notify;
mod orphans;
mod pages;
mod places;
mod policies;
mod probes;
mod promotion_bounds;
mod promotion_faults;
mod promotion_gates;
mod promotion_races;
mod promotions;
mod properties;
mod purge;
mod recipes;
mod runs;
mod secrets;
mod settings;
mod snapshots;
mod support;
mod targets;
mod tls;
mod transcripts;
mod verify_concurrency;
mod verify_deployment;
mod verify_persistence;
