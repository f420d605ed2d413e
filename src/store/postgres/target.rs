//! A PostgreSQL database as the target of a job: what it is, what it holds, and whether the job may be done.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postgres::{Client, GenericClient};

use super::connect::{Postgres, server_version};
use super::{introspect, target_failure};
use crate::domain::catalogue::{Catalogue, Line};
use crate::domain::ddl::{literal, quote};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity;
use crate::engine::cancel::Cancel;

/// The prefix of schemas that rows are loaded into before they are published.
pub const STAGE: &str = "mlops_stage_";
/// The prefix of schemas that replaced tables are kept in.
pub const REPLACED: &str = "mlops_replaced_";

/// A target as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `server_version_num`.
    pub version: i32,
    /// Database name.
    pub database: String,
    /// The role that will own the tables.
    pub owner: String,
    /// The schema that unqualified names mean, where the result will be.
    pub schema: String,
    /// What is in MLflow's place there.
    pub contents: Contents,
    /// Whether what is replaced has grants or owners that the new tables will not have.
    pub lost_grants: bool,
}

/// The place that a job takes in a schema.
#[derive(Debug, Clone)]
pub struct Place {
    /// The lines of MLflow's that are moved.
    pub lines: Vec<Line>,
    /// Tables that the job makes, and those of other revisions of its lines: they would disturb MLflow there.
    pub tables: BTreeSet<String>,
    /// Indexes and sequences that the job makes: they share one space of names with tables.
    pub objects: BTreeSet<String>,
}

/// What is in that place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Nothing.
    Empty,
    /// Tables that a server made on its first start, with nothing but what it puts there by itself.
    Fresh(Vec<String>),
    /// A store of MLflow's with somebody's data: the tables, and a word on what they hold.
    Data(Vec<String>, String),
    /// Something that is not MLflow's, or no sound store of it: never touched.
    Foreign(String),
}

impl Contents {
    /// The tables that are there and may be replaced.
    pub fn tables(&self) -> &[String] {
        match self {
            Contents::Empty | Contents::Foreign(_) => &[],
            Contents::Fresh(tables) | Contents::Data(tables, _) => tables,
        }
    }
}

/// Looks at the target.
///
/// # Errors
/// Target: not UTF-8, no schema, not permitted - with the statement that mends it -, or names that are taken.
pub fn look(client: &mut Client, place: &Place) -> Outcome<Target> {
    let failed = |e: postgres::Error| target_failure("looking at the target", &e);
    let row = client
        .query_one(
            "SELECT current_database()::text, getdatabaseencoding()::text, current_user::text, pg_is_in_recovery(),
                    has_database_privilege(current_database(), 'CREATE'), current_setting('search_path'),
                    current_setting('transaction_read_only') = 'on'",
            &[],
        )
        .map_err(failed)?;
    let get = |i: usize| row.try_get::<_, String>(i).map_err(failed);
    let (database, encoding, user, search_path) = (get(0)?, get(1)?, get(2)?, get(5)?);
    let (recovering, may_create): (bool, bool) = (row.try_get(3).map_err(failed)?, row.try_get(4).map_err(failed)?);
    if recovering {
        return Err(Failure::target(format!("the database {database} is a standby, which takes no writes"))
            .hint("give the primary's address"));
    }
    if row.try_get(6).map_err(failed)? {
        return Err(Failure::target(format!("sessions of {user} in {database} are read-only"))
            .hint("default_transaction_read_only is on for this role or database: switch it off for the migration"));
    }
    if encoding != "UTF8" {
        return Err(Failure::target(format!(
            "the database {database} has the encoding {encoding}, and MLflow's text needs UTF8"
        ))
        .hint("CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"));
    }
    if !may_create {
        return Err(Failure::target(format!("the role {user} may not create a schema in the database {database}"))
            .hint(format!(
                "as the database's owner: GRANT CREATE ON DATABASE {} TO {};",
                quote(&database),
                quote(&user)
            )));
    }
    let Some(schema) = introspect::current_schema(client).map_err(failed)? else {
        return Err(Failure::target(format!(
            "the search path ({search_path}) names no schema that exists in {database}"
        ))
        .hint(format!("CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO {};", quote(&user))));
    };
    let may_use: bool = client
        .query_one("SELECT has_schema_privilege($1, 'CREATE')", &[&schema])
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    if !may_use {
        return Err(Failure::target(format!(
            "the role {user} may not create tables in the schema {schema} of {database}"
        ))
        .hint(format!(
            "as the schema's owner: GRANT CREATE ON SCHEMA {} TO {};",
            quote(&schema),
            quote(&user)
        )));
    }
    let contents = contents(client, &schema, place)?;
    let taken = taken_names(client, &schema, place, contents.tables()).map_err(failed)?;
    if !taken.is_empty() {
        return Err(Failure::target(format!(
            "the schema {schema} of {database} has other objects under names that MLflow needs: {}",
            taken.join(", ")
        ))
        .hint("leftovers of another tool or table: rename or drop them, or give an empty database"));
    }
    let owned = ownership(client, &schema, contents.tables(), &user).map_err(failed)?;
    Ok(Target {
        version: server_version(client)?,
        contents,
        database,
        owner: owned.owner.unwrap_or(user),
        lost_grants: owned.granted,
        schema,
    })
}

