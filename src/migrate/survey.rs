//! The survey: every value of the source against the target's columns, every reference, key and CHECK, and the forms of
//! its artifact addresses - all of it before a row moves, and every finding at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::amend::{Amendments, Found, TableAmendments, address_places};
use crate::domain::artifact_address;
use crate::domain::cell::{Batch, Cell};
use crate::domain::count::counted;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::fit::{self, Misfit};
use crate::domain::table::Shape;
use crate::engine::compare::key_text;
use crate::engine::copy::{Work, wanted_parts};
use crate::engine::event::Event;
use crate::engine::pool;
use crate::source::OpenStore;
use crate::store::sqlite::quarantine::Quarantine;
use crate::store::sqlite::rules;
use crate::store::sqlite::source::SqliteSource;

/// Something in the source that the target cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// The column, where it is about values.
    pub column: Option<String>,
    /// What is wrong: "is longer than ...".
    pub what: String,
    /// Rows that it is true of.
    pub rows: u64,
    /// The keys of the first of them.
    pub first: Vec<String>,
    /// What to do about it.
    pub advice: &'static str,
}

impl Finding {
    /// One line for people.
    pub fn text(&self) -> String {
        let column = self.column.as_ref().map_or(String::new(), |c| format!(".{c}"));
        let rows = counted(self.rows, "row");
        format!("`{}{column}` {} ({rows}; first: {}): {}", self.table, self.what, self.first.join("; "), self.advice)
    }
}

/// A column whose values are longer than its VARCHAR takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlong {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The column's limit, in characters.
    pub limit: u32,
    /// The longest value, in characters.
    pub longest: u32,
    /// Values over the limit.
    pub rows: u64,
}

/// Addresses of one form in one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressForm {
    /// Table and column: `runs.artifact_uri`.
    pub place: String,
    /// `file:///C:/path`
    pub form: &'static str,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What the target cannot take, by table and column.
    pub findings: Vec<Finding>,
    /// Columns that would have to be wider.
    pub overlong: Vec<Overlong>,
    /// How many addresses there are of each form in each place, and how many of them are rewritten.
    pub addresses: BTreeMap<AddressForm, (u64, u64)>,
    /// How many experiment ids are changed in each place.
    pub ids: BTreeMap<String, u64>,
    /// Values that are -0.0, where SQLite is to take them.
    pub negative_zeros: u64,
}

const SHOWN: usize = 3;
const KEPT: &str =
    "SQLite has no value for it: mend these rows in the source, or move them to PostgreSQL or an archive";
const MEND: &str = "mend these rows, or --bad-rows quarantine puts them and what refers to them aside";

fn advice(misfit: Misfit, column: &str, remapped: bool) -> &'static str {
    match misfit {
        Misfit::NotANumber | Misfit::Digits => KEPT,
        Misfit::TooLong { .. } => {
            "--widen makes the column longer in the target, --bad-rows quarantine puts them aside"
        }
        Misfit::Range if column == "experiment_id" && !remapped => {
            "--remap-experiment-ids gives the experiments of a former file store ids that fit"
        }
        _ => MEND,
    }
}

/// What rows are meant for, and so by whose rules they are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// PostgreSQL, with all of its types, lengths and references.
    Postgres,
    /// A SQLite file, which refuses nothing and changes a few values.
    Sqlite,
    /// An archive, which takes everything as it is.
    Archive,
}

/// How a source is surveyed.
pub(super) struct Surveyor<'a> {
    pub(super) store: &'a OpenStore,
    pub(super) shapes: &'a [Shape],
    pub(super) amendments: &'a Amendments,
    /// Who is to take the rows.
    pub(super) taker: Taker,
    /// Whether text that is too long is no reason to put a row aside, because its column is widened.
    pub(super) widen: bool,
    /// Where bad rows are marked.
    pub(super) quarantine: Option<&'a Mutex<Quarantine>>,
    pub(super) work: &'a Work<'a>,
}

/// Reads the whole source and reports all that its taker could not keep.
///
/// # Errors
/// The source failed, or the interruption.
pub fn survey(store: &OpenStore, shapes: &[Shape], taker: Taker, work: &Work<'_>) -> Outcome<Survey> {
    let nothing = Amendments::default();
    Surveyor { store, shapes, amendments: &nothing, taker, widen: false, quarantine: None, work }.run()
}

