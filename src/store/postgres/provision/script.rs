//! The same as a script for psql, for whoever may not or will not let a program do it.

use super::look::{IS_MEMBER, create_database};
use super::{Wanted, tables};
use crate::domain::ddl::{literal, quote};
use crate::store::postgres::password;

/// A script that makes what is missing, any number of times. It holds the verifier of the password, never the password.
pub fn script(wanted: &Wanted) -> String {
    let (role, database) = (quote(&wanted.role), quote(&wanted.database));
    let (role_name, database_name) = (literal(&wanted.role), literal(&wanted.database));
    let mut create_role = format!("CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE");
    let password = match &wanted.password {
        Some(password) => {
            create_role.push_str(&format!(" PASSWORD {}", literal(&password::verifier(password))));
            "-- The password stands here as its SCRAM-SHA-256 verifier.".to_owned()
        }
        None => format!(
            "-- It has no password, which is enough where pg_hba.conf says trust, peer or cert; to give it one: \\password {role}"
        ),
    };
    let unfinished =
        format!("FROM pg_database WHERE datname = {database_name} AND NOT datallowconn AND datconnlimit = 0 \\gexec");
    let mut out = format!(
        r#"-- The role {role_comment} and the database {database_comment} for MLflow, as `mlops db init` makes them.
-- An administrator runs it (a superuser, or a role with CREATEROLE and CREATEDB):
--   psql -X -f init.sql "postgresql://postgres@HOST/postgres"
-- It makes what is missing and leaves what is there; `mlops db init --dry-run URL` tells what is there with other
-- properties. On TimescaleDB MLflow's tables stay ordinary tables (not tested there).
\set ON_ERROR_STOP on
\encoding UTF8
SET standard_conforming_strings = on;

-- The role: it may log in, and has no power on the server.
{password}
SELECT {create_role} WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {role_name}) \gexec

-- Who is no superuser can give a database only to a role that he is a member of.
SELECT {grant_role}
  FROM pg_roles WHERE rolname = current_user AND NOT rolsuper AND NOT ({is_member}) \gexec

-- The database. Where the cluster's locale does not go with UTF8, add: LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'
SELECT {create_database}
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {database_name}) \gexec
-- PostgreSQL lets every role connect to a new database, so it is opened only after that is taken back.
-- For another role: GRANT CONNECT ON DATABASE {database_comment} TO ...;
SELECT {revoke}
  {unfinished}
SELECT {open}
  {unfinished}

\connect -reuse-previous=on {connection}
\set ON_ERROR_STOP on
-- Before PostgreSQL 15 every role may make tables in the schema public, since then the owner of the database; this is
-- for a server where somebody took that back.
SELECT {grant_schema}
  WHERE NOT (has_schema_privilege({role_name}, 'public', 'CREATE') AND has_schema_privilege({role_name}, 'public', 'USAGE')) \gexec
"#,
        role_comment = one_line(&role),
        database_comment = one_line(&database),
        create_role = literal(&create_role),
        grant_role = literal(&format!("GRANT {role} TO CURRENT_USER")),
        is_member = IS_MEMBER.trim().replace("$1::name", &role_name),
        create_database = literal(&create_database(&wanted.database, &wanted.role, "")),
        revoke = literal(&format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")),
        open = literal(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true CONNECTION LIMIT -1")),
        connection = quote(&format!("dbname={}", connection_value(&wanted.database))),
        grant_schema = literal(&format!("GRANT ALL ON SCHEMA public TO {role}")),
    );
    if let Some(revision) = wanted.revision {
        out.push_str(&format!(
            "\n-- MLflow's tables at revision {} ({}), as MLflow makes them.\n",
            revision.id,
            revision.releases_text()
        ));
        out.push_str("SELECT to_regclass('public.alembic_version') IS NULL AS missing \\gset\n\\if :missing\n");
        out.push_str(&format!("BEGIN;\nSET LOCAL ROLE {role};\nSET LOCAL search_path = public;\n"));
        for sql in tables(revision) {
            out.push_str(&format!("{sql};\n"));
        }
        out.push_str("COMMIT;\n\\else\n\\echo 'alembic_version is there already: no tables were made'\n\\endif\n");
    }
    out
}

/// A name inside a comment of one line.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A value in libpq's connection string.
fn connection_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
