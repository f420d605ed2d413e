//! The model registry looked at: models, versions and what they were made of.

pub mod download;
pub mod export;
pub mod files;
pub mod find;
pub mod location;
pub mod metrics;
pub mod mlmodel;
pub mod overview;
pub mod register;
pub mod show;