/// What was found in one part of a table.
#[derive(Default)]
struct Part {
    misfits: BTreeMap<(usize, Misfit), Finding>,
    longest: BTreeMap<usize, (u32, u32, u64)>,
    addresses: BTreeMap<AddressForm, (u64, u64)>,
    ids: BTreeMap<String, u64>,
    negative_zeros: u64,
}

impl Surveyor<'_> {
    pub(super) fn run(&self) -> Outcome<Survey> {
        let total = self.store.source.shapes().iter().map(|s| self.store.source.rows(s)).sum::<Outcome<u64>>()?;
        self.work.events.event(Event::Phase { name: "surveying the source", total: Some(total), unit: "rows" });
        // Its own source, for a file: rows with their numbers, and no connection of it stays open.
        let numbered =
            self.store.snapshot.as_ref().map(|snapshot| {
                SqliteSource::new(snapshot.path(), snapshot.original().to_owned(), self.shapes.to_vec())
            });
        let mut tasks = Vec::new();
        for (index, shape) in self.shapes.iter().enumerate() {
            let source = self.store.source.as_ref();
            let rows = source.rows(shape)?;
            let parts = source.parts(shape, wanted_parts(rows))?;
            tasks.extend(parts.into_iter().map(|part| (rows, (index, shape, part))));
        }
        let found: Mutex<Vec<Part>> = Mutex::new(self.shapes.iter().map(|_| Part::default()).collect());
        pool::flow(self.work.jobs, tasks, self.work.cancel, |(index, shape, range)| {
            let mut part = Part::default();
            match &numbered {
                Some(source) => {
                    source.read_numbered(shape, range, &mut |batch, ids| self.batch(shape, batch, ids, &mut part))
                }
                None => self.store.source.read(shape, range, &mut |batch| self.batch(shape, batch, &[], &mut part)),
            }?;
            if let Some(whole) = found.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                whole.add(part);
            }
            Ok(Vec::new())
        })?;
        drop(numbered);
        let mut survey = Survey::default();
        for (shape, part) in self.shapes.iter().zip(found.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            survey.add(shape, part);
        }
        if let Some(snapshot) = self.store.snapshot.as_ref().filter(|_| self.taker == Taker::Postgres) {
            for broken in rules::broken(snapshot, &self.store.identity.tables, self.shapes, SHOWN)? {
                let rules::Broken { table, what, rows, first } = broken;
                survey.findings.push(Finding { table, column: None, what, rows, first, advice: MEND });
            }
        }
        Ok(survey)
    }

    fn batch(&self, shape: &Shape, batch: &Batch, numbers: &[i64], part: &mut Part) -> Outcome<()> {
        self.work.cancel.check()?;
        let places = address_places(shape);
        let amend = TableAmendments::of(self.amendments, shape);
        let mut amended = Batch::new(shape.clone());
        for (index, row) in batch.iter().enumerate() {
            let mut changed: Vec<usize> = Vec::new();
            let amended_row = match &amend {
                None => None,
                Some(amend) => {
                    amended.clear();
                    amend.row(batch, row, &mut amended, &mut |place: &Found| {
                        if place.is_address() {
                            changed.push(place.column);
                        } else if let Some(column) = shape.columns.get(place.column) {
                            *part.ids.entry(format!("{}.{}", shape.name, column.name)).or_default() += 1;
                        }
                    });
                    amended.iter().next()
                }
            };
            for place in &places {
                part.count_address(shape, place, batch, row, changed.contains(&place.column));
            }
            if self.taker != Taker::Archive {
                let number = numbers.get(index).copied();
                match amended_row {
                    Some(new) => self.judge(shape, &amended, new, number, part)?,
                    None => self.judge(shape, batch, row, number, part)?,
                }
            }
        }
        self.work.events.event(Event::Done { table: shape.name.clone(), units: batch.rows() as u64 });
        Ok(())
    }

    fn judge(&self, shape: &Shape, batch: &Batch, row: &[Cell], number: Option<i64>, part: &mut Part) -> Outcome<()> {
        for (position, (column, cell)) in shape.columns.iter().zip(row).enumerate() {
            let judged = match self.taker {
                Taker::Postgres => fit::check(column, batch, *cell),
                Taker::Sqlite => fit::check_sqlite(column, batch, *cell),
                Taker::Archive => Ok(()),
            };
            part.negative_zeros += u64::from(self.taker == Taker::Sqlite && cell.is_negative_zero());
            let Err(misfit) = judged else { continue };
            if let (Misfit::TooLong { limit }, Cell::Text(span)) = (misfit, cell) {
                let characters = String::from_utf8_lossy(batch.bytes(*span)).chars().count();
                let longest = part.longest.entry(position).or_insert((limit, 0, 0));
                longest.1 = longest.1.max(u32::try_from(characters).unwrap_or(u32::MAX));
                longest.2 += 1;
                if self.widen {
                    continue;
                }
            }
            let finding = part.misfits.entry((position, misfit)).or_insert_with(|| Finding {
                table: shape.name.clone(),
                column: Some(column.name.clone()),
                what: misfit.describe(),
                rows: 0,
                first: Vec::new(),
                advice: advice(misfit, &column.name, !self.amendments.experiment_ids.is_empty()),
            });
            finding.rows += 1;
            if finding.first.len() < SHOWN {
                let key = key_text(shape, batch, row);
                let key: Vec<String> = key.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                finding.first.push(key.join(", "));
            }
            if let (Some(quarantine), Some(number)) = (self.quarantine, number) {
                let why = format!("`{}` {}", column.name, misfit.describe());
                quarantine.lock().unwrap_or_else(PoisonError::into_inner).mark(&shape.name, number, &why)?;
            }
        }
        Ok(())
    }
}

