//! The statements that mend a schema, and their order: what is wrong goes before what is right is made.

use std::collections::BTreeMap;

use std::fmt::Write as _;

use crate::domain::catalogue::{ColumnDef, ForeignKey, Index, Sequence, TableDef, Trigger};
use crate::domain::ddl::{self, literal, quote};
use crate::domain::step::{Phase, Step};

/// A type, with the default that the column is to have: PostgreSQL would carry the old one over in other words.
pub fn alter_type(table: &str, column: &ColumnDef, using: Option<&str>, old_default: bool) -> Vec<Step> {
    let name = quote(&column.name);
    let using = using.map_or(String::new(), |u| format!(" USING {u}"));
    let mut steps = Vec::new();
    if old_default {
        steps.push(Step::clause(Phase::Alter, table, format!("ALTER COLUMN {name} DROP DEFAULT")));
    }
    steps.push(Step::clause(Phase::Alter, table, format!("ALTER COLUMN {name} TYPE {}{using}", column.postgres)));
    steps.extend(set_default(table, column));
    steps
}

/// The column's default, or none.
pub fn set_default(table: &str, column: &ColumnDef) -> Option<Step> {
    let default = match (&column.sequence, &column.default) {
        (Some(Sequence::Serial(sequence)), _) => format!("nextval({}::regclass)", literal(&quote(sequence))),
        (_, Some(default)) => default.clone(),
        _ => return None,
    };
    Some(Step::clause(Phase::Alter, table, format!("ALTER COLUMN {} SET DEFAULT {default}", quote(&column.name))))
}

/// Takes away a default.
pub fn drop_default(table: &str, column: &str) -> Step {
    Step::clause(Phase::Alter, table, format!("ALTER COLUMN {} DROP DEFAULT", quote(column)))
}

/// NOT NULL or not.
pub fn set_not_null(table: &str, column: &ColumnDef, version: i32) -> Step {
    let name = quote(&column.name);
    let sql = match &column.not_null_name {
        _ if !column.not_null => format!("ALTER COLUMN {name} DROP NOT NULL"),
        // Before 18 NOT NULL has no name.
        Some(own) if version >= 180_000 => format!("ADD CONSTRAINT {} NOT NULL {name}", quote(own)),
        _ => format!("ALTER COLUMN {name} SET NOT NULL"),
    };
    Step::clause(Phase::Alter, table, sql)
}

/// A column that is missing.
pub fn add_column(table: &str, column: &ColumnDef) -> Vec<Step> {
    let mut sql = format!("ADD COLUMN {} {}", quote(&column.name), column.postgres);
    if let Some(default) = &column.default {
        let _ = write!(sql, " DEFAULT {default}");
    }
    if let Some(expression) = &column.generated {
        let _ = write!(sql, " GENERATED ALWAYS AS ({expression}) STORED");
    }
    if column.not_null {
        sql.push_str(" NOT NULL");
    }
    vec![Step::clause(Phase::Column, table, sql)]
}

/// Puts a generated column in its place. PostgreSQL adds columns at the end only, so those that follow it (name and
/// type as they are) move behind it; what stood on them has to be made again.
pub fn place_generated(table: &str, column: &ColumnDef, there: bool, behind: &[(&str, &str)]) -> Vec<Step> {
    let mut sql = format!("ALTER TABLE {}", quote(table));
    if there {
        let _ = write!(sql, "\n  DROP COLUMN {},", quote(&column.name));
    }
    let _ = write!(
        sql,
        "\n  ADD COLUMN {} {} GENERATED ALWAYS AS ({}) STORED",
        quote(&column.name),
        column.postgres,
        column.generated.as_deref().unwrap_or_default()
    );
    let aside = |name: &str| quote(&format!("mlops_{name}"));
    for (name, kind) in behind {
        let _ = write!(sql, ",\n  ADD COLUMN {} {kind}", aside(name));
    }
    let mut steps = vec![Step::new(Phase::Column, sql)];
    if behind.is_empty() {
        return steps;
    }
    let set: Vec<String> = behind.iter().map(|(name, _)| format!("{} = {}", aside(name), quote(name))).collect();
    steps.push(Step::new(Phase::Column, format!("UPDATE {} SET {}", quote(table), set.join(", "))));
    let drop: Vec<String> = behind.iter().map(|(name, _)| format!("DROP COLUMN {}", quote(name))).collect();
    steps.push(Step::new(Phase::Column, format!("ALTER TABLE {} {}", quote(table), drop.join(", "))));
    for (name, _) in behind {
        let sql = format!("ALTER TABLE {} RENAME COLUMN {} TO {}", quote(table), aside(name), quote(name));
        steps.push(Step::new(Phase::Column, sql));
    }
    steps
}

