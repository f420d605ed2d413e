//! Migrations: from one store to another, exact to the cell, all or nothing.
//!
//! A [`plan::Plan`] is made first and is a value; [`execute`] takes it. [`verify`] compares any two stores.

pub mod execute;
pub mod outcome;
pub mod part;
mod pipeline;
pub mod plan;
pub mod policy;
pub mod survey;
pub mod verify;