impl Part {
    fn count_address(&mut self, shape: &Shape, place: &Found, batch: &Batch, row: &[Cell], rewritten: bool) {
        let (Some(Cell::Text(span)), true) = (row.get(place.column), place.applies(batch, row)) else { return };
        let Some(column) = shape.columns.get(place.column) else { return };
        let text = String::from_utf8_lossy(batch.bytes(*span));
        let form = if text.starts_with('{') { "in a JSON document" } else { artifact_address::form(&text) };
        let form = AddressForm { place: format!("{}.{}", shape.name, column.name), form };
        let count = self.addresses.entry(form).or_default();
        count.0 += 1;
        count.1 += u64::from(rewritten);
    }

    fn add(&mut self, other: Part) {
        for (key, finding) in other.misfits {
            match self.misfits.get_mut(&key) {
                None => {
                    self.misfits.insert(key, finding);
                }
                Some(mine) => {
                    mine.rows += finding.rows;
                    mine.first.extend(finding.first);
                    mine.first.truncate(SHOWN);
                }
            }
        }
        for (column, (limit, longest, rows)) in other.longest {
            let mine = self.longest.entry(column).or_insert((limit, 0, 0));
            *mine = (limit, mine.1.max(longest), mine.2 + rows);
        }
        for (form, (all, rewritten)) in other.addresses {
            let mine = self.addresses.entry(form).or_default();
            *mine = (mine.0 + all, mine.1 + rewritten);
        }
        for (place, rows) in other.ids {
            *self.ids.entry(place).or_default() += rows;
        }
        self.negative_zeros += other.negative_zeros;
    }
}

impl Survey {
    fn add(&mut self, shape: &Shape, part: Part) {
        self.findings.extend(part.misfits.into_values());
        for (position, (limit, longest, rows)) in part.longest {
            let column = shape.columns.get(position).map(|c| c.name.clone()).unwrap_or_default();
            self.overlong.push(Overlong { table: shape.name.clone(), column, limit, longest, rows });
        }
        for (form, (all, rewritten)) in part.addresses {
            let mine = self.addresses.entry(form).or_default();
            *mine = (mine.0 + all, mine.1 + rewritten);
        }
        self.ids.extend(part.ids);
        self.negative_zeros += part.negative_zeros;
    }
}

/// A word on values that are -0.0 in the source and come to SQLite.
pub(super) fn zeros_note(values: u64) -> Option<String> {
    (values > 0).then(|| {
        format!("{values} values are -0.0, which SQLite keeps as 0.0: the two are equal, and are counted as equal here")
    })
}

/// The findings as the failure that a migration ends with.
pub fn refusal(address: &str, engine: &str, findings: &[Finding]) -> Failure {
    let lines: Vec<String> = findings.iter().map(|f| format!("\n  - {}", f.text())).collect();
    Failure::source(format!("{address} holds what {engine} cannot keep, so nothing was migrated:{}", lines.concat()))
        .hint("nothing is ever cut or changed silently; --dry-run shows what each policy would do")
}
