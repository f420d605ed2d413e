//! What a verification came to; what concurrent writers wrote, and what a store has of it.

pub mod account;
pub mod fingerprint;
pub mod ledger;
pub mod limits;
pub mod writes;
