//! The process' environment, read once.

use std::collections::HashMap;

use crate::domain::failure::{Failure, Outcome};

/// Environment variables. An empty one counts as not set, as libpq and MLflow have it.
#[derive(Debug, Clone, Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// That of this process; a value that is not UTF-8 counts as not set.
    pub fn of_process() -> Environment {
        let pairs = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Environment(pairs.collect())
    }

    /// One that holds just these, for tests.
    pub fn of(pairs: &[(&str, &str)]) -> Environment {
        Environment(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|v| !v.is_empty()).cloned()
    }

    /// Whether a variable says yes, in MLflow's words: true or 1, and false or 0. One that is not set says no.
    ///
    /// # Errors
    /// Configuration: another word.
    pub fn truth(&self, name: &str) -> Outcome<bool> {
        match self.get(name).map(|v| v.to_lowercase()).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(Failure::configuration(format!("{name} is neither true nor false"))),
        }
    }
}
