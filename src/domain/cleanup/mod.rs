//! Clean-up: what is old, what is kept and why, what belongs to what.

pub mod rules;
pub mod select;
