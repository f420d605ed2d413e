//! Settings in layers - flags over environment over file over default - each value with its origin.
//!
//! This room alone reads the environment ([`environment`]); the rest of the house is handed values.

pub mod draft;
pub mod environment;
mod file;
mod ini;
mod passfile;
pub mod pg;
mod s3;
mod secret;
mod sections;
mod service;
mod table;
mod tracking;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

pub use sections::Tls;

use crate::config::environment::Environment;
use crate::config::secret::Given;
use crate::config::sections::Sections;
use crate::domain::address::{StoreAddress, shown};
use crate::domain::cleanup::rules::Written;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::harmless;
use crate::domain::health::settings::HealthSettings;
use crate::domain::object_storage::S3Access;
use crate::domain::promotion::place::CHAMPION;
use crate::domain::promotion::settings::Wanted;
use crate::domain::retention::Rule;
use crate::domain::server::{Connection, Proxy, ServerAddress};
use crate::domain::verify::limits::Written as WrittenLimits;

/// A setting that exists: its key, the environment variables that set it in their order of precedence, and what it is.
pub struct Key {
    /// The name in the configuration file; of a key in a table, with the table's before a dot.
    pub name: &'static str,
    /// Environment variables.
    pub variables: &'static [&'static str],
    /// The default, as it would stand in the file; `None`: not set.
    pub default: Option<&'static str>,
    /// Whether it is a secret or may hold one: it is shown masked, and in the file `_file`, `_env` or `_command` behind its
    /// name says where it stands.
    pub secret: bool,
}

