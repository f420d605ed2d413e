//! Consent: a function that changes or removes something that exists takes a [`Confirmed`], and only the check below
//! makes one.

use crate::domain::failure::{Failure, Outcome};

/// The proof that an operator agreed.
#[derive(Debug)]
pub struct Confirmed(());

/// How an operator can agree.
pub struct Consent<'a> {
    /// `--yes` was given.
    pub yes: bool,
    /// Asks on the terminal; `None` where there is none to ask on.
    pub ask: &'a dyn Fn(&str) -> Option<bool>,
}

impl Consent<'_> {
    /// Asks whether `what` may be done.
    ///
    /// # Errors
    /// Refused: the answer was no, or nobody could be asked.
    pub fn to(&self, what: &str) -> Outcome<Confirmed> {
        if self.yes {
            return Ok(Confirmed(()));
        }
        match (self.ask)(what) {
            Some(true) => Ok(Confirmed(())),
            Some(false) => Err(Failure::refused(format!("not done, as you said: {what}"))),
            None => Err(Failure::refused(format!("this needs your consent: {what}"))
                .hint("run it on a terminal and answer, or give --yes")),
        }
    }
}
