//! Settings in layers - flags over environment over file over default - each value with its origin.
//!
//! This room alone reads the environment ([`environment`]); the rest of the house is handed values.

mod backup;
pub mod environment;
mod file;
mod ini;
mod passfile;
pub mod pg;
mod s3;
mod sections;
mod service;
mod tracking;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

pub use sections::{Notify, Tls};

use crate::config::environment::Environment;
use crate::config::sections::Sections;
use crate::domain::address::{StoreAddress, shown};
use crate::domain::cleanup::rules::Written;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::settings::HealthSettings;
use crate::domain::object_storage::S3Access;
use crate::domain::promotion::place::CHAMPION;
use crate::domain::promotion::settings::Wanted;
use crate::domain::retention::Rule;
use crate::domain::server::{Connection, Proxy, ServerAddress};

/// A setting that exists: its key, the environment variables that set it in their order of precedence, and what it is.
pub struct Key {
    /// The name in the configuration file; of a key in a table, with the table's before a dot.
    pub name: &'static str,
    /// Environment variables.
    pub variables: &'static [&'static str],
    /// The default, as it would stand in the file; `None`: not set.
    pub default: Option<&'static str>,
}

/// All settings. `config.example.toml` shows each with its default, which a test holds.
pub const KEYS: &[Key] = &[
    Key { name: "tracking_uri", variables: &["MLOPS_TRACKING_URI", "MLFLOW_TRACKING_URI"], default: None },
    Key { name: "workspace", variables: &["MLOPS_WORKSPACE", "MLFLOW_WORKSPACE"], default: None },
    Key {
        name: "backend_store_uri",
        variables: &["MLOPS_BACKEND_STORE_URI", "MLFLOW_BACKEND_STORE_URI"],
        default: None,
    },
    Key { name: "auth_store_uri", variables: &["MLOPS_AUTH_STORE_URI"], default: None },
    Key {
        name: "artifact_root",
        variables: &["MLOPS_ARTIFACT_ROOT", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT"],
        default: None,
    },
    Key { name: "work_dir", variables: &["MLOPS_WORK_DIR", "TMPDIR"], default: Some("/tmp") },
    Key { name: "state_dir", variables: &["MLOPS_STATE_DIR"], default: None },
    Key { name: "jobs", variables: &["MLOPS_JOBS"], default: Some("0") },
    Key { name: "postgres_bin", variables: &["MLOPS_POSTGRES_BIN"], default: None },
    Key { name: "output", variables: &["MLOPS_OUTPUT"], default: Some("table") },
    Key { name: "color", variables: &["MLOPS_COLOR"], default: Some("auto") },
    Key { name: "progress", variables: &["MLOPS_PROGRESS"], default: Some("auto") },
    Key { name: "backup.to", variables: &["MLOPS_BACKUP_TO"], default: None },
    Key { name: "backup.artifacts", variables: &["MLOPS_BACKUP_ARTIFACTS"], default: Some("all") },
    Key { name: "backup.keep_last", variables: &["MLOPS_BACKUP_KEEP_LAST"], default: None },
    Key { name: "backup.keep_hourly", variables: &["MLOPS_BACKUP_KEEP_HOURLY"], default: None },
    Key { name: "backup.keep_daily", variables: &["MLOPS_BACKUP_KEEP_DAILY"], default: None },
    Key { name: "backup.keep_weekly", variables: &["MLOPS_BACKUP_KEEP_WEEKLY"], default: None },
    Key { name: "backup.keep_monthly", variables: &["MLOPS_BACKUP_KEEP_MONTHLY"], default: None },
    Key { name: "backup.keep_yearly", variables: &["MLOPS_BACKUP_KEEP_YEARLY"], default: None },
    Key { name: "backup.keep_within", variables: &["MLOPS_BACKUP_KEEP_WITHIN"], default: None },
];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment(&'static str),
    /// The configuration file, and the profile in it.
    File(PathBuf, Option<String>),
    /// Built in.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path, None) => write!(f, "{}", shown(path)),
            Origin::File(path, Some(profile)) => write!(f, "{} [profile.{profile}]", shown(path)),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// The value as text; `None`: not set.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What the command line says of settings.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--profile`
    pub profile: Option<String>,
    /// Key and value of each flag that sets one.
    pub values: Vec<(&'static str, String)>,
}

/// The settings of this run.
pub struct Settings {
    settings: Vec<Setting>,
    sections: Sections,
    /// What the tables of the file hold, for people.
    tables: Vec<Setting>,
    environment: Environment,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Resolves every setting.
    ///
    /// # Errors
    /// Configuration: a file that cannot be read or holds an unknown key, a profile that does not exist.
    pub fn resolve(flags: &Flags, environment: Environment) -> Outcome<Settings> {
        let file = file::read(flags, &environment)?;
        let settings = KEYS
            .iter()
            .map(|key| {
                let flag = flags.values.iter().find(|(name, _)| *name == key.name);
                let variable = key.variables.iter().find_map(|v| Some((*v, environment.get(v)?)));
                let (value, origin) = if let Some((_, value)) = flag {
                    (Some(value.clone()), Origin::Flag)
                } else if let Some((name, value)) = variable {
                    (Some(value), Origin::Environment(name))
                } else if let Some((value, origin)) = file.as_ref().and_then(|f| f.get(key.name)) {
                    (Some(value), origin)
                } else {
                    (key.default.map(str::to_owned), Origin::Default)
                };
                Setting { key: key.name, value, origin }
            })
            .collect();
        let tables = file.iter().flat_map(|f| f.shown());
        Ok(Settings {
            settings,
            sections: file.as_ref().map(|f| f.sections()).unwrap_or_default(),
            tables: tables.map(|(key, value, origin)| Setting { key, value: Some(value), origin }).collect(),
            environment,
            file: file.map(|f| f.path),
        })
    }

    /// Every setting, for `config show`, then the tables of the file that are there. Addresses are masked.
    pub fn all(&self) -> Vec<Setting> {
        let mask = |setting: &Setting| {
            let mut setting = setting.clone();
            if matches!(setting.key, "backend_store_uri" | "auth_store_uri") {
                setting.value = setting.value.map(|v| match StoreAddress::parse(&v) {
                    Ok(address) => address.to_string(),
                    Err(_) => "*** (not an address that can be shown)".to_owned(),
                });
            }
            if matches!(setting.key, "artifact_root" | "backup.to") {
                setting.value = setting.value.map(|v| without_password(&v));
            }
            if setting.key == "tracking_uri" {
                setting.value = setting.value.map(|v| match ServerAddress::parse(&v) {
                    Ok(address) => address.to_string(),
                    Err(_) => "*** (not an address that can be shown)".to_owned(),
                });
            }
            if setting.key == "state_dir" && setting.value.is_none() {
                setting.value = self.state_dir().ok().map(|p| shown(&p));
            }
            setting
        };
        self.settings.iter().map(mask).chain(self.tables.iter().cloned()).collect()
    }

    fn get(&self, key: &str) -> Option<(&str, &Origin)> {
        let setting = self.settings.iter().find(|s| s.key == key)?;
        Some((setting.value.as_deref()?, &setting.origin))
    }

    /// The database that MLflow keeps its records in, where one is configured.
    ///
    /// # Errors
    /// Usage: not an address.
    pub fn backend_store_uri(&self) -> Outcome<Option<StoreAddress>> {
        match self.get("backend_store_uri") {
            None => Ok(None),
            Some((text, origin)) => self.address(text).map(Some).map_err(|f| f.on(origin)),
        }
    }

    /// The database of basic-auth, where it is one of its own.
    ///
    /// # Errors
    /// Usage: not an address.
    pub fn auth_store_uri(&self) -> Outcome<Option<StoreAddress>> {
        match self.get("auth_store_uri") {
            None => Ok(None),
            Some((text, origin)) => self.address(text).map(Some).map_err(|f| f.on(origin)),
        }
    }

    /// The tracking server and how to talk to it, where one is configured.
    ///
    /// # Errors
    /// Usage: not a server's address. Configuration: credentials or TLS settings that mean nothing.
    pub fn tracking(&self) -> Outcome<Option<Connection>> {
        let Some((text, origin)) = self.get("tracking_uri") else { return Ok(None) };
        let address = ServerAddress::parse(text).map_err(|f| f.on(origin))?;
        let workspace = self.get("workspace").map(|(name, _)| name.to_owned());
        let mut connection = tracking::complete(address, workspace, &self.environment)?;
        if let Some(tls) = &self.sections.tls {
            if connection.ca_file.is_none() && !connection.insecure {
                connection.ca_file = tls.ca_file.clone();
                connection.insecure = tls.insecure;
            }
            let own = || tls.client_certificate.clone();
            connection.client_certificate = connection.client_certificate.or_else(own);
        }
        Ok(Some(connection))
    }

    /// What is expected of the stack's health. Amounts and conditions in it were found sound when the file was read.
    ///
    /// # Errors
    /// Usage: the database of a probe is not an address. Configuration: what the environment says of PostgreSQL.
    pub fn health(&self) -> Outcome<HealthSettings> {
        let sections = self.sections.clone();
        let mut health = HealthSettings {
            limits: sections.health.unwrap_or_default(),
            activities: sections.activity.unwrap_or_default(),
            metrics: sections.metric.unwrap_or_default(),
            probes: sections.probe.unwrap_or_default(),
            registry: sections.registry.unwrap_or_default(),
            databases: BTreeMap::new(),
        };
        for probe in &health.probes {
            if let Some(database) = &probe.database {
                let address = self.address(database).map_err(|f| f.on(format_args!("the probe {}", probe.name)))?;
                health.databases.insert(probe.name.clone(), address);
            }
        }
        Ok(health)
    }

    /// What is asked of a model's challengers, and what its aliases are called.
    pub fn promotion(&self, model: &str) -> Wanted {
        let promote = self.sections.promote.as_ref();
        promote.and_then(|p| p.models.get(model)).cloned().unwrap_or_default()
    }

    /// What `mlops cleanup policy` does, in this order.
    pub fn cleanup_policy(&self) -> &[Written] {
        self.sections.cleanup.as_ref().map_or(&[], |cleanup| &cleanup.policy)
    }

    /// The alias of versions in production, where no model has one of its own.
    pub fn champion(&self) -> &str {
        self.sections.registry.as_ref().and_then(|r| r.alias.as_deref()).unwrap_or(CHAMPION)
    }

    /// Who runs this, and where: `user@host`.
    pub fn who(&self) -> String {
        let user = self.environment.get("USER").or_else(|| self.environment.get("LOGNAME"));
        let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::geteuid().as_raw()));
        format!("{user}@{}", self.host())
    }

    /// Who is told of the health.
    pub fn notify(&self) -> Notify {
        self.sections.notify.clone().unwrap_or_default()
    }

    /// The name of this machine, for messages.
    pub fn host(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// The proxy on the way to addresses that are notified.
    pub fn proxy(&self) -> Option<Proxy> {
        tracking::proxy(true, &self.environment)
    }

    /// Where the system's own authorities stand, where the environment says so.
    pub fn system_roots(&self) -> Option<PathBuf> {
        self.environment.get("SSL_CERT_FILE").map(PathBuf::from)
    }

    /// Where the server's artifacts are, as it was configured.
    pub fn artifact_root(&self) -> Option<&str> {
        self.get("artifact_root").map(|(text, _)| text)
    }

    /// Where backups are kept, where no flag says so.
    pub fn backup_to(&self) -> Option<&str> {
        self.get("backup.to").map(|(text, _)| text)
    }

    /// The rules by which backups are kept where no flag gives one. What was not in a file is not looked at yet.
    pub fn backup_rules(&self) -> Vec<Rule> {
        let rule = |setting: &Setting| {
            let name = backup::rule(setting.key)?;
            Some(Rule { name, text: setting.value.clone()?, origin: Some(setting.origin.to_string()) })
        };
        self.settings.iter().filter_map(rule).collect()
    }

    /// How objects of S3 are reached, by the variables and files of MLflow and Amazon.
    ///
    /// # Errors
    /// Configuration: half a key, an endpoint that is none, a profile that is not there.
    pub fn s3(&self) -> Outcome<S3Access> {
        let own = self.sections.s3.clone().unwrap_or_default();
        s3::access(own.endpoint_url, own.region, &self.environment)
    }

    /// Parses a store's address and fills in what libpq's environment variables and password file say.
    ///
    /// # Errors
    /// Usage: not an address. Configuration: an environment variable that means nothing.
    pub fn address(&self, text: &str) -> Outcome<StoreAddress> {
        Ok(match StoreAddress::parse(text)? {
            StoreAddress::Postgres(address) => {
                StoreAddress::Postgres(Box::new(pg::complete(*address, &self.environment)?))
            }
            other => other,
        })
    }

    /// A password from an environment variable or a file, whichever is named.
    ///
    /// # Errors
    /// Configuration: the variable is not set, the file cannot be read, or what it holds is no password.
    pub fn password(&self, variable: Option<&str>, file: Option<&Path>) -> Outcome<Option<SecretString>> {
        let (text, place) = match (variable, file) {
            (Some(name), _) => {
                let unset =
                    || Failure::configuration(format!("the environment variable {name} is not set or is empty"));
                (self.environment.get(name).ok_or_else(unset)?, format!("the environment variable {name}"))
            }
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| Failure::configuration(format!("the password file {}: {e}", shown(file))))?;
                (text, format!("the password file {}", shown(file)))
            }
            (None, None) => return Ok(None),
        };
        let password = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        if password.is_empty() {
            return Err(Failure::configuration(format!("{place} is empty")));
        }
        if password.contains(['\0', '\n', '\r']) {
            return Err(Failure::configuration(format!("{place} holds more than one line, and a password has one")));
        }
        Ok(Some(SecretString::from(password)))
    }

    /// Where private copies go.
    pub fn work_dir(&self) -> PathBuf {
        self.get("work_dir").map_or_else(|| PathBuf::from("/tmp"), |(v, _)| PathBuf::from(v))
    }

    /// Where mlops remembers things between runs.
    ///
    /// # Errors
    /// Configuration: neither a setting nor a home folder.
    pub fn state_dir(&self) -> Outcome<PathBuf> {
        if let Some((text, _)) = self.get("state_dir") {
            return Ok(PathBuf::from(text));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/mlops"));
        }
        let home = || Some(Path::new(&self.environment.get("HOME")?).join(".local/state"));
        self.environment
            .get("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(home)
            .map(|p| p.join("mlops"))
            .ok_or_else(|| Failure::configuration("no state folder: HOME is not set").hint("give --state-dir"))
    }

    /// How many things are done at once; 0 means as many as there are processors.
    ///
    /// # Errors
    /// Configuration: not a number from 0 to 64.
    pub fn jobs(&self) -> Outcome<usize> {
        let Some((text, origin)) = self.get("jobs") else { return Ok(1) };
        match text.parse::<usize>() {
            Ok(0) => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
            Ok(n) if n <= 64 => Ok(n),
            _ => Err(Failure::configuration(format!("jobs = {text} ({origin}) is not a number from 0 to 64"))),
        }
    }

    /// One of a few words.
    ///
    /// # Errors
    /// Configuration: another word.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Outcome<T> {
        let (text, origin) =
            self.get(key).ok_or_else(|| Failure::internal(format!("the setting {key} has no value")))?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Failure::configuration(format!("{key} = {text} ({origin}) is not known"))
                .hint(format!("one of: {}", known.join(", ")))
        })
    }

    /// The folder of PostgreSQL's programs and the search path, for a private cluster.
    pub fn postgres_programs(&self) -> Option<PathBuf> {
        let named = self.get("postgres_bin").map(|(text, _)| PathBuf::from(text));
        let path = self.environment.get("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = path.split(':').filter(|p| !p.is_empty()).map(PathBuf::from).collect();
        crate::store::postgres::private::programs(named.as_deref(), &path)
    }

    /// Whether `NO_COLOR` is set (no-color.org).
    pub fn no_color(&self) -> bool {
        self.environment.get("NO_COLOR").is_some()
    }
}

/// An address of artifacts without the password that it may hold (`ftp://user:password@host`).
fn without_password(text: &str) -> String {
    let masked = || {
        let (scheme, rest) = text.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}{path}"))
    };
    masked().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_root_is_shown_without_its_password() {
        assert_eq!(without_password("ftp://ada:hunt@er2@h:21/a@b"), "ftp://ada:***@h:21/a@b");
        for text in ["s3://bucket/a:b@c", "/srv/a", "./a@b:c", "ftp://ada@h/x", "mlflow-artifacts:/"] {
            assert_eq!(without_password(text), text);
        }
    }
}