impl Key {
    const fn new(name: &'static str, variables: &'static [&'static str]) -> Key {
        Key { name, variables, default: None, secret: false }
    }

    const fn or(self, default: &'static str) -> Key {
        Key { default: Some(default), ..self }
    }

    const fn secret(self) -> Key {
        Key { secret: true, ..self }
    }
}

/// All settings. `config.example.toml` shows each with its default, which a test holds.
pub const KEYS: &[Key] = &[
    Key::new("tracking_uri", &["MLOPS_TRACKING_URI", "MLFLOW_TRACKING_URI"]),
    Key::new("tracking_username", &["MLFLOW_TRACKING_USERNAME"]),
    Key::new("tracking_password", &["MLFLOW_TRACKING_PASSWORD"]).secret(),
    Key::new("tracking_token", &["MLFLOW_TRACKING_TOKEN"]).secret(),
    Key::new("workspace", &["MLOPS_WORKSPACE", "MLFLOW_WORKSPACE"]),
    Key::new("backend_store_uri", &["MLOPS_BACKEND_STORE_URI", "MLFLOW_BACKEND_STORE_URI"]).secret(),
    Key::new("backend_store_password", &["MLOPS_BACKEND_STORE_PASSWORD"]).secret(),
    Key::new("auth_store_uri", &["MLOPS_AUTH_STORE_URI"]).secret(),
    Key::new("artifact_root", &["MLOPS_ARTIFACT_ROOT", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT"]),
    Key::new("work_dir", &["MLOPS_WORK_DIR", "TMPDIR"]).or("/tmp"),
    Key::new("state_dir", &["MLOPS_STATE_DIR"]),
    Key::new("jobs", &["MLOPS_JOBS"]).or("0"),
    Key::new("postgres_bin", &["MLOPS_POSTGRES_BIN"]),
    Key::new("output", &["MLOPS_OUTPUT"]).or("table"),
    Key::new("color", &["MLOPS_COLOR"]).or("auto"),
    Key::new("progress", &["MLOPS_PROGRESS"]).or("auto"),
    Key::new("s3.endpoint_url", &["MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    Key::new("s3.region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    Key::new("s3.access_key_id", &["AWS_ACCESS_KEY_ID"]),
    Key::new("s3.secret_access_key", &["AWS_SECRET_ACCESS_KEY"]).secret(),
    Key::new("backup.to", &["MLOPS_BACKUP_TO"]),
    Key::new("backup.artifacts", &["MLOPS_BACKUP_ARTIFACTS"]).or("all"),
    Key::new("backup.keep_last", &["MLOPS_BACKUP_KEEP_LAST"]),
    Key::new("backup.keep_hourly", &["MLOPS_BACKUP_KEEP_HOURLY"]),
    Key::new("backup.keep_daily", &["MLOPS_BACKUP_KEEP_DAILY"]),
    Key::new("backup.keep_weekly", &["MLOPS_BACKUP_KEEP_WEEKLY"]),
    Key::new("backup.keep_monthly", &["MLOPS_BACKUP_KEEP_MONTHLY"]),
    Key::new("backup.keep_yearly", &["MLOPS_BACKUP_KEEP_YEARLY"]),
    Key::new("backup.keep_within", &["MLOPS_BACKUP_KEEP_WITHIN"]),
    Key::new("notify.ping", &["MLOPS_NOTIFY_PING"]).secret(),
    Key::new("notify.webhook", &["MLOPS_NOTIFY_WEBHOOK"]).secret(),
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
    /// Where the value stands, if not there: `the file /run/secrets/database`.
    pub from: Option<String>,
}

/// A value as it was given.
struct Chosen {
    key: &'static Key,
    given: Option<Given>,
    origin: Origin,
}

/// Who is told of what happens. Both addresses hold keys, and are secrets.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    /// An address in healthchecks.io's manner.
    pub ping: Option<SecretString>,
    /// A Slack-compatible webhook.
    pub webhook: Option<SecretString>,
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
    settings: Vec<Chosen>,
    /// Secrets that were read, so that no command is run twice.
    read: Mutex<BTreeMap<&'static str, SecretString>>,
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
                let plain = |value: String| Some(Given::Plain(value));
                let (given, origin) = if let Some((_, value)) = flag {
                    (plain(value.clone()), Origin::Flag)
                } else if let Some((name, value)) = variable {
                    (plain(value), Origin::Environment(name))
                } else if let Some((given, origin)) = file.as_ref().and_then(|f| f.get(key.name)) {
                    (Some(given), origin)
                } else {
                    (key.default.map(str::to_owned).and_then(plain), Origin::Default)
                };
                Chosen { key, given, origin }
            })
            .collect();
        let tables = file.iter().flat_map(|f| f.shown());
        Ok(Settings {
            settings,
            read: Mutex::default(),
            sections: file.as_ref().map(|f| f.sections()).unwrap_or_default(),
            tables: tables
                .map(|(key, value, origin)| Setting { key, value: Some(value), origin, from: None })
                .collect(),
            environment,
            file: file.map(|f| f.path),
        })
    }

    /// Every setting, for `config show`, then the tables of the file that are there. Secrets are masked, and not read.
    pub fn all(&self) -> Vec<Setting> {
        let shown = |setting: &Chosen| {
            let name = setting.key.name;
            let value = match &setting.given {
                Some(Given::Plain(text)) => Some(masked(name, setting.key.secret, text)),
                Some(_) => Some("***".to_owned()),
                None if name == "state_dir" => self.state_dir().ok().map(|p| shown(&p)),
                None => None,
            };
            let from = setting.given.as_ref().and_then(Given::told);
            Setting { key: name, value, origin: setting.origin.clone(), from }
        };
        self.settings.iter().map(shown).chain(self.tables.iter().cloned()).collect()
    }

    /// What is to be said of the files that secrets stand in.
    pub fn warnings(&self) -> Vec<String> {
        let mut files = std::collections::BTreeSet::new();
        for setting in self.settings.iter().filter(|s| s.key.secret) {
            match (&setting.origin, &setting.given) {
                (Origin::File(path, _), Some(Given::Plain(text))) if holds_secret(setting.key.name, text) => {
                    files.insert(path.clone());
                }
                (_, Some(Given::File(path))) => {
                    files.insert(path.clone());
                }
                _ => {}
            }
        }
        let probes = self.sections.probe.iter().flatten().filter_map(|probe| probe.database.as_deref());
        if let (Some(file), true) = (&self.file, probes.into_iter().any(|uri| holds_secret("backend_store_uri", uri))) {
            files.insert(file.clone());
        }
        files.iter().filter_map(|path| secret::exposed(path)).collect()
    }

    fn chosen(&self, key: &str) -> Option<(&Chosen, &Given)> {
        let setting = self.settings.iter().find(|s| s.key.name == key)?;
        Some((setting, setting.given.as_ref()?))
    }

    fn get(&self, key: &str) -> Option<(&str, &Origin)> {
        match self.chosen(key)? {
            (setting, Given::Plain(text)) => Some((text, &setting.origin)),
            _ => None,
        }
    }

    /// A setting that a flag of the command line gives.
    pub fn flag(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|(_, origin)| **origin == Origin::Flag).map(|(text, _)| text)
    }

