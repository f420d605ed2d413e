//! Telling others how a run ended: [`ping`]s for a monitor of cron jobs, [`webhook`]s for a chat.
//!
//! Both are told over HTTP with an address that is itself the key, so it is a secret. Neither can change how a run
//! ends: what cannot be delivered in time is a warning.

mod address;
pub mod ping;
mod send;
pub mod webhook;

pub use address::SecretAddress;
pub use send::Sender;
