//! The configuration file: TOML, with profiles. What is not known, and what makes no sense, is told with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::secret::{Given, WAYS, Way};
use super::sections::{self, Fault, Sections};
use super::{Flags, KEYS, Key, Origin, table};
use crate::config::environment::Environment;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::sound::nearest;

/// A file that was read.
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    profile: Option<(String, Part)>,
    base: Part,
}

/// The file's own keys and tables, or a profile's.
#[derive(Default)]
struct Part {
    keys: BTreeMap<String, Given>,
    /// Tables that are there and hold keys of [`KEYS`].
    tables: BTreeSet<&'static str>,
    sections: Sections,
}

impl ConfigFile {
    /// The value of a key, or where it is; the profile's before the file's own.
    pub(super) fn get(&self, key: &str) -> Option<(Given, Origin)> {
        if let Some((name, part)) = &self.profile {
            if let Some(value) = part.keys.get(key) {
                return Some((value.clone(), Origin::File(self.path.clone(), Some(name.clone()))));
            }
            // A table of a profile stands in the place of the whole table.
            if key.split_once('.').is_some_and(|(table, _)| part.tables.contains(table)) {
                return None;
            }
        }
        self.base.keys.get(key).map(|value| (value.clone(), Origin::File(self.path.clone(), None)))
    }

    /// The tables: one of the profile stands in the place of the file's of that name.
    pub(super) fn sections(&self) -> Sections {
        let base = self.base.sections.clone();
        self.profile.as_ref().map_or(base.clone(), |(_, part)| base.replaced_by(part.sections.clone()))
    }

    /// What each table that counts holds, and where it stands.
    pub(super) fn shown(&self) -> Vec<(&'static str, String, Origin)> {
        let of_profile = |name: &str| {
            let (profile, part) = self.profile.as_ref()?;
            part.sections.shown().iter().any(|(n, _)| *n == name).then(|| profile.clone())
        };
        let origin = |name: &str| Origin::File(self.path.clone(), of_profile(name));
        self.sections().shown().into_iter().map(|(name, text)| (name, text, origin(name))).collect()
    }
}

/// The file of the whole system.
pub(super) const SYSTEMS: &str = "/etc/mlops/config.toml";

/// The file of this user.
pub(super) fn of_user(environment: &Environment) -> Option<PathBuf> {
    let folder = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(Path::new(&environment.get("HOME")?).join(".config")));
    Some(folder?.join("mlops/config.toml"))
}

/// Finds and reads the file: `--config`, `MLOPS_CONFIG`, the user's, the system's. `None`: there is none.
///
/// # Errors
/// Configuration: a named file that is not there, a file that is not TOML or holds an unknown key, an unknown profile.
pub(super) fn read(flags: &Flags, environment: &Environment) -> Outcome<Option<ConfigFile>> {
    let named = flags.file.clone().or_else(|| environment.get("MLOPS_CONFIG").map(PathBuf::from));
    let profile = flags.profile.clone().or_else(|| environment.get("MLOPS_PROFILE"));
    let path = match named {
        Some(path) => Some(path),
        None => {
            let places = of_user(environment).into_iter().chain([PathBuf::from(SYSTEMS)]);
            places.into_iter().find(|p| p.is_file())
        }
    };
    let Some(path) = path else {
        return match profile {
            Some(name) => Err(Failure::configuration(format!(
                "the profile {name} is asked for and there is no configuration file"
            ))
            .hint("name one with --config")),
            None => Ok(None),
        };
    };
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::configuration(format!("the configuration file {} cannot be read: {e}", shown(&path)))
            .hint("`mlops config init FILE` makes one")
    })?;
    parse(path, &text, profile.as_deref()).map(Some)
}