    /// A setting that stands for itself.
    pub fn plain(&self, key: &str) -> Option<&str> {
        self.get(key).map(|(text, _)| text)
    }

    /// Reads every secret that stands elsewhere: its key, where it stands, and whether it could be read.
    pub fn secrets(&self) -> Vec<(&'static str, String, Outcome<()>)> {
        let elsewhere = self.settings.iter().filter_map(|s| Some((s.key.name, s.given.as_ref()?.told()?)));
        elsewhere.map(|(key, from)| (key, from, self.secret(key).map(drop))).collect()
    }

    /// The folder of PostgreSQL's programs, where it was named.
    pub fn postgres_bin(&self) -> Option<&str> {
        self.plain("postgres_bin")
    }

    /// A setting that may stand elsewhere, and where it was found.
    fn secret(&self, key: &'static str) -> Outcome<Option<(SecretString, String)>> {
        let Some((setting, given)) = self.chosen(key) else { return Ok(None) };
        let place = given.told().unwrap_or_else(|| setting.origin.to_string());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(key) {
            return Ok(Some((known.clone(), place)));
        }
        let value = given.read(key, &self.environment).map_err(|f| f.on(&setting.origin))?;
        read.insert(key, value.clone());
        Ok(Some((value, place)))
    }

    /// The same, where it stands in the configuration file.
    fn filed(&self, key: &'static str) -> Outcome<Option<(SecretString, String)>> {
        match self.chosen(key) {
            Some((Chosen { origin: Origin::File(..), .. }, _)) => self.secret(key),
            _ => Ok(None),
        }
    }

    /// The database that MLflow keeps its records in, where one is configured.
    ///
    /// # Errors
    /// Usage: not an address. Configuration: its secret cannot be read.
    pub fn backend_store_uri(&self) -> Outcome<Option<StoreAddress>> {
        let Some((text, place)) = self.secret("backend_store_uri")? else { return Ok(None) };
        let mut address = StoreAddress::parse(text.expose_secret()).map_err(|f| f.on(&place))?;
        if let StoreAddress::Postgres(address) = &mut address
            && address.password.is_none()
            && let Some((password, _)) = self.secret("backend_store_password")?
        {
            address.password = Some(password);
        }
        self.completed(address).map(Some).map_err(|f| f.on(place))
    }

    /// The database of basic-auth, where it is one of its own.
    ///
    /// # Errors
    /// Usage: not an address. Configuration: its secret cannot be read.
    pub fn auth_store_uri(&self) -> Outcome<Option<StoreAddress>> {
        let Some((text, place)) = self.secret("auth_store_uri")? else { return Ok(None) };
        self.address(text.expose_secret()).map(Some).map_err(|f| f.on(place))
    }

