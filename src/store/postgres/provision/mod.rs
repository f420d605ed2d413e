//! A place for MLflow on a PostgreSQL server: role, database, rights and, where asked for, MLflow's tables.
//!
//! What is missing is made, what is there stays. A step that a run did not come to is made by the next one: the role
//! comes with its password in one statement; the database is made closed and opened in the transaction that takes the
//! right to connect from everybody else; the tables come in one transaction.

mod look;
mod script;

use postgres::Client;
use secrecy::{ExposeSecret, SecretString};

use super::connect::Postgres;
use super::{target, target_failure};
use crate::domain::address::PgAddress;
use crate::domain::catalogue::{Catalogue, Line, Revision};
use crate::domain::consent::Confirmed;
use crate::domain::ddl::{self, literal, quote};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::engine::cancel::Cancel;

pub use script::script;

/// What is to be there in the end.
pub struct Wanted {
    /// The role that MLflow logs in as.
    pub role: String,
    /// Its database.
    pub database: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// The revision whose tables are made.
    pub revision: Option<&'static Revision>,
}

impl Wanted {
    /// Whether the names can be used.
    ///
    /// # Errors
    /// Usage: PostgreSQL reserves the name, or would cut it off.
    pub fn check(&self) -> Outcome<()> {
        for (flag, name) in [("--role", &self.role), ("--database", &self.database)] {
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(Failure::usage(format!("{flag}: this is not a name")));
            }
            if name.len() > 63 {
                return Err(Failure::usage(format!(
                    "{flag}: PostgreSQL cuts names off after 63 bytes, and this has {}",
                    name.len()
                )));
            }
        }
        if self.role.starts_with("pg_") || ["public", "none"].contains(&self.role.as_str()) {
            return Err(Failure::usage(format!("--role: PostgreSQL reserves the name {}", self.role)));
        }
        if ["template0", "template1"].contains(&self.database.as_str()) {
            return Err(Failure::usage(format!("--database: {} is what other databases are made of", self.database)));
        }
        Ok(())
    }
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The role.
    Role,
    /// The password of a role that is there.
    Password,
    /// That the administrator may act as the role.
    Membership,
    /// The database.
    Database,
    /// Who may connect to it.
    Connect,
    /// The schema that MLflow's tables go to.
    Schema,
    /// MLflow's tables.
    Tables,
}

impl Part {
    /// The stable word of JSON documents.
    pub fn word(self) -> &'static str {
        match self {
            Part::Role => "role",
            Part::Password => "password",
            Part::Membership => "membership",
            Part::Database => "database",
            Part::Connect => "connect",
            Part::Schema => "schema",
            Part::Tables => "tables",
        }
    }
}

/// How a thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    There,
    /// Not there.
    Missing,
    /// There with another property: changed only with consent.
    Differs,
}

/// A statement, and where it runs.
struct Statement {
    /// May hold a password's verifier.
    sql: SecretString,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By the administrator, each statement on its own.
    Server,
    /// In the administrator's database as the role; those of a step in one transaction.
    AsRole,
}

/// One thing that is wanted, how it was found, and what makes it so.
pub struct Step {
    /// What it is about.
    pub part: Part,
    /// The name of the thing.
    pub name: String,
    /// How it was found.
    pub state: State,
    /// What it has, or what differs.
    pub detail: String,
    /// What makes it so, for people: a password's verifier is masked.
    pub sql: Vec<String>,
    statements: Vec<Statement>,
}

impl Step {
    fn new(part: Part, name: &str, state: State, detail: impl Into<String>) -> Step {
        Step { part, name: name.to_owned(), state, detail: detail.into(), sql: Vec::new(), statements: Vec::new() }
    }

    fn sql(mut self, place: Place, sql: String) -> Step {
        self.sql.push(sql.clone());
        self.statements.push(Statement { sql: sql.into(), place });
        self
    }

    fn secret_sql(mut self, place: Place, sql: &str, verifier: &str) -> Step {
        self.sql.push(format!("{sql} PASSWORD '***'"));
        self.statements.push(Statement { sql: format!("{sql} PASSWORD {}", literal(verifier)).into(), place });
        self
    }
}

/// What is to be done: a value that is printed, and that is carried out.
pub struct Plan {
    /// The administrator's address, masked.
    pub server: String,
    /// The server's version: `15.18`.
    pub version: String,
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// The revision whose tables are wanted: id and releases.
    pub revision: Option<(String, String)>,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What should be known beside.
    pub notes: Vec<String>,
    /// The address for `mlflow server`, its password masked.
    pub store: String,
    /// Whether it was carried out.
    pub done: bool,
}

