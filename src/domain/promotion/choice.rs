//! Which version is meant, and where it goes.

use super::place::{Aliases, Mode, Place, Registered, Stage};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::ModelVersion;

/// How a version is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest that waits to be the next champion.
    Challenger,
    /// By its number.
    Number(u64),
    /// By an alias, without `@`.
    Alias(String),
    /// The newest in a stage.
    InStage(Stage),
    /// The newest of all.
    Latest,
    /// The newest that a run made.
    Run(String),
    /// The newest that was made from a logged model.
    Logged(String),
}

/// Reads a number, an alias and the like are asked for otherwise; this reads where a version goes: a stage or `@alias`.
///
/// # Errors
/// Usage: neither.
fn read(text: &str) -> Outcome<Place> {
    if let Some(alias) = text.strip_prefix('@') {
        return alias_name(alias).map(|alias| Place { stage: None, alias: Some(alias) });
    }
    let stage = Stage::parse(text).ok_or_else(|| {
        Failure::usage(format!("--to {text}: no such stage"))
            .hint("Production, Staging, Archived, None, or an alias as @champion")
    })?;
    Ok(Place { stage: Some(stage), alias: None })
}

/// The name of an alias, as MLflow takes it (utils/validation.py, `_validate_model_alias_name`).
///
/// # Errors
/// Usage: no name, or one that MLflow keeps for itself.
pub fn alias_name(text: &str) -> Outcome<String> {
    let reserved = text.eq_ignore_ascii_case("latest")
        || text
            .strip_prefix(['v', 'V'])
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > 255 || !text.chars().all(plain) {
        return Err(Failure::usage(format!("`{text}` is no alias"))
            .hint("MLflow takes letters, digits, `_` and `-`, at most 255 of them"));
    }
    if reserved {
        return Err(Failure::usage(format!("the alias `{text}` means something else to MLflow"))
            .hint("`latest` and `v1`, `v2`, ... name versions there"));
    }
    Ok(text.to_owned())
}

/// Where the version goes. `today`: how the version in production is marked now. Where nothing says otherwise that is how
/// the next one is marked, and the first of all by its stage.
///
/// # Errors
/// Usage: a place that there is not, or that does not go with the mode.
pub fn destination(to: Option<&str>, mode: Option<Mode>, today: Option<Mode>, aliases: &Aliases) -> Outcome<Place> {
    let Some(to) = to else {
        return Ok(Place::of_champion(mode.or(today).unwrap_or(Mode::Stage), aliases));
    };
    let named = read(to)?;
    let Some(mode) = mode else { return Ok(named) };
    let champions = named.stage == Some(Stage::Production) || named.alias.as_deref() == Some(&aliases.champion);
    let challengers = named.stage == Some(Stage::Staging) || named.alias.as_deref() == Some(&aliases.challenger);
    match (champions, challengers, mode) {
        (true, ..) => Ok(Place::of_champion(mode, aliases)),
        (_, true, _) => Ok(Place::of_challenger(mode, aliases)),
        (.., Mode::Stage) if named.stage.is_some() => Ok(named),
        (.., Mode::Alias) if named.alias.is_some() => Ok(named),
        _ => Err(Failure::usage(format!("--to {to} has no counterpart for this --mode")).hint(format!(
            "Production goes with @{}, Staging with @{}; anything else stands alone, without --mode",
            aliases.champion, aliases.challenger
        ))),
    }
}

fn newest<'a>(versions: impl Iterator<Item = &'a ModelVersion>) -> Option<u64> {
    versions.map(|v| v.version).max()
}

