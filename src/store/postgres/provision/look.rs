//! What is there already, and which steps follow.

use postgres::{Client, GenericClient};
use secrecy::{ExposeSecret, SecretString};

use super::{Part, Place, Prepared, State, Step, place};
use crate::domain::catalogue::{Catalogue, Line, Revision};
use crate::domain::ddl::{literal, quote};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity;
use crate::store::postgres::connect::{Postgres, server_version};
use crate::store::postgres::target::{self, Contents};
use crate::store::postgres::{introspect, password, target_failure};

/// Who does it.
pub(super) struct Admin {
    pub(super) name: String,
    pub(super) superuser: bool,
    may_make_roles: bool,
    may_make_databases: bool,
    version: i32,
    pub(super) version_text: String,
    reads_verifiers: bool,
    has_timescale: bool,
}

fn failed(error: postgres::Error) -> Failure {
    target_failure("looking at the server", &error)
}

/// Looks at the session.
pub(super) fn admin(client: &mut Client) -> Outcome<Admin> {
    let version = server_version(client)?;
    let row = client
        .query_one(
            "SELECT rolname::text, rolsuper, rolcreaterole, rolcreatedb, split_part(current_setting('server_version'), ' ', 1),
                    has_column_privilege('pg_authid', 'rolpassword', 'SELECT'), pg_is_in_recovery(),
                    current_setting('transaction_read_only') = 'on',
                    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
             FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .map_err(failed)?;
    let is = |i: usize| row.try_get::<_, bool>(i).map_err(failed);
    let name: String = row.try_get(0).map_err(failed)?;
    if is(6)? {
        return Err(
            Failure::target("this server is a standby, which takes no changes").hint("give the primary's address")
        );
    }
    if is(7)? {
        return Err(Failure::target(format!("sessions of {name} are read-only")).hint(
            "default_transaction_read_only is on for this role or database: give another administrator's address",
        ));
    }
    let superuser = is(1)?;
    Ok(Admin {
        superuser,
        may_make_roles: superuser || is(2)?,
        may_make_databases: superuser || is(3)?,
        version,
        version_text: row.try_get(4).map_err(failed)?,
        reads_verifiers: is(5)?,
        has_timescale: is(8)?,
        name,
    })
}

/// The database from the inside.
pub(super) struct Inside {
    /// Where the role's tables go.
    pub(super) schema: String,
    pub(super) exists: bool,
    usable: bool,
}

impl Inside {
    /// What makes the schema usable; `None` where it is.
    pub(super) fn missing(&self, role: &str) -> Option<String> {
        let (schema, role) = (quote(&self.schema), quote(role));
        match (self.exists, self.usable) {
            (true, true) => None,
            (true, false) => Some(format!("GRANT ALL ON SCHEMA {schema} TO {role}")),
            (false, _) => Some(format!("CREATE SCHEMA {schema}")),
        }
    }
}

/// Looks at the schema that is the role's: its own where there is one, as PostgreSQL's default search path has it.
pub(super) fn inside(client: &mut Client, role: &str) -> Outcome<Inside> {
    let row = client
        .query_opt(
            // A role that is not there yet has no rights: these functions give NULL for it.
            "SELECT n.nspname::text, coalesce(has_schema_privilege(r.oid, n.oid, 'CREATE')
                                              AND has_schema_privilege(r.oid, n.oid, 'USAGE'), false)
             FROM pg_namespace n LEFT JOIN pg_roles r ON r.rolname = $1
             WHERE n.nspname IN ($1, 'public') ORDER BY n.nspname = 'public' LIMIT 1",
            &[&role],
        )
        .map_err(failed)?;
    Ok(match row {
        None => Inside { schema: "public".to_owned(), exists: false, usable: false },
        Some(row) => {
            Inside { schema: row.try_get(0).map_err(failed)?, exists: true, usable: row.try_get(1).map_err(failed)? }
        }
    })
}

