//! Adapters to the databases that MLflow keeps its records in. Each speaks one engine's language and gives the engine
//! a source, a sink and what it saw of the schema.

pub mod parentless;
pub mod postgres;
mod removal;
pub mod scratch;
pub mod sqlite;
