//! A database that lives as long as one job, on a server that was given: for a restore that is tried and thrown away.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::error::SqlState;

use super::connect::{Postgres, server_version};
use super::{target, target_failure};
use crate::domain::address::PgAddress;
use crate::domain::ddl::quote;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// The prefix of their names.
pub const DRILL: &str = "mlops_drill_";

/// How long sessions that are told to end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A database that is dropped with this value. What a killed owner left is dropped by the next one that is made on the
/// same server by a role that may.
pub struct TemporaryDatabase {
    name: String,
    address: PgAddress,
    postgres: Postgres,
    /// Holds the lock that says that the owner lives; `None` once the database is dropped.
    owner: Mutex<Option<Client>>,
}

impl TemporaryDatabase {
    /// Makes `mlops_drill_<id>` on the server of `address`, whose own database is only connected to.
    ///
    /// # Errors
    /// Target: the server cannot be reached, or the role may not make a database, with the statement that lets it.
    pub fn create(address: &PgAddress, id: &str, cancel: &Cancel) -> Outcome<TemporaryDatabase> {
        let postgres = Postgres::new(address, id, cancel)?;
        let mut owner = postgres.connect_steady()?;
        may_create(&mut owner)?;
        drop_abandoned(&mut owner, cancel)?;
        let name = format!("{DRILL}{}", id.to_ascii_lowercase());
        // Before there is a database of that name: one without the lock is taken for abandoned.
        target::lock_on(&mut owner, &name, &format!("has the database {name}"), cancel)?;
        let there = owner.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]);
        if there.map_err(|e| target_failure("looking for temporary databases", &e))?.is_some() {
            return Err(Failure::target(format!("the database {name} is there already and belongs to another role"))
                .hint(format!("as its owner, once nothing needs it: DROP DATABASE {}", quote(&name))));
        }
        // The new database has no schema but its own, and an address may name one.
        let mut parameters = address.parameters.clone();
        parameters.retain(|(key, _)| key != "options");
        let address = PgAddress { database: Some(name.clone()), parameters, ..address.clone() };
        let made = TemporaryDatabase { name, address, postgres, owner: Mutex::new(Some(owner)) };
        made.make()?;
        Ok(made)
    }

    fn make(&self) -> Outcome<()> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = owner.as_mut() else { return Ok(()) };
        let name = quote(&self.name);
        let failed = |e: postgres::Error| target_failure("making a temporary database", &e);
        // The one locale that every server has and that goes with UTF-8.
        client
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
            ))
            .map_err(failed)?;
        // What will be in it is a whole store, secrets included.
        client.batch_execute(&format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC")).map_err(failed)
    }

    /// The address of the new database.
    pub fn address(&self) -> PgAddress {
        self.address.clone()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops it, after it has ended the sessions that are still in it.
    ///
    /// # Errors
    /// Target: the database server failed; the statement that drops it is the hint.
    pub fn drop_it(self) -> Outcome<()> {
        self.end()
    }

    fn end(&self) -> Outcome<()> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut client) = owner.take() else { return Ok(()) };
        if client.is_closed() {
            client = self.postgres.connect_steady()?;
        }
        drop_database(&mut client, &self.name).map_err(|e| {
            target_failure("dropping the temporary database", &e)
                .hint(format!("the next such run tries again; by hand: DROP DATABASE {}", quote(&self.name)))
        })
    }
}

impl Drop for TemporaryDatabase {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            tracing::warn!(database = self.name, "{failure}");
        }
    }
}

/// Whether the role may make databases.
fn may_create(client: &mut Client) -> Outcome<()> {
    let failed = |e: postgres::Error| target_failure("looking at the role's rights", &e);
    let sql = "SELECT current_user::text, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).map_err(failed)?;
    let (role, may): (String, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if may {
        return Ok(());
    }
    Err(Failure::target(format!("the role {role} may not make a database, which a drill on PostgreSQL needs"))
        .hint(format!("as a superuser: ALTER ROLE {} CREATEDB;", quote(&role))))
}

/// Drops databases whose owner is gone. Locks count in the database that a session is connected to, and an owner may have
/// been connected to any: so the list of all locks is looked at and none is taken.
fn drop_abandoned(client: &mut Client, cancel: &Cancel) -> Outcome<()> {
    let failed = |e: postgres::Error| target_failure("looking for temporary databases", &e);
    let rows = client
        .query(
            "SELECT d.datname::text FROM pg_database d
             WHERE left(d.datname, length($1)) = $1 AND pg_has_role(d.datdba, 'USAGE')
               AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                     AND l.classid::bigint = (hashtext('mlops')::bigint & 4294967295)
                     AND l.objid::bigint = (hashtext(d.datname::text)::bigint & 4294967295))
             ORDER BY 1",
            &[&DRILL],
        )
        .map_err(failed)?;
    for row in rows {
        cancel.check()?;
        let name: String = row.try_get(0).map_err(failed)?;
        drop_database(client, &name).map_err(|e| target_failure(&format!("dropping the abandoned {name}"), &e))?;
        tracing::info!(name, "dropped what an earlier run left");
    }
    Ok(())
}

/// Ends the sessions in a database and drops it.
fn drop_database(client: &mut Client, name: &str) -> Result<(), postgres::Error> {
    let force = server_version(client).is_ok_and(|version| version >= 130_000);
    let statement = format!("DROP DATABASE IF EXISTS {}{}", quote(name), if force { " WITH (FORCE)" } else { "" });
    let begun = Instant::now();
    loop {
        // Before 13 DROP DATABASE ends nobody.
        client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", &[&name])?;
        match client.batch_execute(&statement) {
            Err(e) if e.code() == Some(&SqlState::OBJECT_IN_USE) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            done => return done,
        }
    }
}
