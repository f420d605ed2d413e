//! The outline of a SQLite file: a private file with its schema, its revisions, and the names of its experiments. For a look
//! at a large file that is taken often.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::snapshot::{COPY, Snapshot, look_beside};
use super::{Explain, open_readonly};
use crate::domain::ddl::quote;
use crate::domain::failure::Outcome;
use crate::domain::tracking::MOST_MARKS;
use crate::store::scratch::Scratch;

/// Reading the schema takes a lock for a moment; a writer that commits is waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The tables whose rows an outline has.
const VERSIONS: [&str; 2] = ["alembic_version", "alembic_version_auth"];

/// Takes the outline of `original`, in a folder below `work_dir`. `None`: the file is in WAL mode, or a journal waits to
/// be rolled back, so that opening it would leave a trace beside it; or its schema cannot be made anew. Then a
/// [`Snapshot`] tells.
///
/// # Errors
/// Source: locked for too long, damaged. Target: no room in `work_dir`.
pub fn outline(original: &Path, work_dir: &Path) -> Outcome<Option<Snapshot>> {
    let original = &std::fs::canonicalize(original).unwrap_or_else(|_| original.to_owned());
    let beside = look_beside(original)?;
    if beside.wal_mode || beside.journal.is_some() {
        return Ok(None);
    }
    let from = open_readonly(original, false).of_source(original)?;
    let folder = Scratch::new("mlops-snapshot-", work_dir)?;
    let path = folder.path().join(COPY);
    match statements(&from) {
        Ok(statements) => {
            let made = Connection::open(&path).and_then(|to| to.execute_batch(&statements));
            Ok(made.is_ok().then(|| Snapshot::of_private(folder, original.clone())))
        }
        // A journal that became hot since: only a writer may roll it back.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => Ok(None),
        Err(error) => Err(error).of_source(original),
    }
}

/// The statements that make the outline, read in one moment.
fn statements(from: &Connection) -> rusqlite::Result<String> {
    from.busy_timeout(PATIENCE)?;
    from.execute_batch("BEGIN")?;
    let mut script = String::from("PRAGMA synchronous=OFF; BEGIN;\n");
    let mut tables = Vec::new();
    {
        let mut all = from.prepare(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY rowid",
        )?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            script.push_str(&format!("{sql};\n"));
            if kind == "table" {
                tables.push(name);
            }
        }
    }
    for table in VERSIONS.iter().filter(|t| tables.iter().any(|name| name == *t)) {
        let mut all = from.prepare(&format!("SELECT quote(version_num) FROM {}", quote(table)))?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let value: String = row.get(0)?;
            script.push_str(&format!("INSERT INTO {} (version_num) VALUES ({value});\n", quote(table)));
        }
    }
    if tables.iter().any(|t| t == "experiments") {
        experiments(from, &mut script);
    }
    from.execute_batch("ROLLBACK")?;
    script.push_str("COMMIT;");
    Ok(script)
}

/// What tells the newest experiments from those of other stores. Revisions before MLflow 2 have no such column, and
/// nothing is copied of them.
fn experiments(from: &Connection, script: &mut String) {
    let sql = format!(
        "SELECT quote(experiment_id), quote(name), quote(creation_time) FROM experiments WHERE lifecycle_stage = \
         'active' ORDER BY creation_time DESC LIMIT {MOST_MARKS}"
    );
    let Ok(mut all) = from.prepare(&sql) else { return };
    let values = all.query_map([], |row| {
        let (id, name, created): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("({id}, {name}, {created}, 'active')"))
    });
    for values in values.into_iter().flatten().flatten() {
        script.push_str(&format!(
            "INSERT INTO experiments (experiment_id, name, creation_time, lifecycle_stage) VALUES {values};\n"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::introspect::observe;

    #[test]
    fn it_has_the_schema_and_the_revision_and_no_rows_and_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mlflow.db");
        let connection = Connection::open(&file).expect("new");
        connection
            .execute_batch(
                "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL); CREATE TABLE \"odd; name\" (a INTEGER \
                 PRIMARY KEY AUTOINCREMENT, b); CREATE INDEX i ON \"odd; name\" (b); INSERT INTO alembic_version VALUES \
                 ('it''s'); INSERT INTO \"odd; name\" (b) VALUES (1);",
            )
            .expect("filled");
        let seen = outline(&file, folder.path()).expect("read").expect("an outline");
        let observed = observe(&seen).expect("observed");
        assert_eq!(observed.versions, [("alembic_version".to_owned(), vec!["it's".to_owned()])]);
        assert_eq!(observed.tables.len(), 2);
        let copy = Connection::open(seen.path()).expect("there");
        let rows: i64 = copy.query_row("SELECT count(*) FROM \"odd; name\"", [], |r| r.get(0)).expect("counted");
        assert_eq!(rows, 0);
        drop((copy, seen));
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
        connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("wal");
        drop(connection);
        assert!(outline(&file, folder.path()).expect("looked at").is_none());
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