/// Whether MLflow's tables of a revision are in a schema.
///
/// # Errors
/// Refused: something else is there.
pub(super) fn tables(client: &mut impl GenericClient, schema: &str, revision: &Revision) -> Outcome<State> {
    let contents = target::contents(client, schema, &place(revision)?)?;
    let reason = match contents {
        Contents::Empty => return Ok(State::Missing),
        Contents::Foreign(reason) => reason,
        Contents::Fresh(_) | Contents::Data(..) => {
            let observed = introspect::observe(client, schema).map_err(failed)?;
            let identity = identity::identify(&observed, Catalogue::embedded()?).map_err(Failure::as_target)?;
            if identity.revisions.iter().any(|r| r.line == Line::Tracking && r.id == revision.id) {
                return Ok(State::There);
            }
            format!("MLflow's tables at revision {}", identity.revision_text())
        }
    };
    Err(Failure::refused(format!(
        "the schema {schema} is not empty, so the tables of revision {} are not made there: {reason}",
        revision.id
    ))
    .hint("give another --database; tables of an older MLflow are brought up to date by `mlflow db upgrade`"))
}

/// How a password was found.
enum Checked {
    Same,
    Another,
    Unknown,
}

impl Prepared<'_> {
    pub(super) fn look(&mut self) -> Outcome<()> {
        let role = self.role()?;
        let special =
            |p: &SecretString| p.expose_secret().contains(|c: char| !c.is_ascii_alphanumeric() && !"-_.~".contains(c));
        if self.wanted.password.as_ref().is_some_and(special) {
            self.note("in an address the special characters of the password are written percent-encoded: %40 for @, %3A for :, %25 for %");
        }
        let database = self.database()?;
        if database == Found::Ready {
            self.look_inside()?;
        } else {
            let wanted = self.wanted;
            self.step(Step::new(
                Part::Schema,
                "public",
                State::Missing,
                format!("the role {} may make tables there", wanted.role),
            ));
            if let Some(revision) = wanted.revision {
                self.step(tables_step(revision, "public", State::Missing));
            }
        }
        if self.admin.has_timescale {
            self.note("TimescaleDB is installed on this server: MLflow's tables stay ordinary tables, and nothing of it is needed");
        }
        self.membership(role)?;
        self.rights()
    }

    fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    fn note(&mut self, note: impl Into<String>) {
        self.plan.notes.push(note.into());
    }

    /// The role; returns whether it is there.
    fn role(&mut self) -> Outcome<bool> {
        let name = self.wanted.role.clone();
        let quoted = quote(&name);
        let row = self
            .client
            .query_opt(
                "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, coalesce(rolvaliduntil < now(), false)
                 FROM pg_roles WHERE rolname = $1",
                &[&name],
            )
            .map_err(failed)?;
        let Some(row) = row else {
            let create = format!("CREATE ROLE {quoted} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE");
            let step = |detail: &str| Step::new(Part::Role, &name, State::Missing, detail);
            let step = match &self.wanted.password {
                Some(password) => step("may log in, with this password").secret_sql(
                    Place::Server,
                    &create,
                    &password::verifier(password),
                ),
                None => step("may log in, without a password").sql(Place::Server, create),
            };
            self.step(step);
            if self.wanted.password.is_none() {
                self.without_password();
            }
            return Ok(false);
        };
        let is = |i: usize| row.try_get::<_, bool>(i).map_err(failed);
        let mut differs = Vec::new();
        let mut sql = Vec::new();
        if !is(0)? {
            differs.push("it may not log in");
            sql.push(format!("ALTER ROLE {quoted} LOGIN"));
        }
        if is(4)? {
            differs.push("its password is valid no more (VALID UNTIL is past)");
            sql.push(format!("ALTER ROLE {quoted} VALID UNTIL 'infinity'"));
        }
        let state = if differs.is_empty() { State::There } else { State::Differs };
        let detail = if differs.is_empty() { "may log in".to_owned() } else { differs.join(", ") };
        let step = Step::new(Part::Role, &name, state, detail);
        self.step(sql.into_iter().fold(step, |step, sql| step.sql(Place::Server, sql)));
        let more = [(1, "SUPERUSER"), (2, "CREATEDB"), (3, "CREATEROLE")];
        let mut too_much = Vec::new();
        for (index, word) in more {
            if is(index)? {
                too_much.push(word);
            }
        }
        if !too_much.is_empty() {
            self.note(format!("the role {name} has {}, which MLflow does not need", too_much.join(", ")));
        }
        self.password()?;
        Ok(true)
    }

    fn without_password(&mut self) {
        self.note(format!(
            "the role {} has no password: it can log in only where pg_hba.conf says trust, peer or cert; \
             --password-env or --password-file gives it one",
            self.wanted.role
        ));
    }

    /// Whether a role that is there has the password that is wanted.
    fn password(&mut self) -> Outcome<()> {
        let name = self.wanted.role.clone();
        let stored: Option<Option<String>> = if self.admin.reads_verifiers {
            let row = self.client.query_one("SELECT rolpassword FROM pg_authid WHERE rolname = $1", &[&name]);
            Some(row.and_then(|row| row.try_get(0)).map_err(failed)?)
        } else {
            None
        };
        let Some(wanted) = &self.wanted.password else {
            if stored == Some(None) {
                self.without_password();
            }
            return Ok(());
        };
        let checked = match &stored {
            Some(None) => Checked::Another,
            Some(Some(stored)) => match password::matches(stored, &name, wanted) {
                Some(true) => Checked::Same,
                Some(false) => Checked::Another,
                None => self.try_login(),
            },
            None => self.try_login(),
        };
        let alter = format!("ALTER ROLE {}", quote(&name));
        let verifier = password::verifier(wanted);
        match checked {
            Checked::Same => self.step(Step::new(Part::Password, &name, State::There, "is the one that was given")),
            Checked::Another => {
                let detail = if stored == Some(None) { "it has none" } else { "it has another one" };
                let step = Step::new(Part::Password, &name, State::Differs, detail);
                self.step(step.secret_sql(Place::Server, &alter, &verifier));
            }
            Checked::Unknown => self.note(format!(
                "whether the password of the role {name} is this one cannot be seen by {}; psql's `\\password {name}` sets it",
                self.admin.name
            )),
        }
        Ok(())
    }

    /// Logs in with the password: what an administrator who may not read verifiers can do.
    fn try_login(&self) -> Checked {
        let mut address = self.address.clone();
        address.user = Some(self.wanted.role.clone());
        address.password = self.wanted.password.clone();
        address.file_passwords.clear();
        // The administrator's own certificate.
        address.parameters.retain(|(key, _)| !["sslcert", "sslkey", "options", "sslpassword"].contains(&key.as_str()));
        match Postgres::new(&address, self.id, self.cancel).and_then(|postgres| postgres.connect()) {
            Ok(_) => Checked::Same,
            Err(failure) if failure.message.contains("[28P01]") => Checked::Another,
            Err(_) => Checked::Unknown,
        }
    }

    fn database(&mut self) -> Outcome<Found> {
        let (name, role) = (self.wanted.database.clone(), self.wanted.role.clone());
        let (quoted, owner) = (quote(&name), quote(&role));
        let open = |step: Step| {
            step.sql(Place::AsRole, format!("REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC"))
                .sql(Place::AsRole, format!("ALTER DATABASE {quoted} ALLOW_CONNECTIONS true CONNECTION LIMIT -1"))
        };
        let connect = |state| Step::new(Part::Connect, &name, state, format!("only {role} and superusers may connect"));
        let row = self
            .client
            .query_opt(
                "SELECT pg_encoding_to_char(encoding)::text, pg_get_userbyid(datdba)::text, datallowconn, datconnlimit,
                        has_database_privilege('public', oid, 'CONNECT')
                 FROM pg_database WHERE datname = $1",
                &[&name],
            )
            .map_err(failed)?;
        let Some(row) = row else {
            let locale = self.locale()?;
            let create = create_database(&name, &role, &locale);
            let step = Step::new(Part::Database, &name, State::Missing, format!("UTF8, owned by {role}"));
            self.step(step.sql(Place::Server, create));
            self.step(open(connect(State::Missing)));
            self.note(format!(
                "only {role} and superusers may connect to {name}; for another role: GRANT CONNECT ON DATABASE {quoted} TO ..."
            ));
            return Ok(Found::Closed);
        };
        let get = |i: usize| row.try_get::<_, String>(i).map_err(failed);
        let (encoding, found_owner) = (get(0)?, get(1)?);
        let (allows, limit): (bool, i32) = (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
        let public: bool = row.try_get(4).map_err(failed)?;
        if limit == -2 {
            return Err(Failure::target(format!("the database {name} is what an interrupted DROP DATABASE left"))
                .hint(format!("end what was begun: DROP DATABASE {quoted};")));
        }
        if encoding != "UTF8" {
            return Err(Failure::target(format!(
                "the database {name} is there with the encoding {encoding}; MLflow's text needs UTF8, and an encoding cannot be changed"
            ))
            .hint(format!(
                "give another --database, or, if nothing in it is needed, drop it and run this again: DROP DATABASE {quoted};"
            )));
        }
        // Closed and with no place for anybody: what `create_database` makes, so an earlier run ended here.
        let unfinished = !allows && limit == 0 && found_owner == role;
        let mut differs = Vec::new();
        let mut sql = Vec::new();
        if found_owner != role {
            differs.push(format!("it belongs to {found_owner}"));
            sql.push(format!("ALTER DATABASE {quoted} OWNER TO {owner}"));
        }
        if !allows && !unfinished {
            differs.push("it takes no connections".to_owned());
            sql.push(format!("ALTER DATABASE {quoted} ALLOW_CONNECTIONS true"));
        }
        let state = if differs.is_empty() { State::There } else { State::Differs };
        let detail = if differs.is_empty() { format!("UTF8, owned by {role}") } else { differs.join(", ") };
        let step = Step::new(Part::Database, &name, state, detail);
        self.step(sql.into_iter().fold(step, |step, sql| step.sql(Place::Server, sql)));
        if unfinished {
            self.step(open(connect(State::Missing)));
            return Ok(Found::Closed);
        }
        if public {
            self.note(format!(
                "every role of this server may connect to {name}; to end that: REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC;"
            ));
        } else if allows {
            self.step(connect(State::There));
        }
        Ok(if allows { Found::Ready } else { Found::Closed })
    }

    /// Collation and character type for a new database: the cluster's own, unless that goes with UTF8 only in name.
    fn locale(&mut self) -> Result<String, Failure> {
        let row = self
            .client
            .query_one(
                "SELECT encoding = pg_char_to_encoding('UTF8') OR datctype IN ('C', 'POSIX') AND datcollate IN ('C', 'POSIX'),
                        (SELECT min(collcollate::text) FROM pg_collation
                         WHERE collprovider = 'c' AND lower(replace(collcollate::text, '-', '')) = 'c.utf8')
                 FROM pg_database WHERE datname = 'template0'",
                &[],
            )
            .map_err(failed)?;
        let fits: bool = row.try_get(0).map_err(failed)?;
        let found: Option<String> = row.try_get(1).map_err(failed)?;
        let locale = literal(found.as_deref().unwrap_or("C"));
        Ok(if fits { String::new() } else { format!(" LC_COLLATE {locale} LC_CTYPE {locale}") })
    }

    fn look_inside(&mut self) -> Outcome<()> {
        let role = self.wanted.role.clone();
        let mut client = self.connect_inside().map_err(|failure| {
            if !failure.message.contains("[42501]") {
                return failure;
            }
            let (role, admin) = (quote(&role), quote(&self.admin.name));
            failure.hint(format!("{} may not connect to it; as a superuser: GRANT {role} TO {admin};", self.admin.name))
        })?;
        let inside = inside(&mut client, &role)?;
        let step =
            |state| Step::new(Part::Schema, &inside.schema, state, format!("the role {role} may make tables there"));
        let missing = inside.missing(&role);
        let mut found = step(if missing.is_some() { State::Missing } else { State::There });
        // For the eye only: it runs inside the database.
        found.sql.extend(missing);
        self.step(found);
        if let Some(revision) = self.wanted.revision {
            let state = tables(&mut client, &inside.schema, revision)?;
            self.step(tables_step(revision, &inside.schema, state));
        }
        Ok(())
    }

    /// An administrator who is no superuser can give a database only to a role that it is a member of.
    fn membership(&mut self, role_is_there: bool) -> Outcome<()> {
        let as_owner = |s: &Step| s.state != State::There && !matches!(s.part, Part::Role | Part::Password);
        if self.admin.superuser || self.admin.name == self.wanted.role || !self.plan.steps.iter().any(as_owner) {
            return Ok(());
        }
        let role = self.wanted.role.clone();
        let mut state = State::Missing;
        if role_is_there {
            let row = self.client.query_one(&format!("SELECT {IS_MEMBER}, {HAS_ADMIN}"), &[&role]).map_err(failed)?;
            let (member, may): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            // Before 16 CREATEROLE was enough to join any role.
            let joins = may || (self.admin.version < 160_000 && self.admin.may_make_roles);
            if !member && !joins {
                let admin = quote(&self.admin.name);
                return Err(Failure::target(format!("{} may not act as the role {role}", self.admin.name))
                    .hint(format!("as a superuser: GRANT {} TO {admin};", quote(&role))));
            }
            state = if member { State::There } else { State::Missing };
        }
        let detail = format!("{} may act as it, as the owner of a database has to be made", self.admin.name);
        let step = Step::new(Part::Membership, &role, state, detail)
            .sql(Place::Server, format!("GRANT {} TO CURRENT_USER", quote(&role)));
        let at = self.plan.steps.iter().position(|s| s.part == Part::Database).unwrap_or(0);
        self.plan.steps.insert(at, step);
        Ok(())
    }

    /// Whether the administrator may do what is missing; all that is not allowed is told at once.
    fn rights(&self) -> Outcome<()> {
        let missing = |part: Part| self.plan.steps.iter().any(|s| s.part == part && s.state == State::Missing);
        let mut lacks = Vec::new();
        if missing(Part::Role) && !self.admin.may_make_roles {
            lacks.push("CREATEROLE");
        }
        if missing(Part::Database) && !self.admin.may_make_databases {
            lacks.push("CREATEDB");
        }
        if lacks.is_empty() {
            return Ok(());
        }
        let name = &self.admin.name;
        Err(Failure::target(format!("the role {name} lacks {}, which making this needs", lacks.join(" and "))).hint(format!(
            "as a superuser: ALTER ROLE {} {}; or give an administrator's address; or --print shows the SQL for one",
            quote(name),
            lacks.join(" ")
        )))
    }
}

/// Whether the session may act as the role `$1`. PostgreSQL 16 tells belonging from acting.
pub(super) const IS_MEMBER: &str = "
    pg_has_role(current_user, $1::name, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)
    AND pg_has_role(current_user, $1::name, 'USAGE')";
const HAS_ADMIN: &str = "pg_has_role(current_user, $1::name, 'MEMBER WITH ADMIN OPTION')";

/// The database as it was found.
#[derive(PartialEq, Eq)]
enum Found {
    /// It can be looked into.
    Ready,
    /// It is not there, or takes no connections yet.
    Closed,
}

fn tables_step(revision: &Revision, schema: &str, state: State) -> Step {
    let detail = format!("{} tables of {}", revision.tables.len(), revision.releases_text());
    Step::new(Part::Tables, &format!("{} in {schema}", revision.id), state, detail)
}

/// CREATE DATABASE; closed until nobody else may connect to it.
pub(super) fn create_database(name: &str, role: &str, locale: &str) -> String {
    format!(
        "CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0{locale} ALLOW_CONNECTIONS false CONNECTION LIMIT 0",
        quote(name),
        quote(role)
    )
}
