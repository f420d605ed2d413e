//! A place of artifacts that a database names, as long as it answers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::artifact::files::Files;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Kind, Outcome};

/// A root that fails so often in a row, and for so long, is given up.
const FAILURES: u32 = 10;
const FAILING: Duration = Duration::from_secs(10);

/// A root and its files.
pub(super) struct Root {
    address: ArtifactAddress,
    files: Result<Box<dyn Files>, String>,
    /// Whether it is the artifact root.
    main: bool,
    /// Since when it has done nothing but fail, and how often.
    failing: Mutex<Option<(Instant, u32)>>,
}

impl Root {
    pub(super) fn new(files: Result<Box<dyn Files>, String>, address: ArtifactAddress, main: bool) -> Root {
        Root { address, files, main, failing: Mutex::default() }
    }

    pub(super) fn at(&self, path: &str) -> String {
        self.address.join(path).to_string()
    }

    /// Its files; else why there are none. A store that is down costs each folder its tries and waits, and there may be
    /// many: one that has done nothing but fail is not asked any more.
    pub(super) fn files(&self) -> Result<&dyn Files, String> {
        let failing = *self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match (&self.files, failing) {
            (Ok(_), Some((since, count))) if count >= FAILURES && since.elapsed() > FAILING => {
                Err(format!("not asked for: the {count} questions before were not answered"))
            }
            (Ok(files), _) => Ok(files.as_ref()),
            (Err(why), _) => Err(why.clone()),
        }
    }

    /// Notes how it went. What failed is for the caller to tell.
    pub(super) fn heard<T>(&self, outcome: Outcome<T>) -> Outcome<Result<T, Failure>> {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(value) => {
                *failing = None;
                Ok(Ok(value))
            }
            Err(failure) if matches!(failure.kind, Kind::Source | Kind::Unreachable) => {
                failing.get_or_insert((Instant::now(), 0)).1 += 1;
                Ok(Err(failure))
            }
            // A version in somebody else's bucket, which no key here is for, is one artifact that cannot be read; the
            // stack's own root without a key is a mistake in the settings.
            Err(failure) if failure.kind == Kind::Configuration && !self.main => Ok(Err(failure)),
            Err(failure) => Err(failure),
        }
    }
}
