//! The tables of the configuration file: what is expected of the stack's health, and how others are reached and told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use crate::domain::cleanup::rules::{self as cleanup, CleanupSettings};
use crate::domain::count::counted;
use crate::domain::failure::Failure;
use crate::domain::health::settings::{Activity, Judgement, Metric, Probe, Registry};
use crate::domain::health::sound::{self, Place, Sound, Wrong};
use crate::domain::promotion::settings::{self as promotion, PromoteSettings};
use crate::domain::verify::limits::{self as verification, VerifySettings};

/// `[tls]`: the certificates of the tracking server. Its environment variables beat it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Authorities that are believed.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with this client's certificate and key.
    pub client_certificate: Option<PathBuf>,
    /// Whether any certificate is believed.
    pub insecure: bool,
}

/// The names of all of them.
pub(super) const NAMES: &[&str] =
    &["health", "activity", "metric", "probe", "registry", "promote", "cleanup", "verify", "tls"];

/// Those of a file, or of a profile in it. `None`: it has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Sections {
    pub(super) health: Option<BTreeMap<String, BTreeMap<String, Judgement>>>,
    pub(super) activity: Option<Vec<Activity>>,
    pub(super) metric: Option<Vec<Metric>>,
    pub(super) probe: Option<Vec<Probe>>,
    pub(super) registry: Option<Registry>,
    pub(super) promote: Option<PromoteSettings>,
    pub(super) cleanup: Option<CleanupSettings>,
    pub(super) verify: Option<VerifySettings>,
    pub(super) tls: Option<Tls>,
}

/// Something wrong in the file, and the byte that it begins at.
pub(super) struct Fault {
    pub(super) at: Option<usize>,
    pub(super) failure: Failure,
}

impl Sections {
    /// Takes in one of them.
    pub(super) fn read(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
        match name {
            "health" => self.health = Some(sound_one(value, sound::limits)?),
            "activity" => self.activity = Some(sound_one(value, |a: &Vec<_>| sound::activities(a))?),
            "metric" => self.metric = Some(sound_one(value, |m: &Vec<_>| sound::metrics(m))?),
            "probe" => self.probe = Some(sound_one(value, |p: &Vec<_>| sound::probes(p))?),
            "registry" => self.registry = Some(sound_one(value, sound::registry)?),
            "promote" => self.promote = Some(sound_one(value, promotion::sound)?),
            "cleanup" => self.cleanup = Some(sound_one(value, cleanup::sound)?),
            "verify" => self.verify = Some(sound_one(value, verification::sound)?),
            _ => self.tls = Some(sound_one(value, tls)?),
        }
        Ok(())
    }

    /// One of another file's in the place of each of these that it has.
    pub(super) fn replaced_by(self, other: Sections) -> Sections {
        Sections {
            health: other.health.or(self.health),
            activity: other.activity.or(self.activity),
            metric: other.metric.or(self.metric),
            probe: other.probe.or(self.probe),
            registry: other.registry.or(self.registry),
            promote: other.promote.or(self.promote),
            cleanup: other.cleanup.or(self.cleanup),
            verify: other.verify.or(self.verify),
            tls: other.tls.or(self.tls),
        }
    }

    /// Each that is there, with what it holds in a line. No secret.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let limits: Vec<String> =
            self.health.iter().flatten().flat_map(|(l, n)| n.keys().map(move |n| format!("{l}.{n}"))).collect();
        fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
            names.collect::<Vec<_>>().join(", ")
        }
        let given = |pairs: &[(&str, bool)]| listed(pairs.iter().filter(|(_, there)| *there).map(|(key, _)| *key));
        let all = [
            ("health", self.health.as_ref().map(|_| limits.join(", "))),
            ("activity", self.activity.as_ref().map(|a| listed(a.iter().map(|a| a.name.as_str())))),
            ("metric", self.metric.as_ref().map(|m| listed(m.iter().map(|m| m.name.as_str())))),
            ("probe", self.probe.as_ref().map(|p| listed(p.iter().map(|p| p.name.as_str())))),
            ("registry", self.registry.as_ref().map(|r| listed(r.production.iter().map(String::as_str)))),
            ("cleanup", self.cleanup.as_ref().map(|c| counted(c.policy.len(), "policy"))),
            ("verify", self.verify.as_ref().map(|_| "concurrency".to_owned())),
            ("promote", self.promote.as_ref().map(|p| listed(p.models.keys().map(String::as_str)))),
            (
                "tls",
                self.tls.as_ref().map(|t| {
                    let client = t.client_certificate.is_some();
                    given(&[("ca_file", t.ca_file.is_some()), ("client_certificate", client), ("insecure", t.insecure)])
                }),
            ),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
    }
}

fn sound_one<T: DeserializeOwned>(value: &Spanned<DeValue<'_>>, sound: impl Fn(&T) -> Sound) -> Result<T, Fault> {
    let read = T::deserialize(ValueDeserializer::from(value.clone())).map_err(|e| unread(&e))?;
    sound(&read).map_err(|wrong| Fault { at: Some(find(value, &wrong.at)), failure: wrong.failure })?;
    Ok(read)
}

/// serde's words on a table, with the nearest key where one is not known.
fn unread(error: &toml::de::Error) -> Fault {
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let failure = match message.strip_prefix("unknown field").and_then(|_| quoted.next()) {
        Some(key) => {
            let failure = Failure::configuration(format!("unknown key `{key}`"));
            match sound::nearest(key, quoted) {
                Some(like) => failure.hint(format!("did you mean `{like}`?")),
                None => failure,
            }
        }
        None => Failure::configuration(message.replace("field", "key")),
    };
    Fault { at: error.span().map(|s| s.start), failure }
}

/// The byte at which the value of a place begins, or the nearest around it that is there.
fn find(value: &Spanned<DeValue<'_>>, place: &Place) -> usize {
    let (mut at, mut value) = (value.span().start, value);
    for step in &place.0 {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(step.as_str()),
            DeValue::Array(array) => step.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        (at, value) = (next.span().start, next);
    }
    at
}

fn tls(tls: &Tls) -> Sound {
    if tls.insecure && tls.ca_file.is_some() {
        let failure =
            Failure::configuration("`insecure` and `ca_file` exclude each other").hint("`ca_file` is the safe one");
        return Err(Wrong { at: Place::default().to("insecure"), failure });
    }
    Ok(())
}
