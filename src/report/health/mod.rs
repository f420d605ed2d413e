//! The health of a stack in the forms that people and monitoring systems read. Each form is a file with a function from
//! what was found to text; none of them asks the clock, and what came from outside is harmless in all of them.

pub mod incident;
pub mod json;
mod line;
pub mod markdown;
pub mod nagios;
pub mod plan;
pub mod prometheus;
pub mod table;
pub mod textfile;
pub(super) mod words;

use crate::domain::health::Status;

pub use line::line;

/// The number of a status, as plugins of monitoring systems end with it: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
pub fn code(status: Status) -> u8 {
    match status {
        Status::Ok => 0,
        Status::Warning => 1,
        Status::Critical => 2,
        Status::Unknown => 3,
    }
}