/// A sequence, made or adopted, and set after the highest number.
pub fn sequence(table: &TableDef, column: &ColumnDef, exists: bool, other: Option<&str>) -> Vec<Step> {
    let (name, owner) = (&column.name, format!("{}.{}", quote(&table.name), quote(&column.name)));
    let mut steps = Vec::new();
    match &column.sequence {
        Some(Sequence::Serial(sequence)) => {
            let sequence = quote(sequence);
            if !exists {
                let kind = &column.postgres;
                steps.push(Step::new(Phase::Sequence, format!("CREATE SEQUENCE {sequence} AS {kind}")));
            }
            steps.push(Step::new(Phase::Sequence, format!("ALTER SEQUENCE {sequence} OWNED BY {owner}")));
            steps.extend(set_default(&table.name, column));
            // What gave the numbers until now, when nothing else uses it.
            steps.extend(other.map(|o| Step::new(Phase::Rename, format!("DROP SEQUENCE {}", quote(o)))));
        }
        Some(Sequence::Identity(sequence)) => {
            if exists {
                steps.push(Step::new(Phase::Drop, format!("DROP SEQUENCE {} CASCADE", quote(sequence))));
            }
            let sql = format!(
                "ALTER COLUMN {} ADD GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME {})",
                quote(name),
                quote(sequence)
            );
            steps.push(Step::clause(Phase::Rename, &table.name, sql));
        }
        None => {}
    }
    steps.extend(set_sequences(table));
    steps
}

/// Sets the sequences of a table after the highest number.
pub fn set_sequences(table: &TableDef) -> Vec<Step> {
    ddl::set_sequences(table, &BTreeMap::new()).into_iter().map(|sql| Step::new(Phase::Rows, sql)).collect()
}

/// The kind of numbers that a sequence gives.
pub fn sequence_kind(sequence: &str, kind: &str) -> Step {
    Step::new(Phase::Sequence, format!("ALTER SEQUENCE {} AS {kind}", quote(sequence)))
}

/// Makes a primary key or unique constraint, over an index where one is there.
pub fn add_key(table: &str, name: &str, word: &str, columns: &[String], over_index: bool) -> Step {
    let name = quote(name);
    let of = if over_index {
        format!("USING INDEX {name}")
    } else {
        format!("({})", ddl::quote_list(columns.iter().map(String::as_str)))
    };
    let phase = if over_index { Phase::Constraint } else { Phase::Index };
    Step::new(phase, format!("ALTER TABLE {} ADD CONSTRAINT {name} {word} {of}", quote(table)))
}

/// Makes a CHECK.
pub fn add_check(table: &str, name: &str, expression: &str) -> Step {
    Step::clause(Phase::Constraint, table, format!("ADD CONSTRAINT {} CHECK ({expression})", quote(name)))
}

/// Makes a reference.
pub fn add_reference(table: &str, key: &ForeignKey) -> Step {
    Step::new(Phase::Reference, ddl::add_foreign_key(table, key))
}

/// Checks the rows that were there before a constraint.
pub fn validate(table: &str, name: &str) -> Step {
    Step::new(Phase::Reference, format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", quote(table), quote(name)))
}

/// Makes an index.
pub fn create_index(table: &str, index: &Index) -> Step {
    Step::new(Phase::Index, ddl::create_index(table, index))
}

/// Removes an index.
pub fn drop_index(name: &str) -> Step {
    Step::new(Phase::Drop, format!("DROP INDEX {}", quote(name)))
}

/// Removes a constraint.
pub fn drop_constraint(table: &str, name: &str, reference: bool) -> Step {
    let phase = if reference { Phase::DropReference } else { Phase::Drop };
    Step::new(phase, format!("ALTER TABLE {} DROP CONSTRAINT {}", quote(table), quote(name)))
}

/// Gives a constraint its name.
pub fn rename_constraint(table: &str, from: &str, to: &str) -> Step {
    let sql = format!("ALTER TABLE {} RENAME CONSTRAINT {} TO {}", quote(table), quote(from), quote(to));
    Step::new(Phase::Rename, sql)
}

/// Gives an index its name.
pub fn rename_index(from: &str, to: &str) -> Step {
    Step::new(Phase::Rename, format!("ALTER INDEX {} RENAME TO {}", quote(from), quote(to)))
}

/// Makes a table with all that belongs to it.
pub fn create_table(table: &TableDef) -> Vec<Step> {
    let post = ddl::post_data(&[std::sync::Arc::new(table.clone())]);
    let mut steps = vec![Step::new(Phase::Table, ddl::create_table(table))];
    let parts = [
        (Phase::Index, post.indexes),
        (Phase::Constraint, post.keys),
        (Phase::Reference, post.foreign_keys),
        (Phase::Trigger, post.triggers),
    ];
    for (phase, statements) in parts {
        steps.extend(statements.into_iter().map(|s| Step::new(phase, s.sql)));
    }
    steps
}

/// Removes a table, a schema with all that is in it, or a type.
pub fn drop_object(kind: &str, name: &str) -> Step {
    let cascade = if kind == "SCHEMA" { " CASCADE" } else { "" };
    let phase = if kind == "TYPE" { Phase::Rows } else { Phase::Drop };
    Step::new(phase, format!("DROP {kind} {}{cascade}", quote(name)))
}

/// Makes a trigger, in the place of another of its name.
pub fn make_trigger(table: &str, trigger: &Trigger, replaces: Option<&str>) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(name) = replaces {
        steps.push(Step::new(Phase::Drop, format!("DROP TRIGGER {} ON {}", quote(name), quote(table))));
    }
    // `CREATE OR REPLACE FUNCTION`: it may be there.
    steps.push(Step::new(Phase::Trigger, trigger.function.clone()));
    steps.push(Step::new(Phase::Trigger, trigger.definition.clone()));
    steps
}