/// Is there room for `needed` bytes on the server's disk? Only where the server is on this machine and says where its
/// data are; elsewhere nobody outside the server can tell.
///
/// # Errors
/// Target: there is not.
pub fn check_room(client: &mut Client, needed: u64) -> Outcome<()> {
    let folder = client
        .query_one("SELECT CASE WHEN inet_server_addr() IS NULL THEN current_setting('data_directory', true) END", &[])
        .and_then(|row| row.try_get::<_, Option<String>>(0));
    // A role without pg_read_all_settings may not see it.
    let Ok(Some(folder)) = folder else { return Ok(()) };
    let Ok(stat) = rustix::fs::statvfs(folder.as_str()) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= needed {
        return Ok(());
    }
    Err(Failure::target(format!(
        "the disk of the database server has {} MiB free in {folder}, and the copy takes about {}",
        free >> 20,
        needed >> 20
    ))
    .hint("make room there first: a server whose disk is full stops for everybody"))
}

struct Ownership {
    /// The one other role that owns what is there, if this role may hand tables to it.
    owner: Option<String>,
    /// Whether there are grants, or owners, that the new tables will not have.
    granted: bool,
}

/// Whom the tables belong to that are replaced: MLflow's role must own the new ones as well.
fn ownership(client: &mut Client, schema: &str, tables: &[String], user: &str) -> Result<Ownership, postgres::Error> {
    let rows = client.query(
        "SELECT DISTINCT pg_get_userbyid(c.relowner)::text, pg_has_role(c.relowner, 'MEMBER'), c.relacl IS NOT NULL
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = ANY($2)",
        &[&schema, &tables],
    )?;
    let mut found = Ownership { owner: None, granted: false };
    let mut owners: BTreeSet<String> = BTreeSet::new();
    for row in rows {
        let (owner, may, granted): (String, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        found.granted |= granted || (!may && owner != user);
        if may && owner != user {
            found.owner = Some(owner.clone());
        }
        owners.insert(owner);
    }
    if owners.len() > 1 {
        found = Ownership { owner: None, granted: true };
    }
    Ok(found)
}

/// Names that the job needs and that something has which does not belong to the tables that are replaced.
fn taken_names(
    client: &mut Client,
    schema: &str,
    place: &Place,
    replaced: &[String],
) -> Result<Vec<String>, postgres::Error> {
    let names: Vec<&String> = place.objects.iter().chain(&place.tables).collect();
    let rows = client.query(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relname <> ALL($3) AND c.relkind <> 't'
           AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
                           WHERE i.indexrelid = c.oid AND t.relname = ANY($3))
           AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
                           WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
                             AND d.refclassid = 'pg_class'::regclass AND t.relname = ANY($3))
           AND c.relkind NOT IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
        &[&schema, &names, &replaced],
    )?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// What is in a place.
