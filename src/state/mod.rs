//! The state folder: what mlops remembers between runs.

pub mod history;
mod journal;
pub mod lock;
pub mod promotions;

pub use journal::{Journal, Told, Unfinished, add_to, close, ids, new_id, told, unfinished};