impl Plan {
    /// What is there and would be changed, with the SQL of it; `None` where nothing is.
    pub fn changes(&self) -> Option<String> {
        let differing: Vec<String> = self
            .steps
            .iter()
            .filter(|s| s.state == State::Differs)
            .map(|s| format!("{} {}: {} ({};)", s.part.word(), s.name, s.detail, s.sql.join("; ")))
            .collect();
        (!differing.is_empty()).then(|| format!("to change what is there: {}", differing.join("; ")))
    }

    /// Whether there is nothing to do.
    pub fn complete(&self) -> bool {
        self.steps.iter().all(|s| s.state == State::There)
    }
}

/// A plan and the session that it is carried out with.
pub struct Prepared<'a> {
    /// The plan.
    pub plan: Plan,
    wanted: &'a Wanted,
    address: &'a PgAddress,
    admin: look::Admin,
    id: &'a str,
    cancel: &'a Cancel,
    client: Client,
}

/// Looks at what is there and plans what is missing. With `lock` nobody else prepares the same until it is carried out.
///
/// # Errors
/// Target: not reachable, a standby, not permitted (with the statement that is missing), a database that is not UTF-8.
/// Refused: other tables are there. Locked: another mlops is at it.
pub fn prepare<'a>(
    address: &'a PgAddress,
    wanted: &'a Wanted,
    id: &'a str,
    cancel: &'a Cancel,
    lock: bool,
) -> Outcome<Prepared<'a>> {
    let postgres = Postgres::new(address, id, cancel)?;
    let mut client = postgres.connect()?;
    if lock {
        target::lock_on(&mut client, "db init", "makes roles and databases through this one", cancel)?;
    }
    let admin = look::admin(&mut client)?;
    let mut prepared = Prepared {
        plan: Plan {
            server: postgres.address(),
            version: admin.version_text.clone(),
            role: wanted.role.clone(),
            database: wanted.database.clone(),
            revision: wanted.revision.map(|r| (r.id.clone(), r.releases_text())),
            steps: Vec::new(),
            notes: Vec::new(),
            store: store_address(address, wanted).to_string(),
            done: false,
        },
        wanted,
        address,
        admin,
        id,
        cancel,
        client,
    };
    prepared.look()?;
    Ok(prepared)
}

