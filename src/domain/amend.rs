//! What may be changed in rows on their way because an operator asked for it: experiment ids that PostgreSQL's integer
//! cannot hold, and the addresses of artifacts that move as well. Everything else stays as it is, to the byte.
//!
//! Where ids and addresses stand was read in the code of MLflow 2.9.2, 3.4.0 and 3.17.2 and seen in real stores; each
//! place below names the file of MLflow that writes it.

use std::collections::BTreeMap;

use crate::domain::cell::{Batch, Cell};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::{Shape, Type};

/// New ids for experiments, by their old ones.
pub type ExperimentIds = BTreeMap<i64, i64>;

/// New ids for those that do not fit PostgreSQL's `integer`, in the same order after the highest one that does: MLflow
/// breaks ties of creation time by the id.
pub fn small_ids(ids: impl IntoIterator<Item = i64>) -> ExperimentIds {
    let (fit, big): (Vec<i64>, Vec<i64>) = ids.into_iter().partition(|id| i32::try_from(*id).is_ok());
    let first = fit.into_iter().max().unwrap_or(0).max(0) + 1;
    let mut big = big;
    big.sort_unstable();
    big.dedup();
    big.into_iter().zip(first..).collect()
}

/// A prefix of artifact addresses and what takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The prefix, as it stands in the store.
    pub from: String,
    /// What takes its place.
    pub to: String,
}

impl Rewrite {
    /// Parses `FROM=TO`.
    ///
    /// # Errors
    /// Usage: no `=`, an empty side, or a separator at the end of one side only.
    pub fn parse(text: &str) -> Outcome<Rewrite> {
        let usage = |what: &str| {
            Failure::usage(format!("--rewrite-artifacts: {what}"))
                .hint("the form is FROM=TO, as in file:///C:/mlruns=s3://bucket/mlruns; FROM is a prefix as it stands in the store, and the plan (--dry-run) shows which there are")
        };
        let (from, to) = text.split_once('=').ok_or_else(|| usage("there is no `=`"))?;
        if from.is_empty() || to.is_empty() {
            return Err(usage("one side is empty"));
        }
        if from.ends_with(SEPARATORS) != to.ends_with(SEPARATORS) {
            return Err(usage("one side ends with a separator and the other does not"));
        }
        Ok(Rewrite { from: from.to_owned(), to: to.to_owned() })
    }

    /// What is left of an address that this prefix begins, at the border of a path segment.
    fn rest<'a>(&self, address: &'a str) -> Option<&'a str> {
        let rest = address.strip_prefix(self.from.as_str())?;
        (rest.is_empty()
            || self.from.ends_with(SEPARATORS)
            || rest.starts_with(SEPARATORS)
            || rest.starts_with(['?', '#']))
        .then_some(rest)
    }
}

const SEPARATORS: [char; 2] = ['/', '\\'];

/// What is changed in the rows of a store.
#[derive(Debug, Clone, Default)]
pub struct Amendments {
    /// New ids of experiments.
    pub experiment_ids: ExperimentIds,
    /// Prefixes of artifact addresses, the longest first.
    rewrites: Vec<Rewrite>,
}

impl Amendments {
    /// Changes with that map and these prefixes, of which the longest that fits wins.
    pub fn new(experiment_ids: ExperimentIds, mut rewrites: Vec<Rewrite>) -> Self {
        rewrites.sort_by_key(|r| std::cmp::Reverse(r.from.len()));
        Amendments { experiment_ids, rewrites }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.experiment_ids.is_empty() && self.rewrites.is_empty()
    }

    /// The prefixes, the longest first.
    pub fn rewrites(&self) -> &[Rewrite] {
        &self.rewrites
    }

    /// The new address, where a prefix fits.
    pub fn address(&self, address: &str) -> Option<String> {
        self.rewrites.iter().find_map(|r| Some(format!("{}{}", r.to, r.rest(address)?)))
    }

    fn id(&self, text: &str) -> Option<i64> {
        self.experiment_ids.get(&text.trim().parse().ok()?).copied()
    }

    /// The new value of a cell of that place, where it changes.
    fn text(&self, what: Holds, text: &str) -> Option<String> {
        match what {
            Holds::Id => self.id(text).map(|id| id.to_string()),
            Holds::IdBeforeSlash => {
                let (id, rest) = text.split_once('/')?;
                Some(format!("{}/{rest}", self.id(id)?))
            }
            Holds::IdList => {
                let mut changed = false;
                let ids: Vec<String> = text
                    .split(',')
                    .map(|part| {
                        let new = self.id(part);
                        changed |= new.is_some();
                        new.map_or_else(|| part.to_owned(), |id| id.to_string())
                    })
                    .collect();
                changed.then(|| ids.join(","))
            }
            Holds::IdAfter(marker) => self.ids_after(marker, text),
            Holds::Address => self.address(text),
            Holds::AddressInJson => self.json_addresses(text),
        }
    }