///
/// # Errors
/// Target: the database failed.
pub fn contents(client: &mut impl GenericClient, schema: &str, place: &Place) -> Outcome<Contents> {
    let failed = |e: postgres::Error| target_failure("looking at what the target holds", &e);
    let names: Vec<&str> = place.tables.iter().map(String::as_str).collect();
    let rows = client
        .query(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
            &[&schema, &names],
        )
        .map_err(failed)?;
    let there: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    let there = there.map_err(failed)?;
    if there.is_empty() {
        return Ok(Contents::Empty);
    }
    let observed = introspect::observe(client, schema).map_err(failed)?;
    let identity = match identity::identify(&observed, Catalogue::embedded()?) {
        Ok(identity) => identity,
        Err(reason) => return Ok(Contents::Foreign(format!("{}: {}", there.join(", "), reason.message))),
    };
    // Only what belongs to a line that is moved may give way to it.
    let gives_way = |name: &String| {
        identity.revisions.iter().any(|r| {
            let version = r.version_tables.contains(name) && identity.tables.iter().any(|t| t.name == *name);
            let claimed = identity.revisions.iter().filter(|o| o.version_tables.contains(name)).count() == 1;
            place.lines.contains(&r.line) && (r.table(name).is_some() || (version && claimed))
        })
    };
    if let Some(name) = there.iter().find(|name| !gives_way(name)) {
        return Ok(Contents::Foreign(format!("`{name}` is there and is not of the store that is moved")));
    }
    let found = somebodys(client, schema, &there, !identity.foreign_versions.is_empty()).map_err(failed)?;
    Ok(if found.is_empty() { Contents::Fresh(there) } else { Contents::Data(there, summary(found)) })
}

/// What is in MLflow's tables beside the rows that its own first start puts there (FACTS 2), and what uses them.
fn somebodys(
    client: &mut impl GenericClient,
    schema: &str,
    tables: &[String],
    shared_version: bool,
) -> Result<Vec<String>, postgres::Error> {
    let mut found: Vec<String> = Vec::new();
    for name in tables {
        let own = match name.as_str() {
            "alembic_version" | "alembic_version_auth" if !shared_version => "true",
            "experiments" => "experiment_id::text = '0' AND name = 'Default'",
            "workspaces" => "name = 'default'",
            _ => "false",
        };
        let sql = format!("SELECT count(*) FROM {}.{} AS t WHERE NOT ({own})", quote(schema), quote(name));
        let rows: i64 = client.query_one(&sql, &[])?.try_get(0)?;
        if rows > 0 {
            found.push(format!("{rows} in {name}"));
        }
    }
    let views = client.query(
        "SELECT DISTINCT v.relname::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
         JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class t ON t.oid = d.refobjid
         JOIN pg_namespace n ON n.oid = t.relnamespace
         WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
           AND n.nspname = $1 AND t.relname = ANY($2) AND v.oid <> t.oid ORDER BY 1",
        &[&schema, &tables],
    )?;
    for view in views {
        found.push(format!("the view {} over them", view.try_get::<_, String>(0)?));
    }
    Ok(found)
}

fn summary(mut found: Vec<String>) -> String {
    let more = found.len().saturating_sub(6);
    found.truncate(6);
    let more = if more > 0 { format!(", and more in {more} other tables") } else { String::new() };
    format!("{}{more}", found.join(", "))
}

/// Stages of roles that this one may act for, each with the session that owns it if that is still connected.
fn stages(client: &mut Client) -> Result<Vec<(String, Option<i32>)>, postgres::Error> {
    let rows = client.query(
        "SELECT n.nspname::text, (SELECT min(a.pid) FROM pg_stat_activity a
                WHERE a.application_name = 'mlops/' || substr(n.nspname, length($1) + 1))
         FROM pg_namespace n
         WHERE left(n.nspname, length($1)) = $1 AND pg_has_role(n.nspowner, 'USAGE') ORDER BY 1",
        &[&STAGE],
    )?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// How long a dead predecessor's sessions may take to be gone: the server looks once a second whether their client is
