//! Clean-up: what is old, what is kept and why, what belongs to what.

pub mod belongings;
pub mod parentless;
pub mod rules;
pub mod select;
pub mod territory;
pub mod unit;