    /// Every number that follows the marker; the rest stays to the byte.
    fn ids_after(&self, marker: &str, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        let mut changed = false;
        while let Some((before, after)) = rest.split_once(marker) {
            out.push_str(before);
            out.push_str(marker);
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, tail) = after.split_at(digits);
            match self.id(number) {
                Some(id) if tail.starts_with(['"', '\\']) => {
                    out.push_str(&id.to_string());
                    changed = true;
                }
                _ => out.push_str(number),
            }
            rest = tail;
        }
        out.push_str(rest);
        changed.then_some(out)
    }

    /// Every string of a JSON text that is an address; the rest stays to the byte.
    fn json_addresses(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        let mut changed = false;
        while let Some(start) = rest.find('"') {
            let (before, literal) = rest.split_at(start);
            let end = literal_end(literal)?;
            let (literal, after) = literal.split_at_checked(end)?;
            out.push_str(before);
            let value: Option<String> = serde_json::from_str(literal).ok();
            // A string that a colon follows is a key.
            let is_key = after.trim_start().starts_with(':');
            match value.filter(|_| !is_key).and_then(|value| self.address(&value)) {
                Some(address) => {
                    out.push_str(&serde_json::Value::from(address).to_string());
                    changed = true;
                }
                None => out.push_str(literal),
            }
            rest = after;
        }
        out.push_str(rest);
        changed.then_some(out)
    }
}

/// The length of the string literal that a JSON text begins with, its quotes included.
fn literal_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// How a text holds an id or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// An experiment's id and nothing else.
    Id,
    /// An experiment's id before the first slash.
    IdBeforeSlash,
    /// Ids between commas: `,1,2,`.
    IdList,
    /// Ids that follow this text of a JSON document.
    IdAfter(&'static str),
    /// An artifact's address.
    Address,
    /// Strings of a JSON document that are addresses.
    AddressInJson,
}

