//! What is asked of a challenger: by flags, and by `[promote.models."NAME"]`.

use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::choice::alias_name;
use super::place::Mode;
use super::requirement::Requirement;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::sound::{Place, Sound, Wrong};
use crate::domain::span;

/// How long a command that judges may take, where nothing says otherwise.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest that one may be given.
const LONGEST_CHECK: Duration = Duration::from_secs(24 * 3_600);

/// `[promote]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromoteSettings {
    /// By the name of the model.
    pub models: BTreeMap<String, Wanted>,
}

/// What is asked, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// `stage`, `alias` or `both`.
    pub mode: Option<String>,
    /// The alias of the version in production.
    pub champion: Option<String>,
    /// The alias of the next one.
    pub challenger: Option<String>,
    /// Comparisons of metrics.
    pub require: Vec<String>,
    /// `KEY=VALUE`, or `KEY` where any value will do.
    pub require_tag: Vec<String>,
    /// Whether the model has to have a signature.
    pub require_signature: bool,
    /// The oldest that it may be.
    pub max_age: Option<String>,
    /// How long it must have waited as challenger.
    pub soak: Option<String>,
    /// Tags with the name of who approved.
    #[serde(deserialize_with = "one_or_many")]
    pub approve_by_tag: Vec<String>,
    /// Commands whose exit code is a verdict.
    pub check: Vec<String>,
    /// How long each of them may take.
    pub check_timeout: Option<String>,
}

/// What is asked, understood.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Comparisons of metrics.
    pub require: Vec<Requirement>,
    /// Tags and their values; `None`: any value.
    pub tags: Vec<(String, Option<String>)>,
    /// Whether the model has to have a signature.
    pub signature: bool,
    /// The oldest that it may be.
    pub max_age: Option<Duration>,
    /// How long it must have waited.
    pub soak: Option<Duration>,
    /// The tags of those who approved.
    pub approvals: Vec<String>,
    /// Commands.
    pub checks: Vec<String>,
    /// How long each of them may take.
    pub check_timeout: Duration,
}

/// A time that is asked for.
fn time(text: &str) -> Outcome<Duration> {
    span::parse(text)
        .ok_or_else(|| Failure::configuration(format!("`{text}` is not a time")).hint("`24h`, `30d`, `90 min`"))
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(text) => vec![text],
        Either::Many(all) => all,
    })
}

/// Of two times the one that asks more; one that is none is kept, and found out when it is understood.
fn stricter(file: Option<String>, flag: Option<String>, first: fn(Duration, Duration) -> bool) -> Option<String> {
    match (file, flag) {
        (Some(file), Some(flag)) => match (time(&file), time(&flag)) {
            (Ok(a), Ok(b)) if first(a, b) => Some(file),
            _ => Some(flag),
        },
        (file, flag) => file.or(flag),
    }
}

impl Wanted {
    /// What the flags ask beside what the file asks: all of both, and of two times the stricter one.
    #[must_use]
    pub fn with(self, flags: Wanted) -> Wanted {
        Wanted {
            mode: flags.mode.or(self.mode),
            champion: flags.champion.or(self.champion),
            challenger: flags.challenger.or(self.challenger),
            require: [self.require, flags.require].concat(),
            require_tag: [self.require_tag, flags.require_tag].concat(),
            require_signature: self.require_signature || flags.require_signature,
            max_age: stricter(self.max_age, flags.max_age, |a, b| a <= b),
            soak: stricter(self.soak, flags.soak, |a, b| a >= b),
            approve_by_tag: [self.approve_by_tag, flags.approve_by_tag].concat(),
            check: [self.check, flags.check].concat(),
            check_timeout: flags.check_timeout.or(self.check_timeout),
        }
    }

    /// How the champion is marked, where that is said.
    ///
    /// # Errors
    /// Configuration: another word.
    pub fn mode(&self) -> Outcome<Option<Mode>> {
        match self.mode.as_deref() {
            None => Ok(None),
            Some("stage") => Ok(Some(Mode::Stage)),
            Some("alias") => Ok(Some(Mode::Alias)),
            Some("both") => Ok(Some(Mode::Both)),
            Some(other) => {
                Err(Failure::configuration(format!("`{other}` is no mode")).hint("`stage`, `alias` or `both`"))
            }
        }
    }

