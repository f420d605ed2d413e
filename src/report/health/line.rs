//! One look of many, as a line of a log.

use super::words::{counts, loud};
use crate::domain::harmless;
use crate::domain::health::{Examination, Status};

/// The line of one look: the time, the verdict, and the first broken check.
pub fn line(examination: &Examination) -> String {
    let time = examination.at.strftime("%H:%M:%SZ");
    let status = examination.status();
    match examination.first_broken().filter(|_| status != Status::Ok) {
        None => format!("{time} {} {}", loud(status), counts(examination)),
        Some(first) => {
            format!("{time} {} {}: {}", loud(status), harmless::line(&first.id), harmless::short(&first.summary, 120))
        }
    }
}