struct Place {
    table: &'static str,
    column: &'static str,
    holds: Holds,
    /// Another column of the row, and the values it has there; none: every row.
    when: Option<(&'static str, &'static [&'static str])>,
}

const fn every(table: &'static str, column: &'static str, holds: Holds) -> Place {
    Place { table, column, holds, when: None }
}

const fn some(
    table: &'static str,
    column: &'static str,
    holds: Holds,
    when: (&'static str, &'static [&'static str]),
) -> Place {
    Place { table, column, holds, when: Some(when) }
}

/// Texts that hold ids of experiments. Integer columns need no list: all that are called `experiment_id` are.
const IDS: &[Place] = &[
    // store/tracking/sqlalchemy_store.py, entities/entity_type.py
    some("entity_associations", "destination_id", Holds::Id, ("destination_type", &["experiment"])),
    some("entity_associations", "source_id", Holds::Id, ("source_type", &["experiment"])),
    // prompt/constants.py, tracking/client.py
    some("registered_model_tags", "value", Holds::IdList, ("key", &["_mlflow_experiment_ids"])),
    // tracing/provider.py: a JSON text within the JSON of the span, as Python's json.dumps writes it
    every("spans", "content", Holds::IdAfter("\"mlflow.experimentId\": \"\\\"")),
    // server/handlers.py, genai/scorers/job.py
    every("jobs", "params", Holds::IdAfter("\"experiment_id\": \"")),
    // server/auth/db/models.py
    every("experiment_permissions", "experiment_id", Holds::Id),
    every("scorer_permissions", "experiment_id", Holds::Id),
    some("role_permissions", "resource_pattern", Holds::Id, ("resource_type", &["experiment"])),
    some("role_permissions", "resource_pattern", Holds::IdBeforeSlash, ("resource_type", &["scorer"])),
];

/// What holds addresses of artifacts. `dummy-source`, `models:/` and `runs:/` name no place, so no prefix of a place
/// fits them.
const ADDRESSES: &[Place] = &[
    every("experiments", "artifact_location", Holds::Address),
    every("runs", "artifact_uri", Holds::Address),
    // store/model_registry/sqlalchemy_store.py
    every("model_versions", "source", Holds::Address),
    every("model_versions", "storage_location", Holds::Address),
    every("logged_models", "artifact_location", Holds::Address),
    // tracing/utils/artifact_utils.py
    some("trace_tags", "value", Holds::Address, ("key", &["mlflow.artifactLocation", "mlflow.trace.archiveLocation"])),
    // store/workspace/dbmodels/models.py
    every("workspaces", "default_artifact_root", Holds::Address),
    every("workspaces", "trace_archival_location", Holds::Address),
    // data/artifact_dataset_sources.py: {"uri": "..."}, which may lie among the artifacts
    every("datasets", "dataset_source", Holds::AddressInJson),
];

/// A place in a table, found in its shape.
#[derive(Debug, Clone)]
pub struct Found {
    /// Position of the column.
    pub column: usize,
    holds: Holds,
    when: Option<(usize, &'static [&'static str])>,
}

impl Found {
    /// Whether this is an address and not an id.
    pub fn is_address(&self) -> bool {
        matches!(self.holds, Holds::Address | Holds::AddressInJson)
    }

    /// Whether the place is there in this row.
    pub fn applies(&self, batch: &Batch, row: &[Cell]) -> bool {
        let Some((column, values)) = self.when else { return true };
        match row.get(column) {
            Some(Cell::Text(span)) => values.iter().any(|v| v.as_bytes() == batch.bytes(*span)),
            _ => false,
        }
    }
}

/// The places of a table that hold addresses.
pub fn address_places(shape: &Shape) -> Vec<Found> {
    find(shape, ADDRESSES)
}

fn find(shape: &Shape, places: &[Place]) -> Vec<Found> {
    let position = |name: &str| shape.columns.iter().position(|c| c.name == name);
    let of_table = places.iter().filter(|p| p.table == shape.name);
    of_table
        .filter_map(|place| {
            let when = match place.when {
                Some((column, values)) => Some((position(column)?, values)),
                None => None,
            };
            Some(Found { column: position(place.column)?, holds: place.holds, when })
        })
        .collect()
}

/// What is changed in the rows of one table.
#[derive(Debug)]
pub struct TableAmendments<'a> {
    amendments: &'a Amendments,
    places: Vec<Found>,
}

impl<'a> TableAmendments<'a> {
    /// What the amendments mean for that table; `None`: its rows stay as they are.
    pub fn of(amendments: &'a Amendments, shape: &Shape) -> Option<Self> {
        let mut places = Vec::new();
        if !amendments.experiment_ids.is_empty() {
            let integers = shape.columns.iter().enumerate();
            let integers = integers
                .filter(|(_, c)| c.name == "experiment_id" && matches!(c.kind, Type::Int4 | Type::Int8))
                .map(|(column, _)| Found { column, holds: Holds::Id, when: None });
            places.extend(integers);
            places.extend(find(shape, IDS));
        }
        if !amendments.rewrites.is_empty() {
            places.extend(find(shape, ADDRESSES));
        }
        (!places.is_empty()).then_some(TableAmendments { amendments, places })
    }

    /// Appends the row to `out` as it is to be, and says for each cell that changed whether it was an address.
    pub fn row(&self, batch: &Batch, row: &[Cell], out: &mut Batch, changed: &mut dyn FnMut(&Found)) {
        for (position, cell) in row.iter().enumerate() {
            let mut places = self.places.iter().filter(|p| p.column == position && p.applies(batch, row));
            let new = places.find_map(|place| Some((place, self.new_cell(place.holds, batch, *cell)?)));
            match new {
                None => out.push_row(batch, std::slice::from_ref(cell)),
                Some((place, New::Integer(id))) => {
                    out.push(Cell::Int(id));
                    changed(place);
                }
                Some((place, New::Text(text))) => {
                    let make: fn(_) -> Cell = if matches!(cell, Cell::Json(_)) { Cell::Json } else { Cell::Text };
                    out.push_bytes(make, text.as_bytes());
                    changed(place);
                }
            }
        }
    }

    fn new_cell(&self, holds: Holds, batch: &Batch, cell: Cell) -> Option<New> {
        match cell {
            Cell::Int(id) if holds == Holds::Id => self.amendments.experiment_ids.get(&id).map(|id| New::Integer(*id)),
            Cell::Text(span) | Cell::Json(span) => {
                let text = std::str::from_utf8(batch.bytes(span)).ok()?;
                self.amendments.text(holds, text).map(New::Text)
            }
            _ => None,
        }
    }
}

enum New {
    Integer(i64),
    Text(String),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::table::{Column, TableShape};

    const BIG: i64 = 490_770_468_155_569_826;

    fn amendments() -> Amendments {
        let rewrites = ["/mnt/old=s3://bucket", "/mnt/old/deep=/deep", "file:///C:/ml/=/srv/ml/"];
        Amendments::new(
            small_ids([0, 7, BIG, BIG + 5]),
            rewrites.into_iter().map(|r| Rewrite::parse(r).expect(r)).collect(),
        )
    }

    #[test]
    fn new_ids_keep_the_order_and_come_after_those_that_stay() {
        assert_eq!(small_ids([BIG + 5, 0, 7, BIG]), BTreeMap::from([(BIG, 8), (BIG + 5, 9)]));
        assert_eq!(small_ids([BIG]), BTreeMap::from([(BIG, 1)]));
        assert!(small_ids([0, 1, 2_147_483_647]).is_empty());
    }

    #[test]
    fn a_prefix_ends_at_the_border_of_a_segment_and_the_longest_wins() {
        let it = amendments();
        for (from, to) in [
            ("/mnt/old", Some("s3://bucket")),
            ("/mnt/old/1/a", Some("s3://bucket/1/a")),
            ("/mnt/older/1", None),
            ("/mnt/old/deep/x", Some("/deep/x")),
            ("/mnt/old/deeper", Some("s3://bucket/deeper")),
            ("file:///C:/ml/x", Some("/srv/ml/x")),
            ("file:///C:/mlx", None),
            ("models:/m-1", None),
            ("x/mnt/old/1", None),
        ] {
            assert_eq!(it.address(from).as_deref(), to, "{from}");
        }
        for wrong in ["", "x", "=x", "x=", "/a/=/b", "/a=/b/"] {
            assert!(Rewrite::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_in_texts_are_found_where_mlflow_puts_them_and_nowhere_else() {
        let it = amendments();
        let list = format!(",{BIG},0,{},", BIG + 5);
        assert_eq!(it.text(Holds::IdList, &list).as_deref(), Some(",8,0,9,"));
        assert_eq!(it.text(Holds::IdList, ",0,"), None);
        assert_eq!(it.text(Holds::IdBeforeSlash, &format!("{BIG}/a%2Fb")).as_deref(), Some("8/a%2Fb"));
        let span =
            format!(r#"{{"attributes": {{"mlflow.experimentId": "\"{BIG}\"", "x": "mlflow-artifacts:/{BIG}/1"}}}}"#);
        let marker = "\"mlflow.experimentId\": \"\\\"";
        let new = format!(r#"{{"attributes": {{"mlflow.experimentId": "\"8\"", "x": "mlflow-artifacts:/{BIG}/1"}}}}"#);
        assert_eq!(it.text(Holds::IdAfter(marker), &span), Some(new));
        assert_eq!(it.text(Holds::IdAfter(marker), r#"{"mlflow.experimentId": "\"12\""}"#), None);
    }

    #[test]
    fn addresses_in_json_change_alone() {
        let it = amendments();
        let text = r#"{"uri":  "/mnt/old/d\u00e4ta \"x\"", "/mnt/old": ["/mnt/older", "/mnt/old"], "n": 1e400}"#;
        let new = r#"{"uri":  "s3://bucket/däta \"x\"", "/mnt/old": ["/mnt/older", "s3://bucket"], "n": 1e400}"#;
        assert_eq!(it.text(Holds::AddressInJson, text).as_deref(), Some(new));
        for text in ["{}", "\"", "not \"json", r#"{"uri": "/else"}"#] {
            assert_eq!(it.text(Holds::AddressInJson, text), None, "{text}");
        }
    }

    #[test]
    fn only_the_cells_that_hold_one_change() {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind, max_chars: None, not_null: false };
        let shape: Shape = Arc::new(TableShape {
            name: "trace_tags".to_owned(),
            columns: vec![column("key", Type::Text), column("value", Type::Text), column("experiment_id", Type::Int4)],
            key: vec![0],
            only: None,
        });
        let it = amendments();
        let table = TableAmendments::of(&it, &shape).expect("has places");
        let mut batch = Batch::new(shape.clone());
        for key in ["mlflow.artifactLocation", "note"] {
            batch.push_bytes(Cell::Text, key.as_bytes());
            batch.push_bytes(Cell::Text, b"/mnt/old/1");
            batch.push(Cell::Int(BIG));
        }
        let mut out = Batch::new(shape);
        let mut addresses = 0;
        for row in batch.iter() {
            table.row(&batch, row, &mut out, &mut |place| addresses += u32::from(place.is_address()));
        }
        let rows: Vec<_> = out.iter().collect();
        let text = |cell: Cell| match cell {
            Cell::Text(span) => String::from_utf8(out.bytes(span).to_vec()).expect("text"),
            other => format!("{other:?}"),
        };
        assert_eq!(
            rows[0].iter().map(|c| text(*c)).collect::<Vec<_>>(),
            ["mlflow.artifactLocation", "s3://bucket/1", "Int(8)"]
        );
        assert_eq!(rows[1].iter().map(|c| text(*c)).collect::<Vec<_>>(), ["note", "/mnt/old/1", "Int(8)"]);
        assert_eq!(addresses, 1);
    }
}
