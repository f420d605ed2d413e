//! Promotion of model versions: where a version is put, what is asked of it, and what is kept of it.

pub mod choice;
pub mod gate;
pub mod history;
pub mod place;
pub mod record;
pub mod requirement;
pub mod settings;
