//! What can go wrong, in the terms of the exit codes that scripts rely on.
//!
//! A [`Failure`] carries its kind (which decides the exit code), one sentence that says what failed on which
//! thing and why, and, where there is one, a hint that says what to do next. It never carries a secret: texts
//! that come from a driver are cleaned by whoever turns them into a failure.

use std::fmt;

/// The kinds of failure; `report::exit` gives each its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A defect of this program.
    Internal,
    /// Wrong arguments.
    Usage,
    /// A wrong or missing setting.
    Configuration,
    /// The check was made and says no: stores differ, data are lost, a gate refused.
    Differs,
    /// The source failed or is unfit for the job.
    Source,
    /// The target failed or is unfit for the job.
    Target,
    /// A server could not be reached.
    Unreachable,
    /// Something that exists would be changed and nobody agreed to that.
    Refused,
    /// Another mlops works on the same thing.
    Locked,
    /// An archive or a backup that is damaged, unfinished, or of a newer format than this program reads.
    Damaged,
    /// SIGINT or SIGTERM, with the signal's number.
    Interrupted(i32),
}

impl Kind {
    /// The stable word for this kind in JSON documents.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Internal => "internal",
            Kind::Usage => "usage",
            Kind::Configuration => "configuration",
            Kind::Differs => "differs",
            Kind::Source => "source",
            Kind::Target => "target",
            Kind::Unreachable => "unreachable",
            Kind::Refused => "refused",
            Kind::Locked => "locked",
            Kind::Damaged => "damaged",
            Kind::Interrupted(_) => "interrupted",
        }
    }
}

/// One failure: kind, message, hint.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed, on which thing, why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), hint: None }
    }

    /// The same failure with a word on what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault of a database that is read here: its adapter calls it the target's, whatever it is for the job.
    #[must_use]
    pub fn as_source(mut self) -> Self {
        if self.kind == Kind::Target {
            self.kind = Kind::Source;
        }
        self
    }

    /// The same fault of a store that is the job's target, though it was met while reading.
    #[must_use]
    pub fn as_target(mut self) -> Self {
        if self.kind == Kind::Source {
            self.kind = Kind::Target;
        }
        self
    }

    /// The same failure with the thing it happened on in front of its message.
    #[must_use]
    pub fn on(mut self, thing: impl fmt::Display) -> Self {
        self.message = format!("{thing}: {}", self.message);
        self
    }
}

/// Short constructors, one per kind that is made in many places.
macro_rules! constructor {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        impl Failure {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Failure::new(Kind::$kind, message) })*
        }
    };
}

constructor! {
    /// A defect of this program.
    internal => Internal;
    /// Wrong arguments.
    usage => Usage;
    /// A wrong or missing setting.
    configuration => Configuration;
    /// The check says no.
    differs => Differs;
    /// The source failed or is unfit.
    source => Source;
    /// The target failed or is unfit.
    target => Target;
    /// A server could not be reached.
    unreachable => Unreachable;
    /// No consent.
    refused => Refused;
    /// Another mlops holds the lock.
    locked => Locked;
    /// An archive is damaged, unfinished or too new.
    damaged => Damaged;
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The result of everything that can fail in a way an operator must hear of.
pub type Outcome<T> = Result<T, Failure>;