/// The version that is meant. `mode`: how challengers are looked for, where only one way counts.
///
/// # Errors
/// Source: there is none. Usage: more than one is meant.
pub fn version(which: &Which, registered: &Registered, mode: Option<Mode>, aliases: &Aliases) -> Outcome<u64> {
    let model = &registered.model.name;
    let absent = |what: String| Failure::source(format!("{model}: {what}"));
    let all = || registered.versions.iter();
    match which {
        Which::Number(number) => registered.version(*number).map(|v| v.version).ok_or_else(|| {
            let last = newest(all()).map_or("it has no versions".to_owned(), |n| format!("its newest is {n}"));
            absent(format!("there is no version {number}")).hint(last)
        }),
        Which::Alias(alias) => {
            let known: Vec<String> = registered.model.aliases.iter().map(|(name, _)| format!("@{name}")).collect();
            let known =
                if known.is_empty() { "it has no alias".to_owned() } else { format!("it has {}", known.join(", ")) };
            registered.under(alias).ok_or_else(|| absent(format!("no version has the alias @{alias}")).hint(known))
        }
        Which::InStage(stage) => registered
            .in_stage(*stage)
            .last()
            .copied()
            .ok_or_else(|| absent(format!("no version is in {}", stage.word()))),
        Which::Latest => newest(all()).ok_or_else(|| absent("it has no versions".to_owned())),
        Which::Run(run) => newest(all().filter(|v| v.run_id == *run))
            .ok_or_else(|| absent(format!("no version was made by the run {run}"))),
        Which::Logged(id) => {
            newest(all().filter(|v| ArtifactAddress::parse(&v.source) == ArtifactAddress::LoggedModel(id.clone())))
                .ok_or_else(|| absent(format!("no version was made from the logged model {id}")))
        }
        Which::Challenger => challenger(registered, mode, aliases),
    }
}

fn challenger(registered: &Registered, mode: Option<Mode>, aliases: &Aliases) -> Outcome<u64> {
    let model = &registered.model.name;
    if registered.versions.is_empty() {
        return Err(Failure::source(format!("{model}: it has no versions")));
    }
    let counts = |way: fn(Mode) -> bool| mode.is_none_or(way);
    let staged = registered.in_stage(Stage::Staging).last().copied().filter(|_| counts(Mode::stage));
    let aliased = registered.under(&aliases.challenger).filter(|_| counts(Mode::alias));
    match (staged, aliased) {
        (Some(one), Some(other)) if one != other => Err(Failure::usage(format!(
            "{model}: which one? Version {one} is in Staging, and @{} is version {other}",
            aliases.challenger
        ))
        .hint("--version N says it, or --mode stage or --mode alias")),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => {
            let places = [
                ("Staging".to_owned(), counts(Mode::stage)),
                (format!("@{}", aliases.challenger), counts(Mode::alias)),
            ];
            let places: Vec<String> = places.into_iter().filter(|(_, counts)| *counts).map(|(name, _)| name).collect();
            Err(Failure::source(format!("{model}: no version waits in {}", places.join(" or under ")))
                .hint("--version N, --latest, --run ID, --alias A, --stage S or --uuid m-... names one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::tests::{aliases, registered};
    use super::*;

    #[test]
    fn the_challenger_is_who_waits() {
        let chosen = |stages: &[&str], named: &[(&str, u64)], mode| {
            version(&Which::Challenger, &registered(stages, named), mode, &aliases()).map_err(|f| f.message)
        };
        assert_eq!(chosen(&["Staging", "Staging", "None"], &[], None), Ok(2));
        assert_eq!(chosen(&["None"], &[("challenger", 1)], None), Ok(1));
        assert_eq!(chosen(&["None", "Staging"], &[("challenger", 2)], None), Ok(2));
        assert_eq!(chosen(&["None", "Staging"], &[("challenger", 1)], Some(Mode::Alias)), Ok(1));
        assert!(chosen(&["None", "Staging"], &[("challenger", 1)], None).is_err_and(|e| e.contains("which one")));
        assert!(chosen(&["Staging"], &[], Some(Mode::Alias)).is_err_and(|e| e.ends_with("waits in @challenger")));
    }

    #[test]
    fn the_place_follows_what_is_said_and_what_is_done_today() {
        let to =
            |to, mode, today| destination(to, mode, today, &aliases()).map(|p| p.to_string()).map_err(|f| f.message);
        assert_eq!(to(None, None, None), Ok("Production".to_owned()));
        assert_eq!(to(None, None, Some(Mode::Both)), Ok("Production and @champion".to_owned()));
        assert_eq!(to(None, Some(Mode::Alias), Some(Mode::Stage)), Ok("@champion".to_owned()));
        assert_eq!(to(Some("production"), None, Some(Mode::Both)), Ok("Production".to_owned()));
        assert_eq!(to(Some("Staging"), Some(Mode::Both), None), Ok("Staging and @challenger".to_owned()));
        assert_eq!(to(Some("@blue"), Some(Mode::Alias), None), Ok("@blue".to_owned()));
        for (text, mode) in [
            ("Prod", None),
            ("@", None),
            ("@latest", None),
            ("@v2", None),
            ("@a b", None),
            ("@blue", Some(Mode::Both)),
            ("Archived", Some(Mode::Alias)),
        ] {
            assert!(to(Some(text), mode, None).is_err(), "{text}");
        }
    }
}
