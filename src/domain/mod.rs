//! Pure: no I/O, no clock, no command line. What MLflow's tables are, what a value is, what equality means.

pub mod address;
pub mod amend;
pub mod artifact_address;
pub mod catalogue;
pub mod cell;
pub mod condition;
pub mod consent;
pub mod copy_codec;
pub mod copy_text;
pub mod ddl;
pub mod digest;
pub mod examination;
pub mod expression;
pub mod failure;
pub mod fit;
pub mod glob;
pub mod harmless;
pub mod health;
pub mod identity;
pub mod mention;
pub mod object_storage;
pub mod server;
pub mod step;
pub mod table;
pub mod tracking;
pub mod trend;
