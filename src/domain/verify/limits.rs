//! `[verify.concurrency]`: what concurrent writers must come to.

use serde::Deserialize;

use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::Unit;
use crate::domain::health::settings::Amount;
use crate::domain::health::sound::{Place, Sound, Wrong};

/// `[verify]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySettings {
    /// What `mlops verify concurrency` is judged by.
    pub concurrency: Written,
}

/// Limits as they are written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    /// The 95th percentile of each operation.
    pub max_p95: Option<Amount>,
    /// Operations a second, all together.
    pub min_rate: Option<f64>,
    /// Operations that failed.
    pub max_errors: Option<u64>,
    /// How many times slower than the baseline.
    pub worse_than: Option<f64>,
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The 95th percentile of each operation, in milliseconds.
    pub max_p95: Option<f64>,
    /// Operations a second, all together.
    pub min_rate: Option<f64>,
    /// Operations that failed.
    pub max_errors: u64,
    /// How many times slower than the baseline.
    pub worse_than: Option<f64>,
}

impl Written {
    /// These, and of another's what is not among them.
    #[must_use]
    pub fn or(self, other: &Written) -> Written {
        Written {
            max_p95: self.max_p95.or_else(|| other.max_p95.clone()),
            min_rate: self.min_rate.or(other.min_rate),
            max_errors: self.max_errors.or(other.max_errors),
            worse_than: self.worse_than.or(other.worse_than),
        }
    }

    /// As limits. Without one for errors none may fail.
    ///
    /// # Errors
    /// Configuration: an amount that is none.
    pub fn limits(&self) -> Outcome<Limits> {
        let positive = |name: &str, number: Option<f64>, least: f64| match number {
            Some(n) if !(n.is_finite() && n >= least) => {
                Err(Failure::configuration(format!("{name}: {n} is less than {least}")))
            }
            other => Ok(other),
        };
        let max_p95 = self.max_p95.as_ref().map(|a| a.in_unit(Unit::Seconds)).transpose()?;
        Ok(Limits {
            max_p95: positive("max_p95", max_p95, 0.0)?.map(|seconds| seconds * 1e3),
            min_rate: positive("min_rate", self.min_rate, 0.0)?,
            max_errors: self.max_errors.unwrap_or(0),
            worse_than: positive("worse_than", self.worse_than, 1.0)?,
        })
    }
}

/// Whether the table makes sense.
pub(crate) fn sound(settings: &VerifySettings) -> Sound {
    match settings.concurrency.limits() {
        Ok(_) => Ok(()),
        Err(failure) => {
            let key = if failure.message.starts_with("min_rate") {
                "min_rate"
            } else if failure.message.starts_with("worse_than") {
                "worse_than"
            } else {
                "max_p95"
            };
            Err(Wrong { at: Place::default().to("concurrency").to(key), failure })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_file() {
        let file =
            Written { max_p95: Some(Amount::Text("500 ms".to_owned())), max_errors: Some(3), ..Written::default() };
        let flags = Written { max_errors: Some(0), min_rate: Some(50.0), ..Written::default() };
        let limits = flags.or(&file).limits().expect("sound");
        assert_eq!(limits, Limits { max_p95: Some(500.0), min_rate: Some(50.0), max_errors: 0, worse_than: None });
        for wrong in [
            Written { max_p95: Some(Amount::Text("soon".to_owned())), ..Written::default() },
            Written { worse_than: Some(0.5), ..Written::default() },
            Written { min_rate: Some(f64::NAN), ..Written::default() },
        ] {
            assert!(wrong.limits().is_err(), "{wrong:?}");
        }
    }
}
