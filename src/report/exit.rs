//! From a kind of failure to the exit code that scripts rely on.

use crate::domain::failure::Kind;

/// "Done in part": the list of what was not done is printed.
pub const PARTIAL: u8 = 4;

/// The exit code of a kind.
pub fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Internal => 1,
        Kind::Usage => 2,
        Kind::Configuration => 3,
        Kind::Differs => 5,
        Kind::Source => 6,
        Kind::Target => 7,
        Kind::Unreachable => 8,
        Kind::Refused => 9,
        Kind::Locked => 10,
        Kind::Damaged => 11,
        Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(130),
    }
}

/// Whose meaning the exit codes of a command have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Those of all commands but `health`.
    Mlops,
    /// Those of a monitoring plugin: what keeps the checks from running is UNKNOWN.
    Monitor,
    /// 0 or 1: a container's HEALTHCHECK.
    Gate,
}

impl Codes {
    /// The exit code of a failure.
    pub fn of(self, kind: Kind) -> u8 {
        match (self, kind) {
            (Codes::Mlops, _) | (_, Kind::Interrupted(_)) => code(kind),
            (Codes::Monitor, _) => 3,
            (Codes::Gate, _) => 1,
        }
    }
}