    /// The tracking server and how to talk to it, where one is configured.
    ///
    /// # Errors
    /// Usage: not a server's address. Configuration: credentials or TLS settings that mean nothing.
    pub fn tracking(&self) -> Outcome<Option<Connection>> {
        let Some((text, origin)) = self.get("tracking_uri") else { return Ok(None) };
        let address = ServerAddress::parse(text).map_err(|f| f.on(origin))?;
        let workspace = self.get("workspace").map(|(name, _)| name.to_owned());
        let filed = tracking::Filed {
            user: self.filed("tracking_username")?,
            password: self.filed("tracking_password")?,
            token: self.filed("tracking_token")?,
        };
        let mut connection = tracking::complete(address, workspace, filed, &self.environment)?;
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

    /// What `mlops verify concurrency` is judged by.
    pub fn concurrency(&self) -> WrittenLimits {
        self.sections.verify.clone().unwrap_or_default().concurrency
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

    /// Who is told of what happens.
    ///
    /// # Errors
    /// Configuration: an address cannot be read from where it stands.
    pub fn notify(&self) -> Outcome<Notify> {
        let address = |key| self.secret(key).map(|found| found.map(|(address, _)| address));
        Ok(Notify { ping: address("notify.ping")?, webhook: address("notify.webhook")? })
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
        let rule = |setting: &Chosen| {
            let name = table::rule(setting.key.name)?;
            let (text, origin) = self.get(setting.key.name)?;
            Some(Rule { name, text: text.to_owned(), origin: Some(origin.to_string()) })
        };
        self.settings.iter().filter_map(rule).collect()
    }

    /// How objects of S3 are reached, by the variables and files of MLflow and Amazon.
    ///
    /// # Errors
    /// Configuration: half a key, an endpoint that is none, a profile that is not there.
    pub fn s3(&self) -> Outcome<S3Access> {
        let text = |key: &str| self.get(key).map(|(text, _)| text.to_owned());
        let filed = s3::Filed { id: self.filed("s3.access_key_id")?, secret: self.filed("s3.secret_access_key")? };
        s3::access(text("s3.endpoint_url"), text("s3.region"), filed, &self.environment)
    }

    /// Parses a store's address and fills in what libpq's environment variables and password file say.
    ///
    /// # Errors
    /// Usage: not an address. Configuration: an environment variable that means nothing.
    pub fn address(&self, text: &str) -> Outcome<StoreAddress> {
        self.completed(StoreAddress::parse(text)?)
    }

    /// What libpq's variables and files say of an address.
    fn completed(&self, address: StoreAddress) -> Outcome<StoreAddress> {
        Ok(match address {
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
        let given = match (variable, file) {
            (Some(name), _) => Given::Env(name.to_owned()),
            (None, Some(file)) => Given::File(file.to_owned()),
            (None, None) => return Ok(None),
        };
        given.read("the password", &self.environment).map(Some)
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

    /// The configuration file that is found without being named: of this user, for root the system's.
    ///
    /// # Errors
    /// Usage: there is no home folder.
    pub fn usual_file(&self) -> Outcome<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from(file::SYSTEMS));
        }
        file::of_user(&self.environment)
            .ok_or_else(|| Failure::usage("which file? HOME is not set").hint("mlops config init FILE"))
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

/// A value as it may be shown.
fn masked(key: &str, secret: bool, text: &str) -> String {
    let hidden = || "*** (not an address that can be shown)".to_owned();
    match key {
        "backend_store_uri" | "auth_store_uri" => {
            StoreAddress::parse(text).map_or_else(|_| hidden(), |address| address.to_string())
        }
        "tracking_uri" | "s3.endpoint_url" => {
            ServerAddress::parse(text).map_or_else(|_| hidden(), |address| address.to_string())
        }
        "artifact_root" | "backup.to" => harmless::masked(text),
        _ if secret => "***".to_owned(),
        _ => text.to_owned(),
    }
}

/// A value as it may be shown where people know it from: as it was given, unless a secret is in it.
pub fn told(key: &str, text: &str) -> String {
    let shown = masked(key, false, text);
    if shown.contains("***") { shown } else { text.to_owned() }
}

/// Whether a value that may hold a secret holds one.
fn holds_secret(key: &str, text: &str) -> bool {
    match key {
        "backend_store_uri" | "auth_store_uri" => match StoreAddress::parse(text) {
            Ok(StoreAddress::Postgres(address)) => address.password.is_some(),
            Ok(_) => false,
            // It may be one that is written wrongly.
            Err(_) => true,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_root_is_shown_without_its_password() {
        assert_eq!(harmless::masked("ftp://ada:hunt@er2@h:21/a@b"), "ftp://ada:***@h:21/a@b");
        for text in ["s3://bucket/a:b@c", "/srv/a", "./a@b:c", "ftp://ada@h/x", "mlflow-artifacts:/"] {
            assert_eq!(harmless::masked(text), text);
        }
    }
}