    /// Understands it.
    ///
    /// # Errors
    /// Configuration: what is not understood, and where.
    pub fn asked(&self) -> Outcome<Asked> {
        let tag = |text: &String| {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v.to_owned())));
            if key.is_empty() {
                return Err(Failure::configuration(format!("`{text}` names no tag")).hint("KEY=VALUE, or KEY"));
            }
            Ok((key.to_owned(), value))
        };
        let check_timeout = self.check_timeout.as_deref().map_or(Ok(CHECK_TIMEOUT), time)?;
        if check_timeout.is_zero() || check_timeout > LONGEST_CHECK {
            return Err(Failure::configuration("a check takes more than no time, and at most 24 hours"));
        }
        if let Some(empty) = self.check.iter().chain(&self.approve_by_tag).find(|text| text.trim().is_empty()) {
            return Err(Failure::configuration(format!("`{empty}` asks nothing")));
        }
        Ok(Asked {
            require: self.require.iter().map(|text| Requirement::parse(text)).collect::<Outcome<_>>()?,
            tags: self.require_tag.iter().map(tag).collect::<Outcome<_>>()?,
            signature: self.require_signature,
            max_age: self.max_age.as_deref().map(time).transpose()?,
            soak: self.soak.as_deref().map(time).transpose()?,
            approvals: self.approve_by_tag.clone(),
            checks: self.check.clone(),
            check_timeout,
        })
    }
}

/// Whether `[promote]` makes sense.
pub(crate) fn sound(settings: &PromoteSettings) -> Sound {
    for (model, wanted) in &settings.models {
        let at = Place::default().to("models").to(model);
        let held = |place: Place, outcome: Outcome<()>| {
            outcome.map_err(|failure| Wrong {
                at: place,
                failure: Failure { kind: crate::domain::failure::Kind::Configuration, ..failure },
            })
        };
        for (index, text) in wanted.require.iter().enumerate() {
            held(at.to("require").to(index), Requirement::parse(text).map(drop))?;
        }
        for (key, text) in [("champion", &wanted.champion), ("challenger", &wanted.challenger)] {
            held(at.to(key), text.as_deref().map_or(Ok(()), |text| alias_name(text).map(drop)))?;
        }
        for (key, text) in [("max_age", &wanted.max_age), ("soak", &wanted.soak)] {
            held(at.to(key), text.as_deref().map_or(Ok(()), |text| time(text).map(drop)))?;
        }
        held(at.to("mode"), wanted.mode().map(drop))?;
        held(at, wanted.asked().map(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_add_to_the_file_and_never_take_a_requirement_away() {
        let file = Wanted { require: vec!["r2 > 0".to_owned()], soak: Some("24h".to_owned()), ..Wanted::default() };
        let flags = Wanted { require: vec!["mae < 1".to_owned()], soak: Some("1h".to_owned()), ..Wanted::default() };
        let asked = file.with(flags).asked().expect("sound");
        assert_eq!(asked.require.iter().map(ToString::to_string).collect::<Vec<_>>(), ["r2 > 0", "mae < 1"]);
        assert_eq!(asked.soak, Some(Duration::from_secs(24 * 3_600)));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for wanted in [
            Wanted { require: vec!["r2 >".to_owned()], ..Wanted::default() },
            Wanted { require_tag: vec!["=x".to_owned()], ..Wanted::default() },
            Wanted { max_age: Some("soon".to_owned()), ..Wanted::default() },
            Wanted { check: vec![" ".to_owned()], ..Wanted::default() },
            Wanted { check_timeout: Some("0s".to_owned()), ..Wanted::default() },
        ] {
            assert!(wanted.asked().is_err(), "{wanted:?}");
            assert!(sound(&PromoteSettings { models: [("m".to_owned(), wanted)].into() }).is_err());
        }
    }
}
