//! Promotion: a challenger judged by gates, one switch under a lock that is read back, an audit trail, the way back.
//!
//! [`plan`] reads the registry and judges; the plan is a value that is printed. [`switch`] carries it out while
//! [`lock`] keeps other mlops away: it looks again whether the registry is what the plan saw, leaves a record with the
//! version, sets the alias and the stage, reads both back, and repairs what a client without a lock did in between.
//! [`settle`] ends what an interrupted switch left. [`audit`] gathers who was champion when.

pub mod audit;
mod gates;
pub mod lock;
pub mod plan;
mod read;
pub mod settle;
pub mod switch;