fn parse(path: PathBuf, text: &str, profile: Option<&str>) -> Outcome<ConfigFile> {
    // A message of the parser shows the line itself, which may hold a password: only its number is told.
    let told = |at: Option<usize>, failure: Failure| {
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Failure { message: format!("{} line {line}: {}", shown(&path), failure.message), ..failure }
    };
    let document = DeTable::parse(text)
        .map_err(|e| told(e.span().map(|s| s.start), Failure::configuration(e.message().to_owned())))?;
    let mut base = Part::default();
    let mut chosen = None;
    for (key, value) in document.get_ref() {
        if key.get_ref() != "profile" {
            base.read(key, value).map_err(|f| told(f.at, f.failure))?;
            continue;
        }
        let no_table =
            |at: usize, name: &str| told(Some(at), Failure::configuration(format!("`{name}` is not a table")));
        let DeValue::Table(profiles) = value.get_ref() else { return Err(no_table(key.span().start, "profile")) };
        for (name, value) in profiles {
            let DeValue::Table(table) = value.get_ref() else {
                return Err(no_table(name.span().start, &format!("profile.{}", name.get_ref())));
            };
            let mut part = Part::default();
            for (key, value) in table {
                part.read(key, value).map_err(|f| told(f.at, f.failure))?;
            }
            if Some(name.get_ref().as_ref()) == profile {
                chosen = Some((name.get_ref().to_string(), part));
            }
        }
    }
    if let (Some(name), None) = (profile, &chosen) {
        return Err(Failure::configuration(format!("{} has no profile {name}", shown(&path))));
    }
    Ok(ConfigFile { path, profile: chosen, base })
}

impl Part {
    fn read(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
        let (name, at) = (key.get_ref().as_ref(), Some(key.span().start));
        if sections::NAMES.contains(&name) {
            return self.sections.read(name, value);
        }
        if let Some(table) = table::NAMES.into_iter().find(|table| *table == name) {
            return self.read_table(table, value);
        }
        let keys = || KEYS.iter().filter(|k| !k.name.contains('.')).map(|k| (k.name, k));
        let Some((key, way)) = of(name, keys()) else {
            let tables = sections::NAMES.iter().copied().chain(table::NAMES);
            return Err(unknown(name, at, keys().map(|(name, _)| name).chain(tables)));
        };
        let text = plain(name, at, value)?;
        self.take(key.name, way.map_or_else(|| Given::Plain(text.clone()), |way| way(text.clone())), at)
    }

    /// A table whose keys are settings.
    fn read_table(&mut self, name: &'static str, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
        let DeValue::Table(table) = value.get_ref() else {
            let failure = Failure::configuration(format!("`{name}` is not a table"));
            return Err(Fault { at: Some(value.span().start), failure });
        };
        self.tables.insert(name);
        let keys = || KEYS.iter().filter_map(|k| Some((k.name.strip_prefix(name)?.strip_prefix('.')?, k)));
        for (key, value) in table {
            let (written, at) = (key.get_ref().as_ref(), Some(key.span().start));
            let Some((key, way)) = of(written, keys()) else {
                return Err(unknown(written, at, keys().map(|(name, _)| name)));
            };
            let text = plain(written, at, value)?;
            let given = match way {
                Some(way) => way(text),
                None => {
                    table::sound(name, written, &text)
                        .map_err(|failure| Fault { at: Some(value.span().start), failure })?;
                    Given::Plain(text)
                }
            };
            self.take(key.name, given, at)?;
        }
        Ok(())
    }

    fn take(&mut self, key: &str, given: Given, at: Option<usize>) -> Result<(), Fault> {
        match self.keys.insert(key.to_owned(), given) {
            None => Ok(()),
            Some(_) => Err(Fault {
                at,
                failure: Failure::configuration(format!("`{key}` is given in two ways"))
                    .hint("one of the key itself, _file, _env and _command"),
            }),
        }
    }
}