impl Prepared<'_> {
    /// Makes what is missing and, with consent, changes what differs.
    ///
    /// # Errors
    /// Target: the server refused; what was made until then stays, and the next run goes on from there.
    pub fn carry_out(mut self, confirmed: Option<&Confirmed>) -> Outcome<Plan> {
        if self.plan.changes().is_some() && confirmed.is_none() {
            return Err(Failure::internal("a change without consent"));
        }
        let steps = std::mem::take(&mut self.plan.steps);
        for step in &steps {
            self.cancel.check()?;
            if step.state == State::There {
                continue;
            }
            tracing::info!(part = step.part.word(), name = step.name, "making");
            for sql in &step.sql {
                tracing::debug!(%sql, "making");
            }
            match step.part {
                Part::Schema | Part::Tables => self.inside(step)?,
                _ => self.on_the_server(step)?,
            }
        }
        self.plan.steps = steps;
        self.plan.done = true;
        Ok(self.plan)
    }

    fn on_the_server(&mut self, step: &Step) -> Outcome<()> {
        let failed = |e: postgres::Error| refusal(step, &self.admin.name, &e);
        let of = |place: Place| step.statements.iter().filter(move |s| s.place == place).map(|s| s.sql.expose_secret());
        for sql in of(Place::Server) {
            self.client.batch_execute(sql).map_err(failed)?;
        }
        if of(Place::AsRole).next().is_none() {
            return Ok(());
        }
        let mut transaction = self.client.transaction().map_err(failed)?;
        transaction.batch_execute(&format!("SET LOCAL ROLE {}", quote(&self.wanted.role))).map_err(failed)?;
        for sql in of(Place::AsRole) {
            transaction.batch_execute(sql).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// A step in the database itself, which is looked at again: it may just have been made.
    fn inside(&mut self, step: &Step) -> Outcome<()> {
        let failed = |e: postgres::Error| refusal(step, &self.admin.name, &e);
        let mut client = self.connect_inside()?;
        let inside = look::inside(&mut client, &self.wanted.role)?;
        if step.part == Part::Schema {
            if let Some(sql) = inside.missing(&self.wanted.role) {
                let as_role = if inside.exists && self.admin.superuser { String::new() } else { self.as_role() };
                client.batch_execute(&format!("BEGIN; {as_role} {sql}; COMMIT")).map_err(failed)?;
            }
            let usable = look::inside(&mut client, &self.wanted.role)?.missing(&self.wanted.role);
            return match usable {
                None => Ok(()),
                Some(sql) => Err(Failure::target(format!(
                    "the role {} may not use the schema {} of {}, and {} cannot grant it",
                    self.wanted.role, inside.schema, self.wanted.database, self.admin.name
                ))
                .hint(format!("as a superuser in that database: {sql};"))),
            };
        }
        let Some(revision) = self.wanted.revision else { return Ok(()) };
        target::lock(&mut client, &inside.schema, self.cancel)?;
        let mut transaction = client.transaction().map_err(failed)?;
        let setup = format!(
            "{} SET LOCAL search_path = {}; SET LOCAL client_min_messages = warning",
            self.as_role(),
            quote(&inside.schema)
        );
        transaction.batch_execute(&setup).map_err(failed)?;
        // Under the lock: tables that came meanwhile are not touched.
        if look::tables(&mut transaction, &inside.schema, revision)? == State::Missing {
            for sql in tables(revision) {
                transaction.batch_execute(&sql).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }

    fn as_role(&self) -> String {
        format!("SET LOCAL ROLE {};", quote(&self.wanted.role))
    }

    fn connect_inside(&self) -> Outcome<Client> {
        let mut address = self.address.clone();
        address.database = Some(self.wanted.database.clone());
        Postgres::new(&address, self.id, self.cancel)?.connect()
    }
}

/// What PostgreSQL said to a step. Two runs through different databases do not see each other's locks.
fn refusal(step: &Step, admin: &str, error: &postgres::Error) -> Failure {
    let failure = target_failure(&format!("{} {}", step.part.word(), step.name), error);
    match error.code().map(|code| code.code()) {
        Some("42710" | "42P04" | "23505") => {
            Failure { kind: Kind::Locked, ..failure }.hint("somebody else made it at the same moment: run this again")
        }
        Some("42501") => failure.hint(format!("{admin} may not do this; as a superuser: {};", step.sql.join("; "))),
        _ => failure,
    }
}

/// The statements that make MLflow's tables at a revision, with the rows that its migrations put there. Experiment 0 is
/// left to the server, which makes it on its start: only the server knows where artifacts go.
fn tables(revision: &Revision) -> Vec<String> {
    let mut sql: Vec<String> = revision.tables.iter().map(|t| ddl::create_table(t)).collect();
    let post = ddl::post_data(&revision.tables);
    let post = post.indexes.into_iter().chain(post.keys).chain(post.foreign_keys).chain(post.triggers);
    sql.extend(post.map(|statement| statement.sql));
    if revision.table("workspaces").is_some() {
        sql.push(
            "INSERT INTO workspaces (name, description) VALUES ('default', 'Default workspace for legacy resources')"
                .to_owned(),
        );
    }
    sql.push(format!("INSERT INTO alembic_version (version_num) VALUES ({})", literal(&revision.id)));
    sql
}

/// The place that MLflow's tables take: any table that it has had at some revision would disturb it.
fn place(revision: &Revision) -> Outcome<target::Place> {
    let mut tables: std::collections::BTreeSet<String> = revision.tables.iter().map(|t| t.name.clone()).collect();
    tables.extend(Catalogue::embedded()?.table_names(Line::Tracking).into_iter().map(str::to_owned));
    Ok(target::Place { lines: vec![Line::Tracking], tables, objects: std::collections::BTreeSet::new() })
}

/// What of the administrator's address is the server's and not the administrator's own.
const OF_THE_SERVER: &[&str] =
    &["hostaddr", "sslmode", "sslrootcert", "sslcrl", "sslnegotiation", "channel_binding", "target_session_attrs"];

/// The address for `mlflow server`.
fn store_address(address: &PgAddress, wanted: &Wanted) -> PgAddress {
    let mut parameters = address.parameters.clone();
    parameters.retain(|(key, _)| OF_THE_SERVER.contains(&key.as_str()));
    let mut database = Some(wanted.database.clone());
    // SQLAlchemy decodes what is percent-encoded in a name of a role and in a parameter, but not in the path.
    if wanted.database.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_.~".contains(c)) {
        parameters.push(("dbname".to_owned(), wanted.database.clone()));
        database = None;
    }
    PgAddress {
        hosts: address.hosts.clone(),
        user: Some(wanted.role.clone()),
        password: wanted.password.clone(),
        database,
        parameters,
        ..PgAddress::default()
    }
}
