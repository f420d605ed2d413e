//! The state folder: what mlops remembers between runs.

pub mod history;
mod journal;
pub mod promotions;

pub use journal::{Journal, Unfinished, new_id, unfinished};