/// The key that a word in the file names, and the way in which its value is given where the word says so.
fn of<'a>(word: &str, mut keys: impl Iterator<Item = (&'a str, &'a Key)>) -> Option<(&'a Key, Option<Way>)> {
    keys.find_map(|(name, key)| match word.strip_prefix(name)? {
        "" => Some((key, None)),
        rest if key.secret => WAYS.iter().find(|(suffix, _)| *suffix == rest).map(|(_, way)| (key, Some(*way))),
        _ => None,
    })
}

fn unknown<'a>(name: &str, at: Option<usize>, known: impl Iterator<Item = &'a str>) -> Fault {
    let like = nearest(name, known).unwrap_or_default();
    let failure = Failure::configuration(format!("unknown key `{name}`"));
    Fault { at, failure: failure.hint(format!("did you mean `{like}`?")) }
}

/// One value as text.
fn plain(name: &str, at: Option<usize>, value: &Spanned<DeValue<'_>>) -> Result<String, Fault> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        _ => Err(Fault { at, failure: Failure::configuration(format!("`{name}` takes one plain value")) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_beats_the_file_and_unknown_keys_are_named() {
        let text = "jobs = 2\nwork_dir = \"/var/tmp\"\n[profile.prod]\njobs = 8\n";
        let file = parse(PathBuf::from("c.toml"), text, Some("prod")).expect("sound");
        assert_eq!(file.get("jobs").map(|v| v.0), Some(Given::Plain("8".to_owned())));
        assert_eq!(file.get("work_dir").map(|v| v.0), Some(Given::Plain("/var/tmp".to_owned())));
        let failure = parse(PathBuf::from("c.toml"), "jobs = 1\nwork_dri = \"x\"\n", None).err().expect("unknown key");
        assert_eq!(failure.message, "c.toml line 2: unknown key `work_dri`");
        assert_eq!(failure.hint.as_deref(), Some("did you mean `work_dir`?"));
        assert!(parse(PathBuf::from("c.toml"), text, Some("dev")).is_err());
    }

    fn fault(text: &str) -> (String, String) {
        let failure = parse(PathBuf::from("c.toml"), text, None).err().expect(text);
        assert_eq!(failure.kind, crate::domain::failure::Kind::Configuration);
        (failure.message, failure.hint.unwrap_or_default())
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line_and_what_is_near() {
        let probe = "[[probe]]\nname = \"energy\"\ntcp = \"h:1\"\n";
        let activity = "[[activity]]\nname = \"nightly\"\nexperiments = \"n-*\"\n";
        let metric = "[[metric]]\nname = \"m\"\nexperiments = \"n-*\"\n";
        for (text, line, says, near) in [
            ("[helth.server.live]\nafter = 2\n", 1, "unknown key `helth`", "`health`"),
            (
                "[health.server.search-latncy]\nwarning = 1\n",
                1,
                "no check server.search-latncy",
                "server.search-latency",
            ),
            ("[health.servr.live]\nafter = 2\n", 1, "no check servr.live", "server.live"),
            ("[health.server.live]\n\nwarning = \"soon\"\n", 3, "`soon`", "48h"),
            ("[health.server.live]\nwarning = true\n", 2, "an amount is", ""),
            ("[health.server.version]\nwarning = 1\n", 1, "no number", "after"),
            ("[health.server.live]\nwarnig = 1\n", 2, "unknown key `warnig`", "`warning`"),
            (&format!("{activity}newest = {{ warning = \"24 hoors\" }}\n"), 4, "`24 hoors`", "48h"),
            (&format!("{activity}newst = {{ warning = \"24h\" }}\n"), 4, "unknown key `newst`", "`newest`"),
            (&format!("{activity}newest = {{ after = 2 }}\n"), 4, "beside `name`", ""),
            (&format!("{activity}failed = {{ of = 0, warning = \"10%\" }}\n"), 4, "0 is not", ""),
            (&format!("{activity}runs = {{ warning = 2 }}\n"), 4, "missing key `within`", ""),
            (activity, 1, "expects nothing", "newest"),
            ("\n[[activity]]\nexperiments = \"x\"\n", 2, "no `name`", ""),
            ("[[activity]]\nname = \"No\"\n", 2, "`No` is not made of", ""),
            (&format!("{metric}expect = [\"r2 > 0\",\n \"r2 >\"]\n"), 5, "at its end", "r2 >= 0.85"),
            (&format!("{metric}expect = [\".r2 > 0\"]\n"), 4, "without a dot", ""),
            (&format!("{metric}model = \"x\"\nexpect = [\"r2 > 0\"]\n"), 1, "one of `experiments` and `model`", ""),
            (&format!("{metric}trend = {{ metric = \"r2\", runs = 3 }}\n"), 4, "3 is not", ""),
            (&format!("{probe}url = \"http://h\"\n"), 3, "takes one of", ""),
            (&format!("{probe}expect = [\"enrgy > 0\"]\n"), 4, "no probe enrgy", "`energy`"),
            (&format!("{probe}value = \".a\"\n"), 4, "goes with url", ""),
            (&format!("{probe}{probe}"), 5, "two [[probe]] called energy", ""),
            ("[[probe]]\nname = \"x\"\n", 1, "looks at nothing", "url"),
            ("[[probe]]\nname = \"x\"\nurl = \"hunter2\"\n", 3, "no address", ""),
            ("[[probe]]\nname = \"x\"\ntcp = \"h\"\n", 3, "host:port", ""),
            ("[notify]\npnig = \"http://x\"\n", 2, "unknown key `pnig`", "`ping`"),
            ("[notify]\nwebhook = \"hunter2\"\n", 2, "no address", ""),
            ("[promote.models.m]\nrequire = [\"r2 > 0\",\n \"rmse < chmpion * \"]\n", 3, "at its end", ""),
            ("[promote.models.m]\nsoak = \"soon\"\n", 2, "not a time", "24h"),
            ("[promote.models.m]\nrequires = []\n", 2, "unknown key `requires`", "`require`"),
            ("[promote.models.m]\nchampion = \"v2\"\n", 2, "something else", ""),
            ("[promote.models.m]\n\nmode = \"stag\"\n", 3, "no mode", "`both`"),
            ("[[cleanup.policy]]\nolder_than = \"1d\"\n", 1, "what is it about", "kind"),
            ("[[cleanup.policy]]\nkind = \"runs\"\n", 1, "how old is old", "90d"),
            (
                "[[cleanup.policy]]\nkind = \"experiments\"\nolder_than = \"1d\"\nstatus = [\"FAILED\"]\n",
                1,
                "about runs",
                "",
            ),
            (
                "[[cleanup.policy]]\nkind = \"purge\"\nolder_than = \"1d\"\nname = [\"x\"]\n",
                1,
                "a purge is told by",
                "",
            ),
            (
                "[[cleanup.policy]]\nkind = \"orphans\"\nolder_than = \"1d\"\nexperiment = [\"x\"]\n",
                1,
                "orphans are",
                "",
            ),
            ("[[cleanup.policy]]\nkind = \"runs\"\nolder_than = \"1d\"\nartifacts = \"none\"\n", 1, "`artifacts`", ""),
            (
                "[[cleanup.policy]]\nkind = \"runs\"\nolder_then = \"1d\"\n",
                3,
                "unknown key `older_then`",
                "`older_than`",
            ),
            ("[verify.concurrency]\nmin_rate = 1\nmax_p95 = \"soon\"\n", 3, "no amount", "100 ms"),
            ("[verify.concurrency]\nmax_error = 1\n", 2, "unknown key `max_error`", "`max_errors`"),
            ("[verify.concurrency]\nworse_than = 0.5\n", 2, "less than 1", ""),
            ("[tls]\nca_file = \"x\"\ninsecure = true\n", 3, "exclude", ""),
            ("[s3]\nsecret_key = \"hunter2\"\n", 2, "unknown key `secret_key`", ""),
            ("[s3]\nendpoint_url = \"hunter2\"\n", 2, "no address", ""),
            ("jobs_file = \"x\"\n", 1, "unknown key `jobs_file`", ""),
            ("tracking_token = \"hunter2\"\ntracking_token_env = \"T\"\n", 2, "in two ways", "_file"),
            ("[notify]\nping_fiel = \"x\"\n", 2, "unknown key `ping_fiel`", "ping"),
            ("tls = 1\n", 1, "invalid type", ""),
            ("[backup]\nkeep_dayly = 7\n", 2, "unknown key `keep_dayly`", "`keep_daily`"),
            ("[backup]\nkeep_daily = \"seven\"\n", 2, "keep_daily: `seven`", "unlimited"),
            ("[backup]\nkeep_within = 14\n", 2, "keep_within: `14`", "14d"),
            ("[backup]\nartifacts = \"some\"\n", 2, "`some`", "registered"),
            ("[backup]\nto = [\"/a\"]\n", 2, "one plain value", ""),
            ("[backup]\nto = \"\"\n", 2, "empty", "s3://"),
            ("backup = \"/a\"\n", 1, "not a table", ""),
            ("[bakup]\nto = \"/a\"\n", 1, "unknown key `bakup`", "`backup`"),
            ("\"backup.to\" = \"/a\"\n", 1, "unknown key `backup.to`", ""),
            ("[jobs]\nx = 1\n", 1, "one plain value", ""),
            ("[profile.a]\njobs = 1\n[profile.a.health.server.live]\nwarning = \"x\"\n", 4, "`x`", ""),
            ("jobs = 1\njobs = 2\n", 2, "duplicate key", ""),
        ] {
            let (message, hint) = fault(text);
            assert!(message.starts_with(&format!("c.toml line {line}: ")) && message.contains(says), "{text}{message}");
            assert!(hint.contains(near), "{text}{hint}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_profile_replaces_the_backup_table_as_a_whole() {
        let text = "jobs = 2\n[backup]\nto = \"/a\"\nkeep_daily = 7\n\
                    [profile.prod.backup]\nkeep_weekly = \"unlimited\"\n[profile.dev]\njobs = 1\n";
        let value = |profile: &str, key: &str| match parse(PathBuf::from("c.toml"), text, Some(profile))
            .expect("sound")
            .get(key)?
            .0
        {
            Given::Plain(text) => Some(text),
            other => panic!("{other:?}"),
        };
        assert_eq!(value("prod", "backup.keep_weekly").as_deref(), Some("unlimited"));
        assert_eq!((value("prod", "backup.keep_daily"), value("prod", "backup.to")), (None, None));
        assert_eq!(value("prod", "jobs").as_deref(), Some("2"));
        assert_eq!(value("dev", "backup.keep_daily").as_deref(), Some("7"));
    }

    #[test]
    fn a_profile_replaces_a_table_as_a_whole() {
        let text = "[[probe]]\nname = \"a\"\ntcp = \"h:1\"\n[[probe]]\nname = \"b\"\ntcp = \"h:2\"\n\
                    [notify]\nping = \"https://hunter2\"\n\
                    [[profile.prod.probe]]\nname = \"c\"\ntcp = \"h:3\"\n";
        let file = parse(PathBuf::from("c.toml"), text, Some("prod")).expect("sound");
        let probes: Vec<String> = file.sections().probe.unwrap_or_default().into_iter().map(|p| p.name).collect();
        assert_eq!(probes, ["c"]);
        let shown: Vec<String> =
            file.shown().into_iter().map(|(n, text, origin)| format!("{n}: {text} ({origin})")).collect();
        assert_eq!(shown, ["probe: c (c.toml [profile.prod])"]);
        assert!(file.get("notify.ping").is_some_and(|(_, origin)| origin.to_string() == "c.toml"));
    }
}