/// still there.
const PATIENCE: Duration = Duration::from_secs(15);

/// Takes the lock that keeps two mlops from changing one schema at once; it lasts as long as `client`'s session.
///
/// # Errors
/// Locked: another session holds it and does not let go.
pub fn lock(client: &mut Client, schema: &str, cancel: &Cancel) -> Outcome<()> {
    lock_on(client, schema, &format!("works on the schema {schema} of this database"), cancel)
}

/// Takes the lock of that name; `does` says what its holder does. It lasts as long as `client`'s session.
///
/// # Errors
/// Locked: another session holds it and does not let go.
pub fn lock_on(client: &mut Client, name: &str, does: &str, cancel: &Cancel) -> Outcome<()> {
    let failed = |e: postgres::Error| target_failure("taking the lock", &e);
    let begun = Instant::now();
    loop {
        cancel.check()?;
        let row = client
            .query_one("SELECT pg_try_advisory_lock(hashtext('mlops'), hashtext($1))", &[&name])
            .map_err(failed)?;
        if row.try_get(0).map_err(failed)? {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let holder = client
        .query_opt(
            "SELECT a.application_name || ' (server process ' || a.pid || ')' FROM pg_stat_activity a
             JOIN pg_locks l ON l.pid = a.pid
             WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
               AND a.application_name LIKE 'mlops/%' LIMIT 1",
            &[],
        )
        .ok()
        .flatten()
        .and_then(|row| row.try_get::<_, String>(0).ok());
    Err(Failure::locked(format!("{} {does}", holder.as_deref().unwrap_or("another mlops")))
        .hint("wait until it has ended; if it is dead, end its server process with pg_terminate_backend"))
}

/// Drops the stages whose owner is gone. A stage whose owner is connected belongs to a run on another schema and is
/// left alone - but a dead run's sessions take a moment to end, so it is looked at again for a while.
///
/// # Errors
/// Target: the database failed.
pub fn drop_abandoned(client: &mut Client, cancel: &Cancel) -> Outcome<Vec<String>> {
    let failed = |e: postgres::Error| target_failure("removing what an earlier run left", &e);
    let begun = Instant::now();
    let mut dropped = Vec::new();
    loop {
        cancel.check()?;
        let mut owned = false;
        for (stage, owner) in stages(client).map_err(failed)? {
            if owner.is_some() {
                owned = true;
                continue;
            }
            drop_stage(client, &stage).map_err(failed)?;
            dropped.push(stage);
        }
        if !owned || begun.elapsed() > Duration::from_secs(3) {
            return Ok(dropped);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Drops one stage with all that is in it.
pub(super) fn drop_stage(client: &mut Client, stage: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!(
        "SET lock_timeout = '20s'; SET client_min_messages = warning; DROP SCHEMA IF EXISTS {} CASCADE; RESET lock_timeout",
        quote(stage)
    ))
}

/// The sessions of this kind of run are named so.
pub fn stage_name(id: &str) -> String {
    format!("{STAGE}{id}")
}

/// A comment on the stage for whoever meets it in the database.
pub(super) fn stage_comment(stage: &str) -> String {
    let text = "mlops is loading rows into this schema; if no mlops runs, the next one removes it";
    format!("COMMENT ON SCHEMA {} IS {}", quote(stage), literal(text))
}

/// Connects as the job's main session, with the lock on the target's schema.
///
/// # Errors
/// As [`Postgres::connect`] and [`lock`].
pub fn connect_locked(postgres: &Postgres, schema: &str, cancel: &Cancel) -> Outcome<Client> {
    let mut client = postgres.connect_steady()?;
    lock(&mut client, schema, cancel)?;
    Ok(client)
}
