//! The SQL in an archive: schema, what comes after the rows, and the script that puts it all together with psql alone.

use super::about::About;
use super::layout::{Compression, POST_DATA, TABLES};
use super::manifest::Manifest;
use crate::domain::ddl::{self, Statement, literal, quote, quote_list};
use crate::domain::failure::{Failure, Outcome};
use std::collections::BTreeMap;

/// Refuses names that a line of psql's cannot carry.
///
/// # Errors
/// Source: a table or a column has no name, or a control character in it.
pub(super) fn check_names(about: &About) -> Outcome<()> {
    for shape in &about.shapes {
        for name in std::iter::once(shape.name.as_str()).chain(shape.column_names()) {
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(Failure::source(format!(
                    "the table `{}` has an empty name or one with a line break in it, which a script for psql cannot carry",
                    shape.name.escape_debug()
                ))
                .hint("leave this table out of --include-table"));
            }
        }
    }
    Ok(())
}

/// `schema/postgres.sql`.
pub(super) fn tables(about: &About) -> String {
    let own = about.tables.iter().map(|t| ddl::create_table(t));
    let all = own.chain(about.foreign().map(|s| ddl::create_foreign_table(s)));
    format!("-- The tables, without keys and indexes.\n\n{}", all.map(|sql| sql + ";\n\n").collect::<String>())
}

/// `schema/post-data.sql`.
pub(super) fn post_data(about: &About) -> String {
    let post = ddl::post_data(&about.tables);
    let mut out = "-- Indexes, keys and triggers, once the rows are in.\n".to_owned();
    let mut put = |title: &str, statements: Vec<String>| {
        if !statements.is_empty() {
            out.push_str(&format!("\n-- {title}\n\n"));
            // Functions end with a line of their own; a semicolon more would be an empty statement, which is none.
            out.extend(statements.into_iter().map(|sql| sql.trim_end().trim_end_matches(';').to_owned() + ";\n"));
        }
    };
    let sql = |statements: Vec<Statement>| statements.into_iter().map(|s| s.sql).collect::<Vec<_>>();
    put("Indexes", sql(post.indexes));
    put(
        "Keys",
        sql(post.keys).into_iter().chain(about.foreign().filter_map(|s| ddl::add_foreign_table_key(s))).collect(),
    );
    put("Foreign keys", sql(post.foreign_keys));
    put("Triggers", sql(post.triggers));
    put("Sequences", about.tables.iter().flat_map(|t| ddl::set_sequences(t, &BTreeMap::new())).collect());
    put("Statistics", about.shapes.iter().map(|s| format!("ANALYZE {}", quote(&s.name))).collect());
    out
}

/// `restore.sql`: everything in one transaction, so that it is there wholly or not at all.
pub(super) fn restore(about: &About, manifest: &Manifest, compression: Compression) -> String {
    let mut out = header(about, manifest, compression);
    out.push_str("\\set ON_ERROR_STOP on\nSET client_encoding = 'UTF8';\nBEGIN;\n\n");
    out.push_str(&format!("\\ir {TABLES}\n\n"));
    for table in &manifest.tables {
        for widened in &table.widened {
            out.push_str(&format!(
                "-- {}.{}: the longest text has {} characters.\nALTER TABLE {} ALTER COLUMN {} TYPE {};\n\n",
                table.name,
                widened.column,
                widened.longest,
                quote(&table.name),
                quote(&widened.column),
                widened.postgres_type()
            ));
        }
    }
    let program = match compression {
        Compression::Gzip => "gzip -dc",
        Compression::Zstd => "zstd -dcq",
    };
    let mut entries: Vec<_> = manifest.entries.iter().collect();
    entries.sort_by_key(|entry| entry.order());
    for entry in entries {
        let Some(shape) = entry.rows.as_ref().and_then(|(t, _)| about.shapes.iter().find(|s| s.name == *t)) else {
            continue;
        };
        // psql takes such a line as it stands: no variable is put in, and quotes are doubled as in SQL.
        out.push_str(&format!(
            "\\copy {} ({}) from program '{program} {}'\n",
            quote(&shape.name),
            quote_list(shape.column_names()),
            entry.name
        ));
    }
    out.push_str(&format!("\n\\ir {POST_DATA}\n\n"));
    out.push_str(&counts(manifest));
    out.push_str("COMMIT;\n");
    out
}

fn header(about: &About, manifest: &Manifest, compression: Compression) -> String {
    let revisions: Vec<&str> = about.revisions.iter().map(|(_, id)| id.as_str()).collect();
    let rows: u64 = manifest.tables.iter().map(|t| t.digest.rows).sum();
    let mut lines = vec![
        format!("An MLflow database, exported by {} on {}", about.tool, about.started),
        format!("from {} {}, revision {}, {rows} rows.", about.engine, about.version, revisions.join(" and ")),
        String::new(),
        "To restore it into an empty PostgreSQL database (UTF8), with no more than psql:".to_owned(),
        String::new(),
        "    mkdir restored && cd restored && tar xf THE-ARCHIVE.tar && psql -d DATABASE -f restore.sql".to_owned(),
        String::new(),
        format!(
            "It runs in that folder, calls {}, and is one transaction: on any error nothing stays.",
            compression.word()
        ),
        "`mlops migrate import` does the same faster, and checks every row against manifest.json.".to_owned(),
    ];
    if manifest.tables.iter().any(|t| !t.widened.is_empty()) {
        lines.push(String::new());
        lines.push("Some texts are longer than MLflow's columns take; those columns are made wider below.".to_owned());
    }
    for table in manifest.tables.iter().filter(|t| t.unfit > 0) {
        lines.push(String::new());
        lines.push(format!(
            "{} values of {} cannot be held by PostgreSQL, so this script will fail on them: the archive",
            table.unfit, table.name
        ));
        lines.push("keeps them as SQLite had them. Mend them in the source and export it again.".to_owned());
    }
    let clean = |line: &String| format!("-- {}", line.replace(char::is_control, " ")).trim_end().to_owned() + "\n";
    lines.iter().map(clean).collect::<String>() + "\n"
}

/// A block that fails when a table does not have the rows that the archive has.
fn counts(manifest: &Manifest) -> String {
    let values: Vec<String> =
        manifest.tables.iter().map(|t| format!("    ({}, {}::bigint)", literal(&t.name), t.digest.rows)).collect();
    if values.is_empty() {
        return String::new();
    }
    let body = format!(
        "DECLARE
  expected record;
  found bigint;
BEGIN
  FOR expected IN SELECT * FROM (VALUES
{}
  ) AS counted (name, rows) LOOP
    EXECUTE format('SELECT count(*) FROM %I', expected.name) INTO found;
    IF found <> expected.rows THEN
      RAISE EXCEPTION 'the table % has % rows, and the archive has %', expected.name, found, expected.rows;
    END IF;
  END LOOP;
END
",
        values.join(",\n")
    );
    // Another program's table may have any name, the end of this quotation included.
    let mut tag = "counts".to_owned();
    while body.contains(&format!("${tag}$")) {
        tag.push('_');
    }
    format!("-- Every table has the rows that it had.\nDO ${tag}$\n{body}${tag}$;\n\n")
}
